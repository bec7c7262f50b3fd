//! Files that change while the proxy runs.
//!
//! A good change takes effect with the next request; a bad one is refused as a whole, the running configuration stays,
//! and the log says why. What could not be read is tried again each second: it may have been the system that could not, and
//! no change would come of that. Revocations are read on their own, so that a mistake elsewhere cannot hold one up; none is ever
//! taken back while the process lives, for a list that has lost lines looks like one that never had them.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;

use super::load::{self, LoadError, load_snapshot_parts};
use super::log;
use super::notify::notify;
use crate::admin::{Part, Standing};
use crate::capability::Revocations;
use crate::clock::UnixSeconds;
use crate::config::{Config, changes_needing_restart};
use crate::proxy::{Drain, Proxy};
use crate::store::Home;
use crate::store::ca::Ca;
use crate::store::revoked::Followed;
use crate::store::watch::Watcher;

/// What could not be read is tried again after this long, for it may lie with the system and not with the file.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Descriptors kept for files that are read again: of no use to a client, however many it has used up.
const SPARE: usize = 4;

/// Follows a home's files for a running proxy.
pub(super) struct Reload {
    pub(super) home: Home,
    pub(super) proxy: Arc<Proxy>,
    pub(super) config: Arc<Config>,
    pub(super) trusted: Arc<RootCertStore>,
    /// The certificate of the CA that signs now.
    pub(super) signs: String,
    pub(super) watcher: Watcher,
    /// The revocation list.
    pub(super) list: Followed,
    pub(super) spare: Spare,
    pub(super) standing: Arc<Standing>,
    /// The process is this proxy and nothing else: the service manager is told of it.
    pub(super) alone: bool,
    pub(super) failing: Failing,
}

/// What was wrong with each part when it was read last, as it was said.
#[derive(Debug, Default)]
pub(super) struct Failing {
    revocations: Option<String>,
    authority: Option<String>,
    rest: Option<String>,
}

impl Failing {
    fn is_any(&self) -> bool {
        self.revocations.is_some() || self.authority.is_some() || self.rest.is_some()
    }
}

/// Open files of no meaning, closed while others are read.
#[derive(Debug)]
pub(super) struct Spare(Vec<File>);

impl Spare {
    pub(super) fn new() -> Self {
        let mut spare = Self(Vec::with_capacity(SPARE));
        spare.take();
        spare
    }

    fn take(&mut self) {
        let missing = SPARE - self.0.len();
        self.0.extend((0..missing).map_while(|_| File::open("/dev/null").ok()));
    }

    fn give(&mut self) {
        self.0.clear();
    }
}

/// What became of a change.
enum Reloaded {
    Taken,
    RestartNeeded,
}

impl Reload {
    /// Runs until the drain begins.
    pub(super) async fn run(mut self, drain: Drain) {
        let mut changes = self.watcher.subscribe();
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.all();
                }
                () = tokio::time::sleep(AGAIN_AFTER), if self.failing.is_any() => self.what_failed(),
                () = drain.started() => return,
            }
            self.watcher.set_paths(watched(&self.home, &self.config.files));
        }
    }

    /// Reads everything, and says what is wrong also where that has been said.
    fn all(&mut self) {
        self.failing = Failing::default();
        self.tell("RELOADING=1");
        self.revocations();
        self.authority();
        self.rest();
    }

    /// Reads again what could not be read, with more descriptors, and says what is wrong where that is news.
    fn what_failed(&mut self) {
        if self.failing.revocations.is_some() {
            self.revocations();
        }
        self.spare.give();
        if self.failing.authority.is_some() {
            self.authority();
        }
        if self.failing.rest.is_some() {
            self.rest();
        }
        self.spare.take();
    }

    /// Everything that is taken as a whole or not at all.
    fn rest(&mut self) {
        let next = self.next();
        let failing = next.as_ref().err().map(words);
        let is_news = failing != self.failing.rest || failing.is_none();
        self.failing.rest = failing;
        if !is_news {
            return;
        }
        self.tell(match next {
            Ok(Reloaded::Taken) => "READY=1\nSTATUS=the configuration was read again",
            Ok(Reloaded::RestartNeeded) => "READY=1\nSTATUS=restart needed: the log says for which keys",
            Err(_) => "READY=1\nSTATUS=a change was refused: the log says why",
        });
        match next {
            Ok(Reloaded::Taken) => {
                self.standing.reloaded(UnixSeconds::now());
                tracing::info!("the configuration was read again");
            }
            Ok(Reloaded::RestartNeeded) => self.standing.refused(None),
            Err(error) => {
                report(&error);
                self.standing.refused(trouble(&error));
            }
        }
    }

    fn tell(&self, state: &str) {
        if self.alone {
            notify(state);
        }
    }

    fn revocations(&mut self) {
        let (failing, lost) = match load::revocations(&mut self.list) {
            Ok((revocations, bad)) => {
                let lost = self.proxy.live.revoke(&revocations);
                (bad.map(|bad| (bad.to_string(), A_LINE)), lost)
            }
            Err(error) => (Some((error.to_string(), REVOCATIONS)), 0),
        };
        if let Some((error, words)) = failing {
            self.standing.trouble(Part::Revocations, words);
            if self.failing.revocations.as_ref() != Some(&error) {
                tracing::error!(error, "{words}");
                self.failing.revocations = Some(error);
            }
            return;
        }
        self.failing.revocations = None;
        if lost == 0 {
            self.standing.well(Part::Revocations);
        } else if self.standing.trouble(Part::Revocations, REVOCATIONS_LOST) {
            tracing::error!(lost, "revoked.jsonl does not say any more what it said: that stays revoked");
        }
    }

    /// A rotation may have changed who signs.
    fn authority(&mut self) {
        let failing = match Ca::load(&self.home) {
            Ok(ca) if ca.certificate_pem() == self.signs => None,
            Ok(ca) => match self.proxy.leaves.replace_authority(ca.certificate_pem(), ca.key_pem()) {
                Ok(()) => {
                    ca.certificate_pem().clone_into(&mut self.signs);
                    self.standing.authority_ends(ca.ends_at());
                    tracing::info!("another CA signs now");
                    None
                }
                Err(error) => Some(error.to_string()),
            },
            Err(error) => Some(error.to_string()),
        };
        match &failing {
            None => self.standing.well(Part::Authority),
            Some(error) => {
                self.standing.trouble(Part::Authority, AUTHORITY);
                if failing != self.failing.authority {
                    tracing::error!(error, "the local CA cannot be used: the one before signs");
                }
            }
        }
        self.failing.authority = failing;
    }

    fn next(&mut self) -> Result<Reloaded, LoadError> {
        let config = Arc::new(Config::load(&self.home).map_err(LoadError::Config)?);
        let fixed = changes_needing_restart(&self.config, &config);
        if !fixed.is_empty() {
            tracing::error!(keys = fixed.join(", "), "restart needed: the running configuration stays");
            return Ok(Reloaded::RestartNeeded);
        }
        let same_upstream = config.upstream == self.config.upstream;
        let trusted = same_upstream.then(|| Arc::clone(&self.trusted));
        let server_end = self.proxy.live.snapshot().server_end().cloned();
        // What is revoked is kept from one snapshot to the next, and read on its own.
        let revocations = Revocations::default();
        let parts = load_snapshot_parts(&self.home, &config, revocations, trusted, server_end)?;
        self.trusted = Arc::clone(&parts.trusted);
        let next = self.proxy.live.snapshot().next(parts)?;
        if !same_upstream {
            self.proxy.traces.trust(&self.trusted)?;
        }
        for name in next.missing_secrets() {
            tracing::warn!(secret = name.as_str(), "a service's secret is not in the store");
        }
        self.proxy.live.replace(next);
        // The secrets may have new places.
        let _ = crate::process::lock_memory();
        self.standing.secrets_set(load::secret_times(&self.home, &config));
        log::set(&config.log);
        self.config = config;
        Ok(Reloaded::Taken)
    }
}

const A_LINE: &str = "a line of the revocation list cannot be read and the others count, but no proxy starts with it; the log says which";
const REVOCATIONS: &str = "the revocation list cannot be read and the one before stays; the log says why";
const REVOCATIONS_LOST: &str =
    "the revocation list has lost what it said, which stays revoked until a restart; put the list back";
const AUTHORITY: &str = "the local CA cannot be used and the one before signs; capctl doctor says why";

/// In plain words that name no path, host or person, for whoever asks.
fn trouble(error: &LoadError) -> Option<(Part, String)> {
    let (part, what) = match error {
        LoadError::Config(problems) => {
            let count = problems.len();
            let words =
                format!("its files have {count} problem(s) and the one before stays; narrows --check lists them");
            return Some((Part::Configuration, words));
        }
        LoadError::Trust(_) => {
            (Part::Configuration, "the roots that upstreams are trusted by cannot be read and those before stay")
        }
        LoadError::Tls(_) => (
            Part::Configuration,
            "the certificate or key of [tls] cannot be used and the one before stays; the log says why",
        ),
        LoadError::Store(_) => {
            (Part::Store, "the secrets cannot be read and those before stay; capctl doctor says why")
        }
        LoadError::Holding { .. } => (
            Part::Listeners,
            "a listener's capability or key cannot be used and the one before stays; the log says why",
        ),
        // Said when the list was read on its own.
        LoadError::RevocationFile(_) | LoadError::Revocations(_) => return None,
    };
    Some((part, what.to_owned()))
}

/// All that is wrong, to tell whether it has changed.
fn words(error: &LoadError) -> String {
    match error {
        LoadError::Config(problems) => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            problems.join("\n")
        }
        other => other.to_string(),
    }
}

fn report(error: &LoadError) {
    if let LoadError::Config(problems) = error {
        for problem in problems {
            tracing::error!(%problem, "the running configuration stays");
        }
    } else {
        tracing::error!(%error, "the running configuration stays");
    }
}

/// The files whose change matters: what the configuration was read from, the store, the revocations and the
/// local CA.
pub(super) fn watched(home: &Home, files: &[PathBuf]) -> Vec<PathBuf> {
    let mut paths = files.to_vec();
    paths.extend([home.config(), home.secrets(), home.store_key(), home.revoked(), home.services_dir()]);
    paths.extend([home.ca_certificate(), home.ca_key()]);
    paths.sort_unstable();
    paths.dedup();
    paths
}
