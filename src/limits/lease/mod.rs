//! Permits that a task took ahead of need, for one rule and subject.
//!
//! A batch is asked for when what is left will not last until an answer can be here, and holds what
//! the last few windows used in [`AHEAD`]: half of a batch's life, so that most of it is used even
//! when traffic halves. A batch dies [`LIFE`] after it was *asked for*, by a clock that was read before
//! the question was sent. Redis took its permits later than that, so each is used at most `LIFE` after
//! it was taken there, and whoever looks at any window of length T sees permits that were taken in a
//! window of T + `LIFE`: at most burst + rate × (T + `LIFE`).
//!
//! When Redis has no more, it is asked again every [`POLL`] for as long as anybody wants more. A burst
//! that is leased lasts longer than `LIFE`, so nothing that is regained in between is lost.
//!
//! This is the arithmetic only; it is told the time, and it neither asks nor waits by itself.
//!
//! Must stay true: a permit is never used after its batch died, whichever way it came back here.

use super::fleet::Taken;
use super::gcra::Meter;
use super::slots::Entry;
use crate::telemetry::Moment;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a permit may be kept.
pub(super) const LIFE: Duration = Duration::from_millis(100);
/// How often Redis is asked when it has nothing left.
pub(super) const POLL: Duration = Duration::from_millis(20);
/// A batch is what is used in this time, in milliseconds.
const AHEAD: f32 = 50.0;
/// A batch is asked for when what is left lasts no longer than this, in milliseconds.
const HEADROOM: f32 = 15.0;
/// Batches that live at the same time; one is asked for after the other, half a life apart.
const BATCHES: usize = 4;
/// How long a lease that nobody uses is remembered.
const REMEMBERED: Duration = Duration::from_secs(1);

/// What a request finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Permits.
    Granted {
        /// When the first of them dies.
        dies: Moment,
        /// What is left here, and was left in Redis when it was last asked.
        remaining: u64,
        /// What Redis said of when there is one more.
        next: Duration,
    },
    /// Too little, and Redis had too little just now.
    Empty(Duration),
    /// Too little here, and Redis was not asked since.
    Unknown,
}

/// What is to be done after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing; a request will say when there is need.
    Rest,
    /// Ask again after this time, if anybody still wants more.
    Poll(Duration),
}

#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    permits: u32,
    dies: Moment,
}

/// The permits of one rule and subject.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// In the order in which they die.
    batches: [Batch; BATCHES],
    pace: Pace,
    /// A question is under way, or will be when [`Next::Poll`] is over.
    asking: bool,
    /// Redis had too little left when it was last asked.
    empty: bool,
    empty_until: Moment,
    /// Permits that requests wait for and that no question was asked for yet.
    waiting: u32,
    beyond: u64,
    next: Duration,
    failures: u32,
    /// Permits that died unused since this was last read.
    died: u64,
    /// The rule as it was last asked about: it may change while this polls.
    meter: Option<Meter>,
    news: Option<Arc<Notify>>,
}

impl Lease {
    /// Takes permits, all or none. `first` is false for a request that waited and asks once more.
    pub(super) fn take(&mut self, cost: NonZeroU32, now: Moment, first: bool) -> Step {
        let cost = cost.get();
        if first {
            self.pace.count(cost, now);
        }
        self.bury(now);
        if let Some(dies) = self.draw(cost) {
            let remaining = u64::from(self.left()) + self.beyond;
            return Step::Granted { dies, remaining, next: self.next };
        }
        if now < self.empty_until {
            return Step::Empty(self.empty_until.since(now));
        }
        if self.empty && self.asking {
            return Step::Empty(self.next.max(Duration::from_millis(1)));
        }
        if first {
            self.waiting = self.waiting.saturating_add(cost);
        }
        Step::Unknown
    }

    /// Takes permits from the batches, those first that die first; when the first of them dies.
    fn draw(&mut self, cost: u32) -> Option<Moment> {
        if self.left() < cost {
            return None;
        }
        let (mut wanted, mut dies) = (cost, None);
        for batch in self.batches.iter_mut().filter(|batch| batch.permits > 0) {
            let taken = batch.permits.min(wanted);
            batch.permits -= taken;
            wanted -= taken;
            dies = dies.or(Some(batch.dies));
            if wanted == 0 {
                break;
            }
        }
        dies
    }

    /// How many permits to ask for now that a request wanted `cost`, if it is time; whoever gets an
    /// answer here must ask.
    pub(super) fn wants(&mut self, cost: NonZeroU32, now: Moment) -> Option<u32> {
        if self.asking || now < self.empty_until {
            return None;
        }
        let (left, rate) = (self.left(), self.pace.rate);
        let runs_out = rate * AHEAD >= 1.0 && left as f32 <= rate * HEADROOM;
        if !runs_out && (left >= cost.get() || self.waiting == 0) {
            return None;
        }
        self.asking = true;
        Some(self.size())
    }

    /// Takes in what Redis gave for a question that was asked at `asked`, for requests that take `cost`.
    pub(super) fn answered(
        &mut self,
        cost: NonZeroU32,
        asked: Moment,
        now: Moment,
        taken: Taken,
    ) -> Next {
        self.bury(now);
        self.add(Batch { permits: u32::try_from(taken.granted).unwrap_or(0), dies: asked + LIFE });
        self.bury(now);
        self.beyond = taken.remaining;
        self.next = taken.wait;
        self.empty = taken.remaining < u64::from(cost.get());
        if self.empty {
            let pause = taken.wait.clamp(POLL, LIFE);
            self.empty_until = asked + pause;
            return Next::Poll(self.empty_until.since(now));
        }
        self.asking = false;
        Next::Rest
    }

    /// How many permits to ask for, now that a pause is over; `None` if nobody wants any more.
    pub(super) fn poll(&mut self, now: Moment) -> Option<u32> {
        self.bury(now);
        let wanted = std::mem::take(&mut self.pace.seen) > 0;
        let want = self.size().saturating_sub(self.left());
        if wanted && want > 0 {
            return Some(want);
        }
        self.asking = false;
        None
    }

    /// Nobody answered.
    pub(super) fn failed(&mut self) {
        self.asking = false;
        self.empty = false;
        self.empty_until = Moment::default();
        self.failures = self.failures.wrapping_add(1);
        self.waiting = 0;
    }

    /// Puts back permits that were not used. All of them die with the first.
    pub(super) fn give_back(&mut self, cost: NonZeroU32, dies: Moment, now: Moment) {
        match self.batches.iter_mut().find(|batch| batch.dies == dies && now < dies) {
            Some(batch) => batch.permits = batch.permits.saturating_add(cost.get()),
            None => self.died += u64::from(cost.get()),
        }
    }

    /// Remembers what the rule is now.
    pub(super) const fn go_by(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// What the rule was when a request last came.
    pub(super) const fn meter(&self) -> Option<Meter> {
        self.meter
    }

    /// How many questions were not answered.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// What is told after every answer.
    pub(super) fn news(&mut self) -> Arc<Notify> {
        Arc::clone(self.news.get_or_insert_default())
    }

    /// Who waits for news, if anybody ever did.
    pub(super) fn listeners(&self) -> Option<Arc<Notify>> {
        self.news.clone()
    }

    /// Permits that died unused since this was last asked.
    pub(super) const fn take_died(&mut self) -> u64 {
        std::mem::replace(&mut self.died, 0)
    }

    fn left(&self) -> u32 {
        self.batches.iter().fold(0, |sum: u32, batch| sum.saturating_add(batch.permits))
    }

    fn size(&mut self) -> u32 {
        let wanted = (self.pace.rate * AHEAD).round() as u32;
        wanted.max(std::mem::take(&mut self.waiting)).max(1)
    }

    fn add(&mut self, new: Batch) {
        if let Some(free) = self.batches.iter_mut().find(|batch| batch.permits == 0) {
            *free = new;
        } else if let Some(last) = self.batches.iter_mut().max_by_key(|batch| batch.dies) {
            // They die with the older ones: sooner than they must.
            last.permits = last.permits.saturating_add(new.permits);
        }
        self.batches.sort_by_key(|batch| batch.dies);
    }

    fn bury(&mut self, now: Moment) {
        for batch in &mut self.batches {
            if batch.dies <= now {
                self.died += u64::from(batch.permits);
                batch.permits = 0;
            }
        }
    }
}

impl Entry for Lease {
    type Now = Moment;

    fn is_idle(&self, now: Moment) -> bool {
        !self.asking && now.since(self.pace.last) > REMEMBERED
    }

    fn tick(now: Moment) -> u64 {
        now.since(Moment::default()).as_secs()
    }
}

/// How many permits are wanted, refused ones included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    since: Moment,
    last: Moment,
    count: u32,
    /// Since the last poll.
    seen: u32,
    /// In a millisecond.
    pub(super) rate: f32,
}

impl Pace {
    const WINDOW: Duration = Duration::from_millis(20);
    /// What was before a pause of this length says nothing.
    const STALE: Duration = Duration::from_millis(200);

    pub(super) fn count(&mut self, permits: u32, now: Moment) {
        let elapsed = now.since(self.since);
        if elapsed >= Self::WINDOW {
            let rate = self.count as f32 / (elapsed.as_secs_f32() * 1_000.0);
            self.rate = if elapsed >= Self::STALE { rate } else { (self.rate + rate) / 2.0 };
            self.since = now;
            self.count = 0;
        }
        self.last = now;
        self.count = self.count.saturating_add(permits);
        self.seen = self.seen.saturating_add(permits);
    }

    pub(super) const fn last(&self) -> Moment {
        self.last
    }
}

#[cfg(test)]
mod tests;
