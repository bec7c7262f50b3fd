//! An agent that speaks HTTP/2 inside its tunnel.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::agent::Agent;

/// One HTTP/2 connection. Its requests share it.
#[derive(Clone)]
pub(crate) struct H2Agent {
    sender: http2::SendRequest<Full<Bytes>>,
}

impl H2Agent {
    /// CONNECT, TLS with `h2` as the only protocol offered, and the HTTP/2 preface.
    pub(crate) async fn connect(agent: &Agent, host: &str) -> Self {
        let mut tcp = TcpStream::connect(agent.proxy).await.unwrap();
        let head = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n{}\r\n", agent.authorization());
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(tcp.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        let config: ClientConfig = agent.tls(&["h2"]);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// The stream's, or the connection's.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.clone().send_request(request).await
    }

    pub(crate) async fn get(&self, url: &str) -> Response<Incoming> {
        self.send(Request::get(url).body(Full::default()).unwrap()).await.unwrap()
    }
}
