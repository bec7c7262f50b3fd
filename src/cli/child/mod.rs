//! The child of `capctl run`: its variables, the certificates it trusts, what it cannot see, and the signals it gets.

pub(super) mod bundle;
pub(super) mod environment;
pub(super) mod hide;
#[cfg(target_os = "linux")]
pub(super) mod mounts;
pub(super) mod signals;
#[cfg(target_os = "linux")]
pub(super) mod turnable;
