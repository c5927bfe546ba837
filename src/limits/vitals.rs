//! How the limits themselves are doing, for metrics.

use super::rule::OnStoreFailure;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start, and what is so now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// A fleet's counters are in use and do not answer for at least some subjects.
    pub degraded: bool,
    /// How many tasks a share is divided by.
    pub tasks: u32,
    /// Questions for permits ahead of need.
    pub leases_asked: u64,
    /// Permits that came of them.
    pub permits_leased: u64,
    /// Permits that died unused.
    pub permits_died: u64,
    /// Questions for a request's own permit.
    pub exact_calls: u64,
    /// Requests refused without asking, because the counters had said until when.
    pub denied_from_memory: u64,
    /// Times a rule fell back to its share.
    pub fell_back_to_share: u64,
    /// Times a rule let through without counting.
    pub fell_back_to_open: u64,
    /// Times a rule refused because it could not count.
    pub fell_back_to_closed: u64,
    /// Times a subject had to share its rule's spare counter, because all others were in use.
    pub overflowed: u64,
}

/// The counts, as they are kept.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) leases_asked: AtomicU64,
    pub(super) permits_leased: AtomicU64,
    pub(super) permits_died: AtomicU64,
    pub(super) exact_calls: AtomicU64,
    pub(super) denied_from_memory: AtomicU64,
    /// Of quotas; counters count their own.
    pub(super) overflowed: AtomicU64,
    share: AtomicU64,
    open: AtomicU64,
    closed: AtomicU64,
}

impl Tally {
    pub(super) fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn fell_back(&self, to: OnStoreFailure) {
        let count = match to {
            OnStoreFailure::Share => &self.share,
            OnStoreFailure::Open => &self.open,
            OnStoreFailure::Closed => &self.closed,
        };
        Self::add(count, 1);
    }

    pub(super) fn read(&self) -> Vitals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Vitals {
            leases_asked: read(&self.leases_asked),
            permits_leased: read(&self.permits_leased),
            permits_died: read(&self.permits_died),
            exact_calls: read(&self.exact_calls),
            denied_from_memory: read(&self.denied_from_memory),
            fell_back_to_share: read(&self.share),
            fell_back_to_open: read(&self.open),
            fell_back_to_closed: read(&self.closed),
            ..Vitals::default()
        }
    }
}
