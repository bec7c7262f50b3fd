//! The proxy, as the forwarder reaches it.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Revival, Shared};
use crate::net::channel::{BadTls, Binding, ClientEnd};
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
    /// `https://host:port`.
    Tls(Target),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// The text of `--proxy` is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not https://HOST:PORT, http://HOST:PORT or unix:PATH")]
pub struct ParseUpstreamError;

impl FromStr for Upstream {
    type Err = ParseUpstreamError;

    /// `https://host:port`, `http://host:port`, `host:port` or `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(ParseUpstreamError) } else { Ok(Self::Unix(path.into())) };
        }
        let (way, authority): (fn(Target) -> Self, _) = match text.strip_prefix("https://") {
            Some(authority) => (Self::Tls, authority),
            None => (Self::Tcp, text.strip_prefix("http://").unwrap_or(text)),
        };
        Target::parse(authority.trim_end_matches('/')).map(way).map_err(|_| ParseUpstreamError)
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(target) => write!(f, "http://{target}"),
            Self::Tls(target) => write!(f, "https://{target}"),
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

impl Upstream {
    /// Whether what is said to the proxy stays on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(target) | Self::Tls(target) => is_loopback(target),
            Self::Unix(_) => true,
        }
    }
}

/// The upstream and what is known about it.
pub(super) struct Dialled {
    upstream: Upstream,
    revival: Option<Revival>,
    client_end: ArcSwapOption<ClientEnd>,
    /// A person has been told that there is no way through the proxy, and none has been found since.
    told: AtomicBool,
}

/// The proxy does not answer, or not in time.
#[derive(Debug)]
pub(super) enum Unanswered {
    Refused,
    Late,
    /// There is no TLS with it.
    Tls,
    Broken,
}

/// A connection to the proxy, with nothing said yet.
pub(super) struct Way {
    stream: Stream,
    binding: Option<Binding>,
}

impl Dialled {
    pub(super) fn new(
        upstream: Upstream,
        revival: Option<Revival>,
        client_end: Option<ClientEnd>,
    ) -> Result<Self, BadTls> {
        let client_end = match (&upstream, client_end) {
            (Upstream::Tls(_), None) => Some(ClientEnd::new(None, None)?),
            (_, client_end) => client_end,
        };
        let client_end = ArcSwapOption::new(client_end.map(Arc::new));
        Ok(Self { upstream, revival, client_end, told: AtomicBool::new(false) })
    }

    pub(super) fn replace_client_end(&self, client_end: ClientEnd) {
        self.client_end.store(Some(Arc::new(client_end)));
    }

    /// Whether nobody on the way can speak for the proxy. Only then may it correct a clock.
    pub(super) fn is_believed(&self) -> bool {
        matches!(self.upstream, Upstream::Tls(_)) || self.upstream.is_local()
    }

    /// Whether the target is the proxy itself.
    pub(super) fn is(&self, target: &Target) -> bool {
        match &self.upstream {
            Upstream::Tcp(proxy) | Upstream::Tls(proxy) => {
                proxy.port == target.port && (proxy.host == target.host || is_loopback(proxy) && is_loopback(target))
            }
            Upstream::Unix(_) => false,
        }
    }

    /// A connection to the proxy, which is brought back first if it is gone and somebody can.
    async fn dial(&self) -> io::Result<Way> {
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

    async fn connect(&self) -> io::Result<Way> {
        match &self.upstream {
            Upstream::Tcp(target) => Ok(Way { stream: tcp(target).await?, binding: None }),
            Upstream::Tls(target) => {
                let client_end = self.client_end.load_full().ok_or(io::ErrorKind::Unsupported)?;
                let (stream, binding) = client_end.connect(&target.host, tcp(target).await?).await?;
                Ok(Way { stream, binding: Some(binding) })
            }
            Upstream::Unix(path) => Ok(Way { stream: Stream::Unix(UnixStream::connect(path).await?), binding: None }),
        }
    }

    /// What a person must know of an answer that is none of HTTP. A proxy with `[tls]` speaks nothing else.
    fn broken(&self, error: &hyper::Error) -> &'static str {
        match &self.upstream {
            Upstream::Tcp(_) if error.is_parse() => {
                "what answers there does not speak HTTP: if the proxy has [tls], it is at https://HOST:PORT (--ca FILE)"
            }
            Upstream::Tcp(_) => {
                "it ended the connection without an answer: if the proxy has [tls], it is at https://HOST:PORT (--ca FILE)"
            }
            Upstream::Tls(_) | Upstream::Unix(_) => "it ended the connection without an answer",
        }
    }

    /// Tells a person once that there is no way through the proxy, and why. One that can be brought back is nobody's concern.
    pub(super) fn tell(&self, notify: fn(&str), why: &str) {
        if self.revival.is_none() && !self.told.swap(true, Ordering::Relaxed) {
            notify(&format!("no way to the proxy at {}: {why}", self.upstream));
        }
    }
}

async fn tcp(target: &Target) -> io::Result<Stream> {
    let stream = match target.host.address() {
        Some(address) => TcpStream::connect((address, target.port)).await?,
        None => TcpStream::connect((target.host.as_str(), target.port)).await?,
    };
    if !is_as_named(target, stream.peer_addr()?) {
        let why = "a name of this machine leads to another";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    stream.set_nodelay(true)?;
    Ok(Stream::Tcp(stream))
}

/// What is said in clear text to this machine is said to no other: `localhost` and what is below it are names, which
/// somebody resolves.
fn is_as_named(target: &Target, peer: SocketAddr) -> bool {
    target.host.address().is_some() || !is_loopback(target) || peer.ip().to_canonical().is_loopback()
}

/// `localhost`, 127.0.0.0/8, `::1`, and the unspecified addresses, which reach loopback too.
pub(super) fn is_loopback(target: &Target) -> bool {
    match target.host.address().map(crate::net::address::unmapped) {
        Some(IpAddr::V4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(IpAddr::V6(address)) => address.is_loopback() || address.is_unspecified(),
        None => target.host.as_str() == "localhost" || target.host.as_str().ends_with(".localhost"),
    }
}

/// A connection of its own for one request.
pub(super) async fn reach(shared: &Shared) -> Result<Way, Unanswered> {
    match timeout(DIAL_WITHIN + REVIVE_WITHIN, shared.dialled.dial()).await {
        Ok(Ok(way)) => Ok(way),
        Ok(Err(error)) => {
            let trouble = trouble(&error);
            shared.dialled.tell(shared.notify, trouble.as_deref().unwrap_or(&error.to_string()));
            Err(if trouble.is_some() { Unanswered::Tls } else { Unanswered::Refused })
        }
        Err(_) => {
            shared.dialled.tell(shared.notify, "it does not answer in time");
            Err(Unanswered::Late)
        }
    }
}

impl Way {
    /// What a proof for this connection is bound to; empty without TLS.
    pub(super) fn binding(&self) -> &[u8] {
        self.binding.as_ref().map_or(&[], |binding| binding)
    }

    /// Sends one request, and waits for the head of its answer.
    pub(super) async fn ask<B>(
        self,
        shared: &Shared,
        request: Request<B>,
        within: Duration,
    ) -> Result<Response<Incoming>, Unanswered>
    where
        B: Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let io = TokioIo::new(self.stream);
        let handshake = http1::Builder::new().max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX).handshake(io);
        let (mut sender, connection) = handshake.await.map_err(|_| Unanswered::Broken)?;
        let drain = shared.drain.clone();
        shared.drain.spawn(async move {
            tokio::select! {
                _ = connection.with_upgrades() => {}
                () = drain.over() => {}
            }
        });
        match timeout(within, sender.send_request(request)).await {
            Ok(Ok(answer)) => {
                if answer.status() != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                    shared.dialled.told.store(false, Ordering::Relaxed);
                }
                Ok(answer)
            }
            // In TLS 1.3 a refused client certificate shows only here.
            Ok(Err(error)) => {
                let trouble = trouble(&error);
                let words = trouble.as_deref().unwrap_or_else(|| shared.dialled.broken(&error));
                shared.dialled.tell(shared.notify, words);
                Err(if trouble.is_some() { Unanswered::Tls } else { Unanswered::Broken })
            }
            Err(_) => Err(Unanswered::Late),
        }
    }
}

/// What a person must know of an error of TLS.
fn trouble(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(error) = inside.and_then(|inside| inside.downcast_ref::<rustls::Error>()) {
            return Some(in_words(error));
        }
        cause = error.source();
    }
    None
}

fn in_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is not from an authority that is trusted here (--ca FILE names one)".to_owned()
        }
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: a proxy without [tls] is at http://HOST:PORT, on this machine"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(error) => format!("its certificate is not accepted: {error}"),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a certificate of ours (--cert FILE --cert-key FILE)".to_owned()
        }
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError),
        ) => format!(
            "it does not accept our certificate ({alert:?}): its `client_ca` must have signed it, and it must be in date"
        ),
        error => format!("TLS failed: {error}"),
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
        assert_eq!("https://proxy:7080".parse::<Upstream>().expect("an address").to_string(), "https://proxy:7080");
        for text in ["", "unix:", "https://proxy", "http://proxy", "socks5://127.0.0.1:1080", "http://u:p@h:1"] {
            assert_eq!(text.parse::<Upstream>(), Err(ParseUpstreamError), "{text}");
        }
    }

    #[test]
    fn a_name_of_this_machine_leads_to_no_other() {
        let led =
            |name: &str, to: &str| is_as_named(&Target::parse(name).expect(name), to.parse().expect("an address"));
        for (name, to) in [
            ("proxy.localhost:7080", "127.0.0.1:7080"),
            ("localhost:7080", "[::1]:7080"),
            ("proxy.test:7080", "10.0.0.1:7080"),
            ("0.0.0.0:7080", "10.0.0.1:7080"),
        ] {
            assert!(led(name, to), "{name} to {to}");
        }
        for (name, to) in [("proxy.localhost:7080", "10.0.0.1:7080"), ("localhost:7080", "[fd00::1]:7080")] {
            assert!(!led(name, to), "{name} to {to}");
        }
    }

    #[test]
    fn knows_the_proxy_under_its_other_names() {
        let proxy = Dialled::new("127.0.0.1:7080".parse().expect("an address"), None, None).expect("no TLS");
        let target = |text| Target::parse(text).expect("a target");
        for text in ["127.0.0.1:7080", "localhost:7080", "127.9.9.9:7080", "[::1]:7080", "0.0.0.0:7080"] {
            assert!(proxy.is(&target(text)), "{text}");
        }
        for text in ["127.0.0.1:7081", "example.com:7080"] {
            assert!(!proxy.is(&target(text)), "{text}");
        }
    }
}
