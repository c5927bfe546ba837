//! What parts of the gateway count by themselves, read just before a scrape.
//!
//! Caches, pools and limits keep their own counts, since they need them anyway. Whoever knows these
//! parts turns the counts into [`Reading`]s; here stand the names under which they are shown.

use super::exposition::{Family, Spec, describe};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use std::sync::Arc;

/// One value of one series.
#[derive(Clone, Debug)]
pub struct Reading {
    spec: Spec,
    labels: Vec<&'static str>,
    value: u64,
}

impl Reading {
    /// This value, under labels in the order of the metric's.
    #[must_use]
    pub fn new(metric: Metric, labels: &[&'static str], value: u64) -> Self {
        Self { spec: metric.spec(), labels: labels.to_vec(), value }
    }
}

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Entries of a cache, by `kind`.
    CacheEntries,
    /// Tasks of the fleet.
    FleetTasks,
    /// Answers of URLs with keys of issuers, by `result`.
    JwksFetches,
    /// URLs with keys of issuers, by `state` of what is here of them.
    JwksUrls,
    /// Decisions of limits without their counters, by `kind`.
    LimitFallbacks,
    /// Permits that were taken ahead of need, by `result`.
    LimitPermits,
    /// Questions of limits to Redis, by `kind`.
    LimitQuestions,
    /// Whether limits go without their counters.
    LimitsDegraded,
    /// Look-ups that left the first cache, by `result`.
    Lookups,
    /// Connections of a pool, by `pool` and `state`.
    PoolConnections,
    /// Failures of a pool, by `pool` and `kind`.
    PoolFailures,
    /// Questions that got no connection in time, by `pool`.
    PoolStarved,
    /// Requests that wait for a connection, by `pool`.
    PoolWaiting,
    /// Parts of Redis that are given up for the moment.
    RedisBreakersOpen,
    /// Failures of Redis, by `kind`.
    RedisFailures,
    /// Whether all of Redis answers.
    RedisUp,
    /// Requests whose usage found no room.
    UsageLost,
}

const COUNTER: MetricType = MetricType::COUNTER;
const GAUGE: MetricType = MetricType::GAUGE;

/// Name, help, labels and type of each.
const SPECS: [(Metric, Spec); 17] = [
    (
        Metric::CacheEntries,
        ("gateway_cache_entries", "Entries of the caches in process.", &["kind"], GAUGE),
    ),
    (
        Metric::FleetTasks,
        ("gateway_fleet_tasks", "Tasks that a share of a limit is divided by.", &[], GAUGE),
    ),
    (
        Metric::JwksFetches,
        (
            "gateway_jwks_fetches_total",
            "Questions to URLs for the keys of issuers.",
            &["result"],
            COUNTER,
        ),
    ),
    (
        Metric::JwksUrls,
        (
            "gateway_jwks_urls",
            "URLs with keys of issuers: last answered, failing with older keys, or without keys.",
            &["state"],
            GAUGE,
        ),
    ),
    (
        Metric::LimitFallbacks,
        (
            "gateway_limit_fallbacks_total",
            "Decisions of limits whose counters could not be reached.",
            &["kind"],
            COUNTER,
        ),
    ),
    (
        Metric::LimitPermits,
        (
            "gateway_limit_permits_total",
            "Permits that were taken ahead of need, and those of them that ended unused.",
            &["result"],
            COUNTER,
        ),
    ),
    (
        Metric::LimitQuestions,
        (
            "gateway_limit_questions_total",
            "Questions of limits: answered by Redis, or by what it had said before.",
            &["kind"],
            COUNTER,
        ),
    ),
    (
        Metric::LimitsDegraded,
        ("gateway_limits_degraded", "Whether some limits go without their counters.", &[], GAUGE),
    ),
    (
        Metric::Lookups,
        (
            "gateway_lookups_total",
            "Look-ups of keys and consumers that the cache in process could not answer alone.",
            &["result"],
            COUNTER,
        ),
    ),
    (
        Metric::PoolConnections,
        ("gateway_pool_connections", "Connections to PostgreSQL.", &["pool", "state"], GAUGE),
    ),
    (
        Metric::PoolFailures,
        (
            "gateway_pool_failures_total",
            "Questions to PostgreSQL that failed.",
            &["pool", "kind"],
            COUNTER,
        ),
    ),
    (
        Metric::PoolStarved,
        (
            "gateway_pool_starved_total",
            "Questions that got no connection to PostgreSQL in time.",
            &["pool"],
            COUNTER,
        ),
    ),
    (
        Metric::PoolWaiting,
        (
            "gateway_pool_waiting",
            "Questions that wait for a connection to PostgreSQL.",
            &["pool"],
            GAUGE,
        ),
    ),
    (
        Metric::RedisBreakersOpen,
        (
            "gateway_redis_breakers_open",
            "Masters of Redis that are given up for the moment.",
            &[],
            GAUGE,
        ),
    ),
    (
        Metric::RedisFailures,
        ("gateway_redis_failures_total", "Questions to Redis that failed.", &["kind"], COUNTER),
    ),
    (Metric::RedisUp, ("gateway_redis_up", "Whether all of Redis answers.", &[], GAUGE)),
    (
        Metric::UsageLost,
        (
            "gateway_usage_lost_total",
            "Requests whose usage could not be kept until it was stored.",
            &[],
            COUNTER,
        ),
    ),
];

impl Metric {
    #[expect(clippy::indexing_slicing, reason = "the table has each, in the order of the type")]
    const fn spec(self) -> Spec {
        SPECS[self as usize].1
    }
}

/// The readings of the moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Readings(Arc<Mutex<Vec<Reading>>>);

impl Readings {
    pub(super) fn set(&self, readings: Vec<Reading>) {
        *self.0.lock() = readings;
    }

    pub(super) fn collector(&self) -> impl Collector + 'static {
        let descriptions = SPECS.map(|(_, spec)| describe(spec)).into();
        ReadingsCollector { readings: self.clone(), descriptions }
    }
}

struct ReadingsCollector {
    readings: Readings,
    descriptions: Vec<Desc>,
}

impl Collector for ReadingsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let readings = self.readings.0.lock();
        let mut families = Vec::new();
        for (_, spec) in SPECS {
            let mut family = Family::new(spec);
            for reading in readings.iter().filter(|reading| reading.spec.0 == spec.0) {
                family.number(&reading.labels, reading.value);
            }
            families.push(family.into_proto());
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn each_metric_has_its_own_words() {
        for (place, (metric, _)) in SPECS.into_iter().enumerate() {
            assert_eq!(metric as usize, place, "{metric:?}");
        }
    }

    #[test]
    fn readings_are_shown_under_their_names_until_the_next_ones() {
        let metrics = Metrics::new();
        assert!(!metrics.render().contains("gateway_redis_up"));
        metrics.set_readings(vec![
            Reading::new(Metric::RedisUp, &[], 1),
            Reading::new(Metric::PoolConnections, &["primary", "idle"], 3),
            Reading::new(Metric::PoolConnections, &["replica", "idle"], 4),
        ]);
        let text = metrics.render();
        for line in [
            "gateway_redis_up 1",
            r#"gateway_pool_connections{pool="primary",state="idle"} 3"#,
            r#"gateway_pool_connections{pool="replica",state="idle"} 4"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in:\n{text}");
        }
        metrics.set_readings(Vec::new());
        assert!(!metrics.render().contains("gateway_redis_up"));
    }
}
