//! What is counted per route.

use super::series::{Count, Latency, LazyCodes};
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;

/// Values of `status_class`, by the first digit of the status.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The series of one route, resolved when a snapshot is built.
#[derive(Clone, Debug)]
pub struct RouteMetrics(Arc<Route>);

impl RouteMetrics {
    pub(super) fn new(route: Arc<Route>) -> Self {
        Self(route)
    }

    /// A request was answered.
    pub fn observe(&self, status: StatusCode, duration: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(requests) = self.0.requests.get(class) {
            requests.count();
        }
        self.0.duration.observe(duration);
    }

    /// The gateway itself refused a request or cut it short, for the reason with this code.
    pub fn rejected(&self, code: &'static str) {
        self.0.rejections.count(code);
    }
}

#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) requests: [Count; CLASSES.len()],
    pub(super) duration: Latency,
    pub(super) rejections: LazyCodes,
}
