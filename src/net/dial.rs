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
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(DialError::Tls)
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
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    fn target(text: &str) -> Target {
        Target::parse(text).expect("a target")
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    fn dialer(own: Vec<SocketAddr>) -> Dialer {
        Dialer::new(own, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn loopback_is_refused_unless_listed_and_named() {
        let (_listener, address) = listener().await;
        let to = target(&address.to_string());
        let listed = DialRules { allow_addresses: vec!["127.0.0.0/8".parse().expect("a net")], ..DialRules::default() };
        let dialer = dialer(Vec::new());
        assert!(matches!(dialer.tcp(&DialRules::default(), &to, true).await, Err(DialError::AddressForbidden)));
        assert!(matches!(dialer.tcp(&listed, &to, false).await, Err(DialError::AddressForbidden)));
        assert!(dialer.tcp(&listed, &to, true).await.is_ok());
    }

    #[tokio::test]
    async fn connect_to_needs_no_listing_and_holds_for_its_own_name_only() {
        let (_listener, address) = listener().await;
        let instead = target(&address.to_string());
        let connect_to = HashMap::from([(target("api.test:443"), instead)]);
        let rules = DialRules { connect_to, ..DialRules::default() };
        let dialer = dialer(Vec::new());
        assert!(dialer.tcp(&rules, &target("api.test:443"), false).await.is_ok());
        assert!(dialer.tcp(&rules, &target("api.test:444"), false).await.is_err());
        assert!(dialer.tcp(&rules, &target("127.0.0.1:443"), false).await.is_err());
    }

    #[tokio::test]
    async fn our_own_listener_is_never_dialled() {
        let (listener, address) = listener().await;
        let rules = DialRules {
            connect_to: HashMap::from([(target("api.test:443"), target(&address.to_string()))]),
            allow_addresses: vec!["127.0.0.0/8".parse().expect("a net"), "0.0.0.0/8".parse().expect("a net")],
        };
        for own in [address, SocketAddr::new("0.0.0.0".parse().expect("any"), address.port())] {
            let dialer = dialer(vec![own]);
            for to in [
                "api.test:443".to_owned(),
                address.to_string(),
                format!("[::ffff:127.0.0.1]:{}", address.port()),
                format!("0.0.0.0:{}", address.port()),
            ] {
                assert!(
                    matches!(dialer.tcp(&rules, &target(&to), true).await, Err(DialError::AddressForbidden)),
                    "{to}"
                );
            }
        }
        drop(listener);
    }

    /// A name server on loopback that answers the n-th question of a kind for a name with the n-th list of its row, the
    /// last one for good, and keeps count of all questions.
    async fn name_server(rows: Vec<(&'static str, Vec<Vec<IpAddr>>)>) -> (Names, Arc<AtomicUsize>) {
        name_server_that(rows, |_| true).await
    }

    /// The same, of which the questions about a kind are answered that `answers` says.
    async fn name_server_that(
        rows: Vec<(&'static str, Vec<Vec<IpAddr>>)>,
        answers: fn(u8) -> bool,
    ) -> (Names, Arc<AtomicUsize>) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut turns = HashMap::new();
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                count.fetch_add(1, Ordering::SeqCst);
                let (kind, answer) = answer_to(&question[..length], &rows, &mut turns);
                if answers(kind) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        (Names::of_server(port), asked)
    }

    /// RFC 1035 §4.1: the question comes back, and after it a record with a TTL of 0 for each address of its kind.
    fn answer_to(
        question: &[u8],
        rows: &[(&'static str, Vec<Vec<IpAddr>>)],
        turns: &mut HashMap<(String, u8), usize>,
    ) -> (u8, Vec<u8>) {
        let (mut at, mut labels) = (12, Vec::new());
        while question[at] != 0 {
            let length = usize::from(question[at]);
            labels.push(String::from_utf8_lossy(&question[at + 1..=at + length]).into_owned());
            at += length + 1;
        }
        let (name, kind) = (labels.join("."), question[at + 2]);
        let lists = rows.iter().find(|(row, _)| *row == name).map(|(_, lists)| lists.as_slice()).unwrap_or_default();
        let turn = turns.entry((name, kind)).or_default();
        let list = lists.get((*turn).min(lists.len().saturating_sub(1))).cloned().unwrap_or_default();
        *turn += 1;
        let data = |ip: &IpAddr| match (ip, kind) {
            (IpAddr::V4(four), 1) => Some(four.octets().to_vec()),
            (IpAddr::V6(six), 28) => Some(six.octets().to_vec()),
            _ => None,
        };
        let records: Vec<Vec<u8>> = list.iter().filter_map(data).collect();
        let mut answer =
            [&question[..2], &[0x81, 0x80, 0, 1, 0], &[u8::try_from(records.len()).expect("few")]].concat();
        answer.extend([0; 4]);
        answer.extend(&question[12..at + 5]);
        for data in records {
            answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, u8::try_from(data.len()).expect("short")]);
            answer.extend(data);
        }
        (kind, answer)
    }

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().expect("an address")).collect()
    }

    #[tokio::test]
    async fn a_name_with_one_answer_of_the_inside_is_dialled_nowhere() {
        let inside = [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "2001:0:7f00:1::",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for ip in inside {
            for list in [vec![ip], vec!["1.1.1.1", ip], vec![ip, "2606:4700::1111"]] {
                let (names, _) = name_server(vec![("api.test", vec![addresses(&list)])]).await;
                let dialer = Dialer { names, ..dialer(Vec::new()) };
                let dialled = dialer.tcp(&DialRules::default(), &target("api.test:443"), true).await;
                assert!(matches!(dialled, Err(DialError::AddressForbidden)), "{list:?}: {dialled:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_name_that_changes_its_answer_is_checked_at_every_attempt() {
        let (listener, address) = listener().await;
        // Public, then inside: what was found good before counts for nothing.
        let allow_addresses = vec!["127.0.0.2/32".parse().expect("a net")];
        let rules = DialRules { allow_addresses, ..DialRules::default() };
        let rows = vec![("api.test", vec![addresses(&["127.0.0.2"]), addresses(&["127.0.0.1"])])];
        let (names, asked) = name_server(rows).await;
        let dialer = Dialer { names, ..dialer(Vec::new()) };
        let to = target(&format!("api.test:{}", address.port()));
        let first = dialer.tcp(&rules, &to, true).await;
        assert!(matches!(first, Err(DialError::Refused(_))), "nobody listens at 127.0.0.2: {first:?}");
        let second = dialer.tcp(&rules, &to, true).await;
        assert!(matches!(second, Err(DialError::AddressForbidden)), "{second:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 4, "two kinds, twice");
        drop(listener);
    }

    #[tokio::test]
    async fn a_family_that_nobody_answers_for_holds_up_no_other() {
        const A: u8 = 1;
        let (listener, address) = listener().await;
        let (names, _) = name_server_that(vec![("api.test", vec![addresses(&["127.0.0.1"])])], |kind| kind == A).await;
        let dialer = Dialer { names, ..dialer(Vec::new()) };
        let allow_addresses = vec!["127.0.0.1/32".parse().expect("a net")];
        let rules = DialRules { allow_addresses, ..DialRules::default() };
        let to = target(&format!("api.test:{}", address.port()));
        dialer.tcp(&rules, &to, true).await.expect("a connection within the dial's time");
        drop(listener);
    }

    #[tokio::test]
    async fn an_address_is_asked_of_nobody() {
        let (names, asked) = name_server(Vec::new()).await;
        let dialer = Dialer { names, ..dialer(Vec::new()) };
        for to in ["127.0.0.1:443", "[::1]:443", "10.0.0.1:443"] {
            assert!(dialer.tcp(&DialRules::default(), &target(to), true).await.is_err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_listener_on_all_addresses_is_our_own_by_every_one_of_them() {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let own = listener.local_addr().expect("an address");
        let connect_to = |to: &str| HashMap::from([(target("api.test:443"), target(&format!("{to}:{}", own.port())))]);
        for to in ["127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "[::ffff:127.0.0.3]"] {
            let rules = DialRules { connect_to: connect_to(to), ..DialRules::default() };
            let dialled = dialer(vec![own]).tcp(&rules, &target("api.test:443"), true).await;
            assert!(matches!(dialled, Err(DialError::AddressForbidden)), "{to}: {dialled:?}");
            // The twin: somebody else's listener.
            let other = SocketAddr::new(own.ip(), own.port() ^ 1);
            assert!(dialer(vec![other]).tcp(&rules, &target("api.test:443"), true).await.is_ok(), "{to}");
        }
    }

    #[tokio::test]
    async fn a_connection_is_known_by_both_its_ends() {
        let (listener, address) = listener().await;
        let rules = DialRules {
            connect_to: HashMap::from([(target("api.test:443"), target(&address.to_string()))]),
            ..DialRules::default()
        };
        let dialer = dialer(Vec::new()).remembering();
        let dialled = dialer.tcp(&rules, &target("api.test:443"), true).await.expect("a connection");
        let from = dialled.local_addr().expect("an address");
        assert!(dialer.has_dialled(Peer::Tcp(from), address));
        // Another process may have the same port at the same time, for a connection to somewhere else.
        for elsewhere in
            [SocketAddr::new(address.ip(), address.port() ^ 1), SocketAddr::from(([192, 0, 2, 1], address.port()))]
        {
            assert!(!dialer.has_dialled(Peer::Tcp(from), elsewhere), "{elsewhere}");
        }
        assert!(!dialer.has_dialled(Peer::Tcp(SocketAddr::new(from.ip(), from.port() ^ 1)), address));
        dialer.sweep(Instant::now() + REMEMBERED_FOR);
        assert!(!dialer.has_dialled(Peer::Tcp(from), address));
        drop(listener);
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_and_the_next_address_is_tried() {
        let (listener, open) = listener().await;
        let closed = {
            let (gone, address) = self::listener().await;
            drop(gone);
            address
        };
        assert!(matches!(first_to_answer(&[closed]).await, Err(DialError::Refused(_))));
        assert!(first_to_answer(&[closed, open]).await.is_ok());
        assert!(matches!(first_to_answer(&[]).await, Err(DialError::Unresolved)));
        drop(listener);
    }

    #[test]
    fn families_take_turns() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let mixed = interleave(vec![ip("::1"), ip("::2"), ip("::3")], vec![ip("1.1.1.1")]);
        assert_eq!(mixed, [ip("::1"), ip("1.1.1.1"), ip("::2"), ip("::3")]);
    }
}
