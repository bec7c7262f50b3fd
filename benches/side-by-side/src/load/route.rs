//! The way of a client to the origin: through a proxy's CONNECT, or straight.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use http::header::{AUTHORIZATION, HOST as HOST_HEADER, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::body::{self, AnyBody};
use crate::home::Agent;
use crate::origin::ANSWER;
use crate::rows::Running;
use crate::stage::{self, INJECTED, PLACEHOLDER};

/// The longest answer to a CONNECT.
const HEAD_BYTES_MAX: usize = 4096;

/// A client of one row.
pub(crate) struct Route {
    running: Rc<Running>,
    /// Who proves itself, where it is not the row's own agent.
    agent: Option<Agent>,
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
}

impl Route {
    /// A client that resumes when it can, or never.
    pub(crate) fn new(running: &Rc<Running>, resuming: bool) -> anyhow::Result<Self> {
        let mut config = stage::client_tls(&running.ca)?;
        if !resuming {
            config.resumption = Resumption::disabled();
        }
        let offering = |alpn| {
            let mut config = config.clone();
            config.alpn_protocols = alpn;
            Arc::new(config)
        };
        let (h1, h2) = (offering(stage::alpn(false)), offering(vec![b"h2".to_vec()]));
        Ok(Self { running: Rc::clone(running), agent: None, h1, h2 })
    }

    /// The same for another agent.
    pub(crate) fn of(running: &Rc<Running>, agent: Agent) -> anyhow::Result<Self> {
        Ok(Self { agent: Some(agent), ..Self::new(running, false)? })
    }

    /// An HTTP/1.1 connection to `host`, in a tunnel of its own.
    pub(crate) async fn h1(&self, host: &str) -> anyhow::Result<H1> {
        let stream = self.tls(host, &self.h1).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(H1 { sender, port: self.running.port, resumed })
    }

    /// An HTTP/2 connection, likewise.
    pub(crate) async fn h2(&self, host: &str) -> anyhow::Result<H2> {
        let stream = self.tls(host, &self.h2).await.context("no HTTP/2 to the client")?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "no HTTP/2 to the client");
        let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(H2(sender))
    }

    async fn tls(&self, host: &str, config: &Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = match self.running.proxy() {
            Some(proxy) => self.tunnel(TcpStream::connect(proxy).await?, host).await?,
            None => TcpStream::connect(self.running.origin).await?,
        };
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned())?;
        Ok(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?)
    }

    async fn tunnel(&self, mut stream: TcpStream, host: &str) -> anyhow::Result<TcpStream> {
        let target = format!("{host}:{}", self.running.port);
        let proof = match self.agent.as_ref().or(self.running.agent.as_ref()) {
            Some(agent) => format!("Proxy-Authorization: Cap {}\r\n", agent.credentials(&target)?),
            None => String::new(),
        };
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{proof}\r\n");
        stream.write_all(head.as_bytes()).await?;
        // The proxy says nothing after this head before the client has spoken.
        let mut answer = [0; HEAD_BYTES_MAX];
        let mut filled = 0;
        while !answer[..filled].ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut answer[filled..]).await?;
            ensure!(read > 0, "the proxy ends at the CONNECT");
            filled += read;
        }
        let accepted = answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.0 200");
        ensure!(accepted, "CONNECT: {}", String::from_utf8_lossy(&answer[..filled]));
        Ok(stream)
    }

    /// What a client of this row sends where the credential belongs.
    pub(crate) fn authorization(&self) -> HeaderValue {
        HeaderValue::from_static(if self.running.row.injects() { PLACEHOLDER } else { INJECTED })
    }
}

/// An HTTP/1.1 connection.
pub(crate) struct H1 {
    sender: http1::SendRequest<AnyBody>,
    port: u16,
    pub(crate) resumed: bool,
}

impl H1 {
    pub(crate) async fn send(&mut self, mut request: Request<AnyBody>) -> anyhow::Result<Response<Incoming>> {
        let authority = request.uri().authority().context("a request for nobody")?;
        let host = match self.port {
            443 => HeaderValue::from_str(authority.as_str())?,
            port => HeaderValue::from_str(&format!("{authority}:{port}"))?,
        };
        *request.uri_mut() = request.uri().path().parse()?;
        request.headers_mut().insert(HOST_HEADER, host);
        self.sender.ready().await?;
        ok(self.sender.send_request(request).await?)
    }

    /// Asks for the usual answer, and fails on any other.
    pub(crate) async fn ask(&mut self, host: &str, authorization: &HeaderValue) -> anyhow::Result<()> {
        expected(self.send(get(&format!("https://{host}/v1/items/7"), authorization)?).await?).await
    }
}

/// An HTTP/2 connection, or a handle on one.
#[derive(Clone)]
pub(crate) struct H2(http2::SendRequest<AnyBody>);

impl H2 {
    /// The same as [`H1::ask`].
    pub(crate) async fn ask(&mut self, host: &str, authorization: &HeaderValue) -> anyhow::Result<()> {
        self.0.ready().await?;
        let request = get(&format!("https://{host}/v1/items/7"), authorization)?;
        expected(ok(self.0.send_request(request).await?)?).await
    }
}

/// A request for this address.
pub(crate) fn get(uri: &str, authorization: &HeaderValue) -> anyhow::Result<Request<AnyBody>> {
    let request = Request::builder().method(Method::GET).uri(uri).header(AUTHORIZATION, authorization);
    Ok(request.body(body::empty())?)
}

fn ok(response: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
    let why = response.headers().get("proxy-status").and_then(|why| why.to_str().ok()).unwrap_or_default();
    ensure!(response.status() == StatusCode::OK, "answered {} {why}", response.status());
    Ok(response)
}

async fn expected(response: Response<Incoming>) -> anyhow::Result<()> {
    let answer = response.into_body().collect().await?.to_bytes();
    ensure!(answer == ANSWER, "another answer came: {}", String::from_utf8_lossy(&answer));
    Ok(())
}
