//! A proxy started from a home: what `narrows` runs in the foreground and `capctl run` embeds.
//!
//! Here the parts meet: configuration, store, CA, journal and listeners become a [`crate::proxy::Proxy`], and files
//! that change become its next snapshot. Deliberately absent: signals and printing, which are the binaries'.

mod check;
mod load;
pub mod log;
mod notify;
mod passed;
mod reload;
mod start;

pub use check::{Wrong, check};
pub use load::{LoadError, holdings, load_snapshot_parts, server_end};
pub use notify::notify;
pub use passed::Passed;
pub use start::{Daemon, Serve, StartError};
