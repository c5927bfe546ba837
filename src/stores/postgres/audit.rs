//! The audit in PostgreSQL.

use super::Postgres;
use super::error::PostgresError;
use super::rows::{Reader, count};
use crate::auth::audit::{Audit, AuditEntry};
use crate::auth::registry::RegistryError;
use async_trait::async_trait;

#[async_trait]
impl Audit for Postgres {
    async fn audit(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, RegistryError> {
        let before = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
        let sql = "SELECT id, at, actor, action, subject, detail FROM audit WHERE id < $1 \
                   ORDER BY id DESC LIMIT $2";
        let rows = self.survey(sql.to_owned(), vec![Box::new(before), Box::new(count(limit))]);
        let entries = rows.await?;
        Ok(self.each(&entries, entry)?)
    }
}

fn entry(row: Reader<'_>) -> Result<AuditEntry, PostgresError> {
    Ok(AuditEntry {
        id: row.number(0)?,
        at: row.time(1)?,
        actor: row.text(2)?,
        action: row.text(3)?,
        subject: row.text(4)?,
        detail: row.get(5)?,
    })
}
