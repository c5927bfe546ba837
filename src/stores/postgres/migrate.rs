//! The schema: which migrations there are, which of them a database has, and applying the others.
//!
//! Any number of processes may apply at once: a lock lets one work while the others wait, and these then
//! find it done. Each migration is one transaction, so one that fails leaves nothing of itself.
//!
//! A database says of each of its migrations which gateways it still serves. So one that knows less
//! goes on, and starts again, on tables that only grew: a deployment migrates first, and can be rolled
//! back.
//!
//! Must stay true: a migration that was applied somewhere never changes; what is to be different comes
//! as a new one.

use super::Postgres;
use super::error::PostgresError;
use super::pool::Pool;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

/// The migrations, in order: number, the first schema whose gateways it serves, name, text. One that
/// only adds what earlier gateways need not know serves what the one before it serves; one that takes
/// away or changes what they use serves from its own number on.
const ALL: [(i32, i32, &str, &str); 4] = [
    (1, 1, "consumers_and_keys", include_str!("../../../migrations/0001_consumers_and_keys.sql")),
    (
        2,
        2,
        "plans_policies_denials",
        include_str!("../../../migrations/0002_plans_policies_denials.sql"),
    ),
    (3, 3, "usage", include_str!("../../../migrations/0003_usage.sql")),
    (4, 3, "key_use", include_str!("../../../migrations/0004_key_use.sql")),
];
/// The schema that this gateway works with.
pub(super) const KNOWN: i32 = 4;
/// Of the lock that is held while migrating ("DHGW").
const LOCK: i64 = 0x4448_4757;
/// How long another process may hold it.
const LOCK_WITHIN: Duration = Duration::from_secs(60);
/// How long everything may take, waiting included: a large table takes a while.
const ALL_WITHIN: Duration = Duration::from_secs(900);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (\
                     version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, \
                     applied_at timestamptz NOT NULL DEFAULT now(), serves integer); \
                     ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS serves integer";
/// Read as JSON, since the column is younger than the table.
const APPLIED: &str = "SELECT version, name, checksum, (to_jsonb(m) ->> 'serves')::integer \
                       FROM schema_migrations m ORDER BY version";

/// A step from one schema to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number, and the schema that it leads to.
    pub version: i32,
    /// What it is about.
    pub name: &'static str,
    serves: i32,
    sql: &'static str,
}

impl Migration {
    fn all() -> impl Iterator<Item = Self> {
        ALL.into_iter().map(|(version, serves, name, sql)| Self { version, name, serves, sql })
    }

    /// Digest of its text.
    fn checksum(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in Sha256::digest(self.sql) {
            // Writing to a `String` cannot fail.
            if write!(text, "{byte:02x}").is_err() {
                break;
            }
        }
        text
    }
}

/// The migrations that the database lacks, in order. Changes nothing.
///
/// # Errors
/// The database cannot be asked, or its schema is not one that this gateway can go on from.
pub async fn plan(store: &Postgres) -> Result<Vec<Migration>, PostgresError> {
    let shared = Arc::clone(&store.shared);
    let planned = store.reactor.run(async move {
        let pool = &shared.primary;
        pool.within(shared.bounds.administration, async {
            let own = pool.own().await?;
            missing(pool, &own.client).await
        })
        .await
    });
    planned.await.unwrap_or_else(|| Err(store.shared.primary.stopped()))
}

/// Applies the migrations that the database lacks, and returns them. Of several processes that do this
/// at once, one works and the others find it done.
///
/// # Errors
/// The database cannot be asked, its schema is not one that this gateway can go on from, or another
/// process migrates and does not end.
pub async fn apply(store: &Postgres) -> Result<Vec<Migration>, PostgresError> {
    let shared = Arc::clone(&store.shared);
    let applied = store.reactor.run(async move {
        let pool = &shared.primary;
        pool.within(ALL_WITHIN, apply_on(pool)).await
    });
    applied.await.unwrap_or_else(|| Err(store.shared.primary.stopped()))
}

/// Whether the database has the schema of this gateway.
pub(super) async fn check(pool: &Pool) -> Result<(), PostgresError> {
    let own = pool.own().await?;
    let missing = missing(pool, &own.client).await?;
    let Some(first) = missing.first() else { return Ok(()) };
    let found = match first.version - 1 {
        0 => "it has no schema".to_owned(),
        version => format!("its schema is {version}"),
    };
    Err(PostgresError::Older { at: Arc::clone(&pool.at), found, known: KNOWN })
}

async fn apply_on(pool: &Pool) -> Result<Vec<Migration>, PostgresError> {
    // The lock is the connection's, and ends with it.
    let own = pool.own().await?;
    let client = &own.client;
    let failed = |error: Error| PostgresError::of(&pool.at, &error);
    let wait = format!(
        "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
         SET lock_timeout = '{}s'",
        LOCK_WITHIN.as_secs()
    );
    client.batch_execute(&wait).await.map_err(failed)?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(|error| {
        match error.code() {
            Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => {
                PostgresError::Locked { at: Arc::clone(&pool.at), within: LOCK_WITHIN }
            }
            _ => failed(error),
        }
    })?;
    client.batch_execute(TABLE).await.map_err(failed)?;
    let missing = missing(pool, client).await?;
    for migration in &missing {
        apply_one(client, migration).await.map_err(failed)?;
        log::info!(version = migration.version, name = migration.name; "applied a migration");
    }
    Ok(missing)
}

async fn apply_one(client: &Client, migration: &Migration) -> Result<(), Error> {
    client.batch_execute("BEGIN").await?;
    client.batch_execute(migration.sql).await?;
    client
        .execute(
            "INSERT INTO schema_migrations (version, name, checksum, serves) VALUES ($1, $2, $3, $4)",
            &[&migration.version, &migration.name, &migration.checksum(), &migration.serves],
        )
        .await?;
    client.batch_execute("COMMIT").await
}

/// The migrations that the database lacks; refuses a database that this gateway cannot go on from.
async fn missing(pool: &Pool, client: &Client) -> Result<Vec<Migration>, PostgresError> {
    let rows = match client.query(APPLIED, &[]).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Vec::new(),
        rows => rows.map_err(|error| PostgresError::of(&pool.at, &error))?,
    };
    let mut missing: Vec<_> = Migration::all().collect();
    for row in &rows {
        let row = super::rows::Reader::new(&pool.at, row);
        let (version, name) = (row.get::<i32>(0)?, row.get::<String>(1)?);
        let at = Arc::clone(&pool.at);
        if version > KNOWN {
            if row.get::<Option<i32>>(3)?.is_some_and(|serves| serves <= KNOWN) {
                continue;
            }
            return Err(PostgresError::Newer { at, found: version, known: KNOWN });
        }
        let checksum: &str = row.get(2)?;
        match missing.iter().position(|migration| migration.version == version) {
            Some(place) if missing.remove(place).checksum() == checksum => {}
            _ => return Err(PostgresError::Changed { at, version, name }),
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_a_gap() {
        let versions: Vec<_> = Migration::all().map(|migration| migration.version).collect();
        assert_eq!(versions, (1..=KNOWN).collect::<Vec<_>>());
    }

    #[test]
    fn a_migration_serves_itself_and_no_fewer_gateways_than_a_later_one() {
        let serves: Vec<_> = Migration::all().map(|one| (one.version, one.serves)).collect();
        assert!(serves.iter().all(|(version, serves)| serves <= version), "{serves:?}");
        assert!(serves.is_sorted_by_key(|(_, serves)| *serves), "{serves:?}");
    }
}
