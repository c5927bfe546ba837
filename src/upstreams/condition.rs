//! What is known about an endpoint, whichever snapshot asks.
//!
//! Must stay true: reading and changing it from several workers at once is safe, and nothing here
//! waits or allocates.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::outlier::{Outlier, Standing};
use super::vitals::{Health, Vitals};
use crate::telemetry::Clock;

/// An endpoint's state at one moment, for metrics and the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// What the probes say.
    pub health: Health,
    /// Whether it is left out because requests failed.
    pub ejected: bool,
    /// Requests on their way.
    pub in_flight: u32,
    /// Tries since the process began.
    pub tries: u64,
    /// Of them failed.
    pub failures: u64,
    /// How often it was ejected.
    pub ejections: u64,
}

impl State {
    /// Whether requests go there when there is a choice.
    #[must_use]
    pub fn up(&self) -> bool {
        self.health != Health::Unhealthy && !self.ejected
    }
}

/// The part of an endpoint that outlives reloads.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) clock: Clock,
    pub(super) outlier: Outlier,
    pub(super) vitals: Vitals,
    in_flight: AtomicU32,
    tries: AtomicU64,
    failures: AtomicU64,
    ejections: AtomicU64,
}

impl Condition {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            outlier: Outlier::default(),
            vitals: Vitals::default(),
            in_flight: AtomicU32::new(0),
            tries: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
        }
    }

    /// Requests on their way.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A try begins.
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.tries.fetch_add(1, Ordering::Relaxed);
    }

    /// A try that began is over.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_ejection(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// All of it, at this moment; `probed` tells whether the probes' word counts.
    pub(super) fn state(&self, probed: bool) -> State {
        State {
            health: if probed { self.vitals.health() } else { Health::Unknown },
            ejected: self.outlier.standing(&self.clock) != Standing::In,
            in_flight: self.in_flight(),
            tries: self.tries.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            ejections: self.ejections.load(Ordering::Relaxed),
        }
    }
}
