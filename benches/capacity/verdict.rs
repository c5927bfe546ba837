//! Whether a rate was held, and what it took.

use crate::cgroup::Throttled;
use crate::client::Seen;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What 99 of 100 requests take at most.
const LATENCY_BAR: Duration = Duration::from_millis(100);
/// Errors among all requests.
const ERRORS_BAR: f64 = 0.000_2;
/// By how much more may be resident in the second half, on average, than in the first: MiB. The allocator
/// takes and gives back one or two as it likes; in ten minutes at 1 000/s, a leak of 14 bytes for each
/// request would pass this.
const GROWTH_BAR: f64 = 4.0;
/// A span too short for that question, in seconds.
const TOO_SHORT: usize = 60;
/// Samples are shown in so many parts, as means.
const PARTS: usize = 10;

/// What is to be said of a load.
pub(crate) struct Verdict {
    rate: u32,
    sent: usize,
    /// In ascending order.
    took: Vec<Duration>,
    errors: BTreeMap<String, usize>,
    memory: Memory,
    /// CPU time for each request, and in each second.
    each: Duration,
    busy: f64,
    throttled: Option<Throttled>,
}

/// MiB that were resident.
struct Memory {
    first_half: f64,
    second_half: f64,
    most: f64,
    parts: Vec<f64>,
    judged: bool,
}

impl Verdict {
    /// Judges a load.
    pub(crate) fn of(seen: &Seen, rate: u32, throttled: Option<Throttled>) -> Result<Self> {
        let mut took = seen.took.clone();
        took.sort_unstable();
        let sent = took.len() + seen.errors.values().sum::<usize>();
        let (first, last) = seen.usage.first().zip(seen.usage.last()).context("no usage")?;
        let used = last.cpu.saturating_sub(first.cpu);
        Ok(Self {
            rate,
            sent,
            took,
            errors: seen.errors.clone(),
            memory: Memory::of(&seen.usage.iter().map(|usage| usage.memory).collect::<Vec<_>>()),
            each: used / u32::try_from(sent.max(1))?,
            busy: used.as_secs_f64() / seen.span.as_secs_f64(),
            throttled,
        })
    }

    /// The bars that were not reached.
    pub(crate) fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        if self.part(0.99) >= LATENCY_BAR {
            missed.push(format!("p99 is {:.1?}", self.part(0.99)));
        }
        if self.failed() >= ERRORS_BAR {
            missed.push(format!("{:.4} % are errors", self.failed() * 100.0));
        }
        if self.memory.judged && self.memory.growth() > GROWTH_BAR {
            missed.push(format!("memory grew by {:.1} MiB", self.memory.growth()));
        }
        missed
    }

    fn part(&self, part: f64) -> Duration {
        let place = (self.took.len() as f64 * part) as usize;
        // Where nothing was answered, everything took too long.
        self.took
            .get(place.min(self.took.len().saturating_sub(1)))
            .copied()
            .unwrap_or(Duration::MAX)
    }

    fn failed(&self) -> f64 {
        let errors: usize = self.errors.values().sum();
        errors as f64 / self.sent.max(1) as f64
    }
}

impl Memory {
    /// Of samples in KiB, one for each second.
    fn of(samples: &[f64]) -> Self {
        let mean =
            |samples: &[f64]| samples.iter().sum::<f64>() / samples.len().max(1) as f64 / 1024.0;
        let (first, second) = samples.split_at(samples.len() / 2);
        Self {
            first_half: mean(first),
            second_half: mean(second),
            most: samples.iter().copied().fold(0.0, f64::max) / 1024.0,
            parts: samples.chunks(samples.len().div_ceil(PARTS).max(1)).map(mean).collect(),
            judged: samples.len() >= TOO_SHORT,
        }
    }

    fn growth(&self) -> f64 {
        self.second_half - self.first_half
    }
}

/// What [`Verdict::missed`] goes by.
pub(crate) fn bars() -> String {
    format!(
        "p99 below {LATENCY_BAR:?}, errors below {} %, memory of the second half at most {GROWTH_BAR} MiB \
         above the first's",
        ERRORS_BAR * 100.0,
    )
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { first_half, second_half, most, .. } = &self.memory;
        write!(
            f,
            "{}/s: {} requests, {} errors ({:.4} %); p50 {:.1?} p90 {:.1?} p99 {:.1?} p99.9 {:.1?} most \
             {:.1?}\n    {:.3} CPU, {:.0?} for each request; memory {first_half:.1} MiB, then \
             {second_half:.1}, at most {most:.1}",
            self.rate,
            self.sent,
            self.errors.values().sum::<usize>(),
            self.failed() * 100.0,
            self.part(0.5),
            self.part(0.9),
            self.part(0.99),
            self.part(0.999),
            self.part(1.0),
            self.busy,
            self.each,
        )?;
        if let Some(throttled) = &self.throttled {
            write!(f, "; {throttled}")?;
        }
        if self.memory.judged {
            write!(f, "\n    memory in tenths of the time, MiB: {:.1?}", self.memory.parts)?;
        }
        for (error, count) in &self.errors {
            write!(f, "\n    {count} times: {error}")?;
        }
        Ok(())
    }
}
