//! The proxy, as the forwarder reaches it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Revival, Shared};
use crate::net::listener::Stream;
use crate::request::Target;

/// Connecting to the proxy takes at most this long.
const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// A proxy that is gone is back within this, or stays gone.
const REVIVE_WITHIN: Duration = Duration::from_secs(10);
/// A proxy's answer to a CONNECT is there within this: it may dial an upstream first (a plain tunnel).
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(45);
/// The head of an answer to a request is there within this. Models think for minutes; the proxy gives up first.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_mins(15);
/// An answer's head is at most so many fields.
const HEADERS_MAX: usize = 256;
/// And at most so many bytes, with room for what hyper reads ahead.
const HEAD_BYTES_MAX: usize = 128 * 1024;

/// Where the proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// `http://host:port`.
    Tcp(Target),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// The text of `--proxy` is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not http://HOST:PORT or unix:PATH")]
pub struct ParseUpstreamError;

impl FromStr for Upstream {
    type Err = ParseUpstreamError;

    /// `http://host:port`, `host:port` or `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(ParseUpstreamError) } else { Ok(Self::Unix(path.into())) };
        }
        let authority = text.strip_prefix("http://").unwrap_or(text);
        Target::parse(authority.trim_end_matches('/')).map(Self::Tcp).map_err(|_| ParseUpstreamError)
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(target) => write!(f, "http://{target}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        // An address and a port are always a target.
        Target::parse(&address.to_string()).map_or_else(|_| Self::Unix(PathBuf::new()), Self::Tcp)
    }
}

/// The upstream and what is known about it.
pub(super) struct Dialled {
    upstream: Upstream,
    revival: Option<Revival>,
}

/// The proxy does not answer, or not in time.
#[derive(Debug)]
pub(super) enum Unanswered {
    Refused,
    Late,
    Broken,
}

impl Dialled {
    pub(super) const fn new(upstream: Upstream, revival: Option<Revival>) -> Self {
        Self { upstream, revival }
    }

    pub(super) const fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether what is said to the proxy stays on this machine. Only then may it correct a clock.
    pub(super) fn is_local(&self) -> bool {
        match &self.upstream {
            Upstream::Tcp(target) => is_loopback(target),
            Upstream::Unix(_) => true,
        }
    }

    /// Whether the target is the proxy itself.
    pub(super) fn is(&self, target: &Target) -> bool {
        match &self.upstream {
            Upstream::Tcp(proxy) => {
                proxy.port == target.port && (proxy.host == target.host || is_loopback(proxy) && is_loopback(target))
            }
            Upstream::Unix(_) => false,
        }
    }

    /// A connection to the proxy, which is brought back first if it is gone and somebody can.
    async fn dial(&self) -> io::Result<Stream> {
        match (self.connect().await, &self.revival) {
            (Err(_), Some(revival)) => {
                let (tried, answer) = oneshot::channel();
                if revival.send(tried).await.is_ok() {
                    let _ = timeout(REVIVE_WITHIN, answer).await;
                }
                self.connect().await
            }
            (connected, _) => connected,
        }
    }

    async fn connect(&self) -> io::Result<Stream> {
        match &self.upstream {
            Upstream::Tcp(target) => {
                let stream = match target.host.address() {
                    Some(address) => TcpStream::connect((address, target.port)).await?,
                    None => TcpStream::connect((target.host.as_str(), target.port)).await?,
                };
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Upstream::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        }
    }
}

/// `localhost`, 127.0.0.0/8, `::1`, and the unspecified addresses, which reach loopback too.
pub(super) fn is_loopback(target: &Target) -> bool {
    match target.host.address().map(crate::net::address::unmapped) {
        Some(IpAddr::V4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(IpAddr::V6(address)) => address.is_loopback() || address.is_unspecified(),
        None => target.host.as_str() == "localhost" || target.host.as_str().ends_with(".localhost"),
    }
}

/// Sends one request to the proxy on a connection of its own, and waits for the head of its answer.
pub(super) async fn ask<B>(
    shared: &Shared,
    request: Request<B>,
    within: Duration,
) -> Result<Response<Incoming>, Unanswered>
where
    B: Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = match timeout(DIAL_WITHIN + REVIVE_WITHIN, shared.dialled.dial()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, upstream = %shared.dialled.upstream(), "the proxy does not answer");
            return Err(Unanswered::Refused);
        }
        Err(_) => return Err(Unanswered::Late),
    };
    let handshake =
        http1::Builder::new().max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|_| Unanswered::Broken)?;
    let drain = shared.drain.clone();
    shared.drain.spawn(async move {
        tokio::select! {
            _ = connection.with_upgrades() => {}
            () = drain.over() => {}
        }
    });
    match timeout(within, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(|_| Unanswered::Broken),
        Err(_) => Err(Unanswered::Late),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_person_types() {
        for text in ["http://127.0.0.1:7080", "127.0.0.1:7080", "http://127.0.0.1:7080/"] {
            assert_eq!(text.parse::<Upstream>().expect(text).to_string(), "http://127.0.0.1:7080");
        }
        assert_eq!("unix:/run/n.sock".parse(), Ok(Upstream::Unix("/run/n.sock".into())));
        for text in ["", "unix:", "https://proxy:7080", "http://proxy", "socks5://127.0.0.1:1080", "http://u:p@h:1"] {
            assert_eq!(text.parse::<Upstream>(), Err(ParseUpstreamError), "{text}");
        }
    }

    #[test]
    fn knows_the_proxy_under_its_other_names() {
        let proxy = Dialled::new("127.0.0.1:7080".parse().expect("an address"), None);
        let target = |text| Target::parse(text).expect("a target");
        for text in ["127.0.0.1:7080", "localhost:7080", "127.9.9.9:7080", "[::1]:7080", "0.0.0.0:7080"] {
            assert!(proxy.is(&target(text)), "{text}");
        }
        for text in ["127.0.0.1:7081", "example.com:7080"] {
            assert!(!proxy.is(&target(text)), "{text}");
        }
    }
}
