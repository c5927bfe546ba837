//! The way of an admitted request to an upstream: tries, their endpoints, and their clock.
//!
//! Must stay true: a request waits at most its route's total timeout, whatever is tried; and what
//! may have reached an endpoint is sent again only where that is harmless.

use super::pipeline::Admission;
use super::rejection::{Rejection, UpstreamFailure};
use crate::snapshot::Way;
use crate::telemetry::Moment;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::upstreams::{Failure, Pick, Timeouts, Tried, Unavailable, Upstream};
use pingora_core::upstreams::peer::HttpPeer;
use std::sync::Arc;
use std::time::Duration;

/// The way of one request.
pub struct Passage {
    /// The proof that every check was passed.
    pub admission: Admission,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// The current endpoint, counted as in use.
    pub pick: Option<Pick>,
    /// How many endpoints were asked.
    pub tries: u32,
    /// When the response's head came.
    pub answered: Option<Moment>,
    /// The connection of the current try had served another request before.
    pub reused: bool,
    /// What ends a stream whose response head does not come.
    pub watchdog: Option<tokio::task::AbortHandle>,
    /// No read and no total timeout once the response has begun.
    pub stream: bool,
    /// How the last try ended, if it failed.
    pub failure: Option<UpstreamFailure>,
    timeouts: Timeouts,
    metrics: UpstreamMetrics,
    tried: Tried,
    deadline: Moment,
    try_began: Moment,
}

impl Passage {
    /// Begins a way. The total timeout runs from here.
    #[must_use]
    pub fn begin(admission: Admission, way: &Way, upgrade: bool, now: Moment) -> Self {
        Self {
            admission,
            upstream: Arc::clone(&way.upstream),
            pick: None,
            tries: 0,
            answered: None,
            reused: false,
            watchdog: None,
            failure: None,
            stream: way.stream || upgrade,
            timeouts: way.timeouts,
            metrics: way.metrics.clone(),
            tried: Tried::default(),
            deadline: now + way.timeouts.total,
            try_began: now,
        }
    }

    /// Picks the endpoint of the next try.
    ///
    /// # Errors
    /// No endpoint is left, or no time.
    pub fn next_try(&mut self, now: Moment) -> Result<Box<HttpPeer>, Rejection> {
        let left = self.deadline.since(now);
        if left.is_zero() {
            return Err(UpstreamFailure::Timeout.into());
        }
        self.pick = None;
        let picked = match (self.upstream.pick(&self.tried), self.failure.take()) {
            (Ok(picked), _) => picked,
            // Nobody else can be asked, so what the last one did is the answer.
            (Err(Unavailable::AllTried), Some(failure)) => return Err(failure.into()),
            (Err(unavailable), _) => return Err(unavailable.into()),
        };
        if self.tries > 0 {
            self.metrics.retried();
        }
        self.try_began = now;
        let pick = self.pick.insert(picked);
        self.tries += 1;
        self.reused = false;
        let bounded = Timeouts {
            connect: self.timeouts.connect.min(left),
            per_try: self.timeouts.per_try.min(left),
            total: left,
        };
        let mut peer = pick.peer(&bounded);
        if self.stream {
            // A stream may be silent; `watchdog` keeps the deadline of its response head.
            peer.options.read_timeout = None;
        }
        Ok(peer)
    }

    /// How long the response head of this try may take.
    #[must_use]
    pub fn head_timeout(&self, now: Moment) -> Duration {
        self.timeouts.per_try.min(self.deadline.since(now))
    }

    /// Whether the total timeout has passed; never for a stream that has begun.
    #[must_use]
    pub fn overdue(&self, now: Moment) -> bool {
        now >= self.deadline && !(self.stream && self.answered.is_some())
    }

    /// The response's head is here.
    pub fn head_came(&mut self, now: Moment) {
        self.end_watch();
        if self.answered.is_none() {
            self.answered = Some(now);
            self.metrics.observe(now.since(self.try_began));
        }
        if let Some(pick) = &mut self.pick {
            pick.responded();
        }
    }

    /// The response is complete.
    pub fn completed(&mut self) {
        self.end_watch();
        if let Some(pick) = &mut self.pick {
            pick.succeeded();
        }
    }

    /// The endpoint failed this try.
    pub fn failed(&mut self, failure: Failure) {
        let failure = if self.watch_fired() { Failure::Timeout } else { failure };
        self.failure = Some(match failure {
            Failure::Connect => UpstreamFailure::Connect,
            Failure::Timeout => UpstreamFailure::Timeout,
            Failure::Broken => UpstreamFailure::Broken,
        });
        self.end_watch();
        self.metrics.failed(failure.as_str());
        let Some(pick) = &mut self.pick else { return };
        if self.reused && failure == Failure::Broken && self.answered.is_none() {
            // Endpoints close idle connections as they like; that is not held against them.
            self.tried.add_stale(pick);
        } else {
            pick.failed(failure);
            self.tried.add(pick);
        }
    }

    /// From the start of the last try to the response's head.
    #[must_use]
    pub fn upstream_duration(&self) -> Option<Duration> {
        self.answered.map(|answered| answered.since(self.try_began))
    }

    fn watch_fired(&self) -> bool {
        self.watchdog.as_ref().is_some_and(tokio::task::AbortHandle::is_finished)
    }

    /// Stops waiting for the response head.
    pub fn end_watch(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.abort();
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.end_watch();
    }
}
