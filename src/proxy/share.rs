//! What the holders of one authority block may have under way at once, so that one tree of capabilities cannot take the
//! whole proxy from the others.
//!
//! A tunnel takes its place when it is authenticated, with room for one request; a tunnel that runs more of them at once
//! (HTTP/2) leases room for some at a time. So requests write nothing that another tunnel reads, but seldom.

#![expect(
    clippy::disallowed_types,
    reason = "an authority is looked up when a tunnel is authenticated, not by its requests"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;

use crate::capability::BlockId;

/// Room for so many requests is leased, and given back, at a time.
const LEASE: usize = 16;
/// Beyond so many authorities, those without a tunnel are forgotten before another is noted.
const FORGET_AT: usize = 1024;

/// Bounds of one authority.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) tunnels: usize,
    pub(super) requests: usize,
    /// Requests whose journal entry needs a large slot.
    pub(super) large: usize,
}

/// The shares of all authorities that have a tunnel.
#[derive(Debug)]
pub(super) struct Shares {
    bounds: Bounds,
    shares: DashMap<BlockId, Weak<Share>>,
}

#[derive(Debug)]
struct Share {
    bounds: Bounds,
    tunnels: AtomicUsize,
    requests: AtomicUsize,
    large: AtomicUsize,
}

/// A tunnel's place in its authority's share; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    share: Arc<Share>,
    /// Requests of this tunnel under way, and how many of them have been leased room.
    running: AtomicUsize,
    leased: AtomicUsize,
}

impl Shares {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, shares: DashMap::new() }
    }

    /// A place for a tunnel; `None` when the authority has too many.
    pub(super) fn seat(&self, authority: BlockId) -> Option<Seat> {
        if self.shares.len() >= FORGET_AT {
            self.shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = {
            let mut known = self.shares.entry(authority).or_default();
            known.upgrade().unwrap_or_else(|| {
                let share = Arc::new(Share::new(self.bounds));
                *known = Arc::downgrade(&share);
                share
            })
        };
        take(&share.tunnels, 1, share.bounds.tunnels).then(|| Seat {
            share,
            running: AtomicUsize::new(0),
            leased: AtomicUsize::new(1),
        })
    }
}

impl Share {
    fn new(bounds: Bounds) -> Self {
        let [tunnels, requests, large] = [(); 3].map(|()| AtomicUsize::new(0));
        Self { bounds, tunnels, requests, large }
    }
}

impl Seat {
    /// Begins a request; false when the authority has too many under way. It ends with [`Self::end`] either way.
    pub(super) fn begin(&self) -> bool {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        if running <= self.leased.load(Ordering::Relaxed) {
            return true;
        }
        let leased = take(&self.share.requests, LEASE, self.share.bounds.requests);
        if leased {
            self.leased.fetch_add(LEASE, Ordering::Relaxed);
        }
        leased
    }

    /// Ends a request. When it was the last, all but one lease is given back.
    pub(super) fn end(&self) {
        if self.running.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        let kept = 1 + LEASE;
        let more =
            self.leased.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |leased| (leased > kept).then_some(kept));
        if let Ok(leased) = more {
            self.share.requests.fetch_sub(leased - kept, Ordering::Relaxed);
        }
    }

    /// The same for a request whose journal entry is large.
    pub(super) fn begin_large(&self) -> bool {
        take(&self.share.large, 1, self.share.bounds.large)
    }

    pub(super) fn end_large(&self) {
        self.share.large.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.share.requests.fetch_sub(*self.leased.get_mut() - 1, Ordering::Relaxed);
        self.share.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds `more`, unless that is more than `most`.
fn take(taken: &AtomicUsize, more: usize, most: usize) -> bool {
    let add = |taken: usize| taken.checked_add(more).filter(|taken| *taken <= most);
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { tunnels: 2, requests: LEASE, large: 1 };

    fn authority(number: u8) -> BlockId {
        BlockId([number; 32])
    }

    #[test]
    fn one_authority_takes_its_own_tunnels_alone_and_gets_them_back() {
        let shares = Shares::new(BOUNDS);
        let first = shares.seat(authority(1)).expect("the first");
        let second = shares.seat(authority(1)).expect("the second");
        assert!(shares.seat(authority(1)).is_none());
        assert!(shares.seat(authority(2)).is_some());
        drop(first);
        assert!(shares.seat(authority(1)).is_some());
        drop(second);
    }

    #[test]
    fn requests_beyond_the_lease_are_refused_until_others_end() {
        let shares = Shares::new(BOUNDS);
        let (many, few) = (shares.seat(authority(1)).expect("one"), shares.seat(authority(1)).expect("two"));
        for _ in 0..=LEASE {
            assert!(many.begin());
        }
        assert!(!many.begin(), "one more than one of its own and a lease");
        many.end();
        assert!(few.begin(), "each tunnel has room for one");
        assert!(!few.begin());
        assert!(shares.seat(authority(2)).expect("another authority").begin());
        few.end();
        few.end();
        drop(many);
        for _ in 0..=LEASE {
            assert!(few.begin(), "what a tunnel leased comes back with its end");
        }
    }

    #[test]
    fn leases_come_back_when_a_tunnel_falls_idle_but_for_one() {
        let shares = Shares::new(Bounds { requests: 2 * LEASE, ..BOUNDS });
        let (busy, other) = (shares.seat(authority(1)).expect("one"), shares.seat(authority(1)).expect("two"));
        let burst = 1 + 2 * LEASE;
        for _ in 0..burst {
            assert!(busy.begin());
        }
        for _ in 0..burst {
            busy.end();
        }
        for _ in 0..=LEASE {
            assert!(other.begin());
        }
        assert!(!other.begin(), "the idle one keeps one lease");
    }

    #[test]
    fn large_entries_have_a_bound_of_their_own() {
        let shares = Shares::new(BOUNDS);
        let seat = shares.seat(authority(1)).expect("a seat");
        assert!(seat.begin_large());
        assert!(!seat.begin_large());
        assert!(shares.seat(authority(2)).expect("another").begin_large());
        seat.end_large();
        assert!(seat.begin_large());
    }

    #[test]
    fn authorities_without_a_tunnel_are_forgotten() {
        let shares = Shares::new(BOUNDS);
        for number in 0..FORGET_AT + 10 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            drop(shares.seat(BlockId(id)));
        }
        assert!(shares.shares.len() <= FORGET_AT);
    }
}
