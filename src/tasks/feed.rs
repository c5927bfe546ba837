//! Follows the store's changes, so that a revoked key stops working here soon after it was revoked
//! anywhere, and measures how soon.

use crate::auth::changes::{ChangeFeed, Changes};
use crate::auth::directory::STALE_FOR;
use crate::auth::{Directory, FeedEvent, Outage, follow};
use crate::telemetry::{Clock, Metrics};
use std::sync::Arc;

/// Learns where the store stands, before anything is served.
///
/// # Errors
/// The store does not answer.
pub async fn first_look(
    feed: &dyn ChangeFeed,
    directory: &Directory,
    clock: &Clock,
) -> Result<(), Outage> {
    let asked_at = clock.now();
    let revision = match feed.changes_since(None).await? {
        Changes::Reset(reset) => reset.revision,
        Changes::Since { revision, .. } => revision,
    };
    directory.reset(revision, asked_at);
    Ok(())
}

/// Applies changes until it is dropped.
pub async fn run(
    feed: Arc<dyn ChangeFeed>,
    directory: Arc<Directory>,
    clock: Clock,
    metrics: Arc<Metrics>,
) {
    metrics.store_up(true);
    let observe = |event| match event {
        FeedEvent::Applied { delay, .. } => metrics.revocation(delay),
        FeedEvent::Down(outage) => {
            metrics.store_up(false);
            metrics.store_failed("changes");
            log::error!(reason = outage.as_str(), known_keys_seconds = STALE_FOR.as_secs();
                "the store does not answer, keys in use keep working for a limited time");
        }
        FeedEvent::Gap => log::warn!("changes may have been missed, all cached keys are void"),
        FeedEvent::Up => {
            metrics.store_up(true);
            log::info!("the store answers again");
        }
    };
    follow(&*feed, &directory, &clock, observe).await;
}
