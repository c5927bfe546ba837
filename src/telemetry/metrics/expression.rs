//! Failures of one expression.

use super::series::Count;
use std::sync::Arc;

/// Counts what went wrong when an expression was evaluated; cheap to clone.
#[derive(Clone, Debug)]
pub struct ExpressionMetrics(Arc<Count>);

impl ExpressionMetrics {
    pub(super) fn new(failures: Arc<Count>) -> Self {
        Self(failures)
    }

    /// It came to nothing. The log is told the first time, and whenever the number has doubled.
    pub fn failed(&self, place: &str, reason: &str) {
        let failures = self.0.counted();
        if failures.is_power_of_two() {
            log::warn!(expression = place, reason, failures; "an expression cannot be evaluated");
        }
    }
}
