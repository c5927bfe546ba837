//! How much the directory keeps, for how long, and how it fares.

use super::shelf::{Capacity, STALE_FOR};
use std::time::Duration;

/// How much is kept in process, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Known keys, and as many consumers by name. One costs about a kilobyte.
    pub known: usize,
    /// Invented keys, and as many names, apart from the known ones.
    pub unknown: usize,
    /// How long a row is believed while the store cannot be reached.
    pub stale_for: Duration,
    /// The change feed is silent when it has not confirmed for this long.
    pub silent_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            known: 50_000,
            unknown: 8_192,
            stale_for: STALE_FOR,
            silent_after: Duration::from_secs(1),
        }
    }
}

impl Settings {
    pub(super) const fn capacity(self) -> Capacity {
        Capacity { known: self.known, unknown: self.unknown, flights: 512 }
    }
}

/// What the caches hold and what became of them, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Known keys.
    pub keys: usize,
    /// Keys that nobody knows.
    pub unknown_keys: usize,
    /// Consumers known by name.
    pub consumers: usize,
    /// Entries of the deny list.
    pub denied: usize,
    /// How often a row was believed because the store could not be reached.
    pub served_stale: u64,
    /// Look-ups that the store answered.
    pub loaded: u64,
    /// Look-ups that the store could not answer.
    pub unavailable: u64,
}
