//! transparent: connections of clients that know no proxy, which the system's packet filter sent here (Linux).
//!
//! What such a client asks for is in the name of its ClientHello, or in the `Host` of its plain HTTP, with the port that
//! it dialled. The address that it dialled says nothing: the name is resolved anew, under the rules of any other
//! request. What speaks neither, or names nobody, is closed.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use super::authenticate::{Challenge, Client, authenticate};
use super::beat::Beat;
use super::body::Reply;
use super::connect::{http1, new_id};
use super::hello::Hello;
use super::keep::{Bounds, keep};
use super::metrics::OpenTunnel;
use super::passthrough;
use super::respond::{self, Refusal, Style};
use super::terminate::{self, Serving, TLS_HANDSHAKE, UNRECOGNIZED_NAME};
use super::tunnel::Tunnel;
use super::unserved::{self, Unserved};
use super::{Drain, exchange, inbound};
use crate::capability::Purpose;
use crate::net::guard::{Guard, GuardState, waits_for_answer};
use crate::net::listener::Stream;
use crate::net::rewind::Rewind;
use crate::net::unread::Unread;
use crate::policy::Code;
use crate::request::{Scheme, Target};

/// A fatal alert `access_denied` as a plain record (RFC 8446 §6.2).
const ACCESS_DENIED: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// Serves one redirected connection to its end.
///
/// Boxed in two parts, as `terminate::run` is: a connection that idles keeps neither its ClientHello nor the snapshot of
/// the moment at which it began.
pub(super) fn serve(client: Client, stream: Stream, drain: Drain) -> impl Future<Output = ()> {
    let beginning = Box::pin(begin(client, stream, drain.clone()));
    async move {
        if let Some(serving) = drain.arrive(beginning).await {
            serving.await;
        }
    }
}

async fn begin(client: Client, stream: Stream, drain: Drain) -> Option<Serving> {
    let Some(original) = stream.original() else {
        if client.place.may_say() {
            tracing::warn!(peer = %client.peer, "a transparent listener was dialled itself; it takes redirected connections only");
        }
        return None;
    };
    let limits = &client.proxy.limits;
    let mut stream = Rewind::new(Bytes::new(), Unread::new(stream, limits.unread));
    // A client that waits for its server to speak first gets no further than this.
    let first = tokio::time::timeout(limits.handshake, terminate::peek(&mut stream)).await.ok()?.ok()??;
    // Whoever we dialled has sent nothing before the dialler has noted it: this is no race.
    if client.proxy.dialer.has_dialled(client.peer, original) {
        if client.place.may_say() {
            tracing::error!("a connection of this proxy's own was redirected to it: exempt its user in the ruleset");
        }
        return None;
    }
    if first == TLS_HANDSHAKE {
        return tls(client, stream, original, drain).await;
    }
    Some(plain(client, stream, original, drain))
}

async fn tls(
    client: Client,
    mut stream: Rewind<Unread<Stream>>,
    original: SocketAddr,
    drain: Drain,
) -> Option<Serving> {
    let hello = tokio::time::timeout(client.proxy.limits.handshake, Hello::read(&mut stream)).await.ok()??;
    stream.unread(&hello.bytes);
    let port = original.port();
    let named = hello.accepted.client_hello().server_name().map(|name| format!("{name}:{port}"));
    let target = named.as_deref().and_then(|named| Target::parse(named).ok());
    // The text is what the proof is made for, so it is the name as sent; of one who names nobody it is the address.
    let asked = named.unwrap_or_else(|| original.to_string());
    let snapshot = client.proxy.live.snapshot();
    let mut authenticated = match authenticate(&client, &snapshot, None, Purpose::Connect { target: &asked }).await {
        Ok(authenticated) => authenticated,
        Err(challenge) => {
            client.refused(&challenge);
            end_with(stream, if target.is_some() { ACCESS_DENIED } else { UNRECOGNIZED_NAME }).await;
            return None;
        }
    };
    let Some(target) = target else {
        let refusal = Refusal::new(Code::Misdirected, "the ClientHello names no host");
        let _ = unserved::refuse_connect(&authenticated, None, &refusal);
        end_with(stream, UNRECOGNIZED_NAME).await;
        return None;
    };
    if !snapshot.serves_port(port) {
        let refusal = Refusal::new(Code::ServiceUnknown, format!("no service is on port {port}"));
        let _ = unserved::refuse_connect(&authenticated, Some(&target), &refusal);
        end_with(stream, ACCESS_DENIED).await;
        return None;
    }
    authenticated.open = Some(OpenTunnel::new(&client.proxy));
    if !snapshot.is_plain_tunnel(&target) {
        return terminate::terminate(authenticated, target, stream, drain).await;
    }
    let beat = Beat::alone(Instant::now());
    let tunnel = Arc::new(Tunnel::new(authenticated, target, Scheme::Https, snapshot, beat));
    let Ok(opened) = passthrough::open(&tunnel).await else {
        end_with(stream, ACCESS_DENIED).await;
        return None;
    };
    Some(Box::pin(passthrough::run(opened, async { Some(stream) }, drain)))
}

/// Says a last word in TLS, to a client that will hear no other.
async fn end_with(mut stream: Rewind<Unread<Stream>>, alert: [u8; 7]) {
    let _ = stream.write_all(&alert).await;
    let _ = stream.shutdown().await;
}

/// Plain HTTP: every request may name another host, and each is decided alone.
fn plain(client: Client, stream: Rewind<Unread<Stream>>, original: SocketAddr, drain: Drain) -> Serving {
    let limits = &client.proxy.limits;
    let guarded = Guard::new(stream, limits.head_read);
    let now = Instant::now();
    let beat = Beat::alone(now);
    let end =
        keep(Arc::clone(&beat), Bounds { end: Some(now + limits.tunnel_age_max), idle: Some(limits.client_idle) });
    let opened = Arc::new(Opened { client, guard: guarded.state(), beat, original, drain: drain.clone() });
    let service = hyper::service::service_fn(move |request| {
        let opened = Arc::clone(&opened);
        // Asked now: while a request is under way, the guard may come upon one that follows.
        let stands_in = opened.guard.refused().is_some();
        async move { Ok::<_, Infallible>(answer(&opened, request, stands_in).await) }
    });
    let connection = http1().serve_connection(TokioIo::new(guarded), service).with_upgrades();
    let mut connection = Box::pin(connection);
    let ask = UpgradeableConnection::graceful_shutdown;
    Box::pin(async move { drain.finish(connection.as_mut(), ask, pending(), pending(), end).await })
}

/// What the requests of one connection share.
struct Opened {
    client: Client,
    guard: Arc<GuardState>,
    beat: Arc<Beat>,
    original: SocketAddr,
    drain: Drain,
}

async fn answer(opened: &Opened, request: Request<Incoming>, stands_in: bool) -> Response<Reply> {
    let Opened { client, guard, beat, original, drain } = opened;
    beat.rest(Instant::now());
    let (version, refused) = (request.version(), guard.refused().filter(|_| stands_in));
    let style =
        Style::of(refused.and_then(|refused| refused.read.as_ref()).map_or(request.headers(), |read| &read.headers));
    let target = match refused {
        Some(refused) => Err(inbound::unframed(refused)),
        None => destination(&request, original.port()),
    };
    let snapshot = client.proxy.live.snapshot();
    let (method, address) = (request.method().clone(), original.to_string());
    let purpose = match &target {
        Ok(target) => Purpose::Request { method: method.as_str(), target },
        // Whoever names nobody is refused, under the listener's name.
        Err(_) => Purpose::Connect { target: &address },
    };
    let authenticated = match authenticate(client, &snapshot, None, purpose).await {
        Ok(authenticated) => authenticated,
        Err(challenge) => {
            // Which counts it.
            client.refused(&challenge);
            let why = "the capability that this listener holds is not accepted";
            return respond::refusal(&Refusal::new(challenge.code, why).closing(), &new_id(), style, version);
        }
    };
    let target = match target {
        Ok(target) => target,
        Err(refusal) if refused.is_some() => {
            return unserved::refuse(&authenticated, &Unserved::request(style, version), &refusal);
        }
        Err(refusal) => return unserved::refuse_connect(&authenticated, None, &refusal.closing()),
    };
    let waits = waits_for_answer(&request);
    let tunnel = Arc::new(Tunnel::new(authenticated, target, Scheme::Http, snapshot, Arc::clone(beat)));
    let response = exchange::answer(tunnel, request, Some(Arc::clone(guard)), None, drain).await;
    if waits && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        guard.resume();
    }
    response
}

/// The host that the request names; its port is the one that was dialled.
fn destination(request: &Request<Incoming>, port: u16) -> Result<Target, Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        let why = if request.version() == Version::HTTP_10 { "HTTP/1.0 names no host" } else { "not one Host" };
        return Err(Refusal::new(Code::Framing, why));
    };
    let target = host.to_str().ok().and_then(|host| Target::parse_or(host, Scheme::Http.default_port()).ok());
    match target {
        Some(target) if target.port == port => Ok(target),
        _ => Err(Refusal::new(Code::Misdirected, format!("the Host names no host on port {port}, which was dialled"))),
    }
}

impl Client {
    fn refused(&self, challenge: &Challenge) {
        if self.place.may_say() {
            tracing::error!(detail = challenge.detail, "the capability that a listener holds is not accepted");
        }
        self.proxy.metrics.refused(challenge.code);
        self.proxy.journal.auth_failure(self.peer.ip(), self.entrance.holds(), challenge.code.as_str());
    }
}
