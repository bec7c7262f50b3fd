//! `src/audit/ring.rs`, and what it needs of its neighbours.

mod mapping;
mod record;
#[path = "../../../../src/audit/ring.rs"]
mod ring;
mod ring_model;
