//! Reading and writing for operators: on the primary, with one transaction for a write.
//!
//! A write first locks the row of `revision`, so writes come one after the other, and what one checks
//! stays true until it ends. It ends with the next revision, what it touched, a line of the audit and
//! a notification; who listens is told when it is committed.
//!
//! Must stay true: what changes nothing makes no revision and no line; a write that is tried again has
//! left nothing behind.

use super::Postgres;
use super::error::PostgresError;
use super::pool::{Lane, Pool, Reason, Value, Work};
use super::rows::{Reader, stored};
use crate::auth::changes::ChangeKind;
use crate::auth::registry::{Actor, RegistryError};
use crate::auth::{Outage, UnixTime};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Whom a write tells.
pub(super) const CHANNEL: &str = "datahub_gateway";
/// How often a write is tried: once more than it has connections that may turn out to be dead.
const TRIES: u32 = 5;

const BEGIN: &str = "BEGIN; SELECT n FROM revision FOR UPDATE";

/// The time of the change is read last: what is measured begins with the commit.
const RECORD: &str = "WITH next AS (UPDATE revision SET n = n + 1 RETURNING n), \
                      time AS MATERIALIZED (SELECT \
                      (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now) \
                      INSERT INTO changes (n, kind, id, at) SELECT next.n, t.kind, t.id, time.now \
                      FROM next, time, unnest($1::text[], $2::text[]) AS t (kind, id)";

/// Old changes go a few at a time, oldest first, so that no write pays for all: those of yesterday, and
/// those that are too many, but none of the last ten minutes.
const FORGET: &str = "WITH time AS (SELECT \
                      (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now) \
                      DELETE FROM changes c USING time, revision r WHERE c.n IN \
                      (SELECT DISTINCT n FROM changes ORDER BY n LIMIT 16) AND \
                      (c.at < time.now - 86400000 OR \
                      (c.n <= r.n - 100000 AND c.at < time.now - 600000))";

/// Why a write is rolled back.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(RegistryError),
    Store(PostgresError),
}

impl From<PostgresError> for Failure {
    fn from(error: PostgresError) -> Self {
        Self::Store(error)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Refused(error)
    }
}

impl Reason for Failure {
    fn of_store(&self) -> Option<&PostgresError> {
        match self {
            Self::Refused(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl From<Failure> for RegistryError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refused) => refused,
            Failure::Store(error) => Self::Store(Box::new(error)),
        }
    }
}

impl From<PostgresError> for RegistryError {
    fn from(error: PostgresError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// What a write did, for those who follow and for the audit.
pub(super) struct Deed {
    pub(super) touched: Vec<(ChangeKind, String)>,
    pub(super) action: &'static str,
    pub(super) subject: String,
    pub(super) detail: serde_json::Value,
}

/// A write. It may be done several times, until one is committed.
#[async_trait]
pub(super) trait Job: Send + Sync + 'static {
    type Done: Send + 'static;

    /// Does it, inside a transaction; without a deed, nothing was changed.
    async fn run(
        &self,
        work: &Work<'_>,
        now: UnixTime,
    ) -> Result<(Self::Done, Option<Deed>), Failure>;
}

/// A value for a statement that is sent from another thread.
pub(super) type Owned = Box<dyn ToSql + Send + Sync>;

impl Postgres {
    /// Does a write.
    pub(super) async fn write<J: Job>(&self, by: &Actor, job: J) -> Result<J::Done, RegistryError> {
        let (shared, by) = (Arc::clone(&self.shared), by.clone());
        let now = UnixTime::now(&shared.clock);
        let is_final = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_final);
        let done = self.reactor.run(async move {
            let (pool, deadline) = (&shared.primary, shared.bounds.administration);
            let write = Write { by: &by, now, job: &job, is_final: &ends };
            pool.within(deadline, write.tried(pool)).await
        });
        match done.await {
            Some(Ok(done)) => Ok(done),
            Some(Err(Failure::Store(PostgresError::Timeout { at, within })))
                if is_final.load(Ordering::Relaxed) =>
            {
                let detail = format!("no answer within {} ms", within.as_millis());
                Err(PostgresError::Unsure { at, detail }.into())
            }
            Some(Err(failure)) => Err(failure.into()),
            None => Err(self.shared.primary.stopped().into()),
        }
    }

    /// The rows that a statement answers with, from the primary, so that an operator sees what was just
    /// written.
    pub(super) async fn survey(
        &self,
        sql: String,
        values: Vec<Owned>,
    ) -> Result<Vec<Row>, PostgresError> {
        self.survey_by(Lane::Administration, sql, values).await
    }

    async fn survey_by(
        &self,
        lane: Lane,
        sql: String,
        values: Vec<Owned>,
    ) -> Result<Vec<Row>, PostgresError> {
        let shared = Arc::clone(&self.shared);
        let rows = self.reactor.run(async move {
            let (pool, deadline) = (&shared.primary, shared.bounds.administration);
            pool.within(deadline, read(pool, lane, &sql, &values)).await
        });
        rows.await.unwrap_or_else(|| Err(self.shared.primary.stopped()))
    }

    /// All rows of a kind, and the revision: the statement answers with the revision, whether there is a
    /// row, and the row. A change waits for it.
    pub(super) async fn load<T>(
        &self,
        sql: String,
        values: Vec<Owned>,
        read: fn(Reader<'_>) -> Result<T, PostgresError>,
    ) -> Result<(Vec<T>, u64), Outage> {
        let primary = &self.shared.primary;
        let rows =
            self.survey_by(Lane::Changes, sql, values).await.map_err(|error| error.outage())?;
        let (mut loaded, mut revision) = (Vec::new(), 0);
        for row in rows.iter().map(|row| Reader::new(&primary.at, row)) {
            let answer = row.number(0).and_then(|number| Ok((number, row.get::<bool>(1)?)));
            let answer = answer.inspect_err(|error| primary.finds_unreadable(error));
            let (number, is_there) = answer.map_err(|error| error.outage())?;
            revision = number;
            if is_there {
                // What one row means cannot be known, and the others are not to wait for it.
                let row = read(row).inspect_err(|error| primary.finds_unreadable(error));
                loaded.extend(row.ok());
            }
        }
        Ok((loaded, revision))
    }

    /// What rows mean. One that cannot be read is named, and not left out: pages would lose count.
    pub(super) fn each<T>(
        &self,
        rows: &[Row],
        read: impl Fn(Reader<'_>) -> Result<T, PostgresError>,
    ) -> Result<Vec<T>, PostgresError> {
        let primary = &self.shared.primary;
        let read: Result<_, _> =
            rows.iter().map(|row| read(Reader::new(&primary.at, row))).collect();
        read.inspect_err(|error| primary.finds_unreadable(error))
    }
}

/// Ends the write where there is no revision to be the next of: nobody would be told of it.
fn must_be_numbered(work: &Work<'_>, told: u64) -> Result<(), Failure> {
    if told > 0 {
        return Ok(());
    }
    Err(PostgresError::odd_row(work.at(), "the table `revision` has no row".to_owned()).into())
}

async fn read(
    pool: &Pool,
    lane: Lane,
    sql: &str,
    values: &[Owned],
) -> Result<Vec<Row>, PostgresError> {
    let values: Vec<Value<'_>> = values.iter().map(|value| &**value as Value<'_>).collect();
    let mut tries = 1;
    loop {
        let work = pool.take(lane).await?;
        match work.rows(sql, &values).await {
            Err(error) if error.is_passing() && tries < TRIES => tries += 1,
            answer => return answer,
        }
    }
}

struct Write<'w, J> {
    by: &'w Actor,
    now: UnixTime,
    job: &'w J,
    /// Whether it was told to be made final; before that, it leaves nothing behind.
    is_final: &'w AtomicBool,
}

impl<J: Job> Write<'_, J> {
    async fn tried(&self, pool: &Pool) -> Result<J::Done, Failure> {
        let mut tries = 1;
        loop {
            match self.attempt(pool).await {
                Err(Failure::Store(error)) if error.is_passing() && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    async fn attempt(&self, pool: &Pool) -> Result<J::Done, Failure> {
        let work = pool.take(Lane::Administration).await?;
        work.begin(BEGIN).await?;
        let done = match self.job.run(&work, self.now).await {
            Ok((done, Some(deed))) => record(&work, self.by, self.now, &deed).await.map(|()| done),
            Ok((done, None)) => Ok(done),
            Err(failure) => Err(failure),
        };
        match done {
            Ok(done) => {
                self.is_final.store(true, Ordering::Relaxed);
                work.commit().await?;
                Ok(done)
            }
            Err(failure) => {
                work.roll_back().await?;
                Err(failure)
            }
        }
    }
}

/// Ends a write: the audit, the next revision, and what it touched.
async fn record(work: &Work<'_>, by: &Actor, now: UnixTime, deed: &Deed) -> Result<(), Failure> {
    work.change(
        "INSERT INTO audit (at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5)",
        &[&stored(now), &by.as_str(), &deed.action, &deed.subject, &deed.detail],
    )
    .await?;
    work.change(FORGET, &[]).await?;
    let (kinds, ids): (Vec<_>, Vec<_>) =
        deed.touched.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).unzip();
    must_be_numbered(work, work.change(RECORD, &[&kinds, &ids]).await?)?;
    work.rows("SELECT pg_notify($1, '')", &[&CHANNEL]).await?;
    Ok(())
}
