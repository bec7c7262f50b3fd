//! relay: the answer on its way down, re-authorized while it lasts.
//!
//! The last byte of content leaves only after the journal has the outcome, so whoever has the whole of an answer can
//! find its line. Over HTTP/2 an upstream can say that its stream ends long after the content that `Content-Length`
//! promised; the client has it all by then, so the content counts. While bytes flow, or do not, authority is looked at
//! again at each beat of the client's connection (`beat`).

use std::future::{self, Ready, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use http::response::Parts;
use http::{Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::beat::{self, Wait};
use super::body::{Cut, Reply, Uplink};
use super::coding::BadCoding;
use super::exchange::{Exchange, Refused};
use super::filter::Filter;
use super::forward::Answered;
use super::hop;
use super::respond::Refusal;
use super::scrub;
use super::view::View;
use crate::audit::Settle;
use crate::net::pace::Pace;
use crate::net::pool::Connection;
use crate::policy::Code;

/// How often a live exchange is looked at.
pub(super) const RECHECK_EVERY: Duration = beat::EVERY;
/// How long the head of an answer that is compressed waits for what follows it, which may be refused.
const BEGINS_WITHIN: Duration = Duration::from_millis(100);
/// How long trailers may follow content that is whole; a beat longer at most.
const TRAILERS_WITHIN: Duration = Duration::from_secs(1);

impl Answered {
    /// Turns the upstream's answer into ours: at once, but where it may be refused for what it begins with.
    ///
    /// # Errors
    /// [`Refused`] when it cannot be scanned for the secret that was injected, as far as its head and first bytes tell.
    pub(super) fn relay(self) -> Relaying {
        let Self { exchange, mut response, connection } = self;
        let is_coded = scrub::is_transfer_coded(response.headers());
        hop::strip_answer(response.headers_mut());
        let (mut parts, incoming) = response.into_parts();
        let is_http2 = parts.version == Version::HTTP_2;
        let is_head_alone = exchange.is_answered_by_head(parts.status);
        let has_content = !is_head_alone && !incoming.is_end_stream();
        hop::set_length(&mut parts.headers, parts.status, is_head_alone, incoming.size_hint().exact());
        let filter = match exchange.view().scrubbing() {
            Some(scrubbing) => {
                match scrub::answer(scrubbing, &mut parts.headers, has_content, is_coded, exchange.tokens()) {
                    Ok(filter) => Some(filter).filter(|_| !incoming.is_end_stream()),
                    Err(refusal) => return at_once(Err(exchange.refuse(refusal))),
                }
            }
            None if is_coded && has_content => return at_once(Err(exchange.refuse(transfer_coded()))),
            None => None,
        };
        // The client's HTTP version is its own connection's affair.
        parts.version = exchange.version();
        parts.extensions.clear();
        let upstream = Upstream { body: incoming, is_http2 };
        match filter {
            Some(filter) if has_content && filter.may_be_coded(&parts.headers) => {
                Either::Right(begun(parts, upstream, filter, exchange, connection).boxed())
            }
            filter => {
                let relay = Relay::new(upstream, filter, exchange, parts.status, connection);
                at_once(Ok(Response::from_parts(parts, Reply::Relayed(relay))))
            }
        }
    }
}

/// An answer that is relayed, in nearly every case at once.
pub(super) type Relaying =
    Either<Ready<Result<Response<Reply>, Refused>>, BoxFuture<'static, Result<Response<Reply>, Refused>>>;

/// One that needs no waiting.
pub(super) fn at_once(answer: Result<Response<Reply>, Refused>) -> Relaying {
    Either::Left(future::ready(answer))
}

/// One that waits a moment for what it begins with: refused later, it could only be broken off.
async fn begun(
    parts: Parts,
    mut upstream: Upstream,
    mut filter: Filter,
    exchange: Box<Exchange>,
    connection: Option<(Arc<View>, Connection<Uplink>)>,
) -> Result<Response<Reply>, Refused> {
    let begun = tokio::time::timeout(BEGINS_WITHIN, begin(&mut filter, &mut upstream.body)).await;
    if let Ok(Err(refusal)) = begun {
        return Err(exchange.refuse(refusal));
    }
    let relay = Relay::new(upstream, Some(filter), exchange, parts.status, connection);
    Ok(Response::from_parts(parts, Reply::Relayed(relay)))
}

/// Reads what comes until something of it may go on.
async fn begin(filter: &mut Filter, incoming: &mut Incoming) -> Result<(), Refusal> {
    let mut pace = Pace::default();
    poll_fn(|cx| {
        loop {
            ready!(pace.poll_turn(cx));
            if has_all_content(incoming) {
                filter.end();
            }
            if filter.peek().map_err(unreadable)? || filter.is_done() {
                return Poll::Ready(Ok(()));
            }
            if filter.is_busy() {
                pace.end();
                continue;
            }
            match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                Some(Ok(frame)) => filter.push(cleaned(frame), has_all_content(incoming)),
                Some(Err(_)) => return Poll::Ready(Err(Refusal::new(Code::UpstreamProtocol, "the answer broke off"))),
                None => filter.end(),
            }
        }
    })
    .await
}

/// The same words whether it is a secret that it holds or something else.
fn unreadable(error: BadCoding) -> Refusal {
    match error {
        BadCoding::Broken => Refusal::new(Code::UpstreamProtocol, "the answer's content coding is broken"),
        BadCoding::Echo | BadCoding::Unreadable => Refusal::unreadable_answer("the answer's content cannot be scanned"),
    }
}

/// We ask for no transfer coding but chunks, and what is passed on would be something else than it says.
fn transfer_coded() -> Refusal {
    Refusal::new(Code::UpstreamProtocol, "the upstream used a transfer coding that nobody asked for")
}

/// Takes from trailers what may not be there.
fn cleaned(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        hop::strip_trailers(trailers);
    }
    frame
}

/// True when no byte of content is still to come.
fn has_all_content(body: &Incoming) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// The body of an answer, and the protocol that it comes in.
struct Upstream {
    body: Incoming,
    is_http2: bool,
}

/// A streamed answer: counted, metered, re-authorized, journalled.
pub(crate) struct Relay {
    inner: Incoming,
    /// Whether an end may be none: hyper takes a reset without an error (RFC 9113 §7, `NO_ERROR` and `CANCEL`) for the end.
    may_be_reset: bool,
    /// Where a secret could come back.
    filter: Option<Filter>,
    /// Others have a turn between the parts that it scans.
    pace: Pace,
    /// Taken when the outcome is recorded.
    live: Option<Live>,
    trailing: Option<Box<Trailing>>,
    /// The last frame of content, held until the disk has the outcome; only where the journal is asked to wait.
    held: Option<Box<(Settle, Option<Frame<Bytes>>)>>,
    status: StatusCode,
}

/// The outcome is recorded, the content is out, and the stream has not ended: trailers may follow.
struct Trailing {
    since: Instant,
    wait: Wait,
}

struct Live {
    exchange: Box<Exchange>,
    connection: Option<(Arc<View>, Connection<Uplink>)>,
}

impl Relay {
    fn new(
        upstream: Upstream,
        filter: Option<Filter>,
        exchange: Box<Exchange>,
        status: StatusCode,
        connection: Option<(Arc<View>, Connection<Uplink>)>,
    ) -> Self {
        let Upstream { body: inner, is_http2: may_be_reset } = upstream;
        let is_head_alone = exchange.is_answered_by_head(status);
        let live = Some(Live { exchange, connection });
        let mut relay =
            Self { inner, may_be_reset, filter, pace: Pace::default(), live, trailing: None, held: None, status };
        let is_empty = relay.filter.as_ref().is_none_or(|filter| !filter.has_begun() || filter.is_done());
        if is_head_alone || (has_all_content(&relay.inner) && is_empty) {
            // Whoever sends the head waits for the disk: nothing else is left to hold back.
            drop(relay.finish());
        }
        relay
    }

    fn see(&mut self) -> Instant {
        let now = Instant::now();
        if let Some(Live { exchange, .. }) = &mut self.live {
            exchange.see(now);
        }
        now
    }

    /// True when the outcome is recorded.
    pub(super) fn is_recorded(&self) -> bool {
        self.live.is_none()
    }

    /// Records the outcome and gives the connection back. What to wait for before the agent may know.
    fn finish(&mut self) -> Option<Settle> {
        let Live { exchange, connection } = self.live.take()?;
        let tunnel = exchange.tunnel.recorder.waits_for_disk().then(|| Arc::clone(&exchange.tunnel));
        if let Some((view, connection)) = connection {
            view.shelf().give(connection, exchange.seen());
        }
        self.trailing = (!self.inner.is_end_stream())
            .then(|| Box::new(Trailing { since: exchange.seen(), wait: Wait::new(&exchange.tunnel.beat) }));
        exchange.allowed(self.status);
        tunnel.and_then(|tunnel| tunnel.recorder.settle())
    }

    /// Lets a frame out, or the end where there is none, once the disk has the outcome.
    fn hold(
        &mut self,
        settle: Option<Settle>,
        frame: Option<Frame<Bytes>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(settle) = settle else { return Poll::Ready(frame.map(Ok)) };
        self.held = Some(Box::new((settle, frame)));
        self.poll_held(cx)
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(held) = &mut self.held else { return Poll::Ready(None) };
        let (settle, frame) = held.as_mut();
        let settled = ready!(settle.as_mut().poll(cx));
        let frame = frame.take();
        self.held = None;
        match settled {
            Ok(()) => Poll::Ready(frame.map(Ok)),
            Err(unavailable) => {
                self.trailing = None;
                Poll::Ready(Some(Err(unavailable.into())))
            }
        }
    }

    fn cut(&mut self, code: Code, why: Cut) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(Live { exchange, .. }) = self.live.take() {
            exchange.cut(code, self.status);
        }
        Poll::Ready(Some(Err(why)))
    }

    /// Looks at authority again. While frames pass, when a second has passed since the last time.
    fn recheck(&mut self, now: Instant, passes: bool) -> Result<(), Code> {
        let Some(Live { exchange, .. }) = &mut self.live else { return Ok(()) };
        if passes { exchange.recheck_now_and_then(now) } else { exchange.recheck(now) }?;
        if let Some((filter, scrubbing)) = self.filter.as_mut().zip(exchange.view().scrubbing()) {
            filter.renew(scrubbing);
        }
        Ok(())
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.held.is_some() {
            return self.poll_held(cx);
        }
        if self.live.is_none() {
            return self.poll_trailers(cx);
        }
        let mut arrived = None;
        loop {
            ready!(self.pace.poll_turn(cx));
            match self.filtered() {
                Ok(Some(frame)) => return self.pass(frame, arrived, cx),
                Ok(None) if self.filter.as_ref().is_some_and(Filter::is_busy) => {
                    if let Err(code) = self.recheck(Instant::now(), true) {
                        return self.cut(code, "the capability no longer allows this".into());
                    }
                    self.pace.end();
                    continue;
                }
                Ok(None) => {}
                Err(error) => return self.cut(error.code(), error.into()),
            }
            let polled = Pin::new(&mut self.inner).poll_frame(cx);
            if self.filter.is_some() && matches!(polled, Poll::Ready(Some(Ok(_)))) {
                arrived = Some(self.see());
            }
            match (polled, &mut self.filter) {
                (Poll::Ready(Some(Ok(frame))), None) => return self.pass(cleaned(frame), None, cx),
                (Poll::Ready(Some(Ok(frame))), Some(filter)) => {
                    filter.push(cleaned(frame), has_all_content(&self.inner));
                }
                (Poll::Ready(None), _) if self.may_be_reset && !has_all_content(&self.inner) => {
                    return self.cut(Code::UpstreamProtocol, "the upstream ended its stream before its answer".into());
                }
                (Poll::Ready(None), Some(filter)) if !filter.is_done() => filter.end(),
                (Poll::Ready(None), _) => {
                    self.see();
                    let settle = self.finish();
                    return self.hold(settle, None, cx);
                }
                (Poll::Ready(Some(Err(error))), _) => return self.cut(Code::UpstreamProtocol, error.into()),
                (Poll::Pending, _) => return self.poll_beat(cx),
            }
        }
    }

    /// The next frame out of the filter.
    fn filtered(&mut self) -> Result<Option<Frame<Bytes>>, BadCoding> {
        let Some(filter) = &mut self.filter else { return Ok(None) };
        if has_all_content(&self.inner) {
            filter.end();
        }
        filter.next()
    }

    /// Lets a frame go on. `arrived` is when the bytes came that the filter made it of, unless it waited for its turn since.
    fn pass(
        &mut self,
        frame: Frame<Bytes>,
        arrived: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let now = self.see();
        if let Some((live, arrived)) = self.live.as_mut().zip(arrived) {
            live.exchange.scanned(now.duration_since(arrived));
        }
        if let Err(code) = self.recheck(now, true) {
            return self.cut(code, "the capability no longer allows this".into());
        }
        let length = frame.data_ref().map_or(0, Bytes::len);
        if self.live.as_ref().is_some_and(|live| !live.exchange.sent_down(length)) {
            return self.cut(Code::BudgetExhausted, "the budget of bytes is used up".into());
        }
        let is_last = frame.is_trailers();
        if is_last || has_all_content(&self.inner) && self.filter.as_ref().is_none_or(Filter::is_done) {
            let settle = self.finish();
            if is_last {
                // Nothing follows, and over HTTP/1.1 nobody asks.
                self.trailing = None;
            }
            return self.hold(settle, Some(frame), cx);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// What follows content that is whole. An upstream that says nothing more is not waited for.
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        while let Some(trailing) = &mut self.trailing {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => {
                    ready!(trailing.wait.poll(cx));
                    if trailing.since.elapsed() >= TRAILERS_WITHIN {
                        self.trailing = None;
                    }
                }
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                    let mut frame = cleaned(frame);
                    self.trailing = None;
                    if let Some((filter, trailers)) = self.filter.as_mut().zip(frame.trailers_mut()) {
                        filter.trailers(trailers);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                // No content can be left; an empty frame says nothing.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => self.trailing = None,
            }
        }
        Poll::Ready(None)
    }

    /// Nothing comes: what is looked at meanwhile.
    fn poll_beat(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            let Some(Live { exchange, .. }) = &mut self.live else { return Poll::Pending };
            ready!(exchange.wait.poll(cx));
            let (now, seen, patience) = (Instant::now(), exchange.seen(), exchange.tunnel.who.proxy.limits.answer_idle);
            if let Err(code) = self.recheck(now, false) {
                return self.cut(code, "the capability no longer allows this".into());
            }
            if now.duration_since(seen) > patience {
                return self.cut(Code::UpstreamTimeout, "the upstream fell silent".into());
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.live.is_none() && self.held.is_none() && self.trailing.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let left = self.inner.size_hint();
        match (&self.filter, left.exact()) {
            (None, _) => left,
            (Some(filter), Some(left)) => filter.size_hint(left),
            (Some(_), None) => SizeHint::default(),
        }
    }
}
