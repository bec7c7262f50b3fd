//! What one CONNECT (or one absolute-form request) has shown: who it is, and the one place it goes to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ulid::Ulid;

use super::authenticate::Authenticated;
use super::body::Uplink;
use crate::clock::UnixSeconds;
use crate::net::pool::{Connection, PoolKey};
use crate::request::{Scheme, Target};

/// An authenticated way to one destination. Requests inside it share it and touch no other shared state
/// but counters.
pub(crate) struct Tunnel {
    pub(super) who: Authenticated,
    pub(super) target: Target,
    pub(super) scheme: Scheme,
    /// Request ids are drawn from here, so that no request asks the system for randomness.
    id_next: AtomicU64,
    /// The connection that this tunnel used last. One client, so nobody waits for this lock.
    upstream: Mutex<Option<(PoolKey, Connection<Uplink>)>>,
}

impl Tunnel {
    pub(super) fn new(who: Authenticated, target: Target, scheme: Scheme) -> Self {
        Self { who, target, scheme, id_next: AtomicU64::new(0), upstream: Mutex::new(None) }
    }

    /// A new request's id: its time in milliseconds, then bits that no other tunnel draws.
    pub(super) fn next_id(&self, time_ms: u64) -> Ulid {
        let number = self.id_next.fetch_add(1, Ordering::Relaxed);
        Ulid::from_parts(time_ms, self.who.id_base.wrapping_add(u128::from(number)))
    }

    /// The connection used last, when it fits.
    pub(super) fn take_upstream(&self, key: &PoolKey) -> Option<Connection<Uplink>> {
        let mut kept = self.upstream.lock().ok()?;
        kept.take_if(|(of, _)| of == key).map(|(_, connection)| connection)
    }

    /// Keeps a connection for this tunnel's next request; a second one goes to the pool.
    pub(super) fn keep_upstream(&self, key: PoolKey, connection: Connection<Uplink>) {
        let Ok(mut kept) = self.upstream.lock() else { return };
        if kept.is_none() {
            *kept = Some((key, connection));
        } else {
            drop(kept);
            self.who.proxy.pool.give(&key, connection);
        }
    }

    /// How long this tunnel may go on from now.
    pub(super) fn deadline(&self, now: UnixSeconds) -> Instant {
        let left = self.who.ends_at.get().saturating_sub(now.get());
        Instant::now() + std::time::Duration::from_secs(left)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some((key, connection)) = self.upstream.get_mut().ok().and_then(Option::take) {
            self.who.proxy.pool.give(&key, connection);
        }
    }
}

/// Names nobody and nothing secret.
impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("target", &self.target).field("client", &self.who.client).finish_non_exhaustive()
    }
}
