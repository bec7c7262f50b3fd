//! The proxy: the way of a request, one file per stage.
//!
//! Per connection: [`serve`] accepts → `connect` reads the CONNECT → `authenticate` checks proof and chain →
//! `terminate` ends TLS. Per request, spelled out in `exchange`: `inbound` decides once what is asked → `authorize`
//! asks policy → `rewrite` strips and injects → `forward` sends → `relay` streams the answer. Each stage consumes
//! the value that the one before returned, and only that stage can make it: forwarding without authorization does
//! not compile. `respond` is the one place that makes answers of refusals.
//!
//! Deliberately absent: redirects followed, answers cached, unsafe requests repeated, bodies held.

mod authenticate;
mod authorize;
mod beat;
mod body;
mod carry;
mod charset;
mod coding;
mod connect;
mod door;
mod drain;
mod exchange;
mod filter;
mod forward;
mod frames;
mod hello;
mod holding;
mod hop;
mod inbound;
mod inspect;
mod keep;
mod limits;
mod live;
mod messages;
mod metrics;
mod opening;
mod passthrough;
mod patience;
mod relay;
mod respond;
mod revoked;
mod rewrite;
mod share;
mod scrub;
mod seldom;
mod terminate;
mod transparent;
mod tunnel;
mod turns;
mod unserved;
mod upgrade;
mod view;
mod zstd_blocks;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use authenticate::Client;
use body::Uplink;
use door::{Crowd, Door, Queue};
use nix::libc;
use seldom::Seldom;
use share::{Bounds, Shares};
use turns::Turns;

use crate::audit::Journal;
use crate::capability::{InvalidCapability, Ledger, ReplayCache, Verified, VerifiedCache, verify};
use crate::clock::UnixSeconds;
use crate::net::channel::Channel;
use crate::net::dial::Dialer;
use crate::net::leaf::LeafCache;
use crate::net::listener::{Listener, Stream};
use crate::net::pool::{Pool, SWEEP_EVERY};
use crate::traces::Traces;

pub use drain::Drain;
pub use holding::{BadHolding, Holding, Holdings};
pub use limits::Limits;
pub use live::{Live, Snapshot, SnapshotParts};
pub use metrics::{BOUNDS, Count, Distribution, Metrics, Series};
pub use revoked::REVOCATIONS_PATH;

/// When the descriptor table is full, accepting is tried again after this long.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The door that clients of a listener come in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entrance {
    /// They bring credentials.
    Main,
    /// They bring credentials, over TLS that ends here.
    Tls,
    /// They act under the capability of the [`Holding`] with this name, and no credentials of theirs are looked at.
    Bound {
        /// The listener's name.
        name: Arc<str>,
        /// On a Unix socket, the users whose processes are let in. Empty: the proxy's own.
        uids: Vec<u32>,
        /// The connections are redirected ones, of clients that know no proxy.
        transparent: bool,
    },
}

/// What a proxy is made of. One process has one, however many listeners it serves.
pub struct Proxy {
    /// The name that proofs are made for.
    pub audience: Arc<str>,
    /// Bounds and waits.
    pub limits: Limits,
    /// What may change while it runs.
    pub live: Live,
    /// The journal.
    pub journal: Journal,
    /// The local CA at work.
    pub leaves: LeafCache,
    /// Resolving and connecting.
    pub dialer: Arc<Dialer>,
    /// Who is told of requests that have ended.
    pub traces: Traces,
    /// Counts.
    pub metrics: Metrics,
    /// Budgets and rates.
    pub ledger: Ledger,
    pool: Pool<Uplink>,
    verified: VerifiedCache,
    /// Turns at verifying a chain, by the authority block that it claims.
    verifying: Turns<Result<Arc<Verified>, InvalidCapability>>,
    replay: ReplayCache,
    shares: Shares,
    /// Connections on which nobody has authenticated yet.
    strangers: Arc<AtomicUsize>,
    /// Why an upstream was not reached, which its agent is not told.
    unreached: Seldom,
    /// Rings when somebody cannot be accepted for want of a descriptor and has no stranger to end.
    crowded: Crowd,
}

/// The parts that whoever starts a proxy puts together.
pub struct Parts {
    /// See [`Proxy::audience`].
    pub audience: Arc<str>,
    /// See [`Proxy::limits`].
    pub limits: Limits,
    /// See [`Proxy::live`].
    pub live: Live,
    /// See [`Proxy::journal`].
    pub journal: Journal,
    /// See [`Proxy::leaves`].
    pub leaves: LeafCache,
    /// See [`Proxy::dialer`].
    pub dialer: Arc<Dialer>,
    /// See [`Proxy::traces`].
    pub traces: Traces,
}

impl Proxy {
    /// A proxy with empty caches and counters.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { audience, limits, live, journal, leaves, dialer, traces } = parts;
        let shares = Shares::new(Bounds {
            tunnels: limits.authority_tunnels_max.unwrap_or((limits.connections_max / 2).max(1)),
            requests: limits.authority_requests_max.unwrap_or((journal.in_flight_max() / 2).max(1)),
            large: (journal.large_in_flight_max() / 2).max(1),
        });
        let verifying = Turns::new(limits.connections_max);
        Arc::new(Self {
            audience,
            limits,
            live,
            journal,
            leaves,
            dialer,
            traces,
            metrics: Metrics::default(),
            ledger: Ledger::new(),
            pool: Pool::default(),
            verified: VerifiedCache::new(),
            verifying,
            replay: ReplayCache::new(),
            shares,
            strangers: Arc::default(),
            unreached: Seldom::new(),
            crowded: Crowd::default(),
        })
    }

    /// Has each listener end its oldest stranger, where `error` says that there are no descriptors left.
    pub(crate) fn make_room(&self, error: &io::Error) {
        if is_out_of_descriptors(error) {
            self.crowded.ring();
        }
    }
}

/// Whether the process, or the system, can open nothing more.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// How much is kept at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// HTTP/1.1 connections to upstreams that no request uses. The one of HTTP/2 is shared and never idle.
    pub idle: usize,
    /// Capabilities whose chain has been verified.
    pub capabilities: usize,
    /// Used proofs.
    pub proofs: usize,
}

/// The capability of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The listener's name.
    pub name: Arc<str>,
    /// Until when it counts, where it holds and plainly says an end.
    pub expires_at: Option<UnixSeconds>,
    /// Why nobody is served under it now; `None` when it lives.
    pub dead: Option<Dead>,
}

/// Why a capability serves nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dead {
    /// Its chain does not hold, or starts at no root of ours.
    Invalid,
    /// A block or a holder of it is revoked.
    Revoked,
    /// Its time is over.
    Expired,
}

impl Proxy {
    /// What the caches hold.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept { idle: self.pool.idle(), capabilities: self.verified.len(), proofs: self.replay.len() }
    }

    /// What the capability of each listener is worth at this moment.
    #[must_use]
    pub fn listeners(&self, now: UnixSeconds) -> Vec<Held> {
        let snapshot = self.live.snapshot();
        let verified = |holding: &Holding| {
            let capability = holding.capability();
            let known = self.verified.get(&capability.sha256(), snapshot.roots_epoch());
            known.or_else(|| {
                let verified = Arc::new(verify(capability, snapshot.roots(), &self.limits.chain).ok()?);
                self.verified.insert(snapshot.roots_epoch(), Arc::clone(&verified), now);
                Some(verified)
            })
        };
        let held = |(name, holding): (&Arc<str>, &Holding)| {
            let verified = verified(holding);
            let expires_at = verified.as_ref().and_then(|it| it.expires_at());
            let dead = match &verified {
                None => Some(Dead::Invalid),
                Some(it) if snapshot.revocations().is_revoked(it).is_some() => Some(Dead::Revoked),
                Some(_) => expires_at.filter(|end| *end <= now).map(|_| Dead::Expired),
            };
            Held { name: Arc::clone(name), expires_at, dead }
        };
        snapshot.holdings().iter().map(held).collect()
    }
}

impl Entrance {
    fn is_bound(&self) -> bool {
        matches!(self, Self::Bound { .. })
    }

    /// The name of what is held for its clients.
    fn holds(&self) -> Option<&Arc<str>> {
        match self {
            Self::Bound { name, .. } => Some(name),
            Self::Main | Self::Tls => None,
        }
    }

    fn is_transparent(&self) -> bool {
        matches!(self, Self::Bound { transparent: true, .. })
    }

    /// Whether whoever is at the other end may come in at all.
    fn admits(&self, stream: &Stream) -> bool {
        match (self, stream) {
            (Self::Bound { uids, .. }, Stream::Unix(_)) => stream.is_from(uids),
            _ => true,
        }
    }
}

/// Names no part: some hold keys.
impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// Accepts clients until the drain begins. Clients are served on tasks of their own, which the drain waits for.
pub async fn serve(proxy: Arc<Proxy>, listener: Listener, entrance: Entrance, drain: Drain) {
    let entrance = Arc::new(entrance);
    let door = Arc::new(Door::new(entrance.is_bound(), Arc::clone(&proxy.strangers)));
    let mut queue = Queue::new();
    let mut swept = Instant::now();
    // Said once, not twenty times a second.
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => Some(accepted),
            () = tokio::time::sleep(SWEEP_EVERY) => None,
            () = proxy.crowded.rings() => {
                queue.end_first();
                None
            }
            () = drain.started() => return,
        };
        if swept.elapsed() >= SWEEP_EVERY {
            swept = Instant::now();
            proxy.pool.sweep(swept);
            proxy.dialer.sweep(swept);
        }
        match accepted {
            Some(Ok((stream, peer))) => {
                failing = false;
                proxy.metrics.count(Count::Connections);
                if !entrance.admits(&stream) {
                    if door.may_say() {
                        tracing::warn!("a process of another user was turned away from a listener's socket");
                    }
                    continue;
                }
                let Some(place) = door.enter(&mut queue, drain.running(), proxy.limits.connections_max) else {
                    if door.may_say() {
                        tracing::warn!(%peer, "too many connections: one was closed");
                    }
                    continue;
                };
                let (proxy, entrance) = (Arc::clone(&proxy), Arc::clone(&entrance));
                let stranger = Arc::downgrade(&place);
                let client = Client { proxy, entrance, peer, place, channel: Channel::Clear };
                let task = if client.entrance.is_transparent() {
                    drain.start(transparent::serve(client, stream, drain.clone()))
                } else {
                    drain.start(connect::serve(client, stream, drain.clone()))
                };
                queue.push(stranger, task);
                queue.settle().await;
            }
            Some(Err(error)) => {
                if !std::mem::replace(&mut failing, true) && door.may_say() {
                    tracing::warn!(%error, "a client could not be accepted");
                }
                // Who has shown nothing makes room for who is next: of this listener first.
                if is_out_of_descriptors(&error) && queue.end_first() {
                    queue.vacate().await;
                } else {
                    proxy.make_room(&error);
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
            None => {}
        }
    }
}
