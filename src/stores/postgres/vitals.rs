//! How the connections fare, for metrics: numbers that are cheap to read.

use super::error::PostgresError;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How the connections to PostgreSQL fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// To the primary.
    pub primary: PoolVitals,
    /// To the replica, where there is one.
    pub replica: Option<PoolVitals>,
    /// Look-ups and questions for quotas that were refused because a second brought too many.
    pub throttled: u64,
}

/// How the connections to one server fare. Counts begin with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolVitals {
    /// Connections that there may be.
    pub most: u32,
    /// Connections that there are.
    pub connections: u32,
    /// Those of them that nobody uses.
    pub idle: u32,
    /// Look-ups and other questions that wait for a connection.
    pub waiting: u32,
    /// How often a connection was given to a question.
    pub acquired: u64,
    /// Questions that met their deadline.
    pub timeouts: u64,
    /// Look-ups and questions for quotas that were refused because too many waited.
    pub refused: u64,
    /// Questions that got no connection in time, or were refused because too many waited for one.
    pub starved: u64,
    /// Attempts to connect that failed.
    pub failed_to_connect: u64,
    /// Connections that broke, or fell silent.
    pub lost: u64,
    /// Connections that led to a server that takes no writes.
    pub read_only: u64,
    /// Other errors that the server answered with.
    pub errors: u64,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) acquired: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) refused: AtomicU64,
    starved: AtomicU64,
    pub(super) lost: AtomicU64,
    read_only: AtomicU64,
    errors: AtomicU64,
    waiting: AtomicU32,
}

impl Counters {
    /// Counts an answer that was an error.
    pub(super) fn count(&self, error: &PostgresError) {
        let counter = match error {
            PostgresError::Lost { .. } | PostgresError::Unsure { .. } => &self.lost,
            PostgresError::ReadOnly { .. } => &self.read_only,
            _ => &self.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody waits for a connection, until the result is dropped; in vain, unless it was told that
    /// the wait is over.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { counters: self, over: false }
    }

    /// A question was refused because too many wait.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.starved.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers; those of connections are the pool's to fill in.
    pub(super) fn read(&self) -> PoolVitals {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolVitals {
            waiting: self.waiting.load(Ordering::Relaxed),
            acquired: number(&self.acquired),
            timeouts: number(&self.timeouts),
            refused: number(&self.refused),
            starved: number(&self.starved),
            lost: number(&self.lost),
            read_only: number(&self.read_only),
            errors: number(&self.errors),
            ..PoolVitals::default()
        }
    }
}

/// Somebody waits.
pub(super) struct Waiting<'c> {
    counters: &'c Counters,
    over: bool,
}

impl Waiting<'_> {
    /// There is a connection, or it is known that there will be none.
    pub(super) fn end(mut self) {
        self.over = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        if !self.over {
            self.counters.starved.fetch_add(1, Ordering::Relaxed);
        }
    }
}
