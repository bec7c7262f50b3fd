//! The network's edge: listening, the local CA's leaves, resolving, dialling, and connections kept.
//!
//! Deliberately absent: any decision. What may be dialled is decided in `policy`; this floor only
//! refuses addresses that no name may stand for ([`address`]) and framing that has two readings
//! ([`guard`]).

pub mod address;
pub mod channel;
pub mod dial;
pub mod duplex;
pub mod guard;
pub mod leaf;
pub mod listener;
pub mod pool;
pub mod pace;
mod provider;
mod resolve;
pub mod rewind;
pub mod trust;
pub mod unread;
