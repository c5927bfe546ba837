//! Consumers.

use super::body::{Members, flag, name, names};
use super::notation::show_time;
use super::{Api, ApiState, Name, Outcome, created, path_of, query, removed, told};
use super::{warn_of_unknown, with_warnings};
use crate::auth::documents::DocumentKind;
use crate::auth::registry::{Actor, ConsumerInfo, NewConsumer, RegistryError, check_policies};
use axum::Extension;
use axum::extract::State;
use http::{StatusCode, Uri};
use serde_json::{Value, json};

pub(super) async fn list(State(api): Api, uri: Uri) -> Outcome {
    let paging = query(&uri, &["limit", "cursor"])?.paging("consumers")?;
    let rows = api.ports.registry.consumers(paging.page()).await?;
    Ok(paging.told(rows, |row| row.consumer.username.to_string(), show))
}

pub(super) async fn add(
    State(api): Api,
    Extension(by): Extension<Actor>,
    mut members: Members,
) -> Outcome {
    let username = members.need("username", name);
    let plan = members.need("plan", name);
    let custom_id = members.take("custom_id", name);
    let policies = members.take("policies", policies).unwrap_or_default();
    let (username, plan) = members.finish(username.zip(plan))?;
    let new = NewConsumer { username, custom_id, plan, policies };
    let added = api.ports.registry.add_consumer(&by, new).await?;
    Ok(created(&path_of("consumers", &added.consumer.username), &show_with_warnings(&api, &added)))
}

pub(super) async fn one(State(api): Api, Name(name): Name) -> Outcome {
    let found = api.ports.registry.consumer(&name).await?;
    Ok(told(StatusCode::OK, &show(&found)))
}

/// Changes what is named. Everything is checked before anything is written; each change is a write of
/// its own, and the same ones again change nothing, so whoever gets a 503 can simply try again.
pub(super) async fn change(
    State(api): Api,
    Name(consumer): Name,
    Extension(by): Extension<Actor>,
    mut members: Members,
) -> Outcome {
    let enabled = members.take("enabled", flag);
    let plan = members.take("plan", name);
    let policies = members.take("policies", policies);
    if enabled.is_none() && plan.is_none() && policies.is_none() {
        members.fault_of_all("must name what to change: `enabled`, `plan` or `policies`");
    }
    members.finish(Some(()))?;
    let registry = &api.ports.registry;
    let mut changed = registry.consumer(&consumer).await?;
    // By its id, which stays, and keeping out first, letting in last.
    let id = changed.consumer.id.to_string();
    if enabled == Some(false) {
        changed = registry.set_enabled(&by, &id, false).await?;
    }
    if let Some(plan) = plan {
        changed = registry.set_plan(&by, &id, &plan).await?;
    }
    if let Some(policies) = policies {
        changed = registry.set_policies(&by, &id, &policies).await?;
    }
    if enabled == Some(true) {
        changed = registry.set_enabled(&by, &id, true).await?;
    }
    Ok(told(StatusCode::OK, &show_with_warnings(&api, &changed)))
}

pub(super) async fn remove(
    State(api): Api,
    Name(name): Name,
    Extension(by): Extension<Actor>,
) -> Outcome {
    api.ports.registry.remove_consumer(&by, &name).await?;
    Ok(removed())
}

fn policies(value: &Value) -> Result<Vec<String>, String> {
    let policies = names(value)?;
    match check_policies(&policies) {
        Ok(()) => Ok(policies),
        Err(RegistryError::Invalid { problem, .. }) => Err(problem),
        Err(other) => Err(other.to_string()),
    }
}

fn show_with_warnings(api: &ApiState, info: &ConsumerInfo) -> Value {
    let mut warnings = Vec::new();
    warn_of_unknown(api, DocumentKind::Plan, &[&info.consumer.plan], &mut warnings);
    warn_of_unknown(api, DocumentKind::Policy, &info.consumer.policies, &mut warnings);
    with_warnings(show(info), warnings)
}

fn show(info: &ConsumerInfo) -> Value {
    let consumer = &info.consumer;
    json!({
        "id": &*consumer.id,
        "username": &*consumer.username,
        "custom_id": consumer.custom_id.as_deref(),
        "plan": &*consumer.plan,
        "policies": consumer.policies.iter().map(|policy| &**policy).collect::<Vec<_>>(),
        "enabled": consumer.enabled,
        "created_at": show_time(info.created_at),
    })
}
