//! All counters of the process, sharded, exact and bounded.
//!
//! A request holds the shards of all of its rules at once, always locked in ascending order, so
//! what it takes from several counters is one step for everybody else: either all of it, or none.
//! The sections are short (a few dozen instructions for each rule) and wait for nothing.
//!
//! Must stay true: no more than the configured number of counters is kept. When all of them are in
//! use, subjects that have none share one counter for each rule, with that rule's rate: flooding
//! the gateway with subjects makes it stricter, never more open.

use super::few::Few;
use super::gcra::{Counter, Meter};
use super::table::{Table, scale};
use crate::telemetry::Moment;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters in a shard, about. So many are moved when one grows: some 50 µs, in one request.
const SHARD: usize = 2048;
const MOST_SHARDS: usize = 4096;

/// Each on a cache line of its own: neighbours do not slow each other down.
#[repr(align(64))]
struct Shard(Mutex<Table>);

pub(super) struct Counters {
    shards: Box<[Shard]>,
    /// Keyed by rule alone; as many entries as there are rules. Locked last.
    overflow: Shard,
    overflowed: AtomicU64,
}

impl Counters {
    /// Room for `entries` counters. Memory is taken as they come.
    pub(super) fn new(entries: usize) -> Self {
        let shards = (entries / SHARD).next_power_of_two().min(MOST_SHARDS);
        let shard = || Shard(Mutex::new(Table::new(entries.div_ceil(shards))));
        Self {
            shards: std::iter::repeat_with(shard).take(shards).collect(),
            overflow: Shard(Mutex::new(Table::new(usize::MAX))),
            overflowed: AtomicU64::new(0),
        }
    }

    /// How often a subject had to share its rule's overflow counter.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Locks the shards of `keys`.
    pub(super) fn hold(&self, keys: impl Iterator<Item = u128> + Clone) -> Held<'_> {
        let mut held = Held { counters: self, shards: Few::new(), overflow: None };
        let wanted = keys.map(|key| self.shard(key));
        let mut next = wanted.clone().min();
        while let Some(index) = next {
            if let Some(shard) = self.shards.get(index) {
                held.shards.push((index, shard.0.lock()));
            }
            next = wanted.clone().filter(|other| *other > index).min();
        }
        held
    }

    /// The shard of a key: its high half, scaled.
    fn shard(&self, key: u128) -> usize {
        scale((key >> 64) as u64, self.shards.len())
    }
}

/// Locked shards; they are free again when this is dropped.
pub(super) struct Held<'c> {
    counters: &'c Counters,
    shards: Few<(usize, MutexGuard<'c, Table>)>,
    overflow: Option<MutexGuard<'c, Table>>,
}

impl Held<'_> {
    /// The counter of one of the held keys; `None` if there is no place for a new one.
    pub(super) fn counter(&mut self, key: u128, meter: Meter, now: Moment) -> Option<&mut Counter> {
        self.table(key)?.counter(key, meter, now)
    }

    /// The counter that the subjects without one share.
    pub(super) fn overflow(
        &mut self,
        key: u128,
        meter: Meter,
        now: Moment,
    ) -> Option<&mut Counter> {
        self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
        self.overflow_table().counter(key, meter, now)
    }

    /// The counter of one of the held keys, if there is one.
    pub(super) fn known(&mut self, key: u128) -> Option<&mut Counter> {
        self.table(key)?.known(key)
    }

    /// An overflow counter, if there is one.
    pub(super) fn spare(&mut self, key: u128) -> Option<&mut Counter> {
        self.overflow_table().known(key)
    }

    /// Sets one of the held counters back.
    pub(super) fn restore(&mut self, key: u128, counter: Counter) {
        if let Some(table) = self.table(key) {
            table.restore(key, counter);
        }
    }

    /// Sets an overflow counter back.
    pub(super) fn restore_overflow(&mut self, key: u128, counter: Counter) {
        self.overflow_table().restore(key, counter);
    }

    fn table(&mut self, key: u128) -> Option<&mut Table> {
        let index = self.counters.shard(key);
        let found = self.shards.iter_mut().find(|(shard, _)| *shard == index);
        found.map(|(_, table)| &mut **table)
    }

    fn overflow_table(&mut self) -> &mut Table {
        let counters = self.counters;
        self.overflow.get_or_insert_with(|| counters.overflow.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Period, Rate};
    use super::*;
    use std::num::NonZeroU32;

    fn meter(burst: u32) -> Meter {
        let rate = Rate { permits: NonZeroU32::MIN, per: Period::Day };
        Meter::new(rate, NonZeroU32::new(burst).unwrap())
    }

    /// Both halves spread, as hashes are.
    fn key(n: u64) -> u128 {
        let half = |n: u64| u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        half(n) << 64 | half(n * 7)
    }

    #[test]
    fn requests_that_hold_the_same_shards_in_any_order_never_wait_for_each_other() {
        let counters = Counters::new(100_000);
        let now = Moment::from_nanos(1 << 50);
        let spin = |stride: u64| {
            for n in 0..5_000_u64 {
                // Every thread meets the same twelve keys, each in another order.
                let keys = (0..12).map(|i| key((i * stride + n) % 12));
                let mut held = counters.hold(keys.clone());
                for key in keys {
                    held.counter(key, meter(u32::MAX), now)
                        .unwrap()
                        .take(NonZeroU32::MIN, now)
                        .unwrap();
                }
                held.overflow(key(0), meter(u32::MAX), now)
                    .unwrap()
                    .take(NonZeroU32::MIN, now)
                    .unwrap();
            }
        };
        std::thread::scope(|scope| {
            for stride in [1, 5, 7, 11] {
                scope.spawn(move || spin(stride));
            }
        });
        let mut held = counters.hold((0..12).map(key));
        let left = |counter: &mut Counter| counter.take(NonZeroU32::MIN, now).unwrap().remaining();
        let taken = u32::MAX - 1 - 4 * 5_000;
        for n in 0..12 {
            assert_eq!(held.counter(key(n), meter(u32::MAX), now).map(left), Some(taken), "{n}");
        }
        assert_eq!(held.overflow(key(0), meter(u32::MAX), now).map(left), Some(taken));
        drop(held);
        assert_eq!(counters.overflowed(), 4 * 5_000 + 1);
    }

    #[test]
    fn no_more_counters_are_kept_than_configured() {
        for most in [0, 1, 100, 5_000, 20_000] {
            let counters = Counters::new(most);
            let now = Moment::from_nanos(1 << 50);
            let kept = (0..40_000_u64)
                .filter(|n| {
                    let mut held = counters.hold(std::iter::once(key(*n)));
                    let counter = held.counter(key(*n), meter(1), now);
                    counter.is_some_and(|counter| counter.take(NonZeroU32::MIN, now).is_ok())
                })
                .count();
            // Each shard has its part of the whole, rounded up.
            assert!(
                kept >= most * 9 / 10 && kept <= most + counters.shards.len(),
                "{most}: {kept}"
            );
        }
    }
}
