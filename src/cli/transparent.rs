//! `capctl transparent`: the packet filter's rules that lead clients which know no proxy to a transparent listener.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, RootCertStore};
use serde_json::json;

use crate::config::{Config, Listen};
use crate::net::trust::{self, Offer};
use crate::store::Home;

use super::failure::{FAILED, Failure};
use super::output::{print, print_json, say};

/// Addresses for examples, where nobody is (RFC 5737, RFC 3849).
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOBODY_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// A name that is never given to anybody (RFC 6761 §6.4).
const NO_NAME: &str = "check.invalid";
/// A port that no ruleset of ours leads anywhere.
const OTHER_PORT: u16 = 8443;
/// What is there answers at once: it is on this machine.
const WITHIN: Duration = Duration::from_secs(1);
/// What a transparent listener says to a ClientHello that names nobody.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// Clients that know no proxy: the rules that lead them to a listener, and whether they do.
#[derive(Debug, clap::Subcommand)]
#[command(before_help = "Examples:\n  capctl transparent print --uid 27080 | nft -f -\n  capctl transparent check")]
pub(super) enum Verb {
    /// Prints a ruleset for nft: TCP ports lead to the listener, and nothing else goes out
    ///
    /// For a network namespace that the proxy shares with its agents alone, such as a pod's. The proxy is told apart by its
    /// user: one that no image has, so not 65532 (`nonroot`) or 1000. Nobody outside can connect, but to what --probe
    /// names: a connection carries data both ways. UDP is refused, so that clients of HTTP/3 fall back; DNS to the given
    /// servers is let through, and can carry data out, like any DNS.
    #[command(before_help = "Examples:\n  capctl transparent print --uid 27080 --dns 10.96.0.10 | nft -f -")]
    Print {
        /// The user that the proxy runs as; only it may go out
        #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(..i64::from(u32::MAX)))]
        uid: u32,
        /// The listener's port; else that of the home's transparent listeners
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        /// The TCP ports that lead to it
        #[arg(long, value_name = "PORT", value_delimiter = ',', default_values_t = [80, 443],
              value_parser = clap::value_parser!(u16).range(1..))]
        redirect: Vec<u16>,
        /// A DNS server that may be asked; may be repeated. Else those of /etc/resolv.conf
        #[arg(long, value_name = "ADDRESS", value_parser = server)]
        dns: Vec<IpAddr>,
        /// A TCP port that may be connected to from outside, such as for a probe; may be repeated. Else there is none
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        probe: Vec<u16>,
    },
    /// Tries, as any client would, whether the rules are in place; run it where the agent runs, as its user
    Check {
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

impl Verb {
    pub(super) fn run(self, home: Result<Home, Failure>) -> Result<ExitCode, Failure> {
        match self {
            Self::Print { uid, port, redirect, dns, probe } => {
                let port = port.map_or_else(|| configured_port(home), Ok)?;
                let dns = if dns.is_empty() { system_dns() } else { dns };
                let rules = Rules { uid, port, redirect: &redirect, dns: &dns, probe: &probe };
                print(rules.text().trim_end())?;
                say("next: capctl transparent print … | nft -f -, in the agent's network namespace");
                Ok(ExitCode::SUCCESS)
            }
            Self::Check { json } => check(json),
        }
    }
}

/// The port of the transparent listeners that the home's configuration has: of one, or of one for each family.
fn configured_port(home: Result<Home, Failure>) -> Result<u16, Failure> {
    let needed = |why: &dyn Display| {
        Failure::usage(why).hint("capctl transparent print --port 7090 --uid UID needs no home".to_owned())
    };
    let home = home.map_err(|failure| needed(&failure))?;
    home.check().map_err(|error| needed(&error))?;
    let config = Config::load(&home).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        needed(&format_args!("the configuration of {} cannot be read: {}", home.dir().display(), all.join("; ")))
    })?;
    let ports = config.listeners.iter().filter(|listener| listener.transparent).filter_map(|it| match it.listen {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    });
    let ports: BTreeSet<u16> = ports.collect();
    match (ports.first(), ports.len()) {
        (Some(&0), 1) => Err(needed(&"`listen` says port 0: which port the listener got is not known here")),
        (Some(&port), 1) => Ok(port),
        (None, _) => Err(needed(&"narrows.toml has no [[listener]] with `transparent = true`")),
        _ => Err(needed(&format_args!("narrows.toml has transparent listeners on several ports: {ports:?}"))),
    }
}

/// The address of a DNS server: of one machine.
fn server(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|error| format!("{error}"))?;
    let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || is_broadcast {
        return Err("it is no address of a server".to_owned());
    }
    Ok(address)
}

/// The servers of `/etc/resolv.conf`; those on loopback need no rule.
fn system_dns() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.filter(|server| !server.is_loopback()).collect()
}

/// On the connections of the proxy's user, in the kernel's table of them; only packets of the machine itself see it.
const MARK: u32 = 0x6e61_7277;

/// What a ruleset is made of.
struct Rules<'a> {
    /// Whom the proxy runs as.
    uid: u32,
    /// Where the listener is.
    port: u16,
    redirect: &'a [u16],
    dns: &'a [IpAddr],
    /// What may be connected to from outside.
    probe: &'a [u16],
}

impl Rules<'_> {
    /// One transaction that replaces what was there before.
    fn text(&self) -> String {
        let Self { uid, port, .. } = self;
        format!(
            "table inet narrows
delete table inet narrows
table inet narrows {{
	chain redirected {{
		type nat hook output priority -100; policy accept;
		# The proxy itself goes out; without this its own connections would come back to it.
		meta skuid {uid} accept
		oif \"lo\" accept
		tcp dport {{ {redirect} }} redirect to :{port}
	}}
	chain nothing_else {{
		type filter hook output priority 0; policy accept;
		meta skuid {uid} ct mark set {MARK:#x} accept
		# The last packets of a connection come when its socket, and so its user, is gone. None of them begins one.
		ct mark {MARK:#x} tcp flags & (syn | ack) != syn accept
		oif \"lo\" accept
		ct status dnat ip daddr 127.0.0.1 tcp dport {port} accept
		ct status dnat ip6 daddr ::1 tcp dport {port} accept
		# Answers to whoever may connect from outside.
		ct direction reply accept
		icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} accept
{servers}		# At once, so that clients of HTTP/3 fall back to what is led to the proxy.
		meta l4proto tcp reject with tcp reset
		reject
	}}
	chain from_outside {{
		type filter hook input priority 0; policy accept;
		iif \"lo\" accept
{probes}		# Whoever could connect to an agent would take away what it has to say.
		tcp flags & (syn | ack) == syn reject with tcp reset
		ct state established,related accept
		icmpv6 type {{ nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query }} accept
		drop
	}}
}}
",
            redirect = list(self.redirect),
            servers = self.servers(),
            probes = self.probes(),
        )
    }

    fn servers(&self) -> String {
        self.dns.iter().fold(String::new(), |mut lines, server| {
            let family = if server.is_ipv4() { "ip" } else { "ip6" };
            let _ = writeln!(lines, "\t\t{family} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept");
            lines
        })
    }

    fn probes(&self) -> String {
        if self.probe.is_empty() {
            return String::new();
        }
        format!("\t\ttcp dport {{ {} }} accept\n", list(self.probe))
    }
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What one try showed.
struct Tried {
    what: &'static str,
    problem: Option<String>,
}

fn check(as_json: bool) -> Result<ExitCode, Failure> {
    let four = |port| SocketAddr::new(NOBODY, port);
    let six = |port| SocketAddr::new(NOBODY_6, port);
    let tried = [
        Tried { what: "http", problem: plain(four(80)) },
        Tried { what: "https", problem: tls(four(443)) },
        Tried { what: "http/3", problem: udp(four(443)) },
        Tried { what: "other ports", problem: other(four(OTHER_PORT)) },
        Tried { what: "http over IPv6", problem: over_ipv6(plain, six(80)) },
        Tried { what: "https over IPv6", problem: over_ipv6(tls, six(443)) },
        Tried { what: "http/3 over IPv6", problem: over_ipv6(udp, six(443)) },
        Tried { what: "other ports over IPv6", problem: over_ipv6(other, six(OTHER_PORT)) },
    ];
    let in_place = tried.iter().all(|it| it.problem.is_none());
    if as_json {
        let all = tried.iter().map(|it| json!({ "check": it.what, "problem": it.problem }));
        print_json(&json!({ "in_place": in_place, "checks": all.collect::<Vec<_>>() }))?;
    } else {
        for Tried { what, problem } in &tried {
            let word = if problem.is_some() { "wrong" } else { "ok" };
            print(format_args!("{word:<6} {what:<22} {}", problem.as_deref().unwrap_or("cannot go around the proxy")))?;
        }
    }
    if in_place {
        say("the rules are in place for this user");
        return Ok(ExitCode::SUCCESS);
    }
    say("next: capctl transparent print --uid UID | nft -f -, and run this as the agent's user, not as the proxy's");
    Ok(ExitCode::from(FAILED))
}

/// A try over IPv6, where there is any: the system knows without asking anybody whether it has a way there.
fn over_ipv6(problem: fn(SocketAddr) -> Option<String>, to: SocketAddr) -> Option<String> {
    // Which sends nothing.
    let way = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| socket.connect(to));
    way.ok().and_then(|()| problem(to))
}

/// A connection, or `None` where it was refused.
fn connect(to: SocketAddr) -> Result<Option<TcpStream>, String> {
    match TcpStream::connect_timeout(&to, WITHIN) {
        Ok(stream) => {
            let set = stream.set_read_timeout(Some(WITHIN)).and_then(|()| stream.set_write_timeout(Some(WITHIN)));
            set.map_err(|error| error.to_string())?;
            Ok(Some(stream))
        }
        Err(error) if is_refusal(&error) => Ok(None),
        Err(error) => Err(format!("{to} is neither led to a listener nor refused: {error}")),
    }
}

/// What a ruleset says. That a host or network cannot be reached is what a router says, to a packet that has left.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, PermissionDenied};
    [ConnectionRefused, ConnectionReset, PermissionDenied].contains(&error.kind())
}

fn plain(to: SocketAddr) -> Option<String> {
    let mut stream = match connect(to) {
        Ok(Some(stream)) => stream,
        // A home may have no listener for IPv6.
        Ok(None) if to.is_ipv6() => return None,
        Ok(None) => return Some(format!("{to} is refused, not led to a listener")),
        Err(problem) => return Some(problem),
    };
    let mut answer = Vec::new();
    let asked = write!(stream, "GET / HTTP/1.1\r\nHost: {NO_NAME}\r\nConnection: close\r\n\r\n");
    let _ = asked.and_then(|()| stream.take(16 * 1024).read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    (!answer.contains("narrows-request-id:")).then(|| format!("somebody else answers at {to}"))
}

fn tls(to: SocketAddr) -> Option<String> {
    let mut stream = match connect(to) {
        Ok(Some(stream)) => stream,
        Ok(None) if to.is_ipv6() => return None,
        Ok(None) => return Some(format!("{to} is refused, not led to a listener")),
        Err(problem) => return Some(problem),
    };
    let mut alert = [0; UNRECOGNIZED_NAME.len()];
    let _ = client_hello().and_then(|hello| stream.write_all(&hello)).and_then(|()| stream.read_exact(&mut alert));
    (alert != UNRECOGNIZED_NAME).then(|| format!("somebody else answers at {to}"))
}

/// A ClientHello without a name.
fn client_hello() -> io::Result<Vec<u8>> {
    let config = trust::client_config(&Arc::new(RootCertStore::empty()), Offer::Http1).map_err(io::Error::other)?;
    let mut client = ClientConnection::new(config, ServerName::from(NOBODY)).map_err(io::Error::other)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

fn udp(to: SocketAddr) -> Option<String> {
    let own: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let asked = UdpSocket::bind((own, 0)).and_then(|socket| {
        socket.set_read_timeout(Some(WITHIN))?;
        socket.connect(to)?;
        socket.send(b"narrows")?;
        socket.recv(&mut [0; 1])
    });
    match asked {
        Err(error) if is_refusal(&error) => None,
        _ => Some(format!("UDP to {to} is not refused: a client of HTTP/3 goes around the proxy")),
    }
}

fn other(to: SocketAddr) -> Option<String> {
    match connect(to) {
        Ok(None) => None,
        Ok(Some(_)) => Some(format!("{to} is reached past the proxy")),
        Err(problem) => Some(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'_> =
        Rules { uid: 27080, port: 7090, redirect: &[80, 443], dns: &[NOBODY, NOBODY_6], probe: &[8080, 8081] };

    #[test]
    fn the_ruleset_names_the_user_the_ports_and_the_servers() {
        let text = RULES.text();
        for line in [
            "delete table inet narrows",
            "\t\tmeta skuid 27080 accept",
            "\t\tmeta skuid 27080 ct mark set 0x6e617277 accept",
            "\t\ttcp dport { 80, 443 } redirect to :7090",
            "\t\tct status dnat ip daddr 127.0.0.1 tcp dport 7090 accept",
            "\t\tct status dnat ip6 daddr ::1 tcp dport 7090 accept",
            "\t\tip daddr 192.0.2.1 meta l4proto { tcp, udp } th dport 53 accept",
            "\t\tip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 53 accept",
            "\t\ttcp dport { 8080, 8081 } accept",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let least = Rules { dns: &[], probe: &[], ..RULES }.text();
        assert!(!least.contains("dport 53") && !least.contains("808"), "{least}");
    }

    #[test]
    fn what_a_router_says_is_no_refusal_of_a_ruleset() {
        use io::ErrorKind;
        for refusal in [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::PermissionDenied] {
            assert!(is_refusal(&refusal.into()), "{refusal}");
        }
        for other in [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable, ErrorKind::TimedOut] {
            assert!(!is_refusal(&other.into()), "{other}");
        }
    }
}
