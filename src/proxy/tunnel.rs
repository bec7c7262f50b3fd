//! What one CONNECT (or one absolute-form request) has shown: who it is, and the one place it goes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use ulid::Ulid;

use super::authenticate::Authenticated;
use super::beat::Beat;
use super::live::Snapshot;
use super::view::View;
use crate::audit::Recorder;
use crate::clock::UnixSeconds;
use crate::request::{Scheme, Target};

/// An authenticated way to one destination. Requests inside it share it, without a lock.
pub(crate) struct Tunnel {
    pub(super) who: Authenticated,
    pub(super) target: Target,
    pub(super) scheme: Scheme,
    pub(super) recorder: Recorder,
    /// Of the client's connection.
    pub(super) beat: Arc<Beat>,
    /// Of the newest snapshot that a request has seen.
    view: ArcSwap<View>,
    /// Request ids are drawn from here, so that no request asks the system for randomness.
    id_next: AtomicU64,
}

impl Tunnel {
    pub(super) fn new(
        who: Authenticated,
        target: Target,
        scheme: Scheme,
        snapshot: Arc<Snapshot>,
        beat: Arc<Beat>,
    ) -> Self {
        let view = ArcSwap::from_pointee(View::new(snapshot, &who, scheme, &target));
        let recorder = who.proxy.journal.recorder();
        Self { who, target, scheme, recorder, beat, view, id_next: AtomicU64::new(0) }
    }

    /// What the current snapshot says of the destination.
    pub(super) fn view(&self) -> Arc<View> {
        let known = self.view.load_full();
        let live = &self.who.proxy.live;
        if known.snapshot().epoch() == live.epoch() {
            return known;
        }
        let view = Arc::new(View::new(live.snapshot(), &self.who, self.scheme, &self.target));
        self.view.store(Arc::clone(&view));
        view
    }

    /// A new request's id: its time in milliseconds, then bits that no other tunnel draws.
    pub(super) fn next_id(&self, time_ms: u64) -> Ulid {
        let number = self.id_next.fetch_add(1, Ordering::Relaxed);
        Ulid::from_parts(time_ms, self.who.id_base.wrapping_add(u128::from(number)))
    }

    /// How long this tunnel may go on from now.
    pub(super) fn deadline(&self, now: UnixSeconds) -> Instant {
        let left = self.who.ends_at.get().saturating_sub(now.get());
        Instant::now() + std::time::Duration::from_secs(left)
    }
}

/// Names nobody and nothing secret.
impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("target", &self.target).field("client", &self.who.client).finish_non_exhaustive()
    }
}
