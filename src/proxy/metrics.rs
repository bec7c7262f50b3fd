//! Counters that requests touch. Reading them is the admin listener's affair.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::audit::Ending;
use crate::policy::Code;

/// Monotone counts since the process started.
#[derive(Debug, Default)]
pub struct Metrics {
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
        self.endings[place].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, code: Code) {
        if let Some(place) = Code::ALL.iter().position(|other| *other == code) {
            self.refusals[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn accepted(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests by outcome, in the journal's words.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let endings = [Ending::Allowed, Ending::Denied, Ending::Failed, Ending::Aborted];
        endings.into_iter().zip(&self.endings).map(|(ending, count)| (ending.as_str(), count.load(Ordering::Relaxed)))
    }

    /// Refusals by code, those of credentials among them.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Code::ALL.iter().zip(&self.refusals).map(|(code, count)| (code.as_str(), count.load(Ordering::Relaxed)))
    }

    /// Connections accepted.
    pub fn clients(&self) -> u64 {
        self.clients.load(Ordering::Relaxed)
    }
}
