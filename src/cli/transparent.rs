//! `capctl transparent`: the packet filter's rules that lead clients which know no proxy to a transparent listener.

use std::fmt::Write as _;
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
#[command(before_help = "Examples:\n  capctl transparent print --uid 65532 | nft -f -\n  capctl transparent check")]
pub(super) enum Verb {
    /// Prints a ruleset for nft: TCP ports lead to the listener, and nothing else goes out
    ///
    /// For a network namespace that the proxy shares with its agents alone, such as a pod's. The proxy is told apart by
    /// its user. UDP is refused, so that clients of HTTP/3 fall back; DNS to the given servers is let through, and can
    /// carry data out, like any DNS.
    #[command(before_help = "Examples:\n  capctl transparent print --uid 65532 --dns 10.96.0.10 | nft -f -")]
    Print {
        /// The user that the proxy runs as; only it may go out
        #[arg(long, value_name = "UID")]
        uid: u32,
        /// The listener's port; else that of the home's transparent listener
        #[arg(long, value_name = "PORT")]
        port: Option<u16>,
        /// The TCP ports that lead to it
        #[arg(long, value_name = "PORT", value_delimiter = ',', default_values_t = [80, 443])]
        redirect: Vec<u16>,
        /// A DNS server that may be asked; may be repeated. Else those of /etc/resolv.conf
        #[arg(long, value_name = "ADDRESS")]
        dns: Vec<IpAddr>,
    },
    /// Tries, as any client would, whether the rules are in place; run it where the agent runs, as its user
    Check {
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

impl Verb {
    pub(super) fn run(self, home: Option<&Home>) -> Result<ExitCode, Failure> {
        match self {
            Self::Print { uid, port, redirect, dns } => {
                let port = port.map_or_else(|| configured_port(home), Ok)?;
                let dns = if dns.is_empty() { system_dns() } else { dns };
                print(ruleset(uid, port, &redirect, &dns).trim_end())?;
                say("next: capctl transparent print … | nft -f -, in the agent's network namespace");
                Ok(ExitCode::SUCCESS)
            }
            Self::Check { json } => check(json),
        }
    }
}

/// The port of the one transparent listener that the home's configuration has.
fn configured_port(home: Option<&Home>) -> Result<u16, Failure> {
    let needed = |why: &str| Failure::usage(why).hint("capctl transparent print --port 7090 --uid UID".to_owned());
    let config =
        home.and_then(|home| Config::load(home).ok()).ok_or_else(|| needed("--port is needed without a home"))?;
    let mut ports = config.listeners.iter().filter(|listener| listener.transparent).filter_map(|it| match it.listen {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    });
    match (ports.next(), ports.next()) {
        (Some(port), None) if port != 0 => Ok(port),
        (None, _) => Err(needed("narrows.toml has no [[listener]] with `transparent = true`")),
        _ => Err(needed("narrows.toml does not say which port: give --port")),
    }
}

/// The servers of `/etc/resolv.conf`; those on loopback need no rule.
fn system_dns() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.filter(|server| !server.is_loopback()).collect()
}

/// One transaction that replaces what was there before.
fn ruleset(uid: u32, port: u16, redirect: &[u16], dns: &[IpAddr]) -> String {
    let ports: Vec<String> = redirect.iter().map(ToString::to_string).collect();
    let mut servers = String::new();
    for server in dns {
        let family = if server.is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(servers, "\t\t{family} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept");
    }
    format!(
        "table inet narrows
delete table inet narrows
table inet narrows {{
	chain redirected {{
		type nat hook output priority -100; policy accept;
		# The proxy itself goes out; without this its own connections would come back to it.
		meta skuid {uid} accept
		oif \"lo\" accept
		tcp dport {{ {ports} }} redirect to :{port}
	}}
	chain nothing_else {{
		type filter hook output priority 0; policy accept;
		meta skuid {uid} accept
		oif \"lo\" accept
		ct status dnat accept
		# Answers to whoever connects from outside, such as a probe.
		ct direction reply accept
		icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} accept
{servers}		# At once, so that clients of HTTP/3 fall back to what is led to the proxy.
		meta l4proto tcp reject with tcp reset
		reject
	}}
}}
",
        ports = ports.join(", ")
    )
}

/// What one try showed.
struct Tried {
    what: &'static str,
    problem: Option<String>,
}

fn check(as_json: bool) -> Result<ExitCode, Failure> {
    let tried = [
        Tried { what: "http", problem: plain(SocketAddr::new(NOBODY, 80)) },
        Tried { what: "https", problem: tls(SocketAddr::new(NOBODY, 443)) },
        Tried { what: "https over IPv6", problem: tls(SocketAddr::new(NOBODY_6, 443)) },
        Tried { what: "http/3", problem: udp(SocketAddr::new(NOBODY, 443)) },
        Tried { what: "other ports", problem: other(SocketAddr::new(NOBODY, OTHER_PORT)) },
    ];
    let in_place = tried.iter().all(|it| it.problem.is_none());
    if as_json {
        let all = tried.iter().map(|it| json!({ "check": it.what, "problem": it.problem }));
        print_json(&json!({ "in_place": in_place, "checks": all.collect::<Vec<_>>() }))?;
    } else {
        for Tried { what, problem } in &tried {
            let word = if problem.is_some() { "wrong" } else { "ok" };
            print(format_args!("{word:<6} {what:<16} {}", problem.as_deref().unwrap_or("cannot go around the proxy")))?;
        }
    }
    if in_place {
        say("the rules are in place for this user");
        return Ok(ExitCode::SUCCESS);
    }
    say("next: capctl transparent print --uid UID | nft -f -, and run this as the agent's user, not as the proxy's");
    Ok(ExitCode::from(FAILED))
}

/// A connection that leads nowhere, or was refused, is no way out.
fn connect(to: SocketAddr) -> Result<Option<TcpStream>, String> {
    match TcpStream::connect_timeout(&to, WITHIN) {
        Ok(stream) => {
            let set = stream.set_read_timeout(Some(WITHIN)).and_then(|()| stream.set_write_timeout(Some(WITHIN)));
            set.map_err(|error| error.to_string())?;
            Ok(Some(stream))
        }
        Err(error) if leads_nowhere(&error) => Ok(None),
        Err(error) => Err(format!("{to} is neither led to a listener nor refused: {error}")),
    }
}

fn leads_nowhere(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    let kinds = [AddrNotAvailable, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable];
    kinds.contains(&error.kind())
}

fn plain(to: SocketAddr) -> Option<String> {
    let mut stream = match connect(to) {
        Ok(Some(stream)) => stream,
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
    let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.set_read_timeout(Some(WITHIN))?;
        socket.connect(to)?;
        socket.send(b"narrows")?;
        socket.recv(&mut [0; 1])
    });
    match asked {
        Err(error) if leads_nowhere(&error) || error.kind() == io::ErrorKind::PermissionDenied => None,
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

    #[test]
    fn the_ruleset_names_the_user_the_ports_and_the_servers() {
        let text = ruleset(65532, 7090, &[80, 443], &[NOBODY, NOBODY_6]);
        for line in [
            "delete table inet narrows",
            "\t\tmeta skuid 65532 accept",
            "\t\ttcp dport { 80, 443 } redirect to :7090",
            "\t\tip daddr 192.0.2.1 meta l4proto { tcp, udp } th dport 53 accept",
            "\t\tip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 53 accept",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!ruleset(1, 2, &[443], &[]).contains("dport 53"));
    }
}
