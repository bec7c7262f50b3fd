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
use super::unserved::{self, Unserved};
use super::{Drain, Entrance, exchange, inbound, passthrough, revoked, terminate};
use crate::capability::Purpose;
use crate::clock::UnixSeconds;
use crate::net::channel::Channel;
use crate::net::guard::{Guard, GuardState, ReadHead, Refused, waits_for_answer};
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
        // Asked now: while a request is under way, the guard may come upon one that follows.
        let stands_in = outer.guard.refused().is_some();
        async move {
            Ok::<_, Infallible>(match outer.guard.refused().filter(|_| stands_in) {
                Some(refused) => Box::pin(unframed(&outer, refused)).await,
                None => answer(&outer, request).await,
            })
        }
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

/// A message that the guard refused. All are told the same of it; who shows valid credentials has a line, as for whatever
/// else is refused.
async fn unframed(outer: &Outer, refused: &Refused) -> Response<Reply> {
    let Outer { client, .. } = outer;
    outer.beat.rest(Instant::now());
    let refusal = inbound::unframed(refused);
    let unserved = match &refused.read {
        Some(read) if read.method == Method::CONNECT => Unserved::connect(None),
        Some(read) => {
            let known = Unserved::request(Style::of(&read.headers), Version::HTTP_11);
            Unserved { method: Some(&read.method), ..known }
        }
        None => Unserved::request(Style::Problem, Version::HTTP_11),
    };
    let is_readable = refused.read.is_some() || client.entrance.is_bound();
    let shown = if is_readable { show(outer, refused.read.as_ref()).await.map_err(Some) } else { Err(None) };
    let failed = match shown {
        Ok(authenticated) => return unserved::refuse(&authenticated, &unserved, &refusal),
        Err(Some(challenge)) => Some(challenge.code).filter(|code| *code != Code::Missing),
        Err(None) => Some(refusal.code),
    };
    if let Some(code) = failed {
        client.proxy.journal.auth_failure(client.peer.ip(), client.entrance.holds(), code.as_str());
    }
    client.proxy.metrics.refused(refusal.code);
    respond::refusal(&refusal, &new_id(), unserved.style, unserved.version)
}

/// Authenticates the sender of a message that was refused.
async fn show(outer: &Outer, read: Option<&ReadHead>) -> Result<Authenticated, Challenge> {
    let snapshot = outer.client.proxy.live.snapshot();
    let uri = read.and_then(|read| read.target.parse().ok());
    let named = uri.and_then(|uri| destination(&uri).ok());
    let purpose = match (read, &named) {
        (Some(ReadHead { method, .. }), Some((_, target))) if *method != Method::CONNECT => {
            Purpose::Request { method: method.as_str(), target }
        }
        _ => Purpose::Connect { target: read.map_or("", |read| &read.target) },
    };
    let authenticated = authenticate(&outer.client, &snapshot, read.map(|read| &read.headers), purpose).await?;
    outer.authenticated.store(true, Ordering::Relaxed);
    Ok(authenticated)
}

async fn connect(outer: &Arc<Outer>, request: &mut Request<Incoming>) -> Response<Reply> {
    // The whole request-target: of `https://host:443` the authority alone would be another target than was sent.
    let asked = request.uri().to_string();
    let snapshot = outer.client.proxy.live.snapshot();
    let purpose = Purpose::Connect { target: &asked };
    let mut authenticated = match authenticate(&outer.client, &snapshot, Some(request.headers()), purpose).await {
        Ok(authenticated) => authenticated,
        Err(challenge) => return challenged(outer, &challenge, Unserved::connect(None)),
    };
    outer.authenticated.store(true, Ordering::Relaxed);
    let Ok(target) = Target::parse(&asked) else {
        let refusal = Refusal::new(Code::Misdirected, "the CONNECT names no plain host and port").closing();
        return refused(&authenticated, None, &refusal);
    };
    if !snapshot.serves_port(target.port) {
        let hint = format!("capctl service add NAME --host {target}");
        let refusal = Refusal::new(Code::ServiceUnknown, format!("no service is on port {}", target.port)).hint(hint);
        return refused(&authenticated, Some(&target), &refusal.closing());
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
            Err(refused) => refused.closing().respond(),
        };
    }
    outer.drain.spawn(terminate::run(authenticated, target, upgrade, outer.drain.clone()));
    Response::new(Reply::empty())
}

/// An absolute-form request: the client trusts the proxy with the whole of it (RFC 9112 §3.2.2). What it names is looked at
/// when it is known who asks.
async fn absolute(outer: &Arc<Outer>, request: Request<Incoming>) -> Response<Reply> {
    let unserved = Unserved::request(Style::of(request.headers()), request.version());
    let named = destination(request.uri());
    let snapshot = outer.client.proxy.live.snapshot();
    let method = request.method().clone();
    let asked = if named.is_err() { request.uri().to_string() } else { String::new() };
    let purpose = match &named {
        Ok((_, target)) => Purpose::Request { method: method.as_str(), target },
        // A proof for such a target cannot be; a presentation can.
        Err(_) => Purpose::Connect { target: &asked },
    };
    let authenticated = match authenticate(&outer.client, &snapshot, Some(request.headers()), purpose).await {
        Ok(authenticated) => authenticated,
        Err(challenge) => {
            // Whoever takes the proxy for a server has nothing to show, and is told so.
            let mistaken = named.err().filter(|_| challenge.code == Code::Missing && request.uri().scheme().is_none());
            let Some(refusal) = mistaken else { return challenged(outer, &challenge, unserved) };
            outer.client.proxy.metrics.refused(refusal.code);
            return respond::refusal(&refusal.closing(), &new_id(), unserved.style, unserved.version);
        }
    };
    outer.authenticated.store(true, Ordering::Relaxed);
    let (scheme, target) = match named {
        Ok(named) => named,
        Err(refusal) => {
            let unserved = Unserved { method: Some(&method), ..unserved };
            return unserved::refuse(&authenticated, &unserved, &refusal.closing());
        }
    };
    if scheme == Scheme::Https && !outer.client.is_private() {
        let unserved = Unserved { method: Some(&method), target: Some(&target), ..unserved };
        let refusal = Refusal::new(Code::Framing, "use CONNECT for https").closing();
        return unserved::refuse(&authenticated, &unserved, &refusal);
    }
    let tunnel = Arc::new(Tunnel::new(authenticated, target, scheme, snapshot, Arc::clone(&outer.beat)));
    exchange::answer(tunnel, request, Some(Arc::clone(&outer.guard)), None, &outer.drain).await
}

fn destination(uri: &Uri) -> Result<(Scheme, Target), Refusal> {
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
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

/// 407 with both challenges, or 503 where a bound of the proxy is met. Clients that send nothing before a challenge (git,
/// Java, .NET) know Basic.
fn challenged(outer: &Outer, challenge: &Challenge, unserved: Unserved<'_>) -> Response<Reply> {
    let proxy = &outer.client.proxy;
    proxy.metrics.refused(challenge.code);
    if challenge.code != Code::Missing {
        proxy.journal.auth_failure(outer.client.peer.ip(), outer.client.entrance.holds(), challenge.code.as_str());
        tracing::info!(peer = %outer.client.peer, code = challenge.code.as_str(), detail = challenge.detail, "refused credentials");
    }
    if respond::status(challenge.code) != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        return unasked(Refusal::new(challenge.code, "the proxy cannot take another one now; try later"), unserved);
    }
    if outer.client.entrance.is_bound() {
        // The client has no credentials that would help, and would ask for ever.
        if outer.client.place.may_say() {
            tracing::error!(detail = challenge.detail, "the capability that a listener holds is not accepted");
        }
        return unasked(Refusal::not_accepted(challenge.code), unserved);
    }
    let mut response = Response::new(Reply::empty());
    *response.status_mut() = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    let code = challenge.code.as_str();
    let now = UnixSeconds::now().get();
    let cap = format!("Cap realm=\"narrows\", aud=\"{}\", error=\"{code}\", now={now}", proxy.audience);
    let headers = response.headers_mut();
    for value in [cap.as_str(), "Basic realm=\"narrows\""] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(header::PROXY_AUTHENTICATE, value);
        }
    }
    respond::mark(headers, challenge.code, StatusCode::PROXY_AUTHENTICATION_REQUIRED, &new_id());
    respond::set_reason(&mut response, challenge.code);
    response
}

/// Refuses a sender who is not to ask again with other credentials.
fn unasked(refusal: Refusal, unserved: Unserved<'_>) -> Response<Reply> {
    let refusal = if unserved.is_connect() { refusal.closing() } else { refusal };
    respond::refusal(&refusal, &new_id(), unserved.style, unserved.version)
}
/// A CONNECT that is refused after authentication, with its journal line.
fn refused(authenticated: &Authenticated, target: Option<&Target>, refusal: &Refusal) -> Response<Reply> {
    unserved::refuse_connect(authenticated, target, refusal)
}

/// The id of an answer that belongs to no journalled request: for whoever asks about it.
pub(super) fn new_id() -> String {
    random::id(exchange::unix_ms()).map_or_else(|_| "-".to_owned(), |id| id.to_string())
}
