//! The deny list: tokens that are taken back before they end.

use super::body::{Members, name, text};
use super::notation::{read_time, show_time};
use super::problem::Problem;
use super::{Api, ApiState, Name, Outcome, created, path_of, query, removed};
use crate::auth::UnixTime;
use crate::auth::denials::{Denial, DeniedTokens, NewDenial, check_denial};
use crate::auth::registry::Actor;
use axum::Extension;
use axum::extract::State;
use http::Uri;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn list(State(api): Api, uri: Uri) -> Outcome {
    let paging = query(&uri, &["limit", "cursor"])?.paging("denials")?;
    let rows = api.ports.denials.denials(paging.page()).await?;
    Ok(paging.told(rows, |row| row.id.to_string(), show))
}

pub(super) async fn add(
    State(api): Api,
    Extension(by): Extension<Actor>,
    members: Members,
) -> Outcome {
    let now = UnixTime::now(&api.clock);
    let new = check_denial(read(members, now, &api)?, now)?;
    let entry = api.ports.denials.deny(&by, new).await?;
    Ok(created(&path_of("denials", &entry.id), &show(&entry)))
}

pub(super) async fn remove(
    State(api): Api,
    Name(id): Name,
    Extension(by): Extension<Actor>,
) -> Outcome {
    api.ports.denials.allow(&by, &id).await?;
    Ok(removed())
}

/// One token by its `jti`, or all of a subject that were issued until now or until the time given.
fn read(mut members: Members, now: UnixTime, api: &ApiState) -> Result<NewDenial, Problem> {
    let issuer = members.need("issuer", |value| known_issuer(name(value)?, &(api.issuers)()));
    let id = members.take("jti", text);
    let subject = members.take("subject", text);
    let issued_before = members.take("issued_before", read_time);
    let until = members.need("until", read_time);
    let reason = members.take("reason", text);
    let tokens = match (id, subject) {
        (Some(id), None) => {
            if issued_before.is_some() {
                members.fault("issued_before", "goes with `subject` only");
            }
            Some(DeniedTokens::Id(id.into()))
        }
        (None, Some(subject)) => Some(DeniedTokens::Subject {
            subject: subject.into(),
            // A token of this very second may be older than the request.
            issued_before: issued_before
                .unwrap_or_else(|| now.after(std::time::Duration::from_secs(1))),
        }),
        (Some(_), Some(_)) => {
            members.fault("subject", "stands beside `jti`; say one of them");
            None
        }
        (None, None) => {
            members.fault("jti", "is required, or `subject`");
            None
        }
    };
    let ((issuer, until), tokens) = members.finish(issuer.zip(until).zip(tokens))?;
    Ok(NewDenial { issuer, tokens, until, reason })
}

/// Issuers that an answer names.
const NAMED: usize = 20;

/// An entry under another name would refuse nothing, while whoever wrote it believes that it does.
fn known_issuer(name: String, known: &[Arc<str>]) -> Result<String, String> {
    if known.iter().any(|issuer| **issuer == *name) {
        return Ok(name);
    }
    let named: Vec<&str> = known.iter().take(NAMED).map(|issuer| &**issuer).collect();
    let more = if known.len() > NAMED { ", …" } else { "" };
    Err(match named.as_slice() {
        [] => "is no issuer that is believed here; there is none".to_owned(),
        named => {
            let named = named.join("`, `");
            format!("is no issuer that is believed here; there are `{named}`{more}")
        }
    })
}

fn show(entry: &Denial) -> Value {
    let (id, subject, issued_before) = match &entry.tokens {
        DeniedTokens::Id(id) => (Some(&**id), None, None),
        DeniedTokens::Subject { subject, issued_before } => {
            (None, Some(&**subject), Some(show_time(*issued_before)))
        }
    };
    json!({
        "id": &*entry.id,
        "issuer": &*entry.issuer,
        "jti": id,
        "subject": subject,
        "issued_before": issued_before,
        "until": show_time(entry.until),
        "reason": entry.reason.as_deref(),
        "created_at": show_time(entry.created_at),
    })
}
