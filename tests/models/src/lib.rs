//! What Narrows wrote itself without locks, run by loom through the interleavings of two or three threads, and through
//! the stale values that the orderings of its atomics allow.
//!
//! The files are those of `src/`, with loom's atomics. What is not modelled is named in `docs/performance.md`.
#![cfg(test)]

#[expect(dead_code, reason = "the model uses a part of the file")]
mod audit;
#[path = "../../../src/lane.rs"]
mod lane;
#[expect(dead_code, reason = "the model uses a part of the file")]
mod proxy;
