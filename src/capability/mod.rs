//! The capability: a biscuit in the profile cap/1 (`docs/capability.md`), and the proof that its holder made the request.
//!
//! Everything here is pure: time, keys, seeds and limits are arguments. Deliberately absent: sockets, files, clocks,
//! randomness, and the Datalog engine on the way of a request.

mod key;
mod proof;

pub use key::{Algorithm, BadSignature, InvalidKey, PrivateKey, PublicKey, SIGNATURE_BYTES, SigningFailed};
pub use proof::{
    Context, FRESH_TTL_MAX_S, MalformedProof, NONCE_BYTES, PRESENTATION_TTL_DEFAULT_S, PROOF_BYTES, Proof, ProofError,
    ProofLimits, Proven, Purpose, SKEW_S,
};
