//! What one request costs in telemetry: counting it, naming it, writing its line.
//!
//! `cargo bench --bench telemetry`; the sum of the four is the telemetry's share of a request.

use criterion::Criterion;
use datahub_gateway::telemetry::record::{Credential, End};
use datahub_gateway::telemetry::request_id::request_id;
use datahub_gateway::telemetry::{AccessLog, Clock, Metrics, Record, TraceContext};
use http::{Method, StatusCode, Version};
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench_metrics(&mut criterion);
    bench_ids(&mut criterion);
    bench_access_log(&mut criterion);
    criterion.final_summary();
}

fn bench_metrics(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let (route, upstream) = (metrics.route("orders"), metrics.upstream("billing"));
    let duration = Duration::from_micros(1_250);
    criterion.bench_function("telemetry/observe", |bencher| {
        bencher.iter(|| {
            route.observe(black_box(StatusCode::OK), black_box(duration));
            upstream.observe(black_box(duration));
        });
    });
    criterion.bench_function("telemetry/observe, and for CloudWatch", |bencher| {
        bencher.iter(|| {
            route.observe(black_box(StatusCode::OK), black_box(duration));
            metrics.answered(black_box(StatusCode::OK), Some(black_box(duration)));
            upstream.tried();
            upstream.observe(black_box(duration));
        });
    });
    criterion.bench_function("telemetry/rejected", |bencher| {
        bencher.iter(|| route.rejected(black_box("rate_limited")));
    });
    let routes: Vec<_> = (0..1_000).map(|n| metrics.route(&format!("route{n}"))).collect();
    for route in &routes {
        route.observe(StatusCode::OK, duration);
    }
    criterion.bench_function("telemetry/render of 1000 routes", |bencher| {
        bencher.iter(|| metrics.render());
    });
}

fn bench_ids(criterion: &mut Criterion) {
    let clock = Clock::system();
    criterion.bench_function("telemetry/request id", |bencher| {
        bencher.iter(|| request_id(clock.unix_time()));
    });
    let incoming = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    criterion.bench_function("telemetry/trace context", |bencher| {
        bencher.iter(|| TraceContext::resume(black_box(incoming)).map(|own| own.header_value()));
    });
}

#[expect(clippy::expect_used, reason = "without a thread there is nothing to measure")]
fn bench_access_log(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let log = AccessLog::start(std::io::sink(), &metrics).expect("a thread");
    let record = Record {
        started: Duration::from_millis(1_800_000_000_123),
        duration: Duration::from_micros(1_250),
        upstream_duration: Some(Duration::from_micros(900)),
        method: &Method::GET,
        host: b"api.example.com",
        path: b"/v1/orders/4711/positions",
        version: Version::HTTP_11,
        status: StatusCode::OK,
        request_bytes: 0,
        response_bytes: 1024,
        end: End::Complete,
        route: Some("orders"),
        consumer: Some("acme"),
        credential: Some(Credential::ApiKey("AbCdEfGhIjKlMnOp")),
        plan: Some("basic"),
        client: IpAddr::from([203, 0, 113, 9]),
        peer: SocketAddr::from(([10, 0, 0, 1], 4711)),
        tls: false,
        request_id: b"0198c6d2-7e3f-7abc-8def-0123456789ab",
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
        span_id: "00f067aa0ba902b7",
        amzn_trace_id: Some(b"Root=1-67891233-abcdef012345678912345678"),
        upstream: Some("billing"),
        endpoint: Some(SocketAddr::from(([10, 0, 0, 2], 8080))),
        tries: 1,
        reason: None,
        cause: None,
        would_refuse: &[],
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML)"),
    };
    criterion.bench_function("telemetry/access log", |bencher| {
        bencher.iter(|| log.record(black_box(&record)));
    });
}
