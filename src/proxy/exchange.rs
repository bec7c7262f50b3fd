//! One request from its head to the end of its answer: who asks for what, its journal entry, its permit.
//!
//! An [`Exchange`] is made once, travels through the stages inside their values, and is closed exactly
//! once: by the end of the answer, by a refusal, or by being dropped, which the journal reads as
//! `aborted`.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use ulid::Ulid;

use super::authenticate::Authenticated;
use super::body::{Meter, Reply};
use super::inbound::{Ask, Inbound};
use super::live::Snapshot;
use super::relay::RECHECK_EVERY;
use super::respond::{self, Refusal, Style};
use super::tunnel::Tunnel;
use super::{Drain, Proxy};
use crate::audit::{Ending, Entry, Event, Intent, Outcome};
use crate::capability::{Block, BlockId, Reservation};
use crate::clock::UnixSeconds;
use crate::credential::SecretName;
use crate::net::guard::GuardState;
use crate::net::pool::PoolKey;
use crate::policy::{self, Code};
use crate::request::{CanonicalPath, Target};

/// The way of a request, spelled once: each stage consumes what the one before returned.
pub(super) async fn answer(
    tunnel: Arc<Tunnel>,
    snapshot: Arc<Snapshot>,
    request: Request<Incoming>,
    guard: Option<&Arc<GuardState>>,
    drain: &Drain,
) -> Response<Reply> {
    match way(tunnel, snapshot, request, guard, drain).await {
        Ok(response) => response,
        Err(refused) => refused.respond(),
    }
}

async fn way(
    tunnel: Arc<Tunnel>,
    snapshot: Arc<Snapshot>,
    request: Request<Incoming>,
    guard: Option<&Arc<GuardState>>,
    drain: &Drain,
) -> Result<Response<Reply>, Refused> {
    let inbound = Inbound::read(tunnel, snapshot, request, guard)?;
    let mut outgoing = inbound.authorize()?.rewrite()?;
    if let (Some(client), Some(guard)) = (outgoing.upgrade.take(), guard) {
        return outgoing.upgrade(client, guard, drain).await;
    }
    Ok(outgoing.forward().await?.relay())
}

/// See the module.
pub(super) struct Exchange {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) meter: Arc<Meter>,
    snapshot: Arc<Snapshot>,
    ask: Ask,
    id: Ulid,
    style: Style,
    version: Version,
    started: Instant,
    entry: Option<Entry>,
    reservation: Option<Arc<Reservation>>,
    foreign: bool,
    upstream_since: Option<Instant>,
    upstream_ms: Option<u64>,
    checked: Instant,
}

/// What an exchange is opened with.
pub(super) struct Opening {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) ask: Ask,
    pub(super) style: Style,
    pub(super) version: Version,
    pub(super) foreign: bool,
    pub(super) event: Event,
}

impl Exchange {
    /// Opens the journal entry. Everything that can still go wrong is then on its line.
    pub(super) fn open(opening: Opening) -> Result<Self, Refused> {
        let Opening { tunnel, snapshot, ask, style, version, foreign, event } = opening;
        let started = Instant::now();
        let time_ms = unix_ms();
        let id = tunnel.next_id(time_ms);
        let entry = tunnel.who.proxy.journal.begin(&Intent {
            id,
            time_ms,
            event,
            identity: Some(&tunnel.who.identity),
            service: ask.service(),
            operation: ask.operation(),
            action: ask.action(),
            method: ask.method.as_ref().map(Method::as_str),
            host: Some(tunnel.target.host.as_str()),
            port: Some(tunnel.target.port),
            path: ask.path.as_ref().map(CanonicalPath::as_str),
            credential: ask.credential().map(SecretName::as_str),
            client: Some(&tunnel.who.client),
            foreign_credential: foreign,
        });
        let exchange = |entry| Self {
            meter: Arc::new(Meter::new(started)),
            tunnel: Arc::clone(&tunnel),
            snapshot,
            ask,
            id,
            style,
            version,
            started,
            entry,
            reservation: None,
            foreign,
            upstream_since: None,
            upstream_ms: None,
            checked: started,
        };
        if let Ok(entry) = entry {
            return Ok(exchange(Some(entry)));
        }
        let refusal = Refusal::new(Code::JournalUnavailable, "the request cannot be recorded, so it is not served");
        Err(exchange(None).refuse(refusal))
    }

    /// The exchange that a plain tunnel is.
    pub(super) fn of_tunnel(tunnel: Arc<Tunnel>, snapshot: Arc<Snapshot>) -> Result<Self, Refused> {
        let ask = Ask::tunnel(&snapshot, &tunnel);
        let (style, version) = (Style::Problem, Version::HTTP_11);
        Self::open(Opening { tunnel, snapshot, ask, style, version, foreign: false, event: Event::Tunnel })
    }

    /// Asks policy, the one door. The permit holds what was reserved of the budgets.
    pub(super) fn authorized(mut self) -> Result<Self, Refused> {
        let now = UnixSeconds::now();
        if !self.root_stands(&self.snapshot) {
            let refusal = Refusal::new(Code::CapabilityRevoked, "the capability's root is no longer trusted");
            return Err(self.refuse(refusal.hint("capctl mint --to PUBKEY --user YOU --allow GRANT --expires 8h")));
        }
        let facts = self.ask.facts(&self.tunnel, now);
        match policy::decide(&self.tunnel.who.verified, &facts, self.snapshot.revocations(), &self.tunnel.who.account) {
            Ok(permit) => {
                self.reservation = Some(Arc::new(permit.into_reservation()));
                Ok(self)
            }
            Err(denial) => {
                let refusal = self.ask.unknown_service(&self.tunnel, &denial).unwrap_or_else(|| Refusal::from(denial));
                Err(self.refuse(refusal))
            }
        }
    }

    /// Asks again whether a live exchange may go on, at most once a second: time, revocations, roots and
    /// configuration may have changed.
    pub(super) fn recheck(&mut self, now: Instant) -> Result<(), Code> {
        if now.duration_since(self.checked) < RECHECK_EVERY {
            return Ok(());
        }
        self.checked = now;
        let time = UnixSeconds::now();
        if time >= self.tunnel.who.ends_at {
            return Err(Code::CapabilityExpired);
        }
        let current = self.tunnel.who.proxy.live.snapshot();
        if current.epoch() != self.snapshot.epoch() {
            if !self.root_stands(&current) {
                return Err(Code::CapabilityRevoked);
            }
            self.ask = self.ask.again(&current, &self.tunnel).ok_or(Code::ServiceUnknown)?;
            self.snapshot = current;
        }
        let facts = self.ask.facts(&self.tunnel, time);
        policy::recheck(&self.tunnel.who.verified, &facts, self.snapshot.revocations()).map_err(|denial| denial.code)
    }

    /// A capability that is revoked or has expired is told so before anything else is said of its request.
    pub(super) fn dead(&self) -> Option<Refusal> {
        let facts = self.ask.facts(&self.tunnel, UnixSeconds::now());
        let denial = policy::recheck(&self.tunnel.who.verified, &facts, self.snapshot.revocations()).err()?;
        matches!(denial.code, Code::CapabilityRevoked | Code::CapabilityExpired).then(|| Refusal::from(denial))
    }

    fn root_stands(&self, snapshot: &Snapshot) -> bool {
        snapshot.roots().get(self.tunnel.who.verified.kid()) == Some(&self.tunnel.who.root)
    }

    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    pub(super) fn ask(&self) -> &Ask {
        &self.ask
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// The name of the secret that this exchange may use.
    pub(super) fn credential(&self) -> Option<&SecretName> {
        self.ask.credential()
    }

    /// Whether a service names the host exactly, not by a suffix and not as part of `web`.
    pub(super) fn named_exactly(&self) -> bool {
        self.ask.named_exactly()
    }

    pub(super) fn pool_key(&self) -> PoolKey {
        PoolKey {
            scheme: self.tunnel.scheme,
            target: self.tunnel.target.clone(),
            named: self.named_exactly(),
            authority: self.tunnel.who.verified.blocks().first().map_or(BlockId([0; 32]), Block::id),
            credential: self.credential().map(|name| Arc::from(name.as_str())),
            trust_epoch: self.snapshot.trust_epoch(),
        }
    }

    /// Given only when some block of the chain has a budget: others need no counting as they go.
    pub(super) fn reservation(&self) -> Option<Arc<Reservation>> {
        self.reservation.as_ref().filter(|_| self.tunnel.who.account.is_counted()).map(Arc::clone)
    }

    /// Counts bytes towards the client; false when a budget is used up.
    pub(super) fn sent_down(&self, bytes: usize) -> bool {
        self.meter.add_down(bytes);
        self.reservation.as_ref().is_none_or(|taken| taken.add_down(bytes as u64))
    }

    pub(super) fn upstream_started(&mut self) {
        self.upstream_since = Some(Instant::now());
    }

    pub(super) fn upstream_answered(&mut self) {
        self.upstream_ms = self.upstream_since.map(elapsed_ms);
    }

    /// The answer ended as it should.
    pub(super) fn allowed(mut self, status: StatusCode) {
        self.close(Ending::Allowed, None, Some(status));
    }

    /// The answer was cut after its head had gone out.
    pub(super) fn cut(mut self, code: Code, status: StatusCode) {
        let ending = if respond::status(code).is_server_error() { Ending::Failed } else { Ending::Denied };
        self.close(ending, Some(code), Some(status));
    }

    /// The request is not served.
    pub(super) fn refuse(mut self, refusal: Refusal) -> Refused {
        let ending = if refusal.status().is_server_error() { Ending::Failed } else { Ending::Denied };
        self.tunnel.who.proxy.metrics.refused(refusal.code);
        self.close(ending, Some(refusal.code), Some(refusal.status()));
        Refused { id: self.id, style: self.style, version: self.version, refusal }
    }

    fn close(&mut self, ending: Ending, code: Option<Code>, status: Option<StatusCode>) {
        let Some(entry) = self.entry.take() else { return };
        self.tunnel.who.proxy.metrics.ended(ending);
        self.meter.close();
        entry.finish(&Outcome {
            ending,
            code: code.map(Code::as_str),
            status: status.map(|status| status.as_u16()),
            bytes_up: self.meter.up(),
            bytes_down: self.meter.down(),
            duration_ms: elapsed_ms(self.started),
            upstream_ms: self.upstream_ms,
            foreign_credential: self.foreign || self.meter.foreign_trailer(),
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.close(Ending::Aborted, None, None);
    }
}

/// A refusal whose journal entry is closed; all that is left is to say it.
pub(super) struct Refused {
    id: Ulid,
    style: Style,
    version: Version,
    refusal: Refusal,
}

impl Refused {
    pub(super) fn respond(self) -> Response<Reply> {
        respond::refusal(&self.refusal, &self.id.to_string(), self.style, self.version)
    }
}

/// A CONNECT that is refused after authentication: its line, and its answer.
pub(super) fn refuse_connect(
    authenticated: &Authenticated,
    target: Option<&Target>,
    refusal: &Refusal,
) -> Response<Reply> {
    let proxy: &Proxy = &authenticated.proxy;
    let time_ms = unix_ms();
    let id = Ulid::from_parts(time_ms, authenticated.id_base);
    let entry = proxy.journal.begin(&Intent {
        id,
        time_ms,
        event: Event::Tunnel,
        identity: Some(&authenticated.identity),
        service: None,
        operation: None,
        action: None,
        method: None,
        host: target.map(|target| target.host.as_str()),
        port: target.map(|target| target.port),
        path: None,
        credential: None,
        client: Some(&authenticated.client),
        foreign_credential: false,
    });
    if let Ok(entry) = entry {
        entry.finish(&Outcome {
            ending: Ending::Denied,
            code: Some(refusal.code.as_str()),
            status: Some(refusal.status().as_u16()),
            bytes_up: 0,
            bytes_down: 0,
            duration_ms: 0,
            upstream_ms: None,
            foreign_credential: false,
        });
    }
    proxy.metrics.refused(refusal.code);
    respond::refusal(refusal, &id.to_string(), Style::Problem, Version::HTTP_11)
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
