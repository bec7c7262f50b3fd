//! The proof of possession: 96 bytes by which a holder shows that this CONNECT is its own (`docs/capability.md`, "Proof").
//!
//! Deliberately absent: memory of what was seen ([`super::ReplayCache`]), and the chain. A proof is checked against the
//! holder that the capability *claims*, before any other signature, so that a copied capability without its key costs
//! the verifier microseconds; the walk must then end with that same holder.

use aws_lc_rs::digest::{self, SHA256};

use super::key::{Algorithm, PrivateKey, PublicKey, SIGNATURE_BYTES, SigningFailed};
use crate::clock::UnixSeconds;
use crate::request::{ProofKind, Target};

/// The length of a proof.
pub const PROOF_BYTES: usize = 96;
/// The bytes of a proof before its signature.
const HEAD_BYTES: usize = PROOF_BYTES - SIGNATURE_BYTES;
/// The length of a proof's nonce.
pub const NONCE_BYTES: usize = 16;
/// A proof for one CONNECT or one request lives at most this long.
pub const FRESH_TTL_MAX_S: u32 = 60;
/// A presentation lives at most this long unless the proxy says otherwise.
pub const PRESENTATION_TTL_DEFAULT_S: u32 = 3600;
/// The difference of clocks that is tolerated, each way.
pub const SKEW_S: u64 = 30;

const VERSION: u8 = 1;
/// Starts what is signed. Biscuit's own signatures start with a NUL, so neither can be taken for the other.
const DOMAIN: &[u8] = b"narrows-pop-1\0";
/// Everything that is signed: domain, head, capability, context.
const SIGNED_BYTES: usize = DOMAIN.len() + HEAD_BYTES + 32 + 32;

/// What the holder does, or is about to do, with the capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// One CONNECT; `target` is the request-target, whose ASCII letters are lower-cased before it is signed.
    Connect {
        /// `host:port`, as on the request line.
        target: &'a str,
    },
    /// One absolute-form request.
    Request {
        /// As sent.
        method: &'a str,
        /// The URI's host and port; the port is always spelled.
        target: &'a Target,
    },
    /// Any number of either, until the proof expires.
    Presentation,
}

impl Purpose<'_> {
    /// The kind of proof that is made for this purpose.
    #[must_use]
    pub const fn kind(&self) -> ProofKind {
        match self {
            Self::Connect { .. } => ProofKind::Connect,
            Self::Request { .. } => ProofKind::Request,
            Self::Presentation => ProofKind::Presentation,
        }
    }
}

/// What a proof is bound to besides the capability, its own time and its nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
    /// The proxy's configured name, known to both ends and never learned from a challenge.
    pub audience: &'a str,
    /// To the one who signs: what for. To the one who checks: what is being asked right now; [`Purpose::Presentation`]
    /// there accepts a presentation and nothing else.
    pub purpose: Purpose<'a>,
    /// Empty in this version.
    pub challenge: &'a [u8],
    /// What the connection is told from all others by, for a proof that is good on it alone (`docs/capability.md`,
    /// "Binding"); else empty. A presentation is bound to none.
    pub binding: &'a [u8],
}

impl<'a> Context<'a> {
    /// A context without challenge and binding.
    #[must_use]
    pub const fn new(audience: &'a str, purpose: Purpose<'a>) -> Self {
        Self { audience, purpose, challenge: &[], binding: &[] }
    }

    /// SHA-256 of the length-prefixed parts.
    fn hash(&self) -> [u8; 32] {
        let mut hash = digest::Context::new(&SHA256);
        length_prefixed(&mut hash, self.audience.as_bytes());
        match self.purpose {
            Purpose::Connect { target } => {
                length_prefixed(&mut hash, b"CONNECT");
                length_prefixed(&mut hash, target.to_ascii_lowercase().as_bytes());
            }
            Purpose::Request { method, target } => {
                length_prefixed(&mut hash, method.as_bytes());
                length_prefixed(&mut hash, target.to_string().as_bytes());
            }
            Purpose::Presentation => {
                length_prefixed(&mut hash, b"");
                length_prefixed(&mut hash, b"");
            }
        }
        length_prefixed(&mut hash, self.challenge);
        length_prefixed(&mut hash, self.binding);
        into_array(&hash.finish())
    }
}

/// The terms on which a verifier accepts proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofLimits {
    /// The longest life of a proof for one CONNECT or request, seconds; [`FRESH_TTL_MAX_S`].
    pub connect_ttl_max_s: u32,
    /// The longest life of a presentation, seconds; [`PRESENTATION_TTL_DEFAULT_S`].
    pub presentation_ttl_max_s: u32,
    /// The tolerated difference of clocks, seconds; [`SKEW_S`].
    pub skew_s: u64,
    /// When the process started: it has no memory of nonces from before, so older fresh proofs are refused.
    pub started_at: UnixSeconds,
}

impl ProofLimits {
    /// The defaults, for a process that started at that time.
    #[must_use]
    pub const fn since(started_at: UnixSeconds) -> Self {
        Self {
            connect_ttl_max_s: FRESH_TTL_MAX_S,
            presentation_ttl_max_s: PRESENTATION_TTL_DEFAULT_S,
            skew_s: SKEW_S,
            started_at,
        }
    }
}

/// The bytes are not a proof of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedProof {
    /// Not 96 bytes.
    #[error("a proof has {PROOF_BYTES} bytes")]
    Length,
    /// The first byte is not 1.
    #[error("the proof's version is unknown")]
    Version,
    /// The second byte is not 1, 2 or 3.
    #[error("the proof's kind is unknown")]
    Kind,
    /// The third byte is not 0 or 1.
    #[error("the proof's algorithm is unknown")]
    Algorithm,
    /// The fourth byte is not 0.
    #[error("the proof's reserved byte is not zero")]
    Reserved,
}

impl MalformedProof {
    /// The class's name in test vectors.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Version => "version",
            Self::Kind => "kind",
            Self::Algorithm => "algorithm",
            Self::Reserved => "reserved",
        }
    }
}

/// Why a well-formed proof is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Made for one CONNECT and used for something else, or the like.
    #[error("the proof is of another kind than this request needs")]
    WrongKind,
    /// The proof's algorithm is not the holder's.
    #[error("the proof's algorithm is not that of the holder's key")]
    WrongAlgorithm,
    /// It claims a longer life than the proxy accepts.
    #[error("the proof lives too long: at most {max_s} s are accepted")]
    TtlTooLong {
        /// What would be accepted.
        max_s: u32,
    },
    /// The signature is not the claimed holder's over this capability, audience, method and target.
    #[error("the proof was not made by the capability's holder for this proxy and target")]
    Signature,
    /// Its time has passed.
    #[error("the proof expired {by_s} s ago")]
    Expired {
        /// Beyond the tolerated skew.
        by_s: u64,
    },
    /// Its time has not come: the clocks differ by more than is tolerated.
    #[error("the proof is dated {by_s} s too far in the future")]
    NotYetValid {
        /// Beyond the tolerated skew.
        by_s: u64,
    },
    /// Made before the proxy started, which has no memory of what was used then.
    #[error("the proof is older than the proxy's process")]
    BeforeStart,
}

impl ProofError {
    /// The class's name in test vectors. What the peer learns is a code (`docs/errors.md`).
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::WrongKind => "wrong_kind",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::TtlTooLong { .. } => "ttl_too_long",
            Self::Signature => "signature",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::BeforeStart => "before_start",
        }
    }
}

/// A proof with the right shape. Nothing in it is to be believed before [`Proof::check`].
#[derive(Clone)]
pub struct Proof {
    bytes: [u8; PROOF_BYTES],
    kind: ProofKind,
    algorithm: Algorithm,
}

impl Proof {
    /// Parses the 96 bytes.
    ///
    /// # Errors
    /// [`MalformedProof`] names the first field that is not right.
    pub fn parse(bytes: &[u8]) -> Result<Self, MalformedProof> {
        let bytes: [u8; PROOF_BYTES] = bytes.try_into().map_err(|_| MalformedProof::Length)?;
        let [version, kind, algorithm, reserved, ..] = bytes;
        if version != VERSION {
            return Err(MalformedProof::Version);
        }
        let kind = match kind {
            1 => ProofKind::Connect,
            2 => ProofKind::Request,
            3 => ProofKind::Presentation,
            _ => return Err(MalformedProof::Kind),
        };
        let algorithm = Algorithm::from_wire(algorithm).ok_or(MalformedProof::Algorithm)?;
        if reserved != 0 {
            return Err(MalformedProof::Reserved);
        }
        Ok(Self { bytes, kind, algorithm })
    }

    /// Makes a proof, as the holder of `holder`, for the capability whose bytes, as they will be presented, hash to
    /// `capability`.
    ///
    /// `nonce` must be fresh random bytes. `ttl_s` is not limited here: that is the verifier's business.
    ///
    /// # Errors
    /// [`SigningFailed`], not expected.
    pub fn sign(
        holder: &PrivateKey,
        capability: &[u8; 32],
        issued_at: UnixSeconds,
        ttl_s: u32,
        nonce: [u8; NONCE_BYTES],
        context: &Context<'_>,
    ) -> Result<Self, SigningFailed> {
        let (kind, algorithm) = (context.purpose.kind(), holder.public().algorithm());
        let wire_kind = match kind {
            ProofKind::Connect => 1,
            ProofKind::Request => 2,
            ProofKind::Presentation => 3,
        };
        let mut head = [0; HEAD_BYTES];
        let fields = [VERSION, wire_kind, algorithm.to_wire(), 0]
            .into_iter()
            .chain(issued_at.get().to_be_bytes())
            .chain(ttl_s.to_be_bytes())
            .chain(nonce);
        head.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        let signature = holder.sign(&signed_bytes(&head, capability, context))?;
        let mut bytes = [0; PROOF_BYTES];
        bytes.iter_mut().zip(head.into_iter().chain(signature)).for_each(|(to, from)| *to = from);
        Ok(Self { bytes, kind, algorithm })
    }

    /// The bytes as they were presented.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PROOF_BYTES] {
        &self.bytes
    }

    /// The claimed kind.
    #[must_use]
    pub const fn kind(&self) -> ProofKind {
        self.kind
    }

    /// The claimed time of making.
    #[must_use]
    pub fn issued_at(&self) -> UnixSeconds {
        UnixSeconds(u64::from_be_bytes(self.field::<4, 8>()))
    }

    /// The claimed life, seconds.
    #[must_use]
    pub fn ttl_s(&self) -> u32 {
        u32::from_be_bytes(self.field::<12, 4>())
    }

    /// The random bytes that make it one of a kind.
    #[must_use]
    pub fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.field::<16, NONCE_BYTES>()
    }

    /// Checks everything about a proof but whether it was seen before.
    ///
    /// `holder` is the last holder that the capability claims, `capability` the SHA-256 of its bytes as presented.
    ///
    /// # Errors
    /// [`ProofError`]; the cheap checks come before the signature.
    pub fn check(
        &self,
        holder: &PublicKey,
        capability: &[u8; 32],
        context: &Context<'_>,
        now: UnixSeconds,
        limits: &ProofLimits,
    ) -> Result<Proven, ProofError> {
        let presentation = self.kind == ProofKind::Presentation;
        if !presentation && context.purpose.kind() != self.kind {
            return Err(ProofError::WrongKind);
        }
        if self.algorithm != holder.algorithm() {
            return Err(ProofError::WrongAlgorithm);
        }
        let dead_at = self.check_time(now, limits)?;
        // A presentation was signed for no request and no connection in particular, whatever it accompanies now.
        let (purpose, binding): (_, &[u8]) =
            if presentation { (Purpose::Presentation, &[]) } else { (context.purpose, context.binding) };
        let signed =
            signed_bytes(&self.field::<0, HEAD_BYTES>(), capability, &Context { purpose, binding, ..*context });
        let signature = self.field::<HEAD_BYTES, SIGNATURE_BYTES>();
        holder.verify(&signed, &signature).map_err(|_| ProofError::Signature)?;
        Ok(Proven { holder: *holder, capability: *capability, kind: self.kind, nonce: self.nonce(), dead_at })
    }

    /// Returns the first moment at which the proof is no longer accepted.
    fn check_time(&self, now: UnixSeconds, limits: &ProofLimits) -> Result<UnixSeconds, ProofError> {
        let fresh = self.kind != ProofKind::Presentation;
        let max_s = if fresh { limits.connect_ttl_max_s } else { limits.presentation_ttl_max_s };
        if self.ttl_s() > max_s {
            return Err(ProofError::TtlTooLong { max_s });
        }
        let issued_at = self.issued_at();
        if issued_at > now + limits.skew_s {
            return Err(ProofError::NotYetValid { by_s: (issued_at - (now + limits.skew_s).get()).get() });
        }
        let dead_at = issued_at + u64::from(self.ttl_s()) + limits.skew_s;
        if now >= dead_at {
            return Err(ProofError::Expired { by_s: (now - dead_at.get()).get() });
        }
        if fresh && issued_at < limits.started_at {
            return Err(ProofError::BeforeStart);
        }
        Ok(dead_at)
    }

    /// `N` bytes from `AT`; both are constants within the 96.
    fn field<const AT: usize, const N: usize>(&self) -> [u8; N] {
        const { assert!(AT + N <= PROOF_BYTES) };
        let mut field = [0; N];
        field.iter_mut().zip(self.bytes.iter().skip(AT)).for_each(|(to, from)| *to = *from);
        field
    }
}

/// Shows no signature: a presentation is as good as a password.
impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proof({}, made {}, for {} s)", self.kind.as_str(), self.issued_at(), self.ttl_s())
    }
}

/// Evidence that the claimed holder signed for this capability and this request. The chain is still to be verified, and
/// it must end with this holder ([`Proven::holder`]); a fresh proof's nonce is then to be remembered.
#[must_use = "a proof alone authorizes nothing: verify the chain, compare the holder, remember the nonce"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    holder: PublicKey,
    capability: [u8; 32],
    kind: ProofKind,
    nonce: [u8; NONCE_BYTES],
    dead_at: UnixSeconds,
}

impl Proven {
    /// Who signed.
    #[must_use]
    pub const fn holder(&self) -> &PublicKey {
        &self.holder
    }

    /// SHA-256 of the capability that it was made for.
    #[must_use]
    pub const fn capability(&self) -> &[u8; 32] {
        &self.capability
    }

    /// The proof's kind, a fact of every request that it covers.
    #[must_use]
    pub const fn kind(&self) -> ProofKind {
        self.kind
    }

    /// The nonce, to be remembered unless the proof is a presentation.
    #[must_use]
    pub const fn nonce(&self) -> &[u8; NONCE_BYTES] {
        &self.nonce
    }

    /// The first moment at which the proof is no longer accepted. A tunnel that a presentation opened ends then.
    #[must_use]
    pub const fn dead_at(&self) -> UnixSeconds {
        self.dead_at
    }
}

fn signed_bytes(head: &[u8; HEAD_BYTES], capability: &[u8; 32], context: &Context<'_>) -> [u8; SIGNED_BYTES] {
    let mut signed = [0; SIGNED_BYTES];
    let context = context.hash();
    let parts = DOMAIN.iter().chain(head).chain(capability).chain(&context);
    signed.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
    signed
}

fn length_prefixed(hash: &mut digest::Context, part: &[u8]) {
    // A part beyond 4 GiB cannot come off a request line; it would only make the proof fail.
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    hash.update(&length.to_be_bytes());
    hash.update(part);
}

fn into_array(digest: &digest::Digest) -> [u8; 32] {
    let mut array = [0; 32];
    array.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    array
}

#[cfg(test)]
mod tests;
