//! Administrative operations on PostgreSQL.

use super::Postgres;
use super::consumers::{self, Add, Change, Setting};
use super::keys::{self, Issue, Revoke, Rotate};
use super::rows::{self, askable, bounds};
use crate::auth::UnixTime;
use crate::auth::api_key::{KeyId, PepperVersion};
use crate::auth::registry::{
    Actor, ConsumerInfo, KeyInfo, NewConsumer, NewKey, Page, Registry, RegistryError, Rotation,
    check_name, check_policies, check_username,
};
use async_trait::async_trait;

impl Postgres {
    async fn change(
        &self,
        by: &Actor,
        name: &str,
        to: Setting,
    ) -> Result<ConsumerInfo, RegistryError> {
        self.write(by, Change { name: name.to_owned(), to }).await
    }
}

#[async_trait]
impl Registry for Postgres {
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
        self.write(by, Add(new)).await
    }

    async fn consumer(&self, name: &str) -> Result<ConsumerInfo, RegistryError> {
        let values = vec![Box::new(askable(name).to_owned()) as _];
        let found = self.survey(consumers::find_sql(), values).await?;
        let found = self.each(&found, rows::consumer_info)?;
        found.into_iter().next().ok_or_else(|| RegistryError::UnknownConsumer(name.to_owned()))
    }

    async fn consumers(&self, page: Page<'_>) -> Result<Vec<ConsumerInfo>, RegistryError> {
        let (after, limit) = bounds(page);
        let sql = format!(
            "SELECT {} FROM consumers c WHERE c.username > $1 ORDER BY c.username LIMIT $2",
            rows::CONSUMER
        );
        let found = self.survey(sql, vec![Box::new(after), Box::new(limit)]).await?;
        Ok(self.each(&found, rows::consumer_info)?)
    }

    async fn set_enabled(
        &self,
        by: &Actor,
        name: &str,
        on: bool,
    ) -> Result<ConsumerInfo, RegistryError> {
        self.change(by, name, Setting::Enabled(on)).await
    }

    async fn set_plan(
        &self,
        by: &Actor,
        name: &str,
        plan: &str,
    ) -> Result<ConsumerInfo, RegistryError> {
        check_name("plan", plan)?;
        self.change(by, name, Setting::Plan(plan.to_owned())).await
    }

    async fn set_policies(
        &self,
        by: &Actor,
        name: &str,
        policies: &[String],
    ) -> Result<ConsumerInfo, RegistryError> {
        check_policies(policies)?;
        self.change(by, name, Setting::Policies(policies.to_vec())).await
    }

    async fn remove_consumer(
        &self,
        by: &Actor,
        name: &str,
    ) -> Result<(ConsumerInfo, usize), RegistryError> {
        self.write(by, consumers::Remove(name.to_owned())).await
    }

    async fn issue_key(&self, by: &Actor, new: NewKey) -> Result<KeyInfo, RegistryError> {
        self.write(by, Issue(new)).await
    }

    async fn key(&self, id: KeyId) -> Result<KeyInfo, RegistryError> {
        let values = vec![Box::new(id.as_str().to_owned()) as _];
        let found = self.each(&self.survey(keys::find_sql(), values).await?, rows::key_info)?;
        found.into_iter().next().ok_or(RegistryError::UnknownKey(id))
    }

    async fn keys(
        &self,
        consumer: Option<&str>,
        page: Page<'_>,
    ) -> Result<Vec<KeyInfo>, RegistryError> {
        let (after, limit) = bounds(page);
        let mut sql = format!(
            "SELECT {} FROM keys k JOIN consumers c ON c.id = k.consumer WHERE k.id > $1",
            rows::KEY
        );
        let mut values: Vec<super::write::Owned> = vec![Box::new(after), Box::new(limit)];
        if let Some(name) = consumer {
            let owner = self.consumer(name).await?.consumer.id;
            values.push(Box::new(owner.to_string()));
            sql.push_str(" AND k.consumer = $3");
        }
        sql.push_str(" ORDER BY k.id LIMIT $2");
        Ok(self.each(&self.survey(sql, values).await?, rows::key_info)?)
    }

    async fn rotate_key(
        &self,
        by: &Actor,
        id: KeyId,
        rotation: Rotation,
    ) -> Result<(KeyInfo, KeyInfo), RegistryError> {
        self.write(by, Rotate { id, rotation }).await
    }

    async fn revoke_key(&self, by: &Actor, id: KeyId) -> Result<KeyInfo, RegistryError> {
        self.write(by, Revoke(id)).await
    }

    async fn peppers(&self) -> Result<Vec<(PepperVersion, u64)>, RegistryError> {
        let sql = "SELECT pepper, count(*) FROM keys WHERE revoked_at IS NULL \
                   AND (expires_at IS NULL OR expires_at > $1) GROUP BY pepper ORDER BY pepper";
        let now = rows::stored(UnixTime::now(&self.shared.clock));
        let found = self.survey(sql.to_owned(), vec![Box::new(now)]).await?;
        Ok(self.each(&found, |row| Ok((row.pepper(0)?, row.number(1)?)))?)
    }
}
