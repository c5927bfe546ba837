//! The port for what lasts: usage for each consumer, and quotas that outlive counters.
//!
//! A gateway collects increments and hands them over every few seconds as a numbered batch. A store
//! applies each batch once, however often it is handed over, so a batch whose outcome is unknown is
//! simply handed over again. A crash loses at most what was not handed over yet.

use async_trait::async_trait;
use std::sync::Arc;

/// Days since 1970-01-01, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

/// Who hands batches over: one run of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskId(pub uuid::Uuid);

/// Requests of one consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageCount {
    /// When.
    pub day: Day,
    /// The consumer's id.
    pub consumer: Arc<str>,
    /// The consumer's name at that time.
    pub username: Arc<str>,
    /// The route's class.
    pub class: Arc<str>,
    /// Requests that were let through.
    pub admitted: u64,
    /// Requests that a limit refused.
    pub refused: u64,
}

/// What was used of one quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaCount {
    /// The rule's id.
    pub rule: Arc<str>,
    /// Whom it counts: the hash that stands in the names of Redis keys too.
    pub subject: u128,
    /// When the period began, in seconds since 1970.
    pub period: u64,
    /// When it ends.
    pub ends: u64,
    /// Permits.
    pub used: u64,
}

/// Increments since the batch before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Whose.
    pub task: TaskId,
    /// Counts up from 1 for each task.
    pub number: u64,
    /// For consumers.
    pub usage: Vec<UsageCount>,
    /// For quotas.
    pub quotas: Vec<QuotaCount>,
}

/// Which rows of usage are asked for.
#[derive(Clone, Copy, Debug)]
pub struct UsageQuery<'a> {
    /// Of the consumer with this id or username; of all without.
    pub consumer: Option<&'a str>,
    /// From this day on.
    pub from: Day,
    /// To this day, included.
    pub to: Day,
    /// Only what comes after this row, in the order of day, consumer id, class.
    pub after: Option<(Day, &'a str, &'a str)>,
    /// At most so many.
    pub limit: usize,
}

/// Usage cannot be read or written now. The message says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct UsageError(pub Box<dyn std::error::Error + Send + Sync>);

/// What lasts.
#[async_trait]
pub trait UsageLog: Send + Sync {
    /// Applies a batch, once. Answers with the totals of the batch's quotas, in its order, all tasks
    /// together.
    async fn apply(&self, batch: &Batch) -> Result<Vec<u64>, UsageError>;

    /// What is known to be used of a quota, all tasks together; zero if nothing is.
    async fn quota_used(&self, rule: &str, subject: u128, period: u64) -> Result<u64, UsageError>;

    /// Rows, in the order of day, consumer id, class.
    async fn usage(&self, query: UsageQuery<'_>) -> Result<Vec<UsageCount>, UsageError>;

    /// Says that this task lives, and asks how many do (this one included).
    async fn heartbeat(&self, task: TaskId) -> Result<u32, UsageError>;
}
