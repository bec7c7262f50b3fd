//! The operator's listener: is it alive, is it ready, what has it counted.
//!
//! Health and counts, which name nobody, are for everybody on this machine; everything else is for who has the home's
//! token (`capctl admin token`). Nothing is for a page of a website.
//!
//! Deliberately absent: anything that changes state, and any name of a person, host or path.
mod caller;

use std::collections::VecDeque;
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
use tokio::task::AbortHandle;

use crate::net::listener::{Listener, Stream};
use crate::proxy::{Drain, Proxy};
use crate::store::Home;

/// A whole request must come within this.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// A failed accept is tried again after this long.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Readers at once; a monitoring system needs one or two. One more ends the oldest: any program of the machine can connect,
/// and none of them must be able to keep the operator out.
const READERS_MAX: usize = 16;

/// Answers `GET /healthz`, `/readyz`, `/metrics`, and with the token `/status`, until the drain is over.
pub async fn serve(proxy: Arc<Proxy>, home: Home, listener: Listener, drain: Drain) {
    let mut readers: VecDeque<AbortHandle> = VecDeque::with_capacity(READERS_MAX);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.over() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        readers.retain(|reader| !reader.is_finished());
        if readers.len() == READERS_MAX
            && let Some(oldest) = readers.pop_front()
        {
            oldest.abort();
        }
        let reader = tokio::spawn(answer_all(Arc::clone(&proxy), home.clone(), stream));
        readers.push_back(reader.abort_handle());
    }
}

async fn answer_all(proxy: Arc<Proxy>, home: Home, stream: Stream) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let response = answer(&proxy, &home, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

fn answer(proxy: &Proxy, home: &Home, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !caller::names_us(request) {
        return text(StatusCode::MISDIRECTED_REQUEST, "this listener is localhost, 127.0.0.1 or [::1]\n".to_owned());
    }
    if caller::is_of_another_site(request) {
        return text(StatusCode::FORBIDDEN, "not for a page of another site\n".to_owned());
    }
    let path = request.uri().path();
    let is_open = matches!(path, "/healthz" | "/readyz" | "/metrics");
    if !is_open && !caller::has_token(request, home) {
        let mut refused = text(StatusCode::UNAUTHORIZED, "capctl admin token prints what to show\n".to_owned());
        let challenge = HeaderValue::from_static("Bearer realm=\"narrows-admin\"");
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return refused;
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, String::new());
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(proxy),
        "/metrics" => text(StatusCode::OK, metrics(proxy)),
        "/status" => status(proxy),
        _ => text(StatusCode::NOT_FOUND, String::new()),
    }
}

/// What `/metrics` says and a little more, for programs that read JSON.
fn status(proxy: &Proxy) -> Response<Full<Bytes>> {
    let health = proxy.journal.health();
    let body = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "audience": &*proxy.audience,
        "journal": { "lines": health.lines, "in_flight": health.in_flight, "refusing": health.refusing.map(|why| why.to_string()) },
        "requests": proxy.metrics.requests().collect::<std::collections::BTreeMap<_, _>>(),
        "refusals": proxy.metrics.refusals().collect::<std::collections::BTreeMap<_, _>>(),
        "connections": proxy.metrics.clients(),
    });
    let mut response = text(StatusCode::OK, format!("{body:#}\n"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
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
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
