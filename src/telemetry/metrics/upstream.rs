//! What is counted per upstream.

use super::Metrics;
use super::series::{Count, Latency, LazyCodes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The series of one upstream, resolved when a snapshot is built.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics(Arc<Upstream>);

impl UpstreamMetrics {
    pub(super) fn new(upstream: Arc<Upstream>) -> Self {
        Self(upstream)
    }

    /// An endpoint is tried.
    pub fn tried(&self) {
        self.0.tries.count();
    }

    /// A try failed, or was answered with 5xx; to be told once of a try.
    pub fn went_wrong(&self) {
        self.0.wrong.count();
    }

    /// A request was answered by this upstream, this long after it was picked.
    pub fn observe(&self, duration: Duration) {
        self.0.duration.observe(duration);
    }

    /// A try came to nothing.
    pub fn failed(&self, kind: &'static str) {
        self.0.failures.count(kind);
    }

    /// A request was sent again to another endpoint.
    pub fn retried(&self) {
        self.0.retries.count();
    }
}

#[derive(Debug, Default)]
pub(super) struct Upstream {
    pub(super) tries: Count,
    pub(super) wrong: Count,
    pub(super) duration: Latency,
    pub(super) failures: LazyCodes,
    pub(super) retries: Count,
    /// What of `tries` and `wrong` was told by [`Followed`].
    told: [AtomicU64; 2],
}

/// Follows the upstreams from one telling to the next, and holds their series meanwhile: a reload that
/// removes an upstream does not lose what it had counted.
#[derive(Debug, Default)]
pub(crate) struct Followed(BTreeMap<Arc<str>, Arc<Upstream>>);

impl Followed {
    /// Holds the series that there are now.
    pub(crate) fn look(&mut self, metrics: &Metrics) {
        for (name, series) in metrics.series.upstreams.all() {
            self.0.entry(name).or_insert(series);
        }
    }

    /// Name, tries and those that went wrong, since they were told last. One that nobody else holds is
    /// let go.
    pub(crate) fn tell(&mut self, metrics: &Metrics) -> Vec<(Arc<str>, u64, u64)> {
        self.look(metrics);
        let told = self.0.iter().map(|(name, series)| {
            let now = [series.tries.value(), series.wrong.value()];
            let more = |(told, now): (&AtomicU64, u64)| {
                now.saturating_sub(told.swap(now, Ordering::Relaxed))
            };
            let [tries, wrong] = &series.told;
            (Arc::clone(name), more((tries, now[0])), more((wrong, now[1])))
        });
        let told = told.collect();
        // This one and the table.
        self.0.retain(|_, series| Arc::strong_count(series) > 2);
        told
    }
}
