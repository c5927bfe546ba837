//! The arithmetic of a rate: the generic cell rate algorithm of ITU-T I.371 (its "virtual
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
//! at most 2^79. A share of a rate divides it by up to 2^12 tasks, and then a permit costs so many
//! times more: a debt is at most 2^91, and what is left of it after whole permits, times what a
//! permit costs, below 2^118.

use super::rule::{Period, Rate};
use crate::telemetry::Moment;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

/// A rate with its burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meter {
    permits: NonZeroU32,
    burst: NonZeroU32,
    /// The rate is divided by so many.
    tasks: NonZeroU16,
    per: Period,
}

/// More tasks than any fleet has; so many at most share a rate.
const MOST_TASKS: u16 = 4096;

impl Meter {
    pub(super) const fn new(rate: Rate, burst: NonZeroU32) -> Self {
        Self { permits: rate.permits, burst, tasks: NonZeroU16::MIN, per: rate.per }
    }

    /// What each of `tasks` may let through when they cannot count together: at least one request that
    /// takes `cost`.
    pub(super) fn share(self, tasks: u32, cost: NonZeroU32) -> Self {
        let tasks = u16::try_from(tasks).unwrap_or(MOST_TASKS).min(MOST_TASKS);
        let tasks = NonZeroU16::new(tasks).unwrap_or(NonZeroU16::MIN);
        let burst = self.burst.get() / u32::from(tasks.get());
        Self {
            tasks,
            burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN).max(cost.min(self.burst)),
            ..self
        }
    }

    /// The whole rate, for the fleet.
    pub(super) const fn rate(self) -> Rate {
        Rate { permits: self.permits, per: self.per }
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
        self.per.span().as_nanos() * u128::from(self.tasks.get())
    }

    /// The whole burst, in ticks.
    fn full(self) -> u128 {
        u128::from(self.burst.get()) * self.cost()
    }

    /// What a request takes, in ticks: never more than the whole burst.
    fn price(self, permits: NonZeroU32) -> u128 {
        u128::from(permits.min(self.burst).get()) * self.cost()
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
        let (old, new) = (self.meter.cost(), meter.cost());
        let debt =
            if old == new { debt } else { debt / old * new + (debt % old * new).div_ceil(old) };
        self.tat = meter.ticks(now) + debt.min(meter.full());
        self.meter = meter;
    }

    /// Takes so many permits, all or none; of a smaller burst, all of it.
    ///
    /// # Errors
    /// Fewer are left; they will be there after the returned time, and not a nanosecond sooner.
    pub(super) fn take(&mut self, permits: NonZeroU32, now: Moment) -> Result<Standing, Duration> {
        let debt = self.debt(now);
        let price = self.meter.price(permits);
        // The largest debt that leaves room for them.
        let room = self.meter.full() - price;
        if debt > room {
            return Err(self.meter.span(debt - room));
        }
        let debt = debt + price;
        self.tat = self.meter.ticks(now) + debt;
        Ok(Standing { debt, meter: self.meter })
    }

    /// Puts back permits that were taken at `then` and not used.
    ///
    /// What may have been regained of them since is kept: others may have used that already.
    pub(super) fn give_back(
        &mut self,
        permits: NonZeroU32,
        meter: Meter,
        then: Moment,
        now: Moment,
    ) {
        if self.meter == meter {
            let regained = self.meter.ticks(now).saturating_sub(self.meter.ticks(then));
            let price = self.meter.price(permits).saturating_sub(regained);
            self.tat = self.tat.saturating_sub(price);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const ONE: NonZeroU32 = NonZeroU32::MIN;
    const PERIODS: [Period; 4] = [Period::Second, Period::Minute, Period::Hour, Period::Day];
    /// Far enough from zero that an idle counter is in the past.
    const START: u64 = 1 << 50;

    fn meter(permits: u32, per: Period, burst: u32) -> Meter {
        let count = |n| NonZeroU32::new(n).unwrap();
        Meter::new(Rate { permits: count(permits), per }, count(burst))
    }

    fn any_meter(permits: u32, burst: u32) -> impl Strategy<Value = Meter> {
        (1..=permits, 0..PERIODS.len(), 1..=burst)
            .prop_map(|(permits, per, burst)| meter(permits, PERIODS[per], burst))
    }

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(START + nanos)
    }

    #[test]
    fn a_burst_is_let_through_at_once_and_then_one_for_each_interval() {
        /// Permits, period, burst, and (arrival, how long it must wait) in nanoseconds.
        type Row<'a> = (u32, Period, u32, &'a [(u64, Option<u64>)]);
        let half = SECOND / 2;
        let table: [Row<'_>; 5] = [
            (
                1,
                Period::Second,
                1,
                &[(0, None), (0, Some(SECOND)), (SECOND - 1, Some(1)), (SECOND, None)],
            ),
            (
                2,
                Period::Minute,
                2,
                &[
                    (0, None),
                    (0, None),
                    (0, Some(30 * SECOND)),
                    (30 * SECOND, None),
                    (31 * SECOND, Some(29 * SECOND)),
                ],
            ),
            // A third of a second is no whole number of nanoseconds, yet three of them are a second.
            (
                3,
                Period::Second,
                2,
                &[
                    (0, None),
                    (0, None),
                    (0, Some(333_333_334)),
                    (333_333_333, Some(1)),
                    (333_333_334, None),
                    (666_666_666, Some(1)),
                    (666_666_667, None),
                    (SECOND - 1, Some(1)),
                    (SECOND, None),
                ],
            ),
            // More permits than nanoseconds.
            (u32::MAX, Period::Second, 1, &[(0, None), (0, Some(1)), (1, None)]),
            // Time that was not used is worth one burst, whatever its length.
            (
                2,
                Period::Second,
                2,
                &[
                    (0, None),
                    (900 * SECOND, None),
                    (900 * SECOND, None),
                    (900 * SECOND, Some(half)),
                ],
            ),
        ];
        for (permits, per, burst, arrivals) in table {
            let mut counter = Counter::idle(meter(permits, per, burst));
            for (n, (arrival, wait)) in arrivals.iter().enumerate() {
                let waited = counter.take(ONE, at(*arrival)).err();
                let expected = wait.map(Duration::from_nanos);
                assert_eq!(waited, expected, "{permits}/{per:?} burst {burst}: arrival {n}");
            }
        }
    }

    #[test]
    fn the_rate_is_exact_over_a_long_time() {
        const BURST: u64 = 10;
        for permits in [3_u32, 7, 999_999_937, u32::MAX] {
            let mut counter = Counter::idle(meter(permits, Period::Second, BURST as u32));
            let mut now = at(0);
            for n in 0..1_000_000_u64 {
                if let Err(wait) = counter.take(ONE, now) {
                    now = now + wait;
                    counter.take(ONE, now).unwrap();
                }
                let due = u128::from(n.saturating_sub(BURST - 1)) * u128::from(SECOND);
                let due = due.div_ceil(u128::from(permits));
                assert_eq!(u128::from(now.as_nanos() - START), due, "{permits}/s, permit {n}");
            }
        }
    }

    #[test]
    fn the_largest_numbers_are_still_exact() {
        let end = Moment::from_nanos(u64::MAX);
        for per in PERIODS {
            let largest = meter(u32::MAX, per, u32::MAX);
            let slowest = meter(1, per, u32::MAX);
            for meter in [largest, slowest] {
                let mut counter = Counter::idle(meter);
                assert_eq!(counter.take(ONE, end).unwrap().remaining(), u32::MAX - 1);
                counter.tat = meter.ticks(end) + meter.full();
                assert_eq!(counter.take(ONE, end), Err(meter.span(meter.cost())));
                // A clock that went back by centuries makes it strict, not wrong.
                assert!(counter.take(ONE, Moment::default()).is_err());
                for other in [largest, slowest] {
                    let mut counter = counter;
                    counter.adopt(other, end);
                    assert!(counter.take(ONE, end).is_err());
                    counter.adopt(meter, Moment::default());
                    assert!(counter.take(ONE, Moment::default()).is_err());
                }
            }
        }
        assert_eq!(
            meter(1, Period::Day, u32::MAX).window().as_secs(),
            u64::from(u32::MAX) * 86_400
        );
    }

    #[test]
    fn a_changed_rule_keeps_what_is_in_use() {
        use Period::{Hour, Minute, Second};
        let table = [
            // Old rule, taken, new rule, left at once.
            (meter(10, Minute, 10), 4, meter(10, Minute, 20), 16),
            (meter(10, Minute, 10), 4, meter(20, Minute, 10), 6),
            (meter(10, Minute, 10), 4, meter(1000, Second, 10), 6),
            (meter(1000, Second, 1000), 1000, meter(1000, Hour, 1500), 500),
            (meter(7, Minute, 7), 7, meter(3, Hour, 8), 1),
            // A smaller burst is at most used up.
            (meter(100, Minute, 100), 90, meter(100, Minute, 10), 0),
            (meter(100, Minute, 100), 0, meter(100, Minute, 10), 10),
        ];
        for (old, taken, new, left) in table {
            let mut counter = Counter::idle(old);
            (0..taken).for_each(|_| assert!(counter.take(ONE, at(0)).is_ok()));
            counter.adopt(new, at(0));
            let mut admitted = 0;
            let wait = loop {
                match counter.take(ONE, at(0)) {
                    Ok(_) => admitted += 1,
                    Err(wait) => break wait,
                }
            };
            assert_eq!(admitted, left, "{old:?}, {taken} taken, then {new:?}");
            assert!(wait <= new.span(new.cost()), "{old:?} then {new:?}: {wait:?}");
        }
    }

    /// Arrivals whose gaps are around a permit's interval, with rests between.
    fn arrivals(meter: Meter) -> impl Strategy<Value = Vec<u64>> {
        let interval = u64::try_from(meter.span(meter.cost()).as_nanos()).unwrap();
        let gap = prop_oneof![
            4 => Just(0),
            4 => 0..=interval,
            4 => 0..=interval / 4 + 1,
            1 => 0..=interval.saturating_mul(u64::from(meter.burst.get()) + 2),
        ];
        prop::collection::vec(gap, 1..200).prop_map(|gaps| {
            let mut now = 0_u64;
            gaps.into_iter()
                .map(|gap| {
                    now += gap;
                    now
                })
                .collect()
        })
    }

    fn traffic() -> impl Strategy<Value = (Meter, Vec<u64>)> {
        prop_oneof![any_meter(50, 10), any_meter(u32::MAX, 10)]
            .prop_flat_map(|meter| arrivals(meter).prop_map(move |arrivals| (meter, arrivals)))
    }

    proptest! {
        #[test]
        fn no_window_admits_more_than_burst_and_rate_allow((meter, arrivals) in traffic()) {
            let mut counter = Counter::idle(meter);
            let admitted: Vec<_> =
                arrivals.into_iter().filter(|now| counter.take(ONE, at(*now)).is_ok()).collect();
            for (i, first) in admitted.iter().enumerate() {
                for (j, last) in admitted.iter().enumerate().skip(i) {
                    // n ≤ burst + (last - first) × permits ÷ period
                    let beyond = (j - i + 1).saturating_sub(meter.burst.get() as usize) as u128;
                    let window = u128::from(last - first);
                    prop_assert!(beyond * meter.cost() <= window * meter.permit_count());
                }
            }
        }

        #[test]
        fn who_keeps_asking_gets_what_burst_and_rate_allow((meter, arrivals) in traffic()) {
            let mut counter = Counter::idle(meter);
            let (mut since, mut admitted) = (0, 0_u128);
            for now in arrivals {
                if counter.is_idle(at(now)) {
                    (since, admitted) = (now, 0);
                }
                if counter.take(ONE, at(now)).is_ok() {
                    admitted += 1;
                } else {
                    // admitted > burst - 1 + (now - since) × permits ÷ period
                    let regained = u128::from(now - since) * meter.permit_count();
                    prop_assert!(admitted * meter.cost() > meter.full() - meter.cost() + regained);
                }
            }
        }

        #[test]
        fn a_wait_is_exact_to_the_nanosecond((meter, arrivals) in traffic()) {
            let mut counter = Counter::idle(meter);
            for now in arrivals {
                if let Err(wait) = counter.take(ONE, at(now)) {
                    let then = at(now) + wait;
                    prop_assert!(wait >= Duration::from_nanos(1));
                    let early = counter.clone().take(ONE, then - Duration::from_nanos(1));
                    prop_assert_eq!(early, Err(Duration::from_nanos(1)));
                    prop_assert!(counter.clone().take(ONE, then).is_ok());
                }
            }
        }

        #[test]
        fn no_window_admits_more_permits_whatever_each_request_takes(
            (meter, arrivals) in traffic(),
            costs in prop::collection::vec(1_u32..14, 200),
        ) {
            let mut counter = Counter::idle(meter);
            let mut admitted: Vec<(u64, u32)> = Vec::new();
            for (now, cost) in arrivals.into_iter().zip(costs) {
                let cost = NonZeroU32::new(cost).unwrap();
                let before = counter;
                match counter.take(cost, at(now)) {
                    Ok(_) => {
                        let mut back = counter;
                        back.give_back(cost, meter, at(now), at(now));
                        prop_assert_eq!(back.debt(at(now)), before.debt(at(now)));
                        admitted.push((now, cost.min(meter.burst).get()));
                    }
                    Err(wait) => {
                        prop_assert_eq!(counter, before, "all or none");
                        let then = at(now) + wait;
                        let early = counter.clone().take(cost, then - Duration::from_nanos(1));
                        prop_assert_eq!(early, Err(Duration::from_nanos(1)));
                        prop_assert!(counter.clone().take(cost, then).is_ok());
                    }
                }
            }
            for (i, (first, _)) in admitted.iter().enumerate() {
                let mut permits = 0_u32;
                for (last, cost) in &admitted[i..] {
                    permits += cost;
                    let beyond = u128::from(permits.saturating_sub(meter.burst.get()));
                    let window = u128::from(last - first);
                    prop_assert!(beyond * meter.cost() <= window * meter.permit_count());
                }
            }
        }

        #[test]
        fn what_is_told_to_remain_does_and_no_more((meter, arrivals) in traffic()) {
            let mut counter = Counter::idle(meter);
            for now in arrivals {
                let Ok(standing) = counter.take(ONE, at(now)) else { continue };
                let takes = |now: Moment| {
                    let mut counter = counter;
                    std::iter::from_fn(|| counter.take(ONE, now).ok()).count()
                };
                let (remaining, next) = (standing.remaining() as usize, at(now) + standing.next());
                prop_assert_eq!(takes(at(now)), remaining);
                prop_assert_eq!(takes(next - Duration::from_nanos(1)), remaining);
                prop_assert!(takes(next) > remaining);
            }
        }

        #[test]
        fn a_change_never_gives_more_than_a_newcomer_has(
            old in any_meter(100, 20),
            new in any_meter(100, 20),
            taken in 0_u32..20,
            rest in 0..SECOND,
        ) {
            let mut counter = Counter::idle(old);
            let _refused = (0..taken).filter(|_| counter.take(ONE, at(0)).is_err()).count();
            counter.adopt(new, at(rest));
            prop_assert!(counter.debt(at(rest)) <= new.full());
            let again = { let mut twice = counter; twice.adopt(new, at(rest)); twice };
            prop_assert_eq!(counter, again);
        }
    }
}
