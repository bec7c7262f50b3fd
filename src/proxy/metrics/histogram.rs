//! How long things took: counts by upper bound.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in nanoseconds, and the same in seconds: what Narrows adds (tens of microseconds), a service nearby, a
/// model that thinks for minutes. `docs/metrics.md` says why these.
pub const BOUNDS: [(u64, f64); 24] = [
    (10_000, 0.000_01),
    (25_000, 0.000_025),
    (50_000, 0.000_05),
    (100_000, 0.000_1),
    (250_000, 0.000_25),
    (500_000, 0.000_5),
    (1_000_000, 0.001),
    (2_500_000, 0.002_5),
    (5_000_000, 0.005),
    (10_000_000, 0.01),
    (25_000_000, 0.025),
    (50_000_000, 0.05),
    (100_000_000, 0.1),
    (250_000_000, 0.25),
    (500_000_000, 0.5),
    (1_000_000_000, 1.0),
    (2_500_000_000, 2.5),
    (5_000_000_000, 5.0),
    (10_000_000_000, 10.0),
    (30_000_000_000, 30.0),
    (60_000_000_000, 60.0),
    (120_000_000_000, 120.0),
    (300_000_000_000, 300.0),
    (600_000_000_000, 600.0),
];

/// One for each bound, and one for what took longer than all of them.
const BUCKETS: usize = BOUNDS.len() + 1;

/// Written by few threads, read by whoever scrapes.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|(bound, _)| *bound < ns);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
            self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }
}

/// A histogram as it stood at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// How many were at most so long as each of [`BOUNDS`] and longer than the one before; the last: longer than all.
    pub buckets: [u64; BUCKETS],
    /// All together.
    pub sum: Duration,
}

impl Distribution {
    pub(super) fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.sum += Duration::from_nanos(histogram.sum_ns.load(Ordering::Relaxed));
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_the_last_of_its_own_bucket() {
        let of = |ns: u64| {
            let (histogram, mut seen) = (Histogram::default(), Distribution::default());
            histogram.observe(Duration::from_nanos(ns));
            seen.add(&histogram);
            assert_eq!((seen.count(), seen.sum), (1, Duration::from_nanos(ns)));
            seen.buckets.iter().position(|count| *count == 1).expect("one")
        };
        for (place, (bound, _)) in BOUNDS.into_iter().enumerate() {
            assert_eq!((of(bound), of(bound + 1)), (place, place + 1));
        }
        assert_eq!(of(0), 0);
        assert_eq!(of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn bounds_grow_and_say_the_same_in_seconds() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
        for (ns, seconds) in BOUNDS {
            assert_eq!(Duration::from_nanos(ns), Duration::from_secs_f64(seconds), "{ns}");
        }
    }
}
