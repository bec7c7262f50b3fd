//! `src/proxy/beat.rs`, and what it needs of its neighbours.

#[path = "../../../../src/proxy/beat.rs"]
mod beat;
mod beat_model;
mod once;
mod waker;
