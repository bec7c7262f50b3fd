//! The row `bare`: the least that a proxy does which ends TLS and injects. It decides nothing, checks nobody, keeps no
//! record, and has one leaf; what another proxy costs beyond it is what its work costs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::connect;
use super::connector::ToOrigin;
use crate::stage::{self, INJECTED};

#[derive(Clone)]
struct Bare {
    tls: TlsAcceptor,
    client: Client<ToOrigin, Incoming>,
}

/// Serves until the process ends; with `h2`, the origin is asked over HTTP/2.
pub(crate) async fn serve(
    folder: &Path,
    origins: [SocketAddr; 2],
    h2: bool,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let mut config = stage::proxy_tls(folder).context("the leaf")?;
    config.alpn_protocols = stage::alpn(true);
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .http2_only(h2)
        .build(ToOrigin::new(folder, origins, h2)?);
    let bare = Bare { tls: Arc::new(config).into(), client };
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(bare.clone().connection(stream));
    }
}

impl Bare {
    async fn connection(self, mut stream: TcpStream) -> anyhow::Result<()> {
        connect::accept(&mut stream).await?;
        let stream = self.tls.accept(stream).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let client = self.client;
        let service = service_fn(move |request| pass(client.clone(), request));
        let io = TokioIo::new(stream);
        if h2 {
            http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await?;
        } else {
            http1::Builder::new().serve_connection(io, service).await?;
        }
        Ok(())
    }
}

async fn pass(client: Client<ToOrigin, Incoming>, mut request: Request<Incoming>) -> Result<Response<Incoming>, Error> {
    if request.uri().authority().is_none() {
        *request.uri_mut() = absolute(&request);
    }
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static(INJECTED));
    client.request(request).await
}

/// What an HTTP/1.1 request is for, from its `Host`.
fn absolute(request: &Request<Incoming>) -> Uri {
    let mut parts = request.uri().clone().into_parts();
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Authority::try_from(host).ok();
    Uri::from_parts(parts).unwrap_or_default()
}
