//! patience: the streams of an HTTP/2 connection, none of which waits for its client longer than a connection would.
//!
//! A client that gives a stream no window holds an upstream, a place among the requests of its authority and what hyper
//! has buffered, without a byte being written that could time out. So each stream runs in a task that knows whom it
//! waits for: while that is the client, and nothing of the answer moves, the stream is reset; when the rest of an answer
//! that has ended stays, the connection ends, for hyper gives no hold on such a stream. Until then the answer keeps its
//! request's place, so that what is buffered is bounded by the number of requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;

use super::beat::{Beat, Wait};
use super::tunnel::Tunnel;

/// What a client may begin before it has read that it should not, it begins in this time.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// Of the stream whose task runs.
    static OWED: Arc<Owed>;
}

/// What a stream's client has not taken.
#[derive(Debug)]
struct Owed {
    /// Frames of the answer that hyper holds.
    frames: AtomicUsize,
    /// The stream waits for the upstream, or for us, and not for its client.
    ours: AtomicBool,
    /// How often something of the answer moved; wraps.
    moves: AtomicU32,
    task: AtomicWaker,
    /// Whose place among the requests is kept.
    place: OnceLock<Arc<Tunnel>>,
}

impl Owed {
    fn new() -> Self {
        Self {
            frames: AtomicUsize::new(0),
            ours: AtomicBool::new(true),
            moves: AtomicU32::new(0),
            task: AtomicWaker::new(),
            place: OnceLock::new(),
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(tunnel) = self.place.get() {
            tunnel.who.seat.end();
        }
    }
}

/// Says of the running stream whether its answer has something to send; no matter outside of one.
pub(super) fn answer_moves(has_frame: bool) {
    let _ = OWED.try_with(|owed| {
        owed.ours.store(!has_frame, Ordering::Relaxed);
        owed.moves.fetch_add(1, Ordering::Relaxed);
    });
}

/// Keeps the place of an exchange that is over until the client has its answer. False outside of a stream.
pub(super) fn keep_place(tunnel: &Arc<Tunnel>) -> bool {
    OWED.try_with(|owed| owed.place.set(Arc::clone(tunnel)).is_ok()).unwrap_or(false)
}

/// Bytes of an answer, counted over HTTP/2 until the client has taken them.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    owed: Option<Arc<Owed>>,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        let owed = OWED.try_with(Arc::clone).ok();
        if let Some(owed) = &owed {
            owed.frames.fetch_add(1, Ordering::Relaxed);
        }
        Self { bytes, owed }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(owed) = &self.owed {
            owed.moves.fetch_add(1, Ordering::Relaxed);
            if owed.frames.fetch_sub(1, Ordering::AcqRel) == 1 {
                owed.task.wake();
            }
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

/// The streams of one connection. Cloning shares.
#[derive(Clone)]
pub(super) struct Streams {
    unread: Duration,
    shared: Arc<Shared>,
}

struct Shared {
    beat: Arc<Beat>,
    running: AtomicUsize,
    begun: AtomicUsize,
    /// The client leaves the end of an answer where it is.
    unread: AtomicBool,
    connection: AtomicWaker,
}

impl Streams {
    /// `unread` is how long a client may take nothing of an answer.
    pub(super) fn new(unread: Duration, beat: &Arc<Beat>) -> Self {
        let shared = Shared {
            beat: Arc::clone(beat),
            running: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            unread: AtomicBool::new(false),
            connection: AtomicWaker::new(),
        };
        Self { unread, shared: Arc::new(shared) }
    }

    /// Ends when the client leaves the end of an answer where it is.
    pub(super) async fn unread(&self) {
        let shared = &self.shared;
        std::future::poll_fn(|cx| {
            shared.connection.register(cx.waker());
            if shared.unread.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Ends when there is no stream, some time after the client was told to begin none: hyper would wait until it has
    /// answered that it knows.
    pub(super) async fn none_left(&self) {
        loop {
            tokio::time::sleep(TOLD_WITHIN).await;
            if self.shared.running.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    /// Ends when there has been no stream for at least `idle`, and at most twice as long.
    pub(super) async fn idle(&self, idle: Duration) {
        let mut begun = usize::MAX;
        loop {
            tokio::time::sleep(idle).await;
            let now = self.shared.begun.load(Ordering::Relaxed);
            if now == begun && self.shared.running.load(Ordering::Relaxed) == 0 {
                return;
            }
            begun = now;
        }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.shared.begun.fetch_add(1, Ordering::Relaxed);
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        let streams = Running(self.clone());
        tokio::spawn(Patient { stream: Some(stream), owed: Arc::new(Owed::new()), waiting: None, streams });
    }
}

/// A stream that counts as running.
struct Running(Streams);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.shared.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A wait for the client, looked at with each beat of the connection.
struct Waiting {
    wait: Wait,
    /// The first look, and [`Owed::moves`] at it; nearly every wait is over before.
    since: Option<(Instant, u32)>,
}

pin_project! {
    struct Patient<F> {
        // Dropped as soon as it has ended, or has to.
        #[pin]
        stream: Option<F>,
        owed: Arc<Owed>,
        waiting: Option<Waiting>,
        streams: Running,
    }
}

impl<F: Future<Output = ()>> Future for Patient<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let Some(stream) = this.stream.as_mut().as_pin_mut() {
            if OWED.sync_scope(Arc::clone(this.owed), || stream.poll(cx)).is_ready() {
                OWED.sync_scope(Arc::clone(this.owed), || this.stream.as_mut().set(None));
            } else if this.owed.ours.load(Ordering::Relaxed) {
                return Poll::Pending;
            }
        }
        if this.stream.is_none() {
            this.owed.task.register(cx.waker());
            if this.owed.frames.load(Ordering::Acquire) == 0 {
                return Poll::Ready(());
            }
        }
        let streams = &this.streams.0;
        let waiting =
            this.waiting.get_or_insert_with(|| Waiting { wait: Wait::new(&streams.shared.beat), since: None });
        loop {
            if waiting.wait.poll(cx).is_pending() {
                return Poll::Pending;
            }
            let (now, moves) = (Instant::now(), this.owed.moves.load(Ordering::Relaxed));
            match waiting.since {
                Some((since, then)) if moves == then => {
                    if now.duration_since(since) >= streams.unread {
                        break;
                    }
                }
                _ => waiting.since = Some((now, moves)),
            }
        }
        if this.stream.is_none() {
            streams.shared.unread.store(true, Ordering::Release);
            streams.shared.connection.wake();
        }
        // With the stream, where there still is one, goes its answer, and hyper resets it.
        Poll::Ready(())
    }
}
