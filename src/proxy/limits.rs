//! Bounds and waits of the request path, in one place.

use std::time::Duration;

use crate::capability::{self, ProofLimits};
use crate::clock::UnixSeconds;
use crate::config;

/// An HTTP/2 client that sends nothing is asked this often whether it is there, and must answer within the other.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(15);

/// Set once, when the proxy starts.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Clients and tunnels at once; one more is closed at once.
    pub connections_max: usize,
    /// A client's whole head must come within this; also how long a connection may idle between requests.
    pub head_read: Duration,
    /// From a tunnel's first byte to the end of its TLS handshake.
    pub handshake: Duration,
    /// Resolving, connecting and TLS towards the upstream, together.
    pub dial: Duration,
    /// A client's body may pause for this long.
    pub upload_idle: Duration,
    /// An upstream may think for this long before the head of its answer; models take minutes.
    pub answer_head: Duration,
    /// An answer's body may pause for this long.
    pub answer_idle: Duration,
    /// A WebSocket or a plain tunnel may be silent for this long.
    pub tunnel_idle: Duration,
    /// A tunnel's longest age.
    pub tunnel_age_max: Duration,
    /// An HTTP/2 client that sends nothing is asked this often whether it is there…
    pub ping_every: Duration,
    /// …and must answer within this.
    pub ping_within: Duration,
    /// How old and how long-lived proofs may be.
    pub proof: ProofLimits,
    /// How long chains may be.
    pub chain: capability::Limits,
}

/// `[limits]` and `[upstream]` as configured; proofs count from 1970, until the caller says when the process started.
impl From<&config::Limits> for Limits {
    fn from(limits: &config::Limits) -> Self {
        Self {
            connections_max: limits.connections_max,
            head_read: limits.head_read,
            handshake: limits.handshake,
            dial: limits.dial,
            upload_idle: limits.upload_idle,
            answer_head: limits.answer_head,
            answer_idle: limits.answer_idle,
            tunnel_idle: limits.tunnel_idle,
            tunnel_age_max: limits.tunnel_age_max,
            ping_every: PING_EVERY,
            ping_within: PING_WITHIN,
            proof: ProofLimits::since(UnixSeconds(0)),
            chain: capability::Limits { hops_max: limits.hops_max },
        }
    }
}
