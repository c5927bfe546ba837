//! What is counted over all routes, for CloudWatch: its metrics have no dimension for routes.
//!
//! Must stay true: a request that is answered well costs one relaxed addition.

use super::fine::Fine;
use super::series::Count;
use http::StatusCode;
use std::time::Duration;

/// Answers of the whole process.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// From head to end; also how many there were.
    pub(super) latency: Fine,
    /// Those that had no head to count from.
    pub(super) unmeasured: Count,
    pub(super) client_errors: Count,
    pub(super) server_errors: Count,
    pub(super) limited: Count,
    pub(super) denied: Count,
    /// From a revocation's commit to its effect.
    pub(super) revocations: Fine,
}

impl Answers {
    pub(super) fn answered(&self, status: StatusCode, duration: Option<Duration>) {
        match duration {
            Some(duration) => self.latency.observe(duration),
            None => self.unmeasured.count(),
        }
        if status.is_client_error() {
            self.client_errors.count();
        } else if status.is_server_error() {
            self.server_errors.count();
        }
    }

    pub(super) fn read(&self) -> Answered {
        let latency = self.latency.counts();
        Answered {
            requests: latency.iter().sum::<u64>() + self.unmeasured.value(),
            latency,
            client_errors: self.client_errors.value(),
            server_errors: self.server_errors.value(),
            limited: self.limited.value(),
            denied: self.denied.value(),
            revocations: self.revocations.counts(),
        }
    }
}

/// A reading of the counts over all routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    pub(crate) requests: u64,
    pub(crate) client_errors: u64,
    pub(crate) server_errors: u64,
    pub(crate) limited: u64,
    pub(crate) denied: u64,
    /// By bucket; see [`super::between`].
    pub(crate) latency: Vec<u64>,
    pub(crate) revocations: Vec<u64>,
}
