//! Memory of the fresh proofs that were used: each opens one tunnel, or makes one request, once.
//!
//! Deliberately absent: eviction. A nonce is forgotten when its proof is dead and not before; a tree of capabilities
//! that uses up its quota is refused, alone. Nothing is remembered of a proof whose chain did not hold, so strangers
//! cannot fill it.
#![expect(
    clippy::disallowed_types,
    reason = "not on the path of a request inside a tunnel: asked at a CONNECT, or by a request that brings its own proof"
)]

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{self, SHA256};

use super::proof::{FRESH_TTL_MAX_S, NONCE_BYTES, SKEW_S};
use super::{BlockId, PublicKey};
use crate::clock::UnixSeconds;

/// The memory is cut into spans of this many seconds; a span is dropped whole once it lies in the past. At least as long
/// as a fresh proof can have to live when it is used, so that two spans hold every live one.
const SPAN_S: u64 = FRESH_TTL_MAX_S as u64 + 2 * SKEW_S;
/// Locks; all proofs of one tree of capabilities are under one of them.
const SHARDS: usize = 64;
/// Live nonces that the proofs of one authority block may take up, about 6 MB of memory.
pub const NONCES_PER_AUTHORITY_MAX: usize = 256 * 1024;
/// Live nonces altogether, about 100 MB of memory.
pub const NONCES_MAX: usize = 4 * 1024 * 1024;

/// Why a fresh proof is not accepted a second time, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Replay {
    /// It was used before.
    #[error("the proof was used before")]
    Seen,
    /// The memory for this tree of capabilities is used up, until proofs expire.
    #[error("too many proofs of this capability's tree are alive")]
    Full,
    /// It died before the latest moment that was seen here (the clock was set back), or lives longer than is remembered.
    #[error("the proof's time cannot be remembered")]
    OutOfTime,
}

/// The nonces of live fresh proofs. Shared by all connections of a process.
pub struct ReplayCache {
    shards: Vec<Mutex<Shard>>,
    live: AtomicUsize,
    per_authority_max: usize,
    max: usize,
}

impl ReplayCache {
    /// An empty memory with the default bounds.
    #[must_use]
    pub fn new() -> Self {
        Self::with_bounds(NONCES_PER_AUTHORITY_MAX, NONCES_MAX)
    }

    /// An empty memory with bounds of your own: nonces for each authority block, and altogether.
    #[must_use]
    pub fn with_bounds(per_authority_max: usize, max: usize) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { shards, live: AtomicUsize::new(0), per_authority_max, max }
    }

    /// Remembers a fresh proof, or says that it must be refused. To be called last: after the proof, the chain and the
    /// revocation list have been checked.
    ///
    /// `dead_at` is the first moment at which the proof is no longer accepted. Time never runs backwards here: `now`
    /// counts only where it is later than all before.
    ///
    /// # Errors
    /// [`Replay`]; nothing was remembered then.
    pub fn insert(
        &self,
        holder: &PublicKey,
        nonce: &[u8; NONCE_BYTES],
        authority: BlockId,
        dead_at: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<(), Replay> {
        // All uses of one proof come with one capability, which is signed with it, hence with one authority block.
        let at = usize::from(authority.0[0]) % self.shards.len();
        let Some(shard) = self.shards.get(at) else { return Err(Replay::Full) };
        if self.live.load(Ordering::Relaxed) >= self.max {
            self.forget_dead(now);
        }
        // A panic elsewhere while the lock was held leaves whole sets behind: they are still right.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = shard.advance(now);
        self.live.fetch_sub(forgotten, Ordering::Relaxed);
        if dead_at <= shard.now || dead_at > shard.now + SPAN_S {
            return Err(Replay::OutOfTime);
        }
        let tree = shard.trees.entry(authority).or_default();
        let key = key_of(holder, nonce);
        if tree.spans.iter().any(|span| span.contains(&key)) {
            return Err(Replay::Seen);
        }
        let crowded = tree.len() >= self.per_authority_max || self.live.load(Ordering::Relaxed) >= self.max;
        if crowded {
            return Err(Replay::Full);
        }
        tree.spans[parity(dead_at)].insert(key);
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Shards that nobody used since their proofs died still count them.
    fn forget_dead(&self, now: UnixSeconds) {
        for shard in &self.shards {
            // One that is in use forgets by itself.
            if let Ok(mut shard) = shard.try_lock() {
                self.live.fetch_sub(shard.advance(now), Ordering::Relaxed);
            }
        }
    }

    /// The number of nonces in memory, for metrics. Shards that nobody uses forget late.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for ReplayCache {
    fn default() -> Self {
        Self::new()
    }
}

struct Shard {
    /// The latest moment seen.
    now: UnixSeconds,
    trees: HashMap<BlockId, Tree>,
}

impl Default for Shard {
    fn default() -> Self {
        Self { now: UnixSeconds(0), trees: HashMap::new() }
    }
}

impl Shard {
    /// Moves to `now` and drops the spans that lie in the past. Returns how many nonces that were.
    fn advance(&mut self, now: UnixSeconds) -> usize {
        let (before, after) = (span_of(self.now), span_of(now));
        if now <= self.now {
            return 0;
        }
        self.now = now;
        let mut forgotten = 0;
        if after > before {
            for tree in self.trees.values_mut() {
                // The span that ended; and, after a longer pause, the one that was next then.
                forgotten += std::mem::take(&mut tree.spans[parity_of_span(before)]).len();
                if after > before + 1 {
                    forgotten += std::mem::take(&mut tree.spans[parity_of_span(before + 1)]).len();
                }
            }
            self.trees.retain(|_, tree| tree.len() > 0);
        }
        forgotten
    }
}

/// What the proofs of one authority block's tree have used: by the span in which they die, even and odd.
#[derive(Default)]
struct Tree {
    spans: [HashSet<[u8; 16]>; 2],
}

impl Tree {
    fn len(&self) -> usize {
        self.spans.iter().map(HashSet::len).sum()
    }
}

/// The span in which a proof with that `dead_at` has its last living second.
fn parity(dead_at: UnixSeconds) -> usize {
    parity_of_span(span_of(dead_at - 1))
}

const fn span_of(moment: UnixSeconds) -> u64 {
    moment.0 / SPAN_S
}

const fn parity_of_span(span: u64) -> usize {
    if span.is_multiple_of(2) { 0 } else { 1 }
}

/// The first half of SHA-256(holder ‖ nonce).
fn key_of(holder: &PublicKey, nonce: &[u8; NONCE_BYTES]) -> [u8; 16] {
    let mut hash = digest::Context::new(&SHA256);
    hash.update(holder.as_bytes());
    hash.update(nonce);
    let mut key = [0; 16];
    key.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    key
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, PrivateKey};
    use super::*;

    const START: u64 = 1_800_000_000;

    fn holder(seed: u8) -> PublicKey {
        *PrivateKey::from_seed(Algorithm::Ed25519, [seed; 32]).expect("a seed").public()
    }

    fn nonce(number: u64) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        nonce
    }

    fn tree(number: u8) -> BlockId {
        BlockId([number; 32])
    }

    #[test]
    fn a_proof_is_refused_in_every_second_of_its_life_after_its_use() {
        // Used at each offset within a span, dead after each possible time, and presented again until it is dead.
        let key = holder(1);
        for offset in 0..SPAN_S {
            for life in [1, 2, 59, 60, 61, 89, 90, 119, 120] {
                let cache = ReplayCache::with_bounds(10, 10);
                let used = UnixSeconds(START + offset);
                let dead_at = used + life;
                assert_eq!(cache.insert(&key, &nonce(1), tree(1), dead_at, used), Ok(()));
                for second in 0..life {
                    let again = cache.insert(&key, &nonce(1), tree(1), dead_at, used + second);
                    assert_eq!(again, Err(Replay::Seen), "offset {offset}, life {life}, after {second} s");
                }
                let dead = cache.insert(&key, &nonce(1), tree(1), dead_at, dead_at);
                assert_eq!(dead, Err(Replay::OutOfTime));
            }
        }
    }

    #[test]
    fn other_proofs_in_between_make_nothing_forgotten() {
        let (cache, key) = (ReplayCache::new(), holder(1));
        for second in 0..3 * SPAN_S {
            let now = UnixSeconds(START + second);
            assert_eq!(cache.insert(&key, &nonce(second), tree(1), now + 90, now), Ok(()));
            for age in 0..90.min(second + 1) {
                let past = second - age;
                let dead_at = UnixSeconds(START + past + 90);
                assert_eq!(cache.insert(&key, &nonce(past), tree(1), dead_at, now), Err(Replay::Seen));
            }
        }
        assert!(cache.len() <= usize::try_from(2 * SPAN_S).expect("small"));
    }

    #[test]
    fn another_holder_or_nonce_is_another_proof() {
        let (cache, now) = (ReplayCache::new(), UnixSeconds(START));
        assert_eq!(cache.insert(&holder(1), &nonce(1), tree(1), now + 90, now), Ok(()));
        assert_eq!(cache.insert(&holder(2), &nonce(1), tree(1), now + 90, now), Ok(()));
        assert_eq!(cache.insert(&holder(1), &nonce(2), tree(1), now + 90, now), Ok(()));
        assert_eq!(cache.insert(&holder(1), &nonce(1), tree(1), now + 90, now), Err(Replay::Seen));
    }

    #[test]
    fn time_never_runs_backwards() {
        let (cache, key, now) = (ReplayCache::new(), holder(1), UnixSeconds(START));
        assert_eq!(cache.insert(&key, &nonce(1), tree(1), now + 90, now), Ok(()));
        let later = now + 10 * SPAN_S;
        assert_eq!(cache.insert(&key, &nonce(2), tree(1), later + 90, later), Ok(()));
        // The clock is set back: the first proof is forgotten, and for that reason refused.
        assert_eq!(cache.insert(&key, &nonce(1), tree(1), now + 90, now), Err(Replay::OutOfTime));
        assert_eq!(cache.insert(&key, &nonce(2), tree(1), later + 90, now), Err(Replay::Seen));
        assert_eq!(cache.insert(&key, &nonce(3), tree(1), later + 90, now), Ok(()));
    }

    #[test]
    fn a_full_quota_refuses_that_tree_alone_and_until_its_proofs_die() {
        let (cache, key, now) = (ReplayCache::with_bounds(3, 100), holder(1), UnixSeconds(START));
        // Trees 1 and 65 share a lock.
        for number in 0..3 {
            assert_eq!(cache.insert(&key, &nonce(number), tree(1), now + 90, now), Ok(()));
        }
        assert_eq!(cache.insert(&key, &nonce(3), tree(1), now + 90, now), Err(Replay::Full));
        assert_eq!(cache.insert(&key, &nonce(0), tree(1), now + 90, now), Err(Replay::Seen));
        assert_eq!(cache.insert(&key, &nonce(3), tree(65), now + 90, now), Ok(()));
        assert_eq!(cache.insert(&key, &nonce(3), tree(2), now + 90, now), Ok(()));
        let later = now + 2 * SPAN_S;
        assert_eq!(cache.insert(&key, &nonce(3), tree(1), later + 90, later), Ok(()));
    }

    #[test]
    fn the_whole_is_bounded_and_forgets_dead_trees() {
        let (cache, key, now) = (ReplayCache::with_bounds(10, 4), holder(1), UnixSeconds(START));
        for number in 0..4 {
            assert_eq!(cache.insert(&key, &nonce(0), tree(number), now + 90, now), Ok(()));
        }
        assert_eq!(cache.insert(&key, &nonce(0), tree(4), now + 90, now), Err(Replay::Full));
        let later = now + 3 * SPAN_S;
        for number in 4..8 {
            assert_eq!(cache.insert(&key, &nonce(1), tree(number), later + 90, later), Ok(()));
        }
        assert_eq!(cache.len(), 4);
        let trees: usize = cache.shards.iter().map(|shard| shard.lock().expect("not poisoned").trees.len()).sum();
        assert_eq!(trees, 4);
    }

    #[test]
    fn a_life_beyond_what_is_remembered_is_refused() {
        let (cache, key, now) = (ReplayCache::new(), holder(1), UnixSeconds(START));
        let limit = now + SPAN_S;
        assert_eq!(cache.insert(&key, &nonce(1), tree(1), limit, now), Ok(()));
        assert_eq!(cache.insert(&key, &nonce(2), tree(1), limit + 1, now), Err(Replay::OutOfTime));
    }

    #[test]
    fn of_many_at_once_one_wins() {
        let (cache, key, now) = (ReplayCache::new(), holder(1), UnixSeconds(START));
        let won: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..200).filter(|n| cache.insert(&key, &nonce(*n), tree(1), now + 90, now).is_ok()).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(won, 200);
    }
}
