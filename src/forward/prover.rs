//! The prover: holds the key, and makes the value of `Proxy-Authorization` for one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderValue;

use crate::capability::{Capability, Context, FRESH_TTL_MAX_S, PrivateKey, Proof, Purpose, SCHEME, SealError};
use crate::clock::UnixSeconds;
use crate::store::random;

/// A clock is corrected by at most this much: a proxy must not be able to have proofs made for a far future.
pub(super) const SHIFT_MAX_S: u64 = 10 * 60;

/// Marks a clock that was never corrected.
const UNSHIFTED: i64 = i64::MIN;

pub(super) struct Prover {
    holding: ArcSwap<Holding>,
    audience: Arc<str>,
    /// Seconds added to the system's clock; set once at most.
    shift_s: AtomicI64,
    /// A person has been told of a clock that cannot be corrected.
    told: AtomicBool,
}

/// A capability and the key of its last holder.
struct Holding {
    key: PrivateKey,
    /// `Cap <capability>.`, the part that no proof changes.
    prefix: String,
    sha256: [u8; 32],
}

impl Holding {
    fn new(capability: &Capability, key: PrivateKey) -> Result<Self, SealError> {
        let sealed = capability.to_sealed()?;
        Ok(Self { key, prefix: format!("{SCHEME} {}.", sealed.to_text()), sha256: sealed.sha256() })
    }
}

/// A value of `Proxy-Authorization`, and by which clock it was made.
pub(super) struct Proved {
    pub(super) value: HeaderValue,
    shift_s: i64,
}

/// What to do about a proof that came at the wrong time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Corrected {
    /// The clock is right now: once more.
    Again,
    /// It cannot be corrected; the proxy's clock is so many seconds ahead of this machine's (negative: behind).
    Not { ahead_s: i64 },
}

impl Prover {
    pub(super) fn new(capability: &Capability, key: PrivateKey, audience: Arc<str>) -> Result<Self, SealError> {
        Ok(Self {
            holding: ArcSwap::from_pointee(Holding::new(capability, key)?),
            audience,
            shift_s: AtomicI64::new(UNSHIFTED),
            told: AtomicBool::new(false),
        })
    }

    /// Holds these from now on. The clock stays as it is.
    pub(super) fn renew(&self, capability: &Capability, key: PrivateKey) -> Result<(), SealError> {
        self.holding.store(Arc::new(Holding::new(capability, key)?));
        Ok(())
    }

    /// A fresh proof for this purpose, on a connection with this binding. `None` when the system gives no randomness or
    /// the key cannot sign.
    pub(super) fn prove(&self, purpose: Purpose<'_>, binding: &[u8]) -> Option<Proved> {
        let shift_s = self.shift_s.load(Ordering::Acquire);
        let now = shifted(shift_s);
        let context = Context { binding, ..Context::new(&self.audience, purpose) };
        let holding = self.holding.load_full();
        let nonce = random::bytes().ok()?;
        let proof = Proof::sign(&holding.key, &holding.sha256, now, FRESH_TTL_MAX_S, nonce, &context).ok()?;
        let text = format!("{}{}", holding.prefix, BASE64_URL_SAFE_NO_PAD.encode(proof.as_bytes()));
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(Proved { value, shift_s })
    }

    /// True once: a client that tries again and again must not fill the screen.
    pub(super) fn is_news(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    /// How far apart the clocks are, with nothing corrected: a proxy on a wire is not believed.
    pub(super) fn skew(theirs: UnixSeconds) -> Corrected {
        Corrected::Not { ahead_s: difference(theirs, UnixSeconds::now()) }
    }

    /// Takes over the proxy's time, once in this forwarder's life and by at most ten minutes.
    pub(super) fn correct(&self, proved: &Proved, theirs: UnixSeconds) -> Corrected {
        let ours = shifted(proved.shift_s);
        let ahead_s = difference(theirs, ours);
        if self.shift_s.load(Ordering::Acquire) != proved.shift_s {
            // Another request corrected the clock while this one was under way.
            return Corrected::Again;
        }
        let once = proved.shift_s == UNSHIFTED && ahead_s.unsigned_abs() <= SHIFT_MAX_S;
        if once && self.shift_s.compare_exchange(UNSHIFTED, ahead_s, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return Corrected::Again;
        }
        Self::skew(theirs)
    }
}

/// The system's time, corrected.
fn shifted(shift_s: i64) -> UnixSeconds {
    let now = UnixSeconds::now();
    if shift_s == UNSHIFTED { now } else { UnixSeconds(now.get().saturating_add_signed(shift_s)) }
}

fn difference(theirs: UnixSeconds, ours: UnixSeconds) -> i64 {
    let seconds = |moment: UnixSeconds| i64::try_from(moment.get()).unwrap_or(i64::MAX);
    seconds(theirs).saturating_sub(seconds(ours))
}
