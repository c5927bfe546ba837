//! What the limits said to a request that may not go on.

use super::wire::{self, Legacy};
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// Why a request gets no grant. Nothing that could be given back stays charged.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// It must wait.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A rule that may not be skipped could not be counted.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The fleet's counters cannot be reached, and the rule says `closed`.
#[derive(Debug, thiserror::Error)]
#[error("the counters of a limit cannot be reached")]
pub struct Unavailable {
    /// The rule's id.
    pub rule: Arc<str>,
}

/// At least one rule has nothing left for this request.
#[derive(Debug, thiserror::Error)]
#[error("rate limit reached")]
pub struct Refused {
    /// The id of the strictest of them.
    pub rule: Arc<str>,
    /// When all of them have something again, if nobody else takes it.
    pub retry_after: Duration,
    /// Whether that is known; of requests in flight it is a guess.
    pub(super) timed: bool,
    /// What that rule allows in all.
    pub(super) allowed: u32,
    pub(super) quoted: Arc<str>,
    pub(super) policy: Option<HeaderValue>,
    pub(super) violated: Vec<Arc<str>>,
}

impl Refused {
    /// `RateLimit` of the strictest rule. Its `t` equals `retry_after` in whole seconds, rounded
    /// up, at least 1, as `Retry-After` is to be; of requests in flight there is none.
    #[must_use]
    pub fn rate_limit(&self) -> Option<HeaderValue> {
        wire::rate_limit(&self.quoted, 0, self.next())
    }

    /// The same for clients that know only the fields of before the draft.
    #[must_use]
    pub fn legacy(&self) -> Legacy {
        Legacy::new(self.allowed, 0, self.next())
    }

    /// Whether `retry_after` is more than a guess. When a request that is in flight ends, nobody knows.
    #[must_use]
    pub const fn is_timed(&self) -> bool {
        self.timed
    }

    fn next(&self) -> Option<Duration> {
        self.timed.then_some(self.retry_after)
    }

    /// `RateLimit-Policy`: every enforced policy.
    #[must_use]
    pub fn rate_limit_policy(&self) -> Option<HeaderValue> {
        self.policy.clone()
    }

    /// The names of the rules that refused, as they stand in `RateLimit-Policy`.
    pub fn violated(&self) -> impl Iterator<Item = &str> {
        self.violated.iter().map(|name| &**name)
    }
}
