//! The labelled series, in the words of the `prometheus` crate.
//!
//! A route, upstream or rule that no request has met yet is left out: with thousands of routes the
//! exposition would otherwise be mostly zeros. From its first request on it has all its series, so
//! that a first error is seen as a step from zero.

use super::route::CLASSES;
use super::series::{BOUNDS, Codes, Latency, Series};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Name, help, labels, type.
pub(super) type Spec = (&'static str, &'static str, &'static [&'static str], MetricType);

const REQUESTS: Spec = (
    "gateway_requests_total",
    "Requests that matched a route, by the status they were answered with.",
    &["route", "status_class"],
    MetricType::COUNTER,
);
const DURATION: Spec = (
    "gateway_request_duration_seconds",
    "From a request's head to the end of its response.",
    &["route"],
    MetricType::HISTOGRAM,
);
const REJECTIONS: Spec = (
    "gateway_rejections_total",
    "Requests that the gateway itself refused or cut short.",
    &["route", "code"],
    MetricType::COUNTER,
);
const LIMITS: Spec = (
    "gateway_limit_refusals_total",
    "Requests that a limit, a policy's condition or the address guard refused (enforce) or would have (shadow).",
    &["rule", "mode"],
    MetricType::COUNTER,
);
const EXPRESSIONS: Spec = (
    "gateway_expression_errors_total",
    "Evaluations of an expression that came to nothing.",
    &["expression"],
    MetricType::COUNTER,
);
const UPSTREAM_DURATION: Spec = (
    "gateway_upstream_duration_seconds",
    "From the choice of an endpoint to the end of its response.",
    &["upstream"],
    MetricType::HISTOGRAM,
);
const UPSTREAM_FAILURES: Spec = (
    "gateway_upstream_failures_total",
    "Tries of an upstream that came to nothing.",
    &["upstream", "kind"],
    MetricType::COUNTER,
);
const UPSTREAM_RETRIES: Spec = (
    "gateway_upstream_retries_total",
    "Requests that were sent again to another endpoint.",
    &["upstream"],
    MetricType::COUNTER,
);
const UPSTREAM_TRIES: Spec = (
    "gateway_upstream_tries_total",
    "Tries: how often an endpoint was picked for a request.",
    &["upstream"],
    MetricType::COUNTER,
);
const UPSTREAM_ERRORS: Spec = (
    "gateway_upstream_errors_total",
    "Tries that came to nothing, or were answered with 5xx.",
    &["upstream"],
    MetricType::COUNTER,
);
const ENDPOINT_UP: Spec = (
    "gateway_upstream_endpoint_up",
    "Whether an endpoint is given requests.",
    &["upstream", "endpoint"],
    MetricType::GAUGE,
);
const FILTER_DURATION: Spec = (
    "gateway_filter_duration_seconds",
    "Calls of a filter, each point of a request by itself.",
    &["filter"],
    MetricType::HISTOGRAM,
);
const FILTER_REFUSALS: Spec = (
    "gateway_filter_refusals_total",
    "Requests that a filter refused.",
    &["filter"],
    MetricType::COUNTER,
);
const FILTER_ANSWERS: Spec = (
    "gateway_filter_answers_total",
    "Requests that a filter answered itself.",
    &["filter"],
    MetricType::COUNTER,
);
const FILTER_FAILURES: Spec = (
    "gateway_filter_failures_total",
    "Requests that were refused because a filter took too long or panicked.",
    &["filter", "kind"],
    MetricType::COUNTER,
);
const HEADS: Spec = (
    "gateway_heads_refused_total",
    "Requests that were refused before a route was found.",
    &["code"],
    MetricType::COUNTER,
);
const CONNECTIONS: Spec = (
    "gateway_connections_total",
    "Connections that were accepted.",
    &["listener"],
    MetricType::COUNTER,
);
const CONNECTIONS_REFUSED: Spec = (
    "gateway_connections_refused_total",
    "Connections above a cap: closed, or (max_connections) served with 503 where there is room for that.",
    &["reason"],
    MetricType::COUNTER,
);
const TLS_FAILURES: Spec = (
    "gateway_tls_handshakes_failed_total",
    "TLS handshakes with clients that came to nothing.",
    &["reason"],
    MetricType::COUNTER,
);
const STORE_FAILURES: Spec = (
    "gateway_store_failures_total",
    "Outages of a store, by what it was asked when it did not answer.",
    &["operation"],
    MetricType::COUNTER,
);
const PUBLISHING_FAILURES: Spec = (
    "gateway_cloudwatch_failures_total",
    "Calls of CloudWatch that failed.",
    &["kind"],
    MetricType::COUNTER,
);
const OPEN: Spec = ("gateway_connections_open", "Open client connections.", &[], MetricType::GAUGE);
const IN_FLIGHT: Spec = (
    "gateway_requests_in_flight",
    "Requests between their head and the end of their response.",
    &[],
    MetricType::GAUGE,
);
const OVERFLOW: Spec = (
    "gateway_limiter_overflow_total",
    "Requests that a full limiter could not give a counter of their own.",
    &[],
    MetricType::COUNTER,
);

const ALL: [Spec; 24] = [
    REQUESTS,
    DURATION,
    REJECTIONS,
    LIMITS,
    EXPRESSIONS,
    UPSTREAM_DURATION,
    UPSTREAM_FAILURES,
    UPSTREAM_RETRIES,
    UPSTREAM_TRIES,
    UPSTREAM_ERRORS,
    ENDPOINT_UP,
    FILTER_DURATION,
    FILTER_REFUSALS,
    FILTER_ANSWERS,
    FILTER_FAILURES,
    HEADS,
    CONNECTIONS,
    CONNECTIONS_REFUSED,
    TLS_FAILURES,
    STORE_FAILURES,
    PUBLISHING_FAILURES,
    OPEN,
    IN_FLIGHT,
    OVERFLOW,
];

/// Collects [`Series`] at a scrape.
pub(super) struct Exposition {
    series: Arc<Series>,
    descriptions: Vec<Desc>,
}

impl Exposition {
    pub(super) fn new(series: Arc<Series>) -> Self {
        Self { series, descriptions: ALL.map(describe).into() }
    }

    fn routes(&self) -> [MetricFamily; 3] {
        let mut requests = Family::new(REQUESTS);
        let mut duration = Family::new(DURATION);
        let mut rejections = Family::new(REJECTIONS);
        self.series.routes.each(|name, route| {
            if duration.histogram(&[name], &route.duration) {
                for (class, count) in CLASSES.into_iter().zip(&route.requests) {
                    requests.number(&[name, class], count.value());
                }
            }
            route.rejections.each(|code, count| rejections.number(&[name, code], count));
        });
        [requests.0, duration.0, rejections.0]
    }

    fn upstreams(&self) -> [MetricFamily; 5] {
        let mut duration = Family::new(UPSTREAM_DURATION);
        let mut failures = Family::new(UPSTREAM_FAILURES);
        let mut retries = Family::new(UPSTREAM_RETRIES);
        let mut tries = Family::new(UPSTREAM_TRIES);
        let mut errors = Family::new(UPSTREAM_ERRORS);
        self.series.upstreams.each(|name, upstream| {
            duration.histogram(&[name], &upstream.duration);
            upstream.failures.each(|kind, count| failures.number(&[name, kind], count));
            retries.number(&[name], upstream.retries.value());
            tries.number(&[name], upstream.tries.value());
            errors.number(&[name], upstream.wrong.value());
        });
        [duration.0, failures.0, retries.0, tries.0, errors.0]
    }

    fn rules(&self) -> MetricFamily {
        let mut refusals = Family::new(LIMITS);
        self.series.rules.each(|id, rule| {
            let (refused, shadow) = (rule.refused.value(), rule.shadow.value());
            if refused + shadow > 0 {
                refusals.number(&[id, "enforce"], refused);
                refusals.number(&[id, "shadow"], shadow);
            }
        });
        refusals.0
    }

    fn expressions(&self) -> MetricFamily {
        let mut failures = Family::new(EXPRESSIONS);
        self.series.expressions.each(|place, count| {
            if count.value() > 0 {
                failures.number(&[place], count.value());
            }
        });
        failures.0
    }

    fn filters(&self) -> [MetricFamily; 4] {
        let mut duration = Family::new(FILTER_DURATION);
        let mut refusals = Family::new(FILTER_REFUSALS);
        let mut answers = Family::new(FILTER_ANSWERS);
        let mut failures = Family::new(FILTER_FAILURES);
        self.series.filters.each(|name, filter| {
            duration.histogram(&[name], &filter.duration);
            refusals.number(&[name], filter.refusals.value());
            answers.number(&[name], filter.answers.value());
            filter.failures.each(|kind, count| failures.number(&[name, kind], count));
        });
        [duration.0, refusals.0, answers.0, failures.0]
    }

    fn process_wide(&self) -> [MetricFamily; 6] {
        let mut connections = Family::new(CONNECTIONS);
        self.series.listeners.each(|name, count| connections.number(&[name], count.value()));
        let by_code = |spec, codes: &Codes| {
            let mut family = Family::new(spec);
            codes.each(|code, count| family.number(&[code], count));
            family.0
        };
        [
            connections.0,
            by_code(HEADS, &self.series.heads_refused),
            by_code(CONNECTIONS_REFUSED, &self.series.connections_refused),
            by_code(TLS_FAILURES, &self.series.tls_failed),
            by_code(STORE_FAILURES, &self.series.store_failures),
            by_code(PUBLISHING_FAILURES, &self.series.publishing_failures),
        ]
    }

    fn live(&self) -> [MetricFamily; 4] {
        let live = self.series.live.lock();
        let single = |spec, value| {
            let mut family = Family::new(spec);
            family.number(&[], value);
            family.0
        };
        let count = |value| u64::try_from(value).unwrap_or(u64::MAX);
        let mut up = Family::new(ENDPOINT_UP);
        for endpoint in &live.endpoints {
            up.number(&[&endpoint.upstream, &endpoint.endpoint], u64::from(endpoint.up));
        }
        [
            single(OPEN, count(live.connections)),
            single(IN_FLIGHT, count(live.requests_in_flight)),
            single(OVERFLOW, live.limiter_overflow),
            up.0,
        ]
    }
}

impl Collector for Exposition {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut all = Vec::with_capacity(ALL.len());
        all.extend(self.routes());
        all.extend(self.upstreams());
        all.push(self.rules());
        all.push(self.expressions());
        all.extend(self.filters());
        all.extend(self.process_wide());
        all.extend(self.live());
        all
    }
}

#[expect(clippy::expect_used, reason = "names are constants, and a test builds every metric")]
pub(super) fn describe((name, help, labels, _): Spec) -> Desc {
    let labels = labels.iter().map(ToString::to_string).collect();
    Desc::new(name.into(), help.into(), labels, HashMap::new()).expect("a valid constant name")
}

/// A family in the making.
pub(super) struct Family(MetricFamily, &'static [&'static str]);

impl Family {
    pub(super) fn new((name, help, labels, kind): Spec) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        Self(family, labels)
    }

    pub(super) fn number(&mut self, labels: &[&str], value: u64) {
        let mut metric = self.labelled(labels);
        #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
        let value = value as f64;
        if self.0.get_field_type() == MetricType::GAUGE {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        } else {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        self.0.mut_metric().push(metric);
    }

    pub(super) fn into_proto(self) -> MetricFamily {
        self.0
    }

    /// Says whether there was anything to show.
    fn histogram(&mut self, labels: &[&str], latency: &Latency) -> bool {
        let mut total = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        let mut bounds = BOUNDS.iter();
        for count in latency.counts() {
            total += count;
            let Some(&bound) = bounds.next() else { break };
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(std::time::Duration::from_nanos(bound).as_secs_f64());
            bucket.set_cumulative_count(total);
            buckets.push(bucket);
        }
        if total == 0 {
            return false;
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total);
        histogram.set_sample_sum(latency.sum().as_secs_f64());
        let mut metric = self.labelled(labels);
        metric.set_histogram(histogram);
        self.0.mut_metric().push(metric);
        true
    }

    fn labelled(&self, values: &[&str]) -> Metric {
        let pairs = self.1.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).into());
            pair.set_value((*value).into());
            pair
        });
        Metric::from_label(pairs.collect())
    }
}
