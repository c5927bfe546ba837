//! Plans and policies: the rows of the store, beside what the files say.
//!
//! A list has both, since what an operator asks is which of them holds. A row is compiled, with the
//! rules for files, before it is written: one that is not valid must not get as far as the fleet.

use super::body::Whole;
use super::notation::show_time;
use super::problem::{Code, Problem};
use super::{Api, ApiState, Name, Origin, Outcome, query, removed, told};
use crate::auth::documents::{Document, DocumentKind};
use crate::auth::registry::{Actor, RegistryError, check_name};
use axum::Extension;
use axum::extract::State;
use http::{StatusCode, Uri};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A name, with its row if there is one, and where it is in force from if it is.
#[derive(Default)]
struct Entry {
    row: Option<Document>,
    origin: Option<Origin>,
}

pub(super) async fn list(
    State(api): Api,
    Extension(kind): Extension<DocumentKind>,
    uri: Uri,
) -> Outcome {
    let paging = query(&uri, &["limit", "cursor"])?.paging(kind.as_str())?.of_large_rows();
    let rows = api.ports.documents.documents(kind, paging.page()).await?;
    let mut all: BTreeMap<Arc<str>, Entry> = (api.in_force)(kind)
        .into_iter()
        .filter(|(name, _)| paging.after().is_none_or(|after| &**name > after))
        .map(|(name, origin)| (name, Entry { row: None, origin: Some(origin) }))
        .collect();
    for row in rows {
        let entry = all.entry(Arc::clone(&row.name)).or_default();
        entry.row = Some(row);
    }
    // A row in force that the store did not hand out stands on a later page, or is gone by now.
    all.retain(|_, entry| entry.row.is_some() || entry.origin == Some(Origin::File));
    let all: Vec<_> = all.into_iter().take(paging.wanted()).collect();
    Ok(paging.told(all, |(name, _)| name.to_string(), |(name, entry)| show(name, entry)))
}

pub(super) async fn one(
    State(api): Api,
    Extension(kind): Extension<DocumentKind>,
    Name(name): Name,
) -> Outcome {
    let origin = origin(&api, kind, &name);
    let row = match api.ports.documents.document(kind, &name).await {
        Ok(row) => Some(row),
        Err(RegistryError::UnknownDocument { .. }) if origin.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    Ok(told(StatusCode::OK, &show(&name, &Entry { row, origin })))
}

pub(super) async fn put(
    State(api): Api,
    Extension(kind): Extension<DocumentKind>,
    Name(name): Name,
    Extension(by): Extension<Actor>,
    Whole(body): Whole,
) -> Outcome {
    if let Err(RegistryError::Invalid { problem, .. }) = check_name(kind.as_str(), &name) {
        let detail = format!("the name of a {} {problem}", kind.as_str());
        return Err(Problem::new(Code::BadPath, detail));
    }
    let body = check(&api, kind, &name, body).await?;
    let row = api.ports.documents.put_document(&by, kind, &name, &body).await?;
    let origin = origin(&api, kind, &name);
    Ok(told(StatusCode::OK, &show(&name, &Entry { row: Some(row), origin })))
}

/// Compiles it beside the event loop, which may be the one that serves requests.
async fn check(
    api: &ApiState,
    kind: DocumentKind,
    name: &str,
    body: Value,
) -> Result<Value, Problem> {
    let (compile, name) = (Arc::clone(&api.check_document), name.to_owned());
    let checked = tokio::task::spawn_blocking(move || {
        let verdict = compile(kind, &name, &body);
        verdict.map(|()| body)
    });
    match checked.await {
        Ok(verdict) => verdict.map_err(Problem::invalid),
        Err(error) => Err(Problem::internal(&error.to_string())),
    }
}

pub(super) async fn remove(
    State(api): Api,
    Extension(kind): Extension<DocumentKind>,
    Name(name): Name,
    Extension(by): Extension<Actor>,
) -> Outcome {
    match api.ports.documents.remove_document(&by, kind, &name).await {
        Ok(_) => Ok(removed()),
        Err(RegistryError::UnknownDocument { .. })
            if origin(&api, kind, &name) == Some(Origin::File) =>
        {
            let kind = kind.as_str();
            let detail =
                format!("the {kind} `{name}` stands in a file, and no row: change the file");
            Err(Problem::new(Code::UnknownDocument, detail))
        }
        Err(error) => Err(error.into()),
    }
}

fn origin(api: &ApiState, kind: DocumentKind, name: &str) -> Option<Origin> {
    let all = (api.in_force)(kind);
    all.into_iter().find(|(known, _)| **known == *name).map(|(_, origin)| origin)
}

fn show(name: &str, entry: &Entry) -> Value {
    json!({
        "name": name,
        "in_force": match entry.origin {
            Some(Origin::File) => "file",
            Some(Origin::Row) => "row",
            None => "none",
        },
        "document": entry.row.as_ref().map(|row| &row.body),
        "updated_at": entry.row.as_ref().map(|row| show_time(row.updated_at)),
    })
}
