//! Names by the system's configuration (`resolv.conf`, `hosts`), which is read again when it has changed: another network
//! has other name servers.
//!
//! Deliberately absent: what an address may be dialled for (`dial`).

use std::fs::{self, File};
use std::io::BufReader;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Hosts, TokioResolver, system_conf};

/// When one family has been found, the other is waited for so long: there are name servers that never answer for IPv6.
/// RFC 8305 §3 has 50 ms; what is not waited for is neither checked nor dialled, and most answers are.
const OTHER_FAMILY_WITHIN: Duration = Duration::from_millis(500);
/// A name server is given so long, whatever `resolv.conf` says, and asked so often: the next has to get its turn within
/// what a dial may take.
const ANSWER_WITHIN_MAX: Duration = Duration::from_secs(3);
const ATTEMPTS_MAX: usize = 2;

/// Looks names up.
pub(super) struct Names {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    current: ArcSwap<Current>,
}

/// What was made of the files as they were.
struct Current {
    stamps: [Option<Stamp>; 2],
    /// One for each family: they are waited for apart.
    families: Option<Families>,
}

pub(super) struct Families {
    pub(super) four: TokioResolver,
    pub(super) six: TokioResolver,
}

/// What changes when a file does.
type Stamp = (u64, u64, u64, [i64; 4]);

/// The addresses of a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) four: Vec<IpAddr>,
    pub(super) six: Vec<IpAddr>,
}

impl Names {
    pub(super) fn of_system() -> Self {
        Self::of_files("/etc/resolv.conf".into(), "/etc/hosts".into())
    }

    fn of_files(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        let nothing = Current { stamps: [None; 2], families: None };
        let names = Self { resolv_conf, hosts, current: ArcSwap::from_pointee(nothing) };
        names.current.store(Arc::new(names.read(names.stamps())));
        names
    }

    /// Addresses of this name; both lists are empty where the configuration or its name servers know none.
    ///
    /// # Errors
    /// The library's, where neither family was found.
    pub(super) async fn look_up(&self, name: &str) -> Result<Found, NetError> {
        let current = self.current();
        let Some(Families { four, six }) = &current.families else { return Ok(Found::default()) };
        let (mut four, mut six) = (pin!(four.lookup_ip(name)), pin!(six.lookup_ip(name)));
        let (four, six) = tokio::select! {
            four = &mut four => {
                let patience = patience(&four);
                (Some(four), tokio::time::timeout(patience, six).await.ok())
            }
            six = &mut six => {
                let patience = patience(&six);
                (tokio::time::timeout(patience, four).await.ok(), Some(six))
            }
        };
        let listed = |found: &Option<Result<LookupIp, NetError>>| match found {
            Some(Ok(found)) => found.iter().collect(),
            Some(Err(_)) | None => Vec::new(),
        };
        let found = Found { four: listed(&four), six: listed(&six) };
        match (found == Found::default(), four, six) {
            (true, Some(Err(error)), _) | (true, _, Some(Err(error))) => Err(error),
            _ => Ok(found),
        }
    }

    fn current(&self) -> Arc<Current> {
        let stamps = self.stamps();
        let current = self.current.load_full();
        if stamps == current.stamps {
            return current;
        }
        let read = Arc::new(self.read(stamps));
        self.current.store(Arc::clone(&read));
        read
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.resolv_conf, &self.hosts].map(|path| {
            let found = fs::metadata(path).ok()?;
            let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
            Some((found.dev(), found.ino(), found.len(), times))
        })
    }

    fn read(&self, stamps: [Option<Stamp>; 2]) -> Current {
        let text = fs::read(&self.resolv_conf).ok();
        let parsed = text.and_then(|text| system_conf::parse_resolv_conf(text).ok());
        // Without it, addresses and the hosts file still work.
        let nothing = || (ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default());
        let (config, options) = parsed.unwrap_or_else(nothing);
        let mut hosts = Hosts::default();
        if let Ok(file) = File::open(&self.hosts) {
            // What stands before a line that is no text has been read.
            let _ = hosts.read_hosts_conf(BufReader::new(file));
        }
        Current { stamps, families: Families::new(&config, &options, &Arc::new(hosts)) }
    }
}

fn patience(first: &Result<LookupIp, NetError>) -> Duration {
    if first.is_ok() { OTHER_FAMILY_WITHIN } else { Duration::MAX }
}

impl Families {
    fn new(config: &ResolverConfig, options: &ResolverOpts, hosts: &Arc<Hosts>) -> Option<Self> {
        let of = |strategy| {
            let mut builder = TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
            let mut options = options.clone();
            options.timeout = options.timeout.min(ANSWER_WITHIN_MAX);
            options.attempts = options.attempts.min(ATTEMPTS_MAX);
            options.ip_strategy = strategy;
            *builder.options_mut() = options;
            let mut resolver = builder.build().ok()?;
            resolver.set_hosts(Arc::clone(hosts));
            Some(resolver)
        };
        Some(Self { four: of(LookupIpStrategy::Ipv4Only)?, six: of(LookupIpStrategy::Ipv6Only)? })
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    impl Names {
        /// Names that one server knows, at this port of loopback.
        pub(in crate::net) fn of_server(port: u16) -> Self {
            use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
            let mut udp = ConnectionConfig::udp();
            udp.port = port;
            let server = NameServerConfig::new("127.0.0.1".parse().expect("an address"), true, vec![udp]);
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let families = Families::new(&config, &ResolverOpts::default(), &Arc::default());
            let nowhere = PathBuf::from("/dev/null/none");
            let current = ArcSwap::from_pointee(Current { stamps: [None; 2], families });
            Self { resolv_conf: nowhere.clone(), hosts: nowhere, current }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_changes_in_the_files_is_known_at_the_next_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let [resolv_conf, hosts] = ["resolv.conf", "hosts"].map(|name| folder.path().join(name));
        fs::write(&hosts, "192.0.2.1 one.test\n").expect("written");
        let names = Names::of_files(resolv_conf.clone(), hosts.clone());
        let found = async |name: &str| names.look_up(name).await.unwrap_or_default().four;
        assert_eq!(found("one.test").await, ["192.0.2.1".parse::<IpAddr>().expect("an address")]);
        assert_eq!(found("two.test").await, [] as [IpAddr; 0]);
        let before = names.current();
        assert!(Arc::ptr_eq(&before, &names.current()), "what has not changed is not read");
        fs::write(&hosts, "192.0.2.1 one.test\n192.0.2.2 two.test\n").expect("written");
        assert_eq!(found("two.test").await, ["192.0.2.2".parse::<IpAddr>().expect("an address")]);
        let before = names.current();
        fs::write(&resolv_conf, "nameserver 192.0.2.53\noptions timeout:30 attempts:9\n").expect("written");
        let now = names.current();
        assert!(!Arc::ptr_eq(&before, &now));
        let options = now.families.as_ref().expect("a resolver").four.options();
        assert_eq!((options.timeout, options.attempts), (ANSWER_WITHIN_MAX, ATTEMPTS_MAX));
    }
}
