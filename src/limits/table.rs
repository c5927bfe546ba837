//! One shard's counters: an open-addressed table that forgets what no longer matters.
//!
//! Linear probing keeps a look-up inside one or two cache lines, and lets a cursor walk the slots,
//! so that idle counters are dropped a few at a time, whenever a new one comes in. A map of the
//! standard library can only be swept as a whole.
//!
//! Must stay true: at least one slot in four is empty, so that probing ends, and soon; a counter
//! that is not idle is never dropped; the work of a call is bounded by the size of a shard.

use super::gcra::{Counter, Meter};
use crate::telemetry::Moment;

/// Slots looked at for each new counter: a whole round ends before the table could fill up again.
const STEP: usize = 8;
/// Slots looked at before a full table turns a new counter away.
const SEARCH: usize = 64;
const SMALLEST: usize = 16;

#[derive(Clone, Copy)]
struct Entry {
    key: u128,
    counter: Counter,
}

pub(super) struct Table {
    slots: Vec<Option<Entry>>,
    len: usize,
    most: usize,
    cursor: usize,
}

impl Table {
    /// An empty table for at most `most` counters. It holds no memory until the first.
    pub(super) const fn new(most: usize) -> Self {
        Self { slots: Vec::new(), len: 0, most, cursor: 0 }
    }

    /// The counter of `key`, a new one if there is none; `None` if there is no place for it.
    pub(super) fn counter(&mut self, key: u128, meter: Meter, now: Moment) -> Option<&mut Counter> {
        let at = match self.find(key) {
            Some(at) => at,
            None if self.make_room(now) => self.place(Entry { key, counter: Counter::idle(meter) }),
            None => return None,
        };
        self.slots.get_mut(at)?.as_mut().map(|entry| &mut entry.counter)
    }

    /// The counter of `key`, if there is one.
    pub(super) fn known(&mut self, key: u128) -> Option<&mut Counter> {
        let at = self.find(key)?;
        self.slots.get_mut(at)?.as_mut().map(|entry| &mut entry.counter)
    }

    /// Sets the counter of `key` back to what it was.
    pub(super) fn restore(&mut self, key: u128, counter: Counter) {
        if let Some(at) = self.find(key) {
            self.set(at, Some(Entry { key, counter }));
        }
    }

    fn find(&self, key: u128) -> Option<usize> {
        let mut at = self.home(key);
        loop {
            // Of no slots, none is found.
            match self.entry(at) {
                Some(entry) if entry.key == key => return Some(at),
                Some(_) => at = self.after(at),
                None => return None,
            }
        }
    }

    /// Puts an entry that is not there yet into the first free slot for it.
    fn place(&mut self, entry: Entry) -> usize {
        let mut at = self.home(entry.key);
        while self.entry(at).is_some() {
            at = self.after(at);
        }
        self.set(at, Some(entry));
        self.len += 1;
        at
    }

    fn make_room(&mut self, now: Moment) -> bool {
        self.sweep(now, STEP);
        if self.len >= self.most {
            self.sweep(now, SEARCH);
        }
        if self.len >= self.most {
            return false;
        }
        if self.len >= most_in(self.slots.len()) {
            self.rebuild(now);
        }
        true
    }

    /// Drops idle counters among the next `steps` slots. After a whole round, a table that has
    /// become mostly empty gives memory back.
    fn sweep(&mut self, now: Moment, steps: usize) {
        for _ in 0..steps.min(self.slots.len()) {
            match self.entry(self.cursor) {
                // The slot is looked at again: another entry may have moved into it.
                Some(entry) if entry.counter.is_idle(now) => self.remove(self.cursor),
                _ => self.cursor += 1,
            }
            if self.cursor >= self.slots.len() {
                self.cursor = 0;
                if self.slots.len() > SMALLEST && self.len < self.slots.len() / 8 {
                    self.rebuild(now);
                    return;
                }
            }
        }
    }

    /// Moves what is not idle into as many slots as suit it.
    fn rebuild(&mut self, now: Moment) {
        let live = |entry: &Entry| !entry.counter.is_idle(now);
        let wanted = self.slots.iter().flatten().filter(|entry| live(entry)).count() + 1;
        let slots = wanted.saturating_mul(2).max(SMALLEST).min(slots_for(self.most));
        let old = std::mem::replace(&mut self.slots, vec![None; slots]);
        self.len = 0;
        self.cursor = 0;
        for entry in old.into_iter().flatten().filter(live) {
            self.place(entry);
        }
    }

    /// Empties a slot and closes the gap that it leaves in the runs of later entries.
    fn remove(&mut self, mut gap: usize) {
        self.set(gap, None);
        self.len -= 1;
        let mut at = self.after(gap);
        while let Some(entry) = self.entry(at) {
            if self.distance(self.home(entry.key), at) >= self.distance(gap, at) {
                self.set(gap, Some(entry));
                self.set(at, None);
                gap = at;
            }
            at = self.after(at);
        }
    }

    /// The slot that a key would have if it were alone: its low half, scaled to the table.
    fn home(&self, key: u128) -> usize {
        scale(key as u64, self.slots.len())
    }

    const fn after(&self, at: usize) -> usize {
        if at + 1 < self.slots.len() { at + 1 } else { 0 }
    }

    /// Steps from one slot forward to another.
    const fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        self.slots.get(at).copied().flatten()
    }

    fn set(&mut self, at: usize, entry: Option<Entry>) {
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = entry;
        }
    }
}

/// Spreads 64 random bits evenly over `0..parts`.
pub(super) fn scale(bits: u64, parts: usize) -> usize {
    ((u128::from(bits) * parts as u128) >> 64) as usize
}

/// The most entries that this many slots take: three quarters.
const fn most_in(slots: usize) -> usize {
    slots - slots.div_ceil(4)
}

/// The fewest slots that take this many entries.
const fn slots_for(most: usize) -> usize {
    most.saturating_add(most.div_ceil(3))
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Period, Rate};
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::num::NonZeroU32;
    use std::time::Duration;

    const TICK: Duration = Duration::from_secs(1);

    /// One permit each second, `burst` at once: a counter is idle `TICK` after its last permit.
    fn meter(burst: u32) -> Meter {
        let rate = Rate { permits: NonZeroU32::MIN, per: Period::Second };
        Meter::new(rate, NonZeroU32::new(burst).unwrap())
    }

    fn moment(ticks: u32) -> Moment {
        Moment::from_nanos(1 << 50) + TICK * ticks
    }

    /// Keys whose low halves are close together, so that runs of entries touch.
    fn key(n: u8) -> u128 {
        u128::from(n % 32) << 57 | u128::from(n) << 64
    }

    #[test]
    fn an_entry_is_48_bytes() {
        assert_eq!(size_of::<Option<Entry>>(), 48);
    }

    #[test]
    fn memory_follows_the_counters_in_use() {
        let mut table = Table::new(1_000_000);
        assert_eq!(table.slots.capacity(), 0);
        for n in 0..1_000_000_u64 {
            // A hundred new subjects each second, none of them ever seen again.
            let now = moment(u32::try_from(n / 100).unwrap());
            let key = u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            table.counter(key, meter(1), now).unwrap().take(NonZeroU32::MIN, now).unwrap();
            assert!(table.slots.len() <= 1024, "{} slots after {n}", table.slots.len());
        }
    }

    #[test]
    fn memory_is_given_back_after_a_flood() {
        let mut table = Table::new(1_000_000);
        let mut fill = |n: u64, now| {
            let key = u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            table.counter(key, meter(1), now).unwrap().take(NonZeroU32::MIN, now).unwrap();
            table.slots.len()
        };
        let flooded = (0..10_000).map(|n| fill(n, moment(0))).last().unwrap();
        let after = (10_000..20_000).map(|n| fill(n, moment(2 + n as u32))).last().unwrap();
        assert!(flooded >= 10_000, "{flooded}");
        assert!(after <= 64, "{after}");
    }

    #[test]
    fn a_full_table_takes_a_new_counter_only_when_one_is_idle() {
        let mut table = Table::new(3);
        for n in 0..3 {
            table
                .counter(key(n), meter(1), moment(0))
                .unwrap()
                .take(NonZeroU32::MIN, moment(0))
                .unwrap();
        }
        assert!(table.counter(key(3), meter(1), moment(0)).is_none());
        assert!(
            table
                .counter(key(0), meter(1), moment(0))
                .unwrap()
                .take(NonZeroU32::MIN, moment(0))
                .is_err()
        );
        assert!(table.counter(key(3), meter(1), moment(1)).is_some());
        assert!(Table::new(0).counter(key(0), meter(1), moment(0)).is_none());
    }

    #[test]
    fn any_number_of_entries_leaves_empty_slots() {
        for most in (0..100).chain([1000, 3907, 1_000_000, usize::MAX - 1, usize::MAX]) {
            let slots = slots_for(most);
            assert!(slots == usize::MAX || most_in(slots) >= most, "{most}");
            assert!(most == 0 || most_in(slots) < slots, "{most}");
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map(
            most in 1_usize..40,
            steps in prop::collection::vec((any::<u8>(), 0_u32..3), 1..400),
        ) {
            let mut table = Table::new(most);
            let mut map: HashMap<u8, Counter> = HashMap::new();
            let mut ticks = 0;
            for (n, later) in steps {
                ticks += u32::from(later == 2);
                let (n, now) = (n % 64, moment(ticks));
                map.retain(|_, counter| !counter.is_idle(now));
                let known = map.get(&n).copied();
                match table.counter(key(n), meter(3), now) {
                    None => prop_assert!(known.is_none() && map.len() >= most),
                    Some(counter) => {
                        let mut expected = known.unwrap_or(Counter::idle(meter(3)));
                        prop_assert_eq!(counter.take(NonZeroU32::MIN, now), expected.take(NonZeroU32::MIN, now));
                        map.insert(n, expected);
                    }
                }
                prop_assert!(table.len <= most);
                prop_assert_eq!(table.len, table.slots.iter().flatten().count());
                for (n, counter) in &map {
                    let at = table.find(key(*n));
                    prop_assert_eq!(at.and_then(|at| table.entry(at)).map(|e| e.counter), Some(*counter));
                }
            }
        }
    }
}
