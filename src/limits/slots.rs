//! A bounded map of what is kept for each rule and subject beside plain counters: leases, quotas.
//!
//! Must stay true: it never holds more than it was made for; what is in use is never dropped; a call
//! does as much work as one shard has entries at most, and that only when one was added, or once in a
//! tick of its time for a shard that is full.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

const SHARDS: usize = 64;
/// No shard is swept below so many entries.
const FEW: usize = 32;

/// What can be forgotten once it is idle.
pub(super) trait Entry {
    /// The time by which it is judged.
    type Now: Copy;

    /// Whether it is worth no more than none.
    fn is_idle(&self, now: Self::Now) -> bool;

    /// A time as a number that seldom changes: a full shard is swept once for each.
    fn tick(now: Self::Now) -> u64;
}

/// The map. Keys are hashes already.
pub(super) struct Slots<E> {
    shards: Box<[Mutex<Shard<E>>]>,
    most: usize,
}

struct Shard<E> {
    entries: HashMap<u128, E, BuildHasherDefault<Hashed>>,
    sweep_at: usize,
    /// When it was swept and remained full.
    full: Option<u64>,
}

impl<E: Entry> Slots<E> {
    /// Room for about `most` entries. Memory is taken as they come.
    pub(super) fn new(most: usize) -> Self {
        let shard = || Mutex::new(Shard { entries: HashMap::default(), sweep_at: FEW, full: None });
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            most: most.div_ceil(SHARDS),
        }
    }

    /// Does `work` with the entry of `key`, if there is one.
    pub(super) fn find<R>(&self, key: u128, work: impl FnOnce(&mut E) -> R) -> Option<R> {
        self.shard(key)?.lock().entries.get_mut(&key).map(work)
    }

    /// Does `work` with the entry of `key`, a new one if there is none; `None` if there is no room.
    pub(super) fn entry<R>(
        &self,
        key: u128,
        now: E::Now,
        make: impl FnOnce() -> E,
        work: impl FnOnce(&mut E) -> R,
    ) -> Option<R> {
        let mut shard = self.shard(key)?.lock();
        if let Some(entry) = shard.entries.get_mut(&key) {
            return Some(work(entry));
        }
        let is_full = shard.entries.len() >= self.most;
        if is_full && shard.full == Some(E::tick(now)) {
            return None;
        }
        if is_full || shard.entries.len() >= shard.sweep_at {
            shard.entries.retain(|_, entry| !entry.is_idle(now));
            shard.sweep_at = (shard.entries.len() * 2).max(FEW);
            let wanted = shard.sweep_at;
            shard.entries.shrink_to(wanted);
        }
        shard.full = (shard.entries.len() >= self.most).then(|| E::tick(now));
        if shard.full.is_some() {
            return None;
        }
        Some(work(shard.entries.entry(key).or_insert_with(make)))
    }

    /// Does `work` with every entry.
    pub(super) fn each(&self, mut work: impl FnMut(&mut E)) {
        for shard in &self.shards {
            shard.lock().entries.values_mut().for_each(&mut work);
        }
    }

    fn shard(&self, key: u128) -> Option<&Mutex<Shard<E>>> {
        self.shards.get((key >> 64) as usize % SHARDS)
    }
}

/// Keys are hashes under a secret: half of one is as good a hash as any.
#[derive(Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Until(u32);

    impl Entry for Until {
        type Now = u32;

        fn is_idle(&self, now: u32) -> bool {
            self.0 <= now
        }

        fn tick(now: u32) -> u64 {
            now.into()
        }
    }

    #[test]
    fn idle_entries_make_room_and_no_others() {
        let slots = Slots::new(64 * 100);
        let key = |n: u32| {
            let half = |n: u128| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) & u128::from(u64::MAX);
            half(n.into()) << 64 | half(u128::from(n) + 1)
        };
        let put = |n: u32, now, until| slots.entry(key(n), now, || Until(until), |_| ()).is_some();
        let through = (0..20_000).filter(|n| put(*n, 0, 10)).count();
        assert!((5_000..=6_400).contains(&through), "{through}");
        assert_eq!((20_000..30_000).filter(|n| put(*n, 9, 10)).count(), 6_400 - through);
        assert!((30_000..60_000).all(|n| put(n, n, n + 100)), "all that was there is idle");
        let mut held = 0;
        slots.each(|_| held += 1);
        assert!(held <= 64 * (2 * FEW + 1), "{held}");
        assert!(slots.find(key(0), |_| ()).is_none());
        assert!(slots.find(key(59_999), |_| ()).is_some());
    }
}
