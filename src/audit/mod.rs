//! The journal: one hash-chained JSON line per request, safe from a kill before the upstream sees a byte.
//!
//! A request's way through here: [`Journal::begin`] copies its [`Intent`] into a preallocated file that is mapped into
//! memory (`ring`), [`Entry::finish`] adds the [`Outcome`]; neither makes a system call, takes a lock, allocates, or
//! wakes anybody. One thread (`writer`) turns finished entries into lines (`line`) of the process's own chain
//! (`chain`), in the order in which they finished. The page cache outlives a killed process: whoever opens the
//! journal next completes the chain from what the dead process left (`recover`).
//!
//! **Invariant:** every entry that was begun becomes exactly one line, whatever dies when. **Invariant:** when lines
//! cannot be written, `begin` refuses. Deliberately absent: secrets, capabilities, proofs, query strings and header
//! values, which have no place in [`Intent`]; and any way to change a line.

mod auth;
mod chain;
mod files;
mod journal;
pub(crate) mod json;
mod line;
mod mapping;
mod mirror;
mod record;
mod recover;
mod ring;
mod search;
mod settle;
mod tail;
mod verify;
mod writer;

pub use files::ChainFile;
pub use journal::{Durability, Entry, Health, Journal, JournalError, JournalOptions, Recorder, Unavailable};
pub use record::{Ending, Event, Identity, IdentityHop, Intent, Outcome};
pub use recover::{Recovery, recover};
pub use search::{Filter, Search, SearchError, search};
pub use settle::Settle;
pub use tail::Tail;
pub use verify::{ChainReport, Problem, ProblemKind, Report, verify};
