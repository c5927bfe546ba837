//! The counters themselves: plain atomics, grouped the way a request touches them.
//!
//! Must stay true: counting takes no lock and, but for the first refusal of a route, no memory.

use super::Live;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Everything with labels.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) routes: Table<super::route::Route>,
    pub(super) upstreams: Table<super::upstream::Upstream>,
    pub(super) rules: Table<super::rule::Rule>,
    pub(super) expressions: Table<Count>,
    pub(super) filters: Table<super::filter::Filter>,
    pub(super) listeners: Table<Count>,
    pub(super) heads_refused: Codes,
    pub(super) connections_refused: Codes,
    pub(super) tls_failed: Codes,
    pub(super) store_failures: Codes,
    pub(super) publishing_failures: Codes,
    pub(super) answers: super::answers::Answers,
    pub(super) live: Mutex<Live>,
}

/// Series by name.
#[derive(Debug, Default)]
pub(super) struct Table<T>(RwLock<BTreeMap<Arc<str>, Arc<T>>>);

impl<T: Default> Table<T> {
    /// The series of this name, made at its first use.
    pub(super) fn series(&self, name: &str) -> Arc<T> {
        if let Some(known) = self.0.read().get(name) {
            return Arc::clone(known);
        }
        Arc::clone(self.0.write().entry(Arc::from(name)).or_default())
    }

    /// Removes the series that nobody else holds.
    pub(super) fn retain(&self) {
        // Nobody can take a handle of a series while the table is locked, so one that only the
        // table holds stays so.
        self.0.write().retain(|_, series| Arc::strong_count(series) > 1);
    }

    /// Every series with its name, to hold.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<T>)> {
        self.0.read().iter().map(|(name, it)| (Arc::clone(name), Arc::clone(it))).collect()
    }

    /// Visits every series in the order of names.
    pub(super) fn each(&self, mut visit: impl FnMut(&str, &T)) {
        for (name, series) in &*self.0.read() {
            visit(name, series);
        }
    }
}

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts, and says how many it are then.
    pub(super) fn counted(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// More than there are codes in any one set; what comes on top is counted as `other`.
const CODES: usize = 48;

/// Counters by code, where the codes are a small closed set in the source. The few cells are
/// searched from the front, in the order in which the codes were first seen.
#[derive(Debug)]
pub(super) struct Codes {
    cells: [(OnceLock<&'static str>, Count); CODES],
    other: Count,
}

impl Default for Codes {
    fn default() -> Self {
        Self { cells: std::array::from_fn(|_| Default::default()), other: Count::default() }
    }
}

impl Codes {
    pub(super) fn count(&self, code: &'static str) {
        let cell = self.cells.iter().find(|(known, _)| *known.get_or_init(|| code) == code);
        cell.map_or(&self.other, |(_, count)| count).count();
    }

    /// Visits every code that was ever counted.
    pub(super) fn each(&self, mut visit: impl FnMut(&str, u64)) {
        for (code, count) in &self.cells {
            let Some(code) = code.get() else { break };
            visit(code, count.value());
        }
        if self.other.value() > 0 {
            visit("other", self.other.value());
        }
    }
}

const MS: u64 = 1_000_000;

/// Upper bounds of the buckets of [`Latency`], in nanoseconds: 0.5 ms to 10 s.
pub(super) const BOUNDS: [u64; 14] = [
    MS / 2,
    MS,
    MS * 5 / 2,
    MS * 5,
    MS * 10,
    MS * 25,
    MS * 50,
    MS * 100,
    MS * 250,
    MS * 500,
    MS * 1_000,
    MS * 2_500,
    MS * 5_000,
    MS * 10_000,
];

/// A histogram of durations that costs two relaxed additions per observation.
///
/// The one of the `prometheus` crate costs four, one of them in a compare-and-swap loop, because it
/// keeps the sum and the buckets of a scrape consistent to the last observation. Here a scrape may
/// see the last few observations in the buckets and not yet in the sum.
#[derive(Debug, Default)]
pub(super) struct Latency {
    buckets: [AtomicU64; BOUNDS.len()],
    above: AtomicU64,
    nanos: AtomicU64,
}

impl Latency {
    pub(super) fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanos);
        self.buckets.get(bucket).unwrap_or(&self.above).fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Counts per bucket, the last one without a bound.
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        let all = self.buckets.iter().chain(std::iter::once(&self.above));
        all.map(|count| count.load(Ordering::Relaxed))
    }

    /// The sum of all observations.
    pub(super) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// A [`Codes`] that takes its memory at the first use: most routes never refuse anything.
#[derive(Debug, Default)]
pub(super) struct LazyCodes(OnceLock<Box<Codes>>);

impl LazyCodes {
    pub(super) fn count(&self, code: &'static str) {
        self.0.get_or_init(Box::default).count(code);
    }

    pub(super) fn each(&self, visit: impl FnMut(&str, u64)) {
        if let Some(codes) = self.0.get() {
            codes.each(visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_belongs_to_the_bucket_below_it() {
        for (nanos, bucket) in [
            (0, 0),
            (MS / 2, 0),
            (MS / 2 + 1, 1),
            (MS * 10_000, 13),
            (MS * 10_000 + 1, 14),
            (u64::MAX, 14),
        ] {
            let latency = Latency::default();
            latency.observe(Duration::from_nanos(nanos));
            let counts: Vec<u64> = latency.counts().collect();
            assert_eq!(counts.iter().position(|count| *count == 1), Some(bucket), "{nanos} ns");
            assert_eq!(counts.iter().sum::<u64>(), 1);
        }
    }

    #[test]
    fn codes_beyond_the_cells_are_counted_together() {
        let codes = Codes::default();
        for number in 0..CODES + 3 {
            codes.count(Box::leak(format!("code{number}").into_boxed_str()));
        }
        codes.count("code0");
        let mut seen = Vec::new();
        codes.each(|code, count| seen.push((code.to_owned(), count)));
        assert_eq!(seen.len(), CODES + 1);
        assert_eq!(seen.first(), Some(&("code0".to_owned(), 2)));
        assert_eq!(seen.last(), Some(&("other".to_owned(), 3)));
    }

    #[test]
    fn threads_that_meet_in_a_new_code_count_it_once_each() {
        let codes = Codes::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..1000).for_each(|_| ["a", "b"].iter().for_each(|c| codes.count(c)))
                });
            }
        });
        let mut seen = Vec::new();
        codes.each(|code, count| seen.push((code.to_owned(), count)));
        seen.sort();
        assert_eq!(seen, [("a".to_owned(), 4000), ("b".to_owned(), 4000)]);
    }

    #[test]
    fn a_series_lives_as_long_as_a_handle_of_it() {
        let table = Table::<Count>::default();
        let held = table.series("held");
        held.count();
        table.series("dropped").count();
        table.retain();
        table.series("held").count();
        let mut seen = Vec::new();
        table.each(|name, count| seen.push((name.to_owned(), count.value())));
        assert_eq!(seen, [("held".to_owned(), 2)]);
    }
}
