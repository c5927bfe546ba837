//! What the limits said to a request that may go on.

use super::in_flight::Permits;
use super::wire::{self, Legacy, Policies};
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// One request was taken from each counter that applies. Until this is dropped it is in flight.
#[derive(Debug, Default)]
pub struct Grant {
    pub(super) policies: Policies,
    pub(super) nearest: Option<Nearest>,
    pub(super) would_refuse: Vec<Arc<str>>,
    pub(super) permits: Permits,
}

/// The enforced rule that will refuse first.
#[derive(Debug)]
pub(super) struct Nearest {
    pub(super) quoted: Arc<str>,
    pub(super) remaining: u32,
    /// How long until there is one more; of requests in flight nobody knows.
    pub(super) next: Option<Duration>,
    /// What the rule allows in all.
    pub(super) allowed: u32,
}

/// What a rule has left for one subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) remaining: u32,
    /// How long until there is one more.
    pub(super) next: Duration,
}

impl Left {
    pub(super) fn new(remaining: u64, next: Duration) -> Self {
        Self { remaining: u32::try_from(remaining).unwrap_or(u32::MAX), next }
    }
}

impl Grant {
    /// `RateLimit` for the enforced policy that is nearest to exhaustion: the fewest requests
    /// left, and among equals the longest wait for one more. `None` if nothing is enforced.
    ///
    /// Of a rule that is leased, what is left is a lower bound as far as this task knows: the permits
    /// that it holds and those that Redis had left when this task last asked. What was regained since
    /// is not in it; what other tasks have taken since is not off it, at most 100 ms' worth in a steady
    /// flow.
    #[must_use]
    pub fn rate_limit(&self) -> Option<HeaderValue> {
        let Nearest { quoted, remaining, next, .. } = self.nearest.as_ref()?;
        wire::rate_limit(quoted, *remaining, *next)
    }

    /// The same for clients that know only the fields of before the draft.
    #[must_use]
    pub fn legacy(&self) -> Option<Legacy> {
        let Nearest { remaining, next, allowed, .. } = self.nearest.as_ref()?;
        Some(Legacy::new(*allowed, *remaining, *next))
    }

    /// `RateLimit-Policy`: every enforced policy. `None` if nothing is enforced.
    #[must_use]
    pub fn rate_limit_policy(&self) -> Option<HeaderValue> {
        self.policies.value()
    }

    /// The ids of the rules in shadow mode that would have refused.
    #[must_use]
    pub fn would_refuse(&self) -> &[Arc<str>] {
        &self.would_refuse
    }
}
