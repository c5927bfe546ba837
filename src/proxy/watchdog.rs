//! A deadline on an upstream connection that Pingora cannot keep.
//!
//! Pingora has one timeout for every read from an upstream. It knows nothing of the route's total,
//! it runs while the client is still sending, and a stream must be allowed to be silent. Where that
//! does not fit, this task stands in: at the deadline it shuts the socket down, and the pending read
//! ends.
//!
//! Must stay true: the task is ended before the connection can be used by another request. It runs
//! on the worker's own thread, so it never runs between the two.

use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::RawFd;
use std::time::Duration;
use tokio::task::AbortHandle;

/// Watches the connection of one try.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// The socket, where no other request shares it.
    socket: Option<RawFd>,
    task: Option<AbortHandle>,
}

impl Watchdog {
    /// Of a connection that carries nothing but this try.
    pub(super) const fn on(socket: RawFd) -> Self {
        Self { socket: Some(socket), task: None }
    }

    /// Whether a deadline is set, or has passed.
    pub(super) const fn is_set(&self) -> bool {
        self.task.is_some()
    }

    /// Shuts the socket down after `timeout`, and at no deadline that was set before.
    #[expect(clippy::disallowed_methods, reason = "this value owns the task and ends it")]
    pub(super) fn set(&mut self, timeout: Duration) {
        self.end();
        let Some(socket) = self.socket else { return };
        let task = tokio::spawn(async move {
            tokio::time::sleep(timeout).await;
            if let Err(error) = shutdown(socket, Shutdown::Both) {
                log::debug!("a silent upstream was gone already: {error}");
            }
        });
        self.task = Some(task.abort_handle());
    }

    /// The deadline has passed and the socket is shut down.
    pub(super) fn fired(&self) -> bool {
        self.task.as_ref().is_some_and(AbortHandle::is_finished)
    }

    /// There is no deadline any more.
    pub(super) fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.end();
    }
}
