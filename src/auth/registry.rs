//! The port for those who run the gateway: adding consumers, issuing and revoking their keys.
//!
//! A store implements it beside [`super::directory::Source`]. Every write takes effect in running
//! gateways through the change feed.
//!
//! Must stay true: no plain key passes through here, only its proof.

use super::api_key::{KeyId, KeyProof, PepperVersion};
use super::identity::{Consumer, UnixTime};
use async_trait::async_trait;
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;

/// The longest username, custom id, plan, scope or key name.
pub const MAX_NAME: usize = 128;
/// The most scopes of one key.
pub const MAX_SCOPES: usize = 64;
/// The most networks of one key.
pub const MAX_ADDRESSES: usize = 16;
/// The most policies of one consumer.
pub const MAX_POLICIES: usize = 8;

/// Who writes, for the audit: `cli:<user>@<host>` or `admin:<name of the token>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(Arc<str>);

impl Actor {
    /// The name itself; what does not fit into the audit is left out.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let name: String = name.chars().filter(char::is_ascii_graphic).take(MAX_NAME).collect();
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A consumer to be added.
#[derive(Clone, Debug)]
pub struct NewConsumer {
    /// Unique.
    pub username: String,
    /// The operator's own reference; unique where given.
    pub custom_id: Option<String>,
    /// Name of its plan.
    pub plan: String,
    /// Names of policies that hold for it, beside its plan.
    pub policies: Vec<String>,
}

/// A consumer as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// The consumer.
    pub consumer: Consumer,
    /// When it was added.
    pub created_at: UnixTime,
}

/// A key to be stored.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What proves it.
    pub proof: KeyProof,
    /// Username of its consumer.
    pub consumer: String,
    /// What the operator calls it.
    pub name: Option<String>,
    /// Its own plan, instead of the consumer's.
    pub plan: Option<String>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Networks that it works from; from anywhere if there are none.
    pub addresses: Vec<IpNet>,
    /// When it begins.
    pub not_before: Option<UnixTime>,
    /// When it ends.
    pub expires_at: Option<UnixTime>,
}

/// A key as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its public part.
    pub id: KeyId,
    /// Username of its consumer.
    pub consumer: Arc<str>,
    /// What the operator calls it.
    pub name: Option<Arc<str>>,
    /// Its own plan, instead of the consumer's.
    pub plan: Option<Arc<str>>,
    /// What it may do.
    pub scopes: Arc<[Arc<str>]>,
    /// Networks that it works from; from anywhere if there are none.
    pub addresses: Arc<[IpNet]>,
    /// When it was issued.
    pub created_at: UnixTime,
    /// When it begins.
    pub not_before: Option<UnixTime>,
    /// When it ends.
    pub expires_at: Option<UnixTime>,
    /// When it was taken back.
    pub revoked_at: Option<UnixTime>,
    /// The pepper of its digest.
    pub pepper: PepperVersion,
    /// When it was last used, to the hour; `None` before the first time.
    pub last_used_at: Option<UnixTime>,
}

impl KeyInfo {
    /// Whether it is accepted at `now`, or will be.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// How a key hands over to a new one, which has the same consumer, name, plan, scopes and
/// networks.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// What proves the new key.
    pub proof: KeyProof,
    /// When the new key ends.
    pub expires_at: Option<UnixTime>,
    /// How long the old key lives on, if it does not end before.
    pub overlap: Duration,
}

impl Rotation {
    /// The new key: as the old one, but for proof and end; it works no sooner.
    #[must_use]
    pub fn successor(&self, old: &KeyInfo, now: UnixTime) -> NewKey {
        NewKey {
            proof: self.proof,
            consumer: old.consumer.to_string(),
            name: old.name.as_deref().map(str::to_owned),
            plan: old.plan.as_deref().map(str::to_owned),
            scopes: old.scopes.iter().map(ToString::to_string).collect(),
            addresses: old.addresses.to_vec(),
            not_before: old.not_before.filter(|begin| *begin > now),
            expires_at: self.expires_at,
        }
    }
}

/// A part of a list, in the order of its names.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Only what comes after this name.
    pub after: Option<&'a str>,
    /// At most so many.
    pub limit: usize,
}

/// Why an administrative operation was not done. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A value that cannot be stored.
    #[error("{what} {problem}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A key that is already revoked or expired cannot be rotated.
    #[error("key `{0}` is revoked or expired; issue a new one instead")]
    NotLive(KeyId),
    /// The store failed. Its message says what, where, and what to do.
    #[error(transparent)]
    Store(Box<dyn std::error::Error + Send + Sync>),
    /// The name or reference belongs to another consumer.
    #[error("{what} `{value}` is taken by another consumer")]
    Taken {
        /// `username` or `custom id`.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// There are as many as there can be.
    #[error("there are {most} {what} already: remove some that are not needed any more")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        most: usize,
    },
    /// No consumer of this name.
    #[error("no consumer is called `{0}`")]
    UnknownConsumer(String),
    /// No row of this kind and name.
    #[error("no {kind} in the store is called `{name}`")]
    UnknownDocument {
        /// `plan` or `policy`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// No entry of the deny list has this id.
    #[error("no entry of the deny list has the id `{0}`")]
    UnknownDenial(String),
    /// No key of this id.
    #[error("no key has the id `{0}`")]
    UnknownKey(KeyId),
}

/// Administrative operations. A consumer is named by its username or its id. A write says by whom; it
/// stands in the audit.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Adds a consumer.
    async fn add_consumer(
        &self,
        by: &Actor,
        new: NewConsumer,
    ) -> Result<ConsumerInfo, RegistryError>;

    /// One consumer.
    async fn consumer(&self, name: &str) -> Result<ConsumerInfo, RegistryError>;

    /// Consumers by username.
    async fn consumers(&self, page: Page<'_>) -> Result<Vec<ConsumerInfo>, RegistryError>;

    /// Lets a consumer in, or keeps it out with all of its credentials.
    async fn set_enabled(
        &self,
        by: &Actor,
        name: &str,
        on: bool,
    ) -> Result<ConsumerInfo, RegistryError>;

    /// Gives a consumer another plan.
    async fn set_plan(
        &self,
        by: &Actor,
        name: &str,
        plan: &str,
    ) -> Result<ConsumerInfo, RegistryError>;

    /// Gives a consumer other policies, instead of those it has.
    async fn set_policies(
        &self,
        by: &Actor,
        name: &str,
        policies: &[String],
    ) -> Result<ConsumerInfo, RegistryError>;

    /// Removes a consumer and its keys; returns what was removed, and how many keys.
    async fn remove_consumer(
        &self,
        by: &Actor,
        name: &str,
    ) -> Result<(ConsumerInfo, usize), RegistryError>;

    /// Stores a key.
    async fn issue_key(&self, by: &Actor, new: NewKey) -> Result<KeyInfo, RegistryError>;

    /// One key.
    async fn key(&self, id: KeyId) -> Result<KeyInfo, RegistryError>;

    /// Keys by id, of one consumer or of all.
    async fn keys(
        &self,
        consumer: Option<&str>,
        page: Page<'_>,
    ) -> Result<Vec<KeyInfo>, RegistryError>;

    /// Stores a key that takes over from `id`. Returns the old one and the new one.
    async fn rotate_key(
        &self,
        by: &Actor,
        id: KeyId,
        rotation: Rotation,
    ) -> Result<(KeyInfo, KeyInfo), RegistryError>;

    /// Takes a key back, for ever. Revoking it again changes nothing.
    async fn revoke_key(&self, by: &Actor, id: KeyId) -> Result<KeyInfo, RegistryError>;

    /// How many keys need each pepper, of those that are accepted or will be.
    async fn peppers(&self) -> Result<Vec<(PepperVersion, u64)>, RegistryError>;
}

/// Checks a name: not empty, not too long, printable ASCII without spaces, since it goes into headers.
///
/// # Errors
/// [`RegistryError::Invalid`].
pub fn check_name(what: &'static str, value: &str) -> Result<(), RegistryError> {
    let problem = if value.is_empty() {
        "must not be empty".to_owned()
    } else if value.len() > MAX_NAME {
        format!("must have at most {MAX_NAME} characters, this has {}", value.len())
    } else if let Some(bad) = value.chars().find(|c| !c.is_ascii_graphic()) {
        format!("must be letters, digits and signs of ASCII without spaces, this has {bad:?}")
    } else {
        return Ok(());
    };
    Err(RegistryError::Invalid { what, problem })
}

/// Checks a username: a name that is not the form of an id, since a consumer is named by either.
///
/// # Errors
/// [`RegistryError::Invalid`].
pub fn check_username(value: &str) -> Result<(), RegistryError> {
    check_name("username", value)?;
    if uuid::Uuid::try_parse(value).is_ok() {
        let problem = "must not be a UUID: ids of consumers are".to_owned();
        return Err(RegistryError::Invalid { what: "username", problem });
    }
    Ok(())
}

/// Checks a consumer's policies: names, none of them twice, and not too many.
///
/// # Errors
/// [`RegistryError::Invalid`].
pub fn check_policies(policies: &[String]) -> Result<(), RegistryError> {
    let invalid = |problem| Err(RegistryError::Invalid { what: "policies", problem });
    if policies.len() > MAX_POLICIES {
        return invalid(format!("are too many: a consumer has at most {MAX_POLICIES}"));
    }
    for (index, policy) in policies.iter().enumerate() {
        check_name("policy", policy)?;
        if policies.iter().take(index).any(|earlier| earlier == policy) {
            return invalid(format!("name `{policy}` twice"));
        }
    }
    Ok(())
}

/// Checks a key before it is stored.
///
/// # Errors
/// [`RegistryError::Invalid`].
pub fn check_key(new: &NewKey, now: UnixTime) -> Result<(), RegistryError> {
    if let Some(name) = &new.name {
        check_name("key name", name)?;
    }
    if let Some(plan) = &new.plan {
        check_name("plan", plan)?;
    }
    if new.scopes.len() > MAX_SCOPES {
        let problem = format!("are too many: at most {MAX_SCOPES} fit into one key");
        return Err(RegistryError::Invalid { what: "scopes", problem });
    }
    for scope in &new.scopes {
        check_name("scope", scope)?;
        // RFC 6749 3.3.
        if scope.contains(['"', '\\']) {
            let problem = "must not contain `\"` or `\\`".to_owned();
            return Err(RegistryError::Invalid { what: "scope", problem });
        }
    }
    if new.addresses.len() > MAX_ADDRESSES {
        let problem = format!("are too many: a key has at most {MAX_ADDRESSES} networks");
        return Err(RegistryError::Invalid { what: "addresses", problem });
    }
    if new.expires_at.is_some_and(|end| end <= now.max(new.not_before.unwrap_or_default())) {
        let problem = "must lie in the future, and after the beginning".to_owned();
        return Err(RegistryError::Invalid { what: "the end of the key", problem });
    }
    Ok(())
}
