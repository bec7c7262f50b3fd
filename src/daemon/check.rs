//! Everything that a start would refuse, at once, without starting: nothing is made, bound or changed.
//!
//! Deliberately absent: whether an address is free, for the proxy that is asked about may be running on it.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use super::load;
use crate::config::{Config, Listen};
use crate::credential::SecretName;
use crate::net::leaf::LeafCache;
use crate::store::ca::Ca;
use crate::store::revoked::Followed;
use crate::store::{Home, SecretStore, StoreError, private};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What it is, in words.
    pub what: String,
    /// What a person can type about it.
    pub hint: Option<String>,
}

/// What is wrong with a home, and with what its configuration names: what a start would refuse, then what would start and
/// not work (no roots, secrets that are missing, rows of `[[service.test]]` that do not hold).
#[must_use]
pub fn check(home: &Home) -> Vec<Wrong> {
    let mut wrong = Findings::default();
    if let Err(error) = home.check() {
        let hint =
            error.hint().or_else(|| matches!(error, StoreError::Missing { .. }).then(|| "capctl init".to_owned()));
        return vec![Wrong { what: in_words(&error), hint }];
    }
    for error in home.problems() {
        wrong.add(&error, error.hint());
    }
    let config = match Config::load(home) {
        Ok(config) => Some(config),
        Err(problems) => {
            // A file that is not private has been named above.
            let new = problems.into_iter().filter(|problem| !wrong.known.contains(&problem.message));
            wrong.all.extend(new.map(|problem| Wrong { what: problem.to_string(), hint: None }));
            None
        }
    };
    let stored = wrong.take(SecretStore::new(home).load(), StoreError::hint);
    wrong.take(load::whole_revocations(&mut Followed::new(home.revoked())), load::LoadError::hint);
    if let Some(ca) = wrong.take(Ca::load(home), StoreError::hint) {
        wrong.take(LeafCache::new(ca.certificate_pem(), ca.key_pem()), |_| None);
    }
    if let Some(config) = config {
        for listener in &config.listeners {
            wrong.take(load::holding(listener), load::LoadError::hint);
        }
        wrong.take(load::server_end(&config, None), load::LoadError::hint);
        wrong.take(load::roots(&config.upstream), |_| None);
        if config.journal_dir.exists() {
            wrong.take(private::check_folder(&config.journal_dir), StoreError::hint);
        }
        let places = config.listen.iter().chain(&config.admin).chain(config.listeners.iter().map(|it| &it.listen));
        wrong.all.extend(places.filter_map(unusable).map(|what| Wrong { what, hint: None }));
        // Of a store that does not open nobody knows what is missing.
        let named = || config.services.services().iter().filter_map(|service| service.credential().cloned()).collect();
        let stored: Vec<SecretName> = stored.map_or_else(named, |stored| stored.into_keys().collect());
        wrong.all.extend(config.check(&stored).iter().map(|it| Wrong { what: it.to_string(), hint: None }));
    }
    wrong.all
}

/// What was found; the same is said once, whoever comes upon it.
#[derive(Default)]
struct Findings {
    all: Vec<Wrong>,
    known: BTreeSet<String>,
}

impl Findings {
    fn add(&mut self, error: &dyn Error, hint: Option<String>) {
        let what = in_words(error);
        if self.known.insert(what.clone()) {
            self.all.push(Wrong { what, hint });
        }
    }

    fn take<T, E: Error>(&mut self, result: Result<T, E>, hint: impl FnOnce(&E) -> Option<String>) -> Option<T> {
        match result {
            Ok(good) => Some(good),
            Err(error) => {
                let hint = hint(&error);
                self.add(&error, hint);
                None
            }
        }
    }
}

/// An error with its causes.
fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.ends_with(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

/// Why nothing can listen at a socket's path.
fn unusable(at: &Listen) -> Option<String> {
    let Listen::Unix(path) = at else { return None };
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Some(format!("cannot listen on {at}: {} is not a folder", folder.display()));
    }
    let too_long = std::os::unix::net::SocketAddr::from_pathname(path).err();
    too_long.map(|error| format!("cannot listen on {at}: {error}"))
}
