//! Writes to keys.

use super::consumers;
use super::pool::Work;
use super::rows::{self, Reader, stored};
use super::write::{Deed, Failure, Job};
use crate::auth::UnixTime;
use crate::auth::api_key::KeyId;
use crate::auth::audit;
use crate::auth::changes::ChangeKind;
use crate::auth::registry::{KeyInfo, NewKey, RegistryError, Rotation, check_key};
use async_trait::async_trait;
use serde_json::{Value, json};

/// Stores a key.
pub(super) struct Issue(pub(super) NewKey);

#[async_trait]
impl Job for Issue {
    type Done = KeyInfo;

    async fn run(
        &self,
        work: &Work<'_>,
        now: UnixTime,
    ) -> Result<(KeyInfo, Option<Deed>), Failure> {
        let Self(new) = self;
        check_key(new, now)?;
        insert(work, new, now).await?;
        let issued = find(work, new.proof.id).await?;
        let deed = deed("key.issue", &issued, audit::of_key(&issued));
        Ok((issued, Some(deed)))
    }
}

/// Stores a key that takes over from another.
pub(super) struct Rotate {
    pub(super) id: KeyId,
    pub(super) rotation: Rotation,
}

#[async_trait]
impl Job for Rotate {
    type Done = (KeyInfo, KeyInfo);

    async fn run(
        &self,
        work: &Work<'_>,
        now: UnixTime,
    ) -> Result<(Self::Done, Option<Deed>), Failure> {
        let Self { id, rotation } = self;
        let old = find(work, *id).await?;
        if !old.is_live(now) {
            return Err(RegistryError::NotLive(*id).into());
        }
        let new = rotation.successor(&old, now);
        check_key(&new, now)?;
        insert(work, &new, now).await?;
        let end = now.after(rotation.overlap);
        let end = old.expires_at.map_or(end, |earlier| earlier.min(end));
        let sql = "UPDATE keys SET expires_at = $1 WHERE id = $2";
        work.change(sql, &[&stored(end), &id.as_str()]).await?;
        let (old, new) = (find(work, *id).await?, find(work, new.proof.id).await?);
        let mut detail = audit::of_key(&new);
        if let Value::Object(members) = &mut detail {
            members.insert("new_key".to_owned(), json!(new.id.as_str()));
            members.insert("old_key_ends".to_owned(), json!(end.as_secs()));
        }
        let mut deed = deed("key.rotate", &old, detail);
        deed.touched.push(touched(&new));
        Ok(((old, new), Some(deed)))
    }
}

/// Takes a key back.
pub(super) struct Revoke(pub(super) KeyId);

#[async_trait]
impl Job for Revoke {
    type Done = KeyInfo;

    async fn run(
        &self,
        work: &Work<'_>,
        now: UnixTime,
    ) -> Result<(KeyInfo, Option<Deed>), Failure> {
        let Self(id) = self;
        let sql = "UPDATE keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
        let changed = work.change(sql, &[&stored(now), &id.as_str()]).await?;
        let key = find(work, *id).await?;
        let detail = json!({ "consumer": &*key.consumer });
        let deed = (changed > 0).then(|| deed("key.revoke", &key, detail));
        Ok((key, deed))
    }
}

fn deed(action: &'static str, key: &KeyInfo, detail: Value) -> Deed {
    Deed { touched: vec![touched(key)], action, subject: key.id.to_string(), detail }
}

fn touched(key: &KeyInfo) -> (ChangeKind, String) {
    (ChangeKind::Key, key.id.to_string())
}

async fn insert(work: &Work<'_>, new: &NewKey, now: UnixTime) -> Result<(), Failure> {
    let consumer = consumers::find(work, &new.consumer).await?.consumer.id;
    let addresses: Vec<_> = new.addresses.iter().map(ToString::to_string).collect();
    work.change(
        "INSERT INTO keys (id, consumer, name, digest, pepper, plan, scopes, created_at, \
         not_before, expires_at, addresses) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            &new.proof.id.as_str(),
            &&*consumer,
            &new.name,
            &&new.proof.digest.as_bytes()[..],
            &i64::from(new.proof.pepper.as_u32()),
            &new.plan,
            &new.scopes,
            &stored(now),
            &new.not_before.map(stored),
            &new.expires_at.map(stored),
            &addresses,
        ],
    )
    .await?;
    Ok(())
}

/// Finds a key by its id (`$1`).
pub(super) fn find_sql() -> String {
    format!(
        "SELECT {} FROM keys k JOIN consumers c ON c.id = k.consumer WHERE k.id = $1",
        rows::KEY
    )
}

async fn find(work: &Work<'_>, id: KeyId) -> Result<KeyInfo, Failure> {
    let found = work.rows(&find_sql(), &[&id.as_str()]).await?;
    let row = found.first().ok_or(RegistryError::UnknownKey(id))?;
    Ok(rows::key_info(Reader::new(work.at(), row))?)
}
