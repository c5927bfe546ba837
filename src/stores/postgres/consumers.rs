//! Writes to consumers.

use super::error::PostgresError;
use super::pool::{Value, Work};
use super::rows::{self, Reader, askable, stored};
use super::write::{Deed, Failure, Job};
use crate::auth::changes::ChangeKind;
use crate::auth::registry::{ConsumerInfo, NewConsumer, RegistryError};
use crate::auth::{Consumer, UnixTime};
use async_trait::async_trait;
use serde_json::{Value as Json, json};
use uuid::{NoContext, Timestamp, Uuid};

/// Adds a consumer.
pub(super) struct Add(pub(super) NewConsumer);

#[async_trait]
impl Job for Add {
    type Done = ConsumerInfo;

    async fn run(
        &self,
        work: &Work<'_>,
        now: UnixTime,
    ) -> Result<(ConsumerInfo, Option<Deed>), Failure> {
        let Self(new) = self;
        let sql = "SELECT 1 FROM consumers WHERE username = $1";
        refuse_taken(work, "username", sql, &new.username).await?;
        if let Some(custom_id) = &new.custom_id {
            let sql = "SELECT 1 FROM consumers WHERE custom_id = $1";
            refuse_taken(work, "custom id", sql, custom_id).await?;
        }
        let id = Uuid::new_v7(Timestamp::from_unix(NoContext, now.as_secs(), 0)).to_string();
        let sql = format!(
            "INSERT INTO consumers AS c (id, username, custom_id, plan, policies, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING {}",
            rows::CONSUMER
        );
        let row = work
            .row(
                &sql,
                &[&id, &new.username, &new.custom_id, &new.plan, &new.policies, &stored(now)],
            )
            .await?;
        let added = rows::consumer_info(Reader::new(work.at(), &row))?;
        let detail = json!({
            "username": new.username,
            "custom_id": new.custom_id,
            "plan": new.plan,
            "policies": new.policies,
        });
        let deed = deed("consumer.add", &added.consumer, detail);
        Ok((added, Some(deed)))
    }
}

/// Changes one thing about a consumer.
pub(super) struct Change {
    /// Its username or id.
    pub(super) name: String,
    /// What is to be so.
    pub(super) to: Setting,
}

/// What can be changed about a consumer.
pub(super) enum Setting {
    Enabled(bool),
    Plan(String),
    Policies(Vec<String>),
}

impl Setting {
    /// Action, statement, and value.
    fn statement(&self) -> (&'static str, &'static str, Value<'_>) {
        match self {
            Self::Enabled(on) => {
                let action = if *on { "consumer.enable" } else { "consumer.disable" };
                (action, "UPDATE consumers SET enabled = $1 WHERE id = $2", on)
            }
            Self::Plan(plan) => {
                ("consumer.set_plan", "UPDATE consumers SET plan = $1 WHERE id = $2", plan)
            }
            Self::Policies(policies) => (
                "consumer.set_policies",
                "UPDATE consumers SET policies = $1 WHERE id = $2",
                policies,
            ),
        }
    }

    /// What the audit is to know; `None` if it is so already.
    fn differs(&self, old: &Consumer) -> Option<Json> {
        let username = &*old.username;
        match self {
            Self::Enabled(on) => (old.enabled != *on).then(|| json!({ "username": username })),
            Self::Plan(plan) => (*old.plan != **plan)
                .then(|| json!({ "username": username, "plan": plan, "before": &*old.plan })),
            Self::Policies(policies) => {
                let (before, policies) = (old.policies.join(" "), policies.join(" "));
                (before != policies).then(
                    || json!({ "username": username, "policies": policies, "before": before }),
                )
            }
        }
    }
}

#[async_trait]
impl Job for Change {
    type Done = ConsumerInfo;

    async fn run(
        &self,
        work: &Work<'_>,
        _now: UnixTime,
    ) -> Result<(ConsumerInfo, Option<Deed>), Failure> {
        let old = find(work, &self.name).await?;
        let Some(detail) = self.to.differs(&old.consumer) else {
            return Ok((old, None));
        };
        let (action, sql, value) = self.to.statement();
        let id = &*old.consumer.id;
        work.change(sql, &[value, &id]).await?;
        Ok((find(work, id).await?, Some(deed(action, &old.consumer, detail))))
    }
}

/// Removes a consumer and its keys.
pub(super) struct Remove(pub(super) String);

#[async_trait]
impl Job for Remove {
    type Done = (ConsumerInfo, usize);

    async fn run(
        &self,
        work: &Work<'_>,
        _now: UnixTime,
    ) -> Result<(Self::Done, Option<Deed>), Failure> {
        let old = find(work, &self.0).await?;
        let id = &*old.consumer.id;
        let keys = work.change("DELETE FROM keys WHERE consumer = $1", &[&id]).await?;
        work.change("DELETE FROM consumers WHERE id = $1", &[&id]).await?;
        let detail = json!({ "username": &*old.consumer.username, "keys": keys });
        let deed = deed("consumer.remove", &old.consumer, detail);
        Ok(((old, usize::try_from(keys).unwrap_or(usize::MAX)), Some(deed)))
    }
}

fn deed(action: &'static str, consumer: &Consumer, detail: Json) -> Deed {
    let id = consumer.id.to_string();
    Deed { touched: vec![(ChangeKind::Consumer, id.clone())], action, subject: id, detail }
}

/// Finds a consumer by username (`$1`), or else by id.
pub(super) fn find_sql() -> String {
    // Two look-ups by index, and not one that reads the table.
    format!(
        "SELECT {0} FROM consumers c WHERE c.username = $1 UNION ALL \
         SELECT {0} FROM consumers c WHERE c.id = $1 AND c.username <> $1 LIMIT 1",
        rows::CONSUMER
    )
}

/// By username, or else by id.
pub(super) async fn find(work: &Work<'_>, name: &str) -> Result<ConsumerInfo, Failure> {
    let found = work.rows(&find_sql(), &[&askable(name)]).await?;
    let row = found.first().ok_or_else(|| RegistryError::UnknownConsumer(name.to_owned()))?;
    Ok(rows::consumer_info(Reader::new(work.at(), row))?)
}

async fn refuse_taken(
    work: &Work<'_>,
    what: &'static str,
    sql: &'static str,
    value: &str,
) -> Result<(), Failure> {
    let taken: Result<_, PostgresError> = work.rows(sql, &[&value]).await;
    match taken?.is_empty() {
        true => Ok(()),
        false => Err(RegistryError::Taken { what, value: value.to_owned() }.into()),
    }
}
