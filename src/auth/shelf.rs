//! The first-level cache for one kind of row: what is known, what is not, and what is being asked.
//!
//! Known and unknown stand in separate caches, so that a flood of invented keys cannot push out good
//! ones. A known row is asked for again every half minute, by one request at a time while the others
//! go on with what there is; while the change feed is silent, every second. If the store cannot be
//! reached, a row is believed for [`STALE_FOR`] after it was last confirmed, and not a moment longer.
//!
//! Must stay true: `glance` does not allocate; an outage never becomes an entry.

use super::denied::Outage;
use super::flights::Flights;
use super::owners::Mark;
use crate::telemetry::Moment;
use quick_cache::sync::Cache;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a row is believed while the store cannot be reached, unless told otherwise.
pub const STALE_FOR: Duration = Duration::from_secs(600);
/// How long a row is known to be unknown.
pub const UNKNOWN_FOR: Duration = Duration::from_secs(2);
/// How long one look-up may take, waiting included.
pub const LOOKUP_DEADLINE: Duration = Duration::from_millis(100);
/// A known row is asked for again after this, at the latest.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// How much earlier than [`FRESH_FOR`], by chance, so that rows loaded together do not return together.
const JITTER: Duration = Duration::from_secs(5);
/// The same while the change feed is silent.
const UNWATCHED_FOR: Duration = Duration::from_secs(1);
/// After a look-up that the store could not answer, rows that are believed anyway are not asked for
/// again so long: one request in a while pays for the outage, not one for each row.
const OUTAGE_REST: Duration = Duration::from_secs(1);
/// `checked_at` of a row that the next request asks for again.
const DUE: u64 = 0;

/// What a look-up says. An outage is not a bad credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// This is it.
    Known(T),
    /// Nobody can say.
    Unavailable(Outage),
    /// There is no such thing.
    Unknown,
}

/// A known row.
#[derive(Debug)]
pub(super) struct Entry<V> {
    pub(super) value: V,
    /// Shared by all rows of a consumer.
    mark: Arc<Mark>,
    loaded_at: Moment,
    fresh_for: Duration,
    /// When it was loaded, or last tried to be loaded again, in nanoseconds.
    checked_at: AtomicU64,
}

/// Now, and when the change feed last said that it is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) now: Moment,
    pub(super) feed: Option<Moment>,
    /// The feed is silent when it has not confirmed for this long.
    pub(super) silent_after: Duration,
    /// How long a row is believed after it was last confirmed.
    pub(super) stale_for: Duration,
}

impl Times {
    fn feed_is_live(self) -> bool {
        self.feed.is_some_and(|feed| self.now.since(feed) <= self.silent_after)
    }
}

impl<V> Entry<V> {
    pub(super) fn new(value: V, mark: Arc<Mark>, now: Moment) -> Self {
        let jitter = Duration::from_nanos(now.as_nanos()).as_micros() % JITTER.as_micros();
        let jitter = Duration::from_micros(u64::try_from(jitter).unwrap_or_default());
        Self {
            value,
            mark,
            loaded_at: now,
            fresh_for: FRESH_FOR.saturating_sub(jitter),
            checked_at: AtomicU64::new(now.as_nanos()),
        }
    }

    fn is_fresh(&self, times: Times) -> bool {
        let checked_at = self.checked_at.load(Ordering::Relaxed);
        let fresh_for = if times.feed_is_live() { self.fresh_for } else { UNWATCHED_FOR };
        self.is_believed(times)
            && checked_at != DUE
            && times.now.since(Moment::from_nanos(checked_at)) < fresh_for
    }

    fn is_believed(&self, times: Times) -> bool {
        let confirmed = times.feed.map_or(self.loaded_at, |feed| feed.max(self.loaded_at));
        times.now.since(confirmed) <= times.stale_for && !self.mark.is_void()
    }

    /// Whether it is this request that asks again.
    fn claim(&self, times: Times) -> bool {
        let seen = self.checked_at.load(Ordering::Relaxed);
        !self.is_fresh(times)
            && self
                .checked_at
                .compare_exchange(seen, times.now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// A look-up's result as it is shared.
pub(super) type Found<V> = Lookup<Arc<Entry<V>>>;

/// The cache for rows `V` by `K`.
pub(super) struct Shelf<K, V> {
    known: Cache<K, Arc<Entry<V>>>,
    unknown: Cache<K, Moment>,
    flights: Flights<K, Found<V>>,
    served_stale: AtomicU64,
    /// Until when nobody asks again for what is believed, in nanoseconds.
    resting_until: AtomicU64,
}

/// How many entries a shelf may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    pub(super) known: usize,
    pub(super) unknown: usize,
    pub(super) flights: usize,
}

impl<K: Eq + Hash + Clone, V> Shelf<K, V> {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self {
            known: Cache::new(capacity.known),
            unknown: Cache::new(capacity.unknown),
            flights: Flights::new(capacity.flights),
            served_stale: AtomicU64::new(0),
            resting_until: AtomicU64::new(0),
        }
    }

    /// What is at hand; `None` if the store has to be asked.
    pub(super) fn glance<Q>(&self, key: &Q, times: Times) -> Option<Found<V>>
    where
        Q: Hash + quick_cache::Equivalent<K> + ?Sized,
    {
        if let Some(entry) = self.known.get(key) {
            return entry.is_fresh(times).then_some(Lookup::Known(entry));
        }
        let until = self.unknown.get(key)?;
        (times.now < until).then_some(Lookup::Unknown)
    }

    /// What was known not long ago and is still believed, be it time to ask again or not.
    pub(super) fn remembered(&self, key: &K, times: Times) -> Option<Arc<Entry<V>>> {
        self.known.peek(key).filter(|entry| entry.is_believed(times))
    }

    /// What is at hand, or else what `load` says within [`LOOKUP_DEADLINE`], or else what was last
    /// known.
    pub(super) async fn find<F>(&self, key: &K, times: Times, load: impl FnOnce() -> F) -> Found<V>
    where
        F: Future<Output = Found<V>>,
    {
        let old = self.known.peek(key).filter(|entry| entry.is_believed(times));
        if let Some(entry) = old.as_ref().filter(|entry| !entry.claim(times)) {
            return Lookup::Known(Arc::clone(entry));
        }
        if let Some(entry) = old.as_ref().filter(|_| !self.may_ask(times.now)) {
            self.served_stale.fetch_add(1, Ordering::Relaxed);
            return Lookup::Known(Arc::clone(entry));
        }
        // Between the glance and the boarding, another flight may have landed.
        let flight = self.flights.fly(key, || async {
            match self.glance(key, times) {
                Some(found) if old.is_none() => found,
                _ => load().await,
            }
        });
        let found = match tokio::time::timeout(LOOKUP_DEADLINE, flight).await {
            Ok(Some(found)) => found,
            Ok(None) => Lookup::Unavailable(Outage::Busy),
            Err(_) => Lookup::Unavailable(Outage::Timeout),
        };
        if let Lookup::Unavailable(_) = &found {
            let until = (times.now + OUTAGE_REST).as_nanos();
            self.resting_until.fetch_max(until, Ordering::Relaxed);
        }
        match (found, old) {
            // It may have been voided while we asked.
            (Lookup::Unavailable(_), Some(entry))
                if self.known.contains_key(key) && entry.is_believed(times) =>
            {
                self.served_stale.fetch_add(1, Ordering::Relaxed);
                Lookup::Known(entry)
            }
            (found, _) => found,
        }
    }

    /// Whether a row that is believed anyway may be asked for. While the store is away, one request at
    /// a time finds out whether it is back.
    fn may_ask(&self, now: Moment) -> bool {
        let until = self.resting_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let next = (now + OUTAGE_REST).as_nanos();
        now.as_nanos() >= until
            && self
                .resting_until
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    pub(super) fn put_known(
        &self,
        key: K,
        value: V,
        mark: Arc<Mark>,
        now: Moment,
    ) -> Arc<Entry<V>> {
        let entry = Arc::new(Entry::new(value, mark, now));
        self.resting_until.store(0, Ordering::Relaxed);
        self.unknown.remove(&key);
        self.known.insert(key, Arc::clone(&entry));
        entry
    }

    pub(super) fn put_unknown(&self, key: K, now: Moment) {
        self.resting_until.store(0, Ordering::Relaxed);
        self.known.remove(&key);
        self.unknown.insert(key, now + UNKNOWN_FOR);
    }

    /// What stands there, fresh or not, unless it is void.
    pub(super) fn peek(&self, key: &K) -> Option<Arc<Entry<V>>> {
        self.known.peek(key).filter(|entry| !entry.mark.is_void())
    }

    /// Has the next request ask for a row again, while others go on with what there is.
    pub(super) fn ask_again(&self, key: &K) {
        if let Some(entry) = self.known.peek(key) {
            entry.checked_at.store(DUE, Ordering::Relaxed);
        }
    }

    /// Forgets one key.
    pub(super) fn forget(&self, key: &K) {
        self.known.remove(key);
        self.unknown.remove(key);
    }

    /// Whether a known row is such.
    pub(super) fn any_known(&self, is_such: impl Fn(&V) -> bool) -> bool {
        self.known.iter().any(|(_, entry)| !entry.mark.is_void() && is_such(&entry.value))
    }

    /// Forgets what is unknown.
    pub(super) fn forget_unknown(&self) {
        self.unknown.clear();
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.known.clear();
        self.unknown.clear();
    }

    /// How often a row was believed because the store could not be reached.
    pub(super) fn served_stale(&self) -> u64 {
        self.served_stale.load(Ordering::Relaxed)
    }

    /// Rows known and keys unknown.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.known.len(), self.unknown.len())
    }
}
