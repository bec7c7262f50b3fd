//! Dialling upstream: resolve, check every address, connect to a checked one, verify its certificate.
#![expect(clippy::disallowed_types, reason = "not on the path of a request: once for each connection")]

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ipnet::IpNet;
use nix::errno::Errno;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address;
use super::listener::Peer;
use super::pace::ByTurns;
use super::resolve::{Found, Names};
use crate::request::{Host, Target};

/// At most this many of a name's addresses are tried.
const ADDRESSES_MAX: usize = 8;
/// The next address is tried when the one before has not answered for this long (RFC 8305 §5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// A connection that is redirected to a listener of ours has been accepted, and has spoken, long before this.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);

/// Why an upstream could not be reached. The peer learns only the public code of the variant.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name stands for an address that no public name may stand for, or for this proxy.
    #[error("the name resolves to an address that is not allowed")]
    AddressForbidden,
    /// The name does not resolve.
    #[error("the name does not resolve")]
    Unresolved,
    /// No address accepted the connection.
    #[error("no address of the upstream accepts connections")]
    Refused(#[source] io::Error),
    /// This process or machine has no descriptor or memory left: it is not the upstream's fault.
    #[error("there is no descriptor or memory left for a connection")]
    Exhausted(#[source] io::Error),
    /// The whole took longer than allowed.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The TLS handshake failed, the certificate among the reasons.
    #[error("the TLS handshake with the upstream failed")]
    Tls(#[source] io::Error),
}

/// What the configuration says about dialling.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct DialRules {
    /// Dial there instead, for that target only; needs no listing in `allow_addresses`.
    pub connect_to: HashMap<Target, Target>,
    /// Private ranges that may be dialled, for hosts that a service names exactly.
    pub allow_addresses: Vec<IpNet>,
}

/// Both ends of a connection that was dialled. Neither alone tells it from others: the system gives one local port to
/// several connections, of several users, as long as they lead to different places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Dialled {
    from: SocketAddr,
    to: SocketAddr,
}

impl Dialled {
    fn new(from: SocketAddr, to: SocketAddr) -> Self {
        Self { from: unmapped_socket(from), to: unmapped_socket(to) }
    }
}

/// Resolves and connects.
pub struct Dialer {
    names: Names,
    /// The listeners of this process: never dialled, by any name.
    own: Vec<SocketAddr>,
    /// Connections that were dialled lately; only where one may be redirected to a listener of ours.
    dialled: Option<DashMap<Dialled, Instant>>,
    timeout: Duration,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("own", &self.own).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Dialer {
    /// A dialler with the system's resolver configuration (`hosts`, `resolv.conf`). `own` are this process's
    /// listeners; `timeout` bounds resolving, connecting and TLS together.
    #[must_use]
    pub fn new(own: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { names: Names::of_system(), own, dialled: None, timeout }
    }

    /// Remembers for a while which connections were dialled, so that [`Dialer::has_dialled`] knows one that comes back.
    #[must_use]
    pub fn remembering(self) -> Self {
        Self { dialled: Some(DashMap::new()), ..self }
    }

    /// Whether an accepted connection is one of this dialler's own, redirected: it comes from `peer`, and was going to
    /// `original`.
    #[must_use]
    pub fn has_dialled(&self, peer: Peer, original: SocketAddr) -> bool {
        let (Some(dialled), Peer::Tcp(from)) = (&self.dialled, peer) else { return false };
        dialled.contains_key(&Dialled::new(from, original))
    }

    /// Forgets connections that would have come back long ago.
    pub fn sweep(&self, now: Instant) {
        if let Some(dialled) = &self.dialled {
            dialled.retain(|_, since| now.saturating_duration_since(*since) < REMEMBERED_FOR);
        }
    }

    /// Connects to `target`. `named` says that a service names the host exactly, which is what a
    /// private address in `allow_addresses` needs. `TCP_NODELAY` is set.
    ///
    /// # Errors
    /// [`DialError`], never [`DialError::Tls`].
    pub async fn tcp(&self, rules: &DialRules, target: &Target, named: bool) -> Result<TcpStream, DialError> {
        tokio::time::timeout(self.timeout, self.connect(rules, target, named)).await.map_err(|_| DialError::Timeout)?
    }

    /// Connects to `target` and verifies that it is `target`'s host, whatever address was dialled.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn tls(
        &self,
        rules: &DialRules,
        target: &Target,
        named: bool,
        config: &Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let name = server_name(&target.host)?;
        let connecting = async { verified(self.connect(rules, target, named).await?, name, config).await };
        tokio::time::timeout(self.timeout, connecting).await.map_err(|_| DialError::Timeout)?
    }

    /// Connects to what the operator named, wherever that is; nobody else has a say in it. Not bounded in time.
    ///
    /// # Errors
    /// [`DialError`]: [`DialError::AddressForbidden`] where it leads to a listener of ours.
    pub async fn operators(&self, target: &Target) -> Result<TcpStream, DialError> {
        self.reach(&self.addresses(target).await?).await
    }

    /// The same over TLS, verified as [`Dialer::tls`] verifies.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn operators_tls(
        &self,
        target: &Target,
        config: &Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let name = server_name(&target.host)?;
        verified(self.operators(target).await?, name, config).await
    }

    async fn connect(&self, rules: &DialRules, target: &Target, named: bool) -> Result<TcpStream, DialError> {
        let addresses = if let Some(instead) = rules.connect_to.get(target) {
            self.addresses(instead).await?
        } else {
            let addresses = self.addresses(target).await?;
            let allowed = |ip: IpAddr| named && rules.allow_addresses.iter().any(|net| net.contains(&ip));
            // One internal answer among public ones is how a name is rebound: none of them counts.
            if addresses.iter().any(|to| !address::is_public(to.ip()) && !allowed(address::unmapped(to.ip()))) {
                return Err(DialError::AddressForbidden);
            }
            addresses
        };
        self.reach(&addresses).await
    }

    /// Connects to one of these, unless it is this process.
    async fn reach(&self, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
        if addresses.iter().any(|to| self.own.iter().any(|own| same_listener(*own, *to))) {
            return Err(DialError::AddressForbidden);
        }
        let stream = first_to_answer(addresses).await?;
        if self.is_own(&stream) {
            return Err(DialError::AddressForbidden);
        }
        if let (Some(dialled), Ok(from), Ok(to)) = (&self.dialled, stream.local_addr(), stream.peer_addr()) {
            dialled.insert(Dialled::new(from, to), Instant::now());
        }
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, DialError> {
        if let Some(ip) = target.host.address() {
            return Ok(vec![SocketAddr::new(ip, target.port)]);
        }
        let Found { four, six } = self.names.look_up(target.host.as_str()).await.map_err(|error| unresolved(&error))?;
        // Every answer is checked, so the list is cut only after the caller has seen all of it.
        Ok(interleave(six, four).into_iter().map(|ip| SocketAddr::new(ip, target.port)).collect())
    }

    /// Where the connection leads in truth: an unspecified address leads to this machine, and a listener on all addresses
    /// is reached by any of the machine's.
    fn is_own(&self, stream: &TcpStream) -> bool {
        let Ok(peer) = stream.peer_addr() else { return true };
        let any = |own: &SocketAddr| own.ip().is_unspecified() && own.port() == peer.port() && is_here(peer.ip());
        self.own.iter().any(|own| same_listener(*own, peer) || any(own))
    }
}

async fn verified(
    stream: TcpStream,
    name: ServerName<'static>,
    config: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, DialError> {
    ByTurns::new(TlsConnector::from(Arc::clone(config)).connect(name, stream)).await.map_err(DialError::Tls)
}

/// True for an address of this machine: only such a one can be bound. The connection's other end does not tell, which
/// is `127.0.0.1` when `127.0.0.2` was dialled.
fn is_here(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok() || std::net::UdpSocket::bind((address::unmapped(ip), 0)).is_ok()
}

fn unmapped_socket(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address::unmapped(address.ip()), address.port())
}

fn same_listener(own: SocketAddr, to: SocketAddr) -> bool {
    own.port() == to.port() && address::unmapped(own.ip()) == address::unmapped(to.ip())
}

/// IPv6 first, then one of each family by turns (RFC 8305 §4).
fn interleave(six: Vec<IpAddr>, four: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut addresses = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let (next_six, next_four) = (six.next(), four.next());
        if next_six.is_none() && next_four.is_none() {
            return addresses;
        }
        addresses.extend(next_six.into_iter().chain(next_four));
    }
}

/// Connects to the addresses in order, each a little after the one before; the first to answer wins.
async fn first_to_answer(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut waiting = addresses.iter().take(ADDRESSES_MAX).copied();
    let mut trying = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        if let Some(next) = waiting.next() {
            trying.push(TcpStream::connect(next));
        } else if trying.is_empty() {
            return Err(last_error.map_or(DialError::Unresolved, refused));
        }
        let patience = if waiting.len() == 0 { Duration::MAX } else { NEXT_ADDRESS_AFTER };
        match tokio::time::timeout(patience, trying.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => last_error = Some(error),
            Ok(None) | Err(_) => {}
        }
    }
}

fn refused(error: io::Error) -> DialError {
    if is_exhausted(&error) { DialError::Exhausted(error) } else { DialError::Refused(error) }
}

/// True when it is this side that has no more of what a connection needs.
fn is_exhausted(error: &io::Error) -> bool {
    let ours = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|code| ours.contains(&Errno::from_raw(code)))
}

/// What a failed resolution says: it asks over sockets of its own.
fn unresolved(error: &(dyn std::error::Error + 'static)) -> DialError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && is_exhausted(io)
        {
            return DialError::Exhausted(io.raw_os_error().map_or(io.kind().into(), io::Error::from_raw_os_error));
        }
        cause = error.source();
    }
    DialError::Unresolved
}

fn server_name(host: &Host) -> Result<ServerName<'static>, DialError> {
    let name = host.address().map_or_else(|| ServerName::try_from(host.as_str().to_owned()).ok(), |ip| Some(ip.into()));
    name.ok_or(DialError::Unresolved)
}

#[cfg(test)]
mod tests;
