//! Files that change while the proxy runs.
//!
//! A good change takes effect with the next request; a bad one is refused as a whole, the running configuration stays,
//! and the log says why. Revocations are read on their own, so that a mistake elsewhere cannot hold one up.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;

use super::load::{self, LoadError, load_snapshot_parts};
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
            self.revocations();
            self.authority();
            match self.next() {
                Ok(()) => tracing::info!("the configuration was read again"),
                Err(error) => report(&error),
            }
            self.watcher.set_paths(watched(&self.home, &self.config.files));
        }
    }

    fn revocations(&self) {
        match load::revocations(&self.home) {
            Ok(revocations) => self.proxy.live.revoke(revocations),
            Err(error) => tracing::error!(%error, "the revocation list cannot be read: the one before stays"),
        }
    }

    /// A rotation may have changed who signs.
    fn authority(&mut self) {
        let ca = match Ca::load(&self.home) {
            Ok(ca) if ca.certificate_pem() == self.signs => return,
            Ok(ca) => ca,
            Err(error) => {
                tracing::error!(%error, "the local CA cannot be read: the one before signs");
                return;
            }
        };
        match self.proxy.leaves.replace_authority(ca.certificate_pem(), ca.key_pem()) {
            Ok(()) => {
                ca.certificate_pem().clone_into(&mut self.signs);
                tracing::info!("another CA signs now");
            }
            Err(error) => tracing::error!(%error, "the local CA cannot be used: the one before signs"),
        }
    }

    fn next(&mut self) -> Result<(), LoadError> {
        let config = Arc::new(Config::load(&self.home).map_err(LoadError::Config)?);
        let fixed = changes_needing_restart(&self.config, &config);
        if !fixed.is_empty() {
            tracing::error!(keys = fixed.join(", "), "restart needed: the running configuration stays");
            return Ok(());
        }
        let same_upstream = config.upstream == self.config.upstream;
        let trusted = same_upstream.then(|| Arc::clone(&self.trusted));
        let server_end = self.proxy.live.snapshot().server_end().cloned();
        let parts = load_snapshot_parts(&self.home, &config, trusted, server_end)?;
        self.trusted = Arc::clone(&parts.trusted);
        let next = self.proxy.live.snapshot().next(parts)?;
        for name in next.missing_secrets() {
            tracing::warn!(secret = name.as_str(), "a service's secret is not in the store");
        }
        self.proxy.live.replace(next);
        // The secrets may have new places.
        let _ = crate::process::lock_memory();
        self.config = config;
        Ok(())
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
