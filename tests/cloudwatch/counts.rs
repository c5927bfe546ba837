//! What is told is what happened, to the last request.

use crate::sink::Sink;
use crate::support::gateway::Gateway;
use crate::support::origin::{Behaviour, Origin, Reply};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a gateway without requests may take to end, its last call included.
const END: Duration = Duration::from_secs(10);

/// Nothing listens there.
async fn nowhere() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn every_request_is_counted_once_and_in_its_place() {
    let (sink, origin) = (Sink::start().await, Origin::start().await);
    origin.on("/orders/broken", Behaviour::Answer(Reply::new(503)));
    let route = |auth: &str, path: &str, upstream: &str| {
        format!("path = '{path}'\nauth = {auth}\nupstream = '{upstream}'")
    };
    let mut gateway = sink
        .of(Gateway::builder())
        .upstream("orders", &[origin.address()])
        .upstream("gone", &[nowhere().await])
        .route("orders", &route("'none'", "/orders/*", "orders"))
        .route("gone", &route("'none'", "/gone", "gone"))
        .route("limited", &route("['api_key']", "/limited", "orders"))
        .plan("basic", "2/min")
        .key("k1", "basic")
        .start()
        .await;

    for _ in 0..3 {
        gateway.get("/orders/1").times(20).await.expect_status(200);
        gateway.get("/orders/broken").times(5).await.expect_status(503);
        gateway.get("/gone").times(4).await.expect_status(502);
        gateway.get("/nothing").times(3).await.expect_status(404);
        gateway.get("/limited").times(2).await.expect_status(401);
        gateway.get("/limited").key("k1").times(3).await;
        gateway.get("/health").times(10).await.expect_status(200);
        sink.has(sink.intervals().len() + 1).await;
    }
    let lines = gateway.access_log(111).await;
    assert!(gateway.stop(END).await.0.success());

    for (name, third, sum) in [
        ("RequestCount", None, 111.0),
        ("ServerErrors", None, 27.0),
        ("ClientErrors", None, 22.0),
        ("RateLimitHits", None, 7.0),
        ("AuthFailures", None, 6.0),
        ("UpstreamRequests", Some("orders"), 77.0),
        ("UpstreamErrors", Some("orders"), 15.0),
        ("UpstreamRequests", Some("other"), 0.0),
        ("RecordsLost", None, 0.0),
        ("PublishFailures", None, 0.0),
    ] {
        assert!((sink.sum(name, third) - sum).abs() < 1e-6, "{name}: {}", sink.sum(name, third));
    }
    let tries = lines.iter().filter(|line| line["upstream"] == "gone");
    let tries: f64 = tries.map(|line| line["tries"].as_f64().unwrap()).sum();
    for name in ["UpstreamRequests", "UpstreamErrors"] {
        assert!((sink.sum(name, Some("gone")) - tries).abs() < 1e-6, "{tries} tries");
    }
    let latencies: f64 = sink
        .of_metric("RequestLatency", None)
        .iter()
        .flat_map(|datum| &datum.values)
        .map(|(_, count)| count)
        .sum();
    assert!((latencies - 111.0).abs() < 1e-6);
}

#[tokio::test]
async fn there_is_one_call_and_one_heartbeat_for_each_interval_of_the_clock() {
    let sink = Sink::start().await;
    let mut gateway = sink.of(Gateway::before(&[nowhere().await], "")).start().await;
    sink.has(4).await;
    assert!(gateway.stop(END).await.0.success());

    let intervals = sink.intervals();
    assert_eq!(sink.calls().len(), intervals.len());
    for pair in intervals.windows(2) {
        assert_eq!(pair[1] - pair[0], 1, "{intervals:?}");
    }
    for call in sink.calls() {
        assert!(call.iter().all(|datum| datum.timestamp == call[0].timestamp));
        assert!(call.iter().all(|datum| datum.namespace == "DataHub/Gateway"));
        assert!(call.iter().all(|datum| datum.dimensions["Service"] == "datahub-gateway"));
        assert!(call.iter().all(|datum| datum.dimensions["Environment"] == "test"));
    }
    assert!((sink.sum("Heartbeat", None) - intervals.len() as f64).abs() < 1e-6);
}

/// Of values with counts, the one that so many of a hundred are not above.
fn percentile(values: &BTreeMap<u64, f64>, percent: f64) -> f64 {
    let all: f64 = values.values().sum();
    let mut seen = 0.0;
    for (micros, count) in values {
        seen += count;
        if seen >= all * percent / 100.0 {
            return *micros as f64 / 1_000.0;
        }
    }
    panic!("nothing was counted")
}

#[expect(clippy::cast_possible_truncation, reason = "durations of a test are short")]
#[expect(clippy::cast_sign_loss, reason = "and not negative")]
fn micros(milliseconds: f64) -> u64 {
    (milliseconds * 1_000.0).round() as u64
}

#[tokio::test]
async fn percentiles_of_what_is_told_are_those_of_the_requests() {
    let (sink, origin) = (Sink::start().await, Origin::start().await);
    origin.decide(|head| {
        let pause = head.target().rsplit('/').next().and_then(|it| it.parse().ok()).unwrap_or(0);
        Behaviour::After(Duration::from_millis(pause), Reply::new(200))
    });
    let mut gateway = sink.of(Gateway::before(&[origin.address()], "")).start().await;
    for pause in 0..150 {
        let pause = if pause % 10 == 0 { 80 + pause } else { pause % 7 };
        gateway.get(&format!("/{pause}")).send().await.expect_status(200);
    }
    let lines = gateway.access_log(150).await;
    assert!(gateway.stop(END).await.0.success());

    let (mut truth, mut told) = (BTreeMap::new(), BTreeMap::new());
    for line in lines {
        *truth.entry(micros(line["duration_ms"].as_f64().unwrap())).or_default() += 1.0;
    }
    for (value, count) in sink.of_metric("RequestLatency", None).iter().flat_map(|it| &it.values) {
        *told.entry(micros(*value)).or_default() += count;
    }
    for percent in [50.0, 90.0, 95.0, 99.0] {
        let (truth, told) = (percentile(&truth, percent), percentile(&told, percent));
        assert!((told / truth - 1.0).abs() < 0.05, "p{percent} is {truth} ms, told as {told} ms");
    }
}

#[tokio::test]
async fn connections_refused_files_and_endpoints_that_are_down_are_told_as_they_are() {
    let (sink, origin) = (Sink::start().await, Origin::start().await);
    let health =
        "[health]\ninterval = '50ms'\ntimeout = '50ms'\nhealthy_after = 1\nunhealthy_after = 1";
    let gateway =
        sink.of(Gateway::before(&[origin.address(), nowhere().await], health)).start().await;
    gateway.get("/").send().await.expect_status(200);
    let latest = |name: &str| sink.of_metric(name, None).last().unwrap().sum();
    crate::support::eventually("the connection and the endpoint", || {
        let intervals = sink.intervals().len();
        (intervals > 1 && latest("ActiveConnections") >= 1.0 && latest("EndpointsDown") >= 1.0)
            .then_some(())
    })
    .await;
    assert!(latest("ConfigurationRefused") < 1e-6);

    let good = gateway.read_conf("gateway.toml");
    gateway.write_conf("gateway.toml", "workers = 'many'");
    assert_eq!(gateway.reload_and_wait().await.result, "failure");
    crate::support::eventually("the file", || {
        (latest("ConfigurationRefused") >= 1.0).then_some(())
    })
    .await;
    gateway.write_conf("gateway.toml", &good);
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    crate::support::eventually("the file", || (latest("ConfigurationRefused") < 1.0).then_some(()))
        .await;
}

#[tokio::test]
async fn what_was_counted_last_is_told_before_the_end() {
    let (sink, origin) = (Sink::start().await, Origin::start().await);
    let mut gateway = sink.of(Gateway::before(&[origin.address()], "")).start().await;
    gateway.get("/").times(7).await.expect_status(200);
    assert!(gateway.stop(END).await.0.success());
    assert!((sink.sum("RequestCount", None) - 7.0).abs() < 1e-6);
}
