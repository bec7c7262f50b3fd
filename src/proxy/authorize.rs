//! authorize: policy's yes, as a value that the next stage needs.

use super::exchange::Refused;
use super::inbound::Inbound;

/// A request that policy permits. Only [`Inbound::authorize`] makes one, and `Authorized::rewrite` is the only way on.
#[must_use]
pub(super) struct Authorized(Inbound);

impl Inbound {
    pub(super) fn authorize(self) -> Result<Authorized, Refused> {
        let exchange = self.exchange.authorized()?;
        Ok(Authorized(Self { exchange, ..self }))
    }
}

impl Authorized {
    pub(super) fn into_inbound(self) -> Inbound {
        self.0
    }
}
