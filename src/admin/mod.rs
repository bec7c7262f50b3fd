//! The operator's listener: is it alive, is it ready, what has it counted.
//!
//! Health and counts, which name nobody, are for everybody on this machine; everything else is for who has the home's
//! token (`capctl admin token`). Nothing is for a page of a website.
//!
//! Deliberately absent: anything that changes state, and any name of a person, host or path.

mod caller;
mod exposition;
mod process;
mod readiness;
mod scrape;
mod standing;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
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
use crate::proxy::{Count, Drain, Proxy};
use crate::store::Home;

use caller::Named;
use exposition::Form;
use scrape::Scrape;
pub use standing::{Part, Reloads, Standing};

/// A whole request must come within this.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// A failed accept is tried again after this long.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Readers at once; a monitoring system needs one or two. One more ends the oldest: any program of the machine can connect,
/// and none of them must be able to keep the operator out.
const READERS_MAX: usize = 16;

/// Whom the operator asks about.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The proxy.
    pub proxy: Arc<Proxy>,
    /// Its home, for the token.
    pub home: Home,
    /// How it stands beside its files.
    pub standing: Arc<Standing>,
    /// Whether it is going down.
    pub drain: Drain,
}

/// Answers `GET /healthz`, `/readyz`, `/metrics`, and with the token `/status`, until the drain is over.
pub async fn serve(admin: Admin, listener: Listener) {
    let mut readers: VecDeque<AbortHandle> = VecDeque::with_capacity(READERS_MAX);
    let port = listener.local_address().map(|address| address.port());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = admin.drain.over() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                admin.proxy.make_room(&error);
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        readers.retain(|reader| !reader.is_finished());
        if readers.len() == READERS_MAX
            && let Some(oldest) = readers.pop_front()
        {
            oldest.abort();
        }
        let reader = tokio::spawn(answer_all(admin.clone(), stream, port));
        readers.push_back(reader.abort_handle());
    }
}

async fn answer_all(admin: Admin, stream: Stream, port: Option<u16>) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let response = answer(&admin, &request, port);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

fn answer(admin: &Admin, request: &Request<Incoming>, port: Option<u16>) -> Response<Full<Bytes>> {
    match caller::named(request, port) {
        Named::Us => {}
        Named::Several => return text(StatusCode::BAD_REQUEST, "one Host, please\n".to_owned()),
        Named::Somebody => {
            let ours = "this listener is localhost, 127.0.0.1 or [::1], with its own port\n";
            return text(StatusCode::MISDIRECTED_REQUEST, ours.to_owned());
        }
    }
    if caller::is_of_another_site(request) {
        return text(StatusCode::FORBIDDEN, "not for a page of another site\n".to_owned());
    }
    let path = request.uri().path();
    let is_open = matches!(path, "/healthz" | "/readyz" | "/metrics");
    if !is_open && !caller::has_token(request, &admin.home) {
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
        "/readyz" => ready(admin),
        "/metrics" => metrics(admin, Form::wanted(request.headers())),
        "/status" => status(&admin.proxy),
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
        "requests": proxy.metrics.requests(),
        "refusals": proxy.metrics.refusals().map(|(code, count)| (code.as_str(), count)).collect::<BTreeMap<_, _>>(),
        "connections": proxy.metrics.counted(Count::Connections),
    });
    json(StatusCode::OK, &body)
}

fn ready(admin: &Admin) -> Response<Full<Bytes>> {
    let (is_ready, body) = readiness::report(&readiness::checks(admin));
    json(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

fn metrics(admin: &Admin, form: Form) -> Response<Full<Bytes>> {
    let Ok(written) = form.write(Scrape(admin.clone())) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the counts cannot be written\n".to_owned());
    };
    let mut response = of_type(StatusCode::OK, form.media_type(), written);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    of_type(status, "application/json", format!("{body:#}\n"))
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    of_type(status, "text/plain; charset=utf-8", body)
}

fn of_type(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
