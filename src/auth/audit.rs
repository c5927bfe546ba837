//! The port for the audit: who changed what, and when.
//!
//! Every write of the administrative ports stands in it, in the transaction of the write itself.

use super::denials::{Denial, DeniedTokens};
use super::identity::UnixTime;
use super::registry::{KeyInfo, RegistryError};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Counts up.
    pub id: u64,
    /// When.
    pub at: UnixTime,
    /// Who, as the [`Actor`](super::registry::Actor) calls itself.
    pub actor: Arc<str>,
    /// What was done: `consumer.add`, `consumer.enable`, `consumer.disable`, `consumer.set_plan`,
    /// `consumer.set_policies`, `consumer.remove`, `key.issue`, `key.rotate`, `key.revoke`,
    /// `plan.put`, `plan.remove`, `policy.put`, `policy.remove`, `token.deny`, `token.allow`.
    pub action: Arc<str>,
    /// Id or name of what it was done to.
    pub subject: Arc<str>,
    /// What else there is to know; never a secret.
    pub detail: Value,
}

/// The audit.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Entries from the newest to the oldest, below the id `before` if there is one.
    async fn audit(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, RegistryError>;
}

/// An entry as the audit keeps it.
#[must_use]
pub fn of_denial(denial: &Denial) -> Value {
    let (jti, subject, issued_before) = match &denial.tokens {
        DeniedTokens::Id(id) => (Some(&**id), None, None),
        DeniedTokens::Subject { subject, issued_before } => {
            (None, Some(&**subject), Some(issued_before.as_secs()))
        }
    };
    json!({
        "issuer": &*denial.issuer,
        "jti": jti,
        "subject": subject,
        "issued_before": issued_before,
        "until": denial.until.as_secs(),
        "reason": denial.reason.as_deref(),
    })
}

/// A key as the audit keeps it.
#[must_use]
pub fn of_key(key: &KeyInfo) -> Value {
    json!({
        "consumer": &*key.consumer,
        "name": key.name.as_deref(),
        "plan": key.plan.as_deref(),
        "scopes": key.scopes.iter().map(|scope| &**scope).collect::<Vec<_>>(),
        "addresses": key.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "not_before": key.not_before.map(UnixTime::as_secs),
        "expires_at": key.expires_at.map(UnixTime::as_secs),
    })
}
