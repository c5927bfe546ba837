//! The port for the audit: who changed what, and when.
//!
//! Every write of the administrative ports stands in it, in the transaction of the write itself.

use super::identity::UnixTime;
use super::registry::RegistryError;
use async_trait::async_trait;
use serde_json::Value;
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
