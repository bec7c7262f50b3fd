//! The demo's API: real TLS and HTTP on this machine, which knows one key and remembers what it was shown.
#![expect(clippy::disallowed_types, reason = "not on the path of a request through the proxy: the demo's own API")]

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::HOST;
use crate::cli::failure::Failure;

/// A running API.
pub(super) struct Api {
    pub(super) address: SocketAddr,
    /// Whom to trust to reach it.
    pub(super) certificate_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) request: String,
    pub(super) authorization: String,
}

impl Api {
    pub(super) async fn start(key: &str) -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).map_err(|error| Failure::of(&error))?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(rustls::ConfigBuilder::<ServerConfig, _>::with_no_client_auth)
            .and_then(|config| config.with_single_cert(vec![made.cert.der().clone()], private))
            .map_err(|error| Failure::of(&error))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| Failure::of(&error))?;
        let address = listener.local_addr().map_err(|error| Failure::of(&error))?;
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let expected = Arc::from(format!("Bearer {key}"));
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), expected, Arc::clone(&seen)));
        Ok(Self { address, certificate_pem: made.cert.pem(), seen })
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, expected: Arc<str>, seen: Arc<Mutex<Vec<Seen>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, tls.clone(), Arc::clone(&expected), Arc::clone(&seen)));
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, expected: Arc<str>, seen: Arc<Mutex<Vec<Seen>>>) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(move |request| {
        let answer = answer(&request, &expected, &seen);
        async move { Ok::<_, Infallible>(answer) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn answer(request: &Request<Incoming>, expected: &str, seen: &Mutex<Vec<Seen>>) -> Response<Full<Bytes>> {
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let authorization = String::from_utf8_lossy(authorization).into_owned();
    let right = authorization == expected;
    let request = format!("{} {}", request.method(), request.uri().path());
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { request, authorization });
    let body = if right { r#"{"items":["lamp","chair"]}"# } else { r#"{"error":"wrong key"}"# };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = if right { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
