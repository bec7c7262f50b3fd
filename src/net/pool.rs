//! Upstream connections that are kept: pooled per destination and credential, never shared by two.
//!
//! An HTTP/2 connection is shared by the requests of one key; an HTTP/1.1 connection is taken out, used
//! by one request at a time, and given back when its answer has ended. The map is touched only then.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use futures_util::TryFutureExt as _;
use futures_util::future::Either;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::capability::BlockId;
use crate::request::{Scheme, Target};

/// At most this many idle HTTP/1.1 connections are kept for one key.
const IDLE_PER_KEY_MAX: usize = 32;
/// At most this many idle HTTP/1.1 connections are kept in all.
const IDLE_MAX: usize = 1024;
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
    /// The authority block of whoever asks: nobody waits for, or is cut off with, what another authority does on a
    /// shared connection.
    pub authority: BlockId,
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
    Http1(http1::SendRequest<B>),
    /// HTTP/2: a handle on a shared connection.
    Http2(http2::SendRequest<B>),
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
                .handshake(TokioIo::new(io))
                .await?;
            tokio::spawn(driver);
            return Ok(Self::Http2(sender));
        }
        let (sender, driver) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .handshake(TokioIo::new(io))
            .await?;
        tokio::spawn(driver.with_upgrades());
        Ok(Self::Http1(sender))
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
            Self::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Self::Http2(sender) => Either::Right(sender.try_send_request(request)),
        };
        sent.map_err(|mut failed| {
            let request = failed.take_message().map(Box::new);
            Unsent { error: failed.into_error(), request }
        })
    }

    /// Another handle on a shared HTTP/2 connection that lives; `None` for HTTP/1.1, which is one at a time.
    #[must_use]
    pub fn another(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => (!sender.is_closed()).then(|| Self::Http2(sender.clone())),
        }
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
            Self::Http1(sender) if sender.is_closed() => false,
            Self::Http1(sender) if sender.is_ready() => true,
            Self::Http1(sender) => matches!(tokio::time::timeout(READY_WITHIN, sender.ready()).await, Ok(Ok(()))),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }
}

/// The idle set.
#[derive(Debug)]
pub struct Pool<B> {
    kept: DashMap<PoolKey, Kept<B>>,
    idle: AtomicUsize,
}

#[derive(Debug)]
struct Kept<B> {
    http1: Vec<(http1::SendRequest<B>, Instant)>,
    http2: Option<(http2::SendRequest<B>, Instant)>,
}

impl<B> Default for Kept<B> {
    fn default() -> Self {
        Self { http1: Vec::new(), http2: None }
    }
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self { kept: DashMap::new(), idle: AtomicUsize::new(0) }
    }
}

impl<B> Pool<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A live kept connection for `key`: the shared HTTP/2 one, else the one used last.
    pub async fn take(&self, key: &PoolKey) -> Option<Connection<B>> {
        loop {
            if let Some(connection) = self.pop(key)?.revived().await {
                return Some(connection);
            }
        }
    }

    /// Lets others use an HTTP/2 connection while it is in use.
    pub fn share(&self, key: &PoolKey, connection: &Connection<B>) {
        if let Connection::Http2(sender) = connection {
            self.give(key, Connection::Http2(sender.clone()));
        }
    }

    fn pop(&self, key: &PoolKey) -> Option<Connection<B>> {
        let mut kept = self.kept.get_mut(key)?;
        kept.http2.take_if(|(shared, _)| shared.is_closed());
        if let Some((shared, used)) = &mut kept.http2 {
            *used = Instant::now();
            return Some(Connection::Http2(shared.clone()));
        }
        let (sender, _) = kept.http1.pop()?;
        self.idle.fetch_sub(1, Ordering::Relaxed);
        Some(Connection::Http1(sender))
    }

    /// Keeps a connection for the next request. One beyond the bounds, or dead, is dropped.
    pub fn give(&self, key: &PoolKey, connection: Connection<B>) {
        match connection {
            Connection::Http1(sender) => self.give_http1(key, sender),
            Connection::Http2(sender) => {
                let mut kept = self.kept.entry(key.clone()).or_default();
                if !sender.is_closed() && kept.http2.as_ref().is_none_or(|(shared, _)| shared.is_closed()) {
                    kept.http2 = Some((sender, Instant::now()));
                }
            }
        }
    }

    fn give_http1(&self, key: &PoolKey, sender: http1::SendRequest<B>) {
        if sender.is_closed() || self.idle.load(Ordering::Relaxed) >= IDLE_MAX {
            return;
        }
        let mut kept = self.kept.entry(key.clone()).or_default();
        if kept.http1.len() < IDLE_PER_KEY_MAX {
            kept.http1.push((sender, Instant::now()));
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Closes what has been idle too long at `now`, and forgets keys that hold nothing.
    pub fn sweep(&self, now: Instant) {
        self.kept.retain(|_, kept| {
            let before = kept.http1.len();
            kept.http1.retain(|(sender, since)| !sender.is_closed() && now.duration_since(*since) < IDLE_FOR);
            self.idle.fetch_sub(before - kept.http1.len(), Ordering::Relaxed);
            // Requests that are under way hold handles of their own.
            kept.http2.take_if(|(shared, used)| shared.is_closed() || now.duration_since(*used) >= IDLE_FOR);
            !kept.http1.is_empty() || kept.http2.is_some()
        });
    }

    /// How many HTTP/1.1 connections are idle now.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
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
        PoolKey {
            scheme: Scheme::Https,
            target,
            named: false,
            authority: BlockId([0; 32]),
            credential: credential.map(Arc::from),
            trust_epoch: 0,
        }
    }

    async fn connection() -> (Connection<Full<Bytes>>, DuplexStream) {
        let (near, far) = tokio::io::duplex(4096);
        (Connection::start(near, false).await.expect("a connection"), far)
    }

    #[tokio::test]
    async fn a_connection_is_taken_only_under_its_own_key() {
        let pool = Pool::default();
        let (connection, _far) = connection().await;
        pool.give(&key(Some("alice")), connection);
        assert!(pool.take(&key(Some("bob"))).await.is_none());
        assert!(pool.take(&key(None)).await.is_none());
        assert!(pool.take(&PoolKey { trust_epoch: 1, ..key(Some("alice")) }).await.is_none());
        assert!(pool.take(&PoolKey { named: true, ..key(Some("alice")) }).await.is_none());
        assert!(pool.take(&PoolKey { authority: BlockId([1; 32]), ..key(Some("alice")) }).await.is_none());
        assert!(pool.take(&key(Some("alice"))).await.is_some());
        assert!(pool.take(&key(Some("alice"))).await.is_none(), "it was taken out");
    }

    #[tokio::test]
    async fn a_connection_that_the_peer_closed_is_not_handed_out() {
        let pool = Pool::default();
        let (connection, far) = connection().await;
        pool.give(&key(None), connection);
        drop(far);
        // The driver sees the end when it runs next.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(pool.take(&key(None)).await.is_none());
        assert_eq!(pool.idle(), 0);
    }

    #[tokio::test]
    async fn what_is_idle_too_long_is_swept_and_counted() {
        let pool = Pool::default();
        let mut far_ends = Vec::new();
        for _ in 0..IDLE_PER_KEY_MAX + 3 {
            let (connection, far) = connection().await;
            pool.give(&key(None), connection);
            far_ends.push(far);
        }
        assert_eq!(pool.idle(), IDLE_PER_KEY_MAX);
        pool.sweep(Instant::now());
        assert_eq!(pool.idle(), IDLE_PER_KEY_MAX);
        pool.sweep(Instant::now() + IDLE_FOR);
        assert_eq!((pool.idle(), pool.kept.len()), (0, 0));
    }
}
