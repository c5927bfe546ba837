//! Administrative operations on the file.

use super::Embedded;
use super::rows::{self, stored};
use super::transaction::{Deed, Failure, bounds};
use crate::auth::api_key::{KeyId, PepperVersion};
use crate::auth::audit;
use crate::auth::changes::ChangeKind;
use crate::auth::registry::{
    Actor, ConsumerInfo, KeyInfo, NewConsumer, NewKey, Page, Registry, RegistryError, Rotation,
    check_key, check_name, check_policies, check_username,
};
use crate::auth::{Consumer, UnixTime};
use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde_json::{Value, json};
use uuid::{NoContext, Timestamp, Uuid};

impl Embedded {
    /// Changes a consumer by `sql` (`?1` the value, `?2` the id), unless it is so already: `differs`
    /// answers what the audit is to know then.
    async fn change_consumer(
        &self,
        by: &Actor,
        name: &str,
        action: &'static str,
        sql: &'static str,
        value: impl rusqlite::ToSql + Send + 'static,
        differs: impl FnOnce(&Consumer) -> Option<Value> + Send + 'static,
    ) -> Result<ConsumerInfo, RegistryError> {
        let name = name.to_owned();
        self.write(by, move |tx, _| {
            let old = find_consumer(tx, &name)?;
            let Some(detail) = differs(&old.consumer) else {
                return Ok((old, None));
            };
            let id = &*old.consumer.id;
            tx.execute(sql, params![value, id])?;
            Ok((find_consumer(tx, id)?, Some(deed(action, &old.consumer, detail))))
        })
        .await
    }
}

#[async_trait]
impl Registry for Embedded {
    async fn add_consumer(
        &self,
        by: &Actor,
        new: NewConsumer,
    ) -> Result<ConsumerInfo, RegistryError> {
        check_username(&new.username)?;
        check_name("plan", &new.plan)?;
        if let Some(custom_id) = &new.custom_id {
            check_name("custom id", custom_id)?;
        }
        check_policies(&new.policies)?;
        self.write(by, move |tx, now| {
            refuse_taken(tx, "username", "username", &new.username)?;
            if let Some(custom_id) = &new.custom_id {
                refuse_taken(tx, "custom id", "custom_id", custom_id)?;
            }
            let id = Uuid::new_v7(Timestamp::from_unix(NoContext, now.as_secs(), 0)).to_string();
            tx.execute(
                "INSERT INTO consumers (id, username, custom_id, plan, policies, enabled, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)",
                params![
                    id,
                    new.username,
                    new.custom_id,
                    new.plan,
                    new.policies.join(" "),
                    stored(now)
                ],
            )?;
            let added = find_consumer(tx, &id)?;
            let detail = json!({
                "username": new.username,
                "custom_id": new.custom_id,
                "plan": new.plan,
                "policies": new.policies,
            });
            let deed = deed("consumer.add", &added.consumer, detail);
            Ok((added, Some(deed)))
        })
        .await
    }

    async fn consumer(&self, name: &str) -> Result<ConsumerInfo, RegistryError> {
        let name = name.to_owned();
        self.read(move |tx| find_consumer(tx, &name)).await
    }

    async fn consumers(&self, page: Page<'_>) -> Result<Vec<ConsumerInfo>, RegistryError> {
        let (after, limit) = bounds(page);
        self.read(move |tx| {
            let sql = format!(
                "SELECT {} FROM consumers c WHERE c.username > ?1 ORDER BY c.username LIMIT ?2",
                rows::CONSUMER
            );
            let mut statement = tx.prepare_cached(&sql)?;
            let rows = statement.query_map(params![after, limit], rows::consumer_info)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn set_enabled(
        &self,
        by: &Actor,
        name: &str,
        on: bool,
    ) -> Result<ConsumerInfo, RegistryError> {
        const SQL: &str = "UPDATE consumers SET enabled = ?1 WHERE id = ?2";
        let action = if on { "consumer.enable" } else { "consumer.disable" };
        self.change_consumer(by, name, action, SQL, on, move |old| {
            (old.enabled != on).then(|| json!({ "username": &*old.username }))
        })
        .await
    }

    async fn set_plan(
        &self,
        by: &Actor,
        name: &str,
        plan: &str,
    ) -> Result<ConsumerInfo, RegistryError> {
        const SQL: &str = "UPDATE consumers SET plan = ?1 WHERE id = ?2";
        check_name("plan", plan)?;
        let plan = plan.to_owned();
        self.change_consumer(by, name, "consumer.set_plan", SQL, plan.clone(), move |old| {
            (*old.plan != *plan)
                .then(|| json!({ "username": &*old.username, "plan": plan, "before": &*old.plan }))
        })
        .await
    }

    async fn set_policies(
        &self,
        by: &Actor,
        name: &str,
        policies: &[String],
    ) -> Result<ConsumerInfo, RegistryError> {
        const SQL: &str = "UPDATE consumers SET policies = ?1 WHERE id = ?2";
        check_policies(policies)?;
        let action = "consumer.set_policies";
        let (new, column) = (policies.to_vec(), policies.join(" "));
        self.change_consumer(by, name, action, SQL, column, move |old| {
            let before: Vec<_> = old.policies.iter().map(|name| &**name).collect();
            (before != new)
                .then(|| json!({ "username": &*old.username, "policies": new, "before": before }))
        })
        .await
    }

    async fn remove_consumer(
        &self,
        by: &Actor,
        name: &str,
    ) -> Result<(ConsumerInfo, usize), RegistryError> {
        let name = name.to_owned();
        self.write(by, move |tx, _| {
            let old = find_consumer(tx, &name)?;
            let id = old.consumer.id.to_string();
            let keys = tx.execute("DELETE FROM keys WHERE consumer = ?1", [&id])?;
            tx.execute("DELETE FROM consumers WHERE id = ?1", [&id])?;
            let detail = json!({ "username": &*old.consumer.username, "keys": keys });
            let deed = deed("consumer.remove", &old.consumer, detail);
            Ok(((old, keys), Some(deed)))
        })
        .await
    }

    async fn issue_key(&self, by: &Actor, new: NewKey) -> Result<KeyInfo, RegistryError> {
        self.write(by, move |tx, now| {
            check_key(&new, now)?;
            insert_key(tx, &new, now)?;
            let issued = find_key(tx, new.proof.id)?;
            let deed = key_deed("key.issue", &issued, audit::of_key(&issued));
            Ok((issued, Some(deed)))
        })
        .await
    }

    async fn key(&self, id: KeyId) -> Result<KeyInfo, RegistryError> {
        self.read(move |tx| find_key(tx, id)).await
    }

    async fn keys(
        &self,
        consumer: Option<&str>,
        page: Page<'_>,
    ) -> Result<Vec<KeyInfo>, RegistryError> {
        let (after, limit) = bounds(page);
        let consumer = consumer.map(str::to_owned);
        self.read(move |tx| {
            let owner = match consumer {
                Some(name) => Some(find_consumer(tx, &name)?.consumer.id),
                None => None,
            };
            let sql = format!(
                "SELECT {} FROM keys k JOIN consumers c ON c.id = k.consumer \
                 WHERE k.id > ?1 {} ORDER BY k.id LIMIT ?2",
                rows::KEY,
                if owner.is_some() { "AND k.consumer = ?3" } else { "AND ?3 IS NULL" },
            );
            let mut statement = tx.prepare_cached(&sql)?;
            let rows = statement.query_map(params![after, limit, owner], rows::key_info)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn rotate_key(
        &self,
        by: &Actor,
        id: KeyId,
        rotation: Rotation,
    ) -> Result<(KeyInfo, KeyInfo), RegistryError> {
        self.write(by, move |tx, now| {
            let old = find_key(tx, id)?;
            if !old.is_live(now) {
                return Err(RegistryError::NotLive(id).into());
            }
            let new = rotation.successor(&old, now);
            check_key(&new, now)?;
            insert_key(tx, &new, now)?;
            let end = now.after(rotation.overlap);
            let end = old.expires_at.map_or(end, |earlier| earlier.min(end));
            tx.execute(
                "UPDATE keys SET expires_at = ?1 WHERE id = ?2",
                params![stored(end), id.as_str()],
            )?;
            let (old, new) = (find_key(tx, id)?, find_key(tx, new.proof.id)?);
            let mut detail = audit::of_key(&new);
            if let Value::Object(members) = &mut detail {
                members.insert("new_key".to_owned(), json!(new.id.as_str()));
                members.insert("old_key_ends".to_owned(), json!(end.as_secs()));
            }
            let mut deed = key_deed("key.rotate", &old, detail);
            deed.touched.push(touched_key(&new));
            Ok(((old, new), Some(deed)))
        })
        .await
    }

    async fn revoke_key(&self, by: &Actor, id: KeyId) -> Result<KeyInfo, RegistryError> {
        self.write(by, move |tx, now| {
            let changed = tx.execute(
                "UPDATE keys SET revoked_at = ?1 WHERE id = ?2 AND revoked_at IS NULL",
                params![stored(now), id.as_str()],
            )?;
            let key = find_key(tx, id)?;
            let detail = json!({ "consumer": &*key.consumer });
            let deed = (changed > 0).then(|| key_deed("key.revoke", &key, detail));
            Ok((key, deed))
        })
        .await
    }

    async fn peppers(&self) -> Result<Vec<(PepperVersion, u64)>, RegistryError> {
        let now = stored(UnixTime::now(&self.clock));
        self.read(move |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT pepper, count(*) FROM keys WHERE revoked_at IS NULL \
                 AND (expires_at IS NULL OR expires_at > ?1) GROUP BY pepper ORDER BY pepper",
            )?;
            let rows = statement.query_map([now], |row| {
                Ok((PepperVersion::from_u32(row.get(0)?), rows::unsigned(row.get(1)?)))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}

fn deed(action: &'static str, consumer: &Consumer, detail: Value) -> Deed {
    let id = consumer.id.to_string();
    Deed { touched: vec![(ChangeKind::Consumer, id.clone())], action, subject: id, detail }
}

fn key_deed(action: &'static str, key: &KeyInfo, detail: Value) -> Deed {
    Deed { touched: vec![touched_key(key)], action, subject: key.id.to_string(), detail }
}

fn insert_key(tx: &Transaction<'_>, new: &NewKey, now: UnixTime) -> Result<(), Failure> {
    let consumer = find_consumer(tx, &new.consumer)?.consumer.id;
    let addresses: Vec<_> = new.addresses.iter().map(ToString::to_string).collect();
    tx.execute(
        "INSERT INTO keys (id, consumer, name, digest, pepper, plan, scopes, created_at, \
         not_before, expires_at, addresses) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            new.proof.id.as_str(),
            consumer,
            new.name,
            new.proof.digest.as_bytes(),
            new.proof.pepper.as_u32(),
            new.plan,
            new.scopes.join(" "),
            stored(now),
            new.not_before.map(stored),
            new.expires_at.map(stored),
            addresses.join(" "),
        ],
    )?;
    Ok(())
}

/// By username, or else by id.
fn find_consumer(tx: &Transaction<'_>, name: &str) -> Result<ConsumerInfo, Failure> {
    let sql = format!(
        "SELECT {} FROM consumers c WHERE c.username = ?1 OR c.id = ?1 \
         ORDER BY c.username = ?1 DESC LIMIT 1",
        rows::CONSUMER
    );
    let found = tx.prepare_cached(&sql)?.query_row([name], rows::consumer_info).optional()?;
    found.ok_or_else(|| RegistryError::UnknownConsumer(name.to_owned()).into())
}

fn find_key(tx: &Transaction<'_>, id: KeyId) -> Result<KeyInfo, Failure> {
    let sql = format!(
        "SELECT {} FROM keys k JOIN consumers c ON c.id = k.consumer WHERE k.id = ?1",
        rows::KEY
    );
    let found = tx.prepare_cached(&sql)?.query_row([id.as_str()], rows::key_info).optional()?;
    found.ok_or_else(|| RegistryError::UnknownKey(id).into())
}

fn refuse_taken(
    tx: &Transaction<'_>,
    what: &'static str,
    column: &'static str,
    value: &str,
) -> Result<(), Failure> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM consumers WHERE {column} = ?1)");
    match tx.prepare_cached(&sql)?.query_row([value], |row| row.get(0))? {
        true => Err(RegistryError::Taken { what, value: value.to_owned() }.into()),
        false => Ok(()),
    }
}

fn touched_key(key: &KeyInfo) -> (ChangeKind, String) {
    (ChangeKind::Key, key.id.to_string())
}
