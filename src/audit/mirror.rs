//! The journal's lines once more, on stdout, for whoever collects logs (`[journal] stdout`).
//!
//! The journal is its files; this is a copy of what is in them already. What nobody reads is left out; the next line's
//! `prev` shows that something is missing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use crate::handoff::{Handoff, Words};

/// Starts it.
///
/// # Errors
/// The system has no descriptor or no thread for it.
pub(super) fn to_stdout() -> io::Result<Handoff> {
    let words = Words {
        left_out: |lines| tracing::warn!(lines, "stdout was not read: lines of the journal are missing there"),
        failing: |error| tracing::warn!(%error, "stdout takes no lines of the journal"),
    };
    // Rust's own handle has a lock and a buffer.
    Handoff::start("journal-stdout", File::from(io::stdout().as_fd().try_clone_to_owned()?), words)
}
