//! Usage and quotas in PostgreSQL.
//!
//! A task's batches come one after the other, so the number of its last one tells whether a batch was
//! applied already.
//!
//! What is old is told by the database's clock, which is one for all tasks.
//!
//! Must stay true: a batch and its number are written in one transaction; rows are touched in the order
//! of their keys, so that tasks that flush at once wait for each other and never in a circle.

use super::Postgres;
use super::error::PostgresError;
use super::lookup::prepare;
use super::pool::{Lane, Pool, Value, Work};
use super::rows::{Reader, amount, askable, count, unsigned};
use crate::limits::usage::{
    Batch, Day, QuotaCount, TaskId, UsageCount, UsageError, UsageLog, UsageQuery,
};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// How often a batch is tried at once.
const TRIES: u32 = 3;
/// The last day that PostgreSQL can count to, and then some.
const LAST_DAY: u32 = 2_000_000_000;

const NEXT: &str = "INSERT INTO usage_batches AS b (task, number, at) VALUES ($1, $2, now()) \
                    ON CONFLICT (task) DO UPDATE SET number = excluded.number, at = excluded.at \
                    WHERE b.number < excluded.number";

/// Sums that would be too large stay at the largest number that there is.
const ADD_USAGE: &str = "INSERT INTO usage AS u (day, consumer, class, username, admitted, refused) \
    SELECT DATE '1970-01-01' + t.day, t.consumer, t.class, max(t.username), \
    least(sum(t.admitted), 9223372036854775807)::bigint, \
    least(sum(t.refused), 9223372036854775807)::bigint \
    FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) \
    AS t (day, consumer, class, username, admitted, refused) \
    GROUP BY t.day, t.consumer, t.class \
    ORDER BY t.day, t.consumer COLLATE \"C\", t.class COLLATE \"C\" \
    ON CONFLICT (day, consumer, class) DO UPDATE SET username = excluded.username, \
    admitted = u.admitted + least(excluded.admitted, 9223372036854775807 - u.admitted), \
    refused = u.refused + least(excluded.refused, 9223372036854775807 - u.refused)";

const ADD_QUOTAS: &str = "INSERT INTO quotas AS q (rule, subject, period, ends, used) \
    SELECT t.rule, t.subject, t.period, max(t.ends), \
    least(sum(t.used), 9223372036854775807)::bigint \
    FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[]) \
    AS t (rule, subject, period, ends, used) \
    GROUP BY t.rule, t.subject, t.period \
    ORDER BY t.rule COLLATE \"C\", t.subject, t.period \
    ON CONFLICT (rule, subject, period) DO UPDATE SET \
    used = q.used + least(excluded.used, 9223372036854775807 - q.used)";

const USED: &str = "SELECT used FROM quotas WHERE rule = $1 AND subject = $2 AND period = $3";

const TOTALS: &str = "SELECT coalesce(q.used, 0) \
    FROM unnest($1::text[], $2::bytea[], $3::bigint[]) WITH ORDINALITY \
    AS t (rule, subject, period, place) LEFT JOIN quotas q \
    ON q.rule = t.rule COLLATE \"C\" AND q.subject = t.subject AND q.period = t.period \
    ORDER BY t.place";

/// What nobody asks for any more goes a few rows at a time, so that no batch pays for all; what another
/// task removes just then is left to it. A quota outlives its end for batches that come late.
const FORGET: [&str; 3] = [
    "DELETE FROM usage WHERE (day, consumer, class) IN (SELECT day, consumer, class FROM usage \
     WHERE day < current_date - 400 ORDER BY day LIMIT 256 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM quotas WHERE (rule, subject, period) IN (SELECT rule, subject, period FROM quotas \
     WHERE ends < extract(epoch FROM now())::bigint - 3 * 86400 \
     ORDER BY ends LIMIT 256 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM usage_batches WHERE task IN (SELECT task FROM usage_batches \
     WHERE at < now() - interval '7 days' LIMIT 256 FOR UPDATE SKIP LOCKED)",
];

const FORGET_TASKS: &str = "DELETE FROM tasks WHERE task IN (SELECT task FROM tasks \
                            WHERE seen_at < now() - interval '1 day' LIMIT 256 \
                            FOR UPDATE SKIP LOCKED)";

#[async_trait]
impl UsageLog for Postgres {
    async fn apply(&self, batch: &Batch) -> Result<Vec<u64>, UsageError> {
        let (shared, batch) = (Arc::clone(&self.shared), batch.clone());
        let applied = self.reactor.run(async move {
            let (pool, deadline) = (&shared.primary, shared.bounds.administration);
            pool.within(deadline, apply(pool, &batch)).await
        });
        applied.await.unwrap_or_else(|| Err(self.shared.primary.stopped())).map_err(failed)
    }

    async fn quota_used(&self, rule: &str, subject: u128, period: u64) -> Result<u64, UsageError> {
        let (shared, rule) = (Arc::clone(&self.shared), askable(rule).to_owned());
        if !shared.quota_budget.spend() {
            return Err(failed(PostgresError::Throttled { at: Arc::clone(&shared.primary.at) }));
        }
        let admitted = shared.primary.admit(Lane::Quotas).map_err(failed)?;
        let used = self.reactor.run(async move {
            let (pool, deadline) = (&shared.primary, shared.bounds.quotas);
            let used = quota_used(pool, deadline, &rule, subject, period).await;
            drop(admitted);
            used
        });
        used.await.unwrap_or_else(|| Err(self.shared.primary.stopped())).map_err(failed)
    }

    async fn usage(&self, query: UsageQuery<'_>) -> Result<Vec<UsageCount>, UsageError> {
        let (day, id, class) = query.after.map_or((-1, "", ""), |(day, id, class)| {
            (stored_day(day), askable(id), askable(class))
        });
        let mut sql =
            "SELECT day - DATE '1970-01-01', consumer, username, class, admitted, refused \
                       FROM usage WHERE day BETWEEN DATE '1970-01-01' + $1::int \
                       AND DATE '1970-01-01' + $2::int \
                       AND (day, consumer, class) > (DATE '1970-01-01' + $3::int, $4, $5)"
                .to_owned();
        let mut values: Vec<super::write::Owned> = vec![
            Box::new(stored_day(query.from)),
            Box::new(stored_day(query.to)),
            Box::new(day),
            Box::new(id.to_owned()),
            Box::new(class.to_owned()),
            Box::new(count(query.limit)),
        ];
        if let Some(consumer) = query.consumer {
            sql.push_str(" AND (consumer = $7 OR username = $7)");
            values.push(Box::new(askable(consumer).to_owned()));
        }
        sql.push_str(" ORDER BY day, consumer, class LIMIT $6");
        let rows = self.survey(sql, values).await.map_err(failed)?;
        self.each(&rows, usage_count).map_err(failed)
    }

    async fn heartbeat(&self, task: TaskId) -> Result<u32, UsageError> {
        let shared = Arc::clone(&self.shared);
        let alive = self.reactor.run(async move {
            let (pool, deadline) = (&shared.primary, shared.bounds.administration);
            pool.within(deadline, heartbeat(pool, task)).await
        });
        alive.await.unwrap_or_else(|| Err(self.shared.primary.stopped())).map_err(failed)
    }
}

fn failed(error: PostgresError) -> UsageError {
    UsageError(Box::new(error))
}

/// It has a deadline for its turn and one for the answer, since a connection on which an answer is late
/// counts as dead, and a crowd makes no connection dead.
async fn quota_used(
    pool: &Pool,
    deadline: Duration,
    rule: &str,
    subject: u128,
    period: u64,
) -> Result<u64, PostgresError> {
    let work = pool.turn(Lane::Quotas, deadline).await?;
    let connection = work.connection();
    let answer = pool.within(deadline, async {
        let statement = prepare(&work, &connection.quota, || USED.to_owned()).await?;
        let (subject, period) = (subject.to_be_bytes().to_vec(), amount(period));
        let values: [Value<'_>; 3] = [&rule, &subject, &period];
        let row = work.ask(connection.client.query_opt(statement, &values)).await?;
        row.map_or(Ok(0), |row| Reader::new(work.at(), &row).number(0))
    });
    answer.await
}

/// Applying twice does no harm, so it is tried again whatever became of it.
async fn apply(pool: &Pool, batch: &Batch) -> Result<Vec<u64>, PostgresError> {
    let mut tries = 1;
    loop {
        match apply_once(pool, batch).await {
            Err(error) if may_pass(&error) && tries < TRIES => tries += 1,
            applied => return applied,
        }
    }
}

fn may_pass(error: &PostgresError) -> bool {
    error.is_passing() || matches!(error, PostgresError::Unsure { .. })
}

async fn apply_once(pool: &Pool, batch: &Batch) -> Result<Vec<u64>, PostgresError> {
    let work = pool.take(Lane::Administration).await?;
    work.begin("BEGIN").await?;
    match apply_in(&work, batch).await {
        Ok(totals) => work.commit().await.map(|()| totals),
        Err(error) => {
            work.roll_back().await?;
            Err(error)
        }
    }
}

async fn apply_in(work: &Work<'_>, batch: &Batch) -> Result<Vec<u64>, PostgresError> {
    if work.change(NEXT, &[&batch.task.0, &amount(batch.number)]).await? > 0 {
        add_usage(work, &batch.usage).await?;
        add_quotas(work, &batch.quotas).await?;
        forget(work).await?;
    }
    totals(work, &batch.quotas).await
}

async fn add_usage(work: &Work<'_>, counts: &[UsageCount]) -> Result<(), PostgresError> {
    if counts.is_empty() {
        return Ok(());
    }
    let texts = |text: fn(&UsageCount) -> &str| counts.iter().map(text).collect::<Vec<_>>();
    let numbers = |number: fn(&UsageCount) -> u64| -> Vec<i64> {
        counts.iter().map(number).map(amount).collect()
    };
    let days: Vec<i32> = counts.iter().map(|count| stored_day(count.day)).collect();
    let (consumers, classes) = (texts(|count| &count.consumer), texts(|count| &count.class));
    let usernames = texts(|count| &count.username);
    let (admitted, refused) = (numbers(|count| count.admitted), numbers(|count| count.refused));
    work.change(ADD_USAGE, &[&days, &consumers, &classes, &usernames, &admitted, &refused])
        .await
        .map(drop)
}

/// Rules, subjects, and periods, as columns.
type Names<'c> = (Vec<&'c str>, Vec<Vec<u8>>, Vec<i64>);

fn names(counts: &[QuotaCount]) -> Names<'_> {
    (
        counts.iter().map(|count| &*count.rule).collect(),
        counts.iter().map(|count| count.subject.to_be_bytes().to_vec()).collect(),
        counts.iter().map(|count| amount(count.period)).collect(),
    )
}

async fn add_quotas(work: &Work<'_>, counts: &[QuotaCount]) -> Result<(), PostgresError> {
    if counts.is_empty() {
        return Ok(());
    }
    let (rules, subjects, periods) = names(counts);
    let ends: Vec<i64> = counts.iter().map(|count| amount(count.ends)).collect();
    let used: Vec<i64> = counts.iter().map(|count| amount(count.used)).collect();
    work.change(ADD_QUOTAS, &[&rules, &subjects, &periods, &ends, &used]).await.map(drop)
}

async fn totals(work: &Work<'_>, counts: &[QuotaCount]) -> Result<Vec<u64>, PostgresError> {
    if counts.is_empty() {
        return Ok(Vec::new());
    }
    let (rules, subjects, periods) = names(counts);
    let rows = work.rows(TOTALS, &[&rules, &subjects, &periods]).await?;
    rows.iter().map(|row| Reader::new(work.at(), row).number(0)).collect()
}

async fn forget(work: &Work<'_>) -> Result<(), PostgresError> {
    for sql in FORGET {
        work.change(sql, &[]).await?;
    }
    Ok(())
}

async fn heartbeat(pool: &Pool, task: TaskId) -> Result<u32, PostgresError> {
    let work = pool.take(Lane::Administration).await?;
    let sql = "INSERT INTO tasks AS t (task, seen_at) VALUES ($1, now()) \
               ON CONFLICT (task) DO UPDATE SET seen_at = greatest(t.seen_at, excluded.seen_at)";
    work.change(sql, &[&task.0]).await?;
    work.change(FORGET_TASKS, &[]).await?;
    let sql = "SELECT count(*) FROM tasks WHERE seen_at >= now() - interval '15 s'";
    let row = work.row(sql, &[]).await?;
    let alive = unsigned(Reader::new(work.at(), &row).get(0)?);
    Ok(u32::try_from(alive).unwrap_or(u32::MAX))
}

fn stored_day(day: Day) -> i32 {
    i32::try_from(day.0.min(LAST_DAY)).unwrap_or(i32::MAX)
}

fn usage_count(row: Reader<'_>) -> Result<UsageCount, PostgresError> {
    Ok(UsageCount {
        day: Day(u32::try_from(row.get::<i32>(0)?).unwrap_or_default()),
        consumer: row.text(1)?,
        username: row.text(2)?,
        class: row.text(3)?,
        admitted: row.number(4)?,
        refused: row.number(5)?,
    })
}
