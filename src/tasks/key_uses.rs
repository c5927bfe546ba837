//! Writes to the store when keys were last used, and what they are digested to under the pepper in use.
//!
//! Must stay true: one batch waits at most, so memory stays bounded however long the store is away; what
//! is lost at the end of the process is noted anew by the next use.

use crate::auth::Directory;
use crate::auth::uses::{KeyUse, UseLog};
use crate::telemetry::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How often notes are taken.
pub const NOTE_INTERVAL: Duration = Duration::from_secs(5);
/// A store that has not taken a batch for this long has failed to.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the writes of one run share.
pub struct KeyUses {
    store: Arc<dyn UseLog>,
    directory: Arc<Directory>,
    metrics: Arc<Metrics>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    batch: Vec<KeyUse>,
    failing: bool,
}

impl KeyUses {
    /// Writes what `directory` notes to `store`.
    #[must_use]
    pub fn new(
        store: Arc<dyn UseLog>,
        directory: Arc<Directory>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self { store, directory, metrics, pending: Mutex::default() })
    }

    /// Writes at intervals until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(NOTE_INTERVAL).await;
            self.flush().await;
        }
    }

    /// Writes what there is; at the end of the process for the last time.
    pub async fn flush(&self) {
        let mut pending = self.pending.lock().await;
        if pending.batch.is_empty() {
            pending.batch = self.directory.drain_uses();
        }
        if pending.batch.is_empty() {
            return;
        }
        match tokio::time::timeout(DEADLINE, self.store.note_uses(&pending.batch)).await {
            Ok(Ok(redigested)) => {
                // The digest that is cached is proved by the previous pepper only.
                for used in std::mem::take(&mut pending.batch) {
                    if used.redigest.is_some() {
                        self.directory.ask_again(&used.id);
                    }
                }
                if redigested > 0 {
                    log::info!(keys = redigested; "keys are digested under the pepper in use");
                }
                if std::mem::take(&mut pending.failing) {
                    log::info!("the use of keys is noted again");
                }
            }
            failed => {
                self.metrics.store_failed("key_uses");
                if !std::mem::replace(&mut pending.failing, true) {
                    let error = failed.ok().and_then(Result::err);
                    let error =
                        error.map_or_else(|| "no answer in time".to_owned(), |e| e.to_string());
                    log::error!(error:% = error; "the use of keys cannot be noted, it is tried again");
                }
            }
        }
    }
}
