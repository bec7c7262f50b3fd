//! Bounds and waits of the request path: those that are configured, and what proofs and chains may be.

use crate::capability::{self, ProofLimits};
use crate::clock::UnixSeconds;
use crate::config;

/// Set once, when the proxy starts.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `[limits]` and the waits of `[upstream]`.
    pub configured: config::Limits,
    /// How old and how long-lived proofs may be.
    pub proof: ProofLimits,
    /// How long chains may be.
    pub chain: capability::Limits,
}

impl Limits {
    /// The limits of a process that starts now.
    #[must_use]
    pub fn new(configured: config::Limits, started_at: UnixSeconds) -> Self {
        let presentation_ttl_max_s = u32::try_from(configured.presentation_ttl_max.as_secs()).unwrap_or(u32::MAX);
        Self {
            proof: ProofLimits { presentation_ttl_max_s, ..ProofLimits::since(started_at) },
            chain: capability::Limits { hops_max: configured.hops_max },
            configured,
        }
    }
}

/// The configured ones by their names.
impl std::ops::Deref for Limits {
    type Target = config::Limits;

    fn deref(&self) -> &config::Limits {
        &self.configured
    }
}
