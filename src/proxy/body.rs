//! The two bodies that pass through: up to the upstream, down to the client. Both are streamed frame by
//! frame, counted, and never held.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::patience::{self, Piece};
use super::relay::Relay;
use super::view::View;
use crate::capability::Reservation;

/// The boxed error of a body that was cut; the peer sees only that it was.
pub(super) type Cut = Box<dyn std::error::Error + Send + Sync>;

/// What is known of an exchange's two bodies while they pass. Shared by both.
#[derive(Debug)]
pub(super) struct Meter {
    up: AtomicU64,
    down: AtomicU64,
    /// Milliseconds after `since` at which the upstream began to wait for the client; 0 for not waiting.
    waiting_since_ms: AtomicU64,
    client_failed: AtomicBool,
    foreign_trailer: AtomicBool,
    exhausted: AtomicBool,
    /// The exchange is over: what is left of the request's body goes nowhere.
    closed: AtomicBool,
    uplink: AtomicWaker,
    since: Instant,
}

impl Meter {
    pub(super) fn new(since: Instant) -> Self {
        Self {
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            waiting_since_ms: AtomicU64::new(0),
            client_failed: AtomicBool::new(false),
            foreign_trailer: AtomicBool::new(false),
            exhausted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            uplink: AtomicWaker::new(),
            since,
        }
    }

    /// Body bytes sent upstream so far.
    pub(super) fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Body bytes sent to the client so far.
    pub(super) fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn add_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// True when the client broke off its own body, or framed it badly.
    pub(super) fn client_failed(&self) -> bool {
        self.client_failed.load(Ordering::Relaxed)
    }

    /// Says that a budget has no room for what came.
    pub(super) fn exhaust(&self) {
        self.exhausted.store(true, Ordering::Relaxed);
    }

    /// True when the exchange ends because of a budget.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Ends the request's body, wherever it is: the journal has its line, and nobody asks policy any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.uplink.wake();
    }

    /// True when the exchange is over. Else the uplink is woken at its end.
    fn poll_closed(&self, cx: &Context<'_>) -> bool {
        self.uplink.register(cx.waker());
        self.closed.load(Ordering::Acquire)
    }

    /// True when a trailer held a credential of the agent's own.
    pub(super) fn foreign_trailer(&self) -> bool {
        self.foreign_trailer.load(Ordering::Relaxed)
    }

    /// How long the upstream has been waiting for the client's next bytes.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        match self.waiting_since_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since_ms => now.duration_since(self.since).saturating_sub(Duration::from_millis(since_ms)),
        }
    }

    fn begin_waiting(&self) {
        if self.waiting_since_ms.load(Ordering::Relaxed) == 0 {
            let elapsed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.waiting_since_ms.store(elapsed.max(1), Ordering::Relaxed);
        }
    }

    fn end_waiting(&self) {
        if self.waiting_since_ms.load(Ordering::Relaxed) != 0 {
            self.waiting_since_ms.store(0, Ordering::Relaxed);
        }
    }
}

/// Holds a request's body back until the upstream asks for it (RFC 9110 §10.1.1), or its answer or a
/// second passes.
#[derive(Debug, Default)]
pub(super) struct ExpectGate {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl ExpectGate {
    /// Lets the body go.
    pub(super) fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.open.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A request's body on its way up.
pub(crate) struct Uplink {
    /// `None` for a request without body.
    inner: Option<Incoming>,
    /// The client speaks HTTP/2, where hyper takes a reset without an error for the end.
    may_be_reset: bool,
    meter: Arc<Meter>,
    gate: Option<Arc<ExpectGate>>,
    /// Given when some block of the chain has a budget.
    reservation: Option<Arc<Reservation>>,
    /// Whose slots are emptied in the trailers too; none where there is no body.
    view: Option<Arc<View>>,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink").field("meter", &self.meter).finish_non_exhaustive()
    }
}

impl Uplink {
    pub(super) fn new(
        (inner, version): (Incoming, Version),
        meter: Arc<Meter>,
        gate: Option<Arc<ExpectGate>>,
        reservation: Option<Arc<Reservation>>,
        view: Arc<View>,
    ) -> Self {
        let may_be_reset = version == Version::HTTP_2;
        Self { inner: Some(inner), may_be_reset, meter, gate, reservation, view: Some(view) }
    }

    /// No body.
    pub(super) fn empty(meter: Arc<Meter>) -> Self {
        Self { inner: None, may_be_reset: false, meter, gate: None, reservation: None, view: None }
    }

    /// Whether the end that just came is none. What was reset must not look whole to the upstream.
    fn was_reset(&self) -> bool {
        let has_all = |inner: &Incoming| inner.is_end_stream() || inner.size_hint().exact() == Some(0);
        self.may_be_reset && !self.inner.as_ref().is_none_or(has_all)
    }

    fn passed(&self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, Cut> {
        if let Some(data) = frame.data_ref() {
            self.meter.add_up(data.len());
            if self.reservation.as_ref().is_some_and(|taken| !taken.add_up(data.len() as u64)) {
                self.meter.exhaust();
                return Err("the budget of bytes is used up".into());
            }
        } else if let (Some(view), Some(trailers)) = (&self.view, frame.trailers_mut())
            && view.served().clean_trailers(trailers)
        {
            self.meter.foreign_trailer.store(true, Ordering::Relaxed);
        }
        Ok(frame)
    }
}

impl Body for Uplink {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        if self.meter.poll_closed(cx) {
            return Poll::Ready(Some(Err("the answer came before the end of the request".into())));
        }
        if let Some(gate) = &self.gate {
            if gate.poll_open(cx).is_pending() {
                return Poll::Pending;
            }
            self.gate = None;
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Pending => {
                self.meter.begin_waiting();
                Poll::Pending
            }
            Poll::Ready(None) if self.was_reset() => {
                self.meter.client_failed.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err("the client ended its stream before its request".into())))
            }
            Poll::Ready(next) => {
                self.meter.end_waiting();
                Poll::Ready(next.map(|frame| match frame {
                    Ok(frame) => self.passed(frame),
                    Err(error) => {
                        self.meter.client_failed.store(true, Ordering::Relaxed);
                        Err(error.into())
                    }
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body on its way down: our own words, or the upstream's.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every answer is relayed, and a box would be an allocation for each"
)]
pub(crate) enum Reply {
    /// Made by the proxy; whole.
    Own(Option<Bytes>),
    /// Streamed from the upstream.
    Relayed(Relay),
}

impl Reply {
    pub(super) fn own(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self::Own((!body.is_empty()).then_some(body))
    }

    pub(super) const fn empty() -> Self {
        Self::Own(None)
    }

    /// True when the outcome is recorded before a byte of this has left.
    pub(super) fn is_recorded(&self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Relayed(relay) => relay.is_recorded(),
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "Reply::Own",
            Self::Relayed(_) => "Reply::Relayed",
        })
    }
}

impl Body for Reply {
    type Data = Piece;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Cut>>> {
        let next = match self.get_mut() {
            Self::Own(body) => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relayed(relay) => relay.poll_frame(cx),
        };
        patience::answer_moves(next.is_ready());
        next.map_ok(|frame| frame.map_data(Piece::from))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_none(),
            Self::Relayed(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Relayed(relay) => relay.size_hint(),
        }
    }
}
