//! An agent that writes its bytes by hand: for what no well-behaved client sends, and to keep every byte that comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::PATIENCE;
use super::daemon::{Daemon, TestEnv};

/// Where the proxy is, what it is shown, and whose leaves are trusted.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) proxy: SocketAddr,
    credentials: Option<String>,
    roots: Arc<RootCertStore>,
}

/// How an answer came: its head as text, and what followed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{}", self.head))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header that is there once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The code of a denial, from its problem document.
    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        problem["code"].as_str().unwrap_or_else(|| panic!("{problem}")).to_owned()
    }
}

impl Agent {
    /// An agent of `daemon`; `None` presents nothing.
    pub(crate) fn new(env: &TestEnv, daemon: &Daemon, credentials: Option<&str>) -> Self {
        Self::at(daemon.addr, &env.home().join("ca.pem"), credentials)
    }

    /// An agent of whatever proxy is at `proxy` and has leaves of the CA in this file.
    pub(crate) fn at(proxy: SocketAddr, ca: &Path, credentials: Option<&str>) -> Self {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(ca).unwrap();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        Self { proxy, credentials: credentials.map(ToOwned::to_owned), roots: Arc::new(roots) }
    }

    /// A connection to the proxy with nothing said yet.
    pub(crate) fn dial(&self) -> Wire<TcpStream> {
        let stream = TcpStream::connect(self.proxy).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, ahead: Vec::new() }
    }

    /// The header line that presents the credentials, with its line end; nothing where there are none.
    pub(crate) fn authorization(&self) -> String {
        let basic = |credentials: &String| STANDARD.encode(format!("cap:{credentials}"));
        self.credentials
            .as_ref()
            .map_or_else(String::new, |credentials| format!("Proxy-Authorization: Basic {}\r\n", basic(credentials)))
    }

    /// Sends a CONNECT: the proxy's answer, and the connection.
    pub(crate) fn connect(&self, authority: &str) -> (Answer, Wire<TcpStream>) {
        let mut wire = self.dial();
        wire.send(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{}\r\n", self.authorization()));
        let head = wire.head();
        let answer = if head.contains(" 200 ") { Answer { head, body: Vec::new() } } else { wire.rest_of(head, false) };
        (answer, wire)
    }

    /// A tunnel to `host:443` with TLS inside, no ALPN.
    pub(crate) fn tunnel(&self, host: &str) -> Wire<Tls> {
        self.tunnel_with(host, 443, host, &[]).unwrap()
    }

    /// A tunnel to `host:port` with TLS inside for the name `sni`.
    ///
    /// # Errors
    /// The handshake's.
    pub(crate) fn tunnel_with(&self, host: &str, port: u16, sni: &str, alpn: &[&str]) -> std::io::Result<Wire<Tls>> {
        let (answer, wire) = self.connect(&format!("{host}:{port}"));
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(wire.ahead.is_empty(), "bytes before the handshake");
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(self.tls(alpn)), name).unwrap();
        let mut tcp = wire.stream;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        Ok(Wire { stream: StreamOwned::new(connection, tcp), ahead: Vec::new() })
    }

    /// TLS settings that trust the home's CA and offer `alpn`.
    pub(crate) fn tls(&self, alpn: &[&str]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// One request on a tunnel of its own.
    pub(crate) fn request(&self, method: &str, host: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut tunnel = self.tunnel(host);
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        tunnel.send(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}{length}\r\n"));
        tunnel.send_bytes(body);
        tunnel.answer(method == "HEAD")
    }

    pub(crate) fn get(&self, host: &str, path: &str) -> Answer {
        self.request("GET", host, path, "", b"")
    }
}

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// One side of a connection, read as HTTP/1 where a test wants that.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    /// Read, and not yet asked for.
    pub(crate) ahead: Vec<u8>,
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    /// Sends; a peer that has gone shows when its answer is read.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// Closes our sending side where the transport can: the peer reads an end.
    pub(crate) fn finish(&mut self)
    where
        S: Ends,
    {
        self.stream.end();
    }

    /// From now on a write that makes no progress for so long fails.
    pub(crate) fn stall_after(&self, limit: Duration)
    where
        S: Ends,
    {
        self.stream.tcp().set_write_timeout(Some(limit)).unwrap();
    }

    /// How many of `bytes` one write took.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) -> usize {
        self.stream.write(bytes).unwrap_or(0)
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    /// What comes up to the close, or one whole answer: for a peer that may do either.
    #[track_caller]
    pub(crate) fn rest_within_one_answer(&mut self) -> Vec<u8>
    where
        S: Ends,
    {
        self.finish();
        self.rest()
    }

    /// Reads until `end` is there, and returns what comes before it and `end` itself.
    #[track_caller]
    pub(crate) fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = find(&self.ahead, end.as_bytes()) {
                let rest = self.ahead.split_off(at + end.len());
                return String::from_utf8_lossy(&std::mem::replace(&mut self.ahead, rest)).into_owned();
            }
            assert!(self.more(), "closed before {end:?}: {:?}", String::from_utf8_lossy(&self.ahead));
        }
    }

    /// A head up to and with its blank line.
    #[track_caller]
    pub(crate) fn head(&mut self) -> String {
        self.until("\r\n\r\n")
    }

    /// A whole answer: its body by `Content-Length`, by chunks, or up to the close.
    #[track_caller]
    pub(crate) fn answer(&mut self, to_head: bool) -> Answer {
        let head = self.head();
        self.rest_of(head, to_head)
    }

    #[track_caller]
    fn rest_of(&mut self, head: String, to_head: bool) -> Answer {
        let mut answer = Answer { head, body: Vec::new() };
        if to_head || matches!(answer.status(), 100..200 | 204 | 304) {
            return answer;
        }
        if let Some(length) = answer.header("content-length") {
            answer.body = self.exactly(length.parse().unwrap());
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                let line = self.until("\r\n");
                let size = usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).unwrap();
                if size == 0 {
                    while self.until("\r\n") != "\r\n" {}
                    break;
                }
                answer.body.extend(self.exactly(size));
                assert_eq!(self.until("\r\n"), "\r\n");
            }
        } else {
            answer.body = self.rest();
        }
        answer
    }

    #[track_caller]
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(self.more(), "closed after {} of {count} bytes", self.ahead.len());
        }
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// So many bytes; `None` when the peer closes before.
    #[track_caller]
    pub(crate) fn try_exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            if !self.more() {
                return None;
            }
        }
        let rest = self.ahead.split_off(count);
        Some(std::mem::replace(&mut self.ahead, rest))
    }

    /// Reads once, whatever comes: for a test that has a patience of its own.
    ///
    /// # Errors
    /// The stream's.
    pub(crate) fn some(&mut self) -> std::io::Result<usize> {
        let mut some = [0; 16 * 1024];
        let count = self.stream.read(&mut some)?;
        self.ahead.extend_from_slice(&some[..count]);
        Ok(count)
    }

    /// Everything up to the close.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.ahead)
    }

    /// Reads some more; `false` when the peer has closed, cleanly or not.
    #[track_caller]
    fn more(&mut self) -> bool {
        let mut some = [0; 16 * 1024];
        match self.stream.read(&mut some) {
            Ok(0) => false,
            Ok(count) => {
                self.ahead.extend_from_slice(&some[..count]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came in {PATIENCE:?} after {:?}", String::from_utf8_lossy(&self.ahead))
            }
            Err(_) => false,
        }
    }
}

/// A transport whose sending side can be closed.
pub(crate) trait Ends {
    fn end(&mut self);
    fn tcp(&self) -> &TcpStream;
}

impl Ends for TcpStream {
    fn end(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Ends for Tls {
    fn end(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
        let _ = self.sock.shutdown(Shutdown::Write);
    }

    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
