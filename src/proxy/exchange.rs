//! One request from its head to the end of its answer: who asks for what, its journal entry, its permit.
//!
//! An [`Exchange`] is made once, travels through the stages inside their values, and is closed exactly
//! once: by the end of the answer, by a refusal, or by being dropped, which the journal reads as
//! `aborted`.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use ulid::Ulid;

use super::Drain;
use super::authorize::Authorized;
use super::beat::Wait;
use super::body::{Meter, Reply};
use super::forward::Answered;
use super::inbound::{self, Ask, Inbound, Served};
use super::metrics::Parts;
use super::patience;
use super::relay::{RECHECK_EVERY, at_once};
use super::respond::{self, Refusal, Style};
use super::rewrite::Outgoing;
use super::tunnel::Tunnel;
use super::view::View;
use crate::audit::{Ending, Entry, Event, Intent, Outcome};
use crate::capability::Reservation;
use crate::clock::UnixSeconds;
use crate::credential::{SecretName, TokenNames};
use crate::net::guard::{GuardState, Refused as RefusedMessage};
use crate::policy::{self, Code, Denial};
use crate::request::{CanonicalPath, Facts, Scheme};
use crate::service::WEB;
use crate::traces::{Ended, Trace};

/// The way of a request, spelled once: each stage consumes what the one before returned.
///
/// What needs no waiting is done before the future is made, which keeps it small: hyper moves one for each request.
/// `refused` is the message that the request stands in for.
pub(super) fn answer(
    tunnel: Arc<Tunnel>,
    request: Request<Incoming>,
    guard: Option<Arc<GuardState>>,
    refused: Option<&RefusedMessage>,
    drain: &Drain,
) -> impl Future<Output = Response<Reply>> + use<> {
    let always = tunnel.recorder.waits_for_disk().then(|| Arc::clone(&tunnel));
    let outgoing = match refused {
        Some(refused) => Err(inbound::refuse(tunnel, refused)),
        None => Inbound::read(tunnel, request).and_then(Inbound::authorize).and_then(Authorized::rewrite),
    };
    if let Some(tunnel) = always {
        return Either::Right(Either::Left(answer_from_disk(tunnel, outgoing, guard, drain.clone()).boxed()));
    }
    let mut outgoing = match outgoing {
        Ok(outgoing) => outgoing,
        Err(refused) => return Either::Right(Either::Right(ready(refused.respond()))),
    };
    match (outgoing.upgrade.take(), guard) {
        (Some(client), Some(guard)) => {
            let drain = drain.clone();
            // Boxed: few requests leave HTTP, and every request's future would be as large as this one.
            let upgraded = async move { outgoing.upgrade(client, &guard, &drain).await };
            Either::Right(Either::Left(upgraded.map(|answer| answer.unwrap_or_else(Refused::respond)).boxed()))
        }
        _ => Either::Left(
            outgoing
                .forward()
                .then(|answer| answer.map_or_else(|refused| at_once(Err(refused)), Answered::relay))
                .map(|answer| answer.unwrap_or_else(Refused::respond)),
        ),
    }
}

/// The same way with two waits for the disk: before the upstream sees the request, and before the agent has the end of
/// the answer.
async fn answer_from_disk(
    tunnel: Arc<Tunnel>,
    outgoing: Result<Outgoing, Refused>,
    guard: Option<Arc<GuardState>>,
    drain: Drain,
) -> Response<Reply> {
    let answered = async {
        let mut outgoing = outgoing?;
        outgoing.exchange = outgoing.exchange.settled().await?;
        match (outgoing.upgrade.take(), guard) {
            (Some(client), Some(guard)) => outgoing.upgrade(client, &guard, &drain).await,
            _ => outgoing.forward().await?.relay().await,
        }
    };
    let response = answered.await.unwrap_or_else(Refused::respond);
    // What is whole with its head is held here; of the rest, the last frame is (`relay`).
    let settle = if response.body().is_recorded() { tunnel.recorder.settle() } else { None };
    let Some(settle) = settle else { return response };
    match (settle.await, response.body()) {
        // What the proxy says itself lets nothing through: it may be said of a disk that fails, too.
        (Ok(()), _) | (Err(_), Reply::Own(_)) => response,
        (Err(_), Reply::Relayed(_)) => {
            let id = tunnel.next_id(unix_ms()).to_string();
            respond::refusal(&unrecorded(), &id, Style::Problem, response.version())
        }
    }
}

fn unrecorded() -> Refusal {
    Refusal::new(Code::JournalUnavailable, "the request cannot be recorded, so it is not served")
}

/// See the module.
pub(super) struct Exchange {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) meter: Arc<Meter>,
    view: Arc<View>,
    ask: Ask,
    id: Ulid,
    style: Style,
    version: Version,
    time_ms: u64,
    started: Instant,
    entry: Option<Entry>,
    reservation: Option<Arc<Reservation>>,
    /// Whether its authority had room for one more request.
    within_share: bool,
    /// Whether it holds one of its authority's places for requests with a large entry.
    large: bool,
    foreign: bool,
    /// The newest moment that was looked at, for those who need not know better.
    seen: Instant,
    /// When the upstream was first turned to: dialled, or sent the request.
    turned: Option<Instant>,
    /// How long what it sent was scanned since.
    scanned: Duration,
    /// It has left HTTP: bytes are carried as long as both ends like.
    carried: bool,
    upstream_ms: Option<u64>,
    checked: Instant,
    /// For the next look at it while nothing comes.
    pub(super) wait: Wait,
    pub(super) trace: Trace,
}

/// What an exchange is opened with.
pub(super) struct Opening {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) view: Arc<View>,
    pub(super) ask: Ask,
    pub(super) style: Style,
    pub(super) version: Version,
    pub(super) foreign: bool,
    pub(super) event: Event,
    pub(super) trace: Trace,
}

impl Exchange {
    /// Opens the journal entry. Everything that can still go wrong is then on its line.
    pub(super) fn open(opening: Opening) -> Result<Box<Self>, Refused> {
        let Opening { tunnel, view, ask, style, version, foreign, event, trace } = opening;
        let within_share = tunnel.who.seat.begin();
        tunnel.beat.begin();
        let started = Instant::now();
        let time_ms = unix_ms();
        let id = tunnel.next_id(time_ms);
        let (service, credential) = (view.served().service(), view.served().credential());
        let entry = tunnel.recorder.begin(&Intent {
            id,
            time_ms,
            event,
            identity: Some(&tunnel.who.identity),
            service,
            operation: service.and_then(|_| ask.operation()),
            action: ask.action(),
            method: ask.method.as_ref().map(Method::as_str),
            host: Some(tunnel.target.host.as_str()),
            port: Some(tunnel.target.port),
            path: ask.path.as_ref().map(CanonicalPath::as_str),
            credential: credential.map(SecretName::as_str),
            client: Some(&tunnel.who.client),
            foreign_credential: foreign,
        });
        let exchange = |entry| {
            Box::new(Self {
                meter: Arc::new(Meter::new(started)),
                view,
                ask,
                id,
                style,
                version,
                time_ms,
                started,
                entry,
                reservation: None,
                within_share,
                large: false,
                foreign,
                seen: started,
                turned: None,
                scanned: Duration::ZERO,
                carried: event == Event::Tunnel,
                upstream_ms: None,
                checked: started,
                wait: Wait::new(&tunnel.beat),
                trace,
                tunnel: Arc::clone(&tunnel),
            })
        };
        if let Ok(entry) = entry {
            return exchange(Some(entry)).seated();
        }
        Err(exchange(None).refuse(unrecorded()))
    }

    /// Takes its place among the requests of its authority.
    fn seated(mut self: Box<Self>) -> Result<Box<Self>, Refused> {
        let seat = &self.tunnel.who.seat;
        let is_large = self.entry.as_ref().is_some_and(Entry::is_large);
        self.large = is_large && seat.begin_large();
        if self.within_share && self.large == is_large {
            return Ok(self);
        }
        Err(self.refuse(Refusal::new(Code::Overloaded, "this authority has too many requests under way")))
    }

    /// The exchange that a plain tunnel is.
    pub(super) fn of_tunnel(tunnel: Arc<Tunnel>) -> Result<Box<Self>, Refused> {
        let (view, ask) = (tunnel.view(), Ask::tunnel());
        let (style, version) = (Style::Problem, Version::HTTP_11);
        let trace = tunnel.who.proxy.traces.begin(&HeaderMap::new());
        Self::open(Opening { tunnel, view, ask, style, version, foreign: false, event: Event::Tunnel, trace })
    }

    /// Asks policy, the one door. The permit holds what was reserved of the budgets.
    pub(super) fn authorized(mut self: Box<Self>) -> Result<Box<Self>, Refused> {
        let now = UnixSeconds(self.time_ms / 1000);
        if !self.root_stands() {
            let refusal = Refusal::new(Code::CapabilityRevoked, "the capability's root is no longer trusted");
            return Err(self.refuse(refusal.hint("capctl mint --to PUBKEY --user YOU --allow GRANT --expires 8h")));
        }
        let (who, facts) = (&self.tunnel.who, self.facts(now));
        match policy::decide(&who.verified, &facts, self.view.snapshot().revocations(), &who.account) {
            Ok(permit) => {
                let reservation = permit.into_reservation();
                self.reservation = who.account.is_counted().then(|| Arc::new(reservation));
                Ok(self)
            }
            Err(denial) => {
                let refusal = self.unknown_service(&denial).unwrap_or_else(|| Refusal::from(denial));
                Err(self.refuse(refusal))
            }
        }
    }

    /// Asks again whether a live exchange may go on, at most once a second: for each frame that passes.
    pub(super) fn recheck_now_and_then(&mut self, now: Instant) -> Result<(), Code> {
        if now.duration_since(self.checked) < RECHECK_EVERY { Ok(()) } else { self.recheck(now) }
    }

    /// Asks again whether a live exchange may go on: time, revocations, roots and configuration may have changed.
    pub(super) fn recheck(&mut self, now: Instant) -> Result<(), Code> {
        self.checked = now;
        let time = UnixSeconds::now();
        if time >= self.tunnel.who.ends_at {
            return Err(Code::CapabilityExpired);
        }
        let current = self.tunnel.view();
        if !Arc::ptr_eq(&current, &self.view) {
            if !self.view.served().is_still(current.served()) {
                return Err(Code::ServiceUnknown);
            }
            self.ask.read_meaning(current.served(), &self.tunnel);
            self.view = current;
            if !self.root_stands() {
                return Err(Code::CapabilityRevoked);
            }
        }
        policy::recheck(&self.tunnel.who.verified, &self.facts(time), self.view.snapshot().revocations())
            .map_err(|denial| denial.code)
    }

    /// A capability that is revoked or has expired is told so before anything else is said of its request.
    pub(super) fn dead(&self) -> Option<Refusal> {
        let (facts, revocations) = (self.facts(UnixSeconds::now()), self.view.snapshot().revocations());
        let denial = policy::recheck(&self.tunnel.who.verified, &facts, revocations).err()?;
        matches!(denial.code, Code::CapabilityRevoked | Code::CapabilityExpired).then(|| Refusal::from(denial))
    }

    /// What is said when a budget of bytes is used up while the request is on its way.
    pub(super) fn exhausted(&self) -> Refusal {
        let hint = policy::renewal_hint(&self.tunnel.who.verified, &self.facts(UnixSeconds::now()));
        Refusal::new(Code::BudgetExhausted, "the budget of bytes is used up").hint(hint).closing()
    }

    fn root_stands(&self) -> bool {
        self.view.snapshot().roots().get(self.tunnel.who.verified.kid()) == Some(&self.tunnel.who.root)
    }

    fn facts(&self, time: UnixSeconds) -> Facts<'_> {
        self.ask.facts(self.view.served(), &self.tunnel, time)
    }

    /// What the snapshot that this exchange was last decided under says of its destination.
    pub(super) fn view(&self) -> &Arc<View> {
        &self.view
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// True when an answer with this status has no content, whatever its head says (RFC 9110 §6.4.1).
    pub(super) fn is_answered_by_head(&self, status: StatusCode) -> bool {
        self.ask.method == Some(Method::HEAD) || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    /// A host that no service names is told so, with the way to name it, rather than that a right for `web` is
    /// missing. Death of the capability itself comes first.
    fn unknown_service(&self, denial: &Denial) -> Option<Refusal> {
        let unnamed = match self.view.served() {
            Served::Named { .. } => false,
            Served::Web => !self.tunnel.who.verified.could_serve(WEB),
            Served::Nobody => true,
        };
        let target = &self.tunnel.target;
        let hint = format!("capctl service add NAME --host {}", target.authority(Scheme::Https));
        (unnamed && denial.code == Code::CapabilityDenied)
            .then(|| Refusal::new(Code::ServiceUnknown, format!("no service names {target}")).hint(hint))
    }

    /// Given only when some block of the chain has a budget: others need no counting as they go.
    pub(super) fn reservation(&self) -> Option<Arc<Reservation>> {
        self.reservation.clone()
    }

    /// Counts bytes towards the client; false when a budget is used up.
    pub(super) fn sent_down(&self, bytes: usize) -> bool {
        self.meter.add_down(bytes);
        self.reservation.as_ref().is_none_or(|taken| taken.add_down(bytes as u64))
    }

    /// The newest moment at which something was heard of this exchange: of the client, then of the upstream.
    pub(super) fn seen(&self) -> Instant {
        self.seen
    }

    /// What members of the answer hold a fresh token, where a route says so.
    pub(super) fn tokens(&self) -> Option<&Arc<TokenNames>> {
        self.ask.tokens()
    }

    /// Says that something was heard now.
    pub(super) fn see(&mut self, now: Instant) {
        self.seen = now;
    }

    /// The upstream is dialled or sent the request now: from here it is waited for.
    pub(super) fn turn(&mut self) {
        self.turned.get_or_insert_with(Instant::now);
    }

    /// Time since the upstream was turned to that went into the scanning of its answer.
    pub(super) fn scanned(&mut self, took: Duration) {
        self.scanned += took;
    }

    /// From here on bytes are carried both ways.
    pub(super) fn carried(&mut self) {
        self.carried = true;
    }

    /// The upstream is turned to within microseconds of the start, so its time is counted from there.
    pub(super) fn upstream_answered(&mut self, status: Option<StatusCode>) {
        self.trace.answered(status);
        self.seen = Instant::now();
        self.upstream_ms = Some(self.elapsed_ms(self.seen));
    }

    /// Waits until the disk has the intent, where the journal is asked to; only then may the upstream see a byte.
    pub(super) async fn settled(self: Box<Self>) -> Result<Box<Self>, Refused> {
        if let Some(settle) = self.tunnel.recorder.settle()
            && settle.await.is_err()
        {
            return Err(self.refuse(unrecorded()));
        }
        Ok(self)
    }

    /// The answer ended as it should, at the moment that was seen last.
    pub(super) fn allowed(mut self, status: StatusCode) {
        self.close(Ending::Allowed, None, Some(status), self.seen);
    }

    /// The answer was cut after its head had gone out.
    pub(super) fn cut(mut self, code: Code, status: StatusCode) {
        let ending = if respond::status(code).is_server_error() { Ending::Failed } else { Ending::Denied };
        self.close(ending, Some(code), Some(status), Instant::now());
    }

    /// The request is not served.
    pub(super) fn refuse(mut self, refusal: Refusal) -> Refused {
        let ending = if refusal.status().is_server_error() { Ending::Failed } else { Ending::Denied };
        self.tunnel.who.proxy.metrics.refused(refusal.code);
        self.close(ending, Some(refusal.code), Some(refusal.status()), Instant::now());
        Refused { id: self.id, style: self.style, version: self.version, refusal }
    }

    fn elapsed_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn parts(&self, end: Instant) -> Parts {
        let since = |begin| end.saturating_duration_since(begin);
        let upstream = self.turned.map(|turned| since(turned).saturating_sub(self.scanned));
        Parts { own: since(self.started).saturating_sub(upstream.unwrap_or_default()), upstream }
    }

    fn close(&mut self, ending: Ending, code: Option<Code>, status: Option<StatusCode>, now: Instant) {
        self.seen = now;
        let took = (!self.carried).then(|| self.parts(now));
        self.view.series().of(self.ask.operation().unwrap_or_default()).ended(ending, code, took);
        if let Some(entry) = self.entry.take() {
            self.record(entry, ending, code, status);
        }
        let trace = std::mem::take(&mut self.trace);
        self.tunnel.who.proxy.traces.end(trace, || self.ended(ending, code, status));
    }

    /// Closes the journal entry at the moment that was seen last.
    fn record(&self, entry: Entry, ending: Ending, code: Option<Code>, status: Option<StatusCode>) {
        self.meter.close();
        let outcome = Outcome {
            ending,
            code: code.map(Code::as_str),
            status: status.map(|status| status.as_u16()),
            bytes_up: self.meter.up(),
            bytes_down: self.meter.down(),
            duration_ms: self.elapsed_ms(self.seen),
            upstream_ms: self.upstream_ms,
            foreign_credential: self.foreign || self.meter.foreign_trailer(),
        };
        entry.finish(&outcome, self.seen);
    }

    fn ended(&self, ending: Ending, code: Option<Code>, status: Option<StatusCode>) -> Ended<'_> {
        let service = self.view.served().service();
        let turned = self.turned.map(|turned| turned.saturating_duration_since(self.started));
        Ended {
            id: self.id,
            method: self.ask.method.as_ref().or(self.carried.then_some(&Method::CONNECT)),
            scheme: Some(self.tunnel.scheme),
            target: (turned.is_some() || self.view.named_exactly()).then_some(&self.tunnel.target),
            service,
            operation: service.and_then(|_| self.ask.operation()),
            ending,
            code,
            status,
            took: self.seen.saturating_duration_since(self.started),
            turned,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.entry.is_some() {
            self.close(Ending::Aborted, None, None, Instant::now());
        }
        self.tunnel.beat.rest(self.seen);
        if !patience::keep_place(&self.tunnel) {
            self.tunnel.who.seat.end();
        }
        if self.large {
            self.tunnel.who.seat.end_large();
        }
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
    /// The same, after which the connection cannot be used.
    pub(super) fn closing(mut self) -> Self {
        self.refusal = self.refusal.closing();
        self
    }

    pub(super) fn respond(self) -> Response<Reply> {
        respond::refusal(&self.refusal, &self.id.to_string(), self.style, self.version)
    }
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
