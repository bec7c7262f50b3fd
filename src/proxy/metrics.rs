//! Counters that requests touch. Reading them is the admin listener's affair.
//!
//! Each thread writes counters of its own and a reader adds them up, so that two cores never write the same line of memory
//! for a request; there is no lock, and nothing is allocated after a thread's first request to an operation.

mod histogram;
mod series;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

pub use histogram::{BOUNDS, Distribution};
pub use series::Series;
pub(super) use series::{Parts, ServiceSeries};

use super::Proxy;
use super::inbound::Served;
use crate::lane;
use crate::policy::Code;
use crate::service::WEB;
use series::AllSeries;

/// Threads beyond this number share counters with others.
const LANES: usize = 16;

/// What is counted beside requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Connections accepted.
    Connections,
    /// Tunnels that were opened: CONNECTs that got their 200.
    TunnelsOpened,
    /// Those that have ended.
    TunnelsClosed,
    /// TLS handshakes with clients, from the beginning.
    HandshakesFull,
    /// Those that took up a session from before.
    HandshakesResumed,
    /// Those that came to nothing.
    HandshakesFailed,
    /// Connections to upstreams that were made.
    DialsMade,
    /// Those that could not be made.
    DialsFailed,
    /// Requests that went out on a connection that was there.
    ConnectionsReused,
    /// Credentials whose capability had been verified before.
    CapabilitiesKnown,
    /// Those whose capability had to be verified.
    CapabilitiesNew,
}

const COUNTS: usize = 11;

/// Monotone counts since the process started.
#[derive(Debug, Default)]
pub struct Metrics {
    lanes: [CachePadded<Lane>; LANES],
    series: AllSeries,
}

#[derive(Debug, Default)]
struct Lane {
    counts: [AtomicU64; COUNTS],
    refusals: [AtomicU64; Code::ALL.len()],
}

impl Metrics {
    pub(super) fn count(&self, what: Count) {
        if let Some(count) = self.lane().counts.get(what as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn refused(&self, code: Code) {
        if let Some(count) = self.lane().refusals.get(code as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Where requests to this service, or to nobody, are counted.
    pub(super) fn of(&self, served: &Served) -> Arc<ServiceSeries> {
        match served {
            Served::Named { service, .. } => self.series.of_service(service.name(), &service.operations()),
            Served::Web => self.series.of_service(WEB, &crate::service::OPERATIONS),
            Served::Nobody => self.series.of_nobody(),
        }
    }

    /// Requests and tunnels by service and operation, in order.
    #[must_use]
    pub fn series(&self) -> Vec<Arc<Series>> {
        self.series.all()
    }

    /// Requests by outcome, in the journal's words.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for series in self.series() {
            for (outcome, _, count) in series.endings() {
                *sums.entry(outcome).or_default() += count;
            }
        }
        sums
    }

    /// Refusals by code, those of credentials among them.
    pub fn refusals(&self) -> impl Iterator<Item = (Code, u64)> {
        Code::ALL.into_iter().map(|code| (code, self.sum(|lane| lane.refusals.get(code as usize))))
    }

    /// How many there were.
    #[must_use]
    pub fn counted(&self, what: Count) -> u64 {
        self.sum(|lane| lane.counts.get(what as usize))
    }

    fn sum(&self, count: impl Fn(&Lane) -> Option<&AtomicU64>) -> u64 {
        self.lanes.iter().filter_map(|lane| count(lane)).map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn lane(&self) -> &Lane {
        &self.lanes[lane::of_this_thread() % LANES]
    }
}

/// A tunnel that is open, until this is dropped.
pub(super) struct OpenTunnel(Arc<Proxy>);

impl OpenTunnel {
    pub(super) fn new(proxy: &Arc<Proxy>) -> Self {
        proxy.metrics.count(Count::TunnelsOpened);
        Self(Arc::clone(proxy))
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.metrics.count(Count::TunnelsClosed);
    }
}

/// A handshake that has failed unless it says otherwise before this is dropped.
pub(super) struct Handshake<'p> {
    metrics: &'p Metrics,
    became: Count,
}

impl<'p> Handshake<'p> {
    pub(super) fn begin(metrics: &'p Metrics) -> Self {
        Self { metrics, became: Count::HandshakesFailed }
    }

    pub(super) fn done(mut self, resumed: bool) {
        self.became = if resumed { Count::HandshakesResumed } else { Count::HandshakesFull };
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.metrics.count(self.became);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Ending;

    #[test]
    fn counts_of_all_threads_are_added_up() {
        let metrics = Metrics::default();
        let series = metrics.of(&Served::Web);
        std::thread::scope(|scope| {
            for _ in 0..LANES + 3 {
                scope.spawn(|| {
                    metrics.count(Count::Connections);
                    metrics.refused(Code::CapabilityDenied);
                    series.of("read").ended(Ending::Denied, Some(Code::CapabilityDenied), None);
                });
            }
        });
        let count = (LANES + 3) as u64;
        assert_eq!(metrics.counted(Count::Connections), count);
        let refusals: Vec<_> = metrics.refusals().filter(|(_, n)| *n > 0).collect();
        assert_eq!(refusals, [(Code::CapabilityDenied, count)]);
        assert_eq!(metrics.requests().get("denied"), Some(&count));
    }

    #[test]
    fn every_count_has_a_place() {
        assert_eq!(Count::CapabilitiesNew as usize + 1, COUNTS);
        let metrics = Metrics::default();
        metrics.count(Count::CapabilitiesNew);
        assert_eq!((metrics.counted(Count::CapabilitiesNew), metrics.counted(Count::CapabilitiesKnown)), (1, 0));
    }
}
