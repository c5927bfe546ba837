//! What the store says has changed, and what that voids.
//!
//! Every write of the store ends with a revision and the names of what it touched. A gateway follows
//! them; a cached row is void once a change above its revision names it. The last changes are kept,
//! because a row can be read before a change and arrive after it.
//!
//! Must stay true: a change that was missed voids everything, never nothing.

use super::denied::Outage;
use super::directory::Directory;
use crate::telemetry::Clock;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How often the store is asked for changes.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A store that does not answer this long counts as down.
const POLL_DEADLINE: Duration = Duration::from_secs(1);
/// Changes remembered for rows that arrive late.
const REMEMBERED: usize = 4096;

/// A kind of row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// A consumer, named by its id.
    Consumer,
    /// A key, named by its id.
    Key,
    /// A plan that stands in the store, named by its name.
    Plan,
    /// A policy that stands in the store, named by its name.
    Policy,
    /// An entry of the deny list, named by its id.
    Token,
}

impl ChangeKind {
    /// As it stands in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Key => "key",
            Self::Plan => "plan",
            Self::Policy => "policy",
            Self::Token => "token",
        }
    }

    /// The kind that stands so in the store; `None` for what a newer gateway has written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Consumer, Self::Key, Self::Plan, Self::Policy, Self::Token]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// One row that a write touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision that the write ended with.
    pub revision: u64,
    /// What was touched.
    pub kind: ChangeKind,
    /// Its id.
    pub id: Arc<str>,
    /// When, by the writer's clock, since 1970.
    pub committed_at: Duration,
}

/// What happened since a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// It cannot be told, or the start was asked for: begin anew at this revision.
    Reset(Reset),
    /// This, completely.
    Since {
        /// The last revision that is covered; `revision` of the question if nothing happened.
        revision: u64,
        /// In order of their revision.
        changes: Vec<Change>,
        /// There is more: ask again at once.
        more: bool,
    },
}

/// Where to begin anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Where the store stands.
    pub revision: u64,
    /// `recent` has all changes above this revision; `revision` itself where none are known.
    pub remembered_from: u64,
    /// The last changes, in order of their revision: rows that lie in caches may be older than they.
    pub recent: Vec<Change>,
    /// Another history goes on from here, and may lack changes that this one had: a replica was
    /// promoted, or a backup was put in the store's place.
    pub new_epoch: bool,
}

impl Reset {
    /// At `revision`, of which nothing more is known.
    #[must_use]
    pub const fn at(revision: u64) -> Self {
        Self { revision, remembered_from: revision, recent: Vec::new(), new_epoch: false }
    }
}

/// A store that tells its changes.
#[async_trait]
pub trait ChangeFeed: Send + Sync {
    /// How often it should be asked when it stirs not by itself.
    fn poll_interval(&self) -> Duration {
        POLL_INTERVAL
    }

    /// Waits until it is worth asking before the next poll is due; a store that cannot tell never
    /// ends this.
    async fn stirred(&self) {
        std::future::pending().await
    }

    /// What happened after `revision`; without one, only where the store stands.
    async fn changes_since(&self, revision: Option<u64>) -> Result<Changes, Outage>;
}

/// What following the changes brings to light; for metrics and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// A change is in effect here, this long after it was committed.
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
    /// The store answers again.
    Up,
}

/// Applies the changes of `feed` to `directory`, for ever; drop the future to stop.
///
/// `observe` is told what happens, and must not block.
pub async fn follow(
    feed: &dyn ChangeFeed,
    directory: &Directory,
    clock: &Clock,
    mut observe: impl FnMut(FeedEvent) + Send,
) {
    let mut since = None;
    let mut down = false;
    loop {
        let asked_at = clock.now();
        let answer = tokio::time::timeout(POLL_DEADLINE, feed.changes_since(since)).await;
        let mut more = false;
        match answer.unwrap_or(Err(Outage::Timeout)) {
            Ok(Changes::Reset(reset)) => {
                directory.reset(reset.revision, asked_at);
                if since.replace(reset.revision).is_some() {
                    observe(FeedEvent::Gap);
                }
            }
            Ok(Changes::Since { revision, changes, more: unread }) => {
                more = unread;
                since = Some(revision);
                directory.apply(revision, &changes, asked_at);
                for change in &changes {
                    let delay = clock.unix_time().saturating_sub(change.committed_at);
                    observe(FeedEvent::Applied { kind: change.kind, delay });
                }
            }
            Err(outage) => {
                if !std::mem::replace(&mut down, true) {
                    observe(FeedEvent::Down(outage));
                }
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
        }
        if std::mem::take(&mut down) {
            observe(FeedEvent::Up);
        }
        if !more {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// The changes that are in effect here.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// All changes up to here are in effect.
    applied: u64,
    /// `recent` has all changes above this revision.
    remembers_from: u64,
    recent: VecDeque<Change>,
}

impl Marks {
    /// Begins anew at `revision`.
    pub(super) fn reset(&mut self, revision: u64) {
        *self = Self { applied: revision, remembers_from: revision, recent: VecDeque::new() };
    }

    /// Takes note of all changes up to `revision`.
    pub(super) fn note(&mut self, revision: u64, changes: &[Change]) {
        self.applied = self.applied.max(revision);
        self.recent.extend(changes.iter().cloned());
        while self.recent.len() > REMEMBERED {
            if let Some(forgotten) = self.recent.pop_front() {
                self.remembers_from = forgotten.revision;
            }
        }
    }

    /// Whether a row read at `revision` is current, if only changes that `named` picks concern it.
    pub(super) fn allow(&self, revision: u64, named: impl Fn(&Change) -> bool) -> bool {
        if revision >= self.applied {
            return true;
        }
        revision >= self.remembers_from
            && !self.recent.iter().rev().take_while(|c| c.revision > revision).any(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, id: &str) -> Change {
        Change { revision, kind: ChangeKind::Key, id: id.into(), committed_at: Duration::ZERO }
    }

    #[test]
    fn a_row_that_arrives_late_is_checked_against_the_changes_since_it_was_read() {
        let mut marks = Marks::default();
        marks.reset(10);
        marks.note(12, &[change(11, "a"), change(12, "b")]);
        let allows = |revision, id: &str| marks.allow(revision, |c| &*c.id == id);

        assert!(allows(12, "b"), "read after the change");
        assert!(!allows(11, "b"), "read before it");
        assert!(allows(11, "a"), "another row's change");
        assert!(!allows(9, "c"), "from before anything is remembered");
    }

    #[test]
    fn what_is_forgotten_is_not_taken_for_unchanged() {
        let mut marks = Marks::default();
        let last = u64::try_from(REMEMBERED).unwrap() + 2;
        for revision in 1..=last {
            marks.note(revision, &[change(revision, "x")]);
        }
        assert!(!marks.allow(1, |c| &*c.id == "y"), "revision 2 is forgotten");
        assert!(marks.allow(2, |c| &*c.id == "y"));
        assert_eq!(marks.recent.len(), REMEMBERED);
    }
}
