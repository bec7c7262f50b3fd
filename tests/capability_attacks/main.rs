//! Every way that is known to widen, move, forge or inflate a capability, and the rule that refuses it.
//!
//! Each refusal has a twin beside it that differs in the one thing and is accepted. Failure classes are those of
//! `docs/capability.md`.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod checks;
mod encoding;
mod forge;
mod holders;
mod issuing;
mod limits;
mod reasons;
mod signatures;
mod vocabulary;
