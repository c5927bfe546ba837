//! Hands usage and quota counts over to the store, and says that this task lives.
//!
//! A batch whose outcome is unknown is handed over again under its number until the store says that
//! it has it; a store applies each number once. Meanwhile the next batch is collected.
//!
//! Must stay true: a crash loses at most one interval; the end of the process loses nothing while the
//! store answers.

use crate::limits::usage::{Batch, TaskId, UsageError};
use crate::snapshot::Parts;
use crate::stores::Store;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use uuid::Uuid;

/// How often counts are handed over.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// A store that has not taken a batch for this long has failed to.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the flushes of one run share.
pub struct Flush {
    store: Arc<dyn Store>,
    parts: Parts,
    expected: NonZeroU32,
    task: TaskId,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    number: u64,
    batch: Option<Batch>,
    failing: bool,
}

impl Flush {
    /// Flushes what `parts` collect into `store`. The fleet has at least `expected` tasks.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, parts: &Parts, expected: NonZeroU32) -> Arc<Self> {
        parts.limiter.expect_tasks(expected.get());
        let task = TaskId(Uuid::now_v7());
        Arc::new(Self { store, parts: parts.clone(), expected, task, pending: Mutex::default() })
    }

    /// Flushes at intervals until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.beat().await;
            tokio::time::sleep(FLUSH_INTERVAL).await;
            self.flush().await;
        }
    }

    /// Hands over what there is; at the end of the process for the last time.
    pub async fn flush(&self) {
        let mut pending = self.pending.lock().await;
        // What was left from last time, then what came since.
        for _ in 0..2 {
            if pending.batch.is_none() {
                pending.batch = self.collect(&mut pending.number);
            }
            let Some(batch) = &pending.batch else { return };
            let applied = tokio::time::timeout(DEADLINE, self.store.apply(batch)).await;
            match applied {
                Ok(Ok(totals)) => {
                    self.parts.limiter.reconcile(&batch.quotas, &totals);
                    pending.batch = None;
                    if std::mem::take(&mut pending.failing) {
                        log::info!("usage is stored again");
                    }
                }
                failed => {
                    self.parts.metrics.store_failed("usage");
                    if !std::mem::replace(&mut pending.failing, true) {
                        let error: Option<UsageError> = failed.ok().and_then(Result::err);
                        let error =
                            error.map_or_else(|| "no answer in time".to_owned(), |e| e.to_string());
                        log::error!(error:% = error; "usage cannot be stored, it is kept and tried again");
                    }
                    return;
                }
            }
        }
    }

    /// Says what could not be handed over and ends with the process. To be called last.
    pub fn tell_lost(&self) {
        let rest = self.parts.tally.drain();
        let quotas = self.parts.limiter.drain_quota_counts().len();
        let Ok(pending) = self.pending.try_lock() else { return };
        let batch = pending.batch.iter().flat_map(|batch| &batch.usage);
        let requests: u64 = rest.iter().chain(batch).map(|row| row.admitted + row.refused).sum();
        let quotas = quotas + pending.batch.as_ref().map_or(0, |batch| batch.quotas.len());
        if requests > 0 || quotas > 0 {
            log::error!(requests = requests, quotas = quotas;
                "the store did not take the last usage: it is lost");
        }
    }

    fn collect(&self, number: &mut u64) -> Option<Batch> {
        let (usage, quotas) = (self.parts.tally.drain(), self.parts.limiter.drain_quota_counts());
        if usage.is_empty() && quotas.is_empty() {
            return None;
        }
        *number += 1;
        Some(Batch { task: self.task, number: *number, usage, quotas })
    }

    async fn beat(&self) {
        match tokio::time::timeout(DEADLINE, self.store.heartbeat(self.task)).await {
            Ok(Ok(tasks)) => self.parts.limiter.expect_tasks(tasks.max(self.expected.get())),
            Ok(Err(_)) | Err(_) => self.parts.metrics.store_failed("heartbeat"),
        }
    }
}
