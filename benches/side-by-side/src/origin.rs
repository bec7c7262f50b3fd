//! The origin: HTTP/1.1 and HTTP/2 over TLS, which answers only requests that carry the injected credential.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::body::{self, AnyBody};
use crate::stage::{self, INJECTED};

/// What a plain request is answered.
pub(crate) const ANSWER: &str = concat!(
    r#"{"id":7,"name":"a widget of the usual kin","state":"open","labels":["one","two"],"#,
    r#""updated":"2027-01-15T15:40Z"}"#
);
const _: () = assert!(ANSWER.len() == 111);

/// Serves until the process ends.
pub(crate) async fn serve(folder: &Path, h2: bool, listener: TcpListener) -> anyhow::Result<()> {
    let mut config = stage::origin_tls(folder).context("the origin's certificate")?;
    config.alpn_protocols = stage::alpn(h2);
    let config = Arc::new(config);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, Arc::clone(&config)));
    }
}

async fn connection(stream: TcpStream, config: Arc<ServerConfig>) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
    // How a client ends is not the origin's concern.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<AnyBody>, Infallible> {
    if request.headers().get(AUTHORIZATION).is_none_or(|value| value != INJECTED) {
        return Ok(with_status(StatusCode::FORBIDDEN));
    }
    let mut words = request.uri().path().split('/').skip(3);
    let (what, numbers) = (words.next(), words.map(|word| word.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>());
    Ok(match (what, numbers.as_slice()) {
        (Some("bytes"), [count]) => Response::new(body::repeated(*count)),
        (Some("sink"), _) => sink(request.into_body()).await,
        (Some("ticks"), [count, apart_ms]) => ticks(*count, *apart_ms),
        _ => json(),
    })
}

fn json() -> Response<AnyBody> {
    let mut response = Response::new(body::full(ANSWER));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn ticks(count: u64, apart_ms: u64) -> Response<AnyBody> {
    let mut response = Response::new(body::ticks(count, Duration::from_millis(apart_ms.max(1))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// Takes a body and says how long it was.
async fn sink(mut body: Incoming) -> Response<AnyBody> {
    let mut bytes = 0;
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return with_status(StatusCode::BAD_REQUEST) };
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
    }
    Response::new(body::full(bytes.to_string()))
}

fn with_status(status: StatusCode) -> Response<AnyBody> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}
