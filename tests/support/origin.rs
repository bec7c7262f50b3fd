//! Real HTTP origins on port 0: over TLS with HTTP/1.1, HTTP/2 or both, or in clear text.
//!
//! An origin runs on a thread and a runtime of its own, so that tests may be plain functions. What it answers is in
//! `handlers.rs`; what it saw is in [`Origin::seen`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};
use tokio_rustls::TlsAcceptor;

use super::ca::{Alpn, TestCa};
use super::handlers;
use super::record::{Record, Seen};

/// How long a header list an origin takes: longer than what Narrows passes on.
const HEADER_LIST_BYTES_MAX: u32 = 128 * 1024;

/// A running origin. It stops when it is dropped.
pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

/// What the handlers of one origin share with the test.
pub(crate) struct Shared {
    pub(crate) record: Record,
    /// Feeds every open `/sse` and `/stream`; `None` ends them.
    pub(crate) ticks: broadcast::Sender<Option<Bytes>>,
    /// Fixed answers by path: content type and body.
    pub(crate) files: Mutex<BTreeMap<String, (String, Bytes)>>,
    /// Where `/….git/…` finds its repositories.
    pub(crate) git_root: Mutex<Option<PathBuf>>,
    connections: AtomicU64,
}

impl Origin {
    /// An origin over TLS, with a certificate of `ca` for `names`.
    pub(crate) fn https(ca: &TestCa, names: &[&str], alpn: Alpn) -> Self {
        Self::start(Some((TlsAcceptor::from(ca.server(names, alpn)), alpn)))
    }

    /// An origin in clear text, HTTP/1.1.
    pub(crate) fn http() -> Self {
        Self::start(None)
    }

    fn start(tls: Option<(TlsAcceptor, Alpn)>) -> Self {
        let shared = Arc::new(Shared {
            record: Record::default(),
            ticks: broadcast::channel(64).0,
            files: Mutex::default(),
            git_root: Mutex::default(),
            connections: AtomicU64::new(0),
        });
        let (addr, stop) = on_own_thread({
            let shared = shared.clone();
            move |listener| accept_all(listener, tls, shared)
        });
        Self { addr, shared, _stop: stop }
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.record.all()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "one request was to reach the origin: {seen:#?}");
        seen.remove(0)
    }

    /// How many connections were accepted, and TLS with them.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits for a request whose path starts with `prefix`.
    pub(crate) fn wait_for(&self, prefix: &str) -> Seen {
        let all = self.shared.record.wait(prefix, |all| all.iter().any(|seen| seen.path.starts_with(prefix)));
        all.into_iter().find(|seen| seen.path.starts_with(prefix)).unwrap()
    }

    /// Sends `data` on every open `/sse` and `/stream`.
    pub(crate) fn tick(&self, data: &str) {
        self.shared.ticks.send(Some(Bytes::from(data.to_owned()))).expect("no stream is open");
    }

    /// Ends every open `/sse` and `/stream`.
    pub(crate) fn end_streams(&self) {
        self.shared.ticks.send(None).expect("no stream is open");
    }

    /// Answers `GET path` with `body`.
    pub(crate) fn put(&self, path: &str, content_type: &str, body: impl Into<Bytes>) {
        self.shared.files.lock().unwrap().insert(path.to_owned(), (content_type.to_owned(), body.into()));
    }

    /// Serves the bare repositories in `root`, with `git http-backend`.
    pub(crate) fn serve_git(&self, root: PathBuf) {
        *self.shared.git_root.lock().unwrap() = Some(root);
    }
}

/// Runs `serve` with a fresh listener on a thread of its own until the sender is dropped.
pub(crate) fn on_own_thread<F, S>(serve: S) -> (SocketAddr, oneshot::Sender<()>)
where
    S: FnOnce(TcpListener) -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            tokio::select! {
                () = serve(listener) => {}
                _ = stopped => {}
            }
        });
        runtime.shutdown_background();
    });
    (addr, stop)
}

async fn accept_all(listener: TcpListener, tls: Option<(TlsAcceptor, Alpn)>, shared: Arc<Shared>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        tcp.set_nodelay(true).unwrap();
        let (tls, shared) = (tls.clone(), shared.clone());
        tokio::spawn(async move {
            match tls {
                None => serve_connection(tcp, Alpn::H1, shared).await,
                // A failed handshake is the peer's to report; the record then has no request.
                Some((acceptor, alpn)) => {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        serve_connection(stream, alpn, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve_connection<S>(stream: S, alpn: Alpn, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).max_headers(256);
    builder.http2().max_header_list_size(HEADER_LIST_BYTES_MAX);
    let builder = match alpn {
        Alpn::H1 | Alpn::Absent => builder.http1_only(),
        Alpn::H2 => builder.http2_only(),
        Alpn::Both => builder,
    };
    let service = service_fn(move |request| handlers::answer(request, shared.clone(), connection));
    // How a connection ended shows in the record of its requests.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}
