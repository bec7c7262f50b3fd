//! Files that change while the proxy runs.
//!
//! A good change takes effect with the next request; a bad one is refused as a whole, the running configuration stays,
//! and the log says why. Revocations are read on their own, so that a mistake elsewhere cannot hold one up; none is ever
//! taken back while the process lives, for a list that has lost lines looks like one that never had them.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;

use super::load::{self, LoadError, load_snapshot_parts};
use super::log;
use super::notify::notify;
use crate::admin::{Part, Standing};
use crate::clock::UnixSeconds;
use crate::config::{Config, changes_needing_restart};
use crate::proxy::{Drain, Proxy};
use crate::store::Home;
use crate::store::ca::Ca;
use crate::store::watch::Watcher;

/// Follows a home's files for a running proxy.
pub(super) struct Reload {
    pub(super) home: Home,
    pub(super) proxy: Arc<Proxy>,
    pub(super) config: Arc<Config>,
    pub(super) trusted: Arc<RootCertStore>,
    /// The certificate of the CA that signs now.
    pub(super) signs: String,
    pub(super) watcher: Watcher,
    pub(super) standing: Arc<Standing>,
    /// The process is this proxy and nothing else: the service manager is told of it.
    pub(super) alone: bool,
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
                changed = changes.changed() => if changed.is_err() { return },
                () = drain.started() => return,
            }
            self.tell("RELOADING=1");
            self.revocations();
            self.authority();
            let next = self.next();
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
            self.watcher.set_paths(watched(&self.home, &self.config.files));
        }
    }

    fn tell(&self, state: &str) {
        if self.alone {
            notify(state);
        }
    }

    fn revocations(&self) {
        match load::revocations(&self.home) {
            Ok(revocations) => match self.proxy.live.revoke(&revocations) {
                0 => self.standing.well(Part::Revocations),
                lost => {
                    if self.standing.trouble(Part::Revocations, REVOCATIONS_LOST) {
                        tracing::error!(lost, "revoked.jsonl does not say any more what it said: that stays revoked");
                    }
                }
            },
            Err(error) => {
                tracing::error!(%error, "the revocation list cannot be read: the one before stays");
                self.standing.trouble(Part::Revocations, REVOCATIONS);
            }
        }
    }

    /// A rotation may have changed who signs.
    fn authority(&mut self) {
        let ca = match Ca::load(&self.home) {
            Ok(ca) if ca.certificate_pem() == self.signs => return self.standing.well(Part::Authority),
            Ok(ca) => ca,
            Err(error) => {
                tracing::error!(%error, "the local CA cannot be read: the one before signs");
                self.standing.trouble(Part::Authority, AUTHORITY);
                return;
            }
        };
        match self.proxy.leaves.replace_authority(ca.certificate_pem(), ca.key_pem()) {
            Ok(()) => {
                ca.certificate_pem().clone_into(&mut self.signs);
                self.standing.well(Part::Authority);
                self.standing.authority_ends(ca.ends_at());
                tracing::info!("another CA signs now");
            }
            Err(error) => {
                tracing::error!(%error, "the local CA cannot be used: the one before signs");
                self.standing.trouble(Part::Authority, AUTHORITY);
            }
        }
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
        let parts = load_snapshot_parts(&self.home, &config, trusted, server_end)?;
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
