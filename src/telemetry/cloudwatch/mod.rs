//! What goes to Amazon CloudWatch: the catalogue of metrics, and what each interval says of them.
//!
//! Every series costs money each month, so there are at most 35, whatever the configuration: names of
//! upstreams are the only words from outside, and of those at most six are taken. The number of tasks
//! adds none: CloudWatch sums over tasks, which have no dimension.
//!
//! ```text
//! metrics ──totals──▶ Tally ──close──▶ Interval: datums ──calls──▶ what one call may carry
//! vitals ──sample──▶    └ each second, for what is highest
//! ```
//!
//! Must stay true: pure; no dimension comes from a request; a counter is told also when it is zero, so
//! that an alarm that divides has data.

mod interval;
mod tally;

pub use interval::{Datum, Interval, MOST_DATUMS, MOST_VALUES, Values, calls};
pub use tally::{Observed, PoolUse, Tally};

/// Upstreams with series of their own.
pub const MOST_UPSTREAMS: usize = 6;
/// The upstream that all others are counted as.
pub const OTHER: &str = "other";

/// CloudWatch's unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// How many.
    Count,
    /// Milliseconds.
    Milliseconds,
    /// Of a hundred.
    Percent,
    /// Without a unit: 0 or 1.
    None,
}

impl Unit {
    /// CloudWatch's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Milliseconds => "Milliseconds",
            Self::Percent => "Percent",
            Self::None => "None",
        }
    }
}

/// The dimension that a metric has beside `Service` and `Environment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Third {
    /// Connections to which server.
    Pool,
    /// What was asked.
    Store,
    /// Names of the configuration: [`MOST_UPSTREAMS`] and [`OTHER`].
    Upstream,
}

impl Third {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pool => "Pool",
            Self::Store => "Store",
            Self::Upstream => "Upstream",
        }
    }

    /// Its values, where they do not come from the configuration.
    #[must_use]
    pub const fn values(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Pool => Some(["primary", "replica"]),
            Self::Store => Some(["postgres", "redis"]),
            Self::Upstream => None,
        }
    }

    /// How many values there can be.
    #[must_use]
    pub const fn most(self) -> usize {
        match self {
            Self::Pool | Self::Store => 2,
            Self::Upstream => MOST_UPSTREAMS + 1,
        }
    }
}

/// A metric of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Requests that were answered.
    RequestCount,
    /// Those of them with 4xx.
    ClientErrors,
    /// Those of them with 5xx.
    ServerErrors,
    /// Requests that an enforced limit refused.
    RateLimitHits,
    /// Requests that were refused for their credentials.
    AuthFailures,
    /// From head to end.
    RequestLatency,
    /// Open connections of clients.
    ActiveConnections,
    /// The highest share of connections to PostgreSQL in use.
    PoolUtilization,
    /// Questions that got no connection in time.
    PoolTimeouts,
    /// Questions that failed.
    StoreFailures,
    /// Whether limits went without their counters.
    LimiterDegraded,
    /// From a revocation's commit to its effect.
    RevocationDelay,
    /// What of the configuration is refused now.
    ConfigurationRefused,
    /// Tries of an upstream.
    UpstreamRequests,
    /// Those of them that failed, or were answered with 5xx.
    UpstreamErrors,
    /// Endpoints that get no requests now.
    EndpointsDown,
    /// Lines of the access log and usage that found no room.
    RecordsLost,
    /// Promotions of the store.
    StoreEpochs,
    /// One for each task and interval.
    Heartbeat,
    /// Earlier intervals that were not published in time.
    PublishFailures,
}

/// Name, unit and third dimension of each, in the order of the type.
const CATALOGUE: [(Metric, &str, Unit, Option<Third>); 20] = [
    (Metric::RequestCount, "RequestCount", Unit::Count, None),
    (Metric::ClientErrors, "ClientErrors", Unit::Count, None),
    (Metric::ServerErrors, "ServerErrors", Unit::Count, None),
    (Metric::RateLimitHits, "RateLimitHits", Unit::Count, None),
    (Metric::AuthFailures, "AuthFailures", Unit::Count, None),
    (Metric::RequestLatency, "RequestLatency", Unit::Milliseconds, None),
    (Metric::ActiveConnections, "ActiveConnections", Unit::Count, None),
    (Metric::PoolUtilization, "PoolUtilization", Unit::Percent, Some(Third::Pool)),
    (Metric::PoolTimeouts, "PoolTimeouts", Unit::Count, Some(Third::Pool)),
    (Metric::StoreFailures, "StoreFailures", Unit::Count, Some(Third::Store)),
    (Metric::LimiterDegraded, "LimiterDegraded", Unit::None, None),
    (Metric::RevocationDelay, "RevocationDelay", Unit::Milliseconds, None),
    (Metric::ConfigurationRefused, "ConfigurationRefused", Unit::Count, None),
    (Metric::UpstreamRequests, "UpstreamRequests", Unit::Count, Some(Third::Upstream)),
    (Metric::UpstreamErrors, "UpstreamErrors", Unit::Count, Some(Third::Upstream)),
    (Metric::EndpointsDown, "EndpointsDown", Unit::Count, None),
    (Metric::RecordsLost, "RecordsLost", Unit::Count, None),
    (Metric::StoreEpochs, "StoreEpochs", Unit::Count, None),
    (Metric::Heartbeat, "Heartbeat", Unit::Count, None),
    (Metric::PublishFailures, "PublishFailures", Unit::Count, None),
];

impl Metric {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        CATALOGUE.into_iter().map(|(metric, ..)| metric)
    }

    #[expect(clippy::indexing_slicing, reason = "the table has each, in the order of the type")]
    const fn line(self) -> (Self, &'static str, Unit, Option<Third>) {
        CATALOGUE[self as usize]
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.line().1
    }

    /// Its unit.
    #[must_use]
    pub const fn unit(self) -> Unit {
        self.line().2
    }

    /// The dimension that it has beside `Service` and `Environment`.
    #[must_use]
    pub const fn third(self) -> Option<Third> {
        self.line().3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_its_own_line_and_all_together_have_35_series() {
        for (place, metric) in Metric::all().enumerate() {
            assert_eq!(metric as usize, place, "{metric:?}");
            assert_eq!(metric.name(), format!("{metric:?}"));
        }
        let series: usize = Metric::all().map(|it| it.third().map_or(1, Third::most)).sum();
        assert_eq!(series, 35);
    }
}
