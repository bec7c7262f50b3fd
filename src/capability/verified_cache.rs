//! Capabilities whose chain has been verified, by the hash of their bytes: signatures are checked once for each, not
//! once for each CONNECT.
//!
//! What is cached is true whatever happens later: revocation, budgets and time are judged on every use, and a change of
//! the roots makes another key.
#![expect(
    clippy::disallowed_types,
    reason = "not on the path of a request inside a tunnel: asked at a CONNECT, or by a request that brings its own proof"
)]

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::Verified;
use crate::clock::UnixSeconds;

/// Verified capabilities in memory, at most: some 2 to 8 KB each.
pub const VERIFIED_MAX: usize = 4096;
const SHARDS: usize = 16;

/// SHA-256 of the bytes, and the epoch of the roots that they were verified with.
type Key = ([u8; 32], u64);

/// A bounded cache, shared by all connections.
pub struct VerifiedCache {
    shards: Vec<RwLock<HashMap<Key, Arc<Verified>>>>,
    per_shard_max: usize,
}

impl VerifiedCache {
    /// An empty cache for [`VERIFIED_MAX`] capabilities.
    #[must_use]
    pub fn new() -> Self {
        Self::with_bound(VERIFIED_MAX)
    }

    /// An empty cache for about so many capabilities.
    #[must_use]
    pub fn with_bound(max: usize) -> Self {
        let shards = std::iter::repeat_with(RwLock::default).take(SHARDS).collect();
        Self { shards, per_shard_max: max.div_ceil(SHARDS).max(1) }
    }

    /// The capability of that hash, if it was verified with the roots of that epoch.
    #[must_use]
    pub fn get(&self, hash: &[u8; 32], roots_epoch: u64) -> Option<Arc<Verified>> {
        let shard = self.shard(hash)?.read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&(*hash, roots_epoch)).cloned()
    }

    /// Remembers a capability that was verified with the roots of that epoch. Where there is no room, one that has
    /// expired at `now` or belongs to another epoch goes, else any.
    pub fn insert(&self, roots_epoch: u64, verified: Arc<Verified>, now: UnixSeconds) {
        let hash = verified.hash();
        let Some(shard) = self.shard(&hash) else { return };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= self.per_shard_max && !shard.contains_key(&(hash, roots_epoch)) {
            shard.retain(|(_, epoch), old| *epoch == roots_epoch && old.expires_at().is_none_or(|end| end > now));
        }
        if shard.len() >= self.per_shard_max
            && let Some(any) = shard.keys().next().copied()
        {
            shard.remove(&any);
        }
        shard.insert((hash, roots_epoch), verified);
    }

    /// How many are in memory, for metrics.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, hash: &[u8; 32]) -> Option<&RwLock<HashMap<Key, Arc<Verified>>>> {
        self.shards.get(usize::from(hash[0]) % SHARDS)
    }
}

impl Default for VerifiedCache {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, verified};
    use super::*;

    fn expiring(number: u32, at: UnixSeconds) -> Arc<Verified> {
        let check = super::super::expires_at(at);
        Arc::new(verified(&[&check, &format!("check if hop($hop), $hop <= {number}")]))
    }

    #[test]
    fn a_capability_is_found_by_its_hash_and_the_roots_alone() {
        let cache = VerifiedCache::new();
        let one = expiring(1, NOW + 60);
        cache.insert(7, one.clone(), NOW);
        assert!(cache.get(&one.hash(), 7).is_some_and(|found| Arc::ptr_eq(&found, &one)));
        assert!(cache.get(&one.hash(), 8).is_none());
        let mut other = one.hash();
        other[31] ^= 1;
        assert!(cache.get(&other, 7).is_none());
    }

    #[test]
    fn the_number_is_bounded_and_the_dead_go_first() {
        let cache = VerifiedCache::with_bound(16 * 4);
        let dead: Vec<_> = (0..64).map(|number| expiring(number, NOW)).collect();
        let live: Vec<_> = (64..96).map(|number| expiring(number, NOW + 60)).collect();
        for one in dead.iter().chain(&live) {
            cache.insert(1, one.clone(), NOW);
            assert!(cache.len() <= 64);
        }
        // Every shard that is full had dead ones to give up, unless more than four of the live fell into it.
        let kept = live.iter().filter(|one| cache.get(&one.hash(), 1).is_some()).count();
        let mut per_shard = [0_usize; SHARDS];
        for one in &live {
            per_shard[usize::from(one.hash()[0]) % SHARDS] += 1;
        }
        assert_eq!(kept, per_shard.iter().map(|count| (*count).min(4)).sum::<usize>());
    }

    #[test]
    fn inserting_again_takes_no_room() {
        let cache = VerifiedCache::with_bound(16);
        let one = expiring(1, NOW + 60);
        cache.insert(1, one.clone(), NOW);
        cache.insert(1, one.clone(), NOW);
        assert_eq!(cache.len(), 1);
    }
}
