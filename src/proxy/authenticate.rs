//! authenticate: the proof, then the chain, then the nonce; what comes out knows its holder.
//!
//! The order is what makes a stolen capability cheap to refuse: the proof is checked against the holder
//! that the capability *claims*, before any signature of its chain, and a nonce is remembered only when
//! everything else held, so strangers cannot fill the memory.

use std::sync::Arc;

use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;

use super::door::Place;
use super::live::Snapshot;
use super::metrics::{Count, OpenTunnel};
use super::share::Seat;
use super::turns::pauses;
use super::{Entrance, Proxy};
use crate::audit::{Identity, IdentityHop};
use crate::capability::{
    Account, Block, BlockId, Capability, Context, Credentials, ProofError, Proven, PublicKey, Purpose, Verified,
    claimed_authority, claimed_holder, verify_in_steps,
};
use crate::clock::UnixSeconds;
use crate::net::channel::Channel;
use crate::net::listener::Peer;
use crate::policy::Code;
use crate::request::ProofKind;
use crate::store::random;

/// Evidence that the sender holds a genuine capability. Whether the capability still lives, and what it
/// allows, is decided inside the tunnel.
#[must_use]
pub(super) struct Authenticated {
    pub(super) proxy: Arc<Proxy>,
    pub(super) verified: Arc<Verified>,
    /// The counters of the chain's budgets and rates.
    pub(super) account: Account,
    /// The root key that the chain starts at; a tunnel ends when it is no longer a root.
    pub(super) root: PublicKey,
    pub(super) proof: ProofKind,
    pub(super) identity: Identity,
    pub(super) client: Box<str>,
    /// Authority ends here, whatever a capability says: a presentation's end, or the longest age of a tunnel.
    pub(super) ends_at: UnixSeconds,
    /// Its place among the tunnels of its authority.
    pub(super) seat: Seat,
    /// Its connection's place inside, as long as it lasts.
    _place: Arc<Place>,
    /// The random part of the request ids.
    pub(super) id_base: u128,
    /// That it is open is counted, where it is a tunnel.
    pub(super) open: Option<OpenTunnel>,
}

/// Why a sender is asked again for credentials: the `error` of the 407.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) code: Code,
    pub(super) detail: String,
}

impl Challenge {
    fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Whose connection it is, as far as the connection itself tells.
pub(super) struct Client {
    pub(super) proxy: Arc<Proxy>,
    pub(super) entrance: Arc<Entrance>,
    pub(super) peer: Peer,
    /// Its place inside.
    pub(super) place: Arc<Place>,
    /// Clear until the TLS of a listener that has it is there.
    pub(super) channel: Channel,
}

impl Client {
    /// True when nobody on the way can read what the client sends.
    pub(super) fn is_private(&self) -> bool {
        self.peer.is_local() || self.channel != Channel::Clear
    }
}

/// Checks the `Proxy-Authorization` of one CONNECT or one absolute-form request; on a listener that holds a capability,
/// what the proxy proves in the client's place.
pub(super) async fn authenticate(
    client: &Client,
    snapshot: &Arc<Snapshot>,
    headers: Option<&HeaderMap>,
    purpose: Purpose<'_>,
) -> Result<Authenticated, Challenge> {
    let Client { proxy, entrance, peer, .. } = client;
    let now = UnixSeconds::now();
    let (credentials, listener) = match &**entrance {
        Entrance::Main | Entrance::Tls => (credentials(headers.ok_or_else(no_credentials)?)?, None),
        Entrance::Bound { name, .. } => (held(proxy, snapshot, name, purpose, now)?, Some(&**name)),
    };
    let known = proxy.verified.get(&credentials.capability.sha256(), snapshot.roots_epoch());
    proxy.metrics.count(if known.is_some() { Count::CapabilitiesKnown } else { Count::CapabilitiesNew });
    let proven = prove(client, &credentials, known.as_deref(), purpose, now)?;
    if proven.kind() == ProofKind::Presentation && !client.is_private() {
        return Err(Challenge::new(Code::ProofInvalid, "a presentation is not accepted over clear text"));
    }
    let verified = match known {
        Some(known) => known,
        None => chain(proxy, snapshot, credentials.capability, now).await?,
    };
    if verified.holder() != proven.holder() {
        return Err(Challenge::new(Code::CapabilityInvalid, "the capability's chain ends with another holder"));
    }
    let root = *snapshot.roots().get(verified.kid()).ok_or_else(|| root_unknown(&verified))?;
    if snapshot.revocations().is_revoked(&verified).is_none() {
        remember(proxy, &verified, &proven, now)?;
    }
    let ends_at = match proven.kind() {
        ProofKind::Presentation => proven.dead_at().min(now + proxy.limits.tunnel_age_max.as_secs()),
        ProofKind::Connect | ProofKind::Request => now + proxy.limits.tunnel_age_max.as_secs(),
    };
    let id_base = random::bytes::<16>().map_err(|_| Challenge::new(Code::Overloaded, "no randomness"))?;
    let authority = verified.blocks().first().map_or(BlockId([0; 32]), Block::id);
    let seat = proxy.shares.seat(authority);
    let seat = seat.ok_or_else(|| Challenge::new(Code::Overloaded, "this authority has too many tunnels"))?;
    client.place.known();
    Ok(Authenticated {
        proxy: Arc::clone(proxy),
        seat,
        _place: Arc::clone(&client.place),
        identity: identity(&verified, proven.kind(), listener),
        root,
        proof: proven.kind(),
        client: peer.to_string().into(),
        ends_at,
        id_base: u128::from_be_bytes(id_base),
        open: None,
        account: proxy.ledger.account(&verified, now),
        verified,
    })
}

/// The credentials that the proxy itself has for the clients of a listener.
fn held(
    proxy: &Proxy,
    snapshot: &Snapshot,
    listener: &str,
    purpose: Purpose<'_>,
    now: UnixSeconds,
) -> Result<Credentials, Challenge> {
    let holding = snapshot.holding(listener);
    let credentials = holding.and_then(|holding| holding.credentials(&proxy.audience, purpose, now));
    credentials.ok_or_else(|| Challenge::new(Code::Overloaded, "no proof could be made"))
}

fn no_credentials() -> Challenge {
    Challenge::new(Code::Missing, "no Proxy-Authorization")
}

fn credentials(headers: &HeaderMap) -> Result<Credentials, Challenge> {
    let mut values = headers.get_all(PROXY_AUTHORIZATION).iter();
    let value = values.next().ok_or_else(no_credentials)?;
    if values.next().is_some() {
        return Err(Challenge::new(Code::Malformed, "more than one Proxy-Authorization"));
    }
    // An unknown scheme, a broken encoding, a Basic user that is not `cap`: all are malformed.
    Credentials::from_proxy_authorization(value.as_bytes())
        .map_err(|error| Challenge::new(Code::Malformed, error.to_string()))
}

fn prove(
    client: &Client,
    credentials: &Credentials,
    known: Option<&Verified>,
    purpose: Purpose<'_>,
    now: UnixSeconds,
) -> Result<Proven, Challenge> {
    let holder = match known {
        // The same bytes: they claim what they proved before.
        Some(verified) => *verified.holder(),
        None => claimed_holder(&credentials.capability)
            .map_err(|error| Challenge::new(Code::CapabilityInvalid, error.to_string()))?,
    };
    let Client { proxy, channel, .. } = client;
    let unbound = Context::new(&proxy.audience, purpose);
    let capability = credentials.capability.sha256();
    let check =
        |context: Context<'_>| credentials.proof.check(&holder, &capability, &context, now, &proxy.limits.proof);
    let checked = match channel {
        Channel::Tls { binding, mutual } => match check(Context { binding, ..unbound }) {
            Err(ProofError::Signature) if !mutual => check(unbound),
            bound => bound,
        },
        Channel::Clear => check(unbound),
    };
    checked.map_err(|error| Challenge::new(Code::of_proof(&error), error.to_string()))
}

/// Verifies the chain, and remembers it for the next CONNECT under these roots.
///
/// The longest chains take milliseconds, and a holder can make as many as it likes. So it is done beside the threads
/// that serve requests, and by turns of authorities (`turns`): who makes many waits behind themselves. A claim costs one
/// signature to refuse, so that claiming many authorities gains little.
async fn chain(
    proxy: &Arc<Proxy>,
    snapshot: &Arc<Snapshot>,
    capability: Capability,
    now: UnixSeconds,
) -> Result<Arc<Verified>, Challenge> {
    let claimed =
        claimed_authority(&capability).map_err(|error| Challenge::new(Code::CapabilityInvalid, error.to_string()))?;
    let (verifier, roots) = (Arc::clone(proxy), Arc::clone(snapshot));
    let work = move || {
        let epoch = roots.roots_epoch();
        // Others may have shown the same capability meanwhile.
        if let Some(known) = verifier.verified.get(&capability.sha256(), epoch) {
            return Ok(known);
        }
        let (roots, limits) = (roots.roots(), &verifier.limits.chain);
        verify_in_steps(&capability, roots, limits, pauses()).map(Arc::new)
    };
    let verified = proxy.verifying.take(claimed, proxy.limits.authenticate, work).await;
    let verified = verified.ok_or_else(|| Challenge::new(Code::Overloaded, "no chain can be verified"))?;
    let verified = verified.map_err(|error| Challenge::new(Code::CapabilityInvalid, error.to_string()))?;
    proxy.verified.insert(snapshot.roots_epoch(), Arc::clone(&verified), now);
    Ok(verified)
}

fn root_unknown(verified: &Verified) -> Challenge {
    Challenge::new(Code::CapabilityInvalid, format!("no root has the number {}", verified.kid()))
}

/// Remembers the nonce of a proof that is good for one request only.
fn remember(proxy: &Proxy, verified: &Verified, proven: &Proven, now: UnixSeconds) -> Result<(), Challenge> {
    if proven.kind() == ProofKind::Presentation {
        return Ok(());
    }
    let Some(authority) = verified.blocks().first() else {
        return Err(Challenge::new(Code::CapabilityInvalid, "no authority block"));
    };
    proxy
        .replay
        .insert(proven.holder(), proven.nonce(), authority.id(), proven.dead_at(), now)
        .map_err(|error| Challenge::new(Code::of_replay(&error), error.to_string()))
}

fn identity(verified: &Verified, proof: ProofKind, listener: Option<&str>) -> Identity {
    let hops: Vec<IdentityHop<'_>> = verified
        .holders()
        .iter()
        .map(|hop| IdentityHop { holder: &hop.holder, name: hop.name.as_deref(), block: &hop.block.0 })
        .collect();
    Identity::new(verified.user(), &hops, &verified.hash(), proof, listener)
}
