//! forward: the rewritten request goes out on a kept or a fresh connection, once.
//!
//! A request of which nothing was sent may go out on another connection. One that was sent is repeated
//! only when it is safe (RFC 9110 §9.2.1), has no body, and a connection that had been idle died under
//! it without an answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::{self, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme as UriScheme};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;

use super::body::{ExpectGate, Uplink};
use super::exchange::{Exchange, Refused};
use super::hop;
use super::metrics::Count;
use super::respond::Refusal;
use super::rewrite::Outgoing;
use super::tunnel::Tunnel;
use super::view::View;
use crate::net::dial::DialError;
use crate::net::pool::{Connection, Unsent};
use crate::net::trust::Offer;
use crate::policy::Code;
use crate::request::Scheme;

/// How often a request of which nothing was sent may try another connection.
const ATTEMPTS_MAX: usize = 3;
/// After so long without `100 Continue` the client is told to go on (RFC 9110 §10.1.1).
const CONTINUE_AFTER: Duration = Duration::from_secs(1);

/// The upstream has answered; the head is here, the body is on its way.
pub(super) struct Answered {
    pub(super) exchange: Box<Exchange>,
    pub(super) response: Response<Incoming>,
    /// To be kept when the answer has ended; a handle on a shared connection is not held.
    pub(super) connection: Option<(Arc<View>, Connection<Uplink>)>,
}

/// What identifies a request apart from its body, for the one repetition that is safe. A list is copied more cheaply
/// than a map, and is seldom read.
struct Head {
    method: Method,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Outgoing {
    /// Sends the request and waits for the head of its answer.
    ///
    /// Not an `async fn`, whose future holds its arguments twice, as they came and as they are used: hyper moves one
    /// for each request, and keeps room for one with each connection.
    pub(super) fn forward(self) -> impl Future<Output = Result<Answered, Refused>> {
        let Self { mut exchange, mut request, path_and_query, gate, .. } = self;
        async move {
            let view = Arc::clone(exchange.view());
            let mut attempts = 0;
            loop {
                attempts += 1;
                let (mut connection, kept) = match connect(&mut exchange, &view, attempts).await {
                    Ok(connected) => connected,
                    Err(refusal) => return Err(exchange.refuse(refusal)),
                };
                address(&mut request, &view, &path_and_query, connection.is_http2());
                let again = (kept && attempts < ATTEMPTS_MAX).then(|| safe_head(&request)).flatten();
                let sending = std::pin::pin!(connection.send(request));
                match sent(&mut exchange, sending, gate.as_deref()).await {
                    Ok(response) => return answered(exchange, response, view, connection),
                    Err(Failure::Refused(refusal)) => return Err(exchange.refuse(refusal)),
                    Err(Failure::Unsent(Unsent { request: Some(unsent), .. })) if attempts < ATTEMPTS_MAX => {
                        request = *unsent;
                    }
                    Err(Failure::Unsent(Unsent { error, .. })) => {
                        let Some(head) = again.filter(|_| died_idle(&error)) else {
                            let refusal = broken(&exchange, &error);
                            return Err(exchange.refuse(refusal));
                        };
                        request = head.into_request(&exchange);
                    }
                }
            }
        }
    }
}

fn answered(
    mut exchange: Box<Exchange>,
    response: Response<Incoming>,
    view: Arc<View>,
    connection: Connection<Uplink>,
) -> Result<Answered, Refused> {
    exchange.upstream_answered(Some(response.status()));
    if response.status().is_informational() {
        let refusal = Refusal::new(Code::UpstreamProtocol, "the upstream switched protocols without being asked");
        return Err(exchange.refuse(refusal));
    }
    if connection.is_http2() {
        return Ok(Answered { exchange, response, connection: None });
    }
    let reusable = !hop::connection_has(response.headers(), "close")
        && response.version() >= Version::HTTP_11
        && hop::is_framed_once(response.headers(), response.status());
    Ok(Answered { exchange, response, connection: reusable.then_some((view, connection)) })
}

/// A kept connection (true) or a fresh one. After a failure only fresh ones are tried.
async fn connect(
    exchange: &mut Exchange,
    view: &Arc<View>,
    attempt: usize,
) -> Result<(Connection<Uplink>, bool), Refusal> {
    if attempt == 1
        && let Some(connection) = view.shelf().take().await
    {
        exchange.tunnel.who.proxy.metrics.count(Count::ConnectionsReused);
        return Ok((connection, true));
    }
    // Boxed: a request seldom dials, and every request's future would be as large as this one.
    let connection = Box::pin(dial(exchange, Offer::Any)).await.map_err(|error| unreachable(&error))?;
    if connection.is_http2() {
        view.shelf().share(&connection);
    }
    Ok((connection, false))
}

/// Opens a connection to the exchange's target; `offer` is the ALPN offer of a TLS one.
pub(super) async fn dial(exchange: &mut Exchange, offer: Offer) -> Result<Connection<Uplink>, DialError> {
    exchange.turn();
    let dialled = dial_now(exchange, offer).await;
    note_dial(&exchange.tunnel, dialled.as_ref().err());
    dialled
}

/// Counts a dial, and tells the operator why it failed: an agent learns a code and no cause.
pub(super) fn note_dial(tunnel: &Tunnel, failed: Option<&DialError>) {
    let proxy = &tunnel.who.proxy;
    let Some(error) = failed else { return proxy.metrics.count(Count::DialsMade) };
    proxy.metrics.count(Count::DialsFailed);
    if proxy.unreached.may_say() {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        tracing::warn!(host = %tunnel.target, %error, %cause, "an upstream was not reached");
    }
}

async fn dial_now(exchange: &Exchange, offer: Offer) -> Result<Connection<Uplink>, DialError> {
    let (proxy, target, view) = (&exchange.tunnel.who.proxy, &exchange.tunnel.target, exchange.view());
    let (snapshot, named) = (view.snapshot(), view.named_exactly());
    let rules = snapshot.dial_rules();
    let started = match exchange.tunnel.scheme {
        Scheme::Http => {
            let stream = proxy.dialer.tcp(rules, target, named).await?;
            Connection::start(stream, false).await
        }
        Scheme::Https => {
            let config = snapshot.client_tls(view.served().credential(), offer).ok_or(DialError::Unresolved)?;
            let stream = proxy.dialer.tls(rules, target, named, config).await?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Connection::start(stream, http2).await
        }
    };
    started.map_err(|error| DialError::Refused(std::io::Error::other(error)))
}

/// Sends a request on a connection that was dialled for it alone.
pub(super) async fn send_once(
    exchange: &mut Exchange,
    connection: &mut Connection<Uplink>,
    request: Request<Uplink>,
) -> Result<Response<Incoming>, Refusal> {
    let sending = std::pin::pin!(connection.send(request));
    sent(exchange, sending, None).await.map_err(|failure| match failure {
        Failure::Refused(refusal) => refusal,
        Failure::Unsent(Unsent { error, .. }) => broken(exchange, &error),
    })
}

/// Writes the destination in the form that the connection's protocol wants.
pub(super) fn address(request: &mut Request<Uplink>, view: &View, path_and_query: &PathAndQuery, http2: bool) {
    frame(request);
    if http2 {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if view.scheme() == Scheme::Https { UriScheme::HTTPS } else { UriScheme::HTTP });
        parts.authority = view.authority().cloned();
        parts.path_and_query = Some(path_and_query.clone());
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::TRANSFER_ENCODING);
        return;
    }
    *request.uri_mut() = Uri::from(path_and_query.clone());
    *request.version_mut() = Version::HTTP_11;
    join_cookies(request.headers_mut());
    if let Some(host) = view.host() {
        request.headers_mut().insert(header::HOST, host.clone());
    }
    // hyper sends no body with a method that seldom has one unless its framing is spelled out.
    let unknown_length = http_body::Body::size_hint(request.body()).exact().is_none();
    if unknown_length && matches!(*request.method(), Method::GET | Method::HEAD) {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Announces the length that the body has, in its one spelling, whatever the client's head said of it.
fn frame(request: &mut Request<Uplink>) {
    let length = http_body::Body::size_hint(request.body()).exact();
    let mut announced = request.headers().get_all(header::CONTENT_LENGTH).iter();
    let (first, more) = (announced.next(), announced.next().is_some());
    let Some(length) = length else {
        request.headers_mut().remove(header::CONTENT_LENGTH);
        return;
    };
    let said = first.and_then(|value| value.to_str().ok());
    let in_one_spelling = said.is_some_and(|said| said == "0" || !said.starts_with('0'));
    if !more && in_one_spelling && said.and_then(|said| said.parse().ok()) == Some(length) {
        return;
    }
    // Without a body, a length of zero is said only where the client said one.
    if length > 0 || first.is_some() {
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// HTTP/2 may split the one `Cookie` that HTTP/1.1 has (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// A copy of a request that may be sent twice.
fn safe_head(request: &Request<Uplink>) -> Option<Head> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let empty = http_body::Body::is_end_stream(request.body());
    let copied = || {
        let fields = request.headers().iter().map(|(name, value)| (name.clone(), value.clone()));
        Head { method: request.method().clone(), headers: fields.collect() }
    };
    (safe && empty).then(copied)
}

impl Head {
    fn into_request(self, exchange: &Exchange) -> Request<Uplink> {
        let mut request = Request::new(Uplink::empty(Arc::clone(&exchange.meter)));
        *request.method_mut() = self.method;
        request.headers_mut().extend(self.headers.into_iter().map(|(name, value)| (Some(name), value)));
        request
    }
}

enum Failure {
    Unsent(Unsent<Uplink>),
    Refused(Refusal),
}

/// Waits for the answer, and at each beat looks whether the request may go on.
async fn sent(
    exchange: &mut Exchange,
    mut sending: Pin<&mut impl Future<Output = Result<Response<Incoming>, Unsent<Uplink>>>>,
    gate: Option<&ExpectGate>,
) -> Result<Response<Incoming>, Failure> {
    exchange.turn();
    let began = exchange.seen();
    let mut progress = (exchange.meter.up(), began);
    loop {
        let answered = poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending => exchange.wait.poll(cx).map(|()| None),
        });
        if let Some(sent) = answered.await {
            return sent.map_err(Failure::Unsent);
        }
        let now = Instant::now();
        if let Some(gate) = gate
            && now.duration_since(began) >= CONTINUE_AFTER
        {
            gate.open();
        }
        if let Err(code) = exchange.recheck(now) {
            let ended = || Refusal::new(code, "the capability no longer allows this");
            return Err(Failure::Refused(exchange.dead().unwrap_or_else(ended)));
        }
        if exchange.meter.up() != progress.0 {
            progress = (exchange.meter.up(), now);
        }
        let limits = &exchange.tunnel.who.proxy.limits;
        if exchange.meter.waited(now) > limits.upload_idle {
            let refusal = Refusal::new(Code::BodyUnreadable, "the request's body stopped coming").closing();
            return Err(Failure::Refused(refusal));
        }
        if now.duration_since(progress.1) > limits.answer_head && exchange.meter.waited(now).is_zero() {
            return Err(Failure::Refused(Refusal::new(Code::UpstreamTimeout, "the upstream did not answer in time")));
        }
    }
}

/// True when the connection ended before a byte of an answer: it had died while idle.
fn died_idle(error: &hyper::Error) -> bool {
    let reset = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|io| matches!(io.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe));
    error.is_incomplete_message() || error.is_closed() || error.is_canceled() || reset
}

fn broken(exchange: &Exchange, error: &hyper::Error) -> Refusal {
    if exchange.meter.is_exhausted() {
        return exchange.exhausted();
    }
    if exchange.meter.client_failed() {
        return Refusal::new(Code::BodyUnreadable, "the request's body could not be read").closing();
    }
    tracing::debug!(host = %exchange.tunnel.target, %error, "upstream failed");
    Refusal::new(Code::UpstreamProtocol, "the upstream ended the connection or broke HTTP")
}

/// What the client learns of a failed dial.
pub(super) fn unreachable(error: &DialError) -> Refusal {
    match error {
        DialError::AddressForbidden => {
            Refusal::new(Code::AddressForbidden, "the host's address is private, or this proxy's own")
        }
        DialError::Unresolved => Refusal::new(Code::UpstreamRefused, "the host does not resolve"),
        DialError::Refused(_) => Refusal::new(Code::UpstreamRefused, "the host does not accept connections"),
        DialError::Exhausted(error) => {
            tracing::error!(%error, "no connection could be made");
            Refusal::new(Code::Overloaded, "the proxy cannot open another connection now")
        }
        DialError::Timeout => Refusal::new(Code::UpstreamTimeout, "the host did not accept a connection in time"),
        DialError::Tls(_) => Refusal::new(Code::UpstreamTls, "the host's TLS handshake or certificate failed"),
    }
}

/// Opens the gate of a request that waits for `100 Continue` when the upstream sends it.
pub(super) fn open_on_continue(request: &mut Request<Uplink>, gate: &Arc<ExpectGate>) {
    let gate = Arc::clone(gate);
    hyper::ext::on_informational(request, move |response| {
        if response.status() == http::StatusCode::CONTINUE {
            gate.open();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_become_one_cookie() {
        let joined = |crumbs: &[&'static str]| {
            let mut headers: HeaderMap =
                crumbs.iter().map(|crumb| (header::COOKIE, HeaderValue::from_static(crumb))).collect();
            join_cookies(&mut headers);
            headers.get_all(header::COOKIE).iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(joined(&["a=1", "b=2; c=3"]), ["a=1; b=2; c=3"]);
        assert_eq!(joined(&["a=1"]), ["a=1"]);
        assert_eq!(joined(&[]), [""; 0]);
    }
}
