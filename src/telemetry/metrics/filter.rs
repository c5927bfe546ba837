//! What is counted per filter of a program that embeds the gateway.

use super::series::{Count, Latency, LazyCodes};
use std::sync::Arc;
use std::time::Duration;

/// The series of one filter, resolved when the gateway starts.
#[derive(Clone, Debug)]
pub struct FilterMetrics(Arc<Filter>);

impl FilterMetrics {
    pub(super) fn new(filter: Arc<Filter>) -> Self {
        Self(filter)
    }

    /// It was called, and took this long.
    pub fn observe(&self, duration: Duration) {
        self.0.duration.observe(duration);
    }

    /// It refused a request.
    pub fn refused(&self) {
        self.0.refusals.count();
    }

    /// It answered a request.
    pub fn answered(&self) {
        self.0.answers.count();
    }

    /// It did neither, but failed.
    pub fn failed(&self, kind: &'static str) {
        self.0.failures.count(kind);
    }
}

#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) duration: Latency,
    pub(super) refusals: Count,
    pub(super) answers: Count,
    pub(super) failures: LazyCodes,
}
