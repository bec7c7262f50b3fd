//! The one door: whether a capability allows a request, now. The proxy and `capctl explain` both ask here, so that they
//! cannot disagree.
//!
//! Everything here is pure. Deliberately absent: possession (`capability`, proof), which service a host is (`service`),
//! and every status code (`proxy`).

use std::fmt;

use crate::capability::{Account, Reservation, Revocations, Verified};
use crate::request::Facts;

mod code;
mod denial;
mod hint;

pub use code::Code;
pub use denial::Denial;

/// Evidence that a request is allowed, and what it has reserved. Made by [`decide`] alone, used up by one request.
#[must_use = "a permit is for one request: forward it, and meter it"]
pub struct Permit {
    reservation: Reservation,
}

impl Permit {
    /// The reservation, to meter.
    pub fn into_reservation(self) -> Reservation {
        self.reservation
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// Decides a request: revocation, rights and caveats, then budgets and rates, which count only what all caveats allow.
///
/// `account` is that of the same capability, resolved once ([`crate::capability::Ledger::account`]).
///
/// # Errors
/// [`Denial`], with the first code of `docs/errors.md` that applies.
pub fn decide(
    verified: &Verified,
    facts: &Facts<'_>,
    revocations: &Revocations,
    account: &Account,
) -> Result<Permit, Box<Denial>> {
    recheck(verified, facts, revocations)?;
    match account.reserve(facts.body_size, facts.time) {
        Ok(reservation) => Ok(Permit { reservation }),
        Err(error) => Err(Box::new(Denial::budget(verified, facts, &error))),
    }
}

/// The line that a person would type for more of a budget that ran out under way.
pub fn renewal_hint(verified: &Verified, facts: &Facts<'_>) -> String {
    hint::mint(verified, facts, "")
}

/// Decides again whether an exchange that is under way may go on: everything but what was counted at its start.
/// `facts` are those of its request, with the time of now.
///
/// # Errors
/// [`Denial`], as [`decide`].
pub fn recheck(verified: &Verified, facts: &Facts<'_>, revocations: &Revocations) -> Result<(), Box<Denial>> {
    if let Some(revoked) = revocations.is_revoked(verified) {
        return Err(Box::new(Denial::revoked(verified, facts, revoked)));
    }
    if verified.permits(facts) {
        return Ok(());
    }
    Err(Box::new(Denial::caveats(verified, facts)))
}

#[cfg(test)]
mod tests;
