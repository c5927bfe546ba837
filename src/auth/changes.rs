//! What the store says has changed, and what that voids.
//!
//! Every write of the store ends with a revision and the names of what it touched. A gateway follows
//! them; a cached row is void once a change above its revision names it. The last changes are kept,
//! because a row can be read before a change and arrive after it.
//!
//! Must stay true: a change that was missed voids everything, never nothing.

use super::denied::Outage;
use super::owners::Owners;
use async_trait::async_trait;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How often a store is asked for changes that does not tell by itself.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Revisions of a lost history that others may have seen and that were not seen here.
const UNSEEN: u64 = 1000;
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

impl Change {
    /// Whether it is about this one.
    #[must_use]
    pub fn names(&self, kind: ChangeKind, id: &str) -> bool {
        self.kind == kind && *self.id == *id
    }
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
    /// Names the history that the revisions belong to. After a promotion the same numbers are given
    /// again, to other changes.
    pub history: u64,
}

impl Reset {
    /// At `revision`, of which nothing more is known.
    #[must_use]
    pub const fn at(revision: u64) -> Self {
        Self {
            revision,
            remembered_from: revision,
            recent: Vec::new(),
            new_epoch: false,
            history: 0,
        }
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

/// The changes that are in effect here.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// All changes up to here are in effect.
    applied: u64,
    /// `recent` has all changes above this revision.
    remembers_from: u64,
    recent: VecDeque<Change>,
    /// The rows in caches, by their consumer.
    pub(super) owners: Owners,
    /// The revisions between the last that two histories have in common and the last that can be of the
    /// lost one: nobody but the authority can say which of both an answer belongs to.
    disputed: Option<(u64, u64)>,
    /// Rows that a lost change had touched, until another change touches them.
    doubtful: HashSet<(ChangeKind, Arc<str>)>,
}

impl Marks {
    /// Begins anew. Answers with the changes that were in effect here and that a new history lacks.
    pub(super) fn reset(&mut self, reset: &Reset) -> Vec<Change> {
        let known = |change: &Change| {
            change.revision <= reset.remembered_from
                || reset.recent.iter().any(|other| other == change)
        };
        let lost: Vec<Change> = match reset.new_epoch {
            true => self.recent.drain(..).filter(|change| !known(change)).collect(),
            false => Vec::new(),
        };
        if reset.new_epoch {
            let before = self.disputed.map_or(0, |(_, last)| last);
            let last = self.applied.saturating_add(UNSEEN).max(before);
            let first = self.disputed.map_or(u64::MAX, |(first, _)| first).min(reset.revision);
            self.disputed = Some((first, last));
        }
        self.applied = reset.revision;
        self.remembers_from = reset.remembered_from;
        self.recent = reset.recent.iter().cloned().collect();
        self.shorten();
        lost
    }

    /// Takes note of all changes up to `revision`.
    pub(super) fn note(&mut self, revision: u64, changes: &[Change]) {
        self.applied = self.applied.max(revision);
        if !self.doubtful.is_empty() {
            for change in changes {
                self.doubtful.remove(&(change.kind, Arc::clone(&change.id)));
            }
        }
        self.recent.extend(changes.iter().cloned());
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.recent.len() > REMEMBERED {
            if let Some(forgotten) = self.recent.pop_front() {
                self.remembers_from = forgotten.revision;
            }
        }
    }

    /// From now on this row is not believed to be good.
    pub(super) fn doubt(&mut self, change: &Change) {
        if self.doubtful.len() < REMEMBERED {
            self.doubtful.insert((change.kind, Arc::clone(&change.id)));
        }
    }

    /// Whether a lost change had touched this row.
    pub(super) fn doubts(&self, kind: ChangeKind, id: &str) -> bool {
        !self.doubtful.is_empty() && self.doubtful.contains(&(kind, Arc::from(id)))
    }

    /// Whether a copy that was read at `revision` can have had the history that is followed here. One
    /// that is ahead may have another; it is at most a moment until what it knows is known here too.
    pub(super) fn may_share_history(&self, revision: u64) -> bool {
        let is_disputed =
            self.disputed.is_some_and(|(common, last)| revision > common && revision <= last);
        revision <= self.applied && !is_disputed
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
        marks.reset(&Reset::at(10));
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

    #[test]
    fn a_start_knows_the_changes_that_caches_may_be_older_than() {
        let mut marks = Marks::default();
        let recent = vec![change(8, "a"), change(9, "b")];
        marks.reset(&Reset { remembered_from: 7, recent, ..Reset::at(10) });
        let allows = |revision, id: &str| marks.allow(revision, |c| &*c.id == id);
        assert!(allows(8, "a") && !allows(7, "a"));
        assert!(allows(7, "c"), "nothing named it");
        assert!(!allows(6, "c"), "nobody knows");
    }

    #[test]
    fn a_new_history_tells_what_it_lacks() {
        let mut marks = Marks::default();
        marks.reset(&Reset::at(10));
        marks.note(13, &[change(11, "a"), change(12, "b"), change(13, "c")]);
        // The replica had received revision 11; since then it has written one of its own.
        let recent = vec![change(11, "a"), change(12, "x")];
        let reset = Reset { remembered_from: 10, recent, new_epoch: true, ..Reset::at(12) };
        let lost = marks.reset(&reset);
        assert_eq!(lost, [change(12, "b"), change(13, "c")]);
        lost.iter().for_each(|change| marks.doubt(change));
        assert!(marks.doubts(ChangeKind::Key, "b") && !marks.doubts(ChangeKind::Key, "a"));
        let shares = |revision| marks.may_share_history(revision);
        assert!(shares(12) && !shares(13), "a copy that is ahead may have the lost history");
        marks.note(13, &[change(13, "b")]);
        assert!(!marks.may_share_history(13), "it may have it still");
        assert!(!marks.doubts(ChangeKind::Key, "b"), "it was written again");
        assert!(marks.doubts(ChangeKind::Key, "c"));
        assert!(marks.reset(&Reset::at(20)).is_empty(), "a gap is no new history");
    }
}
