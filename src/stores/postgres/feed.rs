//! What has changed: asked of the primary, which alone knows.
//!
//! Each question also asks which history (timeline) the primary writes. Another one, or a revision that
//! is below what was seen, means that a replica was promoted or a backup put in place: what went before
//! may not all be there, and a new epoch begins.
//!
//! One follower is enough for a process, and there is to be only one: a notification wakes one, and a new
//! epoch is told once.
//!
//! Must stay true: an answer comes from one statement, so from one moment; a change that may have been
//! missed is a reset.

use super::Postgres;
use super::dial::timeline;
use super::error::PostgresError;
use super::pool::{Lane, Pool};
use super::rows::{Reader, amount};
use crate::auth::Outage;
use crate::auth::changes::{Change, ChangeFeed, ChangeKind, Changes, Reset};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Row;

/// How often it is asked when no notification comes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Revisions that are told at once.
const BATCH: u64 = 500;
/// Changes that are told with a reset.
const MOST_RECENT: usize = 10_000;

/// `$1`: after this revision; `$2`: up to this one.
const SINCE: &str = "SELECT r.n, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), \
                     c.n, c.kind, c.id, c.at FROM revision r \
                     LEFT JOIN changes c ON c.n > $1 AND c.n <= $2 ORDER BY c.n, c.kind, c.id";

/// The changes of the last ten minutes, newest first: all above the last one that is older. `$1`: how
/// many at most.
const RECENT: &str = "WITH cut AS (SELECT coalesce( \
                      (SELECT n FROM changes WHERE at < \
                      (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 600000 \
                      ORDER BY n DESC LIMIT 1), \
                      (SELECT min(n) - 1 FROM changes), (SELECT n FROM revision)) AS n) \
                      SELECT r.n, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), \
                      c.n, c.kind, c.id, c.at, cut.n FROM revision r CROSS JOIN cut \
                      LEFT JOIN changes c ON c.n > cut.n ORDER BY c.n DESC LIMIT $1";

/// The history that was last seen; `None` before the first answer.
#[derive(Debug, Default)]
pub(super) struct Epoch(Mutex<Option<u32>>);

impl Epoch {
    /// Whether this is another history than before.
    fn is_new(&self, timeline: u32) -> bool {
        self.0.lock().replace(timeline).is_some_and(|before| before != timeline)
    }

    fn differs(&self, timeline: u32) -> bool {
        self.0.lock().is_some_and(|before| before != timeline)
    }
}

#[async_trait]
impl ChangeFeed for Postgres {
    fn poll_interval(&self) -> Duration {
        POLL_INTERVAL
    }

    async fn stirred(&self) {
        self.shared.stir.notified().await;
    }

    async fn changes_since(&self, revision: Option<u64>) -> Result<Changes, Outage> {
        self.listen();
        let shared = Arc::clone(&self.shared);
        let answer = self.reactor.run(async move {
            if let Some(replica) = &shared.replica {
                replica.warm();
            }
            let (pool, deadline) = (&shared.primary, shared.bounds.changes);
            pool.within(deadline, changes(pool, &shared.epoch, revision)).await
        });
        let answer = answer.await.unwrap_or_else(|| Err(self.shared.primary.stopped()));
        answer.map_err(|error| error.outage())
    }
}

async fn changes(pool: &Pool, epoch: &Epoch, since: Option<u64>) -> Result<Changes, PostgresError> {
    let Some(since) = since else {
        return reset(pool, epoch, false).await;
    };
    let upto = since.saturating_add(BATCH);
    let rows = ask(pool, SINCE, &[&amount(since), &amount(upto)]).await?;
    let answer = Answer::read(pool, &rows)?;
    if epoch.differs(answer.timeline) || answer.revision < since {
        return reset(pool, epoch, true).await;
    }
    epoch.is_new(answer.timeline);
    let upto = upto.min(answer.revision);
    let is_complete = match answer.changes.first() {
        Some(first) => first.revision == since + 1,
        None => upto == since,
    };
    // A newer gateway writes to the same store: what it changed is not ours to guess.
    if !is_complete || answer.is_foreign.is_some() {
        return reset(pool, epoch, false).await;
    }
    let (changes, more) = (answer.changes, upto < answer.revision);
    Ok(Changes::Since { revision: upto, changes, more })
}

async fn reset(pool: &Pool, epoch: &Epoch, new_epoch: bool) -> Result<Changes, PostgresError> {
    let limit = MOST_RECENT + 1;
    let rows = ask(pool, RECENT, &[&super::rows::count(limit)]).await?;
    let mut answer = Answer::read(pool, &rows)?;
    let row = rows.first().ok_or_else(|| empty(pool))?;
    let mut from = Reader::new(&pool.at, row).number(6)?;
    // What was left out, and what cannot be read, counts as not known.
    if rows.len() == limit {
        from = from.max(answer.changes.last().map_or(answer.revision, |last| last.revision));
    }
    from = from.max(answer.is_foreign.unwrap_or_default());
    answer.changes.reverse();
    answer.changes.retain(|change| change.revision > from);
    let new_epoch = epoch.is_new(answer.timeline) || new_epoch;
    Ok(Changes::Reset(Reset {
        revision: answer.revision,
        remembered_from: from,
        recent: answer.changes,
        new_epoch,
        history: answer.timeline.into(),
    }))
}

/// Asks, and asks once more where the connection turns out to be dead.
async fn ask(
    pool: &Pool,
    sql: &str,
    values: &[super::pool::Value<'_>],
) -> Result<Vec<Row>, PostgresError> {
    let answer = pool.take(Lane::Changes).await?.rows(sql, values).await;
    match answer {
        Err(error) if error.is_passing() => pool.take(Lane::Changes).await?.rows(sql, values).await,
        answer => answer,
    }
}

struct Answer {
    revision: u64,
    timeline: u32,
    /// In the order of the rows.
    changes: Vec<Change>,
    /// The highest revision that names something of a kind that is not known here.
    is_foreign: Option<u64>,
}

impl Answer {
    fn read(pool: &Pool, rows: &[Row]) -> Result<Self, PostgresError> {
        let first = Reader::new(&pool.at, rows.first().ok_or_else(|| empty(pool))?);
        let timeline = timeline(first.get(1)?).ok_or_else(|| first.odd(1))?;
        let revision = first.number(0)?;
        let mut answer = Self { revision, timeline, changes: Vec::new(), is_foreign: None };
        for row in rows.iter().map(|row| Reader::new(&pool.at, row)) {
            let Some(number) = row.get::<Option<i64>>(2)? else { continue };
            let revision = super::rows::unsigned(number);
            match ChangeKind::parse(row.get(3)?) {
                Some(kind) => answer.changes.push(Change {
                    revision,
                    kind,
                    id: row.text(4)?,
                    committed_at: Duration::from_millis(row.number(5)?),
                }),
                None => answer.is_foreign = answer.is_foreign.max(Some(revision)),
            }
        }
        Ok(answer)
    }
}

fn empty(pool: &Pool) -> PostgresError {
    PostgresError::odd_row(&pool.at, "the table `revision` has no row".to_owned())
}
