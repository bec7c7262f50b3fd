//! The capability: a biscuit in the profile cap/1 (`docs/capability.md`), and the proof that its holder made the request.
//!
//! Everything here is pure: time, keys, seeds and limits are arguments. Deliberately absent: sockets, files, clocks,
//! randomness, and the Datalog engine on the way of a request.

mod allowance;
mod budget;
mod caveat;
mod chain;
mod container;
mod credentials;
mod failure;
mod grant;
pub mod inspect;
mod invalid;
mod issue;
mod key;
mod proof;
mod replay;
mod revocation;
mod signatures;
mod symbols;
mod terms;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod verified_cache;
mod vocabulary;

pub use allowance::{Budget, BudgetKind, Rate};
pub use budget::{Account, BudgetError, COUNTED_BLOCKS_MAX, COUNTED_BLOCKS_PER_AUTHORITY_MAX, Ledger, Reservation};
pub use caveat::{Caveat, FailedRow, Mismatch, NESTING_MAX, OPERATIONS_MAX, PREDICATES_MAX, ROWS_MAX};
pub use chain::{
    Block, BlockId, Chain, HOPS_MAX, Hop, InvalidBlockId, Limits, Roots, Verified, claimed_authority, claimed_holder,
    verify, verify_in_steps,
};
pub use container::BLOCKS_MAX;
pub use credentials::{BASIC_USER, CREDENTIALS_BYTES_MAX, Credentials, MalformedCredentials, SCHEME};
pub use failure::Failure;
pub use grant::{COLUMNS, Grant, GrantError, ParamNames, TooManyGrants, WEB, grants_to_check, rights_of};
pub use invalid::InvalidCapability;
pub use issue::{AuthorityBlock, DelegationBlock, IssueError, NarrowingBlock, delegate, mint, narrow};
pub use key::{Algorithm, BadSignature, InvalidKey, PrivateKey, PublicKey, SIGNATURE_BYTES, SigningFailed};
pub use proof::{
    Context, FRESH_TTL_MAX_S, MalformedProof, NONCE_BYTES, PRESENTATION_TTL_DEFAULT_S, PROOF_BYTES, Proof, ProofError,
    ProofLimits, Proven, Purpose, SKEW_S,
};
pub use replay::{NONCES_MAX, NONCES_PER_AUTHORITY_MAX, Replay, ReplayCache};
pub use revocation::{BadRevocation, Revocation, Revocations, Revoked, Subject};
pub use terms::{
    InvalidTerm, Terms, audiences, expires_at, max_hops, not_before, parse_duration_s, parse_moment, parse_rate,
    parse_size, proofs,
};
pub use text::{CAPABILITY_BYTES_MAX, Capability, SealError};
pub use verified_cache::{VERIFIED_MAX, VerifiedCache};
pub use vocabulary::{BlockKind, CHECKS_MAX, FACTS_MAX, LABEL_BYTES_MAX, Right};
