//! A collector on port 0, and some that are none.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::otlp::{Span, spans};
use crate::support::PATIENCE;
use crate::support::ca::{Alpn, TestCa};
use crate::support::origin::on_own_thread;

/// How it answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    Takes,
    /// The first so many messages are answered with 503.
    BusyFor(usize),
    Says(StatusCode),
    /// A redirect there.
    Redirects(SocketAddr),
    /// 200 and what is no protobuf.
    Lies,
    /// 200 and an answer without end.
    Endless,
    /// Reads, and never answers.
    Hangs,
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// It stops when it is dropped.
pub(crate) struct Collector {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

struct Shared {
    manner: Manner,
    messages: Mutex<Vec<Message>>,
    changed: Condvar,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Collector {
    pub(crate) fn new(manner: Manner) -> Self {
        Self::start(manner, None)
    }

    pub(crate) fn https(ca: &TestCa, names: &[&str]) -> Self {
        Self::start(Manner::Takes, Some(TlsAcceptor::from(ca.server(names, Alpn::H1))))
    }

    fn start(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let shared = Arc::new(Shared { manner, messages: Mutex::default(), changed: Condvar::new() });
        let serving = Arc::clone(&shared);
        let (addr, stop) = on_own_thread(move |listener| accept_all(listener, tls, serving));
        Self { addr, shared, _stop: stop }
    }

    /// `[traces]` for it, with more lines.
    pub(crate) fn setting(&self, more: &str) -> String {
        format!("[traces]\nendpoint = \"http://{}/v1/traces\"\n{more}", self.addr)
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.shared.messages.lock().unwrap().clone()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.messages().iter().flat_map(|message| spans(&message.body)).collect()
    }

    /// Waits until `enough` holds for the spans so far.
    #[track_caller]
    pub(crate) fn wait(&self, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let deadline = Instant::now() + PATIENCE;
        let mut messages = self.shared.messages.lock().unwrap();
        loop {
            let all: Vec<_> = messages.iter().flat_map(|message| spans(&message.body)).collect();
            if enough(&all) {
                return all;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the spans never came; there are {all:#?}");
            messages = self.shared.changed.wait_timeout(messages, left).unwrap().0;
        }
    }

    /// Waits for so many spans.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Span> {
        self.wait(|spans| spans.len() >= count)
    }

    /// Waits for so many messages.
    #[track_caller]
    pub(crate) fn wait_for_messages(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut messages = self.shared.messages.lock().unwrap();
        while messages.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} messages of {count}", messages.len());
            messages = self.shared.changed.wait_timeout(messages, left).unwrap().0;
        }
    }
}

async fn accept_all(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match tls {
                None => serve(tcp, shared).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        serve(stream, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message =
        Message { method: parts.method.to_string(), uri: parts.uri.to_string(), headers: parts.headers, body };
    let before = {
        let mut messages = shared.messages.lock().unwrap();
        messages.push(message);
        shared.changed.notify_all();
        messages.len() - 1
    };
    let says = |status, text: &'static str| {
        let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync());
        *answer.status_mut() = status;
        answer
    };
    Ok(match shared.manner {
        Manner::BusyFor(count) if before < count => says(StatusCode::SERVICE_UNAVAILABLE, "later"),
        Manner::Takes | Manner::BusyFor(_) => says(StatusCode::OK, ""),
        Manner::Says(status) => says(status, "canary-of-the-collector"),
        Manner::Redirects(to) => {
            let mut answer = says(StatusCode::TEMPORARY_REDIRECT, "");
            answer.headers_mut().insert("location", format!("http://{to}/v1/traces").parse().unwrap());
            answer
        }
        Manner::Lies => says(StatusCode::OK, "\u{ff}\u{ff}canary-of-the-collector"),
        Manner::Endless => {
            let chunk = Bytes::from_static(&[0xff; 16 * 1024]);
            let chunks = stream::repeat(chunk).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
            Response::new(StreamBody::new(chunks).boxed_unsync())
        }
        Manner::Hangs => std::future::pending().await,
    })
}
