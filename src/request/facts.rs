//! The facts of a request: all that a capability's checks can see (`docs/capability.md`, "Facts").

use super::{CanonicalPath, Host, Scheme, Text};
use crate::clock::UnixSeconds;

/// How the holder showed possession of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProofKind {
    /// One CONNECT, wire value 1.
    Connect,
    /// One absolute-form request, wire value 2.
    Request,
    /// Many CONNECTs until it expires, wire value 3: bearer-like, the fallback.
    Presentation,
}

impl ProofKind {
    /// The value of the `proof` fact and of the journal's `proof` member.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Request => "request",
            Self::Presentation => "presentation",
        }
    }
}

/// One request as policy sees it. A fact that is `None` is absent: a row that needs it fails.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// `time(date)`: now, whole seconds.
    pub time: UnixSeconds,
    /// `service(str)`: the name of the service that serves the target.
    pub service: &'a str,
    /// `operation(str)`: `read`, `write`, `delete`, `tunnel`, or what the service's route says.
    pub operation: &'a str,
    /// `action(str)`: the name of the matched route; absent when none matched.
    pub action: Option<&'a str>,
    /// `scheme(str)`: `https` or `http`.
    pub scheme: Scheme,
    /// `host(str)`: canonical.
    pub host: &'a Host,
    /// `port(int)`.
    pub port: u16,
    /// `method(str)`, as sent; absent for a plain tunnel.
    pub method: Option<&'a str>,
    /// `path(str)`, canonical and compared by segment; absent for a plain tunnel and for an
    /// ambiguous path on `web`.
    pub path: Option<&'a CanonicalPath>,
    /// `param(name, value)`: what the matched route extracted, each name at most once.
    pub params: &'a [(Text, Text)],
    /// `body_size(int)`: 0 without a body, absent when the length is not announced.
    pub body_size: Option<u64>,
    /// `audience(str)`: the proxy's configured name.
    pub audience: &'a str,
    /// `proof(str)`.
    pub proof: ProofKind,
    /// `hop(int)`: changes of holder so far, 0 for the first holder.
    pub hop: u32,
}
