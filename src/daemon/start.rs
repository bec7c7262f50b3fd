//! Starting, and stopping in good order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::watch;

use super::load::{self, LoadError, load_snapshot_parts};
use super::log;
use super::passed::Passed;
use super::reload::{Failing, Reload, Spare, watched};
use crate::admin::{Admin, Standing};
use crate::audit::{Journal, JournalError, JournalOptions};
use crate::clock::UnixSeconds;
use crate::config::{self, Config, Listen};
use crate::net::dial::Dialer;
use crate::net::leaf::{LeafCache, LeafError};
use crate::net::listener::Listener;
use crate::net::trust::TrustError;
use crate::proxy::{self, Drain, Entrance, Limits, Live, Parts, Proxy, Snapshot};
use crate::store::ca::Ca;
use crate::store::revoked::Followed;
use crate::store::watch::Watcher;
use crate::store::{Home, StoreError, operator};
use crate::traces::{Traces, TracesError};

/// How long finished requests may take to reach the journal's file at the end.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// How often a runtime that serves is woken, whatever happens: less than the second for which a request sets a timer.
const TICK_EVERY: Duration = Duration::from_millis(500);

/// Descriptors that are for no client: listeners, the journal, files that are read again; of a small table a quarter.
const DESCRIPTORS_KEPT: u64 = 64;

/// Modes of a socket's file. Where users are named, they are told apart when they connect.
const OWNER_ONLY: u32 = 0o600;
const EVERYBODY: u32 = 0o666;

/// Where a daemon listens.
#[derive(Debug)]
pub enum Serve {
    /// On `listen` and `admin` of the configuration, and on the home's socket.
    Everything,
    /// The same, with listeners that were bound for this process before it ran.
    Passed(Passed),
    /// On the home's socket alone: a proxy that `capctl run` embeds.
    SocketOnly,
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The home's files.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The local CA.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The exporter of traces.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// An address is taken, or not ours to take.
    #[error("cannot listen on {at}")]
    Listen {
        /// As the configuration has it.
        at: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The service manager passed what the configuration does not ask for, or what is no listener.
    #[error("a socket was passed that is not used: {0}")]
    Passed(String),
    /// The system has no thread for us.
    #[error("the files cannot be watched")]
    Watch(#[source] io::Error),
}

impl StartError {
    /// What a person can type about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Load(error) => error.hint(),
            Self::Listen { at, source } if source.kind() == io::ErrorKind::AddrInUse => {
                Some(format!("another process serves {at}: stop it, or set another `listen` in narrows.toml"))
            }
            Self::Leaf(_) => Some("capctl init makes a CA; capctl doctor says what is wrong with this one".to_owned()),
            Self::Journal(error) => error.hint(),
            Self::Passed(_) => Some(
                "each socket that is passed needs a `listen`, `admin` or [[listener]] of narrows.toml with its address"
                    .to_owned(),
            ),
            Self::Listen { .. } | Self::Traces(_) | Self::Watch(_) => None,
        }
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Load(LoadError::Store(error))
    }
}

impl From<TrustError> for StartError {
    fn from(error: TrustError) -> Self {
        Self::Load(LoadError::Trust(error))
    }
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Daemon {
    proxy: Arc<Proxy>,
    drain: Drain,
    listening: Vec<String>,
    address: Option<SocketAddr>,
    socket: Option<PathBuf>,
    drain_within: Duration,
    /// Counted up when the files are to be read again.
    generation: watch::Sender<u64>,
    /// For probes, as long as it runs.
    _operator: Option<operator::Noted>,
}

impl Daemon {
    /// Reads the home, binds, and serves on background tasks of the current runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(home: &Home, serve: Serve) -> Result<Self, StartError> {
        home.check_files()?;
        // First, so that nothing that changes while the files are read is missed.
        let watcher = Watcher::start(watched(home, &[])).map_err(StartError::Watch)?;
        let config = Arc::new(Config::load(home).map_err(LoadError::Config)?);
        log::set(&config.log);
        watcher.set_paths(watched(home, &config.files));
        let started_at = UnixSeconds::now();
        let mut list = Followed::new(home.revoked());
        let revocations = load::whole_revocations(&mut list)?;
        let parts = load_snapshot_parts(home, &config, revocations, None, None)?;
        let trusted = Arc::clone(&parts.trusted);
        let snapshot = Snapshot::first(parts)?;
        let ca = Ca::load(home)?;
        let standing = Arc::new(Standing::new(started_at));
        standing.authority_ends(ca.ends_at());
        standing.secrets_set(load::secret_times(home, &config));
        let leaves = LeafCache::new(ca.certificate_pem(), ca.key_pem())?;
        // Every secret that will stay has been read and has its place.
        if !crate::process::lock_memory() {
            tracing::info!("what is in memory may reach swap: this user may not lock it");
        }
        // Without listeners of its own it is a guest in a command, whose stdout is the command's.
        let alone = !matches!(serve, Serve::SocketOnly);
        let Bound { main, held, admin, socket } = Bound::bind(home, &config, serve).await?;
        let options = JournalOptions { stdout: config.journal.stdout && alone, ..config.journal };
        let journal = Journal::open(&config.journal_dir, options)?;
        let listeners = main.iter().chain(held.iter().map(|(listener, _)| listener)).chain(&admin);
        let own: Vec<SocketAddr> = listeners.filter_map(Listener::local_address).collect();
        let limits = Limits::new(within_descriptors(config.limits, &journal, alone), started_at);
        let dialer = Dialer::new(own, limits.dial);
        let redirects = config.listeners.iter().any(|listener| listener.transparent);
        let dialer = Arc::new(if redirects { dialer.remembering() } else { dialer });
        let traces = Traces::start(config.traces.as_ref(), &dialer, &trusted)?;
        let audience = Arc::clone(&config.audience);
        let live = Live::new(snapshot);
        let proxy = Proxy::new(Parts { audience, limits, live, journal, leaves, dialer, traces });
        let held_at = held.iter().map(|(listener, entrance)| match entrance {
            Entrance::Bound { name, .. } => format!("{listener} for {name}"),
            Entrance::Main | Entrance::Tls => listener.to_string(),
        });
        let named = main.iter().map(ToString::to_string).chain(held_at);
        let daemon = Self {
            drain: Drain::default(),
            listening: named.chain(socket.iter().chain(&admin).map(ToString::to_string)).collect(),
            address: main.as_ref().and_then(Listener::local_address),
            socket: socket.as_ref().map(|_| home.socket()),
            drain_within: config.limits.drain,
            _operator: if alone { note(home, admin.as_ref()) } else { None },
            proxy: Arc::clone(&proxy),
            generation: watcher.generation(),
        };
        let entrance = if config.tls.is_some() { Entrance::Tls } else { Entrance::Main };
        let main = main.map(|listener| (listener, entrance));
        let brought = main.into_iter().chain(socket.map(|listener| (listener, Entrance::Main)));
        for (listener, entrance) in brought.chain(held) {
            tokio::spawn(proxy::serve(Arc::clone(&proxy), listener, entrance, daemon.drain.clone()));
        }
        if let Some(admin) = admin {
            let (proxy, standing) = (Arc::clone(&proxy), Arc::clone(&standing));
            let operator = Admin { proxy, home: home.clone(), standing, drain: daemon.drain.clone() };
            tokio::spawn(crate::admin::serve(operator, admin));
        }
        let (home, signs) = (home.clone(), ca.certificate_pem().to_owned());
        let (spare, failing) = (Spare::new(), Failing::default());
        let reload = Reload { home, proxy, config, trusted, signs, watcher, list, spare, standing, alone, failing };
        tokio::spawn(reload.run(daemon.drain.clone()));
        tokio::spawn(tick(daemon.drain.clone()));
        Ok(daemon)
    }

    /// Where clients may connect, the configuration's `listen` first; with the port that port 0 became.
    #[must_use]
    pub fn listening(&self) -> &[String] {
        &self.listening
    }

    /// The TCP address, when there is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The home's socket, when this process owns it.
    #[must_use]
    pub fn socket(&self) -> Option<&PathBuf> {
        self.socket.as_ref()
    }

    /// The proxy itself.
    #[must_use]
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// Has the files read again, as if one had changed.
    pub fn read_again(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Takes no new clients, lets requests end until the configured deadline, cuts the rest, writes the journal's last
    /// lines and exports the last spans. True when nothing had to be cut.
    pub async fn stop(self) -> bool {
        self.stop_or_cut(std::future::pending()).await
    }

    /// The same with another deadline: the end of `hurry`, where that comes first.
    pub async fn stop_or_cut(self, hurry: impl Future<Output = ()>) -> bool {
        let deadline = async {
            tokio::select! { () = tokio::time::sleep(self.drain_within) => {}, () = hurry => {} }
        };
        let in_time = self.drain.run(deadline).await;
        if !self.proxy.journal.flush(FLUSH_WITHIN) {
            tracing::error!("the journal's last lines are not written yet; the next start completes them");
        }
        self.proxy.traces.finish().await;
        in_time
    }
}

/// The limits that the process can keep: a client has a descriptor and so has what it asks for, and one authority must not
/// take all of them. Says so where that is less than what is configured.
fn within_descriptors(mut limits: config::Limits, journal: &Journal, alone: bool) -> config::Limits {
    let Ok((descriptors, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return limits };
    let kept = DESCRIPTORS_KEPT.min(descriptors / 4);
    let most = usize::try_from((descriptors - kept) / 2).unwrap_or(usize::MAX).max(1);
    if limits.connections_max > most {
        let configured = limits.connections_max;
        // A command has few clients, and its stderr is for a person.
        if alone {
            tracing::warn!(
                configured,
                most,
                descriptors,
                "connections_max is more than RLIMIT_NOFILE allows: fewer are let in"
            );
        }
        limits.connections_max = most;
        limits.authority_requests_max.get_or_insert((journal.in_flight_max() / 2).min(most / 2).max(1));
    }
    limits
}

/// Tells probes where the operator's listener is. Without it they go by the configuration.
fn note(home: &Home, admin: Option<&Listener>) -> Option<operator::Noted> {
    operator::Noted::new(home, admin.map(ToString::to_string)).unwrap_or_else(|error| {
        tracing::warn!(%error, "probes will go by narrows.toml");
        None
    })
}

/// Has the log count what it left out, and keeps a timer that is due before those of requests. Whoever sets one that is due
/// before all others wakes the runtime out of its sleep, also where nobody sleeps: a `write` and an `epoll_wait` for each
/// request on a quiet proxy.
async fn tick(drain: Drain) {
    let ticking = async {
        let mut ticks = tokio::time::interval(TICK_EVERY);
        loop {
            ticks.tick().await;
            log::count_left_out();
        }
    };
    tokio::select! { () = ticking => {}, () = drain.started() => {} }
}

/// The listeners of a daemon.
struct Bound {
    main: Option<Listener>,
    /// Those that hold a capability for their clients.
    held: Vec<(Listener, Entrance)>,
    admin: Option<Listener>,
    socket: Option<Listener>,
}

impl Bound {
    async fn bind(home: &Home, config: &Config, serve: Serve) -> Result<Self, StartError> {
        let (everything, mut passed) = match serve {
            Serve::Everything => (true, Passed::default()),
            Serve::Passed(passed) => (true, passed),
            Serve::SocketOnly => (false, Passed::default()),
        };
        let main = match config.listen.as_ref().filter(|_| everything) {
            Some(main) => Some(listen(main, OWNER_ONLY, &mut passed).await?),
            None => None,
        };
        let mut held = Vec::new();
        for config::Listener { name, listen: at, uids, transparent, .. } in
            config.listeners.iter().filter(|_| everything)
        {
            let mode = if uids.is_empty() { OWNER_ONLY } else { EVERYBODY };
            let entrance = Entrance::Bound { name: Arc::clone(name), uids: uids.clone(), transparent: *transparent };
            held.push((listen(at, mode, &mut passed).await?, entrance));
        }
        let admin = match config.admin.as_ref().filter(|_| everything) {
            Some(admin) => Some(listen(admin, OWNER_ONLY, &mut passed).await?),
            None => None,
        };
        if let Some(left) = passed.left() {
            return Err(StartError::Passed(left));
        }
        let path = home.socket();
        let socket = if config.listen == Some(Listen::Unix(path.clone())) && everything {
            None
        } else {
            match Listener::unix(&path, OWNER_ONLY).await {
                Ok(socket) => Some(socket),
                // A proxy that has its own address can do without; one that is embedded cannot.
                Err(error) if everything => {
                    tracing::warn!(%error, path = %path.display(), "the home's socket cannot be served");
                    None
                }
                Err(source) => return Err(StartError::Listen { at: format!("unix:{}", path.display()), source }),
            }
        };
        Ok(Self { main, held, admin, socket })
    }
}

async fn listen(at: &Listen, mode: u32, passed: &mut Passed) -> Result<Listener, StartError> {
    let bound = match (passed.listener(at), at) {
        (Ok(Some(passed)), _) => Ok(passed),
        (Err(error), _) => Err(error),
        (Ok(None), Listen::Tcp(address)) => Listener::tcp(*address).await,
        (Ok(None), Listen::Unix(path)) => Listener::unix(path, mode).await,
    };
    bound.map_err(|source| StartError::Listen { at: at.to_string(), source })
}
