//! Requests in flight, counted exactly for each rule and subject.
//!
//! A number is here only while it is above zero, so there are never more of them than requests in
//! flight have rules. It is kept under the rule's id and the subject, so a reload changes nothing for
//! rules that keep their id.
//!
//! Must stay true: a permit counts from when it is taken until it is dropped, once; no more of them
//! are out for one key than the number that the last taker was allowed.

use super::slots::Hashed;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Locks that requests share.
const SHARDS: usize = 64;
/// Numbers of a shard whose room is not given up when they are gone.
const FEW: usize = 64;

type Shard = Mutex<HashMap<u128, u32, BuildHasherDefault<Hashed>>>;

/// The numbers.
pub(super) struct InFlight {
    shards: [Shard; SHARDS],
}

impl InFlight {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { shards: std::array::from_fn(|_| Mutex::default()) })
    }

    /// One more for `key`, and how many may still come; `None` if `most` are in flight.
    pub(super) fn take(self: &Arc<Self>, key: u128, most: NonZeroU32) -> Option<(Permit, u32)> {
        let mut shard = self.shard(key)?.lock();
        let count = shard.entry(key).or_insert(0);
        // One that was made just now is zero, and `most` is above that: no zero stays behind.
        let left = most.get().checked_sub(*count + 1)?;
        *count += 1;
        drop(shard);
        Some((Permit { of: Arc::clone(self), key: key.to_ne_bytes(), next: None }, left))
    }

    fn give_back(&self, key: u128) {
        let Some(shard) = self.shard(key) else { return };
        let mut shard = shard.lock();
        let Some(count) = shard.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            shard.remove(&key);
            if shard.capacity() > FEW && shard.len() * 8 < shard.capacity() {
                let wanted = (shard.len() * 2).max(FEW / 2);
                shard.shrink_to(wanted);
            }
        }
    }

    fn shard(&self, key: u128) -> Option<&Shard> {
        // Another part of the hash than the map within uses.
        self.shards.get((key >> 96) as usize % SHARDS)
    }

    /// Numbers above zero.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// One request in flight, of one rule and subject: over when it is dropped.
pub(super) struct Permit {
    of: Arc<InFlight>,
    /// As bytes, so that whatever holds a permit is not aligned to it.
    key: [u8; 16],
    /// Others of the same request.
    next: Option<Box<Self>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.give_back(u128::from_ne_bytes(self.key));
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// The permits of one request: seldom more than one, and only others take memory of their own.
#[derive(Debug, Default)]
pub(super) struct Permits(Option<Permit>);

impl Permits {
    pub(super) fn push(&mut self, mut permit: Permit) {
        permit.next = self.0.take().map(Box::new);
        self.0 = Some(permit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn most(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn never_more_than_allowed_whatever_the_number_of_threads() {
        let (in_flight, now, seen) = (InFlight::new(), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let Some((permit, _)) = in_flight.take(7, most(3)) else {
                            std::thread::yield_now();
                            continue;
                        };
                        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!((1..=3).contains(&seen.into_inner()));
        assert_eq!(in_flight.len(), 0, "nothing is left");
    }

    #[test]
    fn what_was_needed_for_many_is_given_up() {
        let in_flight = InFlight::new();
        // All in one shard.
        let permits: Vec<_> =
            (0..50_000).map(|key| in_flight.take(key, most(1)).unwrap()).collect();
        assert_eq!(in_flight.len(), 50_000);
        drop(permits);
        let room: usize = in_flight.shards.iter().map(|shard| shard.lock().capacity()).sum();
        assert!(in_flight.len() == 0 && room < 8 * FEW, "{room}");
    }

    proptest! {
        #[test]
        fn it_counts_as_a_list_of_permits_would(
            steps in prop::collection::vec((0_u128..4, 1_u32..5, any::<bool>()), 1..200),
        ) {
            let in_flight = InFlight::new();
            let mut out: [Vec<Permit>; 4] = Default::default();
            for (key, allowed, takes) in steps {
                let held = &mut out[key as usize];
                if takes {
                    let before = held.len() as u32;
                    let taken = in_flight.take(key, most(allowed));
                    prop_assert_eq!(taken.is_some(), before < allowed);
                    if let Some((permit, left)) = taken {
                        prop_assert_eq!(left, allowed - before - 1);
                        held.push(permit);
                    }
                } else {
                    held.pop();
                }
                prop_assert_eq!(in_flight.len(), out.iter().filter(|held| !held.is_empty()).count());
            }
        }
    }
}
