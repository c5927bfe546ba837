//! Lanes: what connections are for, and how many questions of each kind have one, or wait.
//!
//! Must stay true: a place of a connection that was given up is taken again only when the server has let
//! go of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// For operators, and usage that is written down.
    Administration,
    /// For what has changed: asking for it, and loading it.
    Changes,
    /// For keys and consumers of requests.
    LookUps,
    /// For what was used of a quota, which a request asks too.
    Quotas,
}

/// Who may have a connection of a lane.
pub(super) struct Gate {
    connections: u32,
    pub(super) permits: Arc<Semaphore>,
    /// Permits of connections that were given up, and that the server still has.
    pub(super) held: Arc<AtomicU32>,
    /// Those of requests that are under way or wait.
    pub(super) inside: AtomicU32,
    pub(super) most: u32,
}

impl Gate {
    pub(super) fn new(connections: u32, most: u32) -> Self {
        let permits = Semaphore::new(usize::try_from(connections).unwrap_or(1));
        Self {
            connections,
            permits: Arc::new(permits),
            held: Arc::default(),
            inside: AtomicU32::new(0),
            most,
        }
    }

    /// Whether all that there may be was given up: nothing is to be waited for.
    pub(super) fn is_spent(&self) -> bool {
        self.held.load(Ordering::Relaxed) >= self.connections
    }
}

/// A place in a lane that the server still has.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) count: Arc<AtomicU32>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
