//! Public keys that a URL holds: who has them, when they are asked for, and who waits for that.
//!
//! The fetching itself is work beside requests (`tasks`). Here stands what both sides must agree on:
//! keys that were good stay until others come, one question to a URL is under way at a time, and a
//! token with an unknown `kid` is no way to make us ask more often than once in a while.
//!
//! Must stay true: keys outlive configurations, so that a reload does not lose them; a request that
//! waits here has a deadline; nothing is asked because of tokens more than once per [`COOL_DOWN`].

use super::jwks::Jwks;
use super::jwks_source::JwksSource;
use super::key::KeySet;
use crate::telemetry::{Clock, Moment};
use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// Between two questions that are asked because of a token.
pub const COOL_DOWN: Duration = Duration::from_secs(30);
/// How long a request waits for the keys that its token needs.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// The least and the most between two tries after failures.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The shortest time for which an answer is believed, whatever it says itself.
const SHORTEST: Duration = Duration::from_secs(60);

/// What came of a question.
#[derive(Debug)]
pub enum Fetched {
    /// A set.
    Set {
        /// What was read.
        jwks: Jwks,
        /// The version that the server names.
        etag: Option<String>,
        /// How long the server says it holds.
        max_age: Option<Duration>,
    },
    /// The same as before.
    Unchanged {
        /// How long the server says it holds.
        max_age: Option<Duration>,
    },
}

/// What a settled question changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing to tell.
    Quiet,
    /// It fails for the first time since it did not.
    BeginsToFail,
    /// Other keys than before, or the first ones.
    NewKeys,
    /// It works again.
    Recovered,
}

/// The keys of one URL.
pub struct RemoteKeys {
    source: Arc<JwksSource>,
    keys: ArcSwapOption<KeySet>,
    state: Mutex<State>,
    /// Counts questions that have ended.
    ended: watch::Sender<u64>,
    shared: Arc<Shared>,
}

/// What all sources share.
struct Shared {
    clock: Clock,
    /// Wakes who asks.
    wake: Notify,
    changed: AtomicU64,
    unchanged: AtomicU64,
    failed: AtomicU64,
}

struct State {
    refresh: Duration,
    /// When to ask next; `None` while nothing was ever asked.
    due: Option<Moment>,
    /// When a token last made us ask.
    asked_for: Option<Moment>,
    is_wanted: bool,
    is_running: bool,
    failures: u32,
    etag: Option<String>,
}

impl RemoteKeys {
    fn new(source: Arc<JwksSource>, refresh: Duration, shared: Arc<Shared>) -> Self {
        Self {
            source,
            keys: ArcSwapOption::empty(),
            state: Mutex::new(State {
                refresh,
                due: None,
                asked_for: None,
                is_wanted: false,
                is_running: false,
                failures: 0,
                etag: None,
            }),
            ended: watch::Sender::new(0),
            shared,
        }
    }

    /// Where they come from.
    #[must_use]
    pub const fn source(&self) -> &Arc<JwksSource> {
        &self.source
    }

    /// The keys at the moment; `None` before the first came.
    #[must_use]
    pub fn current(&self) -> Guard<Option<Arc<KeySet>>> {
        self.keys.load()
    }

    /// Whether nobody can say now which keys there are: none came yet, or the last question failed.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.keys.load().is_none() || self.state.lock().failures > 0
    }

    /// Asks for keys that a token needs, unless that was done of late: `None` then. What comes back
    /// completes with the answer.
    pub(super) fn ask(&self) -> Option<watch::Receiver<u64>> {
        let now = self.shared.clock.now();
        let mut state = self.state.lock();
        if !state.is_running && !state.is_wanted {
            if state.asked_for.is_some_and(|last| now.since(last) < COOL_DOWN) {
                return None;
            }
            state.is_wanted = true;
            state.asked_for = Some(now);
            self.shared.wake.notify_one();
        }
        // Subscribed under the lock: an answer that comes now is not missed.
        Some(self.ended.subscribe())
    }

    /// When it has to be asked next.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        let state = self.state.lock();
        match (state.is_running, state.is_wanted) {
            (true, _) => None,
            (false, true) => Some(Moment::default()),
            (false, false) => Some(state.due.unwrap_or_default()),
        }
    }

    /// Begins to ask; returns the version that is here already. Whoever begins, settles.
    pub fn begin(&self) -> Option<String> {
        let mut state = self.state.lock();
        state.is_running = true;
        state.is_wanted = false;
        state.etag.clone()
    }

    /// What came of the question that was begun; `jitter` between 0.9 and 1.1 keeps a fleet from
    /// asking in step.
    pub fn settle(&self, fetched: Option<Fetched>, jitter: f64) -> Settled {
        let shared = &self.shared;
        let mut state = self.state.lock();
        state.is_running = false;
        let failed_before = state.failures > 0;
        let (counter, pause, settled) = match fetched {
            Some(Fetched::Set { jwks, etag, max_age }) => {
                state.failures = 0;
                state.etag = etag;
                let keys = Arc::new(jwks.keys);
                let before = self.keys.load();
                let same = before.as_ref().is_some_and(|before| *before == keys);
                if before.is_none() {
                    // What was asked for were any keys, not one that is unknown.
                    state.asked_for = None;
                }
                if !same {
                    self.keys.store(Some(keys));
                }
                let settled = if same { Settled::Quiet } else { Settled::NewKeys };
                (&shared.changed, state.pause(max_age), settled)
            }
            Some(Fetched::Unchanged { max_age }) => {
                state.failures = 0;
                (&shared.unchanged, state.pause(max_age), Settled::Quiet)
            }
            None => {
                let pause = RETRY.0.saturating_mul(1 << state.failures.min(6)).min(RETRY.1);
                state.failures = state.failures.saturating_add(1);
                let first = if failed_before { Settled::Quiet } else { Settled::BeginsToFail };
                (&shared.failed, pause, first)
            }
        };
        state.due = Some(shared.clock.now() + pause.mul_f64(jitter));
        counter.fetch_add(1, Ordering::Relaxed);
        let recovered = failed_before && state.failures == 0;
        drop(state);
        self.ended.send_modify(|count| *count += 1);
        match settled {
            Settled::Quiet if recovered => Settled::Recovered,
            settled => settled,
        }
    }
}

impl State {
    /// Until the next question: as the file says, or sooner where the server says so.
    fn pause(&self, max_age: Option<Duration>) -> Duration {
        max_age.map_or(self.refresh, |age| age.max(SHORTEST).min(self.refresh))
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = format_args!("{}", self.source.url);
        f.debug_struct("RemoteKeys").field("url", &url).finish_non_exhaustive()
    }
}

/// What the sources count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Sets that came.
    pub changed: u64,
    /// Answers that nothing had changed.
    pub unchanged: u64,
    /// Questions that failed.
    pub failed: u64,
    /// Sources in use whose last question was answered.
    pub fresh: u64,
    /// Sources in use that fail, and whose keys are those of before.
    pub stale: u64,
    /// Sources in use that have no keys yet.
    pub missing: u64,
}

/// The keys of all URLs, as long as a configuration uses them.
pub struct RemoteKeySets {
    known: Mutex<HashMap<Arc<JwksSource>, Weak<RemoteKeys>>>,
    shared: Arc<Shared>,
}

impl RemoteKeySets {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let counter = AtomicU64::default;
        let shared = Shared {
            clock,
            wake: Notify::new(),
            changed: counter(),
            unchanged: counter(),
            failed: counter(),
        };
        Self { known: Mutex::default(), shared: Arc::new(shared) }
    }

    /// The keys of `source`, which are asked for soon if that is a new one.
    pub(super) fn find_or_add(
        &self,
        source: &Arc<JwksSource>,
        refresh: Duration,
    ) -> Arc<RemoteKeys> {
        let mut known = self.known.lock();
        known.retain(|_, keys| keys.strong_count() > 0);
        if let Some(keys) = known.get(source).and_then(Weak::upgrade) {
            let mut state = keys.state.lock();
            state.refresh = refresh;
            let soonest = self.shared.clock.now() + refresh;
            state.due = state.due.map(|due| due.min(soonest));
            drop(state);
            return keys;
        }
        let shared = Arc::clone(&self.shared);
        let keys = Arc::new(RemoteKeys::new(Arc::clone(source), refresh, shared));
        known.insert(Arc::clone(source), Arc::downgrade(&keys));
        self.shared.wake.notify_one();
        keys
    }

    /// Those that a configuration uses.
    #[must_use]
    pub fn in_use(&self) -> Vec<Arc<RemoteKeys>> {
        self.known.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Completes when there may be something to ask for before it is due.
    pub async fn wanted(&self) {
        self.shared.wake.notified().await;
    }

    /// Waits until every source in use was asked once, but not longer than `patience`.
    pub async fn first_look(&self, patience: Duration) {
        let all = async {
            for keys in self.in_use() {
                let mut ended = keys.ended.subscribe();
                // The sender lives as long as `keys`.
                drop(ended.wait_for(|count| *count > 0).await);
            }
        };
        tokio::select! {
            () = all => {}
            () = sleep(patience) => {}
        }
    }

    /// What they count.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut vitals = Vitals {
            changed: count(&self.shared.changed),
            unchanged: count(&self.shared.unchanged),
            failed: count(&self.shared.failed),
            ..Vitals::default()
        };
        for keys in self.in_use() {
            match (keys.current().is_some(), keys.is_in_doubt()) {
                (false, _) => vitals.missing += 1,
                (true, true) => vitals.stale += 1,
                (true, false) => vitals.fresh += 1,
            }
        }
        vitals
    }
}

impl fmt::Debug for RemoteKeySets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeySets").field("in_use", &self.in_use()).finish()
    }
}
