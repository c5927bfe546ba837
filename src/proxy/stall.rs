//! An end to writes that nobody takes.
//!
//! Pingora limits only some of them: not the head, the last flush, or what HTTP/2 frames into the
//! connection. Below all of them, this one watches the socket.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Gives up a client that takes nothing.
#[derive(Debug)]
pub(super) struct Stall {
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// When the current wait began.
    since: Option<Instant>,
}

impl Stall {
    pub(super) const fn new(patience: Duration) -> Self {
        Self { patience, timer: None, since: None }
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
        let end = *self.since.get_or_insert_with(Instant::now) + self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        // A timer of an earlier wait fires early, and only then is moved.
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= end {
                self.since = None;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}
