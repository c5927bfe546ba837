//! CloudWatch away, or refusing: requests notice nothing, and what can be kept is kept.

use crate::sink::{Mood, Sink};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::{Stopwatch, eventually, sized};
use std::time::Duration;

const END: Duration = Duration::from_secs(10);
const FAILS: &str = "metrics do not reach CloudWatch";

fn lines(gateway: &Gateway, part: &str) -> Vec<String> {
    gateway.stderr().all().into_iter().filter(|line| line.contains(part)).collect()
}

#[tokio::test]
async fn an_outage_is_felt_by_no_request_and_loses_nothing_while_it_is_short() {
    let (sink, origin) = (Sink::start().await, Origin::start().await);
    let gateway = sink.of(Gateway::before(&[origin.address()], "")).start().await;
    sink.has(1).await;
    sink.mood(Mood::Hangs);
    let (mut worst, mut sent) = (Duration::ZERO, 0.0);
    let before = sink.tried();
    while sink.tried() < before + 4 {
        let request = Stopwatch::start();
        gateway.get("/").send().await.expect_status(200);
        worst = worst.max(request.elapsed());
        sent += 1.0;
    }
    sink.mood(Mood::Takes);
    sink.sum_is("RequestCount", None, sent).await;

    assert!(worst < Duration::from_millis(500), "a request took {worst:?}");
    eventually("the late intervals to be told", || {
        (sink.sum("PublishFailures", None) >= 1.0).then_some(())
    })
    .await;
    gateway.stderr().containing("metrics reach CloudWatch again").await;
    assert_eq!(lines(&gateway, FAILS).len(), 1, "once, not with each call");
    let metrics = gateway.metrics().await;
    assert!(metrics.sum("cloudwatch_failures_total", &[("kind", "timeout")]) >= 4.0);
    assert!(metrics.sum("cloudwatch_published_total", &[]) >= 4.0);
    assert_eq!(metrics.sum("cloudwatch_dropped_total", &[]), 0.0);
    let mut intervals = sink.intervals();
    intervals.dedup();
    for pair in intervals.windows(2) {
        assert_eq!(pair[1] - pair[0], 1, "none is missing: {intervals:?}");
    }
}

/// The short form sees that all comes in the end; the long one, that the oldest are given up.
#[tokio::test]
async fn soak_what_waits_is_bounded() {
    let seconds = sized(3, 25);
    let (sink, origin) = (Sink::start().await, Origin::start().await);
    sink.mood(Mood::Fails(500, "InternalServiceFault"));
    let gateway = sink.of(Gateway::before(&[origin.address()], "")).start().await;
    let began = Stopwatch::start();
    let (mut sent, limit) = (0.0, Duration::from_secs(seconds));
    while began.elapsed() < limit {
        gateway.get("/").send().await.expect_status(200);
        sent += 1.0;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sink.mood(Mood::Takes);
    sink.has(sized(2, 15)).await;
    let dropped = gateway.metrics().await.sum("cloudwatch_dropped_total", &[]);
    if seconds < 15 {
        sink.sum_is("RequestCount", None, sent).await;
        assert_eq!(dropped, 0.0);
    } else {
        assert!(dropped >= 5.0, "{dropped}");
        assert_eq!(lines(&gateway, "the oldest are given up").len(), 1);
        assert!(
            sink.calls().iter().any(|call| call.len() > 10 * 15),
            "one call for all that waits"
        );
    }
}

#[tokio::test]
async fn each_kind_of_failure_is_told_with_a_way_out() {
    let (sink, origin) = (Sink::start().await, Origin::start().await);
    let gateway = sink.of(Gateway::before(&[origin.address()], "")).start().await;
    for (status, code, kind, help) in [
        (403, "AccessDenied", "access_denied", "cloudwatch:PutMetricData"),
        (400, "ThrottlingException", "throttled", "ask AWS"),
        (503, "ServiceUnavailable", "server", "endpoint"),
    ] {
        sink.mood(Mood::Fails(status, code));
        let line = gateway.stderr().containing(&format!("\"kind\":\"{kind}\"")).await;
        assert!(line.contains(FAILS) && line.contains(help), "{line}");
    }
    assert_eq!(lines(&gateway, FAILS).len(), 3);
    sink.mood(Mood::Takes);
    gateway.stderr().containing("metrics reach CloudWatch again").await;
}

#[tokio::test]
async fn what_cloudwatch_will_never_take_does_not_keep_the_rest_waiting() {
    let (sink, origin) = (Sink::start().await, Origin::start().await);
    sink.mood(Mood::Fails(400, "InvalidParameterValue"));
    let gateway = sink.of(Gateway::before(&[origin.address()], "")).start().await;
    gateway.stderr().containing("\"kind\":\"refused\"").await;
    sink.mood(Mood::Takes);
    sink.has(1).await;
    assert!(gateway.metrics().await.sum("cloudwatch_dropped_total", &[]) >= 1.0);
}

#[tokio::test]
async fn without_credentials_and_without_a_listener_the_log_says_what_is_missing() {
    let sink = Sink::start().await;
    let without = sink
        .of(Gateway::before(&[sink.address], ""))
        .without_env("AWS_ACCESS_KEY_ID")
        .without_env("AWS_SECRET_ACCESS_KEY")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nowhere")
        .start()
        .await;
    let line = without.stderr().containing("\"kind\":\"credentials\"").await;
    assert!(line.contains("give the task a role"), "{line}");
    assert_eq!(sink.tried(), 0);

    let alone = sink.of(Gateway::before(&[sink.address], ""));
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let alone = alone.toml(&format!("[cloudwatch]\nendpoint = 'http://{nobody}'")).start().await;
    let line = alone.stderr().containing("\"kind\":\"connect\"").await;
    assert!(line.contains("VPC endpoint"), "{line}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_given_up() {
    let (sink, origin) = (Sink::start().await, Origin::start().await);
    let mut gateway = sink.of(Gateway::before(&[origin.address()], "")).start().await;
    sink.has(1).await;
    let before = gateway.process().resident();
    sink.mood(Mood::Raves);
    let line = gateway.stderr().containing("\"kind\":\"server\"").await;
    assert!(line.len() < 2048, "{line}");
    sink.tried_since(sink.tried(), 4).await;
    let more = gateway.process().resident().saturating_sub(before);
    assert!(more < 8 * 1024 * 1024, "{more} bytes more");
    sink.mood(Mood::Takes);
    gateway.stderr().containing("metrics reach CloudWatch again").await;
}

#[tokio::test]
async fn plain_http_beyond_this_machine_is_not_used_wherever_it_is_named() {
    let sink = Sink::start().await;
    let gateway = Gateway::before(&[sink.address], "")
        .toml("[cloudwatch]\nregion = 'us-east-1'\ninterval = '1s'")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        // An address for documents (RFC 5737): nobody has it.
        .env("AWS_ENDPOINT_URL", "http://192.0.2.2:4567")
        .start()
        .await;
    let line = gateway.stderr().containing("\"kind\":\"endpoint\"").await;
    assert!(line.contains("in plain http") && line.contains("write https://"), "{line}");
}

#[tokio::test]
async fn an_end_does_not_wait_for_a_cloudwatch_that_is_silent() {
    let sink = Sink::start().await;
    sink.mood(Mood::Hangs);
    let mut gateway = sink.of(Gateway::before(&[sink.address], "")).start().await;
    sink.tried_since(0, 1).await;
    let (status, took) = gateway.stop(END).await;
    assert!(status.success() && took < Duration::from_secs(4), "{status} after {took:?}");
}

#[tokio::test]
async fn without_a_region_nothing_is_sent_and_one_line_says_so() {
    let sink = Sink::start().await;
    let off = "no metrics go to CloudWatch";
    let unset = Gateway::before(&[sink.address], "")
        .toml(&format!("[cloudwatch]\nendpoint = 'http://{}'\ninterval = '1s'", sink.address));
    let said = sink.of(Gateway::before(&[sink.address], "")).toml("[cloudwatch]\nregion = 'off'");
    for mut gateway in [unset.start().await, said.env("AWS_REGION", "us-east-1").start().await] {
        gateway.stderr().containing(off).await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        assert!(gateway.stop(END).await.0.success());
        assert_eq!(lines(&gateway, "CloudWatch").len(), 1);
    }
    assert_eq!(sink.tried(), 0);
}

#[tokio::test]
async fn the_region_of_the_environment_is_taken() {
    let sink = Sink::start().await;
    let gateway = Gateway::before(&[sink.address], "")
        .toml(&format!("[cloudwatch]\nendpoint = 'http://{}'\ninterval = '1s'", sink.address))
        .env("AWS_DEFAULT_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .start()
        .await;
    sink.has(1).await;
    gateway.stderr().containing("eu-central-1").await;
}
