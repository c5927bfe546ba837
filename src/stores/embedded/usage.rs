//! Usage and quotas in the file.
//!
//! A task's batches come one after the other, so the number of its last one tells whether a batch was
//! applied already.
//!
//! Must stay true: a batch and its number are written in one transaction.

use super::Embedded;
use super::rows::{self, amount, unsigned};
use crate::auth::UnixTime;
use crate::auth::registry::RegistryError;
use crate::limits::usage::{
    Batch, Day, QuotaCount, TaskId, UsageCount, UsageError, UsageLog, UsageQuery,
};
use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use std::time::Duration;

/// Days for which usage is kept.
const KEPT_DAYS: u64 = 400;
/// How long a quota is kept after its end, for batches that come late.
const QUOTA_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long it is known which batch of a silent task was its last.
const BATCHES_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a task counts as alive after it was heard of.
const ALIVE: Duration = Duration::from_secs(15);

#[async_trait]
impl UsageLog for Embedded {
    async fn apply(&self, batch: &Batch) -> Result<Vec<u64>, UsageError> {
        let (batch, now) = (batch.clone(), UnixTime::now(&self.clock));
        self.run(TransactionBehavior::Immediate, move |tx| {
            if is_next(tx, &batch, now)? {
                add_usage(tx, &batch.usage)?;
                add_quotas(tx, &batch.quotas)?;
                forget(tx, now)?;
            }
            let mut totals = Vec::with_capacity(batch.quotas.len());
            for quota in &batch.quotas {
                totals.push(used(tx, &quota.rule, quota.subject, quota.period)?);
            }
            Ok(totals)
        })
        .await
        .map_err(failed)
    }

    async fn quota_used(&self, rule: &str, subject: u128, period: u64) -> Result<u64, UsageError> {
        let rule = rule.to_owned();
        self.read(move |tx| Ok(used(tx, &rule, subject, period)?)).await.map_err(failed)
    }

    async fn usage(&self, query: UsageQuery<'_>) -> Result<Vec<UsageCount>, UsageError> {
        let consumer = query.consumer.map(str::to_owned);
        let (from, to, limit) = (query.from.0, query.to.0, rows::count(query.limit));
        let after = query.after.map_or((-1, String::new(), String::new()), |(day, id, class)| {
            (i64::from(day.0), id.to_owned(), class.to_owned())
        });
        self.survey(move |tx| {
            let mut statement = tx.prepare(
                "SELECT day, consumer, username, class, admitted, refused FROM usage \
                 WHERE day BETWEEN ?1 AND ?2 AND (day, consumer, class) > (?3, ?4, ?5) \
                 AND (?6 IS NULL OR consumer = ?6 OR username = ?6) \
                 ORDER BY day, consumer, class LIMIT ?7",
            )?;
            let (day, id, class) = after;
            let parameters = params![from, to, day, id, class, consumer, limit];
            let rows = statement.query_map(parameters, usage_count)?;
            rows.collect()
        })
        .await
        .map_err(|error| UsageError(Box::new(error)))
    }

    async fn heartbeat(&self, task: TaskId) -> Result<u32, UsageError> {
        let now = UnixTime::now(&self.clock);
        self.run(TransactionBehavior::Immediate, move |tx| {
            tx.prepare_cached(
                "INSERT INTO tasks (task, seen_at) VALUES (?1, ?2) \
                 ON CONFLICT DO UPDATE SET seen_at = max(seen_at, excluded.seen_at)",
            )?
            .execute(params![task.0.as_bytes(), rows::stored(now)])?;
            tx.prepare_cached("DELETE FROM tasks WHERE seen_at < ?1")?
                .execute([ago(now, ALIVE)])?;
            let sql = "SELECT count(*) FROM tasks";
            Ok(tx.prepare_cached(sql)?.query_row((), |row| row.get(0))?)
        })
        .await
        .map_err(failed)
    }
}

fn failed(error: RegistryError) -> UsageError {
    match error {
        RegistryError::Store(error) => UsageError(error),
        other => UsageError(Box::new(other)),
    }
}

/// Whether a batch was not applied yet; it is to be applied then.
fn is_next(tx: &Transaction<'_>, batch: &Batch, now: UnixTime) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "INSERT INTO usage_batches (task, number, at) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET number = excluded.number, at = excluded.at \
             WHERE number < excluded.number",
        )?
        .execute(params![batch.task.0.as_bytes(), amount(batch.number), rows::stored(now)])?;
    Ok(changed > 0)
}

fn add_usage(tx: &Transaction<'_>, counts: &[UsageCount]) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO usage (day, consumer, class, username, admitted, refused) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET \
         username = excluded.username, \
         admitted = admitted + min(excluded.admitted, 9223372036854775807 - admitted), \
         refused = refused + min(excluded.refused, 9223372036854775807 - refused)",
    )?;
    for count in counts {
        statement.execute(params![
            count.day.0,
            count.consumer,
            count.class,
            count.username,
            amount(count.admitted),
            amount(count.refused),
        ])?;
    }
    Ok(())
}

fn add_quotas(tx: &Transaction<'_>, counts: &[QuotaCount]) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO quotas (rule, subject, period, ends, used) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT DO UPDATE SET used = used + min(excluded.used, 9223372036854775807 - used)",
    )?;
    for count in counts {
        statement.execute(params![
            count.rule,
            count.subject.to_be_bytes(),
            amount(count.period),
            amount(count.ends),
            amount(count.used),
        ])?;
    }
    Ok(())
}

fn used(tx: &Transaction<'_>, rule: &str, subject: u128, period: u64) -> rusqlite::Result<u64> {
    let sql = "SELECT used FROM quotas WHERE rule = ?1 AND subject = ?2 AND period = ?3";
    let found = tx
        .prepare_cached(sql)?
        .query_row(params![rule, subject.to_be_bytes(), amount(period)], |row| row.get(0))
        .optional()?;
    Ok(found.map_or(0, unsigned))
}

/// Removes what nobody asks for any more, a few rows at a time, so that no batch pays for all.
fn forget(tx: &Transaction<'_>, now: UnixTime) -> rusqlite::Result<()> {
    let today = now.as_secs() / 86_400;
    tx.prepare_cached(
        "DELETE FROM usage WHERE (day, consumer, class) IN \
         (SELECT day, consumer, class FROM usage WHERE day < ?1 ORDER BY day LIMIT 256)",
    )?
    .execute([amount(today.saturating_sub(KEPT_DAYS))])?;
    tx.prepare_cached(
        "DELETE FROM quotas WHERE (rule, subject, period) IN \
         (SELECT rule, subject, period FROM quotas WHERE ends < ?1 ORDER BY ends LIMIT 256)",
    )?
    .execute([ago(now, QUOTA_KEPT)])?;
    tx.prepare_cached("DELETE FROM usage_batches WHERE at < ?1")?
        .execute([ago(now, BATCHES_KEPT)])?;
    Ok(())
}

fn ago(now: UnixTime, span: Duration) -> i64 {
    amount(now.as_secs().saturating_sub(span.as_secs()))
}

fn usage_count(row: &Row<'_>) -> rusqlite::Result<UsageCount> {
    Ok(UsageCount {
        day: Day(row.get(0)?),
        consumer: row.get(1)?,
        username: row.get(2)?,
        class: row.get(3)?,
        admitted: unsigned(row.get(4)?),
        refused: unsigned(row.get(5)?),
    })
}
