//! Counters that requests touch. Reading them is the admin listener's affair.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::audit::Ending;
use crate::lane;
use crate::policy::Code;

/// Threads beyond this number share counters with others.
const SHARDS: usize = 16;

/// Monotone counts since the process started. Each thread writes a shard of its own; a reader adds them up.
#[derive(Debug, Default)]
pub struct Metrics {
    shards: [CachePadded<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    endings: [AtomicU64; 4],
    refusals: [AtomicU64; Code::ALL.len()],
    clients: AtomicU64,
}

impl Metrics {
    pub(super) fn ended(&self, ending: Ending) {
        let place = match ending {
            Ending::Allowed => 0,
            Ending::Denied => 1,
            Ending::Failed => 2,
            Ending::Aborted => 3,
        };
        self.shard().endings[place].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, code: Code) {
        if let Some(place) = Code::ALL.iter().position(|other| *other == code) {
            self.shard().refusals[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn accepted(&self) {
        self.shard().clients.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests by outcome, in the journal's words.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let endings = [Ending::Allowed, Ending::Denied, Ending::Failed, Ending::Aborted];
        endings.into_iter().zip(0..).map(|(ending, at)| (ending.as_str(), self.sum(|shard| shard.endings.get(at))))
    }

    /// Refusals by code, those of credentials among them.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Code::ALL.iter().zip(0..).map(|(code, at)| (code.as_str(), self.sum(|shard| shard.refusals.get(at))))
    }

    /// Connections accepted.
    pub fn clients(&self) -> u64 {
        self.sum(|shard| Some(&shard.clients))
    }

    fn sum(&self, count: impl Fn(&Shard) -> Option<&AtomicU64>) -> u64 {
        self.shards.iter().filter_map(|shard| count(shard)).map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn shard(&self) -> &Shard {
        &self.shards[lane::of_this_thread() % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_are_added_up() {
        let metrics = Metrics::default();
        std::thread::scope(|scope| {
            for _ in 0..SHARDS + 3 {
                scope.spawn(|| {
                    metrics.accepted();
                    metrics.ended(Ending::Denied);
                    metrics.refused(Code::CapabilityDenied);
                });
            }
        });
        let count = (SHARDS + 3) as u64;
        assert_eq!(metrics.clients(), count);
        let of =
            |counts: &mut dyn Iterator<Item = (&'static str, u64)>| counts.filter(|(_, n)| *n > 0).collect::<Vec<_>>();
        assert_eq!(of(&mut metrics.requests()), [("denied", count)]);
        assert_eq!(of(&mut metrics.refusals()), [("capability_denied", count)]);
    }
}
