//! How many look-ups a second may bring: whoever invents keys makes each of them a question.

use crate::telemetry::{Clock, Moment};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Look-ups that may come at once, as a part of those of a second.
const AT_ONCE: u32 = 4;

/// So many look-ups in a second, and a quarter of them at once.
#[derive(Debug)]
pub(super) struct Budget {
    clock: Clock,
    /// The time that one look-up is worth.
    each: Duration,
    /// How far look-ups may run ahead of the time.
    ahead: Duration,
    /// When all look-ups so far are paid for.
    paid_at: Mutex<Moment>,
    refused: AtomicU64,
}

impl Budget {
    pub(super) fn new(per_second: u32, clock: Clock) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        let paid_at = Mutex::new(clock.now());
        let ahead = each.saturating_mul((per_second / AT_ONCE).max(1) - 1);
        Self { clock, each, ahead, paid_at, refused: AtomicU64::new(0) }
    }

    /// Pays for one look-up, if there is enough left.
    pub(super) fn spend(&self) -> bool {
        let now = self.clock.now();
        let mut paid_at = self.paid_at.lock();
        let from = (*paid_at).max(now);
        if from.since(now) > self.ahead {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        *paid_at = from + self.each;
        true
    }

    /// How many were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_a_second_may_come_at_once_and_then_as_time_goes_by() {
        let clock = Clock::manual();
        let budget = Budget::new(100, clock.clone());
        let spent = |tries: u32| (0..tries).filter(|_| budget.spend()).count();
        assert_eq!(spent(60), 25);
        clock.advance(Duration::from_millis(100));
        assert_eq!(spent(60), 10);
        clock.advance(Duration::from_secs(60));
        assert_eq!(spent(60), 25, "nothing is saved up");
        assert_eq!(budget.refused(), 120);
    }
}
