//! Follows the store's changes, so that a revoked key stops working here soon after it was revoked
//! anywhere, and measures how soon.

use super::rows::Notice;
use crate::auth::changes::{ChangeKind, Changes, Reset};
use crate::auth::{Directory, FeedEvent, Outage, follow};
use crate::stores::Store;
use crate::telemetry::{Clock, Metrics};
use std::sync::Arc;

/// Ids that the log names of the changes that a new history lacks.
const TOLD: usize = 20;

/// Learns where the store stands and what is denied, before anything is served.
///
/// # Errors
/// The store does not answer.
pub async fn first_look(
    store: &dyn Store,
    directory: &Directory,
    clock: &Clock,
) -> Result<(), Outage> {
    let asked_at = clock.now();
    let reset = match store.changes_since(None).await? {
        Changes::Reset(reset) => reset,
        Changes::Since { revision, .. } => Reset::at(revision),
    };
    let (denied, _) = store.load_denials().await?;
    directory.set_denied(denied, false);
    directory.reset(&reset, asked_at);
    Ok(())
}

/// Applies changes until it is dropped. `rows` is told when plans or policies have changed, or may have.
pub async fn run(
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    clock: Clock,
    metrics: Arc<Metrics>,
    rows: Arc<Notice>,
) {
    metrics.store_up(true);
    let observe = |event| match event {
        FeedEvent::Applied { kind: ChangeKind::Plan | ChangeKind::Policy, delay } => {
            rows.give_of(clock.unix_time().saturating_sub(delay));
        }
        FeedEvent::Applied { delay, .. } => metrics.revocation(delay),
        FeedEvent::Down(outage) => {
            metrics.store_up(false);
            metrics.store_failed("changes");
            log::error!(reason = outage.as_str(), known_keys_seconds = directory.stale_for().as_secs();
                "the store does not answer, keys in use keep working for a limited time");
        }
        FeedEvent::Gap => {
            rows.give();
            log::warn!("changes may have been missed, all cached keys are void");
        }
        FeedEvent::NewEpoch { lost } => {
            rows.give();
            metrics.new_epoch();
            let ids: Vec<_> = lost.iter().take(TOLD).map(|change| &*change.id).collect();
            log::error!(lost = lost.len(), ids = ids.join(" ");
                "the store goes on from an older history: what lost changes had touched stays refused \
                 here until it is written again, on tasks that start later it does not");
        }
        FeedEvent::Up => {
            metrics.store_up(true);
            log::info!("the store answers again");
        }
    };
    follow(&*store, &*store, &directory, &clock, observe).await;
}
