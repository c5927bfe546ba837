//! A histogram fine enough for percentiles: what CloudWatch is told of latency.
//!
//! The buckets of Prometheus are few, since every one of them is a series; a p99 read from them can be
//! wrong by a factor of two. Here each doubling has 32 parts, so the middle of a bucket is within 1.6 %
//! of everything in it, and there is one histogram for the whole process.
//!
//! Must stay true: an observation is one relaxed addition; it takes no lock and no memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of each doubling, as a power of two.
const PARTS: u32 = 5;
/// Below, every microsecond has a bucket of its own.
const LINEAR: u64 = 1 << (PARTS + 1);
/// Microseconds are counted with at most so many bits: above are 71 minutes, and the last bucket.
const BITS: u32 = 32;
const BUCKETS: usize = (LINEAR + ((BITS - PARTS - 1) as u64) * (1 << PARTS)) as usize;

/// Counts of durations.
#[derive(Debug)]
pub(super) struct Fine(Box<[AtomicU64; BUCKETS]>);

impl Default for Fine {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Fine {
    pub(super) fn observe(&self, duration: Duration) {
        if let Some(bucket) = self.0.get(bucket(duration)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts of all buckets.
    pub(super) fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min((1 << BITS) - 1);
    if micros < LINEAR {
        return usize::try_from(micros).unwrap_or(0);
    }
    let doubling = micros.ilog2() - PARTS - 1;
    let part = (micros >> (doubling + 1)) - (1 << PARTS);
    let bucket = LINEAR + u64::from(doubling) * (1 << PARTS) + part;
    usize::try_from(bucket).unwrap_or(BUCKETS - 1)
}

/// The middle of a bucket in milliseconds, to three significant digits.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn middle(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    let micros = match bucket.checked_sub(LINEAR) {
        None => bucket as f64 + 0.5,
        Some(above) => {
            let (doubling, part) = (above >> PARTS, above & ((1 << PARTS) - 1));
            let lowest = ((1 << PARTS) + part) << (doubling + 1);
            lowest as f64 + (1_u64 << doubling) as f64
        }
    };
    let digits = 2 - micros.log10().floor() as i32;
    let scale = 10_f64.powi(digits);
    (micros * scale).round() / scale / 1_000.0
}

/// What came between two readings of [`Fine::counts`]: value in milliseconds and number, by value.
pub(crate) fn between(earlier: &[u64], later: &[u64]) -> Vec<(f64, u64)> {
    let mut earlier = earlier.iter();
    let mut found = Vec::new();
    for (bucket, count) in later.iter().enumerate() {
        let more = count.saturating_sub(earlier.next().copied().unwrap_or(0));
        if more > 0 {
            found.push((middle(bucket), more));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_to_within_two_percent() {
        for micros in (20..100).chain((100..2_000_000).step_by(97)).chain([4_000_000_000]) {
            let duration = Duration::from_micros(micros);
            let told = middle(bucket(duration));
            let truth = duration.as_secs_f64() * 1_000.0;
            assert!((told / truth - 1.0).abs() < 0.026, "{micros} us is told as {told} ms");
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap_and_have_different_values() {
        let mut last = bucket(Duration::ZERO);
        assert_eq!(last, 0);
        for micros in 1..100_000 {
            let next = bucket(Duration::from_micros(micros));
            assert!(next == last || next == last + 1, "{micros}");
            last = next;
        }
        let values: Vec<f64> = (0..BUCKETS).map(middle).collect();
        assert!(values.windows(2).all(|pair| pair.first() < pair.last()), "{values:?}");
    }

    #[test]
    fn nothing_is_too_long() {
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert_eq!(bucket(Duration::from_micros((1 << BITS) - 1)), BUCKETS - 1);
    }

    #[test]
    fn only_what_came_since_is_told() {
        let fine = Fine::default();
        fine.observe(Duration::from_millis(5));
        let earlier = fine.counts();
        fine.observe(Duration::from_millis(5));
        fine.observe(Duration::from_millis(5));
        fine.observe(Duration::from_secs(1));
        let told = between(&earlier, &fine.counts());
        assert_eq!(told.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [2, 1]);
        assert!(between(&fine.counts(), &fine.counts()).is_empty());
    }
}
