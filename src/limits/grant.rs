//! What the limits said to a request that may go on.

use super::gcra::Standing;
use super::wire::{self, Policies};
use http::HeaderValue;
use std::sync::Arc;

/// One request was taken from each counter that applies.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    pub(super) policies: Policies,
    pub(super) nearest: Option<Nearest>,
    pub(super) would_refuse: Vec<Arc<str>>,
}

/// The enforced rule that will refuse first.
#[derive(Clone, Debug)]
pub(super) struct Nearest {
    pub(super) quoted: Arc<str>,
    pub(super) standing: Standing,
}

impl Grant {
    /// `RateLimit` for the enforced policy that is nearest to exhaustion: the fewest requests
    /// left, and among equals the longest wait for one more. `None` if nothing is enforced.
    #[must_use]
    pub fn rate_limit(&self) -> Option<HeaderValue> {
        let Nearest { quoted, standing } = self.nearest.as_ref()?;
        wire::rate_limit(quoted, standing.remaining(), standing.next())
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
