//! Narrows: a forward HTTPS proxy that gives AI agents capabilities, never keys.
//!
//! `ARCHITECTURE.md` draws the house. The floors, bottom up; a module uses only floors below its own:
//!
//! - words: [`clock`], [`request`], `lane`
//! - pure: [`capability`], [`credential`], [`service`], [`policy`]
//! - IO: [`store`], [`audit`], [`config`], [`net`], [`traces`]
//! - the request's way: [`proxy`]
//! - whoever runs it: [`process`], [`daemon`], [`admin`]; in front of an agent: [`forward`]
#![warn(clippy::disallowed_types)]

pub mod clock;
mod handoff;
mod lane;
pub mod request;

pub mod capability;
pub mod credential;
pub mod service;
pub mod policy;

pub mod audit;
pub mod net;
pub mod store;
pub mod config;
#[cfg_attr(not(feature = "otlp"), path = "untraced.rs")]
pub mod traces;

pub mod proxy;

pub mod process;
pub mod admin;
pub mod daemon;

pub mod forward;

pub mod cli;
