//! The audit: who changed what, and when; the newest first.

use super::notation::show_time;
use super::problem::{Code, Problem};
use super::{Api, Outcome, query};
use crate::auth::audit::AuditEntry;
use axum::extract::State;
use http::Uri;
use serde_json::{Value, json};

pub(super) async fn list(State(api): Api, uri: Uri) -> Outcome {
    let paging = query(&uri, &["limit", "cursor"])?.paging("audit")?.of_large_rows();
    let before = paging
        .after()
        .map(|place| place.parse().map_err(|_| Problem::new(Code::BadCursor, "not a place")))
        .transpose()?;
    let rows = api.ports.audit.audit(before, paging.wanted()).await?;
    Ok(paging.told(rows, |row| row.id.to_string(), show))
}

fn show(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "at": show_time(entry.at),
        "actor": &*entry.actor,
        "action": &*entry.action,
        "subject": &*entry.subject,
        "detail": entry.detail,
    })
}
