//! authorize: policy's yes, as a value that the next stage needs.

use http::Request;
use http::uri::PathAndQuery;
use hyper::body::Incoming;

use super::exchange::{Exchange, Refused};
use super::inbound::Inbound;
use crate::credential::Stripped;

/// A request that policy permits. Only [`Inbound::authorize`] makes one, and [`Authorized::rewrite`] is
/// the only way on.
#[must_use]
pub(super) struct Authorized {
    pub(super) exchange: Exchange,
    pub(super) request: Request<Incoming>,
    pub(super) path_and_query: PathAndQuery,
    pub(super) stripped: Stripped,
    pub(super) websocket: bool,
}

impl Inbound {
    pub(super) fn authorize(self) -> Result<Authorized, Refused> {
        let Self { exchange, request, path_and_query, stripped, websocket } = self;
        let exchange = exchange.authorized()?;
        Ok(Authorized { exchange, request, path_and_query, stripped, websocket })
    }
}
