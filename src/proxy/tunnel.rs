//! What one CONNECT (or one absolute-form request) has shown: who it is, and the one place it goes to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ulid::Ulid;

use super::Proxy;
use super::authenticate::Authenticated;
use super::body::Uplink;
use crate::audit::Identity;
use crate::capability::{Account, PublicKey, Verified};
use crate::clock::UnixSeconds;
use crate::net::pool::{Connection, PoolKey};
use crate::request::{ProofKind, Scheme, Target};

/// An authenticated way to one destination. Requests inside it share it and touch no other shared state
/// but counters.
pub(crate) struct Tunnel {
    pub(super) proxy: Arc<Proxy>,
    pub(super) target: Target,
    pub(super) scheme: Scheme,
    pub(super) verified: Arc<Verified>,
    /// The counters of the chain's budgets and rates.
    pub(super) account: Account,
    /// The root key that the chain starts at; the tunnel ends when it is no longer a root.
    pub(super) root: PublicKey,
    pub(super) proof: ProofKind,
    pub(super) identity: Arc<Identity>,
    pub(super) client: Arc<str>,
    /// Authority ends here, whatever a capability says: a presentation's end, or the longest age.
    pub(super) ends_at: UnixSeconds,
    /// Request ids are drawn from here, so that no request asks the system for randomness.
    id_base: u128,
    id_next: AtomicU64,
    /// The connection that this tunnel used last. One client, so nobody waits for this lock.
    upstream: Mutex<Option<(PoolKey, Connection<Uplink>)>>,
}

impl Tunnel {
    pub(super) fn new(authenticated: Authenticated, target: Target, scheme: Scheme) -> Self {
        let Authenticated { proxy, verified, account, root, proof, identity, client, ends_at, id_base } = authenticated;
        Self {
            proxy,
            target,
            scheme,
            verified,
            account,
            root,
            proof,
            identity,
            client,
            ends_at,
            id_base,
            id_next: AtomicU64::new(0),
            upstream: Mutex::new(None),
        }
    }

    /// A new request's id: its time in milliseconds, then bits that no other tunnel draws.
    pub(super) fn next_id(&self, time_ms: u64) -> Ulid {
        let number = self.id_next.fetch_add(1, Ordering::Relaxed);
        Ulid::from_parts(time_ms, self.id_base.wrapping_add(u128::from(number)))
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
            self.proxy.pool.give(&key, connection);
        }
    }

    /// How long this tunnel may go on from now.
    pub(super) fn deadline(&self, now: UnixSeconds) -> Instant {
        let left = self.ends_at.get().saturating_sub(now.get());
        Instant::now() + std::time::Duration::from_secs(left)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some((key, connection)) = self.upstream.get_mut().ok().and_then(Option::take) {
            self.proxy.pool.give(&key, connection);
        }
    }
}

/// Names nobody and nothing secret.
impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("target", &self.target).field("client", &self.client).finish_non_exhaustive()
    }
}
