//! A cache between the tasks of a fleet and their store: the first copy of a source.
//!
//! What one task has read from the store, the others find here for a minute at most. An entry holds the
//! revision that it was read at, so the directory tells by the changes whether it is still believed,
//! as it does for a replica. Only rows are kept, never that there is none. A revision means something
//! in one history of the store only, so the history is part of an entry's name: after a promotion
//! nothing that was kept before it is found.
//!
//! Must stay true: an entry is sealed with a key that comes from the pepper, so whoever can write to the
//! cache can invent no key; its name is a hash under that key and says nothing.

use crate::auth::api_key::{KeyDigest, KeyId, PepperVersion, keyed};
use crate::auth::directory::{Answer, KeyRecord, Source};
use crate::auth::{Consumer, Outage, UnixTime, parse_network};
use async_trait::async_trait;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// The longest that an entry may live: the changes of the last ten minutes are known to every task.
pub const LONGEST_LIFE: Duration = Duration::from_secs(60);
/// Bytes of a seal.
const SEAL: usize = 32;
/// Entries of keys, in the form that knows of networks. Those of the form before have another name, so
/// that in a deployment old and new tasks do not overwrite each other's; and none of them is opened,
/// since it would let a key in from anywhere.
const KEYS: &str = "key 2";

/// Name of an entry.
pub type EntryName = [u8; 16];

/// The port to whatever the tasks share.
#[async_trait]
pub trait RowCache: Send + Sync {
    /// An entry, if there is one; within a deadline of the cache's own.
    async fn get(&self, name: &EntryName) -> Result<Option<Vec<u8>>, Outage>;

    /// Keeps an entry for so long, as well as it can; waits for nothing.
    fn put(&self, name: &EntryName, value: Vec<u8>, life: Duration);
}

/// A source behind a cache.
pub struct Cached {
    source: Arc<dyn Source>,
    cache: Arc<dyn RowCache>,
    seal: Seal,
    life: Duration,
    history: AtomicU64,
}

impl Cached {
    /// Puts `cache` before `source`. Entries live for `life`, at most [`LONGEST_LIFE`]; `secret` comes
    /// from the pepper.
    #[must_use]
    pub fn new(
        source: Arc<dyn Source>,
        cache: Arc<dyn RowCache>,
        secret: &[u8; 32],
        life: Duration,
    ) -> Self {
        let (seal, life) = (Seal::new(secret), life.min(LONGEST_LIFE));
        Self { source, cache, seal, life, history: AtomicU64::new(0) }
    }

    fn name(&self, kind: &str, id: &str) -> EntryName {
        self.seal.name(self.history.load(Ordering::Relaxed), kind, id)
    }

    async fn find<T>(&self, name: EntryName, read: impl FnOnce(Row) -> Option<T>) -> Answer<T> {
        match self.cache.get(&name).await {
            Ok(Some(sealed)) => match self.seal.open(&name, &sealed) {
                Some(Entry { revision, row }) => match read(row) {
                    Some(row) => Answer::Known { row, revision },
                    None => Answer::Absent,
                },
                None => Answer::Absent,
            },
            Ok(None) => Answer::Absent,
            Err(outage) => Answer::Unavailable(outage),
        }
    }

    fn keep(&self, name: EntryName, revision: u64, row: Row) {
        if let Some(sealed) = self.seal.close(&name, &Entry { revision, row }) {
            self.cache.put(&name, sealed, self.life);
        }
    }
}

#[async_trait]
impl Source for Cached {
    fn copies(&self) -> usize {
        self.source.copies() + 1
    }

    fn begin_history(&self, history: u64) {
        self.history.store(history, Ordering::Relaxed);
        self.source.begin_history(history);
    }

    async fn look_up_key(&self, id: KeyId, copy: usize) -> Answer<KeyRecord> {
        // Before the row is read: one that arrives in another history is kept where nobody finds it.
        let name = self.name(KEYS, id.as_str());
        let Some(behind) = copy.checked_sub(1) else {
            return self.find(name, |row| row.into_key(id)).await;
        };
        let answer = self.source.look_up_key(id, behind).await;
        if let Answer::Known { row, revision } = &answer {
            self.keep(name, *revision, Row::of_key(row));
        }
        answer
    }

    async fn look_up_consumer(&self, username: &str, copy: usize) -> Answer<Consumer> {
        let name = self.name("consumer", username);
        let Some(behind) = copy.checked_sub(1) else {
            return self.find(name, |row| row.into_consumer(username)).await;
        };
        let answer = self.source.look_up_consumer(username, behind).await;
        if let Answer::Known { row, revision } = &answer {
            self.keep(name, *revision, Row::Consumer(ConsumerRow::of(row)));
        }
        answer
    }
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("life", &self.life).finish_non_exhaustive()
    }
}

/// Names and seals entries.
struct Seal {
    names: Hmac<Sha256>,
    values: Hmac<Sha256>,
}

impl Seal {
    fn new(secret: &[u8; 32]) -> Self {
        let purpose = |text: &[u8]| {
            let derived = keyed(secret).chain_update(text).finalize().into_bytes();
            keyed(&derived)
        };
        Self { names: purpose(b"names v1"), values: purpose(b"values v1") }
    }

    fn name(&self, history: u64, kind: &str, id: &str) -> EntryName {
        let mut mac = self.names.clone();
        mac.update(&history.to_be_bytes());
        mac.update(kind.as_bytes());
        mac.update(&[0]);
        mac.update(id.as_bytes());
        let mut name = EntryName::default();
        name.iter_mut().zip(mac.finalize().into_bytes()).for_each(|(to, from)| *to = from);
        name
    }

    fn mac(&self, name: &EntryName, json: &[u8]) -> [u8; SEAL] {
        let mut mac = self.values.clone();
        mac.update(name);
        mac.update(json);
        mac.finalize().into_bytes().into()
    }

    /// `None` for a row that JSON cannot hold; there is none.
    fn close(&self, name: &EntryName, entry: &Entry) -> Option<Vec<u8>> {
        let json = serde_json::to_vec(entry).ok()?;
        let mut sealed = self.mac(name, &json).to_vec();
        sealed.extend(json);
        Some(sealed)
    }

    /// `None` for what nobody of this fleet has put there.
    fn open(&self, name: &EntryName, sealed: &[u8]) -> Option<Entry> {
        let (seal, json) = sealed.split_at_checked(SEAL)?;
        let fits = bool::from(self.mac(name, json).ct_eq(seal));
        if fits { serde_json::from_slice(json).ok() } else { None }
    }
}

/// An entry as it is written. A newer gateway may write others: they are not opened, and read anew.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    revision: u64,
    row: Row,
}

#[derive(Debug, Deserialize, Serialize)]
enum Row {
    Consumer(ConsumerRow),
    Key(KeyRow),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ConsumerRow {
    id: String,
    username: String,
    custom_id: Option<String>,
    plan: String,
    policies: Vec<String>,
    enabled: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeyRow {
    id: String,
    digest: [u8; 32],
    pepper: u32,
    consumer: ConsumerRow,
    plan: Option<String>,
    scopes: Vec<String>,
    addresses: Vec<String>,
    not_before: Option<u64>,
    expires_at: Option<u64>,
    revoked_at: Option<u64>,
}

impl Row {
    fn of_key(row: &KeyRecord) -> Self {
        let seconds = |time: &Option<UnixTime>| time.map(UnixTime::as_secs);
        Self::Key(KeyRow {
            id: row.id.as_str().to_owned(),
            digest: *row.digest.as_bytes(),
            pepper: row.pepper.as_u32(),
            consumer: ConsumerRow::of(&row.consumer),
            plan: row.plan.as_deref().map(str::to_owned),
            scopes: row.scopes.iter().map(ToString::to_string).collect(),
            addresses: row.addresses.iter().map(ToString::to_string).collect(),
            not_before: seconds(&row.not_before),
            expires_at: seconds(&row.expires_at),
            revoked_at: seconds(&row.revoked_at),
        })
    }

    fn into_key(self, id: KeyId) -> Option<KeyRecord> {
        let Self::Key(row) = self else { return None };
        let addresses: Arc<[_]> =
            row.addresses.iter().map(|text| parse_network(text)).collect::<Result<_, _>>().ok()?;
        (row.id == id.as_str()).then(|| KeyRecord {
            id,
            digest: KeyDigest::from_bytes(row.digest),
            pepper: PepperVersion::from_u32(row.pepper),
            consumer: Arc::new(row.consumer.into()),
            plan: row.plan.map(Arc::from),
            scopes: row.scopes.into_iter().map(Arc::from).collect(),
            addresses,
            not_before: row.not_before.map(UnixTime::from_secs),
            expires_at: row.expires_at.map(UnixTime::from_secs),
            revoked_at: row.revoked_at.map(UnixTime::from_secs),
        })
    }

    fn into_consumer(self, username: &str) -> Option<Consumer> {
        match self {
            Self::Consumer(row) if row.username == username => Some(row.into()),
            Self::Consumer(_) | Self::Key(_) => None,
        }
    }
}

impl ConsumerRow {
    fn of(row: &Consumer) -> Self {
        Self {
            id: row.id.to_string(),
            username: row.username.to_string(),
            custom_id: row.custom_id.as_deref().map(str::to_owned),
            plan: row.plan.to_string(),
            policies: row.policies.iter().map(ToString::to_string).collect(),
            enabled: row.enabled,
        }
    }
}

impl From<ConsumerRow> for Consumer {
    fn from(row: ConsumerRow) -> Self {
        Self {
            id: row.id.into(),
            username: row.username.into(),
            custom_id: row.custom_id.map(Arc::from),
            plan: row.plan.into(),
            policies: row.policies.into_iter().map(Arc::from).collect(),
            enabled: row.enabled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Map(Mutex<HashMap<EntryName, Vec<u8>>>);

    #[async_trait]
    impl RowCache for Map {
        async fn get(&self, name: &EntryName) -> Result<Option<Vec<u8>>, Outage> {
            Ok(self.0.lock().get(name).cloned())
        }

        fn put(&self, name: &EntryName, value: Vec<u8>, life: Duration) {
            assert!(life <= LONGEST_LIFE);
            self.0.lock().insert(*name, value);
        }
    }

    /// Knows one key and its consumer.
    struct One(KeyRecord, AtomicUsize);

    #[async_trait]
    impl Source for One {
        async fn look_up_key(&self, id: KeyId, _: usize) -> Answer<KeyRecord> {
            self.1.fetch_add(1, Ordering::Relaxed);
            match id == self.0.id {
                true => Answer::Known { row: self.0.clone(), revision: 7 },
                false => Answer::Unknown { revision: 7 },
            }
        }

        async fn look_up_consumer(&self, username: &str, _: usize) -> Answer<Consumer> {
            self.1.fetch_add(1, Ordering::Relaxed);
            match *username == *self.0.consumer.username {
                true => Answer::Known { row: (*self.0.consumer).clone(), revision: 7 },
                false => Answer::Unknown { revision: 7 },
            }
        }
    }

    fn record() -> KeyRecord {
        KeyRecord {
            id: "0123456789abcdef".parse().unwrap(),
            digest: KeyDigest::from_bytes([7; 32]),
            pepper: PepperVersion::from_u32(9),
            consumer: Arc::new(Consumer {
                id: "c-1".into(),
                username: "alice".into(),
                custom_id: Some("crm-7".into()),
                plan: "free".into(),
                policies: Arc::from(["internal".into()]),
                enabled: true,
            }),
            plan: Some("pro".into()),
            scopes: Arc::from(["read".into(), "write".into()]),
            addresses: Arc::from([
                "10.0.0.0/8".parse().unwrap(),
                "2001:db8::1/128".parse().unwrap(),
            ]),
            not_before: Some(UnixTime::from_secs(1)),
            expires_at: Some(UnixTime::from_secs(2)),
            revoked_at: None,
        }
    }

    fn setup(secret: &[u8; 32]) -> (Arc<Map>, Arc<One>, Cached) {
        let (map, one) = (Arc::new(Map::default()), Arc::new(One(record(), AtomicUsize::new(0))));
        let life = Duration::from_secs(3600);
        let cached = Cached::new(Arc::<One>::clone(&one), Arc::<Map>::clone(&map), secret, life);
        (map, one, cached)
    }

    #[tokio::test]
    async fn what_was_read_once_is_found_again_with_its_revision() {
        let (map, one, cached) = setup(&[1; 32]);
        let key = record();
        assert_eq!(cached.copies(), 2);
        assert!(matches!(cached.look_up_key(key.id, 0).await, Answer::Absent));
        assert!(matches!(cached.look_up_key(key.id, 1).await, Answer::Known { revision: 7, .. }));
        let Answer::Known { row, revision: 7 } = cached.look_up_key(key.id, 0).await else {
            panic!("it was kept");
        };
        assert_eq!(format!("{row:?}"), format!("{key:?}"));
        cached.look_up_consumer("alice", 1).await;
        let Answer::Known { row, .. } = cached.look_up_consumer("alice", 0).await else {
            panic!("it was kept");
        };
        assert_eq!(row, *key.consumer);
        assert_eq!(one.1.load(Ordering::Relaxed), 2);
        cached.look_up_consumer("nobody", 1).await;
        assert!(matches!(cached.look_up_consumer("nobody", 0).await, Answer::Absent));
        assert_eq!(map.0.lock().len(), 2, "that there is none is not kept");
    }

    #[tokio::test]
    async fn what_was_kept_in_another_history_is_not_found() {
        let (_, _, cached) = setup(&[1; 32]);
        let id = record().id;
        for history in [1, 2] {
            cached.begin_history(history);
            assert!(matches!(cached.look_up_key(id, 0).await, Answer::Absent), "{history}");
            cached.look_up_key(id, 1).await;
            assert!(matches!(cached.look_up_key(id, 0).await, Answer::Known { .. }), "{history}");
        }
    }

    #[tokio::test]
    async fn an_entry_that_nobody_of_the_fleet_made_is_not_believed() {
        let (map, _, cached) = setup(&[1; 32]);
        let id = record().id;
        cached.look_up_key(id, 1).await;
        let name = cached.name(KEYS, id.as_str());
        let good = map.0.lock().get(&name).cloned().unwrap();
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        let other = setup(&[2; 32]).2.name(KEYS, id.as_str());
        assert_ne!(name, other);
        for bad in [forged, Vec::new(), good[..SEAL].to_vec(), good[1..].to_vec()] {
            map.0.lock().insert(name, bad);
            assert!(matches!(cached.look_up_key(id, 0).await, Answer::Absent));
        }
        // A good entry under another name is not good.
        let victim: KeyId = "fedcba9876543210".parse().unwrap();
        map.0.lock().insert(cached.name(KEYS, victim.as_str()), good);
        assert!(matches!(cached.look_up_key(victim, 0).await, Answer::Absent));
    }

    #[tokio::test]
    async fn an_entry_of_the_form_before_networks_is_not_opened() {
        let (map, _, cached) = setup(&[1; 32]);
        let id = record().id;
        let name = cached.name(KEYS, id.as_str());
        assert_ne!(name, cached.name("key", id.as_str()));
        let mut entry = serde_json::json!({ "revision": 7, "row": Row::of_key(&record()) });
        for (member, opens) in [("nothing", true), ("addresses", false)] {
            entry["row"]["Key"].as_object_mut().unwrap().remove(member);
            let json = serde_json::to_vec(&entry).unwrap();
            let mut sealed = cached.seal.mac(&name, &json).to_vec();
            sealed.extend(json);
            map.0.lock().insert(name, sealed);
            let answer = cached.look_up_key(id, 0).await;
            assert_eq!(matches!(answer, Answer::Known { .. }), opens, "without {member}");
        }
    }
}
