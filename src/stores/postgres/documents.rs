//! Plans and policies in PostgreSQL.

use super::Postgres;
use super::error::PostgresError;
use super::pool::Work;
use super::rows::{Reader, askable, bounds, count, stored, unsigned};
use super::write::{Deed, Failure, Job};
use crate::auth::changes::ChangeKind;
use crate::auth::documents::{Document, DocumentKind, Documents, MAX_DOCUMENTS};
use crate::auth::registry::{Actor, Page, RegistryError, check_name};
use crate::auth::{Outage, UnixTime};
use async_trait::async_trait;
use serde_json::{Value, json};

/// Columns of [`document`].
const DOCUMENT: &str = "kind, name, body, updated_at";

#[async_trait]
impl Documents for Postgres {
    async fn load_documents(&self) -> Result<(Vec<Document>, u64), Outage> {
        let sql = "SELECT r.n, d.kind IS NOT NULL, d.kind, d.name, d.body, d.updated_at \
                   FROM revision r LEFT JOIN documents d ON true ORDER BY d.kind, d.name";
        self.load(sql.to_owned(), Vec::new(), |row| document(row, 2)).await
    }

    async fn documents(
        &self,
        kind: DocumentKind,
        page: Page<'_>,
    ) -> Result<Vec<Document>, RegistryError> {
        let (after, limit) = bounds(page);
        let sql = format!(
            "SELECT {DOCUMENT} FROM documents WHERE kind = $1 AND name > $2 ORDER BY name LIMIT $3"
        );
        let values = vec![Box::new(kind.as_str()) as _, Box::new(after) as _, Box::new(limit) as _];
        let rows = self.survey(sql, values).await?;
        Ok(self.each(&rows, |row| document(row, 0))?)
    }

    async fn document(&self, kind: DocumentKind, name: &str) -> Result<Document, RegistryError> {
        let values = vec![Box::new(kind.as_str()) as _, Box::new(askable(name).to_owned()) as _];
        let rows = self.survey(find_sql(), values).await?;
        match rows.first() {
            Some(row) => Ok(document(Reader::new(&self.shared.primary.at, row), 0)?),
            None => Err(unknown(kind, name)),
        }
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
        self.write(by, Put { kind, name, body }).await
    }

    async fn remove_document(
        &self,
        by: &Actor,
        kind: DocumentKind,
        name: &str,
    ) -> Result<Document, RegistryError> {
        self.write(by, Remove { kind, name: name.to_owned() }).await
    }
}

struct Put {
    kind: DocumentKind,
    name: String,
    body: Value,
}

#[async_trait]
impl Job for Put {
    type Done = Document;

    async fn run(
        &self,
        work: &Work<'_>,
        now: UnixTime,
    ) -> Result<(Document, Option<Deed>), Failure> {
        let Self { kind, name, body } = self;
        let before = find(work, *kind, name).await?;
        match &before {
            Some(same) if same.body == *body => return Ok((same.clone(), None)),
            None => refuse_too_many(work, *kind).await?,
            Some(_) => {}
        }
        let sql = format!(
            "INSERT INTO documents (kind, name, body, updated_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (kind, name) DO UPDATE \
             SET body = excluded.body, updated_at = excluded.updated_at RETURNING {DOCUMENT}"
        );
        let row = work.row(&sql, &[&kind.as_str(), name, body, &stored(now)]).await;
        let row = row.map_err(|error| refuse_body(*kind, error))?;
        let written = document(Reader::new(work.at(), &row), 0)?;
        let action = match kind {
            DocumentKind::Plan => "plan.put",
            DocumentKind::Policy => "policy.put",
        };
        let detail = json!({
            "new": before.is_none(),
            "body": body,
            "before": before.map(|before| before.body),
        });
        let deed = deed(action, &written, detail);
        Ok((written, Some(deed)))
    }
}

struct Remove {
    kind: DocumentKind,
    name: String,
}

#[async_trait]
impl Job for Remove {
    type Done = Document;

    async fn run(
        &self,
        work: &Work<'_>,
        _now: UnixTime,
    ) -> Result<(Document, Option<Deed>), Failure> {
        let Self { kind, name } = self;
        let found = find(work, *kind, name).await?;
        let old = found.ok_or_else(|| unknown(*kind, name))?;
        let sql = "DELETE FROM documents WHERE kind = $1 AND name = $2";
        work.change(sql, &[&kind.as_str(), name]).await?;
        let action = match kind {
            DocumentKind::Plan => "plan.remove",
            DocumentKind::Policy => "policy.remove",
        };
        let deed = deed(action, &old, json!({ "before": &old.body }));
        Ok((old, Some(deed)))
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

fn find_sql() -> String {
    format!("SELECT {DOCUMENT} FROM documents WHERE kind = $1 AND name = $2")
}

async fn find(
    work: &Work<'_>,
    kind: DocumentKind,
    name: &str,
) -> Result<Option<Document>, PostgresError> {
    let rows = work.rows(&find_sql(), &[&kind.as_str(), &askable(name)]).await?;
    rows.first().map(|row| document(Reader::new(work.at(), row), 0)).transpose()
}

fn unknown(kind: DocumentKind, name: &str) -> RegistryError {
    RegistryError::UnknownDocument { kind: kind.as_str(), name: name.to_owned() }
}

async fn refuse_too_many(work: &Work<'_>, kind: DocumentKind) -> Result<(), Failure> {
    let sql = "SELECT count(*) FROM documents WHERE kind = $1";
    let row = work.row(sql, &[&kind.as_str()]).await?;
    if unsigned(Reader::new(work.at(), &row).get(0)?) < unsigned(count(MAX_DOCUMENTS)) {
        return Ok(());
    }
    let what = match kind {
        DocumentKind::Plan => "plans in the store",
        DocumentKind::Policy => "policies in the store",
    };
    Err(RegistryError::TooMany { what, most: MAX_DOCUMENTS }.into())
}

/// JSON may have a zero in a text; PostgreSQL's may not.
fn refuse_body(kind: DocumentKind, error: PostgresError) -> Failure {
    match error.code() {
        Some("22P05" | "22021") => {
            let problem = "must not have a zero character in a text".to_owned();
            RegistryError::Invalid { what: kind.as_str(), problem }.into()
        }
        _ => error.into(),
    }
}

/// A document whose columns begin at `first`.
fn document(row: Reader<'_>, first: usize) -> Result<Document, PostgresError> {
    let kind = match row.get(first)? {
        "plan" => DocumentKind::Plan,
        "policy" => DocumentKind::Policy,
        _ => return Err(row.odd(first)),
    };
    Ok(Document {
        kind,
        name: row.text(first + 1)?,
        body: row.get(first + 2)?,
        updated_at: row.time(first + 3)?,
    })
}
