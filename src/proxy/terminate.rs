//! terminate: the client's TLS ends here, under a leaf for the CONNECT's name alone.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::StatusCode;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper::server::conn::http2;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::StartHandshake;

use super::authenticate::Authenticated;
use super::beat::Beat;
use super::connect::http1;
use super::hello::Hello;
use super::keep::{Bounds, keep};
use super::metrics::Handshake;
use super::patience::Streams;
use super::respond::{self, Refusal};
use super::tunnel::Tunnel;
use super::{Drain, exchange, unserved};
use crate::clock::UnixSeconds;
use crate::net::guard::{Guard, waits_for_answer};
use crate::net::listener::Stream;
use crate::net::pace::ByTurns;
use crate::net::rewind::Rewind;
use crate::net::unread::Unread;
use crate::policy::Code;
use crate::request::{Scheme, Target};

/// The first byte of a TLS record that carries a handshake (RFC 8446 §5.1).
pub(super) const TLS_HANDSHAKE: u8 = 0x16;
/// A fatal alert `unrecognized_name` as a plain record (RFC 8446 §6.2, RFC 6066 §3).
pub(super) const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];
/// Streams that one connection may have open at once.
const STREAMS_MAX: u32 = 128;
/// Bytes of answers that hyper may hold for one stream that the client does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Flow-control windows towards the client (RFC 9113 §6.9.2).
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A client that sends nothing is asked this often whether it is there, and must answer within the other.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(15);
/// What a client's HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
/// RFC 9113 §6.5.2.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;

/// A tunnel's connection, ready to be served to its end.
pub(super) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves one tunnel from its first byte to its end.
///
/// Boxed in two parts, so that a tunnel that idles does not keep the room that its handshake took.
pub(super) fn run(
    authenticated: Authenticated,
    target: Target,
    upgrade: OnUpgrade,
    drain: Drain,
) -> impl Future<Output = ()> {
    let beginning = Box::pin(begin(authenticated, target, upgrade, drain.clone()));
    async move {
        if let Some(serving) = drain.arrive(beginning).await {
            serving.await;
        }
    }
}

async fn begin(authenticated: Authenticated, target: Target, upgrade: OnUpgrade, drain: Drain) -> Option<Serving> {
    let mut stream = raw(upgrade.await.ok()?)?;
    let patience = authenticated.proxy.limits.handshake;
    let first = tokio::time::timeout(patience, peek(&mut stream)).await.ok()?.ok()??;
    if first == TLS_HANDSHAKE {
        return terminate(authenticated, target, stream, drain).await;
    }
    let snapshot = authenticated.proxy.live.snapshot();
    if snapshot.speaks_http(&target) {
        let beat = Beat::alone(Instant::now());
        let tunnel = Arc::new(Tunnel::new(authenticated, target, Scheme::Http, snapshot, beat));
        return Some(serve_http1(&tunnel, stream, drain));
    }
    let refusal = Refusal::new(Code::Framing, "the tunnel carries neither TLS nor, on a port for it, HTTP").closing();
    let answer = unserved::refuse_connect(&authenticated, Some(&target), &refusal);
    let _ = stream.write_all(&respond::written(answer)).await;
    let _ = stream.shutdown().await;
    None
}

/// The client's connection below hyper, with what was read of it.
pub(super) fn raw(upgraded: Upgraded) -> Option<Rewind<Unread<Stream>>> {
    let parts = upgraded.downcast::<TokioIo<Guard<Unread<Stream>>>>().ok()?;
    let (left, stream) = parts.io.into_inner().into_parts();
    let mut prefix = BytesMut::from(&parts.read_buf[..]);
    prefix.extend_from_slice(&left);
    Some(Rewind::new(prefix.freeze(), stream))
}

/// The first byte, left in place; `None` when the client closes without one.
pub(super) async fn peek(stream: &mut Rewind<Unread<Stream>>) -> std::io::Result<Option<u8>> {
    if stream.prefix().is_empty() {
        let mut first = [0; 1];
        if stream.read(&mut first).await? == 0 {
            return Ok(None);
        }
        stream.unread(&first);
    }
    Ok(stream.prefix().first().copied())
}

/// Ends the client's TLS.
pub(super) async fn terminate(
    authenticated: Authenticated,
    target: Target,
    stream: Rewind<Unread<Stream>>,
    drain: Drain,
) -> Option<Serving> {
    let proxy = Arc::clone(&authenticated.proxy);
    let patience = proxy.limits.handshake;
    let shaking = async {
        let (mut stream, handshake) = (stream, Handshake::begin(&proxy.metrics));
        let hello = Hello::read(&mut stream).await?;
        if !hello.is_for(&target.host) {
            let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
            let _ = stream.shutdown().await;
            let refusal = Refusal::new(Code::Misdirected, "the ClientHello names another host than the CONNECT");
            let _ = unserved::refuse_connect(&authenticated, Some(&target), &refusal);
            return None;
        }
        let config = proxy.leaves.config(&target.host, UnixSeconds::now());
        let config = config.inspect_err(|error| tracing::error!(%error, "no leaf certificate")).ok()?;
        let shaking = StartHandshake::from_parts(hello.accepted, stream).into_stream(config);
        let mut tls = ByTurns::new(shaking).await.ok()?;
        handshake.done(tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed));
        let mut preface = None;
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            // hyper would wait for it for ever; a client has to send it at once (RFC 9113 §3.4).
            let mut bytes = [0; PREFACE_BYTES];
            tls.read_exact(&mut bytes).await.ok()?;
            preface = Some(Bytes::copy_from_slice(&bytes));
        }
        Some((authenticated, target, tls, preface))
    };
    let (authenticated, target, tls, preface) = tokio::time::timeout(patience, shaking).await.ok()??;
    let snapshot = authenticated.proxy.live.snapshot();
    let now = Instant::now();
    let beat = if preface.is_some() { Beat::shared(now) } else { Beat::alone(now) };
    let tunnel = Arc::new(Tunnel::new(authenticated, target, Scheme::Https, snapshot, beat));
    Some(match preface {
        Some(preface) => serve_http2(&tunnel, Rewind::new(preface, tls), drain),
        None => serve_http1(&tunnel, tls, drain),
    })
}

fn serve_http1<T>(tunnel: &Arc<Tunnel>, io: T, drain: Drain) -> Serving
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let guarded = Guard::in_tunnel(io, tunnel.who.proxy.limits.head_read);
    let guard = guarded.state();
    let service = {
        let (tunnel, drain) = (Arc::clone(tunnel), drain.clone());
        hyper::service::service_fn(move |request| {
            let waiting = waits_for_answer(&request).then(|| Arc::clone(&guard));
            let shared = Some(Arc::clone(&guard));
            let answer = exchange::answer(Arc::clone(&tunnel), request, shared, guard.refused(), &drain);
            answer.map(move |response| {
                if let Some(guard) = waiting.filter(|_| response.status() != StatusCode::SWITCHING_PROTOCOLS) {
                    guard.resume();
                }
                Ok::<_, Infallible>(response)
            })
        })
    };
    let connection = http1().serve_connection(TokioIo::new(guarded), service).with_upgrades();
    let mut connection = Box::pin(connection);
    let end = kept(tunnel, Some(tunnel.who.proxy.limits.client_idle));
    let ask = UpgradeableConnection::graceful_shutdown;
    Box::pin(async move { drain.finish(connection.as_mut(), ask, pending(), pending(), end).await })
}

fn serve_http2<T>(tunnel: &Arc<Tunnel>, io: T, drain: Drain) -> Serving
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = {
        let (tunnel, drain) = (Arc::clone(tunnel), drain.clone());
        hyper::service::service_fn(move |request| {
            exchange::answer(Arc::clone(&tunnel), request, None, None, &drain).map(Ok::<_, Infallible>)
        })
    };
    let limits = &tunnel.who.proxy.limits;
    let (streams, client_idle) = (Streams::new(limits.unread, &tunnel.beat), limits.client_idle);
    let connection = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = Box::pin(connection);
    let kept = kept(tunnel, None);
    Box::pin(async move {
        let end = async {
            tokio::select! { () = kept => {}, () = streams.unread() => {} }
        };
        let (idle, none_left) = (streams.idle(client_idle), streams.none_left());
        let ask = http2::Connection::graceful_shutdown;
        drain.finish(connection.as_mut(), ask, idle, none_left, end).await;
    })
}

/// Ends when the tunnel has to. How long it idles over HTTP/2 is known to its streams alone.
fn kept(tunnel: &Tunnel, idle: Option<Duration>) -> impl Future<Output = ()> + use<> {
    let end = Some(tunnel.deadline(UnixSeconds::now()));
    keep(Arc::clone(&tunnel.beat), Bounds { end, idle })
}
