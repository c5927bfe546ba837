//! An end to writes that nobody takes.
//!
//! Pingora limits only some of them: not the head, the last flush, or what HTTP/2 frames into the
//! connection. Below all of them, this one watches the socket.

use super::crowd::Pressure;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How often a wait looks whether memory is short.
const LOOK: Duration = Duration::from_secs(1);
/// The patience there is when it is.
const SHORT: Duration = Duration::from_secs(2);

/// Gives up a client that takes nothing.
#[derive(Debug)]
pub(super) struct Stall {
    patience: Duration,
    pressure: Arc<Pressure>,
    timer: Option<Pin<Box<Sleep>>>,
    /// When the current wait began.
    since: Option<Instant>,
}

impl Stall {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, pressure: Arc::default(), timer: None, since: None }
    }

    /// The same, where so many may wait that memory is short.
    pub(super) fn under(&mut self, pressure: &Arc<Pressure>) {
        self.pressure = Arc::clone(pressure);
    }

    /// Passes `write` on; an error once writes have been pending for too long, without one that
    /// was not.
    pub(super) fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if write.is_ready() {
            self.since = None;
            return write;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let (end, soon) = (since + self.patience, since + SHORT);
        let first = end.min(since + LOOK);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first)));
        // A timer of an earlier wait fires early, and only then is moved.
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= end || (now >= soon && self.pressure.is_on()) {
                self.since = None;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            timer.as_mut().reset(end.min(now + LOOK));
        }
        Poll::Pending
    }
}
