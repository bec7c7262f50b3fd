//! The configuration: `narrows.toml` and `services.d/`, read whole or refused whole.
//!
//! `docs/configuration.md` lists every key. Deliberately absent: secrets' values, and any effect: a
//! [`Config`] is a value that the proxy takes, now or at a reload.

mod change;
pub mod edit;
mod listeners;
mod log;
mod read;
mod services;
mod starter;
mod tls;
mod traces;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::audit::JournalOptions;
use crate::capability::PublicKey;
use crate::credential::SecretName;
use crate::request::Target;
use crate::service::{Catalogue, Router, catalogue};
use crate::store::{Home, private};

pub use crate::service::Problem;
pub use change::changes_needing_restart;
pub use listeners::Listener;
pub use log::{Log, LogFormat};
pub use starter::{starter, starter_of};
pub use tls::Tls;
pub use traces::{BadEndpoint, Endpoint, Traces};
pub use values::{BadDuration, BadSize, parse_duration, parse_size};

/// The configuration's name in problems.
pub(crate) const CONFIG_FILE: &str = "narrows.toml";
/// The audience of a home that says nothing else: good on loopback and Unix sockets only.
pub const AUDIENCE_DEFAULT: &str = "local";

/// A whole, consistent configuration. Paths are absolute.
#[derive(Debug)]
pub struct Config {
    /// Where clients connect that bring credentials; `None` is `"off"`.
    pub listen: Option<Listen>,
    /// Where clients connect for whom the proxy itself holds a capability.
    pub listeners: Vec<Listener>,
    /// What is shown on `listen`; `None` is clear text.
    pub tls: Option<Tls>,
    /// Health, metrics and console; `None` is `"off"`.
    pub admin: Option<Listen>,
    /// The name that proofs are made for.
    pub audience: Arc<str>,
    /// The operator accepts credentials over clear text on a TCP address that is not loopback.
    pub insecure: bool,
    /// Whose authority blocks count, by `rootKeyId`.
    pub roots: BTreeMap<u32, PublicKey>,
    /// How upstreams are reached and trusted.
    pub upstream: Upstream,
    /// Where the journal is kept.
    pub journal_dir: PathBuf,
    /// How the journal is kept.
    pub journal: JournalOptions,
    /// What is said on stderr, and how.
    pub log: Log,
    /// Who takes spans of requests; `None` is nobody, and always without the feature `otlp`.
    pub traces: Option<Traces>,
    /// Bounds and waits.
    pub limits: Limits,
    /// The services in use.
    pub services: Router,
    /// Every definition that `[[service]]` may name: built in, then those of `services.d/`.
    pub catalogue: Catalogue,
    /// The files that this came from, and folders whose files did: what a reload watches.
    pub files: Vec<PathBuf>,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// True for port 0, which is another port for each who asks.
    pub(crate) fn is_any_port(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.port() == 0)
    }

    /// Whether the system would not give out both. An unspecified address takes its port of every other, of IPv6's also
    /// IPv4's; port 0 is another port for each who asks.
    pub(crate) fn clashes_with(&self, other: &Self) -> bool {
        let (one, two) = match (self, other) {
            (Self::Unix(one), Self::Unix(two)) => return one == two,
            (Self::Tcp(one), Self::Tcp(two)) => (one, two),
            _ => return false,
        };
        if one.port() != two.port() || one.port() == 0 {
            return false;
        }
        let (one, two) = (one.ip(), two.ip());
        let takes = |one: IpAddr, two: IpAddr| one.is_unspecified() && (one.is_ipv6() || two.to_canonical().is_ipv4());
        let takes = |one: IpAddr, two: IpAddr| takes(one, two) || takes(one.to_canonical(), two);
        one.to_canonical() == two.to_canonical() || takes(one, two) || takes(two, one)
    }
}

/// The text is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address and port, \"127.0.0.1:7080\", or \"unix:PATH\"")]
pub struct ParseListenError;

impl FromStr for Listen {
    type Err = ParseListenError;

    /// `127.0.0.1:7080` or `unix:PATH`; a relative path is left as it is.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ParseListenError),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| ParseListenError),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[upstream]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    /// Whom to trust.
    pub roots: UpstreamRoots,
    /// PEM text of certificates that are trusted in addition: all `extra_ca` files, one after another.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// Dial there instead, for that name and port only.
    pub connect_to: HashMap<Target, Target>,
    /// Addresses that are not public and may be dialled, for hosts that a service names exactly.
    pub allow_addresses: Vec<IpNet>,
}

/// Where the trusted roots come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UpstreamRoots {
    /// The platform's store; the bundled ones where it is empty.
    #[default]
    System,
    /// Mozilla's, compiled in.
    Bundled,
    /// The certificates of this PEM text, and no others.
    Only(Vec<u8>),
}

/// `[limits]`: bounds and waits of the request path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once; one more is closed at once.
    pub connections_max: usize,
    /// Tunnels at once of the holders of one authority block; half of `connections_max` where it is not given.
    pub authority_tunnels_max: Option<usize>,
    /// Requests under way at once of the holders of one authority block; half of `journal.in_flight_max` where it is
    /// not given.
    pub authority_requests_max: Option<usize>,
    /// A connection on which nobody has authenticated is closed after this long.
    pub authenticate: Duration,
    /// A client that takes nothing of what waits for it for this long is cut off.
    pub unread: Duration,
    /// From the first byte of a request's head to its last.
    pub head_read: Duration,
    /// A client's connection may idle this long between requests.
    pub client_idle: Duration,
    /// From a tunnel's first byte to the end of its TLS handshake.
    pub handshake: Duration,
    /// Resolving, connecting and TLS towards the upstream, together.
    pub dial: Duration,
    /// A client's body may pause for this long.
    pub upload_idle: Duration,
    /// An upstream may think for this long before the head of its answer.
    pub answer_head: Duration,
    /// An answer's body may pause for this long.
    pub answer_idle: Duration,
    /// A WebSocket or a plain tunnel may be silent for this long.
    pub tunnel_idle: Duration,
    /// A tunnel's longest age.
    pub tunnel_age_max: Duration,
    /// How long requests may go on after a signal to stop.
    pub drain: Duration,
    /// The longest life of a presentation.
    pub presentation_ttl_max: Duration,
    /// Changes of holder in a chain, at most.
    pub hops_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = |n| Duration::from_mins(n);
        Self {
            connections_max: 4096,
            authority_tunnels_max: None,
            authority_requests_max: None,
            authenticate: Duration::from_secs(30),
            unread: minutes(5),
            head_read: Duration::from_secs(15),
            // Clients keep connections for a minute or two; closing first makes their next request fail.
            client_idle: minutes(3),
            handshake: Duration::from_secs(10),
            dial: Duration::from_secs(10),
            upload_idle: minutes(1),
            // Models think for minutes before the first byte.
            answer_head: minutes(10),
            answer_idle: minutes(10),
            tunnel_idle: minutes(10),
            tunnel_age_max: Duration::from_hours(12),
            drain: Duration::from_secs(30),
            presentation_ttl_max: Duration::from_hours(1),
            hops_max: 8,
        }
    }
}

impl Config {
    /// Reads the home's configuration.
    ///
    /// # Errors
    /// Every problem of every file, in the order of files and lines; never only the first.
    pub fn load(home: &Home) -> Result<Self, Vec<Problem>> {
        let text = match read_private(&home.config()) {
            Ok(text) => text,
            Err(problem) => return Err(vec![problem]),
        };
        Self::parse(&text, home)
    }

    /// The same for a text that is not in the file yet: what an edit would lead to. The other files
    /// are read from the home.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, home: &Home) -> Result<Self, Vec<Problem>> {
        read::read(text, home, catalogue().clone())
    }

    /// What is not wrong with the files, but will not work: no roots, credentials that no secret is
    /// stored for, `[[service.test]]` rows that do not hold.
    #[must_use]
    pub fn check(&self, stored: &[SecretName]) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.roots.is_empty() {
            problems.push(Problem {
                hint: Some("add the text of `root.pub` as `[roots] 1 = \"…\"`".into()),
                ..Problem::of_file(CONFIG_FILE, "no [roots]: no capability is valid")
            });
        }
        for service in self.services.services() {
            let missing = service.credential().filter(|name| !stored.contains(name));
            if let Some(name) = missing {
                let at = service.defined_at();
                let message = format!("service \"{}\": there is no secret \"{name}\"", service.name());
                let hint = Some(format!("type `capctl secret set {name}`"));
                problems.push(Problem { hint, ..Problem::of_file(&at, message) });
            }
            problems.extend(service.failed_tests());
        }
        problems
    }
}

/// Reads a file that only its owner may read or write.
fn read_private(path: &Path) -> Result<String, Problem> {
    let label = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    match private::read(path) {
        Ok(bytes) => String::from_utf8(bytes.to_vec()).map_err(|_| Problem::of_file(&label, "the file is not UTF-8")),
        Err(error) => Err(Problem { hint: error.hint(), ..Problem::of_file(&label, error.to_string()) }),
    }
}
