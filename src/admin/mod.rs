//! The operator's listener: is it alive, is it ready, what has it counted.
//!
//! Deliberately absent: anything that changes state, and any name of a person, host or path.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::net::listener::{Listener, Stream};
use crate::proxy::{Drain, Proxy};
use crate::request::Target;

/// A whole request must come within this.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// A failed accept is tried again after this long.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Readers at once; a monitoring system needs one or two.
const READERS_MAX: usize = 16;

/// Answers `GET /healthz`, `/readyz` and `/metrics` until the drain is over.
pub async fn serve(proxy: Arc<Proxy>, listener: Listener, drain: Drain) {
    let readers = Arc::new(tokio::sync::Semaphore::new(READERS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.over() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        if let Ok(place) = Arc::clone(&readers).try_acquire_owned() {
            let proxy = Arc::clone(&proxy);
            tokio::spawn(async move {
                answer_all(proxy, stream).await;
                drop(place);
            });
        }
    }
}

async fn answer_all(proxy: Arc<Proxy>, stream: Stream) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let response = answer(&proxy, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

fn answer(proxy: &Proxy, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !is_for_us(request) {
        return text(StatusCode::MISDIRECTED_REQUEST, "this listener answers to an address or localhost\n".to_owned());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, String::new());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(proxy),
        "/metrics" => text(StatusCode::OK, metrics(proxy)),
        _ => text(StatusCode::NOT_FOUND, String::new()),
    }
}

/// A page of some website may point a name of its own at us (DNS rebinding): only an address or `localhost` is answered.
fn is_for_us(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    Target::parse_or(host, 80).is_ok_and(|named| named.host.address().is_some() || named.host.as_str() == "localhost")
}

fn readiness(proxy: &Proxy) -> Response<Full<Bytes>> {
    match proxy.journal.health().refusing {
        None => text(StatusCode::OK, "ready\n".to_owned()),
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// The Prometheus text format, version 0.0.4.
fn metrics(proxy: &Proxy) -> String {
    let mut out = String::new();
    let health = proxy.journal.health();
    labelled(&mut out, "narrows_requests_total", "Requests by outcome.", "outcome", proxy.metrics.requests());
    labelled(&mut out, "narrows_refusals_total", "Refusals by code.", "code", proxy.metrics.refusals());
    single(&mut out, "narrows_connections_total", "counter", "Connections accepted.", proxy.metrics.clients());
    single(&mut out, "narrows_journal_lines_total", "counter", "Journal lines written.", health.lines);
    let in_flight = u64::try_from(health.in_flight).unwrap_or(u64::MAX);
    single(&mut out, "narrows_requests_in_flight", "gauge", "Requests begun and not ended.", in_flight);
    out
}

fn labelled(out: &mut String, name: &str, help: &str, label: &str, values: impl Iterator<Item = (&'static str, u64)>) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
    for (value, count) in values {
        let _ = writeln!(out, "{name}{{{label}=\"{value}\"}} {count}");
    }
}

fn single(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
