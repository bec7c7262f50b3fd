//! HTTP towards the collector: one connection for a batch, on hyper and the proxy's own TLS.
//!
//! Deliberately absent: redirects followed, connections kept, and any field of the library's or of the environment's.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError, ResponseBodyTooLarge};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::config::{self, Endpoint};
use crate::net::dial::{DialError, Dialer};
use crate::net::trust::{self, Offer, TrustError};
use crate::request::Scheme;

/// A collector's answer is a few bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Its head is at most so long; the least that hyper takes is 8 KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("narrows/", env!("CARGO_PKG_VERSION")));
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    host: HeaderValue,
    timeout: Duration,
    dialer: Arc<Dialer>,
    tls: ArcSwap<ClientConfig>,
    /// The exporter's thread has none.
    runtime: Handle,
    /// Why the last message was not taken.
    trouble: ArcSwapOption<String>,
}

/// Why a message was not taken, in words for the log: none is the collector's own.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("no connection to the collector: {0}")]
    Dial(#[from] DialError),
    #[error("TLS with the collector failed: {0}")]
    Tls(io::Error),
    #[error("a name of this machine leads to another")]
    Elsewhere,
    #[error("the collector ended the connection or broke HTTP")]
    Http(#[from] hyper::Error),
    #[error("the collector answered {0}")]
    Status(StatusCode),
    #[error("the collector's answer breaks off, or does not end")]
    Unending,
    #[error("the collector did not answer in time")]
    Timeout,
}

impl Client {
    /// A client on the runtime of this moment.
    pub(super) fn new(
        config: &config::Traces,
        dialer: &Arc<Dialer>,
        trusted: &Arc<RootCertStore>,
    ) -> Result<Self, TrustError> {
        let endpoint = config.endpoint.clone();
        // A canonical target is plain ASCII.
        let host = HeaderValue::from_str(&endpoint.target.authority(endpoint.scheme));
        Ok(Self(Arc::new(Inner {
            host: host.unwrap_or(HeaderValue::from_static("")),
            endpoint,
            timeout: config.timeout,
            dialer: Arc::clone(dialer),
            tls: ArcSwap::new(trust::client_config(trusted, Offer::Http1)?),
            runtime: Handle::current(),
            trouble: ArcSwapOption::empty(),
        })))
    }

    pub(super) fn trust(&self, trusted: &Arc<RootCertStore>) -> Result<(), TrustError> {
        self.0.tls.store(trust::client_config(trusted, Offer::Http1)?);
        Ok(())
    }

    /// Why the last message was not taken.
    pub(super) fn trouble(&self) -> String {
        let trouble = self.0.trouble.load_full();
        trouble.map_or_else(|| "the exporter failed".to_owned(), |trouble| (*trouble).clone())
    }
}

/// Names the collector alone.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Client {
    /// Sends the content, and nothing else of the request. Bounded in time.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let inner = Arc::clone(&self.0);
        let sending = self.0.runtime.spawn(async move {
            let posting = tokio::time::timeout(inner.timeout, inner.post(request.into_body()));
            let posted = posting.await.unwrap_or(Err(Trouble::Timeout));
            let trouble = match &posted {
                Ok(response) if response.status().is_success() => None,
                Ok(response) => Some(Trouble::Status(response.status()).to_string()),
                Err(trouble) => Some(trouble.to_string()),
            };
            inner.trouble.store(trouble.map(Arc::new));
            posted
        });
        match sending.await? {
            Ok(response) => Ok(response),
            // One that has begun to answer has the spans, and is not to get them again.
            Err(Trouble::Unending) => Err(ResponseBodyTooLarge::new().into()),
            Err(trouble) => Err(trouble.into()),
        }
    }
}

impl Inner {
    async fn post(&self, content: Bytes) -> Result<Response<Bytes>, Trouble> {
        let target = &self.endpoint.target;
        match self.endpoint.scheme {
            Scheme::Https => match self.dialer.operators_tls(target, &self.tls.load_full()).await {
                Ok(stream) => self.exchange(stream, content).await,
                Err(DialError::Tls(error)) => Err(Trouble::Tls(error)),
                Err(error) => Err(error.into()),
            },
            Scheme::Http => {
                let stream = self.dialer.operators(target).await?;
                // `localhost` is a name, which somebody resolves.
                let is_here = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
                if is_here { self.exchange(stream, content).await } else { Err(Trouble::Elsewhere) }
            }
        }
    }

    async fn exchange<S>(&self, stream: S, content: Bytes) -> Result<Response<Bytes>, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await?;
        // Ends with this request, however that ends.
        let mut carrying = JoinSet::new();
        carrying.spawn(connection);
        let mut request = Request::new(Full::new(content));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(self.endpoint.path.clone());
        let fields = [
            (header::HOST, self.host.clone()),
            (header::CONTENT_TYPE, PROTOBUF),
            (header::USER_AGENT, AGENT),
            (header::CONNECTION, HeaderValue::from_static("close")),
        ];
        request.headers_mut().extend(fields);
        let (parts, body) = sender.send_request(request).await?.into_parts();
        if !parts.status.is_success() {
            return Ok(Response::from_parts(parts, Bytes::new()));
        }
        let answer = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| Trouble::Unending)?;
        Ok(Response::from_parts(parts, answer.to_bytes()))
    }
}
