//! Keys: issued, rotated, revoked.
//!
//! Must stay true: a plain key is in the answer to the request that made it; nobody else ever sees it.
//! A key in a path is named by its id only, and what is not an id is not repeated.

use super::body::{Members, Optional, name, names, networks};
use super::notation::{read_span, read_time, show_time};
use super::problem::{Code, Problem};
use super::{Api, ApiState, Name, Outcome, created, path_of, query, told};
use super::{warn_of_unknown, with_warnings};
use crate::auth::UnixTime;
use crate::auth::api_key::{KeyForm, KeyId, KeyProof, PlainKey, Standing};
use crate::auth::documents::DocumentKind;
use crate::auth::registry::{Actor, KeyInfo, NewKey, Rotation};
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a key that is rotated lives on, unless the request says otherwise.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn list(State(api): Api, uri: Uri) -> Outcome {
    keys(&api, &uri, None).await
}

pub(super) async fn list_of_consumer(State(api): Api, Name(name): Name, uri: Uri) -> Outcome {
    keys(&api, &uri, Some(&name)).await
}

async fn keys(api: &ApiState, uri: &Uri, consumer: Option<&str>) -> Outcome {
    let list = consumer.map_or_else(|| "keys".to_owned(), |name| format!("keys of {name}"));
    let paging = query(uri, &["limit", "cursor"])?.paging(list)?;
    let rows = api.ports.registry.keys(consumer, paging.page()).await?;
    let view = View::of(api);
    Ok(paging.told(rows, |row| row.id.to_string(), |row| show(row, &view)))
}

pub(super) async fn one(State(api): Api, Name(id): Name) -> Outcome {
    let key = api.ports.registry.key(parse_id(&id)?).await?;
    Ok(told(StatusCode::OK, &show(&key, &View::of(&api))))
}

pub(super) async fn issue(
    State(api): Api,
    Name(consumer): Name,
    Extension(by): Extension<Actor>,
    Optional(mut members): Optional,
) -> Outcome {
    let now = UnixTime::now(&api.clock);
    let key_name = members.take("name", name);
    let plan = members.take("plan", name);
    let scopes = members.take("scopes", names).unwrap_or_default();
    let addresses = members.take("addresses", networks).unwrap_or_default();
    let not_before = members.take("not_before", read_time);
    let expires_at = take_end(&mut members, not_before.unwrap_or_default().max(now));
    members.finish(Some(()))?;
    let (plain, proof) = generate(&(api.key_form)())?;
    let name = key_name;
    let new = NewKey { proof, consumer, name, plan, scopes, addresses, not_before, expires_at };
    let issued = api.ports.registry.issue_key(&by, new).await?;
    let warnings = warnings(&api, &issued).await;
    let shown = with_warnings(show(&issued, &View::of(&api)), warnings);
    Ok(handed_over(&plain, &issued, shown))
}

pub(super) async fn revoke(
    State(api): Api,
    Name(id): Name,
    Extension(by): Extension<Actor>,
    Optional(members): Optional,
) -> Outcome {
    members.finish(Some(()))?;
    let revoked = api.ports.registry.revoke_key(&by, parse_id(&id)?).await?;
    Ok(told(StatusCode::OK, &show(&revoked, &View::of(&api))))
}

pub(super) async fn rotate(
    State(api): Api,
    Name(id): Name,
    Extension(by): Extension<Actor>,
    Optional(mut members): Optional,
) -> Outcome {
    let id = parse_id(&id)?;
    let now = UnixTime::now(&api.clock);
    let overlap = members.take("overlap", read_span).unwrap_or(OVERLAP);
    let end = take_end(&mut members, now);
    members.finish(Some(()))?;
    let expires_at = match end {
        Some(end) => Some(end),
        None => lifetime(&api.ports.registry.key(id).await?).map(|span| now.after(span)),
    };
    let (plain, proof) = generate(&(api.key_form)())?;
    let rotation = Rotation { proof, expires_at, overlap };
    let (old, new) = api.ports.registry.rotate_key(&by, id, rotation).await?;
    let view = View::of(&api);
    let mut shown = show(&new, &view);
    if let Value::Object(members) = &mut shown {
        members.insert("replaces".to_owned(), show(&old, &view));
    }
    Ok(handed_over(&plain, &new, shown))
}

/// When a key ends: at a time, or a span after `begin`.
fn take_end(members: &mut Members, begin: UnixTime) -> Option<UnixTime> {
    let at = members.take("expires_at", read_time);
    let span = members.take("expires_in", read_span);
    if at.is_some() && span.is_some() {
        members.fault("expires_in", "stands beside `expires_at`; say one of them");
    }
    at.or_else(|| span.map(|span| begin.after(span)))
}

/// How long a key was meant to live, if it was not for ever.
fn lifetime(key: &KeyInfo) -> Option<Duration> {
    let begin = key.not_before.unwrap_or(key.created_at);
    key.expires_at.map(|end| Duration::from_secs(end.as_secs().saturating_sub(begin.as_secs())))
}

fn generate(form: &KeyForm) -> Result<(PlainKey, KeyProof), Problem> {
    form.generate().map_err(|error| Problem::internal(&error.to_string()))
}

fn parse_id(text: &str) -> Result<KeyId, Problem> {
    text.parse().map_err(|_| {
        let detail = "a key is named by its id, the 16 letters and digits between the second and \
                      the third `_` of the key; GET /v1/keys lists all";
        Problem::new(Code::BadPath, detail)
    })
}

/// The only time that anyone sees the key.
fn handed_over(plain: &PlainKey, issued: &KeyInfo, mut shown: Value) -> Response {
    if let Value::Object(members) = &mut shown {
        members.insert("key".to_owned(), plain.reveal().into());
    }
    created(&path_of("keys", issued.id.as_str()), &shown)
}

/// What keeps a new key from working, beside the key itself.
async fn warnings(api: &ApiState, issued: &KeyInfo) -> Vec<String> {
    let mut warnings = Vec::new();
    // The key is stored and must be handed over, whatever becomes of this look-up.
    match api.ports.registry.consumer(&issued.consumer).await {
        Err(error) => log::warn!(error:% = error; "a new key's consumer cannot be looked at"),
        Ok(owner) => {
            let owner = owner.consumer;
            let plan = issued.plan.as_ref().unwrap_or(&owner.plan);
            warn_of_unknown(api, DocumentKind::Plan, &[plan], &mut warnings);
            if !owner.enabled {
                let name = owner.username;
                warnings
                    .push(format!("`{name}` is disabled, its keys are refused until it is not"));
            }
        }
    }
    warnings
}

/// What the state of a key depends on, beside the key itself.
struct View {
    now: UnixTime,
    form: KeyForm,
}

impl View {
    fn of(api: &ApiState) -> Self {
        Self { now: UnixTime::now(&api.clock), form: (api.key_form)() }
    }
}

fn state(info: &KeyInfo, view: &View) -> &'static str {
    let now = view.now;
    if info.revoked_at.is_some() {
        "revoked"
    } else if !info.is_live(now) {
        "expired"
    } else if view.form.standing(info.pepper) == Standing::Other {
        "other_pepper"
    } else if info.not_before.is_some_and(|begin| now < begin) {
        "not_yet"
    } else {
        "live"
    }
}

/// What the pepper of a key is to this gateway.
fn pepper(info: &KeyInfo, view: &View) -> &'static str {
    match view.form.standing(info.pepper) {
        Standing::Current => "current",
        Standing::Other => "other",
        Standing::Previous => "previous",
    }
}

fn show(info: &KeyInfo, view: &View) -> Value {
    json!({
        "id": info.id.as_str(),
        "consumer": &*info.consumer,
        "name": info.name.as_deref(),
        "state": state(info, view),
        "plan": info.plan.as_deref(),
        "scopes": info.scopes.iter().map(|scope| &**scope).collect::<Vec<_>>(),
        "addresses": info.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "pepper": pepper(info, view),
        "created_at": show_time(info.created_at),
        "not_before": info.not_before.map(show_time),
        "expires_at": info.expires_at.map(show_time),
        "revoked_at": info.revoked_at.map(show_time),
        "last_used_at": info.last_used_at.map(show_time),
    })
}
