//! How long a connection waits for its client, and how that ends when the process does.
//!
//! All waits of a connection share one timer. It is moved only when it fires too early, because
//! most waits end long before they are over.
//!
//! Must stay true: every wait ends a second after the listeners closed, at the latest.

use super::drain::{Drain, Phase};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How long a connection without a request is still kept once the listeners are closed.
const LAST_CALL: Duration = Duration::from_secs(1);
/// The timer of a connection that has not waited yet.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// The timer of one connection.
pub struct Waits {
    sleep: Pin<Box<Sleep>>,
    closing: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    /// When every wait is over, once that is known.
    end: Option<Instant>,
}

impl Waits {
    /// For a connection that was just accepted.
    #[must_use]
    pub fn new(drain: &Arc<Drain>) -> Self {
        let drain = Arc::clone(drain);
        Self {
            sleep: Box::pin(tokio::time::sleep(FAR)),
            closing: Box::pin(async move { drain.reached(Phase::Closing).await }),
            end: None,
        }
    }

    /// What `future` comes to, unless it is `deadline` or the process's end before.
    pub async fn within<F: Future>(&mut self, deadline: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll_over(deadline, cx).map(|()| None),
        })
        .await
    }

    /// Ready when it is `deadline`, or the last call is over.
    pub fn poll_over(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.end.is_none() && self.closing.as_mut().poll(cx).is_ready() {
            self.end = Some(Instant::now() + LAST_CALL);
        }
        let deadline = self.end.map_or(deadline, |end| end.min(deadline));
        if self.sleep.deadline() > deadline {
            self.sleep.as_mut().reset(deadline);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Whether the process ends and no wait is left.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits").field("end", &self.end).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    async fn took(waits: &mut Waits, deadline: Duration) -> Duration {
        let began = Instant::now();
        assert_eq!(waits.within(began + deadline, pending::<()>()).await, None);
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_its_deadline_whatever_the_one_before_was() {
        let mut waits = Waits::new(&Drain::new());
        for seconds in [10, 75, 10, 1, 30] {
            let span = Duration::from_secs(seconds);
            assert_eq!(took(&mut waits, span).await, span);
            let soon = Instant::now() + span;
            assert_eq!(waits.within(soon, async { 7 }).await, Some(7));
        }
        assert!(!waits.ended());
    }

    #[tokio::test(start_paused = true)]
    async fn every_wait_is_over_a_second_after_the_listeners_closed() {
        let drain = Drain::new();
        let mut waits = Waits::new(&drain);
        drain.advance(Phase::Announcing);
        assert_eq!(took(&mut waits, Duration::from_secs(5)).await, Duration::from_secs(5));
        let closing = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drain.advance(Phase::Closing);
        };
        let (span, ()) = tokio::join!(took(&mut waits, Duration::from_secs(75)), closing);
        assert_eq!(span, Duration::from_secs(3) + LAST_CALL);
        assert!(waits.ended());
        assert_eq!(took(&mut waits, Duration::from_secs(75)).await, Duration::ZERO);
    }
}
