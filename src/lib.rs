//! Narrows: a forward HTTPS proxy that gives AI agents capabilities, never keys.
//!
//! `ARCHITECTURE.md` draws the house. The floors, bottom up; a module uses only floors below its own:
//!
//! - words: [`clock`], [`request`]
//! - pure: [`capability`], [`credential`], [`service`], [`policy`]
//! - IO: [`store`], [`audit`], [`config`]

pub mod clock;
pub mod net;
pub mod request;

pub mod capability;
pub mod credential;
pub mod service;
pub mod policy;

pub mod audit;
pub mod store;
pub mod config;
