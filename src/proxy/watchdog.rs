//! A deadline for the response head of a stream.
//!
//! Pingora has one timeout for every read from an upstream, and a stream must be allowed to be
//! silent. So its reads have none, and until its response head has come this task stands in: at the
//! deadline it shuts the socket down, and the pending read ends.
//!
//! Must stay true: the task is aborted before the connection can be used by another request. It runs
//! on the worker's own thread, so it never runs between the two.

use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::RawFd;
use std::time::Duration;
use tokio::task::AbortHandle;

/// Shuts `fd` down after `timeout` unless it is aborted before.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the passage owns the handle and aborts it")]
pub(super) fn watch(fd: RawFd, timeout: Duration) -> AbortHandle {
    tokio::spawn(async move {
        tokio::time::sleep(timeout).await;
        if let Err(error) = shutdown(fd, Shutdown::Both) {
            log::debug!("a silent upstream was gone already: {error}");
        }
    })
    .abort_handle()
}
