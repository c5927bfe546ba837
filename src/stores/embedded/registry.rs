//! Administrative operations on the file.

use super::Embedded;
use super::error::StoreError;
use super::rows::{self, stored};
use crate::auth::UnixTime;
use crate::auth::api_key::KeyId;
use crate::auth::changes::ChangeKind;
use crate::auth::registry::{
    Actor, ConsumerInfo, KeyInfo, NewConsumer, NewKey, Page, Registry, RegistryError, Rotation,
    check_key, check_name,
};
use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, Transaction, TransactionBehavior, params};
use std::sync::Arc;
use std::time::Duration;
use uuid::{NoContext, Timestamp, Uuid};

/// How long a change is told to gateways that were not there.
const TOLD_FOR: Duration = Duration::from_secs(24 * 3600);
/// The most revisions that are told.
const TOLD_REVISIONS: i64 = 100_000;

/// What a write touched.
type Touched = Vec<(ChangeKind, String)>;

/// Why a write is rolled back.
enum Failure {
    Refused(RegistryError),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Refused(error)
    }
}

impl Embedded {
    /// Runs `job` in a transaction on the blocking pool; what it touched becomes a revision.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>, UnixTime) -> Result<(T, Touched), Failure> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let clock = self.clock.clone();
        self.run(TransactionBehavior::Immediate, move |tx| {
            let (result, touched) = job(tx, UnixTime::now(&clock))?;
            // The time of the change is read last: what is measured begins with the commit.
            record(tx, &touched, clock.unix_time())?;
            Ok(result)
        })
        .await
    }

    /// Reads with the writer's connection, so that an operator sees what was just written.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, RegistryError> {
        self.run(TransactionBehavior::Deferred, job).await
    }

    async fn run<T: Send + 'static>(
        &self,
        behavior: TransactionBehavior,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let (writer, path) = (Arc::clone(&self.writer), Arc::clone(&self.path));
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = writer.lock();
            let tx = connection.transaction_with_behavior(behavior)?;
            let result = job(&tx)?;
            tx.commit()?;
            Ok(result)
        });
        match done.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(Failure::Refused(refused))) => Err(refused),
            Ok(Err(Failure::Sql(error))) => {
                Err(RegistryError::Store(Box::new(StoreError::of(&path, error))))
            }
            Err(_) => {
                let path = path.to_path_buf();
                Err(RegistryError::Store(Box::new(StoreError::Stopped { path })))
            }
        }
    }

    /// Changes a consumer by `sql` (`?1` the value, `?2` the id), unless `is_so` already.
    async fn change_consumer(
        &self,
        name: &str,
        sql: &'static str,
        value: impl rusqlite::ToSql + Send + 'static,
        is_so: impl FnOnce(&ConsumerInfo) -> bool + Send + 'static,
    ) -> Result<ConsumerInfo, RegistryError> {
        let name = name.to_owned();
        self.write(move |tx, _| {
            let old = find_consumer(tx, &name)?;
            if is_so(&old) {
                return Ok((old, Touched::new()));
            }
            let id = old.consumer.id.to_string();
            tx.execute(sql, params![value, id])?;
            Ok((find_consumer(tx, &id)?, vec![(ChangeKind::Consumer, id)]))
        })
        .await
    }
}

#[async_trait]
impl Registry for Embedded {
    async fn add_consumer(
        &self,
        _by: &Actor,
        new: NewConsumer,
    ) -> Result<ConsumerInfo, RegistryError> {
        check_name("username", &new.username)?;
        check_name("plan", &new.plan)?;
        if let Some(custom_id) = &new.custom_id {
            check_name("custom id", custom_id)?;
        }
        self.write(move |tx, now| {
            refuse_taken(tx, "username", "username", &new.username)?;
            if let Some(custom_id) = &new.custom_id {
                refuse_taken(tx, "custom id", "custom_id", custom_id)?;
            }
            let id = Uuid::new_v7(Timestamp::from_unix(NoContext, now.as_secs(), 0)).to_string();
            tx.execute(
                "INSERT INTO consumers (id, username, custom_id, plan, enabled, created_at) \
                 VALUES (?1, ?2, ?3, ?4, 1, ?5)",
                params![id, new.username, new.custom_id, new.plan, stored(now)],
            )?;
            Ok((find_consumer(tx, &id)?, vec![(ChangeKind::Consumer, id)]))
        })
        .await
    }

    async fn consumer(&self, name: &str) -> Result<ConsumerInfo, RegistryError> {
        let name = name.to_owned();
        self.read(move |tx| find_consumer(tx, &name)).await
    }

    async fn consumers(&self, page: Page<'_>) -> Result<Vec<ConsumerInfo>, RegistryError> {
        let (after, limit) = bounds(page);
        self.read(move |tx| {
            let sql = format!(
                "SELECT {} FROM consumers c WHERE c.username > ?1 ORDER BY c.username LIMIT ?2",
                rows::CONSUMER
            );
            let mut statement = tx.prepare_cached(&sql)?;
            let rows = statement.query_map(params![after, limit], rows::consumer_info)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn set_enabled(
        &self,
        _by: &Actor,
        name: &str,
        on: bool,
    ) -> Result<ConsumerInfo, RegistryError> {
        const SQL: &str = "UPDATE consumers SET enabled = ?1 WHERE id = ?2";
        self.change_consumer(name, SQL, on, move |old| old.consumer.enabled == on).await
    }

    async fn set_plan(
        &self,
        _by: &Actor,
        name: &str,
        plan: &str,
    ) -> Result<ConsumerInfo, RegistryError> {
        const SQL: &str = "UPDATE consumers SET plan = ?1 WHERE id = ?2";
        check_name("plan", plan)?;
        let same = plan.to_owned();
        self.change_consumer(name, SQL, plan.to_owned(), move |old| *old.consumer.plan == *same)
            .await
    }

    async fn set_policies(
        &self,
        _by: &Actor,
        _name: &str,
        _policies: &[String],
    ) -> Result<ConsumerInfo, RegistryError> {
        Err(RegistryError::Invalid { what: "policies", problem: "are not kept yet".to_owned() })
    }

    async fn remove_consumer(
        &self,
        _by: &Actor,
        name: &str,
    ) -> Result<(ConsumerInfo, usize), RegistryError> {
        let name = name.to_owned();
        self.write(move |tx, _| {
            let old = find_consumer(tx, &name)?;
            let id = old.consumer.id.to_string();
            let keys = tx.execute("DELETE FROM keys WHERE consumer = ?1", [&id])?;
            tx.execute("DELETE FROM consumers WHERE id = ?1", [&id])?;
            Ok(((old, keys), vec![(ChangeKind::Consumer, id)]))
        })
        .await
    }

    async fn issue_key(&self, _by: &Actor, new: NewKey) -> Result<KeyInfo, RegistryError> {
        self.write(move |tx, now| {
            check_key(&new, now)?;
            insert_key(tx, &new, now)?;
            Ok((find_key(tx, new.proof.id)?, vec![touched_key(new.proof.id)]))
        })
        .await
    }

    async fn key(&self, id: KeyId) -> Result<KeyInfo, RegistryError> {
        self.read(move |tx| find_key(tx, id)).await
    }

    async fn keys(
        &self,
        consumer: Option<&str>,
        page: Page<'_>,
    ) -> Result<Vec<KeyInfo>, RegistryError> {
        let (after, limit) = bounds(page);
        let consumer = consumer.map(str::to_owned);
        self.read(move |tx| {
            let owner = match consumer {
                Some(name) => Some(find_consumer(tx, &name)?.consumer.id),
                None => None,
            };
            let sql = format!(
                "SELECT {} FROM keys k JOIN consumers c ON c.id = k.consumer \
                 WHERE k.id > ?1 {} ORDER BY k.id LIMIT ?2",
                rows::KEY,
                if owner.is_some() { "AND k.consumer = ?3" } else { "AND ?3 IS NULL" },
            );
            let mut statement = tx.prepare_cached(&sql)?;
            let rows = statement.query_map(params![after, limit, owner], rows::key_info)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn rotate_key(
        &self,
        _by: &Actor,
        id: KeyId,
        rotation: Rotation,
    ) -> Result<(KeyInfo, KeyInfo), RegistryError> {
        self.write(move |tx, now| {
            let old = find_key(tx, id)?;
            if !old.is_live(now) {
                return Err(RegistryError::NotLive(id).into());
            }
            let new = successor(&old, &rotation);
            check_key(&new, now)?;
            insert_key(tx, &new, now)?;
            let end = now.after(rotation.overlap);
            let end = old.expires_at.map_or(end, |earlier| earlier.min(end));
            tx.execute(
                "UPDATE keys SET expires_at = ?1 WHERE id = ?2",
                params![stored(end), id.as_str()],
            )?;
            let pair = (find_key(tx, id)?, find_key(tx, new.proof.id)?);
            Ok((pair, vec![touched_key(id), touched_key(new.proof.id)]))
        })
        .await
    }

    async fn revoke_key(&self, _by: &Actor, id: KeyId) -> Result<KeyInfo, RegistryError> {
        self.write(move |tx, now| {
            let changed = tx.execute(
                "UPDATE keys SET revoked_at = ?1 WHERE id = ?2 AND revoked_at IS NULL",
                params![stored(now), id.as_str()],
            )?;
            let touched = if changed > 0 { vec![touched_key(id)] } else { Touched::new() };
            Ok((find_key(tx, id)?, touched))
        })
        .await
    }
}

/// The new key of a rotation: as the old one, but for proof and end.
fn successor(old: &KeyInfo, rotation: &Rotation) -> NewKey {
    NewKey {
        proof: rotation.proof,
        consumer: old.consumer.to_string(),
        name: old.name.as_deref().map(str::to_owned),
        plan: old.plan.as_deref().map(str::to_owned),
        scopes: old.scopes.iter().map(ToString::to_string).collect(),
        not_before: None,
        expires_at: rotation.expires_at,
    }
}

fn insert_key(tx: &Transaction<'_>, new: &NewKey, now: UnixTime) -> Result<(), Failure> {
    let consumer = find_consumer(tx, &new.consumer)?.consumer.id;
    tx.execute(
        "INSERT INTO keys (id, consumer, name, digest, pepper, plan, scopes, created_at, \
         not_before, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            new.proof.id.as_str(),
            consumer,
            new.name,
            new.proof.digest.as_bytes(),
            new.proof.pepper.as_u32(),
            new.plan,
            new.scopes.join(" "),
            stored(now),
            new.not_before.map(stored),
            new.expires_at.map(stored),
        ],
    )?;
    Ok(())
}

/// By username, or else by id.
fn find_consumer(tx: &Transaction<'_>, name: &str) -> Result<ConsumerInfo, Failure> {
    let sql = format!(
        "SELECT {} FROM consumers c WHERE c.username = ?1 OR c.id = ?1 \
         ORDER BY c.username = ?1 DESC LIMIT 1",
        rows::CONSUMER
    );
    let found = tx.prepare_cached(&sql)?.query_row([name], rows::consumer_info).optional()?;
    found.ok_or_else(|| RegistryError::UnknownConsumer(name.to_owned()).into())
}

fn find_key(tx: &Transaction<'_>, id: KeyId) -> Result<KeyInfo, Failure> {
    let sql = format!(
        "SELECT {} FROM keys k JOIN consumers c ON c.id = k.consumer WHERE k.id = ?1",
        rows::KEY
    );
    let found = tx.prepare_cached(&sql)?.query_row([id.as_str()], rows::key_info).optional()?;
    found.ok_or_else(|| RegistryError::UnknownKey(id).into())
}

fn refuse_taken(
    tx: &Transaction<'_>,
    what: &'static str,
    column: &'static str,
    value: &str,
) -> Result<(), Failure> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM consumers WHERE {column} = ?1)");
    match tx.prepare_cached(&sql)?.query_row([value], |row| row.get(0))? {
        true => Err(RegistryError::Taken { what, value: value.to_owned() }.into()),
        false => Ok(()),
    }
}

/// Ends a write: the next revision, and what it touched.
fn record(tx: &Transaction<'_>, touched: &Touched, at: Duration) -> rusqlite::Result<()> {
    if touched.is_empty() {
        return Ok(());
    }
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let revision: i64 = tx
        .prepare_cached("UPDATE revision SET n = n + 1 RETURNING n")?
        .query_row((), |row| row.get(0))?;
    let mut insert =
        tx.prepare_cached("INSERT INTO changes (n, kind, id, at) VALUES (?1, ?2, ?3, ?4)")?;
    for (kind, id) in touched {
        insert.execute(params![revision, kind.as_str(), id, millis(at)])?;
    }
    // A few at a time, oldest first, so that no write pays for all.
    tx.prepare_cached(
        "DELETE FROM changes WHERE n IN (SELECT DISTINCT n FROM changes ORDER BY n LIMIT 16) \
         AND (at < ?1 OR n <= ?2)",
    )?
    .execute(params![millis(at.saturating_sub(TOLD_FOR)), revision - TOLD_REVISIONS])?;
    Ok(())
}

fn touched_key(id: KeyId) -> (ChangeKind, String) {
    (ChangeKind::Key, id.as_str().to_owned())
}

fn bounds(page: Page<'_>) -> (String, i64) {
    (page.after.unwrap_or_default().to_owned(), i64::try_from(page.limit).unwrap_or(i64::MAX))
}
