//! Why a capability is refused: the closed list of failure classes.

/// The class of a refusal. The peer learns `capability_invalid` and no more; the class is for test vectors, for the
/// operator's log and for whoever writes another implementation (`docs/capability.md`, "Failure classes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidCapability {
    /// Not base64url without padding, or not its one spelling.
    #[error("the text is not base64url without padding")]
    Encoding,
    /// More than 16 KiB.
    #[error("the capability is too large")]
    TooLarge,
    /// Not a biscuit: the container or a block's payload does not decode.
    #[error("the bytes are not a biscuit")]
    Malformed,
    /// It decodes, but does not encode to the same bytes again.
    #[error("the encoding is not canonical")]
    NonCanonical,
    /// More than 33 blocks.
    #[error("the capability has too many blocks")]
    TooManyBlocks,
    /// No `rootKeyId`.
    #[error("the capability names no root key")]
    RootMissing,
    /// A `rootKeyId` that no configured root has.
    #[error("the capability names an unknown root key")]
    RootUnknown,
    /// A block whose signature version is not 1.
    #[error("a block's signature has another version than 1")]
    SignatureVersion,
    /// A chain key that is not Ed25519, or one that occurs twice.
    #[error("a chain key is not Ed25519, or is used twice")]
    ChainKey,
    /// A signature of the root, of a chain key, of a holder, or of the seal does not verify; or the last chain key is
    /// not the one that the capability carries.
    #[error("a signature does not verify")]
    Signature,
    /// A delegation that is not signed by the holder before it.
    #[error("a delegation is not signed by the holder before it")]
    Signer,
    /// A Datalog version that this profile does not know, or that does not fit the block's content.
    #[error("a block's Datalog version does not fit")]
    DatalogVersion,
    /// A symbol table with a repeated or predefined symbol, or a reference to no symbol.
    #[error("a symbol table is not well-formed")]
    Symbols,
    /// A `context`.
    #[error("a block has a context")]
    Context,
    /// A scope (`trusting`), or a table of public keys for one.
    #[error("a block has a scope")]
    Scope,
    /// A rule.
    #[error("a block has a rule")]
    Rule,
    /// A fact that this kind of block may not have, of another arity or type, or one too many of it.
    #[error("a block has a fact that it may not have")]
    Fact,
    /// No `cap(1, null)` in the authority block, or another version.
    #[error("the capability is of another profile than cap/1")]
    Profile,
    /// No `holder`, two of them, or a weak or invalid key.
    #[error("a block does not name exactly one sound holder")]
    Holder,
    /// A check outside the closed form.
    #[error("a check is outside the closed form")]
    Check,
    /// More facts, checks, rows, predicates, operations or nesting than the limits allow.
    #[error("a block is larger than the limits allow")]
    Limit,
    /// More changes of holder than the verifier allows.
    #[error("the capability has too many delegations")]
    Hops,
}

impl InvalidCapability {
    /// The class's name in test vectors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::NonCanonical => "non_canonical",
            Self::TooManyBlocks => "too_many_blocks",
            Self::RootMissing => "root_missing",
            Self::RootUnknown => "root_unknown",
            Self::SignatureVersion => "signature_version",
            Self::ChainKey => "chain_key",
            Self::Signature => "signature",
            Self::Signer => "signer",
            Self::DatalogVersion => "datalog_version",
            Self::Symbols => "symbols",
            Self::Context => "context",
            Self::Scope => "scope",
            Self::Rule => "rule",
            Self::Fact => "fact",
            Self::Profile => "profile",
            Self::Holder => "holder",
            Self::Check => "check",
            Self::Limit => "limit",
            Self::Hops => "hops",
        }
    }
}
