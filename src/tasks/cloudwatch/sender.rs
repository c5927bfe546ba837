//! Hands over what waits: one call for each interval as a rule, and one for all that waits after an
//! outage.
//!
//! A call whose answer is lost is repeated, so its interval may count twice; CloudWatch has no way to
//! tell it that it is the same one.
//!
//! Must stay true: an outage of CloudWatch is told once for each of its kinds, not with each call.

use super::client::Client;
use super::failure::{Failure, Kind};
use super::queue::{Batch, Queue};
use crate::telemetry::{Clock, Metrics, Moment};
use parking_lot::Mutex;
use rand::Rng as _;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries, and how much longer the next one waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The side that talks to CloudWatch.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) queue: Arc<Queue>,
    pub(super) news: News,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) interval: Duration,
    /// How long after the end of an interval it is sent: tasks should not all call at once.
    pub(super) phase: Duration,
}

impl Sender {
    /// Sends until the queue has ended and was tried for the last time.
    pub(super) async fn run(&self) {
        loop {
            self.queue.changed().await;
            self.unless_ended(self.phase).await;
            self.send().await;
            if self.queue.has_ended() && self.queue.oldest().is_none_or(|_| self.news.is_failing())
            {
                return;
            }
        }
    }

    /// Sends what waits, and tries again for most of an interval.
    async fn send(&self) {
        let until = self.clock.now() + self.interval.saturating_sub(2 * self.phase);
        let mut pause = self.interval / 30;
        while let Some(batch) = self.queue.oldest() {
            match self.client.put(&batch.intervals).await {
                Ok(()) => {
                    let taken = self.queue.remove(&batch);
                    self.metrics.published(taken);
                    self.news.works(batch.intervals.len());
                }
                Err(failure) => {
                    self.failed(&batch, &failure);
                    if failure.kind.may_pass() && !self.wait(&mut pause, until).await {
                        return;
                    }
                }
            }
        }
    }

    fn failed(&self, batch: &Batch, failure: &Failure) {
        self.metrics.publishing_failed(failure.kind.as_str());
        self.news.fails(failure);
        if !failure.kind.may_pass() {
            let dropped = self.queue.remove(batch);
            self.metrics.publishing_dropped(dropped);
        }
    }

    /// Waits before the next try; `false` if there is to be none.
    async fn wait(&self, pause: &mut Duration, until: Moment) -> bool {
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.5));
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        if self.queue.has_ended() || self.clock.now() + jittered >= until {
            return false;
        }
        self.unless_ended(jittered).await;
        true
    }

    async fn unless_ended(&self, pause: Duration) {
        // Either is as good: it ends here.
        drop(tokio::time::timeout(pause, self.queue.ended()).await);
    }
}

/// What the log was told of an outage.
#[derive(Debug, Default)]
pub(super) struct News(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    kinds: Vec<Kind>,
    dropped: bool,
}

impl News {
    fn fails(&self, failure: &Failure) {
        let mut told = self.0.lock();
        if told.kinds.contains(&failure.kind) {
            return;
        }
        told.kinds.push(failure.kind);
        log::error!(kind = failure.kind.as_str(), error = failure.detail.as_str(),
            help = failure.kind.help(); "metrics do not reach CloudWatch");
    }

    fn works(&self, intervals: usize) {
        let told = std::mem::take(&mut *self.0.lock());
        if !told.kinds.is_empty() {
            log::info!(intervals = intervals; "metrics reach CloudWatch again");
        }
    }

    /// An interval was given up.
    pub(super) fn drops(&self) {
        if !std::mem::replace(&mut self.0.lock().dropped, true) {
            log::error!("metrics were not taken for too long, the oldest are given up");
        }
    }

    fn is_failing(&self) -> bool {
        !self.0.lock().kinds.is_empty()
    }
}
