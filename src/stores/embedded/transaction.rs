//! Transactions on the file, and what a write leaves behind in it: a revision, the names of what it
//! touched, and its line in the audit.
//!
//! Must stay true: these are written in the transaction of the write itself, and only if it changed
//! something.

use super::Embedded;
use super::error::StoreError;
use super::file;
use super::rows::{self, stored};
use crate::auth::changes::ChangeKind;
use crate::auth::registry::{Actor, Page, RegistryError};
use crate::auth::{Outage, UnixTime};
use rusqlite::{Transaction, TransactionBehavior, params};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long a change is told to gateways that were not there.
const TOLD_FOR: Duration = Duration::from_secs(24 * 3600);
/// The most revisions that are told.
const TOLD_REVISIONS: i64 = 100_000;
/// The most lines of the audit.
const AUDITED: i64 = 1_000_000;

/// What a write did.
pub(super) struct Deed {
    /// What it touched, for the change feed.
    pub(super) touched: Vec<(ChangeKind, String)>,
    /// As the audit calls it.
    pub(super) action: &'static str,
    /// To what.
    pub(super) subject: String,
    /// What else there is to know; never a secret.
    pub(super) detail: Value,
}

/// Why a write is rolled back.
pub(super) enum Failure {
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
    /// Runs `job` in a transaction on the blocking pool; what it did becomes a revision. A job that
    /// changed nothing did nothing.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        by: &Actor,
        job: impl FnOnce(&Transaction<'_>, UnixTime) -> Result<(T, Option<Deed>), Failure>
        + Send
        + 'static,
    ) -> Result<T, RegistryError> {
        let (by, clock) = (by.clone(), self.clock.clone());
        self.run(TransactionBehavior::Immediate, move |tx| {
            let now = UnixTime::now(&clock);
            let (result, deed) = job(tx, now)?;
            if let Some(deed) = deed {
                audit(tx, &by, &deed, now)?;
                // The time of the change is read last: what is measured begins with the commit.
                record(tx, &deed.touched, clock.unix_time())?;
            }
            Ok(result)
        })
        .await
    }

    /// Reads with the writer's connection, so that an operator sees what was just written.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, RegistryError> {
        self.run(TransactionBehavior::Deferred, job).await
    }

    /// Runs `job` in a transaction on the blocking pool.
    pub(super) async fn run<T: Send + 'static>(
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

    /// Reads much at once, and where the store stood then.
    pub(super) async fn load<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<(T, u64), Outage> {
        let loaded = self.survey(|tx| {
            let revision = tx.query_row("SELECT n FROM revision", (), |row| row.get(0))?;
            Ok((job(tx)?, rows::unsigned(revision)))
        });
        loaded.await.map_err(|error| {
            log::error!(error:% = error; "the store cannot be loaded");
            Outage::Failed
        })
    }

    /// Reads with a connection of its own on the blocking pool: neither look-ups nor writes wait for
    /// it, nor it for them.
    pub(super) async fn survey<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = Arc::clone(&self.path);
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = file::open_for_reading(&path)?;
            let tx = connection.transaction()?;
            job(&tx)
        });
        match done.await {
            Ok(done) => done.map_err(|error| StoreError::of(&self.path, error)),
            Err(_) => Err(StoreError::Stopped { path: self.path.to_path_buf() }),
        }
    }
}

/// Ends a write: the next revision, and what it touched.
fn record(
    tx: &Transaction<'_>,
    touched: &[(ChangeKind, String)],
    at: Duration,
) -> rusqlite::Result<()> {
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

/// Writes down who did what. The oldest lines make room, a few at a time.
fn audit(tx: &Transaction<'_>, by: &Actor, deed: &Deed, now: UnixTime) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO audit (at, actor, action, subject, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        stored(now),
        by.as_str(),
        deed.action,
        deed.subject,
        deed.detail.to_string()
    ])?;
    tx.prepare_cached(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT 16) AND id <= ?1",
    )?
    .execute([tx.last_insert_rowid() - AUDITED])?;
    Ok(())
}

/// A page's bounds, as parameters.
pub(super) fn bounds(page: Page<'_>) -> (String, i64) {
    (page.after.unwrap_or_default().to_owned(), rows::count(page.limit))
}
