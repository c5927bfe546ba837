//! Above its caps the gateway says so at once, goes on with what it has taken on, and keeps
//! answering those who look after it.

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway};
use crate::support::grpc::{self, GrpcClient, Ping};
use crate::support::http2::Http2;
use crate::support::load::{Load, Summary};
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::{RawClient, RawResponse};
use crate::support::websocket::{self, Message, WebSocket};
use crate::support::{Stopwatch, eventually_async, sized};
use crate::turn;
use std::time::Duration;
use tonic::Code;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

fn before(origin: &Origin, http: &str) -> Builder {
    Gateway::before(&[origin.address()], "").toml(&format!("[http]\n{http}")).tls_listener("secure")
}

#[track_caller]
fn expect_overloaded(response: &RawResponse) {
    assert_eq!(response.status(), 503);
    let text = response.text();
    assert!(text.contains("\"code\":\"overloaded\""), "{text}");
    assert!(text.contains("#temporary-reduced-capacity\""), "{text}");
    let wait: u64 = response.head.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=4).contains(&wait), "{wait}");
}

/// `share` of the requests within `bound`, or within what a busy machine takes.
#[track_caller]
fn expect_within(what: &str, it: &Summary, share: f64, bound: Duration, control: &Summary) {
    let (took, beside) = (it.percentile(share), control.percentile(0.99));
    let text = format!("{what}: {took:?} at {share}, p99 past the gateway {beside:?}");
    println!("{text}");
    // Tests of other crates, or builds, may have the machine's two processors.
    let busy = if share > 0.9 { Duration::from_millis(500) } else { Duration::ZERO };
    assert!(took <= bound + sized(beside * 3 + busy, Duration::ZERO), "{text}");
}

#[tokio::test]
async fn who_is_one_too_many_is_told_within_ten_milliseconds_and_health_goes_on() {
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    origin.on("/hold", Behaviour::Freeze);
    let gateway = before(&origin, "max_requests = 50").start().await;
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await;
        held.push(client);
    }
    origin.reached(50).await;
    let control = Load::on(origin.address()).rate(100).start();
    let excess = [
        ("kept", Load::on(gateway.address()).connections(20).rate(200).start()),
        ("new", Load::on(gateway.address()).fresh().connections(10).rate(50).start()),
        ("HTTP/2", Load::on(gateway.listener("secure")).http2(gateway.trust()).rate(100).start()),
    ];
    let health = Load::on(gateway.address()).get("/health").rate(20).start();
    let new_health = Load::on(gateway.address()).get("/health").fresh().rate(20).start();
    let metrics = Load::on(gateway.admin()).get("/metrics").connections(1).rate(10).start();
    tokio::time::sleep(sized(Duration::from_secs(3), Duration::from_secs(10))).await;
    let control = {
        let mut answered = Vec::new();
        for (name, load) in excess {
            answered.push((name, load.stop().await));
        }
        let looked = [("/health", health), ("/health, new", new_health), ("/metrics", metrics)];
        let mut well = Vec::new();
        for (name, load) in looked {
            well.push((name, load.stop().await));
        }
        let control = control.stop().await;
        for (name, it) in &answered {
            it.expect_only(503);
            // Without the first handshakes.
            let it = it.between(Duration::from_millis(500), Duration::MAX);
            let ten = Duration::from_millis(10);
            expect_within(name, &it, 0.5, ten, &control);
            expect_within(name, &it, 0.99, ten, &control);
        }
        for (name, it) in &well {
            it.expect_only(200);
            expect_within(name, it, 0.9, Duration::from_millis(50), &control);
            expect_within(name, it, 0.99, Duration::from_millis(50), &control);
        }
        control
    };
    control.expect_only(200);
    assert_eq!(origin.seen().iter().filter(|seen| seen.head.target() == "/hold").count(), 50);
    // A place that is left is free at once.
    held.pop();
    eventually_async("a free place", async || {
        (gateway.get("/").send().await.status == 200).then_some(())
    })
    .await;
    gateway.stderr().containing("http.max_requests").await;
    let told = gateway.stderr().all();
    let told = told.iter().filter(|line| line.contains("http.max_requests")).count();
    assert!(told <= 8, "said {told} times");
}

#[tokio::test]
async fn the_connection_of_who_is_refused_stays_and_its_next_request_may_pass() {
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    origin.on("/hold", Behaviour::Freeze);
    let gateway = before(&origin, "max_requests = 1").start().await;
    let mut held = RawClient::connect(gateway.address()).await;
    held.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.reached(1).await;
    let mut client = RawClient::connect(gateway.address()).await;
    for _ in 0..3 {
        let refused = client.exchange(GET).await;
        expect_overloaded(&refused);
        assert!(refused.head.keeps_alive());
        assert_eq!(client.exchange(HEALTH).await.status(), 200);
    }
    let mut http2 = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let refused = http2.get("/", &[]).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(http2.get("/health", &[]).await.status, 200);
    drop(held);
    eventually_async("the place", async || {
        (client.exchange(GET).await.status() == 200).then_some(())
    })
    .await;
    // A place is free a moment after its client has read the end of the answer.
    eventually_async("the place again", async || {
        (http2.get("/", &[]).await.status == 200).then_some(())
    })
    .await;
    let metrics = gateway.metrics().await;
    assert!(metrics.sum("heads_refused_total", &[("code", "overloaded")]) >= 4.0);
    let log = gateway.access_log(5).await;
    assert!(log.iter().any(|line| line["reason"] == "overloaded" && line["status"] == 503));
    let refused = log.iter().filter(|line| line["reason"] == "overloaded");
    for line in refused {
        assert_eq!(line["cause"], "max_requests", "{line}");
    }
}

#[tokio::test]
async fn calls_are_refused_in_their_own_words_and_streams_count() {
    let _turn = turn::mine().await;
    let (service, echo) = (grpc::echo_server().await, websocket::echo_server().await);
    let gateway = Gateway::builder()
        .toml("[http]\nmax_requests = 1")
        .tls_listener("secure")
        .upstream_with("rpc", &[service], "protocol = 'http2'")
        .upstream("echo", &[echo])
        .route("rpc", "path = '/it.Echo/*'\nauth = 'none'\nupstream = 'rpc'")
        .route("echo", "path = '/echo'\nauth = 'none'\nupstream = 'echo'")
        .start()
        .await;
    let mut calls = GrpcClient::tls(gateway.listener("secure"), &gateway.trust()).await;
    calls.say(Ping::new("hi", 1)).await.unwrap();
    let mut socket = eventually_async("the place of the call", async || {
        WebSocket::open(gateway.address(), "/echo", &[]).await.ok()
    })
    .await;
    let refused = calls.say(Ping::new("hi", 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.metadata().get("retry-after").is_some());
    socket.send(Message::text("on")).await;
    assert_eq!(socket.next().await, Some(Message::text("on")));
    socket.close().await;
    eventually_async("the place of the socket", async || calls.say(Ping::new("hi", 1)).await.ok())
        .await;
}

#[tokio::test]
async fn thrice_what_can_be_done_does_not_keep_it_from_being_done() {
    const PLACES: usize = 10;
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    origin.answer(Behaviour::After(Duration::from_millis(100), Reply::text("ok")));
    let gateway = before(&origin, &format!("max_requests = {PLACES}")).start().await;
    let span = sized(Duration::from_secs(3), Duration::from_secs(20));
    let at_most = Load::on(gateway.address()).connections(PLACES).rate(1_000);
    let best = at_most.run(span).await;
    assert!(best.failures().is_empty(), "{best:?}");
    let load = Load::on(gateway.address()).connections(60).rate(300);
    let over = load.run(span).await;
    let good = |summary: &Summary| summary.statuses().get(&200).copied().unwrap_or(0);
    println!("{} of {} with thrice the load, {} at best", good(&over), over.total(), good(&best));
    assert!(over.failures().is_empty(), "{over:?}");
    assert_eq!(over.statuses().keys().copied().collect::<Vec<_>>(), [200, 503]);
    let share = sized(80, 90);
    assert!(good(&over) * 100 >= good(&best) * share, "{} of {}", good(&over), good(&best));
}

#[tokio::test]
async fn above_the_cap_on_connections_some_are_heard_once() {
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    let gateway = before(&origin, "max_connections = 3\nidle_timeout = '60s'").start().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = RawClient::connect(gateway.address()).await;
        assert_eq!(client.exchange(GET).await.status(), 200);
        held.push(client);
    }
    let mut over = RawClient::connect(gateway.address()).await;
    let refused = over.exchange(GET).await;
    expect_overloaded(&refused);
    assert!(!refused.head.keeps_alive());
    over.expect_closed().await;
    let mut asks = RawClient::connect(gateway.address()).await;
    let healthy = asks.exchange(HEALTH).await;
    assert_eq!((healthy.status(), healthy.head.keeps_alive()), (200, false));
    asks.expect_closed().await;
    let secure = Client::tls(gateway.listener("secure"), gateway.trust());
    secure.get("/health").send().await.expect_status(200);
    let mut http2 = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let refused = http2.get("/", &[]).await;
    assert_eq!(refused.status, 503);
    // Who says nothing is not kept either.
    let mut silent = RawClient::connect(gateway.address()).await;
    let took = Stopwatch::start();
    silent.expect_closed().await;
    assert!(took.elapsed() < Duration::from_secs(10), "{:?}", took.elapsed());
    let refused = [("reason", "max_connections")];
    gateway.metric_is("connections_refused_total", &refused, 5.0).await;
    assert_eq!(origin.requests(), 3);
    gateway.stderr().containing("http.max_connections").await;
    // Who was there is served as before, and a place that is left is free again.
    for client in &mut held {
        assert_eq!(client.exchange(GET).await.status(), 200);
    }
    held.pop();
    eventually_async("a free place", async || {
        let answer = Client::new(gateway.address()).get("/").try_send().await;
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn health_is_answered_in_time_while_connections_storm_in() {
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    let gateway = before(&origin, "max_connections = 100\nidle_timeout = '60s'").start().await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut client = RawClient::connect(gateway.address()).await;
        assert_eq!(client.exchange(GET).await.status(), 200);
        held.push(client);
    }
    let control = Load::on(origin.address()).rate(100).start();
    let health = Load::on(gateway.address()).get("/health").fresh().rate(40).start();
    let metrics = Load::on(gateway.admin()).get("/metrics").connections(1).rate(10).start();
    let storm = Load::on(gateway.address()).fresh().connections(10).rate(150);
    let storm = storm.run(sized(Duration::from_secs(3), Duration::from_secs(20))).await;
    let (health, metrics) = (health.stop().await, metrics.stop().await);
    let control = control.stop().await;
    storm.expect_only(503);
    expect_within("refused", &storm, 0.5, Duration::from_millis(10), &control);
    for (name, it) in [("/health", health), ("/metrics", metrics)] {
        it.expect_only(200);
        expect_within(name, &it, 0.9, Duration::from_millis(50), &control);
        expect_within(name, &it, 0.99, Duration::from_millis(50), &control);
    }
    for client in &mut held {
        assert_eq!(client.exchange(GET).await.status(), 200);
    }
}

#[tokio::test]
async fn one_address_has_a_number_of_connections_and_a_trusted_proxy_has_none() {
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    let http = "max_connections_per_address = 2\nidle_timeout = '60s'";
    let gateway = before(&origin, http).start().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = RawClient::connect(gateway.address()).await;
        assert_eq!(client.exchange(GET).await.status(), 200);
        held.push(client);
    }
    for _ in 0..3 {
        RawClient::connect(gateway.address()).await.expect_closed().await;
    }
    let refused = [("reason", "max_connections_per_address")];
    gateway.metric_is("connections_refused_total", &refused, 3.0).await;
    let line = gateway.stderr().containing("too many connections").await;
    assert!(line.contains("127.0.0.1"), "{line}");
    held.pop();
    eventually_async("a free place", async || {
        let answer = Client::new(gateway.address()).get("/").try_send().await;
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;

    let trusting = format!("{http}\ntrusted_proxies = ['127.0.0.0/8']");
    let gateway = before(&origin, &trusting).start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = RawClient::connect(gateway.address()).await;
        assert_eq!(client.exchange(GET).await.status(), 200);
        clients.push(client);
    }
}
