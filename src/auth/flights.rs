//! One look-up per key at a time, however many requests ask for it.
//!
//! Whoever comes first leads: its request does the look-up, the others wait for the answer. A leader
//! that goes away (its client hung up) hands over to one of those who wait. Waiting works across
//! runtimes, since workers share the directory.
//!
//! Must stay true: the number of look-ups in the air is bounded; no lock is held across an await.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// Look-ups in the air, by key.
pub(super) struct Flights<K, T> {
    open: Mutex<HashMap<K, Arc<Flight<T>>>>,
    max: usize,
}

struct Flight<T> {
    /// Empty when the leader went away.
    result: OnceLock<Option<T>>,
    landed: Notify,
}

enum Boarding<'f, K: Eq + Hash + Clone, T> {
    Leading(Leader<'f, K, T>),
    Following(Arc<Flight<T>>),
    Full,
}

impl<K: Eq + Hash + Clone, T: Clone> Flights<K, T> {
    pub(super) fn new(max: usize) -> Self {
        Self { open: Mutex::new(HashMap::new()), max }
    }

    /// The answer of `load`, or of a look-up for the same key that is already in the air; `None`
    /// if there are too many.
    pub(super) async fn fly<F>(&self, key: &K, load: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T>,
    {
        loop {
            match self.board(key) {
                Boarding::Full => return None,
                Boarding::Following(flight) => {
                    if let Some(result) = flight.wait().await {
                        return Some(result);
                    }
                }
                Boarding::Leading(leader) => {
                    let result = load().await;
                    leader.land(result.clone());
                    return Some(result);
                }
            }
        }
    }

    fn board(&self, key: &K) -> Boarding<'_, K, T> {
        let mut open = self.open.lock();
        let count = open.len();
        match open.entry(key.clone()) {
            Entry::Occupied(entry) => Boarding::Following(Arc::clone(entry.get())),
            Entry::Vacant(_) if count >= self.max => Boarding::Full,
            Entry::Vacant(entry) => {
                let flight = Arc::new(Flight { result: OnceLock::new(), landed: Notify::new() });
                entry.insert(Arc::clone(&flight));
                Boarding::Leading(Leader { flights: self, key: key.clone(), flight })
            }
        }
    }
}

impl<T: Clone> Flight<T> {
    /// The leader's answer; `None` if it went away.
    async fn wait(&self) -> Option<T> {
        let landed = self.landed.notified();
        tokio::pin!(landed);
        // From here on a landing is not missed, even before the first poll.
        landed.as_mut().enable();
        if let Some(result) = self.result.get() {
            return result.clone();
        }
        landed.await;
        self.result.get().cloned().flatten()
    }
}

/// Ends the flight, in every case.
struct Leader<'f, K: Eq + Hash + Clone, T> {
    flights: &'f Flights<K, T>,
    key: K,
    flight: Arc<Flight<T>>,
}

impl<K: Eq + Hash + Clone, T> Leader<'_, K, T> {
    fn land(self, result: T) {
        self.flight.result.get_or_init(|| Some(result));
    }
}

impl<K: Eq + Hash + Clone, T> Drop for Leader<'_, K, T> {
    fn drop(&mut self) {
        self.flights.open.lock().remove(&self.key);
        self.flight.result.get_or_init(|| None);
        self.flight.landed.notify_waiters();
    }
}
