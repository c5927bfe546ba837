//! The audit in the file.

use super::Embedded;
use super::rows::{self, unix_time};
use crate::auth::audit::{Audit, AuditEntry};
use crate::auth::registry::RegistryError;
use async_trait::async_trait;
use rusqlite::{Row, params};

#[async_trait]
impl Audit for Embedded {
    async fn audit(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, RegistryError> {
        let before = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
        self.read(move |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT id, at, actor, action, subject, detail FROM audit WHERE id < ?1 \
                 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![before, rows::count(limit)], entry)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        id: rows::unsigned(row.get(0)?),
        at: unix_time(row.get(1)?),
        actor: row.get(2)?,
        action: row.get(3)?,
        subject: row.get(4)?,
        detail: rows::json(row, 5)?,
    })
}
