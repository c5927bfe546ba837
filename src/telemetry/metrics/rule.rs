//! What is counted per limit.

use super::series::Count;
use std::sync::Arc;

/// The series of one rule, resolved when a snapshot is built.
#[derive(Clone, Debug)]
pub struct RuleMetrics(Arc<Rule>);

impl RuleMetrics {
    pub(super) fn new(rule: Arc<Rule>) -> Self {
        Self(rule)
    }

    /// A request was refused by this rule.
    pub fn refused(&self) {
        self.0.refused.count();
    }

    /// A request would have been refused by this rule if it were enforced.
    pub fn shadow(&self) {
        self.0.shadow.count();
    }
}

#[derive(Debug, Default)]
pub(super) struct Rule {
    pub(super) refused: Count,
    pub(super) shadow: Count,
}
