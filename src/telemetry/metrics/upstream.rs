//! What is counted per upstream.

use super::series::{Count, Latency, LazyCodes};
use std::sync::Arc;
use std::time::Duration;

/// The series of one upstream, resolved when a snapshot is built.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics(Arc<Upstream>);

impl UpstreamMetrics {
    pub(super) fn new(upstream: Arc<Upstream>) -> Self {
        Self(upstream)
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
    pub(super) duration: Latency,
    pub(super) failures: LazyCodes,
    pub(super) retries: Count,
}
