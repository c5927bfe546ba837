//! How long a request may take, and whom a delay is blamed on.

use crate::support::gateway::Gateway;
use crate::support::grpc::{self, GrpcClient, Ping};
use crate::support::origin::{Behaviour, Origin, Reply, Then};
use crate::support::raw::RawClient;
use futures_util::StreamExt;
use std::time::{Duration, Instant};
use tonic::Code;

const MS: Duration = Duration::from_millis(1);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(600);

fn frozen_then_good() -> &'static str {
    "[timeouts]\nper_try = '200ms'\n[ejection]\nfailures = 100"
}

#[track_caller]
fn expect_took(began: Instant, at_least: Duration) {
    let took = began.elapsed();
    assert!(took >= at_least && took < at_least + SLACK, "{took:?} instead of {at_least:?}");
}

/// A body in pieces, one each `pause`.
fn dripping(pieces: usize, pause: Duration) -> Behaviour {
    Behaviour::Chunked { chunks: vec![b"drip".to_vec(); pieces], pause }
}

#[tokio::test]
async fn a_silent_endpoint_costs_a_get_one_try_and_a_post_504() {
    let (frozen, good) = (Origin::named("frozen").await, Origin::named("good").await);
    frozen.answer(Behaviour::Freeze);
    let endpoints = [frozen.address(), good.address()];
    let gateway = Gateway::before(&endpoints, frozen_then_good()).start().await;
    for _ in 0..4 {
        let (asked, began) = (frozen.requests(), Instant::now());
        gateway.get("/").send().await.expect_status(200);
        let waited = frozen.requests() - asked;
        expect_took(began, MS * 200 * u32::try_from(waited).unwrap());
    }
    assert_eq!((frozen.requests(), good.requests()), (2, 4));
    for body in ["", "once"] {
        let (mut timed_out, began) = (0, Instant::now());
        for _ in 0..2 {
            let answer = gateway.post("/", body).send().await;
            if answer.status != 200 {
                answer.expect_status(504).expect_code("upstream_timeout");
                timed_out += 1;
            }
        }
        assert_eq!(timed_out, 1);
        expect_took(began, MS * 200);
    }
    assert_eq!((frozen.requests(), good.requests()), (4, 6));
}

#[tokio::test]
async fn the_last_failure_is_what_the_client_is_told() {
    // One endpoint: there is no other to ask once it has failed.
    let origin = Origin::start().await;
    origin.on("/silent", Behaviour::Freeze).on("/broken", Behaviour::Reset);
    let gateway = Gateway::before(&[origin.address()], frozen_then_good()).start().await;
    let began = Instant::now();
    let silent = gateway.get("/silent").send().await;
    silent.expect_status(504).expect_code("upstream_timeout");
    expect_took(began, MS * 200);
    gateway.get("/broken").send().await.expect_status(502).expect_code("upstream_broken");
    let lines = gateway.access_log(2).await;
    for line in &lines {
        assert_eq!((&line["tries"], &line["endpoint"]), (&1.into(), &origin.authority().into()));
    }
    let retries = gateway.metrics().await.sum("upstream_retries_total", &[]);
    assert_eq!(retries, 0.0, "a try that did not happen is not counted");
}

#[tokio::test]
async fn all_tries_together_take_no_longer_than_the_total() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    for origin in &origins {
        origin.answer(Behaviour::Freeze);
    }
    let conf =
        "[timeouts]\nconnect = '200ms'\nper_try = '400ms'\ntotal = '600ms'\n[retry]\nretries = 2";
    let gateway = Gateway::before(&origins.each_ref().map(Origin::address), conf).start().await;
    for (method, total) in [("GET", MS * 600), ("PUT", MS * 600), ("POST", MS * 400)] {
        let began = Instant::now();
        let answer = gateway.request(method, "/").body("body").send().await;
        answer.expect_status(504).expect_code("upstream_timeout");
        expect_took(began, total);
    }
    assert_eq!(origins.iter().map(Origin::requests).sum::<usize>(), 2 + 2 + 1);
}

#[tokio::test]
async fn a_response_that_drips_is_cut_at_the_total_whatever_it_did_before() {
    let origin = Origin::start().await;
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndrip\r\n".to_vec();
    let late = vec![(Duration::ZERO, head.clone()), (MS * 400, b"4\r\ndrip\r\n".to_vec())];
    let until_close = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndrip".to_vec();
    let length = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ndrip".to_vec();
    origin
        .on("/drips", dripping(100, MS * 50))
        .on("/pauses", Behaviour::Steps(late, Then::Freeze))
        .on("/stops", Behaviour::Raw(head, Then::Freeze))
        .on("/length", Behaviour::Raw(length, Then::Freeze))
        .on("/until-close", Behaviour::Raw(until_close, Then::Freeze));
    let conf = "[timeouts]\nconnect = '200ms'\nper_try = '600ms'\ntotal = '700ms'";
    let gateway = Gateway::before(&[origin.address()], conf).start().await;
    let mut lines = 0;
    for method in ["GET", "POST"] {
        for path in ["/drips", "/pauses", "/stops", "/length", "/until-close"] {
            let began = Instant::now();
            let mut opened = gateway.request(method, path).body("body").open().await;
            assert_eq!(opened.status, 200);
            let cut = loop {
                match opened.try_next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            assert!(cut, "{method} {path} looks complete");
            expect_took(began, MS * 700);
            lines += 1;
            let line = gateway.access_log(lines).await.pop().unwrap();
            assert_eq!(line["end"], "truncated", "{line}");
            assert_eq!(line["reason"], "upstream_timeout", "{line}");
            assert_eq!(line["tries"], 1, "{line}");
        }
    }
    gateway.metric_is("upstream_endpoint_up", &[], 1.0).await;
}

#[tokio::test]
async fn a_response_that_pauses_longer_than_a_try_is_cut_and_blamed_on_the_endpoint() {
    let origin = Origin::start().await;
    let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ndrip".to_vec();
    origin.answer(Behaviour::Raw(begun, Then::Freeze));
    let conf = "[timeouts]\nper_try = '200ms'\n[ejection]\nfailures = 1\nbase = '10s'\nmax = '10s'";
    let gateway = Gateway::before(&[origin.address()], conf).start().await;
    let began = Instant::now();
    let broken = gateway.get("/").try_send().await;
    assert!(broken.is_err());
    expect_took(began, MS * 200);
    gateway.metric_is("upstream_failures_total", &[("kind", "timeout")], 1.0).await;
    gateway.metric_is("upstream_endpoint_up", &[], 0.0).await;
}

#[tokio::test]
async fn a_stream_has_a_deadline_for_its_head_and_none_for_its_silence() {
    let (frozen, good) = (Origin::named("frozen").await, Origin::named("good").await);
    frozen.answer(Behaviour::Freeze);
    good.answer(Behaviour::Ticks { count: 3, every: MS * 800 });
    let conf = "[timeouts]
connect = '1s'
per_try = '200ms'
total = '1500ms'
[ejection]
failures = 9";
    let gateway = Gateway::before(&[frozen.address(), good.address()], conf)
        .route("all", "stream = true")
        .start()
        .await;
    for _ in 0..2 {
        let mut events = gateway.get("/").open().await;
        assert_eq!(events.status, 200);
        for tick in 0..3 {
            assert_eq!(events.next().await.unwrap(), format!("data: {tick}\n\n"));
        }
        assert_eq!(events.next().await, None);
    }
    assert_eq!((frozen.requests(), good.requests()), (1, 2));
    // One of two goes to the silent endpoint, and a POST is not sent again.
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        let answer = gateway.post("/", "once").open().await;
        if answer.status != 200 {
            expect_took(began, MS * 200);
        }
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
    gateway.metric_is("upstream_failures_total", &[("kind", "timeout")], 2.0).await;
}

/// A request whose body comes in two halves with a pause between; the response.
async fn upload(gateway: &Gateway, target: &str, pause: Duration) -> (u16, String) {
    let mut client = RawClient::connect(gateway.address()).await;
    let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst");
    client.send(head).await;
    tokio::time::sleep(pause).await;
    // The gateway may have given up, which the response says.
    drop(client.try_send("other").await);
    let response = client.response().await;
    (response.status(), response.text())
}

#[tokio::test]
async fn a_client_that_pauses_inside_its_body_has_its_own_time_and_costs_no_endpoint() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let conf = "[timeouts]\nper_try = '200ms'\n[ejection]\nfailures = 1\nbase = '10s'\nmax = '10s'";
    let gateway = Gateway::before(&[origin.address()], conf)
        .route("stream", "path = '/stream'\nauth = 'none'\nupstream = 'orders'\nstream = true")
        .toml("[http]\nbody_timeout = '1s'")
        .start()
        .await;
    for target in ["/", "/stream"] {
        let (status, body) = upload(&gateway, target, MS * 500).await;
        assert_eq!((status, body.as_str()), (200, "firstother"), "{target}");
        let (status, body) = upload(&gateway, target, MS * 1500).await;
        assert_eq!(status, 408, "{target}: {body}");
        assert!(body.contains("body_timeout"), "{body}");
    }
    // One that was asked for its body and does not send it.
    let mut client = RawClient::connect(gateway.address()).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.head().await.status(), 100);
    assert_eq!(client.response().await.status(), 408);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("upstream_failures_total", &[]), 0.0);
    assert_eq!(metrics.sum("upstream_endpoint_up", &[]), 1.0);
}

#[tokio::test]
async fn an_upload_ends_at_the_total_too() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let conf = "[timeouts]\nconnect = '200ms'\nper_try = '300ms'\ntotal = '600ms'";
    let gateway = Gateway::before(&[origin.address()], conf).start().await;
    let began = Instant::now();
    let mut client = RawClient::connect(gateway.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await;
    let (status, text) = loop {
        if client.try_send("x").await.is_err() || began.elapsed() > MS * 2000 {
            panic!("no response after {:?}", began.elapsed());
        }
        let waited = tokio::time::timeout(MS * 50, client.response()).await;
        if let Ok(response) = waited {
            break (response.status(), response.text());
        }
    };
    assert_eq!(status, 408, "{text}");
    expect_took(began, MS * 600);
    assert_eq!(gateway.metrics().await.sum("upstream_failures_total", &[]), 0.0);
}

#[tokio::test]
async fn a_body_that_is_offered_is_waited_for_as_long_as_a_try_takes() {
    let origin = Origin::start().await;
    origin.on("/silent", Behaviour::Freeze).on("/", Behaviour::Echo);
    let conf = "[timeouts]\nper_try = '200ms'\n[ejection]\nfailures = 100";
    let gateway = Gateway::before(&[origin.address()], conf).start().await;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(head("/")).await;
    assert_eq!(client.head().await.status(), 100);
    tokio::time::sleep(MS * 400).await;
    client.send("hello").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text().as_str()), (200, "hello"));
    let mut client = RawClient::connect(gateway.address()).await;
    let began = Instant::now();
    client.send(head("/silent")).await;
    // An endpoint need not ask for it, and a client must not wait to be asked for ever (RFC 9110
    // 10.1.1), or any client could have any endpoint ejected.
    assert_eq!(client.response().await.status(), 408);
    expect_took(began, MS * 200);
    assert_eq!(gateway.metrics().await.sum("upstream_failures_total", &[]), 0.0);
}

#[tokio::test]
async fn a_slow_reader_is_not_held_against_the_endpoint() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Answer(Reply::new(200).body(vec![b'x'; 20_000_000])));
    let conf = "[timeouts]\nper_try = '200ms'\n[ejection]\nfailures = 1\nbase = '10s'\nmax = '10s'";
    let gateway = Gateway::before(&[origin.address()], conf).start().await;
    for request in ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 2\r\n"] {
        let body = if request.starts_with("POST") { "hi" } else { "" };
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(format!("{request}Host: a\r\n\r\n{body}")).await;
        assert_eq!(client.head().await.status(), 200);
        // Nobody reads: longer than the endpoint may be silent, with the buffers full.
        tokio::time::sleep(MS * 800).await;
        let mut received = 0;
        while received < 20_000_000 {
            let bytes = client.some().await;
            assert!(!bytes.is_empty(), "cut after {received} bytes");
            received += bytes.len();
        }
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("upstream_failures_total", &[]), 0.0);
    assert_eq!(metrics.sum("upstream_endpoint_up", &[]), 1.0);
}

#[tokio::test]
async fn a_grpc_call_may_be_silent_and_long() {
    let upstream = grpc::echo_server().await;
    let conf =
        "protocol = 'http2'\n[timeouts]\nconnect = '100ms'\nper_try = '100ms'\ntotal = '200ms'";
    let gateway = Gateway::before(&[upstream], conf)
        .route("all", "stream = true")
        .tls_listener("secure")
        .start()
        .await;
    let mut client = GrpcClient::tls(gateway.listener("secure"), &gateway.trust()).await;
    assert_eq!(client.say(Ping::new("hi", 1)).await.unwrap(), Ping::new("hi", 1));
    // Pings that come later than either timeout.
    let pings = futures_util::stream::iter(0..3).then(|count| async move {
        tokio::time::sleep(MS * 150).await;
        Ping::new("ping", count)
    });
    let back: Vec<_> = client.chat(Box::pin(pings)).await.unwrap().collect().await;
    let back: Vec<_> = back.into_iter().map(|ping| ping.unwrap().count).collect();
    assert_eq!(back, [0, 1, 2]);
    assert_eq!(
        client.say(Ping::new("fail", 1)).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
}
