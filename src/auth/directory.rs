//! Keys and consumers as the request path sees them: a cache in front of a store.
//!
//! The store is a port (`source.rs`). In front of it stand two shelves (`shelf.rs`), one for keys and
//! one for consumers by name, that the change feed ([`super::changes`]) keeps honest.
//!
//! Must stay true: a hit neither allocates nor waits; an answer older than a change that is already
//! in effect is never believed; an outage is never taken for "unknown".

use super::api_key::KeyId;
pub use super::capacity::{Settings, Vitals};
use super::certificates::CERTIFICATES;
use super::changes::{Change, ChangeKind, Marks, Reset};
use super::denials::Denial;
use super::denied::Outage;
use super::deny_list::DenyList;
use super::identity::{Caller, Consumer, Credential, Fields, UnixTime};
use super::jwt::Verified;
use super::known_key::{KeyEntry, KnownKey};
use super::shelf::{Found, Shelf, Times};
pub use super::shelf::{LOOKUP_DEADLINE, Lookup, STALE_FOR, UNKNOWN_FOR};
pub use super::source::{Answer, KeyRecord, Source};
use super::uses::{KeyUse, Uses};
use crate::telemetry::{Clock, Moment};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Answers of the authority from the past that are asked again before giving up.
const ATTEMPTS: usize = 3;
/// `confirmed_at` before the feed has spoken.
const NEVER: u64 = 0;

/// Keys and consumers, cached in front of a [`Source`], and the deny list. Shared by all workers.
pub struct Directory {
    source: Arc<dyn Source>,
    clock: Clock,
    settings: Settings,
    keys: Shelf<KeyId, KnownKey>,
    consumers: Shelf<Arc<str>, Arc<Consumer>>,
    denied: DenyList,
    /// Where the use of keys is noted.
    pub(super) uses: Uses,
    /// Held while a row is put on a shelf, so that no change passes between check and put.
    marks: Mutex<Marks>,
    confirmed_at: AtomicU64,
    /// Counts new histories: a row that was asked for in one says nothing in the next.
    histories: AtomicU64,
    loaded: AtomicU64,
    unavailable: AtomicU64,
}

impl Directory {
    /// An empty cache in front of `source`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, clock: Clock) -> Self {
        Self::with_settings(source, Settings::default(), clock)
    }

    /// An empty cache of this size in front of `source`.
    #[must_use]
    pub fn with_settings(source: Arc<dyn Source>, settings: Settings, clock: Clock) -> Self {
        Self {
            source,
            clock,
            settings,
            keys: Shelf::new(settings.capacity()),
            consumers: Shelf::new(settings.capacity()),
            denied: DenyList::default(),
            uses: Uses::default(),
            marks: Mutex::default(),
            confirmed_at: AtomicU64::new(NEVER),
            histories: AtomicU64::new(0),
            loaded: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
        }
    }

    /// Voids what `changes` name. They are all there is up to `revision`, read at `asked_at`.
    pub fn apply(&self, revision: u64, changes: &[Change], asked_at: Moment) {
        let mut marks = self.marks.lock();
        marks.note(revision, changes);
        for change in changes {
            match change.kind {
                ChangeKind::Consumer => {
                    marks.owners.void(&change.id);
                    // A change names ids, and what is unknown has none.
                    self.consumers.forget_unknown();
                }
                ChangeKind::Key => {
                    if let Ok(id) = change.id.parse() {
                        self.keys.forget(&id);
                    }
                }
                // Rows of these kinds are not in here.
                ChangeKind::Plan | ChangeKind::Policy | ChangeKind::Token => {}
            }
        }
        self.confirm(asked_at);
    }

    /// Voids everything: the store was asked at `asked_at`, and what led to where it stands is not
    /// known.
    ///
    /// Answers with the changes that were in effect here and that a new history of the store lacks.
    /// The rows that they touched are refused until they are written again, but for those that are
    /// seen to have been good after the change.
    pub fn reset(&self, reset: &Reset, asked_at: Moment) -> Vec<Change> {
        let mut marks = self.marks.lock();
        self.histories.fetch_add(u64::from(reset.new_epoch), Ordering::Relaxed);
        self.source.begin_history(reset.history);
        let lost = marks.reset(reset);
        for change in lost.iter().filter(|change| !self.was_good_after(change)) {
            marks.doubt(change);
        }
        marks.owners.clear();
        self.keys.clear();
        self.consumers.clear();
        self.confirm(asked_at);
        lost
    }

    /// Whether the row that a change touched was read again since, and had not been taken back.
    fn was_good_after(&self, change: &Change) -> bool {
        match change.kind {
            ChangeKind::Key => {
                change.id.parse().ok().and_then(|id| self.keys.peek(&id)).is_some_and(|entry| {
                    entry.value.revoked_at.is_none() && entry.value.expires_at.is_none()
                })
            }
            ChangeKind::Consumer => {
                let enabled = |consumer: &Consumer| consumer.id == change.id && consumer.enabled;
                self.keys.any_known(|key| enabled(&key.caller.consumer))
                    || self.consumers.any_known(|consumer| enabled(consumer))
            }
            // Rows of these kinds are not in here.
            ChangeKind::Plan | ChangeKind::Policy | ChangeKind::Token => true,
        }
    }

    /// Puts the deny list in effect. With `keep`, entries stay that are not among these.
    pub fn set_denied(&self, entries: Vec<Denial>, keep: bool) {
        self.denied.set(entries, keep, UnixTime::now(&self.clock));
    }

    /// Whether a verified token is taken back.
    pub(super) fn denies(&self, token: &Verified) -> bool {
        self.denied.denies(token)
    }

    /// Whether a certificate is taken back.
    pub(super) fn denies_certificate(
        &self,
        fingerprint: &str,
        subject: &str,
        begins_at: i64,
    ) -> bool {
        self.denied.names(CERTIFICATES, Some(fingerprint), subject, Some(begins_at))
    }

    /// Takes what is to be noted of the use of keys.
    #[must_use]
    pub fn drain_uses(&self) -> Vec<KeyUse> {
        self.uses.drain()
    }

    /// The row of this key has changed without a change of the feed: it is asked for soon.
    pub fn ask_again(&self, id: &KeyId) {
        self.keys.ask_again(id);
    }

    /// What the caches hold and what became of them.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let (keys, unknown_keys) = self.keys.sizes();
        let (consumers, _) = self.consumers.sizes();
        Vitals {
            keys,
            unknown_keys,
            consumers,
            denied: self.denied.len(),
            served_stale: self.keys.served_stale() + self.consumers.served_stale(),
            loaded: self.loaded.load(Ordering::Relaxed),
            unavailable: self.unavailable.load(Ordering::Relaxed),
        }
    }

    /// How long a row is believed while the store cannot be reached.
    #[must_use]
    pub const fn stale_for(&self) -> Duration {
        self.settings.stale_for
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
        Times {
            now: self.clock.now(),
            feed: self.confirmed_at(),
            silent_after: self.settings.silent_after,
            stale_for: self.settings.stale_for,
        }
    }

    /// The key, if it is at hand.
    pub(super) fn glance_key(&self, id: KeyId) -> Option<Found<KnownKey>> {
        self.keys.glance(&id, self.times())
    }

    /// The key as it was known not long ago.
    pub(super) fn remembered_key(&self, id: KeyId) -> Option<KeyEntry> {
        self.keys.remembered(&id, self.times())
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
        for copy in self.copies() {
            let (now, history) = (self.clock.now(), self.history());
            match self.source.look_up_key(id, copy).await {
                Answer::Unavailable(outage) if self.is_authority(copy) => return self.fail(outage),
                Answer::Unavailable(_) | Answer::Absent => {}
                Answer::Unknown { revision } => {
                    let marks = self.marks.lock();
                    let current =
                        marks.allow(revision, |change| change.names(ChangeKind::Key, id.as_str()));
                    if current && self.is_ours(&marks, copy, revision, history) {
                        self.keys.put_unknown(id, now);
                        self.loaded.fetch_add(1, Ordering::Relaxed);
                        return Lookup::Unknown;
                    }
                }
                Answer::Known { row, revision } => {
                    let consumer = Arc::clone(&row.consumer.id);
                    let mut marks = self.marks.lock();
                    let current = marks.allow(revision, |change| {
                        change.names(ChangeKind::Key, id.as_str())
                            || change.names(ChangeKind::Consumer, &consumer)
                    });
                    if current && self.is_ours(&marks, copy, revision, history) {
                        let known = self.known_key(self.doubt_key(&marks, row));
                        self.loaded.fetch_add(1, Ordering::Relaxed);
                        let mark = marks.owners.mark(&consumer);
                        return Lookup::Known(self.keys.put_known(id, known, mark, now));
                    }
                }
            }
        }
        self.fail(Outage::Behind)
    }

    async fn load_consumer(&self, username: &Arc<str>) -> Found<Arc<Consumer>> {
        for copy in self.copies() {
            let (now, history) = (self.clock.now(), self.history());
            match self.source.look_up_consumer(username, copy).await {
                Answer::Unavailable(outage) if self.is_authority(copy) => return self.fail(outage),
                Answer::Unavailable(_) | Answer::Absent => {}
                Answer::Unknown { revision } => {
                    let marks = self.marks.lock();
                    let any = |change: &Change| change.kind == ChangeKind::Consumer;
                    let current = marks.allow(revision, any);
                    if current && self.is_ours(&marks, copy, revision, history) {
                        self.consumers.put_unknown(Arc::clone(username), now);
                        self.loaded.fetch_add(1, Ordering::Relaxed);
                        return Lookup::Unknown;
                    }
                }
                Answer::Known { row, revision } => {
                    let mut marks = self.marks.lock();
                    let current =
                        marks.allow(revision, |change| change.names(ChangeKind::Consumer, &row.id));
                    if current && self.is_ours(&marks, copy, revision, history) {
                        let row = self.same_consumer(username, doubt_consumer(&marks, row));
                        let name = Arc::clone(username);
                        self.loaded.fetch_add(1, Ordering::Relaxed);
                        let mark = marks.owners.mark(&row.id);
                        return Lookup::Known(self.consumers.put_known(name, row, mark, now));
                    }
                }
            }
        }
        self.fail(Outage::Behind)
    }

    /// Whether an answer belongs to the history that is followed here now.
    fn is_ours(&self, marks: &Marks, copy: usize, revision: u64, asked_in: u64) -> bool {
        self.history() == asked_in && (self.is_authority(copy) || marks.may_share_history(revision))
    }

    /// Changes only while `marks` is held.
    fn history(&self) -> u64 {
        self.histories.load(Ordering::Relaxed)
    }

    /// The copies in the order in which they are asked: the nearest first, the authority until it has
    /// caught up with what is known here.
    fn copies(&self) -> impl Iterator<Item = usize> + use<> {
        let last = self.source.copies().saturating_sub(1);
        (0..last).chain(std::iter::repeat_n(last, ATTEMPTS))
    }

    fn is_authority(&self, copy: usize) -> bool {
        copy + 1 >= self.source.copies()
    }

    fn fail<V>(&self, outage: Outage) -> Lookup<V> {
        self.unavailable.fetch_add(1, Ordering::Relaxed);
        Lookup::Unavailable(outage)
    }

    /// What a lost change had touched counts as taken back.
    fn doubt_key(&self, marks: &Marks, mut row: KeyRecord) -> KeyRecord {
        if marks.doubts(ChangeKind::Key, row.id.as_str()) {
            row.revoked_at = row.revoked_at.or(Some(UnixTime::now(&self.clock)));
        }
        if marks.doubts(ChangeKind::Consumer, &row.consumer.id) {
            row.consumer = Arc::new(Consumer { enabled: false, ..(*row.consumer).clone() });
        }
        row
    }

    /// The row as it is compared. An unchanged caller stays the same one.
    fn known_key(&self, row: KeyRecord) -> KnownKey {
        let caller = Caller {
            plan: row.plan.unwrap_or_else(|| Arc::clone(&row.consumer.plan)),
            consumer: row.consumer,
            credential: Credential::ApiKey(row.id.as_str().into()),
            scopes: row.scopes,
            claims: Arc::default(),
            fields: Fields::default(),
        };
        let old = self.keys.peek(&row.id);
        let last_use = old.as_ref().map(|old| Arc::clone(&old.value.last_use)).unwrap_or_default();
        let old = old.filter(|old| *old.value.caller == caller);
        KnownKey {
            digest: row.digest,
            pepper: row.pepper,
            not_before: row.not_before,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            addresses: row.addresses,
            last_use,
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

fn doubt_consumer(marks: &Marks, row: Consumer) -> Consumer {
    let enabled = row.enabled && !marks.doubts(ChangeKind::Consumer, &row.id);
    Consumer { enabled, ..row }
}
