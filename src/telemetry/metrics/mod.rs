//! Counts and durations of everything, for Prometheus to fetch.
//!
//! A snapshot resolves its handles ([`RouteMetrics`], [`UpstreamMetrics`], [`RuleMetrics`]) when it
//! is built, so a request touches a few atomics and looks nothing up by name. A series lives as
//! long as somebody holds its handle: routes that a reload removed disappear from the next scrape
//! but one, and the others keep counting.
//!
//! Must stay true: labels come from configuration or from closed sets in the code, never from a
//! request; the registry belongs to this value, so two gateways can live in one process.

mod exposition;
mod process;
mod route;
mod rule;
mod scalars;
mod series;
mod upstream;

pub use route::RouteMetrics;
pub use rule::RuleMetrics;
pub use upstream::UpstreamMetrics;

use exposition::Exposition;
use process::Process;
use prometheus::{IntCounter, Registry, TextEncoder};
use scalars::Scalars;
use series::Series;
use std::sync::Arc;
use std::time::Duration;

/// What [`Metrics::render`] produces, for `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    scalars: Scalars,
    series: Arc<Series>,
}

/// What others know better than a counter would; told just before a scrape.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Open client connections.
    pub connections: usize,
    /// Requests between their head and the end of their response.
    pub requests_in_flight: usize,
    /// Requests so far that a full limiter could not give a counter of their own.
    pub limiter_overflow: u64,
    /// Every endpoint of every upstream.
    pub endpoints: Vec<LiveEndpoint>,
}

/// The state of one endpoint.
#[derive(Clone, Debug)]
pub struct LiveEndpoint {
    /// Name of its upstream.
    pub upstream: Arc<str>,
    /// Its address.
    pub endpoint: String,
    /// Whether it is given requests.
    pub up: bool,
}

impl Metrics {
    /// Metrics that all stand at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let series = Arc::new(Series::default());
        let scalars = Scalars::register(&registry);
        register(&registry, Exposition::new(Arc::clone(&series)));
        register(&registry, Process::new());
        Arc::new(Self { registry, scalars, series })
    }

    /// The text exposition format, version 0.0.4.
    ///
    /// Series that nobody holds are in it for the last time.
    #[must_use]
    pub fn render(&self) -> String {
        let families = self.registry.gather();
        self.retain();
        let mut text = String::with_capacity(self.scalars.size_hint());
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            // Only a family without a name or without a metric can fail, and `gather` has none.
            log::error!(error:% = error; "metrics cannot be encoded");
        }
        self.scalars.rendered(text.len());
        text
    }

    /// Removes the series that nobody holds a handle of; [`Metrics::render`] does it as well.
    pub fn retain(&self) {
        self.series.routes.retain();
        self.series.upstreams.retain();
        self.series.rules.retain();
    }

    /// The series of one route.
    #[must_use]
    pub fn route(&self, name: &str) -> RouteMetrics {
        RouteMetrics::new(self.series.routes.series(name))
    }

    /// The series of one upstream.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics::new(self.series.upstreams.series(name))
    }

    /// The series of one rule.
    #[must_use]
    pub fn rule(&self, id: &str) -> RuleMetrics {
        RuleMetrics::new(self.series.rules.series(id))
    }

    /// A head was answered before any route was looked up.
    pub fn head_refused(&self, code: &'static str) {
        self.series.heads_refused.count(code);
    }

    /// A connection was accepted by this listener.
    pub fn connection(&self, listener: &str) {
        self.series.listeners.series(listener).count();
    }

    /// A connection was closed unheard.
    pub fn connection_refused(&self, reason: &'static str) {
        self.series.connections_refused.count(reason);
    }

    /// A TLS handshake with a client came to nothing.
    pub fn tls_failed(&self) {
        self.scalars.tls_failed.inc();
    }

    /// This revision of the configuration is in force from now on.
    pub fn reload_succeeded(&self, revision: u64) {
        self.scalars.revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.scalars.reloads_succeeded.inc();
        self.scalars.last_reload_successful.set(1);
    }

    /// A new configuration was refused, and the old one stays.
    pub fn reload_failed(&self) {
        self.scalars.reloads_failed.inc();
        self.scalars.last_reload_successful.set(0);
    }

    /// A store did not do what it was asked.
    pub fn store_failed(&self, operation: &'static str) {
        self.series.store_failures.count(operation);
    }

    /// A revocation took this long from its commit to its effect here.
    pub fn revocation(&self, delay: Duration) {
        self.scalars.revocation_delay.observe(delay.as_secs_f64());
    }

    /// What is known just before a scrape; it stands until it is told again.
    pub fn set_live(&self, live: Live) {
        *self.series.live.lock() = live;
    }

    /// Lines of the access log that had to be thrown away.
    pub(crate) fn access_log_dropped(&self) -> IntCounter {
        self.scalars.access_log_dropped.clone()
    }
}

#[expect(clippy::expect_used, reason = "names are constants, and a test builds every metric")]
fn register(registry: &Registry, collector: impl prometheus::core::Collector + 'static) {
    registry.register(Box::new(collector)).expect("constant, distinct names");
}
