//! Counts for keys without number, in memory of a fixed size: the count-min sketch of
//! `pingora-limits`, and time.
//!
//! A key is counted in one cell of each row, and its count is the least of them: never too low, and
//! too high only where other keys meet it in every row. With [`ROWS`] rows of [`CELLS`] cells, a key
//! is refused for what others did only if in each row they fill its cell up to the limit. One of
//! 1 000 keys that are at their limit does that in a row with p = 0.03, so in all five with 3e-8; of
//! 100 000 keys of light use each cell has three on average, and the [`LEAST`] that a limit may be is
//! out of their reach. So a good client is refused for others with less than one in a million, with
//! 100 000 addresses active in two periods, 1 000 of them at their limits (2 000 of them: 8e-7).
//! A sketch takes 1.25 MiB, a rate has two.
//!
//! `pingora_limits::rate::Rate` is not used: it reads a clock of its own, counts what it refuses,
//! and its turn from one window to the next can be lost or done twice when threads race for it.
//!
//! Must stay true: nothing waits here; time that seems to go back, between threads, does no harm.

use crate::telemetry::Moment;
use parking_lot::Mutex;
use pingora_limits::estimator::Estimator;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Rows of a sketch.
const ROWS: usize = 5;
/// Cells of a row.
const CELLS: usize = 1 << 15;

/// The lowest limit: light use of others alone cannot fill a cell so far.
pub const LEAST: u32 = 10;

/// A sketch in which nothing is counted.
pub(super) fn estimator() -> Estimator {
    Estimator::new(ROWS, CELLS)
}

/// How much was counted in the last span, as far as two windows of that span can tell: the one of
/// now, and of the one before it the share that is still less than a span ago.
///
/// A limit admits at most its own number at once, and twice that in any span. A thread that reads a
/// count while another adds to it may let one more through.
pub(super) struct Recent {
    span: u64,
    /// The number of the window that is counted now, from the clock's origin.
    window: AtomicU64,
    /// Windows with even and with odd numbers.
    windows: [Estimator; 2],
    turning: Mutex<()>,
}

/// What two windows say of one key.
struct Seen {
    before: u128,
    now: u128,
    /// How much of the window of now is over, in nanoseconds.
    elapsed: u128,
}

impl Recent {
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span: u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).max(1),
            window: AtomicU64::new(0),
            windows: [estimator(), estimator()],
            turning: Mutex::new(()),
        }
    }

    /// Counts one more for `key`, of at most `most` in a span.
    ///
    /// # Errors
    /// How long until there is room, and nothing is counted.
    pub(super) fn take(&self, key: u64, most: u32, now: Moment) -> Result<(), Duration> {
        let window = self.turn(now);
        match self.wait_in(window, key, most, now) {
            Some(wait) => Err(wait),
            None => {
                self.estimator(window).incr(key, 1);
                Ok(())
            }
        }
    }

    /// Counts one more for `key`, whatever there is room for.
    pub(super) fn add(&self, key: u64, now: Moment) {
        self.estimator(self.turn(now)).incr(key, 1);
    }

    /// How long until there is room for one more of `key`; `None`: there is.
    pub(super) fn wait(&self, key: u64, most: u32, now: Moment) -> Option<Duration> {
        self.wait_in(self.turn(now), key, most, now)
    }

    fn wait_in(&self, window: u64, key: u64, most: u32, now: Moment) -> Option<Duration> {
        let Seen { before, now, elapsed } = self.look(window, key, now);
        let (span, most) = (u128::from(self.span), u128::from(most));
        let left = span.saturating_sub(elapsed);
        // In parts of a span, so that nothing is rounded.
        if before * left + (now + 1) * span <= most * span {
            return None;
        }
        // When of so many that a window had, no more than `room` count.
        let until = |count: u128, room: u128| {
            span.saturating_sub((room * span).checked_div(count).unwrap_or(span))
        };
        let wait = match most.checked_sub(now + 1) {
            Some(room) => until(before, room).saturating_sub(elapsed),
            None => left + until(now, most.saturating_sub(1)),
        };
        Some(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    fn look(&self, window: u64, key: u64, now: Moment) -> Seen {
        let count = |window| u128::try_from(self.estimator(window).get(key)).unwrap_or(0);
        let begun = u128::from(window) * u128::from(self.span);
        let elapsed = u128::from(now.as_nanos()).saturating_sub(begun).min(u128::from(self.span));
        Seen { before: count(window.wrapping_sub(1)), now: count(window), elapsed }
    }

    /// Goes on to the window of `now`, if that is later. Whoever comes while another does that is
    /// still counted in the window before.
    fn turn(&self, now: Moment) -> u64 {
        let due = now.as_nanos() / self.span;
        let window = self.window.load(Ordering::Acquire);
        if due <= window {
            return window;
        }
        let Some(_turning) = self.turning.try_lock() else { return window };
        let window = self.window.load(Ordering::Acquire);
        if due <= window {
            return window;
        }
        if due > window + 1 {
            self.estimator(due.wrapping_sub(1)).reset();
        }
        self.estimator(due).reset();
        self.window.store(due, Ordering::Release);
        due
    }

    const fn estimator(&self, window: u64) -> &Estimator {
        let [even, odd] = &self.windows;
        if window.is_multiple_of(2) { even } else { odd }
    }
}
