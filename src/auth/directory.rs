//! Keys and consumers as the request path sees them: a cache in front of a store.
//!
//! The store is a port with three answers. In front of it stand two shelves (`shelf.rs`), one
//! for keys and one for consumers by name, that the change feed ([`super::changes`]) keeps honest.
//!
//! Must stay true: a hit neither allocates nor waits; an answer older than a change that is already
//! in effect is never believed; an outage is never taken for "unknown".

use super::api_key::{KeyDigest, KeyId, PepperVersion};
use super::changes::{Change, ChangeKind, Marks};
use super::denied::Outage;
use super::identity::{Caller, Consumer, Credential, Fields, UnixTime};
use super::shelf::{Capacity, Entry, Found, Shelf, Times};
pub use super::shelf::{LOOKUP_DEADLINE, Lookup, STALE_FOR, UNKNOWN_FOR};
use crate::telemetry::{Clock, Moment};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A key's row, with its consumer's.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// By which it was found.
    pub id: KeyId,
    /// By which it is proved.
    pub digest: KeyDigest,
    /// The pepper of `digest`.
    pub pepper: PepperVersion,
    /// Whose it is.
    pub consumer: Arc<Consumer>,
    /// Its own plan, instead of the consumer's.
    pub plan: Option<Arc<str>>,
    /// What it may do.
    pub scopes: Arc<[Arc<str>]>,
    /// When it begins.
    pub not_before: Option<UnixTime>,
    /// When it ends.
    pub expires_at: Option<UnixTime>,
    /// When it was taken back.
    pub revoked_at: Option<UnixTime>,
}

/// A row, and the revision of the store that it was read at, in one statement.
#[derive(Clone, Debug)]
pub enum Answer<T> {
    /// This is it.
    Known {
        /// The row.
        row: T,
        /// Where the store stood.
        revision: u64,
    },
    /// Nobody can say.
    Unavailable(Outage),
    /// There is no such row.
    Unknown {
        /// Where the store stood.
        revision: u64,
    },
}

/// The port to whoever keeps keys and consumers, in one copy or in several.
///
/// Each copy answers within a deadline of its own, so that all of them together stay within
/// [`LOOKUP_DEADLINE`].
#[async_trait]
pub trait Source: Send + Sync {
    /// How many copies there are. The first is the nearest, and may be behind; the last is the
    /// authority. What a copy does not know, or no longer knows, the next one is asked.
    fn copies(&self) -> usize {
        1
    }

    /// The key of this id, as this copy has it.
    async fn look_up_key(&self, id: KeyId, copy: usize) -> Answer<KeyRecord>;

    /// The consumer of this name, as this copy has it.
    async fn look_up_consumer(&self, username: &str, copy: usize) -> Answer<Consumer>;
}

/// A key, ready to be compared.
#[derive(Debug)]
pub(super) struct KnownKey {
    pub(super) digest: KeyDigest,
    pub(super) pepper: PepperVersion,
    pub(super) not_before: Option<UnixTime>,
    pub(super) expires_at: Option<UnixTime>,
    pub(super) revoked_at: Option<UnixTime>,
    pub(super) caller: Arc<Caller>,
}

/// Keys known in process, and as many invented ones.
const KEYS: Capacity = Capacity { known: 50_000, unknown: 8_192, flights: 512 };
/// Consumers known in process by name.
const CONSUMERS: Capacity = Capacity { known: 50_000, unknown: 8_192, flights: 512 };
/// Answers from the past that are asked again before giving up.
const ATTEMPTS: usize = 3;
/// `confirmed_at` before the feed has spoken.
const NEVER: u64 = 0;

/// Keys and consumers, cached in front of a [`Source`]. Shared by all workers.
pub struct Directory {
    source: Arc<dyn Source>,
    clock: Clock,
    keys: Shelf<KeyId, KnownKey>,
    consumers: Shelf<Arc<str>, Arc<Consumer>>,
    /// Held while a row is put on a shelf, so that no change passes between check and put.
    marks: Mutex<Marks>,
    confirmed_at: AtomicU64,
}

impl Directory {
    /// An empty cache in front of `source`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, clock: Clock) -> Self {
        Self {
            source,
            clock,
            keys: Shelf::new(KEYS),
            consumers: Shelf::new(CONSUMERS),
            marks: Mutex::default(),
            confirmed_at: AtomicU64::new(NEVER),
        }
    }

    /// Voids what `changes` name. They are all there is up to `revision`, read at `asked_at`.
    pub fn apply(&self, revision: u64, changes: &[Change], asked_at: Moment) {
        let consumers: HashSet<&str> = changes
            .iter()
            .filter(|change| change.kind == ChangeKind::Consumer)
            .map(|change| &*change.id)
            .collect();
        let mut marks = self.marks.lock();
        marks.note(revision, changes);
        for change in changes.iter().filter(|change| change.kind == ChangeKind::Key) {
            if let Ok(id) = change.id.parse() {
                self.keys.forget(&id);
            }
        }
        if !consumers.is_empty() {
            self.keys.forget_known(|key| consumers.contains(&*key.caller.consumer.id));
            self.consumers.forget_known(|consumer| consumers.contains(&*consumer.id));
            // A change names ids, and what is unknown has none.
            self.consumers.forget_unknown();
        }
        self.confirm(asked_at);
    }

    /// Voids everything: the store stood at `revision` at `asked_at`, and what led there is not known.
    pub fn reset(&self, revision: u64, asked_at: Moment) {
        let mut marks = self.marks.lock();
        marks.reset(revision);
        self.keys.clear();
        self.consumers.clear();
        self.confirm(asked_at);
    }

    /// How often a row was believed because the store could not be reached.
    #[must_use]
    pub fn served_stale(&self) -> u64 {
        self.keys.served_stale() + self.consumers.served_stale()
    }

    /// Since when nothing has confirmed that cached rows are current; `None` before the first time.
    #[must_use]
    pub fn confirmed_at(&self) -> Option<Moment> {
        match self.confirmed_at.load(Ordering::Relaxed) {
            NEVER => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    fn confirm(&self, at: Moment) {
        self.confirmed_at.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }

    fn times(&self) -> Times {
        Times { now: self.clock.now(), feed: self.confirmed_at() }
    }

    /// The key, if it is at hand.
    pub(super) fn glance_key(&self, id: KeyId) -> Option<Found<KnownKey>> {
        self.keys.glance(&id, self.times())
    }

    /// The key.
    pub(super) async fn find_key(&self, id: KeyId) -> Found<KnownKey> {
        self.keys.find(&id, self.times(), || self.load_key(id)).await
    }

    /// The consumer of this name, if it is at hand.
    pub(super) fn glance_consumer(&self, username: &str) -> Option<Found<Arc<Consumer>>> {
        self.consumers.glance(username, self.times())
    }

    /// The consumer of this name.
    pub(super) async fn find_consumer(&self, username: &Arc<str>) -> Found<Arc<Consumer>> {
        self.consumers.find(username, self.times(), || self.load_consumer(username)).await
    }

    async fn load_key(&self, id: KeyId) -> Found<KnownKey> {
        for _ in 0..ATTEMPTS {
            let now = self.clock.now();
            match self.source.look_up_key(id, 0).await {
                Answer::Unavailable(outage) => return Lookup::Unavailable(outage),
                Answer::Unknown { revision } => {
                    let marks = self.marks.lock();
                    if marks.allow(revision, |change| names_key(change, id)) {
                        self.keys.put_unknown(id, now);
                        return Lookup::Unknown;
                    }
                }
                Answer::Known { row, revision } => {
                    let consumer = Arc::clone(&row.consumer.id);
                    let marks = self.marks.lock();
                    let current = marks.allow(revision, |change| {
                        names_key(change, id) || names_consumer(change, &consumer)
                    });
                    if current {
                        let known = self.known_key(row);
                        return Lookup::Known(self.keys.put_known(id, known, now));
                    }
                }
            }
        }
        Lookup::Unavailable(Outage::Behind)
    }

    async fn load_consumer(&self, username: &Arc<str>) -> Found<Arc<Consumer>> {
        for _ in 0..ATTEMPTS {
            let now = self.clock.now();
            match self.source.look_up_consumer(username, 0).await {
                Answer::Unavailable(outage) => return Lookup::Unavailable(outage),
                Answer::Unknown { revision } => {
                    let marks = self.marks.lock();
                    if marks.allow(revision, |change| change.kind == ChangeKind::Consumer) {
                        self.consumers.put_unknown(Arc::clone(username), now);
                        return Lookup::Unknown;
                    }
                }
                Answer::Known { row, revision } => {
                    let marks = self.marks.lock();
                    if marks.allow(revision, |change| names_consumer(change, &row.id)) {
                        let row = self.same_consumer(username, row);
                        let name = Arc::clone(username);
                        return Lookup::Known(self.consumers.put_known(name, row, now));
                    }
                }
            }
        }
        Lookup::Unavailable(Outage::Behind)
    }

    /// The row as it is compared. An unchanged caller stays the same one.
    fn known_key(&self, row: KeyRecord) -> KnownKey {
        let caller = Caller {
            plan: row.plan.unwrap_or_else(|| Arc::clone(&row.consumer.plan)),
            consumer: row.consumer,
            credential: Credential::ApiKey(row.id.as_str().into()),
            scopes: row.scopes,
            fields: Fields::default(),
        };
        let old = self.keys.peek(&row.id).filter(|old| *old.value.caller == caller);
        KnownKey {
            digest: row.digest,
            pepper: row.pepper,
            not_before: row.not_before,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            caller: old.map_or_else(|| Arc::new(caller), |old| Arc::clone(&old.value.caller)),
        }
    }

    /// The same consumer as before if nothing changed, so that callers made of it stay valid.
    fn same_consumer(&self, username: &Arc<str>, row: Consumer) -> Arc<Consumer> {
        match self.consumers.peek(username) {
            Some(old) if *old.value == row => Arc::clone(&old.value),
            _ => Arc::new(row),
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("keys", &self.keys.sizes())
            .field("consumers", &self.consumers.sizes())
            .finish_non_exhaustive()
    }
}

fn names_key(change: &Change, id: KeyId) -> bool {
    change.kind == ChangeKind::Key && *change.id == *id.as_str()
}

fn names_consumer(change: &Change, id: &str) -> bool {
    change.kind == ChangeKind::Consumer && *change.id == *id
}

/// A key as it is cached.
pub(super) type KeyEntry = Arc<Entry<KnownKey>>;
