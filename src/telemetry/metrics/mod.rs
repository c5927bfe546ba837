//! Counts and durations of everything, for Prometheus to fetch.
//!
//! A snapshot resolves its handles ([`RouteMetrics`], [`UpstreamMetrics`], [`RuleMetrics`]) when it
//! is built, so a request touches a few atomics and looks nothing up by name. A series lives as
//! long as somebody holds its handle: routes that a reload removed disappear from the next scrape
//! but one, and the others keep counting.
//!
//! Must stay true: labels come from configuration or from closed sets in the code, never from a
//! request; the registry belongs to this value, so two gateways can live in one process.

mod answers;
mod exposition;
mod expression;
mod filter;
mod fine;
mod process;
mod readings;
mod route;
mod rule;
mod scalars;
mod series;
mod upstream;

pub use expression::ExpressionMetrics;
pub use filter::FilterMetrics;
pub use readings::{Metric, Reading};
pub use route::RouteMetrics;
pub use rule::RuleMetrics;
pub use upstream::UpstreamMetrics;

pub(crate) use answers::Answered;
pub(crate) use fine::between;
pub(crate) use upstream::Followed;

use exposition::Exposition;
use http::StatusCode;
use process::Process;
use prometheus::{IntCounter, Registry, TextEncoder};
use readings::Readings;
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
    readings: Readings,
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

/// What is counted for CloudWatch, since the start; of the configuration, what is so now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) answered: Answered,
    pub(crate) configuration_refused: u64,
    pub(crate) lines_lost: u64,
    pub(crate) new_epochs: u64,
    pub(crate) unpublished: u64,
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
        let readings = Readings::default();
        register(&registry, readings.collector());
        Arc::new(Self { registry, scalars, series, readings })
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
        self.series.expressions.retain();
        self.series.filters.retain();
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

    /// The series of the expression that stands at this place.
    #[must_use]
    pub fn expression(&self, place: &str) -> ExpressionMetrics {
        ExpressionMetrics::new(self.series.expressions.series(place))
    }

    /// The series of one filter.
    #[must_use]
    pub fn filter(&self, name: &str) -> FilterMetrics {
        FilterMetrics::new(self.series.filters.series(name))
    }

    /// A request of a client was answered, whatever its route; not a question for health. Without a
    /// duration its head was never complete.
    pub fn answered(&self, status: StatusCode, duration: Option<Duration>) {
        self.series.answers.answered(status, duration);
    }

    /// A request was refused by a limit.
    pub fn limited(&self) {
        self.series.answers.limited.count();
    }

    /// A request was refused for its credentials.
    pub fn denied(&self) {
        self.series.answers.denied.count();
    }

    /// A request was refused by its head, before a route was found.
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
    pub fn tls_failed(&self, reason: &'static str) {
        self.series.tls_failed.count(reason);
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

    /// This revision is in force because of what stands in the store, of which so many rows do not
    /// compile.
    pub fn rows_in_force(&self, revision: u64, refused: usize) {
        self.scalars.revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.scalars.rows_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
    }

    /// The store answers, or has stopped to.
    pub fn store_up(&self, up: bool) {
        self.scalars.store_up.set(i64::from(up));
    }

    /// A store stopped doing what it is asked.
    pub fn store_failed(&self, operation: &'static str) {
        self.series.store_failures.count(operation);
    }

    /// The store goes on from another history than the one that was followed.
    pub fn new_epoch(&self) {
        self.scalars.new_epochs.inc();
    }

    /// A revocation took this long from its commit to its effect here. More than an hour is a clock that
    /// is wrong, or a row that was written by hand, and counts as an hour.
    pub fn revocation(&self, delay: Duration) {
        let delay = delay.min(Duration::from_secs(3600));
        self.scalars.revocation_delay.observe(delay.as_secs_f64());
        self.series.answers.revocations.observe(delay);
    }

    /// What is known just before a scrape; it stands until it is told again.
    pub fn set_live(&self, live: Live) {
        *self.series.live.lock() = live;
    }

    /// What parts of the gateway have counted by themselves; it stands until it is told again.
    pub fn set_readings(&self, readings: Vec<Reading>) {
        self.readings.set(readings);
    }

    /// The counts over all routes.
    pub(crate) fn totals(&self) -> Totals {
        let refused = u64::from(self.scalars.last_reload_successful.get() == 0);
        let rows = u64::try_from(self.scalars.rows_refused.get()).unwrap_or(0);
        Totals {
            answered: self.series.answers.read(),
            configuration_refused: refused + rows,
            lines_lost: self.scalars.access_log_dropped.get(),
            new_epochs: self.scalars.new_epochs.get(),
            unpublished: self.scalars.cloudwatch_late.get(),
        }
    }

    /// So many intervals reached CloudWatch.
    pub fn published(&self, intervals: usize) {
        self.scalars.cloudwatch_published.inc_by(u64::try_from(intervals).unwrap_or(u64::MAX));
    }

    /// A call of CloudWatch failed.
    pub fn publishing_failed(&self, kind: &'static str) {
        self.series.publishing_failures.count(kind);
    }

    /// So many intervals did not reach CloudWatch before the next one came.
    pub fn unpublished(&self, intervals: usize) {
        self.scalars.cloudwatch_late.inc_by(u64::try_from(intervals).unwrap_or(u64::MAX));
    }

    /// So many intervals will never reach CloudWatch.
    pub fn publishing_dropped(&self, intervals: usize) {
        self.scalars.cloudwatch_dropped.inc_by(u64::try_from(intervals).unwrap_or(u64::MAX));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(metrics: &Metrics) -> Vec<String> {
        metrics.render().lines().filter(|line| !line.starts_with('#')).map(Into::into).collect()
    }

    fn has(samples: &[String], line: &str) -> bool {
        samples.iter().any(|sample| sample == line)
    }

    /// Counts something of everything.
    fn count(metrics: &Metrics) {
        let (route, upstream, rule, filter) = (
            metrics.route("orders"),
            metrics.upstream("billing"),
            metrics.rule("plan/basic/burst"),
            metrics.filter("signer"),
        );
        filter.observe(Duration::from_micros(20));
        filter.refused();
        filter.failed("panic");
        route.observe(StatusCode::OK, Duration::from_micros(700));
        route.observe(StatusCode::NOT_FOUND, Duration::from_secs(60));
        route.rejected("no_credential");
        upstream.tried();
        upstream.tried();
        upstream.went_wrong();
        upstream.observe(Duration::from_millis(3));
        upstream.failed("connect");
        upstream.retried();
        let expression = metrics.expression("route/orders/when");
        expression.failed("route/orders/when", "division by zero");
        rule.refused();
        rule.shadow();
        rule.shadow();
        metrics.head_refused("head_timeout");
        metrics.connection("public");
        metrics.connection_refused("limit");
        metrics.tls_failed("gone");
        metrics.reload_succeeded(16);
        metrics.reload_failed();
        metrics.rows_in_force(17, 2);
        metrics.store_failed("find_key");
        metrics.published(4);
        metrics.publishing_failed("timeout");
        metrics.unpublished(3);
        metrics.publishing_dropped(2);
        metrics.revocation(Duration::from_millis(20));
        metrics.set_live(Live {
            connections: 5,
            requests_in_flight: 2,
            limiter_overflow: 3,
            endpoints: vec![
                LiveEndpoint {
                    upstream: "billing".into(),
                    endpoint: "10.0.0.1:80".into(),
                    up: true,
                },
                LiveEndpoint {
                    upstream: "billing".into(),
                    endpoint: "10.0.0.2:80".into(),
                    up: false,
                },
            ],
        });
    }

    #[test]
    fn everything_that_is_counted_is_exposed_under_its_name() {
        let metrics = Metrics::new();
        count(&metrics);
        let samples = samples(&metrics);
        for line in [
            r#"gateway_requests_total{route="orders",status_class="2xx"} 1"#,
            r#"gateway_requests_total{route="orders",status_class="4xx"} 1"#,
            r#"gateway_requests_total{route="orders",status_class="5xx"} 0"#,
            r#"gateway_request_duration_seconds_bucket{route="orders",le="0.0005"} 0"#,
            r#"gateway_request_duration_seconds_bucket{route="orders",le="0.001"} 1"#,
            r#"gateway_request_duration_seconds_bucket{route="orders",le="10"} 1"#,
            r#"gateway_request_duration_seconds_bucket{route="orders",le="+Inf"} 2"#,
            r#"gateway_request_duration_seconds_sum{route="orders"} 60.0007"#,
            r#"gateway_request_duration_seconds_count{route="orders"} 2"#,
            r#"gateway_rejections_total{route="orders",code="no_credential"} 1"#,
            r#"gateway_upstream_duration_seconds_count{upstream="billing"} 1"#,
            r#"gateway_upstream_failures_total{upstream="billing",kind="connect"} 1"#,
            r#"gateway_upstream_tries_total{upstream="billing"} 2"#,
            r#"gateway_upstream_errors_total{upstream="billing"} 1"#,
            r#"gateway_upstream_retries_total{upstream="billing"} 1"#,
            r#"gateway_upstream_endpoint_up{upstream="billing",endpoint="10.0.0.1:80"} 1"#,
            r#"gateway_upstream_endpoint_up{upstream="billing",endpoint="10.0.0.2:80"} 0"#,
            r#"gateway_limit_refusals_total{rule="plan/basic/burst",mode="enforce"} 1"#,
            r#"gateway_limit_refusals_total{rule="plan/basic/burst",mode="shadow"} 2"#,
            r#"gateway_expression_errors_total{expression="route/orders/when"} 1"#,
            r#"gateway_filter_duration_seconds_count{filter="signer"} 1"#,
            r#"gateway_filter_refusals_total{filter="signer"} 1"#,
            r#"gateway_filter_answers_total{filter="signer"} 0"#,
            r#"gateway_filter_failures_total{filter="signer",kind="panic"} 1"#,
            r#"gateway_heads_refused_total{code="head_timeout"} 1"#,
            r#"gateway_connections_total{listener="public"} 1"#,
            r#"gateway_connections_refused_total{reason="limit"} 1"#,
            r#"gateway_store_failures_total{operation="find_key"} 1"#,
            r#"gateway_cloudwatch_failures_total{kind="timeout"} 1"#,
            "gateway_cloudwatch_published_total 4",
            "gateway_cloudwatch_late_total 3",
            "gateway_cloudwatch_dropped_total 2",
            r#"gateway_config_reloads_total{result="success"} 1"#,
            r#"gateway_config_reloads_total{result="failure"} 1"#,
            r#"gateway_revocation_delay_seconds_bucket{le="0.025"} 1"#,
            r#"gateway_tls_handshakes_failed_total{reason="gone"} 1"#,
            "gateway_connections_open 5",
            "gateway_requests_in_flight 2",
            "gateway_limiter_overflow_total 3",
            "gateway_config_revision 17",
            "gateway_config_last_reload_successful 0",
            "gateway_config_rows_refused 2",
            "gateway_access_log_dropped_total 0",
        ] {
            assert!(has(&samples, line), "{line} is not in:\n{}", samples.join("\n"));
        }
    }

    #[test]
    fn a_series_that_a_reload_removed_is_exposed_once_more_and_the_others_keep_counting() {
        let metrics = Metrics::new();
        let (stays, goes) = (metrics.route("stays"), metrics.route("goes"));
        for route in [&stays, &goes] {
            route.observe(StatusCode::OK, Duration::ZERO);
        }
        drop(goes);
        let again = metrics.route("stays");
        drop(stays);
        let last = r#"gateway_requests_total{route="goes",status_class="2xx"} 1"#;
        assert!(has(&samples(&metrics), last));
        again.observe(StatusCode::OK, Duration::ZERO);
        let samples = samples(&metrics);
        assert!(has(&samples, r#"gateway_requests_total{route="stays",status_class="2xx"} 2"#));
        assert!(!samples.iter().any(|sample| sample.contains("goes")));
    }

    #[test]
    fn a_route_without_a_request_takes_no_line() {
        let metrics = Metrics::new();
        let _routes: Vec<_> = (0..100).map(|n| metrics.route(&format!("route{n}"))).collect();
        assert!(!metrics.render().contains("route1"));
    }

    #[test]
    fn an_upstream_that_a_reload_removed_is_told_to_the_end_and_never_twice() {
        let metrics = Metrics::new();
        let mut followed = Followed::default();
        let billing = metrics.upstream("billing");
        billing.tried();
        assert_eq!(followed.tell(&metrics), [("billing".into(), 1, 0)]);
        billing.tried();
        billing.went_wrong();
        drop(billing);
        metrics.retain();
        assert_eq!(followed.tell(&metrics), [("billing".into(), 1, 1)]);
        metrics.upstream("billing").tried();
        assert_eq!(followed.tell(&metrics), [("billing".into(), 1, 0)]);
        metrics.retain();
        assert!(followed.tell(&metrics).is_empty(), "nobody holds it any more");
    }

    #[test]
    fn two_gateways_in_one_process_do_not_count_for_each_other() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.tls_failed("gone");
        assert!(samples(&one).iter().any(|line| line.contains("tls_handshakes_failed_total")));
        assert!(!samples(&other).iter().any(|line| line.contains("tls_handshakes_failed_total")));
    }

    #[test]
    fn a_label_is_escaped() {
        let metrics = Metrics::new();
        metrics.connection("a\"b\nc\\d");
        let line = r#"gateway_connections_total{listener="a\"b\nc\\d"} 1"#;
        assert!(has(&samples(&metrics), line), "{}", metrics.render());
    }
}
