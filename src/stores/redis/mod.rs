//! Redis: counters that a fleet shares, and a cache that it shares.
//!
//! ```text
//! request ─ready?─▶ Map: slot ─▶ Node: breaker, connection ─▶ one script, one answer, one deadline
//! Keeper (beside): asks for the slots, opens connections, probes, says that this task lives
//! ```
//!
//! The slots are followed here and not by the driver: a node that is gone must not slow down what the
//! others can answer, nor open their breakers; and after a failover the new master must be found
//! although the old one still accepts connections. So the driver only does what it is best at, one
//! connection that many share.
//!
//! Must stay true: no request opens a connection, or waits for one; what is asked for is answered or
//! given up within the time that the caller named; a node that failed five times in a row is sent
//! nothing but probes until one comes back; one node's failures are its own.

mod ask;
mod counters;
mod keeper;
mod node;
mod rows;
mod settings;
mod slots;

pub use rows::SharedRows;
pub use settings::{InvalidSettings, Settings};

use super::Reactor;
use arc_swap::ArcSwap;
use ask::Failures;
use keeper::Roster;
use slots::Map;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Redis, as one process sees it.
pub struct Redis {
    settings: Settings,
    reactor: Arc<Reactor>,
    map: ArcSwap<Map>,
    /// Every slot has an owner that is connected and answers: no need to look up which.
    well: AtomicBool,
    /// The map is known to be wrong.
    stale: AtomicBool,
    /// The log has said what is not well, and not yet that it is over.
    told: AtomicBool,
    /// Wakes the keeper.
    trouble: Arc<Notify>,
    /// Tells who waits for the first connection, or for better times.
    recovered: Notify,
    roster: Roster,
    take: redis::Script,
    round_trips: AtomicU64,
    failures: Failures,
}

/// How Redis is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// All slots are served.
    pub up: bool,
    /// Masters with an open breaker.
    pub open_breakers: usize,
    /// Commands that were sent for requests, and beside them.
    pub round_trips: u64,
    /// Commands that were not answered in time.
    pub timeouts: u64,
    /// Commands whose connection broke, or had none.
    pub broken: u64,
    /// Commands that were answered with an error.
    pub refused: u64,
    /// Tasks that said of late that they live.
    pub tasks: u32,
}

/// The cache cannot be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shared cache cannot be reached")]
pub struct CacheUnavailable;

impl Redis {
    /// Connects, without waiting for it: until there is a connection, every question fails at once.
    #[must_use]
    pub fn connect(settings: Settings, reactor: Arc<Reactor>) -> Arc<Self> {
        let trouble = Arc::new(Notify::new());
        let redis = Arc::new(Self {
            settings,
            reactor: Arc::clone(&reactor),
            map: ArcSwap::from_pointee(Map::empty()),
            well: AtomicBool::new(false),
            stale: AtomicBool::new(true),
            told: AtomicBool::new(false),
            trouble: Arc::clone(&trouble),
            recovered: Notify::new(),
            roster: Roster::default(),
            take: counters::script(),
            round_trips: AtomicU64::new(0),
            failures: Failures::default(),
        });
        reactor.start_work(keeper::keep(Arc::downgrade(&redis), trouble));
        redis
    }

    /// Waits until all slots are served, for at most `within`; whether they are.
    pub async fn settled(&self, within: Duration) -> bool {
        let up = async {
            loop {
                let mut told = std::pin::pin!(self.recovered.notified());
                told.as_mut().enable();
                if self.is_up() {
                    return;
                }
                told.await;
            }
        };
        tokio::time::timeout(within, up).await.is_ok()
    }

    /// How Redis is doing.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        Vitals {
            up: self.is_up(),
            open_breakers: self.map.load().nodes.iter().filter(|node| node.is_open()).count(),
            round_trips: self.round_trips.load(Ordering::Relaxed),
            tasks: self.roster.tasks(),
            ..self.failures.read()
        }
    }

    fn is_up(&self) -> bool {
        self.well.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("settings", &self.settings).finish_non_exhaustive()
    }
}
