//! The arithmetic of a rate: the generic cell rate algorithm of ITU-T I.371 (annex A, the "virtual
//! scheduling algorithm"), in whole numbers only.
//!
//! A counter remembers one instant, the theoretical arrival time: when everything taken so far is
//! regained. What lies ahead of now is the debt; a permit adds to it, time pays it off, and a
//! request is let through while the debt leaves room for one more permit within the burst.
//!
//! A permit's interval is seldom a whole number of nanoseconds (1 s ÷ 3), so each rate counts in
//! *ticks* of its own: one nanosecond has as many ticks as the rate has permits per period. Then a
//! permit costs the period's nanoseconds, in ticks, exactly, and nothing is ever rounded except
//! instants that are told to someone, which are rounded up.
//!
//! Must stay true: no sum or product here can overflow `u128`. A moment is below 2^64 ns, permits
//! and burst are below 2^32, a period is below 2^47 ns; so an instant is below 2^96 ticks, a debt
//! at most 2^79, and a debt times a period below 2^126.

use super::rule::{Period, Rate, Rule};
use crate::telemetry::Moment;
use std::num::NonZeroU32;
use std::time::Duration;

/// A rate with its burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meter {
    permits: NonZeroU32,
    burst: NonZeroU32,
    per: Period,
}

impl Meter {
    pub(super) const fn new(rate: Rate, burst: NonZeroU32) -> Self {
        Self { permits: rate.permits, burst, per: rate.per }
    }

    pub(super) const fn of(rule: &Rule) -> Self {
        Self::new(rule.rate, rule.burst)
    }

    pub(super) const fn burst(self) -> NonZeroU32 {
        self.burst
    }

    /// How long a spent burst takes to come back whole, in seconds, rounded up.
    pub(super) fn window(self) -> Duration {
        self.span(self.full())
    }

    /// One permit, in ticks.
    fn cost(self) -> u128 {
        self.per.span().as_nanos()
    }

    /// The whole burst, in ticks.
    fn full(self) -> u128 {
        u128::from(self.burst.get()) * self.cost()
    }

    /// The largest debt that leaves room for one more permit.
    fn room(self) -> u128 {
        self.full() - self.cost()
    }

    fn ticks(self, moment: Moment) -> u128 {
        u128::from(moment.as_nanos()) * u128::from(self.permits.get())
    }

    /// Ticks as time, up to the next whole nanosecond.
    fn span(self, ticks: u128) -> Duration {
        Duration::from_nanos_u128(divide(ticks + self.permit_count() - 1, self.permit_count()))
    }

    fn permit_count(self) -> u128 {
        u128::from(self.permits.get())
    }
}

/// What one subject has taken under one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counter {
    /// The theoretical arrival time, in ticks of `meter`.
    tat: u128,
    meter: Meter,
}

impl Counter {
    /// Nothing taken.
    pub(super) const fn idle(meter: Meter) -> Self {
        Self { tat: 0, meter }
    }

    /// Whether all that was taken has been regained: such a counter equals one that was never used.
    pub(super) fn is_idle(&self, now: Moment) -> bool {
        self.tat <= self.meter.ticks(now)
    }

    /// Goes on under `meter`, which may be another one after a reload.
    ///
    /// Permits that are used and not yet regained stay used, and are regained at the new rate; a
    /// burst that became smaller is at most used up. So a raised limit helps at once, and a
    /// changed one never admits more than it would to a newcomer.
    pub(super) fn adopt(&mut self, meter: Meter, now: Moment) {
        if self.meter == meter {
            return;
        }
        let debt = self.debt(now).min(self.meter.full());
        let debt = if self.meter.per == meter.per {
            debt
        } else {
            (debt * meter.cost()).div_ceil(self.meter.cost())
        };
        self.tat = meter.ticks(now) + debt.min(meter.full());
        self.meter = meter;
    }

    /// Takes one permit.
    ///
    /// # Errors
    /// None is left; one will be after the returned time, and not a nanosecond sooner.
    pub(super) fn take(&mut self, now: Moment) -> Result<Standing, Duration> {
        let debt = self.debt(now);
        let room = self.meter.room();
        if debt > room {
            return Err(self.meter.span(debt - room));
        }
        let debt = debt + self.meter.cost();
        self.tat = self.meter.ticks(now) + debt;
        Ok(Standing { debt, meter: self.meter })
    }

    fn debt(&self, now: Moment) -> u128 {
        self.tat.saturating_sub(self.meter.ticks(now))
    }
}

/// Where a counter stands after a permit was taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    debt: u128,
    meter: Meter,
}

impl Standing {
    /// How many more requests would be let through at the same instant.
    pub(super) fn remaining(self) -> u32 {
        let left = divide(self.meter.full() - self.debt, self.meter.cost());
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// How long until there is one more than [`Standing::remaining`].
    pub(super) fn next(self) -> Duration {
        let kept = (u128::from(self.remaining()) + 1) * self.meter.cost();
        self.meter.span((self.debt + kept).saturating_sub(self.meter.full()))
    }
}

/// Most sums fit into 64 bits, where dividing is several times cheaper.
fn divide(dividend: u128, divisor: u128) -> u128 {
    match (u64::try_from(dividend), u64::try_from(divisor)) {
        (Ok(dividend), Ok(divisor)) => u128::from(dividend / divisor),
        _ => dividend / divisor,
    }
}
