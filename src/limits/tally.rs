//! Requests of each consumer, collected between two flushes.
//!
//! Whoever bills by usage wants each request counted once. Here they are only added up; every few
//! seconds the sums go to the store ([`super::usage`]) and the collection begins anew.
//!
//! Must stay true: counting a consumer that was counted since the last flush does not allocate; the
//! collection is bounded, and what does not fit is counted as lost, not dropped in silence.

use super::usage::{Day, UsageCount};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Locks that requests share.
const SHARDS: usize = 16;
/// Consumers times classes between two flushes: some 20 MB.
const MOST: usize = 100_000;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The limits let it through.
    Admitted,
    /// A limit refused it.
    Refused,
}

/// Sums since the last flush. Shared by all workers.
pub struct Tally {
    hashing: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    entries: AtomicUsize,
    most: usize,
    lost: AtomicU64,
}

/// Consumers by id.
type Shard = HashMap<Arc<str>, OfConsumer>;

struct OfConsumer {
    username: Arc<str>,
    classes: HashMap<Arc<str>, Vec<OnDay>>,
}

/// A flush takes seconds, so there are one or two of these.
struct OnDay {
    day: Day,
    admitted: u64,
    refused: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self::with_room(MOST)
    }
}

impl Tally {
    fn with_room(most: usize) -> Self {
        Self {
            hashing: RandomState::new(),
            shards: Default::default(),
            entries: AtomicUsize::new(0),
            most,
            lost: AtomicU64::new(0),
        }
    }

    /// One request of the consumer with this id, at `unix_time`.
    pub fn count(
        &self,
        (consumer, username): (&Arc<str>, &Arc<str>),
        class: &Arc<str>,
        outcome: Outcome,
        unix_time: Duration,
    ) {
        let index = usize::try_from(self.hashing.hash_one(&**consumer)).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(index) else { return };
        let day = Day(u32::try_from(unix_time.as_secs() / 86_400).unwrap_or(u32::MAX));
        let mut shard = shard.lock();
        let Some(counted) = self.entry(&mut shard, (consumer, username), class, day) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        match outcome {
            Outcome::Admitted => counted.admitted += 1,
            Outcome::Refused => counted.refused += 1,
        }
    }

    /// The sum that a request goes into; `None` if there is no room for another one.
    fn entry<'s>(
        &self,
        shard: &'s mut Shard,
        (consumer, username): (&Arc<str>, &Arc<str>),
        class: &Arc<str>,
        day: Day,
    ) -> Option<&'s mut OnDay> {
        let is_there = shard
            .get(&**consumer)
            .and_then(|known| known.classes.get(&**class))
            .is_some_and(|days| days.iter().any(|known| known.day == day));
        if !is_there {
            if self.entries.fetch_add(1, Ordering::Relaxed) >= self.most {
                self.entries.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            let known = shard.entry(Arc::clone(consumer)).or_insert_with(|| OfConsumer {
                username: Arc::clone(username),
                classes: HashMap::new(),
            });
            let days = known.classes.entry(Arc::clone(class)).or_default();
            days.push(OnDay { day, admitted: 0, refused: 0 });
        }
        let days = shard.get_mut(&**consumer)?.classes.get_mut(&**class)?;
        days.iter_mut().find(|known| known.day == day)
    }

    /// Takes all sums out.
    pub fn drain(&self) -> Vec<UsageCount> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let taken = std::mem::take(&mut *shard.lock());
            let before = all.len();
            for (consumer, OfConsumer { username, classes }) in taken {
                for (class, days) in classes {
                    all.extend(days.into_iter().map(|OnDay { day, admitted, refused }| {
                        UsageCount {
                            day,
                            consumer: Arc::clone(&consumer),
                            username: Arc::clone(&username),
                            class: Arc::clone(&class),
                            admitted,
                            refused,
                        }
                    }));
                }
            }
            self.entries.fetch_sub(all.len() - before, Ordering::Relaxed);
        }
        all
    }

    /// Requests that found no room. Above zero means: more consumers are active between two flushes
    /// than there is room for, or the store has been away for long.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("entries", &self.entries).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_secs(20_000 * 86_400 + 43_200);

    fn count(tally: &Tally, consumer: &str, class: &str, outcome: Outcome, at: Duration) {
        let name: Arc<str> = format!("name of {consumer}").into();
        tally.count((&consumer.into(), &name), &class.into(), outcome, at);
    }

    fn sums(tally: &Tally) -> Vec<(u32, String, String, u64, u64)> {
        let row = |row: UsageCount| {
            (row.day.0, row.consumer.to_string(), row.class.to_string(), row.admitted, row.refused)
        };
        let mut sums: Vec<_> = tally.drain().into_iter().map(row).collect();
        sums.sort();
        sums
    }

    #[test]
    fn requests_are_added_up_by_day_consumer_and_class() {
        let tally = Tally::default();
        for _ in 0..3 {
            count(&tally, "a", "read", Outcome::Admitted, NOON);
        }
        count(&tally, "a", "read", Outcome::Refused, NOON);
        count(&tally, "a", "write", Outcome::Admitted, NOON);
        count(&tally, "b", "read", Outcome::Admitted, NOON);
        count(&tally, "a", "read", Outcome::Admitted, NOON + Duration::from_secs(43_200));
        let row = |day, consumer: &str, class: &str, admitted, refused| {
            (day, consumer.to_owned(), class.to_owned(), admitted, refused)
        };
        let expected = [
            row(20_000, "a", "read", 3, 1),
            row(20_000, "a", "write", 1, 0),
            row(20_000, "b", "read", 1, 0),
            row(20_001, "a", "read", 1, 0),
        ];
        assert_eq!(sums(&tally), expected);
        assert!(sums(&tally).is_empty(), "they are taken once");
    }

    #[test]
    fn what_does_not_fit_is_counted_as_lost() {
        let tally = Tally::with_room(2);
        for consumer in ["a", "b", "c", "a", "c"] {
            count(&tally, consumer, "read", Outcome::Admitted, NOON);
        }
        assert_eq!((sums(&tally).len(), tally.lost()), (2, 2));
        count(&tally, "c", "read", Outcome::Admitted, NOON);
        assert_eq!((sums(&tally).len(), tally.lost()), (1, 2), "a flush makes room");
    }

    #[test]
    fn no_request_is_lost_between_threads_and_flushes() {
        let tally = Tally::default();
        let total: u64 = std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..2_000 {
                        count(&tally, &format!("c{}", n % 50), "read", Outcome::Admitted, NOON);
                    }
                });
            }
            (0..100).flat_map(|_| tally.drain()).map(|row| row.admitted).sum()
        });
        let rest: u64 = tally.drain().into_iter().map(|row| row.admitted).sum();
        assert_eq!((total + rest, tally.lost()), (8_000, 0));
    }
}
