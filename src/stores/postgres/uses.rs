//! The last use of keys, and other digests of the same keys, in PostgreSQL.
//!
//! Each is one statement. A row that somebody else writes just then is left out instead of waited for:
//! tasks that note at once never stand in each other's way, nor in an operator's. What was left out is
//! noted in the next hour.
//!
//! Must stay true: no revision, no notification and no line of the audit comes of it; a digest takes the
//! place of the one that it was made for, and of no other.

use super::Postgres;
use super::error::PostgresError;
use super::pool::{Lane, Pool};
use super::rows::stored;
use crate::auth::registry::RegistryError;
use crate::auth::uses::{KeyUse, UseLog};
use async_trait::async_trait;
use std::sync::Arc;

/// How often a batch is tried at once.
const TRIES: u32 = 3;

const USED: &str = "WITH due AS MATERIALIZED (SELECT k.id, t.at \
    FROM unnest($1::text[], $2::bigint[]) AS t (id, at) \
    JOIN keys k ON k.id = t.id COLLATE \"C\" \
    WHERE k.last_used_at IS NULL OR k.last_used_at < t.at \
    ORDER BY k.id FOR NO KEY UPDATE OF k SKIP LOCKED) \
    UPDATE keys k SET last_used_at = due.at FROM due WHERE k.id = due.id";

const REDIGESTED: &str = "WITH due AS MATERIALIZED (SELECT k.id, t.new, t.pepper \
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[]) AS t (id, old, new, pepper) \
    JOIN keys k ON k.id = t.id COLLATE \"C\" \
    WHERE k.digest = t.old AND k.revoked_at IS NULL \
    ORDER BY k.id FOR NO KEY UPDATE OF k SKIP LOCKED) \
    UPDATE keys k SET digest = due.new, pepper = due.pepper FROM due WHERE k.id = due.id";

#[async_trait]
impl UseLog for Postgres {
    async fn note_uses(&self, uses: &[KeyUse]) -> Result<usize, RegistryError> {
        if uses.is_empty() {
            return Ok(0);
        }
        let (shared, uses) = (Arc::clone(&self.shared), uses.to_vec());
        let noted = self.reactor.run(async move {
            let (pool, deadline) = (&shared.primary, shared.bounds.administration);
            pool.within(deadline, note(pool, &uses)).await
        });
        Ok(noted.await.unwrap_or_else(|| Err(self.shared.primary.stopped()))?)
    }
}

/// Noting twice does no harm, so it is tried again whatever became of it.
async fn note(pool: &Pool, uses: &[KeyUse]) -> Result<usize, PostgresError> {
    let mut tries = 1;
    loop {
        match note_once(pool, uses).await {
            Err(error) if error.is_passing() && tries < TRIES => tries += 1,
            noted => return noted,
        }
    }
}

async fn note_once(pool: &Pool, uses: &[KeyUse]) -> Result<usize, PostgresError> {
    let work = pool.take(Lane::Administration).await?;
    let ids: Vec<&str> = uses.iter().map(|used| used.id.as_str()).collect();
    let hours: Vec<i64> = uses.iter().map(|used| stored(used.at)).collect();
    work.change(USED, &[&ids, &hours]).await?;
    let others: Vec<_> =
        uses.iter().filter_map(|used| used.redigest.as_ref().map(|it| (used.id, it))).collect();
    if others.is_empty() {
        return Ok(0);
    }
    let ids: Vec<&str> = others.iter().map(|(id, _)| id.as_str()).collect();
    let old: Vec<&[u8]> = others.iter().map(|(_, it)| &it.old.as_bytes()[..]).collect();
    let new: Vec<&[u8]> = others.iter().map(|(_, it)| &it.new.as_bytes()[..]).collect();
    let peppers: Vec<i64> = others.iter().map(|(_, it)| i64::from(it.pepper.as_u32())).collect();
    let changed = work.change(REDIGESTED, &[&ids, &old, &new, &peppers]).await?;
    Ok(usize::try_from(changed).unwrap_or(usize::MAX))
}
