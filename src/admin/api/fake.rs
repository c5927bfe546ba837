//! A store for tests: rows in maps, and a mood.

use super::Ports;
use crate::auth::api_key::{KeyId, PepperVersion};
use crate::auth::audit::{Audit, AuditEntry};
use crate::auth::denials::{Denial, Denials, NewDenial, check_denial};
use crate::auth::documents::{Document, DocumentKind, Documents};
use crate::auth::registry::{
    Actor, ConsumerInfo, KeyInfo, NewConsumer, NewKey, Page, Registry, RegistryError, Rotation,
    check_key, check_policies, check_username,
};
use crate::auth::{Consumer, Outage, UnixTime};
use crate::limits::usage::{Batch, Day, TaskId, UsageCount, UsageError, UsageLog, UsageQuery};
use crate::telemetry::Clock;
use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Mood {
    #[default]
    Answers,
    Fails,
    Hangs,
}

/// What the store says when it fails.
pub(super) const FAILURE: &str = "db.internal:5432 refused the password";
/// The most entries of the deny list.
pub(super) const MOST_DENIALS: usize = 3;

#[derive(Default)]
struct Rows {
    consumers: BTreeMap<String, ConsumerInfo>,
    keys: BTreeMap<KeyId, KeyInfo>,
    documents: BTreeMap<(&'static str, String), Document>,
    denials: BTreeMap<String, Denial>,
    audit: Vec<AuditEntry>,
    usage: Vec<UsageCount>,
}

pub(super) struct FakeStore {
    clock: Clock,
    rows: Mutex<Rows>,
    mood: Mutex<Mood>,
}

type Done<T> = Result<T, RegistryError>;

impl FakeStore {
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, rows: Mutex::default(), mood: Mutex::default() })
    }

    pub(super) fn ports(self: &Arc<Self>) -> Ports {
        Ports {
            registry: Arc::clone(self) as _,
            documents: Arc::clone(self) as _,
            denials: Arc::clone(self) as _,
            audit: Arc::clone(self) as _,
            usage: Arc::clone(self) as _,
        }
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    pub(super) fn use_up(&self, day: u32, consumer: &str, class: &str, admitted: u64) {
        self.rows.lock().usage.push(UsageCount {
            day: Day(day),
            consumer: format!("id-of-{consumer}").into(),
            username: consumer.into(),
            class: class.into(),
            admitted,
            refused: 1,
        });
    }

    fn now(&self) -> UnixTime {
        UnixTime::now(&self.clock)
    }

    async fn rows(&self) -> Done<MutexGuard<'_, Rows>> {
        let mood = *self.mood.lock();
        match mood {
            Mood::Answers => Ok(self.rows.lock()),
            Mood::Fails => Err(RegistryError::Store(FAILURE.into())),
            Mood::Hangs => std::future::pending().await,
        }
    }

    async fn change(
        &self,
        by: &Actor,
        name: &str,
        action: &str,
        change: impl FnOnce(&mut Consumer),
    ) -> Done<ConsumerInfo> {
        let mut rows = self.rows().await?;
        let found = rows.find(name)?;
        let info = rows.consumers.get_mut(&*found.consumer.username).unwrap();
        change(&mut info.consumer);
        let info = info.clone();
        rows.note(by, action, name, self.now(), Value::Null);
        Ok(info)
    }
}

impl Rows {
    fn find(&self, name: &str) -> Done<ConsumerInfo> {
        let mut all = self.consumers.values();
        all.find(|it| *it.consumer.username == *name || *it.consumer.id == *name)
            .cloned()
            .ok_or_else(|| RegistryError::UnknownConsumer(name.to_owned()))
    }

    fn key(&self, id: KeyId) -> Done<KeyInfo> {
        self.keys.get(&id).cloned().ok_or(RegistryError::UnknownKey(id))
    }

    fn note(&mut self, by: &Actor, action: &str, subject: &str, at: UnixTime, detail: Value) {
        self.audit.push(AuditEntry {
            id: self.audit.len() as u64 + 1,
            at,
            actor: by.as_str().into(),
            action: action.into(),
            subject: subject.into(),
            detail,
        });
    }

    fn insert(&mut self, new: &NewKey, now: UnixTime) -> KeyInfo {
        let info = KeyInfo {
            id: new.proof.id,
            consumer: new.consumer.as_str().into(),
            name: new.name.as_deref().map(Into::into),
            plan: new.plan.as_deref().map(Into::into),
            scopes: new.scopes.iter().map(|scope| scope.as_str().into()).collect(),
            addresses: new.addresses.as_slice().into(),
            created_at: now,
            not_before: new.not_before,
            expires_at: new.expires_at,
            revoked_at: None,
            pepper: new.proof.pepper,
            last_used_at: None,
        };
        self.keys.insert(info.id, info.clone());
        info
    }
}

fn page_of<T: Clone>(
    rows: impl Iterator<Item = T>,
    page: Page<'_>,
    name: impl Fn(&T) -> String,
) -> Vec<T> {
    let after = page.after.unwrap_or_default();
    rows.filter(|row| name(row).as_str() > after).take(page.limit).collect()
}

#[async_trait]
impl Registry for FakeStore {
    async fn add_consumer(&self, by: &Actor, new: NewConsumer) -> Done<ConsumerInfo> {
        check_username(&new.username)?;
        check_policies(&new.policies)?;
        let mut rows = self.rows().await?;
        if rows.consumers.contains_key(&new.username) {
            return Err(RegistryError::Taken { what: "username", value: new.username });
        }
        let consumer = Consumer {
            id: format!("id-of-{}", new.username).into(),
            username: new.username.as_str().into(),
            custom_id: new.custom_id.map(Into::into),
            plan: new.plan.into(),
            policies: new.policies.into_iter().map(Into::into).collect(),
            enabled: true,
        };
        let info = ConsumerInfo { consumer, created_at: self.now() };
        rows.note(by, "consumer.add", &new.username, self.now(), Value::Null);
        rows.consumers.insert(new.username, info.clone());
        Ok(info)
    }

    async fn consumer(&self, name: &str) -> Done<ConsumerInfo> {
        self.rows().await?.find(name)
    }

    async fn consumers(&self, page: Page<'_>) -> Done<Vec<ConsumerInfo>> {
        let rows = self.rows().await?;
        Ok(page_of(rows.consumers.values().cloned(), page, |it| it.consumer.username.to_string()))
    }

    async fn set_enabled(&self, by: &Actor, name: &str, on: bool) -> Done<ConsumerInfo> {
        let action = if on { "consumer.enable" } else { "consumer.disable" };
        self.change(by, name, action, |it| it.enabled = on).await
    }

    async fn set_plan(&self, by: &Actor, name: &str, plan: &str) -> Done<ConsumerInfo> {
        self.change(by, name, "consumer.set_plan", |it| it.plan = plan.into()).await
    }

    async fn set_policies(
        &self,
        by: &Actor,
        name: &str,
        policies: &[String],
    ) -> Done<ConsumerInfo> {
        let policies = policies.iter().map(|policy| policy.as_str().into()).collect();
        self.change(by, name, "consumer.set_policies", |it| it.policies = policies).await
    }

    async fn remove_consumer(&self, by: &Actor, name: &str) -> Done<(ConsumerInfo, usize)> {
        let mut rows = self.rows().await?;
        let found = rows.find(name)?;
        let username = &found.consumer.username;
        rows.consumers.remove(&**username);
        let before = rows.keys.len();
        rows.keys.retain(|_, key| key.consumer != *username);
        let keys = before - rows.keys.len();
        rows.note(by, "consumer.remove", name, self.now(), json!({ "keys": keys }));
        Ok((found, keys))
    }

    async fn issue_key(&self, by: &Actor, mut new: NewKey) -> Done<KeyInfo> {
        let mut rows = self.rows().await?;
        check_key(&new, self.now())?;
        new.consumer = rows.find(&new.consumer)?.consumer.username.to_string();
        rows.note(by, "key.issue", new.proof.id.as_str(), self.now(), Value::Null);
        Ok(rows.insert(&new, self.now()))
    }

    async fn key(&self, id: KeyId) -> Done<KeyInfo> {
        self.rows().await?.key(id)
    }

    async fn keys(&self, consumer: Option<&str>, page: Page<'_>) -> Done<Vec<KeyInfo>> {
        let rows = self.rows().await?;
        let owner = consumer.map(|name| rows.find(name)).transpose()?;
        let keys = rows.keys.values().cloned();
        let keys = keys.filter(|key| {
            owner.as_ref().is_none_or(|owner| owner.consumer.username == key.consumer)
        });
        Ok(page_of(keys, page, |key| key.id.to_string()))
    }

    async fn rotate_key(
        &self,
        by: &Actor,
        id: KeyId,
        rotation: Rotation,
    ) -> Done<(KeyInfo, KeyInfo)> {
        let mut rows = self.rows().await?;
        let now = self.now();
        let mut old = rows.key(id)?;
        if !old.is_live(now) {
            return Err(RegistryError::NotLive(id));
        }
        let new = NewKey {
            proof: rotation.proof,
            consumer: old.consumer.to_string(),
            name: old.name.as_deref().map(str::to_owned),
            plan: old.plan.as_deref().map(str::to_owned),
            scopes: old.scopes.iter().map(ToString::to_string).collect(),
            addresses: old.addresses.to_vec(),
            not_before: None,
            expires_at: rotation.expires_at,
        };
        check_key(&new, now)?;
        let end = now.after(rotation.overlap);
        old.expires_at = Some(old.expires_at.map_or(end, |earlier| earlier.min(end)));
        rows.keys.insert(id, old.clone());
        rows.note(by, "key.rotate", id.as_str(), now, Value::Null);
        let new = rows.insert(&new, now);
        Ok((old, new))
    }

    async fn revoke_key(&self, by: &Actor, id: KeyId) -> Done<KeyInfo> {
        let mut rows = self.rows().await?;
        let mut key = rows.key(id)?;
        if key.revoked_at.is_none() {
            key.revoked_at = Some(self.now());
            rows.note(by, "key.revoke", id.as_str(), self.now(), Value::Null);
        }
        rows.keys.insert(id, key.clone());
        Ok(key)
    }

    async fn peppers(&self) -> Done<Vec<(PepperVersion, u64)>> {
        let (rows, now) = (self.rows().await?, self.now());
        let mut counts = BTreeMap::new();
        for key in rows.keys.values().filter(|key| key.is_live(now)) {
            *counts.entry(key.pepper.as_u32()).or_default() += 1;
        }
        Ok(counts.into_iter().map(|(one, keys)| (PepperVersion::from_u32(one), keys)).collect())
    }
}

#[async_trait]
impl Documents for FakeStore {
    async fn load_documents(&self) -> Result<(Vec<Document>, u64), Outage> {
        Err(Outage::Failed)
    }

    async fn documents(&self, kind: DocumentKind, page: Page<'_>) -> Done<Vec<Document>> {
        let rows = self.rows().await?;
        let all = rows.documents.values().filter(|row| row.kind == kind).cloned();
        Ok(page_of(all, page, |row| row.name.to_string()))
    }

    async fn document(&self, kind: DocumentKind, name: &str) -> Done<Document> {
        let rows = self.rows().await?;
        let found = rows.documents.get(&(kind.as_str(), name.to_owned())).cloned();
        found.ok_or_else(|| unknown(kind, name))
    }

    async fn put_document(
        &self,
        by: &Actor,
        kind: DocumentKind,
        name: &str,
        body: &Value,
    ) -> Done<Document> {
        let mut rows = self.rows().await?;
        let row = Document { kind, name: name.into(), body: body.clone(), updated_at: self.now() };
        rows.documents.insert((kind.as_str(), name.to_owned()), row.clone());
        rows.note(by, &format!("{}.put", kind.as_str()), name, self.now(), body.clone());
        Ok(row)
    }

    async fn remove_document(&self, by: &Actor, kind: DocumentKind, name: &str) -> Done<Document> {
        let mut rows = self.rows().await?;
        let found = rows.documents.remove(&(kind.as_str(), name.to_owned()));
        let found = found.ok_or_else(|| unknown(kind, name))?;
        rows.note(by, &format!("{}.remove", kind.as_str()), name, self.now(), Value::Null);
        Ok(found)
    }
}

fn unknown(kind: DocumentKind, name: &str) -> RegistryError {
    RegistryError::UnknownDocument { kind: kind.as_str(), name: name.to_owned() }
}

#[async_trait]
impl Denials for FakeStore {
    async fn load_denials(&self) -> Result<(Vec<Denial>, u64), Outage> {
        Err(Outage::Failed)
    }

    async fn denials(&self, page: Page<'_>) -> Done<Vec<Denial>> {
        let rows = self.rows().await?;
        Ok(page_of(rows.denials.values().cloned(), page, |row| row.id.to_string()))
    }

    async fn deny(&self, by: &Actor, new: NewDenial) -> Done<Denial> {
        let new = check_denial(new, self.now())?;
        let mut rows = self.rows().await?;
        if rows.denials.len() == MOST_DENIALS {
            return Err(RegistryError::TooMany { what: "entries", most: MOST_DENIALS });
        }
        let id = format!("{:04}", rows.audit.len());
        let row = Denial {
            id: id.as_str().into(),
            issuer: new.issuer.into(),
            tokens: new.tokens,
            until: new.until,
            reason: new.reason.map(Into::into),
            created_at: self.now(),
        };
        rows.note(by, "token.deny", &id, self.now(), Value::Null);
        rows.denials.insert(id, row.clone());
        Ok(row)
    }

    async fn allow(&self, by: &Actor, id: &str) -> Done<Denial> {
        let mut rows = self.rows().await?;
        let found = rows.denials.remove(id);
        let found = found.ok_or_else(|| RegistryError::UnknownDenial(id.to_owned()))?;
        rows.note(by, "token.allow", id, self.now(), Value::Null);
        Ok(found)
    }
}

#[async_trait]
impl Audit for FakeStore {
    async fn audit(&self, before: Option<u64>, limit: usize) -> Done<Vec<AuditEntry>> {
        let rows = self.rows().await?;
        let all = rows.audit.iter().rev();
        let all = all.filter(|row| before.is_none_or(|before| row.id < before));
        Ok(all.take(limit).cloned().collect())
    }
}

#[async_trait]
impl UsageLog for FakeStore {
    async fn apply(&self, _: &Batch) -> Result<Vec<u64>, UsageError> {
        Err(UsageError(FAILURE.into()))
    }

    async fn quota_used(&self, _: &str, _: u128, _: u64) -> Result<u64, UsageError> {
        Err(UsageError(FAILURE.into()))
    }

    async fn usage(&self, query: UsageQuery<'_>) -> Result<Vec<UsageCount>, UsageError> {
        let rows = self.rows().await.map_err(|error| UsageError(error.into()))?;
        let mut all = rows.usage.clone();
        let place = |row: &UsageCount| (row.day, row.consumer.to_string(), row.class.to_string());
        all.sort_by_key(place);
        let after = query.after.map(|(day, id, class)| (day, id.to_owned(), class.to_owned()));
        all.retain(|row| {
            (query.from..=query.to).contains(&row.day)
                && query.consumer.is_none_or(|it| *row.consumer == *it || *row.username == *it)
                && after.as_ref().is_none_or(|after| place(row) > *after)
        });
        all.truncate(query.limit);
        Ok(all)
    }

    async fn heartbeat(&self, _: TaskId) -> Result<u32, UsageError> {
        Ok(1)
    }
}
