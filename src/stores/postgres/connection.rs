//! A connection, and what is known of whether it can still be believed.
//!
//! A connection that was left in the middle of a question, or of a transaction, is of no use any more:
//! the answer to the next question could be that to the last one, or never come. It says so itself, so
//! that whoever stops waiting has nothing to do.
//!
//! Events are put in order by counting them, not by a clock: when one connection falls silent, those
//! that have not answered since are under suspicion, for they may lead to the same dead machine. They are
//! asked for a sign of life, since it may as well be a table that is locked; when one does not give it,
//! all that have not answered since are given up.
//!
//! Must stay true: a connection on which a deadline passed is never used again.

use super::seats::Hold;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Statement};

/// What is known of all connections of a pool.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Counts events.
    events: AtomicU64,
    /// The last time that one fell silent.
    silence: AtomicU64,
    /// The last time that one under suspicion did not answer.
    death: AtomicU64,
    /// The last time that one turned out to lead to the wrong server.
    wrong: AtomicU64,
    /// The history that the primary writes; zero where it is not known.
    timeline: AtomicU32,
    /// Connections fail or fall silent, and no new one has answered a question since.
    is_troubled: AtomicBool,
}

impl Marks {
    /// The number of a new event.
    fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A connection fell silent.
    pub(super) fn note_silence(&self) {
        self.silence.store(self.event(), Ordering::Relaxed);
        self.note_trouble();
    }

    /// A connection fell silent, and so did one that was asked for a sign of life.
    pub(super) fn note_death(&self) {
        self.death.store(self.event(), Ordering::Relaxed);
        self.note_trouble();
    }

    /// A connection could not be made.
    pub(super) fn note_trouble(&self) {
        self.is_troubled.store(true, Ordering::Relaxed);
    }

    /// Whether connections fail or fall silent.
    pub(super) fn is_troubled(&self) -> bool {
        self.is_troubled.load(Ordering::Relaxed)
    }

    /// A connection led to the wrong server.
    pub(super) fn note_wrong(&self) {
        self.wrong.store(self.event(), Ordering::Relaxed);
    }

    /// The history that the primary writes; zero where it is not known.
    pub(super) fn timeline(&self) -> u32 {
        self.timeline.load(Ordering::Relaxed)
    }

    /// A primary was found that writes this history.
    pub(super) fn note_timeline(&self, timeline: u32) {
        self.timeline.store(timeline, Ordering::Relaxed);
    }
}

/// A connection.
pub(super) struct Connection {
    pub(super) client: Client,
    /// The history that its server wrote when it was made; zero on a replica.
    timeline: u32,
    born: u64,
    answered: AtomicU64,
    /// It knows what the connection is in the middle of.
    pub(super) hold: Hold,
    spent: AtomicBool,
    pub(super) key: OnceCell<Statement>,
    pub(super) consumer: OnceCell<Statement>,
    pub(super) quota: OnceCell<Statement>,
}

impl Connection {
    pub(super) fn new(client: Client, hold: Hold, timeline: u32, marks: &Marks) -> Self {
        let born = marks.event();
        Self {
            client,
            timeline,
            born,
            answered: AtomicU64::new(born),
            hold,
            spent: AtomicBool::new(false),
            key: OnceCell::new(),
            consumer: OnceCell::new(),
            quota: OnceCell::new(),
        }
    }

    /// A question goes out.
    pub(super) fn asks(&self) {
        self.hold.set_asking(true);
    }

    /// Its answer is there.
    pub(super) fn is_answered(&self, marks: &Marks) {
        self.hold.set_asking(false);
        self.answered.store(marks.event(), Ordering::Relaxed);
        if self.born > marks.silence.load(Ordering::Relaxed) {
            marks.is_troubled.store(false, Ordering::Relaxed);
        }
    }

    /// Whether a question is out.
    pub(super) fn is_asking(&self) -> bool {
        self.hold.is_asking()
    }

    /// A transaction begins or ends.
    pub(super) fn set_in_transaction(&self, on: bool) {
        self.hold.set_in_transaction(on);
    }

    /// It is not to be used again.
    pub(super) fn give_up(&self) {
        self.spent.store(true, Ordering::Relaxed);
    }

    /// Whether it is of no use any more.
    pub(super) fn is_broken(&self, marks: &Marks) -> bool {
        self.spent.load(Ordering::Relaxed)
            || self.is_asking()
            || self.hold.in_transaction()
            || self.client.is_closed()
            || self.timeline != marks.timeline()
            || self.born < marks.wrong.load(Ordering::Relaxed)
            || self.answered.load(Ordering::Relaxed) < marks.death.load(Ordering::Relaxed)
    }

    /// Whether it must not be handed out before it gave a sign of life.
    pub(super) fn is_doubtful(&self, marks: &Marks) -> bool {
        self.answered.load(Ordering::Relaxed) < marks.silence.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("born", &self.born).finish_non_exhaustive()
    }
}
