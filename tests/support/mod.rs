//! What the integration binaries share: a throw-away certificate authority, real origins on port 0 that record what
//! they see, and a Narrows that runs as users run it. Nothing here is a mock: every byte goes over a socket.

#![allow(dead_code, reason = "each binary uses its own part of these")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

pub(crate) mod agent;
pub(crate) mod ca;
pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod exposition;
pub(crate) mod frames;
pub(crate) mod git_backend;
pub(crate) mod h2_agent;
pub(crate) mod handlers;
pub(crate) mod operator;
pub(crate) mod origin;
pub(crate) mod raw;
pub(crate) mod record;
pub(crate) mod vitals;
#[cfg(target_os = "linux")]
pub(crate) mod world;

use std::time::Duration;

/// No wait in a test is longer than this. Generous, because it is met only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
