//! Plans and policies in the file.

use super::Embedded;
use super::rows::{self, stored, unix_time};
use super::transaction::{Deed, Failure, bounds};
use crate::auth::Outage;
use crate::auth::changes::ChangeKind;
use crate::auth::documents::{Document, DocumentKind, Documents, MAX_DOCUMENTS};
use crate::auth::registry::{Actor, Page, RegistryError, check_name};
use async_trait::async_trait;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde_json::{Value, json};

/// Columns of [`document`].
const DOCUMENT: &str = "kind, name, body, updated_at";

#[async_trait]
impl Documents for Embedded {
    async fn load_documents(&self) -> Result<(Vec<Document>, u64), Outage> {
        self.load(|tx| {
            let sql = format!("SELECT {DOCUMENT} FROM documents ORDER BY kind, name");
            tx.prepare(&sql)?.query_map((), document)?.collect()
        })
        .await
    }

    async fn documents(
        &self,
        kind: DocumentKind,
        page: Page<'_>,
    ) -> Result<Vec<Document>, RegistryError> {
        let (after, limit) = bounds(page);
        self.read(move |tx| {
            let sql = format!(
                "SELECT {DOCUMENT} FROM documents WHERE kind = ?1 AND name > ?2 \
                 ORDER BY name LIMIT ?3"
            );
            let mut statement = tx.prepare_cached(&sql)?;
            let rows = statement.query_map(params![kind.as_str(), after, limit], document)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn document(&self, kind: DocumentKind, name: &str) -> Result<Document, RegistryError> {
        let name = name.to_owned();
        self.read(move |tx| known(tx, kind, &name)).await
    }

    async fn put_document(
        &self,
        by: &Actor,
        kind: DocumentKind,
        name: &str,
        body: &Value,
    ) -> Result<Document, RegistryError> {
        check_name(kind.as_str(), name)?;
        let (name, body) = (name.to_owned(), body.clone());
        self.write(by, move |tx, now| {
            let before = find(tx, kind, &name)?;
            match &before {
                Some(same) if same.body == body => return Ok((same.clone(), None)),
                None => refuse_too_many(tx, kind)?,
                Some(_) => {}
            }
            tx.execute(
                "INSERT INTO documents (kind, name, body, updated_at) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO UPDATE SET body = excluded.body, updated_at = excluded.updated_at",
                params![kind.as_str(), name, body.to_string(), stored(now)],
            )?;
            let action = match kind {
                DocumentKind::Plan => "plan.put",
                DocumentKind::Policy => "policy.put",
            };
            let written = known(tx, kind, &name)?;
            let detail = json!({
                "new": before.is_none(),
                "body": body,
                "before": before.map(|before| before.body),
            });
            let deed = deed(action, &written, detail);
            Ok((written, Some(deed)))
        })
        .await
    }

    async fn remove_document(
        &self,
        by: &Actor,
        kind: DocumentKind,
        name: &str,
    ) -> Result<Document, RegistryError> {
        let name = name.to_owned();
        self.write(by, move |tx, _| {
            let old = known(tx, kind, &name)?;
            tx.execute(
                "DELETE FROM documents WHERE kind = ?1 AND name = ?2",
                params![kind.as_str(), name],
            )?;
            let action = match kind {
                DocumentKind::Plan => "plan.remove",
                DocumentKind::Policy => "policy.remove",
            };
            let deed = deed(action, &old, json!({ "before": &old.body }));
            Ok((old, Some(deed)))
        })
        .await
    }
}

fn deed(action: &'static str, document: &Document, detail: Value) -> Deed {
    let kind = match document.kind {
        DocumentKind::Plan => ChangeKind::Plan,
        DocumentKind::Policy => ChangeKind::Policy,
    };
    let name = document.name.to_string();
    Deed { touched: vec![(kind, name.clone())], action, subject: name, detail }
}

fn find(
    tx: &Transaction<'_>,
    kind: DocumentKind,
    name: &str,
) -> rusqlite::Result<Option<Document>> {
    let sql = format!("SELECT {DOCUMENT} FROM documents WHERE kind = ?1 AND name = ?2");
    tx.prepare_cached(&sql)?.query_row(params![kind.as_str(), name], document).optional()
}

fn known(tx: &Transaction<'_>, kind: DocumentKind, name: &str) -> Result<Document, Failure> {
    find(tx, kind, name)?.ok_or_else(|| {
        RegistryError::UnknownDocument { kind: kind.as_str(), name: name.to_owned() }.into()
    })
}

fn refuse_too_many(tx: &Transaction<'_>, kind: DocumentKind) -> Result<(), Failure> {
    let sql = "SELECT count(*) FROM documents WHERE kind = ?1";
    let there: i64 = tx.prepare_cached(sql)?.query_row([kind.as_str()], |row| row.get(0))?;
    if there < rows::count(MAX_DOCUMENTS) {
        return Ok(());
    }
    let what = match kind {
        DocumentKind::Plan => "plans in the store",
        DocumentKind::Policy => "policies in the store",
    };
    Err(RegistryError::TooMany { what, most: MAX_DOCUMENTS }.into())
}

fn document(row: &Row<'_>) -> rusqlite::Result<Document> {
    let kind = match row.get_ref(0)?.as_str()? {
        "plan" => DocumentKind::Plan,
        "policy" => DocumentKind::Policy,
        other => {
            let error = format!("`{other}` is no kind of document").into();
            return Err(rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error));
        }
    };
    Ok(Document {
        kind,
        name: row.get(1)?,
        body: rows::json(row, 2)?,
        updated_at: unix_time(row.get(3)?),
    })
}
