//! How a proxy stands beside the files that it came from: what could not be taken up, when it last was, and until when it
//! lasts. Whoever reloads says so; whoever asks for health reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::clock::UnixSeconds;
use crate::credential::SecretName;

/// What must be usable so that the proxy could start again as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `narrows.toml` and `services.d`.
    Configuration,
    /// The secrets.
    Store,
    /// The capabilities that listeners hold.
    Listeners,
    /// The revocation list.
    Revocations,
    /// The local CA.
    Authority,
}

impl Part {
    /// Every part, in the order in which a reload reads them.
    pub const ALL: [Self; 5] = [Self::Configuration, Self::Store, Self::Listeners, Self::Revocations, Self::Authority];

    /// As `/readyz` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Store => "store",
            Self::Listeners => "listeners",
            Self::Revocations => "revocations",
            Self::Authority => "ca",
        }
    }
}

/// See the module. Written seldom, read by the operator alone.
#[derive(Debug)]
pub struct Standing {
    started: UnixSeconds,
    taken: AtomicU64,
    refused: AtomicU64,
    /// When the files were taken up last, in seconds since 1970.
    taken_at: AtomicU64,
    last_was_taken: AtomicBool,
    troubles: ArcSwap<BTreeMap<Part, String>>,
    secrets_set: ArcSwap<BTreeMap<SecretName, UnixSeconds>>,
    /// 0 where nobody knows.
    authority_ends: AtomicU64,
}

/// Reloads so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloads {
    /// Changes that took effect.
    pub taken: u64,
    /// Changes that did not.
    pub refused: u64,
    /// When the files last took effect; the start counts.
    pub taken_at: UnixSeconds,
    /// Whether the last one did.
    pub last_was_taken: bool,
}

impl Standing {
    /// Of a proxy that starts now, with everything in order.
    #[must_use]
    pub fn new(started: UnixSeconds) -> Self {
        Self {
            started,
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            taken_at: AtomicU64::new(started.get()),
            last_was_taken: AtomicBool::new(true),
            troubles: ArcSwap::default(),
            secrets_set: ArcSwap::default(),
            authority_ends: AtomicU64::new(0),
        }
    }

    /// The files have taken effect.
    pub fn reloaded(&self, now: UnixSeconds) {
        self.well(Part::Configuration);
        self.well(Part::Store);
        self.well(Part::Listeners);
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.taken_at.store(now.get(), Ordering::Relaxed);
        self.last_was_taken.store(true, Ordering::Relaxed);
    }

    /// The files have not taken effect, for this reason if one of the parts is at fault. What is read before that part is
    /// in order.
    pub fn refused(&self, why: Option<(Part, String)>) {
        if let Some((part, words)) = why {
            let before = [Part::Configuration, Part::Store, Part::Listeners].into_iter();
            before.take_while(|before| *before != part).for_each(|before| self.well(before));
            self.trouble(part, words);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.last_was_taken.store(false, Ordering::Relaxed);
    }

    /// The part cannot be used as it lies on the disk: what was read before stays in use. True when this is news.
    pub fn trouble(&self, part: Part, words: impl Into<String>) -> bool {
        let words = words.into();
        let before = self.troubles.rcu(|now| {
            let mut next = BTreeMap::clone(now);
            next.insert(part, words.clone());
            next
        });
        before.get(&part) != Some(&words)
    }

    /// The part can be used.
    pub fn well(&self, part: Part) {
        if self.troubles.load().contains_key(&part) {
            self.troubles.rcu(|now| {
                let mut next = BTreeMap::clone(now);
                next.remove(&part);
                next
            });
        }
    }

    /// The secrets in use were set at these times.
    pub fn secrets_set(&self, times: BTreeMap<SecretName, UnixSeconds>) {
        self.secrets_set.store(Arc::new(times));
    }

    /// The CA that signs ends then.
    pub fn authority_ends(&self, at: Option<UnixSeconds>) {
        self.authority_ends.store(at.map_or(0, UnixSeconds::get), Ordering::Relaxed);
    }

    /// When the proxy started.
    #[must_use]
    pub fn started(&self) -> UnixSeconds {
        self.started
    }

    /// Reloads so far.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        Reloads {
            taken: self.taken.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            taken_at: UnixSeconds(self.taken_at.load(Ordering::Relaxed)),
            last_was_taken: self.last_was_taken.load(Ordering::Relaxed),
        }
    }

    /// What is wrong with a part; `None` when it can be used.
    #[must_use]
    pub fn trouble_with(&self, part: Part, now: UnixSeconds) -> Option<String> {
        let said = self.troubles.load().get(&part).cloned();
        let has_ended = part == Part::Authority && self.authority_end().is_some_and(|end| end <= now);
        said.or_else(|| has_ended.then(|| "the local CA has expired; capctl ca rotate makes another".to_owned()))
    }

    /// When the secrets in use were set, where the store knows.
    #[must_use]
    pub fn secret_times(&self) -> Arc<BTreeMap<SecretName, UnixSeconds>> {
        self.secrets_set.load_full()
    }

    /// Until when the CA counts.
    #[must_use]
    pub fn authority_end(&self) -> Option<UnixSeconds> {
        Some(UnixSeconds(self.authority_ends.load(Ordering::Relaxed))).filter(|end| end.get() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn troubled(standing: &Standing) -> Vec<&'static str> {
        let troubled = |part: &Part| standing.trouble_with(*part, NOW).is_some();
        Part::ALL.into_iter().filter(troubled).map(Part::as_str).collect()
    }

    #[test]
    fn what_is_read_before_the_part_at_fault_is_in_order_again() {
        let standing = Standing::new(NOW);
        assert!(troubled(&standing).is_empty());
        standing.refused(Some((Part::Configuration, "a".to_owned())));
        assert_eq!(troubled(&standing), ["configuration"]);
        standing.refused(Some((Part::Listeners, "b".to_owned())));
        assert_eq!(troubled(&standing), ["listeners"]);
        // What is read after it was not looked at.
        standing.refused(Some((Part::Store, "c".to_owned())));
        assert_eq!(troubled(&standing), ["store", "listeners"]);
        assert!(standing.trouble(Part::Authority, "d"));
        assert!(!standing.trouble(Part::Authority, "d"), "it has been said");
        standing.reloaded(NOW + 5);
        assert_eq!(troubled(&standing), ["ca"]);
        standing.well(Part::Authority);
        assert!(troubled(&standing).is_empty());
        let reloads = Reloads { taken: 1, refused: 3, taken_at: NOW + 5, last_was_taken: true };
        assert_eq!(standing.reloads(), reloads);
        standing.refused(None);
        assert!(troubled(&standing).is_empty(), "a change that needs a restart is no fault of the files");
        assert!(!standing.reloads().last_was_taken);
    }

    #[test]
    fn a_ca_that_has_ended_is_not_in_order() {
        let standing = Standing::new(NOW);
        standing.authority_ends(Some(NOW + 1));
        assert!(standing.trouble_with(Part::Authority, NOW).is_none());
        assert!(standing.trouble_with(Part::Authority, NOW + 1).is_some());
    }
}
