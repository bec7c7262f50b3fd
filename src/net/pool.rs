//! Upstream connections that are kept: pooled per destination and credential, never shared by two.
//!
//! An HTTP/2 connection is shared by the requests of one key; an HTTP/1.1 connection is taken out, used
//! by one request at a time, and given back when its answer has ended. A tunnel looks its shelf up once.
#![expect(
    clippy::disallowed_types,
    reason = "not on the path of a request: a tunnel looks its shelf up once for each snapshot"
)]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use dashmap::DashMap;
use futures_util::TryFutureExt as _;
use futures_util::future::Either;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::guard::{AnswerGuard, Asked};
use super::pace::Paced;
use crate::capability::BlockId;
use crate::lane;
use crate::request::{Scheme, Target};

/// At most this many idle HTTP/1.1 connections are kept for one key: with fewer than there are requests under way, each
/// request beyond them pays a handshake. The queue takes 56 bytes for each, used or not.
const IDLE_PER_KEY_MAX: usize = 256;
/// They are kept in so many queues: threads on different cores take from, and give to, different ones while they can.
const LANES: usize = 8;
/// At most this many keys have a shelf that is found again.
const KEYS_MAX: usize = 1024;
/// How often the pool is swept.
pub const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// An idle connection is closed after this long: most servers close theirs later than 60 s.
const IDLE_FOR: Duration = Duration::from_secs(55);
/// A connection that just ended an answer needs a moment to become ready.
const READY_WITHIN: Duration = Duration::from_millis(50);
/// Flow-control windows: 64 KiB would bound a stream to 3 MB/s at 20 ms (RFC 9113 §6.9.2).
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A peer's header list, as RFC 9113 §6.5.2 counts it.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// An HTTP/1.1 answer has at most this many fields, and hyper buffers at most this many bytes.
const HEADERS_MAX: usize = 256;
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// An HTTP/2 connection on which nothing comes is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(10);

/// What two requests must have in common to use one connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// With or without TLS.
    pub scheme: Scheme,
    /// The one destination.
    pub target: Target,
    /// The block that named the holder who asks: nobody waits for, is cut off with, or is given an answer to, what another
    /// does on a shared connection; not another agent of the same person, either.
    pub holder: BlockId,
    /// Whether a service names the host exactly: private addresses are open to such a service alone.
    pub named: bool,
    /// The credential's name; `None` for none.
    pub credential: Option<Arc<str>>,
    /// Connections made under other rules of trust are not used any more.
    pub trust_epoch: u64,
}

/// One connection that can send a request.
#[derive(Debug)]
pub enum Connection<B> {
    /// HTTP/1.1: one request at a time.
    Http1(Http1<B>),
    /// HTTP/2: a handle on a shared connection.
    Http2(http2::SendRequest<B>),
}

/// An HTTP/1.1 connection, and the guard on its answers.
#[derive(Debug)]
pub struct Http1<B> {
    sender: http1::SendRequest<B>,
    asked: Arc<Asked>,
}

/// A request that did not get an answer, with the request itself when nothing of it was sent.
#[derive(Debug)]
pub struct Unsent<B> {
    /// What went wrong.
    pub error: hyper::Error,
    /// The request, when the connection never began to send it: it may go out on another.
    pub request: Option<Box<Request<B>>>,
}

impl<B> Connection<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Starts HTTP on a fresh connection; its driver runs until the connection ends.
    ///
    /// # Errors
    /// When the HTTP/2 preface fails.
    pub async fn start<T>(io: T, http2: bool) -> Result<Self, hyper::Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if http2 {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_header_list_size(HEADER_LIST_BYTES_MAX)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_WITHIN)
                .handshake(TokioIo::new(Paced::new(io)))
                .await?;
            tokio::spawn(driver);
            return Ok(Self::Http2(sender));
        }
        let guarded = AnswerGuard::new(Paced::new(io));
        let asked = guarded.asked();
        let (sender, driver) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .handshake(TokioIo::new(guarded))
            .await?;
        tokio::spawn(driver.with_upgrades());
        Ok(Self::Http1(Http1 { sender, asked }))
    }

    /// Sends a request, now; what it returns waits for the head of the answer.
    ///
    /// # Errors
    /// [`Unsent`], with the request when it may be sent again elsewhere.
    pub fn send(
        &mut self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, Unsent<B>>> + use<B> {
        let sent = match self {
            Self::Http1(Http1 { sender, asked }) => {
                asked.ask(request.method());
                Either::Left(sender.try_send_request(request))
            }
            Self::Http2(sender) => Either::Right(sender.try_send_request(request)),
        };
        sent.map_err(|mut failed| {
            let request = failed.take_message().map(Box::new);
            Unsent { error: failed.into_error(), request }
        })
    }

    /// True for a handle on a shared HTTP/2 connection.
    #[must_use]
    pub const fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// This connection, once it is ready; `None` when it is dead or stays busy.
    pub async fn revived(mut self) -> Option<Self> {
        self.revive().await.then_some(self)
    }

    async fn revive(&mut self) -> bool {
        match self {
            Self::Http1(Http1 { sender, .. }) if sender.is_closed() => false,
            Self::Http1(Http1 { sender, .. }) if sender.is_ready() => true,
            Self::Http1(Http1 { sender, .. }) => {
                matches!(tokio::time::timeout(READY_WITHIN, sender.ready()).await, Ok(Ok(())))
            }
            Self::Http2(sender) => !sender.is_closed(),
        }
    }
}

/// The shelves of all keys.
#[derive(Debug)]
pub struct Pool<B> {
    shelves: DashMap<PoolKey, Arc<Shelf<B>>>,
}

/// The connections of one key. Whoever asks for many keeps the shelf at hand: taking and giving take no lock.
#[derive(Debug)]
pub struct Shelf<B> {
    http1: [ArrayQueue<(Http1<B>, Instant)>; LANES],
    http2: ArcSwapOption<http2::SendRequest<B>>,
    /// Sweeps since the HTTP/2 connection was used last.
    unused_sweeps: AtomicU32,
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self { shelves: DashMap::new() }
    }
}

impl<B> Default for Shelf<B> {
    fn default() -> Self {
        Self {
            http1: std::array::from_fn(|_| ArrayQueue::new(IDLE_PER_KEY_MAX / LANES)),
            http2: ArcSwapOption::empty(),
            unused_sweeps: AtomicU32::new(0),
        }
    }
}

impl<B> Pool<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// The shelf of `key`. When there are too many keys, one that nobody else will find.
    pub fn shelf(&self, key: &PoolKey) -> Arc<Shelf<B>> {
        if let Some(shelf) = self.shelves.get(key) {
            return Arc::clone(&shelf);
        }
        if self.shelves.len() >= KEYS_MAX {
            return Arc::default();
        }
        Arc::clone(&self.shelves.entry(key.clone()).or_default())
    }

    /// Closes what has been idle too long at `now`, and forgets shelves that are empty and that nobody holds. To be
    /// called every [`SWEEP_EVERY`].
    pub fn sweep(&self, now: Instant) {
        self.shelves.retain(|_, shelf| {
            shelf.sweep(now);
            Arc::strong_count(shelf) > 1 || !shelf.is_empty()
        });
    }

    /// How many HTTP/1.1 connections are idle now.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.http1.iter().map(ArrayQueue::len).sum::<usize>()).sum()
    }
}

impl<B> Shelf<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A live kept connection: the shared HTTP/2 one, else one that no other request uses.
    pub async fn take(&self) -> Option<Connection<B>> {
        if let Some(shared) = &*self.http2.load()
            && !shared.is_closed()
        {
            if self.unused_sweeps.load(Ordering::Relaxed) != 0 {
                self.unused_sweeps.store(0, Ordering::Relaxed);
            }
            return Some(Connection::Http2(http2::SendRequest::clone(shared)));
        }
        while let Some(idle) = self.pop() {
            if let Some(connection) = Connection::Http1(idle).revived().await {
                return Some(connection);
            }
        }
        None
    }

    fn pop(&self) -> Option<Http1<B>> {
        self.lanes().find_map(ArrayQueue::pop).map(|(idle, _)| idle)
    }

    /// Lets others use an HTTP/2 connection while it is in use.
    pub fn share(&self, connection: &Connection<B>) {
        if let Connection::Http2(sender) = connection
            && self.http2.load().as_ref().is_none_or(|shared| shared.is_closed())
        {
            self.http2.store(Some(Arc::new(sender.clone())));
        }
    }

    /// Keeps an HTTP/1.1 connection, idle since then, for the next request. One beyond the bound, or dead, is dropped.
    pub fn give(&self, connection: Connection<B>, since: Instant) {
        if let Connection::Http1(connection) = connection
            && !connection.sender.is_closed()
        {
            let mut idle = (connection, since);
            for lane in self.lanes() {
                match lane.push(idle) {
                    Ok(()) => return,
                    Err(refused) => idle = refused,
                }
            }
        }
    }

    /// This thread's own queue, then those of others.
    fn lanes(&self) -> impl Iterator<Item = &ArrayQueue<(Http1<B>, Instant)>> {
        let (others, own) = self.http1.split_at(lane::of_this_thread() % LANES);
        own.iter().chain(others)
    }

    fn sweep(&self, now: Instant) {
        for lane in &self.http1 {
            for _ in 0..lane.len() {
                let Some((idle, since)) = lane.pop() else { break };
                if !idle.sender.is_closed() && now.duration_since(since) < IDLE_FOR {
                    let _ = lane.push((idle, since));
                }
            }
        }
        // Requests that are under way hold handles of their own.
        let unused = SWEEP_EVERY * self.unused_sweeps.fetch_add(1, Ordering::Relaxed);
        if unused >= IDLE_FOR || self.http2.load().as_ref().is_some_and(|shared| shared.is_closed()) {
            self.http2.store(None);
        }
    }

    fn is_empty(&self) -> bool {
        self.http1.iter().all(ArrayQueue::is_empty) && self.http2.load().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::DuplexStream;

    fn key(credential: Option<&str>) -> PoolKey {
        let target = Target::parse("api.test:443").expect("a target");
        let (named, holder) = (false, BlockId([0; 32]));
        PoolKey { scheme: Scheme::Https, target, named, holder, credential: credential.map(Arc::from), trust_epoch: 0 }
    }

    async fn connection() -> (Connection<Full<Bytes>>, DuplexStream) {
        let (near, far) = tokio::io::duplex(4096);
        (Connection::start(near, false).await.expect("a connection"), far)
    }

    #[tokio::test]
    async fn a_connection_is_taken_only_under_its_own_key() {
        let pool = Pool::default();
        let (connection, _far) = connection().await;
        let alice = key(Some("alice"));
        pool.shelf(&alice).give(connection, Instant::now());
        let others = [
            key(Some("bob")),
            key(None),
            PoolKey { trust_epoch: 1, ..alice.clone() },
            PoolKey { named: true, ..alice.clone() },
            PoolKey { holder: BlockId([1; 32]), ..alice.clone() },
        ];
        for other in others {
            assert!(pool.shelf(&other).take().await.is_none(), "{other:?}");
        }
        assert!(pool.shelf(&alice).take().await.is_some());
        assert!(pool.shelf(&alice).take().await.is_none(), "it was taken out");
    }

    #[tokio::test]
    async fn a_connection_that_the_peer_closed_is_not_handed_out() {
        let shelf = Shelf::default();
        let (connection, far) = connection().await;
        shelf.give(connection, Instant::now());
        drop(far);
        // The driver sees the end when it runs next.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(shelf.take().await.is_none());
        assert!(shelf.is_empty());
    }

    #[tokio::test]
    async fn what_is_idle_too_long_is_swept() {
        let pool = Pool::default();
        let mut far_ends = Vec::new();
        for _ in 0..IDLE_PER_KEY_MAX + 3 {
            let (connection, far) = connection().await;
            pool.shelf(&key(None)).give(connection, Instant::now());
            far_ends.push(far);
        }
        assert_eq!(pool.idle(), IDLE_PER_KEY_MAX);
        pool.sweep(Instant::now());
        assert_eq!(pool.idle(), IDLE_PER_KEY_MAX);
        pool.sweep(Instant::now() + IDLE_FOR);
        assert_eq!((pool.idle(), pool.shelves.len()), (0, 0));
    }

    #[tokio::test]
    async fn keys_have_a_bound_and_one_beyond_it_still_works() {
        let pool = Pool::default();
        let numbered = |number: usize| PoolKey { trust_epoch: number as u64, ..key(None) };
        let held: Vec<_> = (0..KEYS_MAX).map(|number| pool.shelf(&numbered(number))).collect();
        let beyond = pool.shelf(&numbered(KEYS_MAX));
        let (connection, _far) = connection().await;
        beyond.give(connection, Instant::now());
        assert!(beyond.take().await.is_some());
        assert_eq!(pool.shelves.len(), KEYS_MAX);
        drop(held);
        pool.sweep(Instant::now());
        assert_eq!(pool.shelves.len(), 0, "nobody holds them");
    }
}
