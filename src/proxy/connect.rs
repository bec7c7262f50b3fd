//! connect: the outer connection, where a client asks for a tunnel or sends an absolute-form request.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper_util::rt::TokioIo;

use super::authenticate::{Authenticated, Challenge, Client, authenticate};
use super::beat::Beat;
use super::body::Reply;
use super::keep::{Bounds, keep};
use super::metrics::OpenTunnel;
use super::respond::{self, Refusal, Style};
use super::tunnel::Tunnel;
use super::{Drain, Entrance, exchange, passthrough, revoked, terminate};
use crate::capability::Purpose;
use crate::clock::UnixSeconds;
use crate::net::channel::Channel;
use crate::net::guard::{Guard, GuardState, waits_for_answer};
use crate::net::listener::Stream;
use crate::net::unread::Unread;
use crate::policy::Code;
use crate::request::{Scheme, Target};
use crate::store::random;

/// One client's connection: what all requests on it share.
pub(super) struct Outer {
    client: Client,
    drain: Drain,
    guard: Arc<GuardState>,
    beat: Arc<Beat>,
    /// Somebody has, at least once, on this connection.
    authenticated: AtomicBool,
}

/// Serves one accepted connection until it ends, or becomes a tunnel.
pub(super) async fn serve(mut client: Client, stream: Stream, drain: Drain) {
    // Boxed, so that a connection does not keep the room that its handshake took.
    let entering = Box::pin(enter(&client, stream));
    let Some((stream, channel)) = drain.arrive(entering).await else { return };
    client.channel = channel;
    let proxy = Arc::clone(&client.proxy);
    let guarded = Guard::new(Unread::new(stream, proxy.limits.unread), proxy.limits.head_read);
    let (authenticated, guard) = (AtomicBool::new(false), guarded.state());
    let beat = Beat::alone(Instant::now());
    let bounds = Bounds { end: None, idle: Some(proxy.limits.client_idle) };
    let kept = keep(Arc::clone(&beat), bounds);
    let outer = Arc::new(Outer { guard, beat, authenticated, client, drain: drain.clone() });
    let strangers_end = stranger(Arc::clone(&outer));
    let end = async move {
        tokio::select! { () = kept => {}, () = strangers_end => {} }
    };
    let service = hyper::service::service_fn(move |request| {
        let outer = Arc::clone(&outer);
        async move { Ok::<_, Infallible>(answer(&outer, request).await) }
    });
    let connection = http1().serve_connection(TokioIo::new(guarded), service).with_upgrades();
    let connection = std::pin::pin!(connection);
    drain.finish(connection, UpgradeableConnection::graceful_shutdown, pending(), pending(), end).await;
}

/// The TLS of a listener that has it, ended in time.
async fn enter(client: &Client, stream: Stream) -> Option<(Stream, Channel)> {
    let Client { proxy, entrance, peer, .. } = client;
    if **entrance != Entrance::Tls {
        return Some((stream, Channel::Clear));
    }
    let server_end = proxy.live.snapshot().server_end().cloned()?;
    let entered = tokio::time::timeout(proxy.limits.handshake, server_end.accept(stream)).await;
    let entered = entered.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    entered.inspect_err(|error| tracing::info!(%peer, %error, "no TLS with a client")).ok()
}

/// Ends when nobody has authenticated on the connection for too long; never, where somebody has.
async fn stranger(outer: Arc<Outer>) {
    tokio::time::sleep(outer.client.proxy.limits.authenticate).await;
    if outer.authenticated.load(Ordering::Relaxed) {
        pending::<()>().await;
    }
}

/// hyper's server. Its own timer would be set and taken back for each request: what it bounds, `keep` and the guard do.
pub(super) fn http1() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_headers(crate::net::guard::HEADERS_MAX)
        .max_buf_size(2 * crate::net::guard::HEAD_BYTES_MAX);
    builder
}

async fn answer(outer: &Arc<Outer>, mut request: Request<Incoming>) -> Response<Reply> {
    outer.beat.rest(Instant::now());
    if let Some(violation) = outer.guard.violation() {
        let refusal = Refusal::new(Code::Framing, violation.to_string()).closing();
        outer.client.proxy.metrics.refused(refusal.code);
        return respond::refusal(&refusal, &new_id(), Style::Problem, Version::HTTP_11);
    }
    if request.method() == Method::CONNECT {
        let response = connect(outer, &mut request).await;
        if !response.status().is_success() {
            outer.guard.resume();
        }
        return response;
    }
    if let Some(response) = revoked::answer(&outer.client, &request) {
        return response;
    }
    let waits = waits_for_answer(&request);
    let response = absolute(outer, request).await;
    if waits && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        outer.guard.resume();
    }
    response
}

async fn connect(outer: &Arc<Outer>, request: &mut Request<Incoming>) -> Response<Reply> {
    // The whole request-target: of `https://host:443` the authority alone would be another target than was sent.
    let asked = request.uri().to_string();
    let snapshot = outer.client.proxy.live.snapshot();
    let purpose = Purpose::Connect { target: &asked };
    let mut authenticated = match authenticate(&outer.client, &snapshot, Some(request.headers()), purpose).await {
        Ok(authenticated) => authenticated,
        Err(challenge) => return challenged(outer, &challenge),
    };
    outer.authenticated.store(true, Ordering::Relaxed);
    let Ok(target) = Target::parse(&asked) else {
        let refusal = Refusal::new(Code::Misdirected, "the CONNECT names no plain host and port").closing();
        return refused(&authenticated, None, &refusal);
    };
    if !snapshot.serves_port(target.port) {
        let hint = format!("capctl service add NAME --host {target}");
        let refusal = Refusal::new(Code::ServiceUnknown, format!("no service is on port {}", target.port)).hint(hint);
        return refused(&authenticated, Some(&target), &refusal);
    }
    authenticated.open = Some(OpenTunnel::new(&outer.client.proxy));
    let upgrade = hyper::upgrade::on(request);
    if snapshot.is_plain_tunnel(&target) {
        let tunnel = Tunnel::new(authenticated, target, Scheme::Https, snapshot, Arc::clone(&outer.beat));
        let tunnel = Arc::new(tunnel);
        return match passthrough::open(&tunnel).await {
            Ok(opened) => {
                let client = async { terminate::raw(upgrade.await.ok()?) };
                outer.drain.spawn(passthrough::run(opened, client, outer.drain.clone()));
                Response::new(Reply::empty())
            }
            Err(refused) => refused.respond(),
        };
    }
    outer.drain.spawn(terminate::run(authenticated, target, upgrade, outer.drain.clone()));
    Response::new(Reply::empty())
}

/// An absolute-form request: the client trusts the proxy with the whole of it (RFC 9112 §3.2.2).
async fn absolute(outer: &Arc<Outer>, request: Request<Incoming>) -> Response<Reply> {
    let version = request.version();
    let style = Style::of(request.headers());
    let (scheme, target) = match destination(request.uri(), outer.client.is_private()) {
        Ok(destination) => destination,
        Err(refusal) => {
            outer.client.proxy.metrics.refused(refusal.code);
            return respond::refusal(&refusal.closing(), &new_id(), style, version);
        }
    };
    let snapshot = outer.client.proxy.live.snapshot();
    let method = request.method().clone();
    let purpose = Purpose::Request { method: method.as_str(), target: &target };
    match authenticate(&outer.client, &snapshot, Some(request.headers()), purpose).await {
        Ok(authenticated) => {
            outer.authenticated.store(true, Ordering::Relaxed);
            let tunnel = Arc::new(Tunnel::new(authenticated, target, scheme, snapshot, Arc::clone(&outer.beat)));
            exchange::answer(tunnel, request, Some(Arc::clone(&outer.guard)), None, &outer.drain).await
        }
        Err(challenge) => challenged(outer, &challenge),
    }
}

fn destination(uri: &Uri, private: bool) -> Result<(Scheme, Target), Refusal> {
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") if private => Scheme::Https,
        Some("https") => return Err(Refusal::new(Code::Framing, "use CONNECT for https")),
        _ => {
            let refusal = Refusal::new(Code::Framing, "this is a proxy, not a server");
            return Err(refusal.hint("export HTTPS_PROXY=http://HOST:PORT, or: capctl run -- COMMAND"));
        }
    };
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let target = Target::parse_or(authority, scheme.default_port())
        .map_err(|_| Refusal::new(Code::Misdirected, "the URI names no plain host"))?;
    Ok((scheme, target))
}

/// 407 with both challenges, or 503 where the memory of used proofs is full. Clients that send nothing before a challenge (git, Java, .NET) know Basic.
fn challenged(outer: &Outer, challenge: &Challenge) -> Response<Reply> {
    let proxy = &outer.client.proxy;
    proxy.metrics.refused(challenge.code);
    if challenge.code != Code::Missing {
        proxy.journal.auth_failure(outer.client.peer.ip(), outer.client.entrance.holds(), challenge.code.as_str());
        tracing::info!(peer = %outer.client.peer, code = challenge.code.as_str(), detail = challenge.detail, "refused credentials");
    }
    let mut response = Response::new(Reply::empty());
    *response.status_mut() = respond::status(challenge.code);
    if outer.client.entrance.is_bound() && response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        // The client has no credentials that would help, and would ask for ever.
        if outer.client.place.may_say() {
            tracing::error!(detail = challenge.detail, "the capability that a listener holds is not accepted");
        }
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    let code = challenge.code.as_str();
    let now = UnixSeconds::now().get();
    let cap = format!("Cap realm=\"narrows\", aud=\"{}\", error=\"{code}\", now={now}", proxy.audience);
    let asked_again = response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    let headers = response.headers_mut();
    for value in [cap.as_str(), "Basic realm=\"narrows\""].into_iter().filter(|_| asked_again) {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(header::PROXY_AUTHENTICATE, value);
        }
    }
    respond::mark(headers, challenge.code, &new_id());
    respond::set_reason(&mut response, challenge.code);
    response
}

/// A CONNECT that is refused after authentication, with its journal line.
fn refused(authenticated: &Authenticated, target: Option<&Target>, refusal: &Refusal) -> Response<Reply> {
    exchange::refuse_connect(authenticated, target, refusal)
}

/// The id of an answer that belongs to no journalled request: for whoever asks about it.
pub(super) fn new_id() -> String {
    random::id(exchange::unix_ms()).map_or_else(|_| "-".to_owned(), |id| id.to_string())
}
