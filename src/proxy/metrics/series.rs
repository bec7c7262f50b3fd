//! What is counted of the requests to one service, by operation.
//!
//! The names come from the configuration and never from a request, and there is a bound to their number: what an agent
//! sends cannot make the operator's monitoring keep another series.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use super::LANES;
use super::histogram::{Distribution, Histogram};
use crate::audit::Ending;
use crate::lane;
use crate::policy::Code;

/// Pairs of service and operation that are counted apart; later ones share `other`. Each takes some 900 bytes for each
/// thread that serves it, and fifty lines of `/metrics`.
pub(super) const SERIES_MAX: usize = 1024;
/// The service and operation of what is not counted apart.
const OTHER: &str = "other";
/// The service and operation of requests that no service serves.
const NONE: &str = "none";

const CODES: usize = Code::ALL.len();
/// Allowed; aborted; denied by each code; failed by each code.
const ENDINGS: usize = 2 + 2 * CODES;

/// Where the counts of one request go: of its service and operation.
#[derive(Debug)]
pub struct Series {
    service: Box<str>,
    operation: Box<str>,
    /// Made when a thread first serves it: most serve few.
    lanes: [OnceLock<Box<CachePadded<Lane>>>; LANES],
}

/// The counts of one thread.
#[derive(Debug)]
struct Lane {
    endings: [AtomicU64; ENDINGS],
    own: Histogram,
    upstream: Histogram,
}

impl Default for Lane {
    fn default() -> Self {
        let endings = std::array::from_fn(|_| AtomicU64::new(0));
        Self { endings, own: Histogram::default(), upstream: Histogram::default() }
    }
}

/// How long a request took, in two parts.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Parts {
    /// Narrows itself.
    pub(in crate::proxy) own: Duration,
    /// From when the upstream was turned to; `None` when it never was.
    pub(in crate::proxy) upstream: Option<Duration>,
}

impl Series {
    fn new(service: &str, operation: &str) -> Arc<Self> {
        let lanes = [const { OnceLock::new() }; LANES];
        Arc::new(Self { service: service.into(), operation: operation.into(), lanes })
    }

    /// Counts a request that has ended. `took` is `None` for what left HTTP, whose length says nothing of anybody's speed.
    pub(in crate::proxy) fn ended(&self, ending: Ending, code: Option<Code>, took: Option<Parts>) {
        let Some(lane) = self.lanes.get(lane::of_this_thread() % LANES) else { return };
        let lane = lane.get_or_init(Box::default);
        if let Some(count) = lane.endings.get(place(ending, code)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let Some(took) = took else { return };
        lane.own.observe(took.own);
        if let Some(upstream) = took.upstream {
            lane.upstream.observe(upstream);
        }
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The operation's name.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// Requests by outcome and code, in the journal's words.
    pub fn endings(&self) -> impl Iterator<Item = (&'static str, Option<Code>, u64)> {
        let refused = |ending: Ending| Code::ALL.into_iter().map(move |code| (ending, Some(code)));
        let all = [(Ending::Allowed, None), (Ending::Aborted, None)].into_iter();
        all.chain(refused(Ending::Denied)).chain(refused(Ending::Failed)).map(|(ending, code)| {
            let at = place(ending, code);
            let counts = self.made().filter_map(|lane| lane.endings.get(at));
            (ending.as_str(), code, counts.map(|count| count.load(Ordering::Relaxed)).sum())
        })
    }

    /// How long Narrows itself took.
    #[must_use]
    pub fn own(&self) -> Distribution {
        self.distribution(|lane| &lane.own)
    }

    /// How long upstreams took.
    #[must_use]
    pub fn upstream(&self) -> Distribution {
        self.distribution(|lane| &lane.upstream)
    }

    fn distribution(&self, of: impl Fn(&Lane) -> &Histogram) -> Distribution {
        let mut all = Distribution::default();
        self.made().for_each(|lane| all.add(of(lane)));
        all
    }

    fn made(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().filter_map(OnceLock::get).map(|lane| &***lane)
    }
}

fn place(ending: Ending, code: Option<Code>) -> usize {
    let code = code.map_or(0, |code| code as usize);
    match ending {
        Ending::Allowed => 0,
        Ending::Aborted => 1,
        Ending::Denied => 2 + code,
        Ending::Failed => 2 + CODES + code,
    }
}

/// The series of one service, at hand for all requests of a tunnel.
#[derive(Debug)]
pub(in crate::proxy) struct ServiceSeries {
    operations: Vec<Arc<Series>>,
    rest: Arc<Series>,
}

impl ServiceSeries {
    /// That of the operation. No lock, no allocation.
    pub(in crate::proxy) fn of(&self, operation: &str) -> &Series {
        self.operations.iter().find(|series| *series.operation == *operation).unwrap_or(&self.rest)
    }

    fn has(&self, operation: &str) -> bool {
        self.operations.iter().any(|series| *series.operation == *operation)
    }
}

/// The series of all services that have been asked for.
#[derive(Debug)]
pub(super) struct AllSeries {
    services: ArcSwap<HashMap<Arc<str>, Arc<ServiceSeries>>>,
    other: Arc<Series>,
    none: Arc<ServiceSeries>,
    max: usize,
}

impl Default for AllSeries {
    fn default() -> Self {
        Self::with_bound(SERIES_MAX)
    }
}

impl AllSeries {
    fn with_bound(max: usize) -> Self {
        let none = Arc::new(ServiceSeries { operations: Vec::new(), rest: Series::new(NONE, NONE) });
        Self { services: ArcSwap::default(), other: Series::new(OTHER, OTHER), none, max }
    }

    /// The series of requests that no service serves.
    pub(super) fn of_nobody(&self) -> Arc<ServiceSeries> {
        Arc::clone(&self.none)
    }

    /// The series of a service with these operations, made where they are new. Asked once for each tunnel and snapshot.
    pub(super) fn of_service(&self, service: &str, operations: &[&str]) -> Arc<ServiceSeries> {
        let complete = |known: &ServiceSeries| operations.iter().all(|operation| known.has(operation));
        if let Some(known) = self.services.load().get(service).filter(|known| complete(known)) {
            return Arc::clone(known);
        }
        let mut made = None;
        self.services.rcu(|now| {
            let mut next = HashMap::clone(now);
            let known = next.get(service);
            let mut series = known.map(|known| known.operations.clone()).unwrap_or_default();
            let mut room = self.max.saturating_sub(next.values().map(|service| service.operations.len()).sum());
            for operation in operations {
                if room > 0 && !series.iter().any(|known| *known.operation == **operation) {
                    series.push(Series::new(service, operation));
                    room -= 1;
                }
            }
            let service_series = Arc::new(ServiceSeries { operations: series, rest: Arc::clone(&self.other) });
            // One that got none needs no place: names beyond the bound take no memory.
            if !service_series.operations.is_empty() {
                next.insert(service.into(), Arc::clone(&service_series));
            }
            made = Some(service_series);
            next
        });
        made.unwrap_or_else(|| self.of_nobody())
    }

    /// All of them, by service and operation.
    pub(super) fn all(&self) -> Vec<Arc<Series>> {
        let services = self.services.load();
        let mut all: Vec<_> = services.values().flat_map(|service| service.operations.iter().cloned()).collect();
        all.push(Arc::clone(&self.other));
        all.push(Arc::clone(&self.none.rest));
        all.sort_by(|a, b| (&a.service, &a.operation).cmp(&(&b.service, &b.operation)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &AllSeries) -> Vec<String> {
        all.all().iter().map(|series| format!("{}:{}", series.service, series.operation)).collect()
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_together() {
        let all = AllSeries::with_bound(3);
        all.of_service("a", &["read", "write"]);
        let half = all.of_service("b", &["read", "write"]);
        let none = all.of_service("c", &["read"]);
        assert_eq!(names(&all), ["a:read", "a:write", "b:read", "none:none", "other:other"]);
        half.of("read").ended(Ending::Allowed, None, None);
        half.of("write").ended(Ending::Allowed, None, None);
        none.of("read").ended(Ending::Allowed, None, None);
        // A name that is no operation of the service, whoever says it.
        all.of_service("a", &["read"]).of("x").ended(Ending::Allowed, None, None);
        let counts: Vec<u64> = all.all().iter().map(|series| series.endings().map(|(.., n)| n).sum()).collect();
        assert_eq!(counts, [0, 0, 1, 0, 3]);
        assert_eq!(all.services.load().len(), 2);
    }

    #[test]
    fn counts_stay_when_a_service_gets_another_operation() {
        let all = AllSeries::default();
        let before = all.of_service("a", &["read"]);
        before.of("read").ended(Ending::Denied, Some(Code::CapabilityDenied), None);
        let after = all.of_service("a", &["read", "admin"]);
        before.of("read").ended(Ending::Denied, Some(Code::CapabilityDenied), None);
        let counts: Vec<_> = after.of("read").endings().filter(|(.., n)| *n > 0).collect();
        assert_eq!(counts, [("denied", Some(Code::CapabilityDenied), 2)]);
        assert!(Arc::ptr_eq(&after, &all.of_service("a", &["admin"])));
    }

    #[test]
    fn each_ending_has_a_place_of_its_own() {
        let series = Series::new("a", "read");
        for (nth, (ending, code)) in [(Ending::Allowed, None), (Ending::Aborted, None)]
            .into_iter()
            .chain(Code::ALL.map(|code| (Ending::Denied, Some(code))))
            .chain(Code::ALL.map(|code| (Ending::Failed, Some(code))))
            .enumerate()
        {
            series.ended(ending, code, None);
            assert_eq!(series.endings().filter(|(.., n)| *n == 1).count(), nth + 1, "{ending:?} {code:?}");
        }
    }
}
