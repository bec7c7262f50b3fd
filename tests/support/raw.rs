//! Origins that speak bytes instead of HTTP: for hostile framing, for connections that die, for a server that never
//! says `100 Continue`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsAcceptor;

use super::ca::{Alpn, TestCa};
use super::origin::on_own_thread;

/// What a raw origin does on a connection, step by step; after the last it closes.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Reads up to and with the blank line that ends a head.
    Head,
    /// Reads so many bytes more.
    Read(usize),
    /// Reads HTTP/2 frames up to and with the first of this type; the preface before them, on a new connection.
    Frame(u8),
    /// Writes these bytes as they are.
    Send(Vec<u8>),
    /// Waits for [`RawOrigin::go`].
    Wait,
    /// Closes it without a word, also in TLS.
    Drop,
    /// Keeps the connection open, reading and dropping what comes, until the peer closes it.
    UntilClosed,
}

/// What came on the connections.
#[derive(Clone, Default)]
struct Heard {
    /// A row per connection.
    read: Arc<Mutex<Vec<Vec<u8>>>>,
    /// How many of them the peer has closed.
    closed: Arc<AtomicUsize>,
}

/// A running raw origin. It stops when it is dropped.
pub(crate) struct RawOrigin {
    pub(crate) addr: SocketAddr,
    heard: Heard,
    go: Arc<Notify>,
    _stop: oneshot::Sender<()>,
}

impl RawOrigin {
    /// Plays `steps` on every connection, inside TLS.
    pub(crate) fn https(ca: &TestCa, names: &[&str], steps: Vec<Step>) -> Self {
        Self::start(Some(TlsAcceptor::from(ca.server(names, Alpn::H1))), steps)
    }

    /// The same with HTTP/2 agreed on: what is played are frames.
    pub(crate) fn https_h2(ca: &TestCa, names: &[&str], steps: Vec<Step>) -> Self {
        Self::start(Some(TlsAcceptor::from(ca.server(names, Alpn::H2))), steps)
    }

    /// The same with TLS of the test's own making.
    pub(crate) fn https_with(config: Arc<ServerConfig>, steps: Vec<Step>) -> Self {
        Self::start(Some(TlsAcceptor::from(config)), steps)
    }

    /// Plays `steps` on every connection, in clear text.
    pub(crate) fn http(steps: Vec<Step>) -> Self {
        Self::start(None, steps)
    }

    fn start(tls: Option<TlsAcceptor>, steps: Vec<Step>) -> Self {
        let (heard, go) = (Heard::default(), Arc::new(Notify::new()));
        let (addr, stop) = on_own_thread({
            let (heard, go) = (heard.clone(), go.clone());
            move |listener| accept_all(listener, tls, steps, heard, go)
        });
        Self { addr, heard, go, _stop: stop }
    }

    /// What was read, a row per connection.
    pub(crate) fn read(&self) -> Vec<String> {
        self.heard.read.lock().unwrap().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// On how many connections the peer was heard to close, where a [`Step::UntilClosed`] waits for it.
    pub(crate) fn closed(&self) -> usize {
        self.heard.closed.load(Ordering::SeqCst)
    }

    /// Lets one connection past its [`Step::Wait`], now or when it gets there.
    pub(crate) fn go(&self) {
        self.go.notify_one();
    }
}

async fn accept_all(listener: TcpListener, tls: Option<TlsAcceptor>, steps: Vec<Step>, heard: Heard, go: Arc<Notify>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        // Each step is a write of its own, at once.
        let _ = tcp.set_nodelay(true);
        let (tls, steps, heard, go) = (tls.clone(), steps.clone(), heard.clone(), go.clone());
        tokio::spawn(async move {
            match tls {
                None => play(tcp, steps, heard, go).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        play(stream, steps, heard, go).await;
                    }
                }
            }
        });
    }
}

async fn play<S>(mut stream: S, steps: Vec<Step>, Heard { read, closed }: Heard, go: Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let row = {
        let mut rows = read.lock().unwrap();
        rows.push(Vec::new());
        rows.len() - 1
    };
    let mut preface = super::frames::PREFACE.len();
    for step in steps {
        match step {
            Step::Head => {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                    read.lock().unwrap()[row].push(byte);
                }
            }
            Step::Read(count) => {
                for _ in 0..count {
                    let Ok(byte) = stream.read_u8().await else { return };
                    read.lock().unwrap()[row].push(byte);
                }
            }
            Step::Frame(wanted) => {
                if !skip_to(&mut stream, wanted, &mut preface).await {
                    return;
                }
            }
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Step::Wait => go.notified().await,
            Step::Drop => return,
            Step::UntilClosed => {
                let mut dropped = [0; 4096];
                while matches!(stream.read(&mut dropped).await, Ok(1..)) {}
                closed.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    let _ = stream.shutdown().await;
}

/// Reads frames up to and with the first of type `wanted`; false when the peer closes before. `preface` is what is left
/// to skip of what comes before all frames.
async fn skip_to<S: AsyncRead + Unpin>(stream: &mut S, wanted: u8, preface: &mut usize) -> bool {
    let mut skipped = vec![0; std::mem::take(preface)];
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut skipped).await.is_err() || stream.read_exact(&mut head).await.is_err() {
            return false;
        }
        skipped = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        if head[3] == wanted {
            return stream.read_exact(&mut skipped).await.is_ok();
        }
    }
}
