//! Holdings: capabilities that the proxy itself holds, for clients of a listener that bring none.
//!
//! The proxy makes the proof in the client's place, and everything after it is the way of any other client: the same
//! checks of chain, time and revocation, the same journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::capability::{
    Capability, Context, Credentials, FRESH_TTL_MAX_S, InvalidCapability, PrivateKey, Proof, Purpose, SealError,
    claimed_holder,
};
use crate::clock::UnixSeconds;
use crate::store::random;

/// By the name of the listener that each is for.
pub type Holdings = BTreeMap<Arc<str>, Holding>;

/// A capability and the key of its holder.
pub struct Holding {
    /// Sealed, as it is presented.
    capability: Capability,
    sha256: [u8; 32],
    key: PrivateKey,
}

/// Why a capability and a key are no holding.
#[derive(Debug, thiserror::Error)]
pub enum BadHolding {
    /// It breaks a rule of the profile.
    #[error("the capability does not hold: {0}")]
    Capability(#[from] InvalidCapability),
    /// It has no form to be presented in.
    #[error("the capability does not hold: {0}")]
    Seal(#[from] SealError),
    /// Another holder's key.
    #[error("the key is not that of the capability's holder")]
    NotItsKey,
}

impl Holding {
    /// # Errors
    /// [`BadHolding`].
    pub fn new(capability: &Capability, key: PrivateKey) -> Result<Self, BadHolding> {
        if claimed_holder(capability)? != *key.public() {
            return Err(BadHolding::NotItsKey);
        }
        let capability = capability.to_sealed()?;
        Ok(Self { sha256: capability.sha256(), capability, key })
    }

    /// Sealed, as it is presented.
    pub(super) fn capability(&self) -> &Capability {
        &self.capability
    }

    /// Credentials for this purpose; `None` when the system gives no randomness or the key cannot sign.
    pub(super) fn credentials(&self, audience: &str, purpose: Purpose<'_>, now: UnixSeconds) -> Option<Credentials> {
        let context = Context::new(audience, purpose);
        let proof = Proof::sign(&self.key, &self.sha256, now, FRESH_TTL_MAX_S, random::bytes().ok()?, &context).ok()?;
        Some(Credentials { capability: self.capability.clone(), proof })
    }
}

/// Names no key.
impl std::fmt::Debug for Holding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holding").field("holder", self.key.public()).finish_non_exhaustive()
    }
}
