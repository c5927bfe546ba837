//! From counts since the start to what one interval says.

use super::{Datum, Interval, MOST_UPSTREAMS, Metric, OTHER};
use crate::telemetry::metrics::{Followed, Metrics, Totals, between};
use std::sync::Arc;
use std::time::Duration;

/// What parts of the gateway know of themselves at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Open connections of clients.
    pub connections: usize,
    /// Endpoints that get no requests now.
    pub endpoints_down: usize,
    /// Whether limits go without their counters.
    pub limits_degraded: bool,
    /// Requests so far whose usage found no room.
    pub usage_lost: u64,
    /// Connections to PostgreSQL, where that is the store.
    pub primary: Option<PoolUse>,
    /// Connections to its replica, where there is one.
    pub replica: Option<PoolUse>,
    /// Questions to PostgreSQL that failed so far.
    pub postgres_failures: Option<u64>,
    /// Questions to Redis that failed so far.
    pub redis_failures: Option<u64>,
}

/// How connections to one server are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Connections that there may be.
    pub most: u32,
    /// Connections in use.
    pub busy: u32,
    /// Questions that wait for one.
    pub waiting: u32,
    /// Questions so far that got none in time.
    pub starved: u64,
}

impl PoolUse {
    fn percent(self) -> f64 {
        if self.waiting > 0 {
            return 100.0;
        }
        (100.0 * f64::from(self.busy) / f64::from(self.most.max(1))).min(100.0)
    }
}

/// Says of each interval what came in it.
#[derive(Debug)]
pub struct Tally {
    upstreams: Vec<Arc<str>>,
    followed: Followed,
    before: Totals,
    seen: Observed,
    high: High,
}

/// What was highest in the interval.
#[derive(Debug, Default)]
struct High {
    degraded: bool,
    primary: f64,
    replica: f64,
}

impl Tally {
    /// Begins to count. These upstreams have series of their own, the rest are one; more than six are
    /// not taken.
    #[must_use]
    pub fn new(upstreams: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut upstreams: Vec<_> =
            upstreams.into_iter().filter(|name| **name != *OTHER).take(MOST_UPSTREAMS).collect();
        upstreams.sort();
        Self {
            upstreams,
            followed: Followed::default(),
            before: Totals::default(),
            seen: Observed::default(),
            high: High::default(),
        }
    }

    /// Looks at what may be lower again by the end of the interval.
    pub fn sample(&mut self, metrics: &Metrics, now: &Observed) {
        self.followed.look(metrics);
        self.high.degraded |= now.limits_degraded;
        let higher = |high: &mut f64, pool: Option<PoolUse>| {
            *high = high.max(pool.map_or(0.0, PoolUse::percent));
        };
        higher(&mut self.high.primary, now.primary);
        higher(&mut self.high.replica, now.replica);
    }

    /// Ends the interval that began at `began`, and begins the next.
    pub fn close(&mut self, metrics: &Metrics, now: &Observed, began: Duration) -> Interval {
        self.sample(metrics, now);
        let totals = metrics.totals();
        let mut datums = Vec::with_capacity(40);
        self.answers(&totals, &mut datums);
        self.stores(now, &mut datums);
        self.upstreams(metrics, &mut datums);
        let lost = |totals: &Totals, observed: &Observed| totals.lines_lost + observed.usage_lost;
        for (metric, before, after) in [
            (Metric::RecordsLost, lost(&self.before, &self.seen), lost(&totals, now)),
            (Metric::StoreEpochs, self.before.new_epochs, totals.new_epochs),
            (Metric::PublishFailures, self.before.unpublished, totals.unpublished),
        ] {
            datums.push(Datum::one(metric, number(after.saturating_sub(before))));
        }
        for (metric, value) in [
            (Metric::ActiveConnections, count(now.connections)),
            (Metric::EndpointsDown, count(now.endpoints_down)),
            (Metric::ConfigurationRefused, number(totals.configuration_refused)),
            (Metric::LimiterDegraded, f64::from(u8::from(self.high.degraded))),
            (Metric::Heartbeat, 1.0),
        ] {
            datums.push(Datum::one(metric, value));
        }
        (self.before, self.seen, self.high) = (totals, *now, High::default());
        Interval { began, datums }
    }

    fn answers(&self, totals: &Totals, datums: &mut Vec<Datum>) {
        let (before, now) = (&self.before.answered, &totals.answered);
        for (metric, before, after) in [
            (Metric::RequestCount, before.requests, now.requests),
            (Metric::ClientErrors, before.client_errors, now.client_errors),
            (Metric::ServerErrors, before.server_errors, now.server_errors),
            (Metric::RateLimitHits, before.limited, now.limited),
            (Metric::AuthFailures, before.denied, now.denied),
        ] {
            datums.push(Datum::one(metric, number(after.saturating_sub(before))));
        }
        for (metric, before, after) in [
            (Metric::RequestLatency, &before.latency, &now.latency),
            (Metric::RevocationDelay, &before.revocations, &now.revocations),
        ] {
            datums.extend(Datum::many(metric, &between(before, after)));
        }
    }

    fn stores(&self, now: &Observed, datums: &mut Vec<Datum>) {
        let starved = |pool: Option<PoolUse>| pool.map_or(0, |pool| pool.starved);
        for (name, pool, before, high) in [
            ("primary", now.primary, self.seen.primary, self.high.primary),
            ("replica", now.replica, self.seen.replica, self.high.replica),
        ] {
            let Some(pool) = pool else { continue };
            let timeouts = number(pool.starved.saturating_sub(starved(before)));
            datums.push(Datum::third(Metric::PoolUtilization, name.into(), high));
            datums.push(Datum::third(Metric::PoolTimeouts, name.into(), timeouts));
        }
        for (name, failures, before) in [
            ("postgres", now.postgres_failures, self.seen.postgres_failures),
            ("redis", now.redis_failures, self.seen.redis_failures),
        ] {
            let Some(failures) = failures else { continue };
            let more = number(failures.saturating_sub(before.unwrap_or(0)));
            datums.push(Datum::third(Metric::StoreFailures, name.into(), more));
        }
    }

    fn upstreams(&mut self, metrics: &Metrics, datums: &mut Vec<Datum>) {
        let told = self.followed.tell(metrics);
        let mut other = (0, 0);
        for (name, tries, wrong) in &told {
            if !self.upstreams.contains(name) {
                other = (other.0 + tries, other.1 + wrong);
            }
        }
        let named = self.upstreams.iter().map(|name| {
            let known = told.iter().find(|(told, ..)| told == name);
            (Arc::clone(name), known.map_or((0, 0), |(_, tries, wrong)| (*tries, *wrong)))
        });
        for (name, (tries, wrong)) in named.chain([(OTHER.into(), other)]) {
            datums.push(Datum::third(Metric::UpstreamRequests, Arc::clone(&name), number(tries)));
            datums.push(Datum::third(Metric::UpstreamErrors, name, number(wrong)));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "CloudWatch knows no other numbers")]
const fn number(count: u64) -> f64 {
    count as f64
}

fn count(number: usize) -> f64 {
    self::number(u64::try_from(number).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::Values;
    use super::*;
    use http::StatusCode;
    use std::collections::BTreeSet;

    fn of(interval: &Interval, metric: Metric, third: Option<&str>) -> Option<f64> {
        let mut found = interval
            .datums
            .iter()
            .filter(|datum| datum.metric == metric && datum.third.as_deref() == third);
        let one = found.next().map(|datum| match &datum.values {
            Values::One(value) => *value,
            Values::Many { counts, .. } => counts.iter().sum(),
        });
        assert!(found.next().is_none(), "{metric:?} twice");
        one
    }

    fn pools(busy: u32, waiting: u32, starved: u64) -> Observed {
        let pool = PoolUse { most: 10, busy, waiting, starved };
        Observed {
            primary: Some(pool),
            replica: Some(pool),
            postgres_failures: Some(starved),
            redis_failures: Some(0),
            ..Observed::default()
        }
    }

    #[test]
    fn an_interval_says_what_came_in_it_and_zero_where_nothing_did() {
        let (metrics, mut tally) = (Metrics::new(), Tally::new([]));
        let observed = Observed { connections: 3, ..Observed::default() };
        metrics.answered(StatusCode::OK, Some(Duration::from_millis(5)));
        metrics.answered(StatusCode::from_u16(429).unwrap(), Some(Duration::from_millis(1)));
        metrics.answered(StatusCode::from_u16(503).unwrap(), Some(Duration::from_millis(1)));
        metrics.answered(StatusCode::from_u16(431).unwrap(), None);
        metrics.limited();
        let first = tally.close(&metrics, &observed, Duration::ZERO);
        for (metric, value) in [
            (Metric::RequestCount, 4.0),
            (Metric::ClientErrors, 2.0),
            (Metric::ServerErrors, 1.0),
            (Metric::RateLimitHits, 1.0),
            (Metric::AuthFailures, 0.0),
            (Metric::RequestLatency, 3.0),
            (Metric::ActiveConnections, 3.0),
            (Metric::Heartbeat, 1.0),
        ] {
            assert_eq!(of(&first, metric, None), Some(value), "{metric:?}");
        }
        let second = tally.close(&metrics, &observed, Duration::ZERO);
        assert_eq!(of(&second, Metric::RequestCount, None), Some(0.0));
        assert_eq!(of(&second, Metric::RequestLatency, None), None);
        assert_eq!(of(&second, Metric::Heartbeat, None), Some(1.0));
        assert_eq!(of(&second, Metric::PoolUtilization, Some("primary")), None, "there is no pool");
    }

    #[test]
    fn the_highest_use_of_a_pool_is_told_once_and_waiting_is_all_of_it() {
        let (metrics, mut tally) = (Metrics::new(), Tally::new([]));
        for (busy, waiting, percent) in [(7, 0, 70.0), (2, 1, 100.0), (0, 0, 0.0)] {
            tally.sample(&metrics, &pools(busy, waiting, 0));
            let interval = tally.close(&metrics, &pools(0, 0, 0), Duration::ZERO);
            assert_eq!(of(&interval, Metric::PoolUtilization, Some("replica")), Some(percent));
        }
        let interval = tally.close(&metrics, &pools(0, 0, 4), Duration::ZERO);
        assert_eq!(of(&interval, Metric::PoolTimeouts, Some("primary")), Some(4.0));
        assert_eq!(of(&interval, Metric::StoreFailures, Some("postgres")), Some(4.0));
        assert_eq!(of(&interval, Metric::StoreFailures, Some("redis")), Some(0.0));
    }

    #[test]
    fn upstreams_beyond_the_named_ones_are_counted_together() {
        let metrics = Metrics::new();
        let names: Vec<Arc<str>> = (0..10).map(|n| format!("u{n}").into()).collect();
        let mut tally = Tally::new(names.clone());
        for name in &names {
            let upstream = metrics.upstream(name);
            upstream.tried();
            upstream.went_wrong();
            tally.sample(&metrics, &Observed::default());
        }
        let interval = tally.close(&metrics, &pools(0, 0, 0), Duration::ZERO);
        assert_eq!(of(&interval, Metric::UpstreamRequests, Some("u5")), Some(1.0));
        assert_eq!(of(&interval, Metric::UpstreamErrors, Some(OTHER)), Some(4.0));
    }

    #[test]
    fn all_that_can_be_said_is_35_series() {
        let metrics = Metrics::new();
        let mut tally = Tally::new((0..10).map(|n| format!("u{n}").into()));
        metrics.answered(StatusCode::OK, Some(Duration::from_millis(5)));
        metrics.revocation(Duration::from_millis(5));
        let interval = tally.close(&metrics, &pools(1, 0, 0), Duration::ZERO);
        let series: BTreeSet<_> =
            interval.datums.iter().map(|datum| (datum.metric, datum.third.clone())).collect();
        assert_eq!((series.len(), interval.datums.len()), (35, 35));
    }
}
