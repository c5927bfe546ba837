//! One call of a filter: its deadline, its panic, its count.
//!
//! Must stay true: whatever a filter does, the request goes on only when it said so in time.

use super::outcome::Refusal;
use crate::telemetry::Clock;
use crate::telemetry::metrics::FilterMetrics;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a filter does at one point.
pub(super) type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// Where on its way a request was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before a route was looked for.
    Request,
    /// After every check.
    Admitted,
    /// With a response to be told.
    Response,
}

/// Why a filter stopped a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It took too long.
    Late,
    /// It panicked.
    Panicked,
    /// It said so.
    Refused(Refusal),
}

/// A request that a filter stopped.
#[derive(Debug, thiserror::Error)]
#[error("stopped by {cause}")]
pub struct Stopped {
    /// Why.
    pub why: Why,
    /// Where on its way.
    pub point: Point,
    /// `filter/<name>/<word>`.
    pub cause: Box<str>,
}

/// What is known of a filter whatever the request.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) deadline: Duration,
    pub(super) metrics: FilterMetrics,
}

impl Known {
    /// Lets a filter do what it does.
    pub(super) async fn call<T>(
        &self,
        point: Point,
        clock: &Clock,
        pending: Pending<'_, T>,
    ) -> Result<T, Stopped> {
        let began = clock.now();
        let ended = tokio::time::timeout(self.deadline, Caught(pending)).await;
        let took = clock.now().since(began);
        self.metrics.observe(took);
        let why = match ended {
            Ok(Err(Panicked)) => {
                self.metrics.failed("panic");
                log::error!(filter = self.name; "a filter panicked");
                Why::Panicked
            }
            // One that blocked its thread is late as well.
            Ok(Ok(outcome)) if took <= self.deadline => match outcome {
                Ok(value) => return Ok(value),
                Err(refusal) => {
                    self.metrics.refused();
                    Why::Refused(refusal)
                }
            },
            Ok(Ok(_)) | Err(_) => {
                self.metrics.failed("deadline");
                Why::Late
            }
        };
        let word = match &why {
            Why::Late => "deadline",
            Why::Panicked => "panic",
            Why::Refused(refusal) => refusal.word(),
        };
        Err(Stopped { why, point, cause: format!("filter/{}/{word}", self.name).into() })
    }
}

/// A future that panicked.
struct Panicked;

/// A future whose panic ends nothing but itself.
struct Caught<F>(F);

impl<F: Future + Unpin> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.0).poll(cx)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}
