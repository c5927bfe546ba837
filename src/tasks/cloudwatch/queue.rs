//! Intervals that CloudWatch does not have yet, in their order.
//!
//! Must stay true: bounded; what finds no room pushes out the oldest, and is counted.

use crate::telemetry::cloudwatch::{Interval, calls};
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Intervals that may wait: a quarter of an hour, as a rule.
const MOST: usize = 15;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    next: u64,
    /// There is one that nobody has looked at.
    fresh: bool,
    /// There will be no more.
    ended: bool,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    late: bool,
    interval: Interval,
}

/// What one call carries.
#[derive(Debug)]
pub(super) struct Batch {
    last: u64,
    pub(super) intervals: Vec<Interval>,
}

impl Queue {
    /// Says of how many, for the first time, that the next interval came before they were taken.
    pub(super) fn mark_late(&self) -> usize {
        let mut state = self.state.lock();
        let late = state.waiting.iter_mut().map(|it| std::mem::replace(&mut it.late, true));
        late.filter(|was_late| !was_late).count()
    }

    /// One more; whether it pushed out the oldest.
    pub(super) fn push(&self, interval: Interval) -> bool {
        let mut state = self.state.lock();
        let full = state.waiting.len() >= MOST;
        if full {
            state.waiting.pop_front();
        }
        state.next += 1;
        let number = state.next;
        state.waiting.push_back(Waiting { number, late: false, interval });
        state.fresh = true;
        self.changed.notify_one();
        full
    }

    /// There will be no more.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_one();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// Waits until one came that was not there before, or none will come.
    pub(super) async fn changed(&self) {
        loop {
            {
                let mut state = self.state.lock();
                if std::mem::take(&mut state.fresh) || state.ended {
                    return;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits until none will come.
    pub(super) async fn ended(&self) {
        while !self.has_ended() {
            self.changed.notified().await;
        }
    }

    /// The oldest ones, as many as one call may carry; `None` if nothing waits.
    pub(super) fn oldest(&self) -> Option<Batch> {
        let state = self.state.lock();
        let mut intervals: Vec<Interval> =
            state.waiting.iter().map(|it| it.interval.clone()).collect();
        intervals.truncate(calls(&intervals));
        let last = state.waiting.get(intervals.len().checked_sub(1)?)?.number;
        Some(Batch { last, intervals })
    }

    /// They are taken, or given up; so many intervals.
    pub(super) fn remove(&self, batch: &Batch) -> usize {
        let mut state = self.state.lock();
        let before = state.waiting.len();
        state.waiting.retain(|it| it.number > batch.last);
        before - state.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn interval(began: u64) -> Interval {
        Interval { began: Duration::from_secs(began), datums: Vec::new() }
    }

    fn began(queue: &Queue) -> Vec<u64> {
        let batch = queue.oldest();
        batch.into_iter().flat_map(|it| it.intervals).map(|it| it.began.as_secs()).collect()
    }

    #[test]
    fn what_finds_no_room_pushes_out_the_oldest() {
        let queue = Queue::default();
        let pushed_out = (0..20).filter(|began| queue.push(interval(*began))).count();
        assert_eq!(pushed_out, 5);
        assert_eq!(began(&queue), (5..20).collect::<Vec<_>>());
    }

    #[test]
    fn an_interval_is_late_once() {
        let queue = Queue::default();
        queue.push(interval(0));
        assert_eq!(queue.mark_late(), 1);
        queue.push(interval(1));
        assert_eq!(queue.mark_late(), 1);
        assert_eq!(queue.mark_late(), 0);
    }

    #[test]
    fn what_came_while_a_call_was_under_way_stays() {
        let queue = Queue::default();
        queue.push(interval(0));
        queue.push(interval(1));
        let batch = queue.oldest().unwrap();
        queue.push(interval(2));
        assert_eq!((batch.intervals.len(), queue.remove(&batch)), (2, 2));
        assert_eq!(began(&queue), [2]);
        assert_eq!(queue.remove(&batch), 0);
    }

    #[tokio::test]
    async fn who_has_looked_is_woken_by_the_next_or_by_the_end() {
        let queue = Queue::default();
        queue.push(interval(0));
        queue.changed().await;
        let soon = Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, queue.changed()).await.is_err(), "it is not new");
        queue.end();
        queue.changed().await;
        queue.ended().await;
    }
}
