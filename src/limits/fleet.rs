//! The port for counters that a fleet shares, and the arithmetic that fits into a script of theirs.
//!
//! A script counts in doubles, which are exact below 2^53. So a counter there is a moment and a debt
//! in ticks: a permit costs as many ticks as the period has units, each unit regains as many as the
//! rate has permits, both divided by what they have in common, and the unit is the finest of µs, ms
//! and s for which a whole burst stays below 2^53.
//!
//! Must stay true: a question names one subject, so that its counters are in one place, and is
//! answered as one step; it is answered or given up within the time it was given.

use super::gcra::Meter;
use async_trait::async_trait;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Where whole numbers stop being exact in a double.
const EXACT: u128 = 1 << 53;

/// Work beside requests.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A rate as a script counts it. See the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// What a permit costs, in ticks.
    pub cost: u64,
    /// What a unit of time regains, in ticks.
    pub regain: u64,
    /// The whole burst, in ticks.
    pub full: u64,
    /// The unit of time.
    pub unit: Duration,
}

impl Flow {
    pub(super) fn of(meter: Meter) -> Self {
        let rate = meter.rate();
        let (permits, burst) = (u64::from(rate.permits.get()), u128::from(meter.burst().get()));
        let seconds = rate.per.span().as_secs();
        let (units, unit) = [(1_000_000, 1), (1_000, 1_000)]
            .map(|(units, unit)| (seconds * units, Duration::from_micros(unit)))
            .into_iter()
            .find(|(units, _)| u128::from(units / common(*units, permits)) * burst < EXACT)
            .unwrap_or((seconds, Duration::from_secs(1)));
        let shared = common(units, permits);
        let cost = units / shared;
        let full = u64::try_from(u128::from(cost) * burst).unwrap_or(u64::MAX);
        Self { cost, regain: permits / shared, full, unit }
    }
}

/// The greatest number that divides both.
const fn common(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What a counter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// A rate.
    Flow(Flow),
    /// A calendar period.
    Quota {
        /// What may be used in it.
        permits: u64,
        /// When it began, in seconds since 1970.
        period: u64,
        /// When it ends, seen from now.
        ends_in: Duration,
        /// What is known to be used: a counter that says less is raised to it, and one that is not
        /// there begins with it. Without, such a one is [`Answer::Missing`].
        known: Option<u64>,
    },
}

/// What is asked of one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The rule's id.
    pub rule: Arc<str>,
    /// The counter.
    pub account: Account,
    /// As many permits as there are, up to this; of a quota, less than zero gives back.
    pub want: i64,
    /// With fewer than this the rule refuses.
    pub least: i64,
    /// It keeps no other counter of the question from giving.
    pub shadow: bool,
}

/// What one counter said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Permits; zero when fewer than the least are left. All are void unless the answer is
    /// [`Answer::Charged`].
    pub granted: i64,
    /// Permits that are left.
    pub remaining: u64,
    /// How long until there is one more than that; after a refusal, until there are the least.
    pub wait: Duration,
}

/// What all counters of a question said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All that do not only watch gave, and were charged.
    Charged(Vec<Taken>),
    /// A quota has no counter yet; nothing was charged.
    Missing,
    /// At least one that does not only watch had too little; nothing was charged.
    Refused(Vec<Taken>),
}

/// Why a question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FleetError {
    /// The connection broke, or there is none.
    #[error("the connection to the fleet's counters broke")]
    Broken,
    /// Nothing was sent: they did not answer before, and have not come back yet.
    #[error("the fleet's counters are away")]
    Open,
    /// The server answered with an error.
    #[error("the fleet's counters answered with an error")]
    Server,
    /// No answer in time.
    #[error("the fleet's counters did not answer in time")]
    Timeout,
}

/// Counters that all tasks share.
#[async_trait]
pub trait FleetCounters: Send + Sync {
    /// Whether a question about this subject would be sent at all.
    fn ready(&self, subject: u128) -> bool;

    /// Whether there are subjects for which nothing would be sent.
    fn is_degraded(&self) -> bool;

    /// How many tasks were seen of late; zero before the first look.
    fn tasks(&self) -> u32;

    /// Asks several counters of one subject, as one step.
    async fn take(
        &self,
        subject: u128,
        takes: &[Take],
        within: Duration,
    ) -> Result<Answer, FleetError>;

    /// Runs `work` beside requests.
    fn start(&self, work: Work);
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Period, Rate};
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn a_rate_is_counted_in_the_finest_unit_that_stays_exact() {
        use Period::{Day, Hour, Minute, Second};
        let (us, ms, s) =
            (Duration::from_micros(1), Duration::from_millis(1), Duration::from_secs(1));
        let table = [
            // Permits, period, burst; cost, regained for each unit, unit.
            (500, Second, 500, 2_000, 1, us),
            (3, Second, 2, 1_000_000, 3, us),
            (7, Minute, 7, 60_000_000, 7, us),
            (u32::MAX, Second, u32::MAX, 200_000, 858_993_459, us),
            (1, Day, 104_249, 86_400_000_000, 1, us),
            (1, Day, 104_250, 86_400_000, 1, ms),
            (1, Hour, u32::MAX, 3_600, 1, s),
            (1, Day, u32::MAX, 86_400, 1, s),
        ];
        for (permits, per, burst, cost, regain, unit) in table {
            let count = |n| NonZeroU32::new(n).unwrap();
            let meter = Meter::new(Rate { permits: count(permits), per }, count(burst));
            let full = cost * u64::from(burst);
            assert!(u128::from(full) < EXACT, "{permits}/{per:?} burst {burst}");
            assert_eq!(Flow::of(meter), Flow { cost, regain, full, unit }, "{permits}/{per:?}");
        }
    }
}
