//! What an origin answers, by path.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | JSON of the request; credentials only with `?secrets=1` |
//! | `/bytes/N`, `/chunked/N` | N bytes, with and without a length |
//! | `/held/N` | N bytes with a length, then nothing: the stream does not end |
//! | `/sized-trailers` | a body with a length, then the trailer `x-checksum` |
//! | `/upload` | reads the body; JSON of its length and hash |
//! | `/trailers` | a body, then the trailer `x-checksum` |
//! | `/sse`, `/stream` | what [`super::origin::Origin::tick`] sends, until `end_streams` |
//! | `/status/N` | that status, with a body where one is allowed; 204, 304 and 205 have none |
//! | `/redirect?URL` | 302 there |
//! | `/hang`, `/hang/…` | nothing, ever |
//! | `/refuse` | 417 at once, the body unread |
//! | `/early-413` | 413 at once, the body unread, and the connection closes |
//! | `/close` | 200 and `Connection: close` |
//! | `/ws` | a WebSocket that echoes |
//! | `/grpc/Unary`, `/grpc/Stream`, `/grpc/Fail` | gRPC: the message back, three times, or status 9 |
//! | `/….git/…` | `git http-backend` |
//! | a path given to [`super::origin::Origin::put`] | that file |

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, stream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::git_backend;
use super::origin::Shared;
use super::record::{End, Entry, Seen, sha256_hex};

pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// One frame of a generated download.
const CHUNK_BYTES: usize = 16 * 1024;

/// Headers that `/echo` does not repeat unless asked, so that a test may print what it got.
const CREDENTIAL_HEADERS: [&str; 5] = ["authorization", "x-api-key", "x-goog-api-key", "private-token", "cookie"];

pub(crate) async fn answer(
    mut request: Request<Incoming>,
    shared: Arc<Shared>,
    connection: u64,
) -> Result<Response<Watched>, Infallible> {
    // Subscribed before the request shows in the record: a test that saw it may tick at once.
    let ticks = shared.ticks.subscribe();
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (parts, body) = request.into_parts();
    let entry = shared.record.open(seen_from(&parts, connection));
    let mut exchange = Exchange { entry: entry.clone(), complete: false };
    let body = ObservedBody { inner: body, hash: Some(digest::Context::new(&digest::SHA256)), entry };
    let response = respond(Request::from_parts(parts, body), &shared, ticks, upgrade).await;
    Ok(response.map(|inner| {
        // An empty body is never polled.
        exchange.complete = inner.is_end_stream();
        Watched { inner, exchange }
    }))
}

fn seen_from(parts: &http::request::Parts, connection: u64) -> Seen {
    let host = parts.uri.authority().map(ToString::to_string).or_else(|| {
        let host = parts.headers.get(header::HOST)?;
        Some(String::from_utf8_lossy(host.as_bytes()).into_owned())
    });
    Seen {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        host: host.unwrap_or_default(),
        version: parts.version,
        headers: parts.headers.clone(),
        body_len: 0,
        body_sha256: None,
        trailers: None,
        end: End::Open,
        connection,
    }
}

type TicksReceiver = tokio::sync::broadcast::Receiver<Option<Bytes>>;

async fn respond(
    request: Request<ObservedBody>,
    shared: &Shared,
    ticks: TicksReceiver,
    upgrade: Option<OnUpgrade>,
) -> Response<AnyBody> {
    let path = request.uri().path().to_owned();
    let mut segments = path.trim_start_matches('/').split('/');
    match (segments.next().unwrap_or_default(), segments.next()) {
        ("echo", None) => echo(request).await,
        ("bytes", Some(count)) => download(count.parse().unwrap(), true),
        ("chunked", Some(count)) => download(count.parse().unwrap(), false),
        ("held", Some(count)) => held(count.parse().unwrap()),
        ("sized-trailers", None) => with_header(trailers(), header::CONTENT_LENGTH, HeaderValue::from(14)),
        ("upload", None) => upload(request).await,
        ("trailers", None) => trailers(),
        ("sse", None) => ticking(ticks, "text/event-stream"),
        ("stream", None) => ticking(ticks, "application/octet-stream"),
        ("status", Some(code)) => status(code.parse().unwrap()),
        ("redirect", None) => {
            let to = HeaderValue::from_str(request.uri().query().unwrap()).unwrap();
            with_header(text(StatusCode::FOUND, "over there"), header::LOCATION, to)
        }
        ("hang", _) => std::future::pending().await,
        ("refuse", None) => text(StatusCode::EXPECTATION_FAILED, "no"),
        ("early-413", None) => closing(text(StatusCode::PAYLOAD_TOO_LARGE, "too much")),
        ("close", None) => closing(text(StatusCode::OK, "goodbye")),
        ("ws", None) => websocket(&request, upgrade),
        ("grpc", Some(method)) => grpc(method, request).await,
        _ if path.contains(".git/") => {
            let root = shared.git_root.lock().unwrap().clone();
            git_backend::answer(&root.expect("serve_git was not called"), request).await
        }
        _ => file(&path, request, shared).await,
    }
}

async fn echo(request: Request<ObservedBody>) -> Response<AnyBody> {
    let (parts, body) = request.into_parts();
    let secrets = parts.uri.query().is_some_and(|query| query.contains("secrets=1"));
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let headers: serde_json::Map<_, _> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            let shown = if secrets || !CREDENTIAL_HEADERS.contains(&name.as_str()) {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            } else {
                "(not shown)".to_owned()
            };
            (name.to_string(), json!(shown))
        })
        .collect();
    let answer = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "body_len": body.len(),
        "body_sha256": sha256_hex(&body),
    });
    json_body(&answer)
}

async fn upload(request: Request<ObservedBody>) -> Response<AnyBody> {
    let mut body = request.into_body();
    let (mut count, mut hash) = (0, digest::Context::new(&digest::SHA256));
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            count += data.len();
            hash.update(&data);
        }
    }
    json_body(&json!({ "body_len": count, "body_sha256": hex::encode(hash.finish()) }))
}

/// `count` bytes whose value depends on their place, so that a lost or repeated chunk shows.
fn download(count: usize, with_length: bool) -> Response<AnyBody> {
    let chunks = stream::unfold(0, move |sent| async move {
        let size = CHUNK_BYTES.min(count - sent);
        (size > 0).then(|| (Ok::<_, Infallible>(Frame::data(pattern(sent, size))), sent + size))
    });
    let mut response = Response::new(StreamBody::new(chunks).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if with_length {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    }
    response
}

/// The bytes from `start` on of every generated download.
pub(crate) fn pattern(start: usize, size: usize) -> Bytes {
    (start..start + size).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap()).collect()
}

/// All that the length promises, and then no end.
fn held(count: usize) -> Response<AnyBody> {
    let content = stream::iter([Ok::<_, Infallible>(Frame::data(pattern(0, count)))]);
    let body = StreamBody::new(content.chain(stream::pending())).boxed_unsync();
    with_header(Response::new(body), header::CONTENT_LENGTH, HeaderValue::from(count))
}

fn trailers() -> Response<AnyBody> {
    let mut fields = HeaderMap::new();
    fields.insert("x-checksum", HeaderValue::from_static("abc123"));
    let frames = [Frame::data(Bytes::from_static(b"with trailers\n")), Frame::trailers(fields)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))).boxed_unsync();
    with_header(Response::new(body), header::TRAILER, HeaderValue::from_static("x-checksum"))
}

fn ticking(ticks: TicksReceiver, content_type: &'static str) -> Response<AnyBody> {
    let frames = stream::unfold(ticks, |mut ticks| async {
        let data = ticks.recv().await.ok()??;
        Some((Ok::<_, Infallible>(Frame::data(data)), ticks))
    });
    let response = Response::new(StreamBody::new(frames).boxed_unsync());
    with_header(response, header::CONTENT_TYPE, HeaderValue::from_static(content_type))
}

fn status(code: u16) -> Response<AnyBody> {
    let code = StatusCode::from_u16(code).unwrap();
    match code.as_u16() {
        204 | 205 | 304 => {
            let mut response = Response::new(Full::default().boxed_unsync());
            *response.status_mut() = code;
            with_header(response, header::ETAG, HeaderValue::from_static("\"v1\""))
        }
        _ => text(code, "as you asked"),
    }
}

fn websocket(request: &Request<ObservedBody>, upgrade: Option<OnUpgrade>) -> Response<AnyBody> {
    let (Some(key), Some(upgrade)) = (request.headers().get(header::SEC_WEBSOCKET_KEY), upgrade) else {
        return text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket");
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).unwrap();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let echoes = message.is_text() || message.is_binary();
            if echoes && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    with_header(response, header::SEC_WEBSOCKET_ACCEPT, accept)
}

/// The framed message comes back as it was: the origin need not know what it means.
async fn grpc(method: &str, request: Request<ObservedBody>) -> Response<AnyBody> {
    let message = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", HeaderValue::from_static(if method == "Fail" { "9" } else { "0" }));
    fields.insert("grpc-message", HeaderValue::from_static(if method == "Fail" { "not today" } else { "" }));
    let repeats = match method {
        "Unary" => 1,
        "Stream" => 3,
        _ => 0,
    };
    let frames = (0..repeats).map(move |_| Frame::data(message.clone())).chain([Frame::trailers(fields)]);
    let frames = frames.map(Ok::<_, Infallible>);
    let response = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
    with_header(response, header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
}

async fn file(path: &str, request: Request<ObservedBody>, shared: &Shared) -> Response<AnyBody> {
    let is_head = request.method() == Method::HEAD;
    let _ = request.into_body().collect().await;
    let Some((content_type, body)) = shared.files.lock().unwrap().get(path).cloned() else {
        return text(StatusCode::NOT_FOUND, "nothing here");
    };
    let length = body.len();
    let body = if is_head { Full::default() } else { Full::new(body) };
    let response = Response::new(body.boxed_unsync());
    let response = with_header(response, header::CONTENT_LENGTH, HeaderValue::from(length));
    with_header(response, header::CONTENT_TYPE, HeaderValue::from_str(&content_type).unwrap())
}

fn json_body(value: &serde_json::Value) -> Response<AnyBody> {
    let response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    with_header(response, header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
}

pub(crate) fn text(status: StatusCode, body: &'static str) -> Response<AnyBody> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())).boxed_unsync());
    *response.status_mut() = status;
    with_header(response, header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))
}

fn closing(response: Response<AnyBody>) -> Response<AnyBody> {
    with_header(response, header::CONNECTION, HeaderValue::from_static("close"))
}

fn with_header(mut response: Response<AnyBody>, name: HeaderName, value: HeaderValue) -> Response<AnyBody> {
    response.headers_mut().insert(name, value);
    response
}

/// The request's body, noted in the record as it is read.
pub(crate) struct ObservedBody {
    inner: Incoming,
    hash: Option<digest::Context>,
    entry: Entry,
}

impl ObservedBody {
    fn note_end(&mut self) {
        if let Some(hash) = self.hash.take() {
            self.entry.change(|seen| seen.body_sha256 = Some(hex::encode(hash.finish())));
        }
    }
}

impl Body for ObservedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            None => self.note_end(),
            Some(Err(_)) => {}
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if let Some(hash) = &mut self.hash {
                        hash.update(data);
                    }
                    let count = u64::try_from(data.len()).unwrap();
                    self.entry.change(|seen| seen.body_len += count);
                }
                if let Some(fields) = frame.trailers_ref() {
                    let fields = fields.clone();
                    self.entry.change(|seen| seen.trailers = Some(fields));
                }
                if self.inner.is_end_stream() {
                    self.note_end();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body, which notes in the record whether it was sent to its end.
pub(crate) struct Watched {
    inner: AnyBody,
    exchange: Exchange,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if frame.is_none() || self.inner.is_end_stream() {
            self.exchange.complete = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Lives as long as the exchange, also while no answer exists yet.
struct Exchange {
    entry: Entry,
    complete: bool,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let end = if self.complete { End::Complete } else { End::Aborted };
        self.entry.change(|seen| seen.end = end);
    }
}

/// A gRPC message with its five bytes in front.
pub(crate) fn grpc_frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::from(&[0][..]);
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    framed.freeze()
}

/// Whether the peer spoke HTTP/2.
pub(crate) fn is_h2(seen: &Seen) -> bool {
    seen.version == Version::HTTP_2
}
