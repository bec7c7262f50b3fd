//! The bytes of a capability, as presented.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::InvalidCapability;
use super::container::Container;

/// A capability is at most this many bytes: some seven rich delegations, half of what a header may carry.
pub const CAPABILITY_BYTES_MAX: usize = 16 * 1024;

/// A biscuit as it was presented: bytes of bounded size, nothing known about them yet.
///
/// An unsealed one lets whoever reads it append narrowings, so its `Debug` shows only a part of its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Capability {
    bytes: Box<[u8]>,
    sha256: [u8; 32],
}

/// A capability could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Its container does not hold.
    #[error(transparent)]
    Invalid(#[from] InvalidCapability),
    /// It is sealed already: its last chain key is gone.
    #[error("the capability is sealed already")]
    Sealed,
}

impl Capability {
    /// Parses base64url without padding (RFC 4648 §5), in its one spelling: no padding, no stray last bits.
    ///
    /// # Errors
    /// [`InvalidCapability::Encoding`] and [`InvalidCapability::TooLarge`].
    pub fn from_text(text: &str) -> Result<Self, InvalidCapability> {
        if text.len() > CAPABILITY_BYTES_MAX.div_ceil(3) * 4 {
            return Err(InvalidCapability::TooLarge);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCapability::Encoding)?;
        Self::from_bytes(&bytes)
    }

    /// Takes the bytes of a biscuit, 1 to 16 KiB of them.
    ///
    /// # Errors
    /// [`InvalidCapability::TooLarge`], and [`InvalidCapability::Malformed`] for no bytes at all.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidCapability> {
        if bytes.is_empty() {
            return Err(InvalidCapability::Malformed);
        }
        if bytes.len() > CAPABILITY_BYTES_MAX {
            return Err(InvalidCapability::TooLarge);
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Ok(Self { bytes: bytes.into(), sha256 })
    }

    /// The bytes as presented.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// base64url without padding.
    #[must_use]
    pub fn to_text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(&self.bytes)
    }

    /// SHA-256 over the bytes as presented: what a proof covers, and the key of the verifier's cache.
    #[must_use]
    pub const fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Whether it ends in a seal, so that nothing can be appended. False when the bytes are not a biscuit.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        Container::decode(self).is_ok_and(|container| container.is_sealed())
    }

    /// The same capability with its last chain key replaced by a seal. Deterministic, so that a verifier's cache hits.
    ///
    /// # Errors
    /// [`SealError::Sealed`] when it is sealed already, [`SealError::Invalid`] when its container does not hold.
    pub fn seal(&self) -> Result<Self, SealError> {
        if Container::decode(self)?.is_sealed() {
            return Err(SealError::Sealed);
        }
        let sealed = biscuit_auth::UnverifiedBiscuit::from(&self.bytes)
            .and_then(|biscuit| biscuit.seal()?.to_vec())
            .map_err(|_| InvalidCapability::Malformed)?;
        Ok(Self::from_bytes(&sealed)?)
    }

    /// Itself when it is sealed, else as [`Capability::seal`] has it.
    ///
    /// # Errors
    /// [`SealError::Invalid`].
    pub fn to_sealed(&self) -> Result<Self, SealError> {
        match self.seal() {
            Err(SealError::Sealed) => Ok(self.clone()),
            sealed => sealed,
        }
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = hex::encode(self.sha256.get(..4).unwrap_or_default());
        write!(f, "Capability(sha256 {prefix}…, {} bytes)", self.bytes.len())
    }
}
