//! Following a store's changes, so that what it takes back stops working here.
//!
//! What an answer names is void at once, before anything else is asked: nothing that comes later can
//! keep it from being in effect. The deny list has to be loaded again when it has changed; until that
//! has been done it is due, whatever the store says next.
//!
//! Must stay true: an answer that was put in effect is not asked for again, and one that was not is.

use super::changes::{Change, ChangeFeed, ChangeKind, Changes, Reset};
use super::denials::Denials;
use super::denied::Outage;
use super::directory::Directory;
use crate::telemetry::Clock;
use std::time::Duration;

/// A store that does not answer this long counts as down.
const DEADLINE: Duration = Duration::from_secs(1);
/// How soon a store that does not answer is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// What following the changes brings to light; for metrics, the log, and those who put rows in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// A change is in effect here, this long after it was committed. Plans and policies are not yet:
    /// they are put in force by who hears this.
    Applied {
        /// What was touched.
        kind: ChangeKind,
        /// From commit to effect.
        delay: Duration,
    },
    /// The store cannot be asked; said once per outage.
    Down(Outage),
    /// Changes may have been missed: all that was cached is void.
    Gap,
    /// The store goes on from another history, and lacks changes that were in effect here. What they
    /// took back stays refused.
    NewEpoch {
        /// The changes that are lost, as far as they are remembered.
        lost: Vec<Change>,
    },
    /// The store answers again.
    Up,
}

/// Applies the changes of `feed` to `directory`, for ever; drop the future to stop.
///
/// `observe` is told what happens, and must not block.
pub async fn follow(
    feed: &dyn ChangeFeed,
    denials: &dyn Denials,
    directory: &Directory,
    clock: &Clock,
    mut observe: impl FnMut(FeedEvent) + Send,
) {
    let mut follower = Follower { feed, denials, directory, clock, since: None, due: None };
    let mut down = false;
    loop {
        let mut events = Vec::new();
        let step = follower.step(&mut |event| events.push(event)).await;
        if step.is_ok() && std::mem::take(&mut down) {
            observe(FeedEvent::Up);
        }
        events.into_iter().for_each(&mut observe);
        match step {
            Ok(more) => {
                if !more {
                    tokio::select! {
                        () = tokio::time::sleep(feed.poll_interval()) => {}
                        () = feed.stirred() => {}
                    }
                }
            }
            Err(outage) => {
                if !std::mem::replace(&mut down, true) {
                    observe(FeedEvent::Down(outage));
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

struct Follower<'f> {
    feed: &'f dyn ChangeFeed,
    denials: &'f dyn Denials,
    directory: &'f Directory,
    clock: &'f Clock,
    /// Everything up to here is in effect, but for the deny list if that is due.
    since: Option<u64>,
    due: Option<Due>,
}

/// The deny list must be loaded.
#[derive(Default)]
struct Due {
    /// What was in it stays, for the store may have lost it.
    keep: bool,
    /// The changes that will be in effect then.
    changes: Vec<Change>,
}

impl Follower<'_> {
    /// Asks once, and puts the answer in effect; whether there is more to ask for.
    async fn step(&mut self, observe: &mut (impl FnMut(FeedEvent) + Send)) -> Result<bool, Outage> {
        let asked_at = self.clock.now();
        let more = match within(self.feed.changes_since(self.since)).await? {
            Changes::Reset(reset) => {
                let lost = self.directory.reset(&reset, asked_at);
                let is_first = self.since.replace(reset.revision).is_none();
                self.due.get_or_insert_default().keep |= reset.new_epoch;
                match reset {
                    Reset { new_epoch: true, .. } => observe(FeedEvent::NewEpoch { lost }),
                    Reset { .. } if !is_first => observe(FeedEvent::Gap),
                    Reset { .. } => {}
                }
                false
            }
            Changes::Since { revision, changes, more } => {
                self.directory.apply(revision, &changes, asked_at);
                self.since = Some(revision);
                let (denied, others): (Vec<_>, Vec<_>) =
                    changes.into_iter().partition(|change| change.kind == ChangeKind::Token);
                self.tell(&others, observe);
                if !denied.is_empty() {
                    self.due.get_or_insert_default().changes.extend(denied);
                }
                more
            }
        };
        if let Some(Due { keep, .. }) = self.due {
            let (entries, _) = within(self.denials.load_denials()).await?;
            self.directory.set_denied(entries, keep);
            let loaded = self.due.take().unwrap_or_default();
            self.tell(&loaded.changes, observe);
        }
        Ok(more)
    }

    fn tell(&self, changes: &[Change], observe: &mut (impl FnMut(FeedEvent) + Send)) {
        let now = self.clock.unix_time();
        for change in changes {
            let delay = now.saturating_sub(change.committed_at);
            observe(FeedEvent::Applied { kind: change.kind, delay });
        }
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, Outage>>) -> Result<T, Outage> {
    tokio::time::timeout(DEADLINE, answer).await.unwrap_or(Err(Outage::Timeout))
}
