//! What a request says, parsed once at the door: the destination, the path, the facts that policy sees.
//!
//! Everything here is pure. Deliberately absent: sockets, clocks, configuration, and any second
//! opinion on what a name means: [`Host`] is the one canonical form, and every other room compares
//! `Host` with `Host`.

mod facts;
mod path;
mod target;

/// A short text of a request: kept in place up to 24 bytes.
pub use compact_str::CompactString as Text;

pub use facts::{Facts, ProofKind};
pub use path::{CanonicalPath, EncodedSlash, PATH_BYTES_MAX, PathError};
pub use target::{Host, NameError, Scheme, Target};
