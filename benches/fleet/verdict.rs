//! Whether the rule was kept, how much of it was given, and how long answers took.

use crate::client::Seen;
use crate::{BURST, RATE};
use anyhow::{Context as _, Result};
use std::fmt;
use std::time::Duration;

/// By then the burst is used up, since at least three times the rate is wanted.
const SETTLED: Duration = Duration::from_millis(500);

/// What is to be said of a run.
pub(crate) struct Verdict {
    seen: usize,
    admitted: Took,
    refused: Took,
    span: Duration,
    limited: Option<Limited>,
}

/// The same of one that refuses.
struct Limited {
    worst: Window,
    /// Admitted in a second, once the burst was used up.
    each_second: f64,
}

/// A window, and what it admitted for certain.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    length: Duration,
    admitted: usize,
    most: f64,
}

impl Window {
    /// How much more it admitted than it may; less than zero where there is room.
    fn excess(&self) -> f64 {
        self.admitted as f64 - self.most
    }
}

/// How long answers took, in ascending order.
struct Took(Vec<Duration>);

impl Verdict {
    /// Judges a run. A window may be longer by `slack`.
    pub(crate) fn of(seen: &[Seen], slack: Option<Duration>) -> Result<Self> {
        let mut admitted: Vec<_> = seen.iter().filter(|seen| seen.admitted).copied().collect();
        admitted.sort_by_key(|seen| seen.answered);
        let took = |admitted: bool| {
            let such = seen.iter().filter(|seen| seen.admitted == admitted);
            let mut took: Vec<_> = such.map(|seen| seen.answered - seen.sent).collect();
            took.sort_unstable();
            Took(took)
        };
        let span = seen.iter().map(|seen| seen.answered).max().context("nothing was sent")?;
        let limited = slack.map(|slack| Limited {
            worst: worst(&admitted, slack),
            each_second: each_second(&admitted, span),
        });
        Ok(Self { seen: seen.len(), admitted: took(true), refused: took(false), span, limited })
    }

    /// Whether no window admitted more than it may, but for what `alone` requests got that were decided
    /// without Redis: what Redis gave beside them keeps the bound by itself.
    pub(crate) fn keeps_bound(&self, alone: f64) -> bool {
        self.limited.as_ref().is_none_or(|limited| limited.worst.excess() <= alone)
    }

    /// What was admitted of the rule's rate, once the burst was used up.
    pub(crate) fn share(&self) -> Option<f64> {
        self.limited.as_ref().map(|limited| limited.each_second / f64::from(RATE))
    }
}

/// The window that comes nearest to its bound, or exceeds it most. All that begin with the sending of an
/// admitted request and end with the answer to one are looked at: the others hold no more.
fn worst(admitted: &[Seen], slack: Duration) -> Window {
    let mut worst = Window { most: f64::INFINITY, ..Window::default() };
    for first in admitted {
        let within = admitted.iter().filter(|seen| seen.sent >= first.sent);
        for (earlier, last) in within.enumerate() {
            let length = last.answered - first.sent;
            let most = f64::from(BURST) + f64::from(RATE) * (length + slack).as_secs_f64();
            let window = Window { length, admitted: earlier + 1, most };
            if window.excess() > worst.excess() {
                worst = window;
            }
        }
    }
    worst
}

fn each_second(admitted: &[Seen], span: Duration) -> f64 {
    let later = admitted.iter().filter(|seen| seen.answered >= SETTLED).count();
    later as f64 / span.saturating_sub(SETTLED).as_secs_f64()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seen, admitted, refused) = (self.seen, &self.admitted, &self.refused);
        write!(f, "{seen} requests in {:.1?}; admitted {admitted}; refused {refused}", self.span)?;
        let Some(Limited { worst, each_second }) = &self.limited else { return Ok(()) };
        let share = each_second * 100.0 / f64::from(RATE);
        write!(
            f,
            "\n    {each_second:.1} admitted in a second, {share:.1} % of the rate; fullest window: {} of \
             {:.1} in {:.3?}",
            worst.admitted, worst.most, worst.length,
        )
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: usize| {
            let place = (self.0.len() * part / 100).min(self.0.len().saturating_sub(1));
            self.0.get(place).copied().unwrap_or_default()
        };
        write!(f, "{} (p50 {:.2?} p99 {:.2?})", self.0.len(), part(50), part(99))
    }
}
