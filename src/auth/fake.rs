//! A store for tests: rows in maps, answers on command.

use super::api_key::{KeyForm, KeyId, PlainKey};
use super::directory::{Answer, KeyRecord, Source};
use super::identity::{ApiKeys, Consumer};
use super::{Outage, UnixTime};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

/// Where requests come from.
pub(super) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// How the store feels.
#[derive(Clone, Default)]
pub(super) enum Mood {
    #[default]
    Answers,
    Fails,
    /// Has nothing, which says nothing.
    Lacks,
    Hangs,
    /// Answers once for each permit.
    Waits(Arc<Semaphore>),
}

#[derive(Default)]
pub(super) struct FakeSource {
    pub(super) keys: Mutex<HashMap<KeyId, KeyRecord>>,
    pub(super) consumers: Mutex<HashMap<String, Consumer>>,
    pub(super) mood: Mutex<Mood>,
    pub(super) revision: Mutex<u64>,
    asked: AtomicUsize,
}

impl FakeSource {
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    pub(super) fn set_revision(&self, revision: u64) {
        *self.revision.lock() = revision;
    }

    /// Stores a key of `consumer`, whom it adds.
    pub(super) fn add_key(
        &self,
        consumer: &str,
        change: impl FnOnce(&mut KeyRecord),
    ) -> (PlainKey, KeyId) {
        let (plain, proof) = KeyForm::new(&api_keys()).generate().unwrap();
        let mut record = KeyRecord {
            id: proof.id,
            digest: proof.digest,
            pepper: proof.pepper,
            consumer: Arc::new(self.add_consumer(consumer, |_| {})),
            plan: None,
            scopes: Arc::new([]),
            addresses: Arc::new([]),
            not_before: None,
            expires_at: None,
            revoked_at: None,
        };
        change(&mut record);
        self.keys.lock().insert(proof.id, record);
        (plain, proof.id)
    }

    pub(super) fn add_consumer(
        &self,
        username: &str,
        change: impl FnOnce(&mut Consumer),
    ) -> Consumer {
        let mut consumer = Consumer {
            id: format!("id-of-{username}").into(),
            username: username.into(),
            custom_id: None,
            plan: "free".into(),
            policies: Arc::default(),
            enabled: true,
        };
        change(&mut consumer);
        self.consumers.lock().insert(username.to_owned(), consumer.clone());
        consumer
    }

    async fn answer<T>(&self, row: impl FnOnce() -> Option<T>) -> Answer<T> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mood = self.mood.lock().clone();
        match mood {
            Mood::Answers => {}
            Mood::Fails => return Answer::Unavailable(Outage::Failed),
            Mood::Lacks => return Answer::Absent,
            Mood::Hangs => std::future::pending().await,
            Mood::Waits(gate) => gate.acquire().await.unwrap().forget(),
        }
        let revision = *self.revision.lock();
        match row() {
            Some(row) => Answer::Known { row, revision },
            None => Answer::Unknown { revision },
        }
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn look_up_key(&self, id: KeyId, _copy: usize) -> Answer<KeyRecord> {
        self.answer(|| self.keys.lock().get(&id).cloned()).await
    }

    async fn look_up_consumer(&self, username: &str, _copy: usize) -> Answer<Consumer> {
        self.answer(|| self.consumers.lock().get(username).cloned()).await
    }
}

pub(super) fn api_keys() -> ApiKeys {
    ApiKeys {
        environment: "test".into(),
        header: http::HeaderName::from_static("x-api-key"),
        pepper: b"a pepper that only tests have seen".to_vec(),
        previous_peppers: Vec::new(),
    }
}

pub(super) const fn at(secs: u64) -> Option<UnixTime> {
    Some(UnixTime::from_secs(secs))
}
