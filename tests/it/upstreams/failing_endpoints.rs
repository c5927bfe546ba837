//! Endpoints that die, freeze, break off or talk nonsense: what it costs clients.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::load::{Load, Running, Summary};
use crate::support::origin::{Behaviour, Origin, Reply, Then};
use crate::support::origin_process::OriginProcess;
use crate::support::raw::RawClient;
use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Ejections short enough that a test sees an endpoint come back.
const EJECTION: &str = "[ejection]\nbase = '200ms'\nmax = '400ms'\n";

async fn three() -> [OriginProcess; 3] {
    [
        OriginProcess::start("a").await,
        OriginProcess::start("b").await,
        OriginProcess::start("c").await,
    ]
}

fn addresses(origins: &[OriginProcess]) -> Vec<SocketAddr> {
    origins.iter().map(OriginProcess::address).collect()
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn used_again(origin: &OriginProcess) {
    let before = origin.journal().len();
    eventually("requests at the endpoint", || (origin.journal().len() > before + 5).then_some(()))
        .await;
}

#[tokio::test]
async fn an_endpoint_killed_four_times_under_load_costs_no_get_and_no_post_is_sent_twice() {
    let mut origins = three().await;
    let gateway = Gateway::before(&addresses(&origins), EJECTION).start().await;
    let load = || Load::on(gateway.address());
    let gets = [load().get("/kept").rate(80).start(), load().get("/new").fresh().rate(20).start()];
    let posts = load().post("/post", b"once").expect_body(b"once").rate(60).start();
    for round in 0..4 {
        let origin = &mut origins[round % 3];
        used_again(origin).await;
        origin.kill();
        gets[0].goes_on(40).await;
        origin.revive().await;
        used_again(origin).await;
    }
    for get in gets {
        get.stop().await.expect_only(200);
    }
    let posts = posts.stop().await;
    assert!(posts.failures().is_empty(), "{posts:?}");
    let lost = posts.total() - posts.statuses()[&200];
    assert!(lost <= 4 * 4, "more than one for each connection and kill: {posts:?}");
    assert_eq!(posts.statuses().get(&502).copied().unwrap_or(0), lost, "{posts:?}");
    each_post_was_sent_once(&origins, &posts);
}

#[track_caller]
fn each_post_was_sent_once(origins: &[OriginProcess], posts: &Summary) {
    let mut tags = HashSet::new();
    for noted in origins.iter().flat_map(OriginProcess::journal) {
        if noted.method == "POST" {
            assert!(tags.insert(noted.tag.clone()), "sent twice: {noted:?}");
        }
    }
    let answered = posts.outcomes.iter().filter(|outcome| outcome.result == Ok(200));
    for outcome in answered {
        assert!(tags.contains(&outcome.tag), "answered by nobody: {outcome:?}");
    }
}

#[tokio::test]
async fn a_frozen_endpoint_costs_only_the_first_requests_a_try() {
    const TRY: Duration = Duration::from_millis(500);
    const LANES: usize = 16;
    let origins = three().await;
    let conf = "[timeouts]\nper_try = '500ms'";
    let gateway = Gateway::before(&addresses(&origins), conf).start().await;
    let load = Load::on(gateway.address()).connections(LANES).rate(150).start();
    load.goes_on(150).await;
    let before = load.elapsed();
    origins[0].freeze();
    tokio::time::sleep(TRY * 4).await;
    let settled = load.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let thawed = load.elapsed();
    origins[0].thaw();
    used_again(&origins[0]).await;
    let summary = load.stop().await;

    summary.expect_only(200);
    assert!(summary.percentile(1.0) < TRY + Duration::from_millis(400), "{summary:?}");
    let slow =
        |summary: Summary| summary.outcomes.iter().filter(|outcome| outcome.latency >= TRY).count();
    // Those under way when the third in a row had waited in vain, then one for each trial.
    let first = slow(summary.between(before, settled));
    assert!((1..=LANES + 3 + 2).contains(&first), "{first} slow: {summary:?}");
    let after = summary.between(settled, thawed);
    assert!(slow(after.clone()) <= 6, "trials: {after:?}");
    let usual = summary.between(Duration::ZERO, before).percentile(0.95);
    let limit = (usual * 3).max(Duration::from_millis(100));
    assert!(after.percentile(0.95) < limit, "{after:?}, {usual:?} before");
}

/// Sends `GET target` and takes everything until the gateway closes; head and the rest.
async fn all_of(gateway: &Gateway, request: &str) -> (u16, String) {
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(request).await;
    let status = client.head().await.status();
    let mut rest = Vec::new();
    // A reset ends it as well as a close does.
    while let Ok(bytes) = client.try_some().await {
        if bytes.is_empty() {
            break;
        }
        rest.extend(bytes);
    }
    (status, String::from_utf8(rest).unwrap())
}

#[tokio::test]
async fn a_response_that_breaks_off_never_looks_complete() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&[origin.address()], EJECTION).start().await;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
    let cut_chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\nhello";
    let nonsense = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n";
    let mut lines = 0;
    for (bytes, then) in [
        (chunked, Then::Close),
        (chunked, Then::Reset),
        (length, Then::Close),
        (length, Then::Reset),
        (cut_chunk, Then::Close),
        (nonsense, Then::Keep),
    ] {
        // In two steps, so that a reset does not overtake the bytes.
        let pause = Duration::from_millis(50);
        let steps = vec![(Duration::ZERO, bytes.into()), (pause, Vec::new())];
        origin.on("/broken", Behaviour::Steps(steps, then));
        let asked = origin.requests();
        let request = "GET /broken HTTP/1.1\r\nHost: a\r\n\r\n";
        let (status, rest) = all_of(&gateway, request).await;
        assert_eq!(status, 200, "{bytes} {then:?}");
        assert!(rest.contains("hello"), "{rest}");
        assert!(!rest.contains("\r\n0\r\n"), "looks complete: {rest}");
        assert_eq!(origin.requests(), asked + 1, "sent again: {bytes} {then:?}");
        lines += 1;
        let line = gateway.access_log(lines).await.pop().unwrap();
        assert_eq!(line["end"], "truncated", "{line}");
        assert_eq!(line["reason"], "upstream_broken", "{line}");
        assert_eq!((&line["status"], &line["tries"]), (&200.into(), &1.into()), "{line}");
        // Ejected or not, the gateway goes on.
        gateway.get("/").send().await.expect_status(200);
        lines += 1;
    }
    gateway.metric_is("upstream_failures_total", &[("kind", "broken")], 6.0).await;
}

#[tokio::test]
async fn a_response_that_breaks_off_resets_the_stream_of_an_http2_client() {
    let origin = Origin::start().await;
    origin.on("/broken", Behaviour::Half { promised: 10, sent: 5 });
    let gateway = Gateway::before(&[origin.address()], "").tls_listener("secure").start().await;
    let client = gateway.http2_client("secure");
    let mut broken = client.get("/broken").open().await;
    assert_eq!(broken.status, 200);
    loop {
        match broken.try_next().await {
            Ok(Some(bytes)) => assert_eq!(bytes, "xxxxx"),
            Ok(None) => panic!("the response looks complete"),
            Err(_) => break,
        }
    }
    client.get("/").send().await.expect_status(200);
}

#[tokio::test]
async fn an_endpoint_that_dies_before_it_answers_costs_a_get_another_try_and_a_post_502() {
    let (bad, good) = (Origin::named("bad").await, Origin::named("good").await);
    bad.answer(Behaviour::Reset);
    let conf = "[ejection]\nfailures = 100";
    let gateway = Gateway::before(&[bad.address(), good.address()], conf).start().await;
    let answers = gateway.get("/").times(10).await;
    answers.expect_status(200);
    assert_eq!((bad.requests(), good.requests()), (5, 10), "one half went to the bad one first");
    let mut refused = 0;
    for _ in 0..10 {
        let answer = gateway.post("/", "once").send().await;
        if answer.status != 200 {
            answer.expect_status(502).expect_code("upstream_broken");
            refused += 1;
        }
    }
    assert_eq!((refused, bad.requests(), good.requests()), (5, 10, 15));
    let retries = gateway.metrics().await.sum("upstream_retries_total", &[("upstream", "orders")]);
    assert_eq!(retries, 5.0);
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_502() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&[origin.address()], "").start().await;
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(2_000_000));
    for (bytes, then) in [
        ("SSH-2.0-OpenSSH_9.2p1\r\n", Then::Keep),
        ("not http at all\r\n\r\n", Then::Keep),
        ("HTTP/1.1 99999 Far Out\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", Then::Keep),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", Then::Keep),
        ("HTTP/1.1 200 OK\r\nx: y", Then::Close),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Then::Keep),
        ("", Then::Close),
        (&endless, Then::Keep),
    ] {
        origin.answer(Behaviour::Raw(bytes.into(), then));
        let began = Instant::now();
        let shown = &bytes[..bytes.len().min(60)];
        let answer = gateway.get("/").send().await;
        assert_eq!((answer.status, shown), (502, shown), "{}", answer.text());
        answer.expect_code("upstream_broken");
        assert!(began.elapsed() < Duration::from_secs(5), "{shown}: {:?}", began.elapsed());
    }
    origin.answer(Behaviour::Answer(Reply::text("ok")));
    gateway.get("/").send().await.expect_status(200);
}

#[tokio::test]
async fn when_every_endpoint_refuses_connections_the_answer_is_502_and_fast() {
    let conf = "[timeouts]\nconnect = '10s'\n[retry]\nretries = 2";
    let gateway = Gateway::before(&[nobody(), nobody()], conf).start().await;
    // Also once both are ejected.
    for method in ["GET", "POST"].repeat(5) {
        let began = Instant::now();
        let answer = gateway.request(method, "/").send().await;
        answer.expect_status(502).expect_code("upstream_unreachable");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    let lines = gateway.access_log(10).await;
    assert!(lines.iter().all(|line| line["tries"] == 2), "{lines:?}");
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_costs_no_request_of_any_method() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&[nobody(), origin.address()], EJECTION).start().await;
    for method in ["GET", "POST", "PATCH", "PUT"].repeat(5) {
        let answer = gateway.request(method, "/").body("body").send().await;
        answer.expect_status(200);
        assert_eq!(origin.last().body, b"body");
    }
    assert_eq!(origin.requests(), 20);
}

#[tokio::test]
async fn when_the_probes_of_all_endpoints_fail_the_answer_is_503_at_once() {
    let conf = "[health]\ntype = 'tcp'\ninterval = '50ms'\ntimeout = '50ms'\nunhealthy_after = 2";
    let gateway = Gateway::before(&[nobody(), nobody()], conf).start().await;
    gateway.metric_is("upstream_endpoint_up", &[("upstream", "orders")], 0.0).await;
    let client = Client::new(gateway.address());
    let mut took = Vec::new();
    for _ in 0..60 {
        let began = Instant::now();
        let answer = client.get("/").send().await;
        took.push(began.elapsed());
        answer.expect_status(503).expect_code("upstream_unhealthy");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=10).contains(&wait), "{wait}");
    }
    took.sort();
    assert!(took[50] < Duration::from_millis(10), "{took:?}");
    let tries = gateway.metrics().await.sum("upstream_failures_total", &[]);
    assert_eq!(tries, 0.0, "no endpoint was asked");
}

/// Kept apart from the loads above, which would hide a single lost request among many.
#[tokio::test]
async fn a_dead_endpoint_is_ejected_within_a_second_and_tried_again_later() {
    let (dead, good) = (Origin::named("dead").await, Origin::named("good").await);
    let conf = "[ejection]\nfailures = 3\nbase = '300ms'\nmax = '300ms'";
    let gateway = Gateway::before(&[dead.address(), good.address()], conf).start().await;
    dead.kill().await;
    let load: Running = Load::on(gateway.address()).rate(100).start();
    let began = Instant::now();
    gateway.metric_is("upstream_endpoint_up", &[("endpoint", &dead.authority())], 0.0).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    dead.revive().await;
    dead.reached(20).await;
    gateway.metric_is("upstream_endpoint_up", &[], 2.0).await;
    load.stop().await.expect_only(200);
    gateway.stderr().containing("endpoint is ejected").await;
    gateway.stderr().containing("endpoint is used again").await;
}
