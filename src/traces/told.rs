//! What is told of requests, and of their spans; the same in a build without traces (`src/untraced.rs`).

use std::time::Duration;

use http::{Method, StatusCode};
use ulid::Ulid;

use crate::audit::Ending;
use crate::policy::Code;
use crate::request::{Scheme, Target};

/// What became of spans so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector has them.
    pub sent: u64,
    /// The collector did not take them.
    pub failed: u64,
    /// There was no room for them.
    pub dropped: u64,
}

/// A request that has ended.
#[derive(Debug)]
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "nobody listens"))]
pub(crate) struct Ended<'a> {
    pub(crate) id: Ulid,
    /// `None` of a message whose head could not be read.
    pub(crate) method: Option<&'a Method>,
    pub(crate) scheme: Option<Scheme>,
    /// Only where policy let the request go there, or the configuration names it: else an agent writes here what it likes.
    pub(crate) target: Option<&'a Target>,
    pub(crate) service: Option<&'a str>,
    pub(crate) operation: Option<&'a str>,
    pub(crate) ending: Ending,
    pub(crate) code: Option<Code>,
    /// What the agent was answered.
    pub(crate) status: Option<StatusCode>,
    pub(crate) took: Duration,
    /// How long after the beginning the upstream was turned to.
    pub(crate) turned: Option<Duration>,
}
