//! The harness itself: origins and clients do what the other tests take for granted.

use crate::support::client::Client;
use crate::support::grpc::{self, GrpcClient, Ping};
use crate::support::load::{Failure, Load};
use crate::support::origin::{Behaviour, Origin, Reply, Then};
use crate::support::origin_process::OriginProcess;
use crate::support::raw::RawClient;
use crate::support::tls::{self, Authority};
use crate::support::websocket::{self, Message, WebSocket};
use futures_util::StreamExt;
use std::time::Duration;
use tonic::Code;
use tonic::codegen::tokio_stream;

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn an_origin_remembers_what_it_was_sent_byte_for_byte() {
    let origin = Origin::named("a").await;
    let mut client = RawClient::connect(origin.address()).await;
    let request = "POST /a%20b?c HTTP/1.1\r\nhOsT: h\r\nx: 1\r\nx:2\r\ncontent-length: 2\r\n\r\nhi";
    let response = client.exchange(request).await;
    assert_eq!((response.status(), response.text().as_str()), (200, "ok"));
    assert_eq!(response.head.header("x-origin").as_deref(), Some("a"));
    let seen = origin.last();
    assert_eq!(seen.head.text() + "hi", request);
    assert_eq!(seen.body, b"hi");
    assert_eq!(seen.head.headers("X"), ["1", "2"]);
    assert_eq!(seen.head.target(), "/a%20b?c");
}

#[tokio::test]
async fn an_origin_follows_its_script() {
    let origin = Origin::start().await;
    origin
        .on("/teapot", Behaviour::Answer(Reply::new(418).header("a", "b").body("short")))
        .on("/late", Behaviour::After(Duration::from_millis(20), Reply::text("late")))
        .on("/echo", Behaviour::Echo)
        .on("/chunks", chunks(&["one", "two"]));
    let client = Client::new(origin.address());
    client.get("/teapot").send().await.expect_status(418).expect_header("a", "b");
    client.get("/late").send().await.expect_body("late");
    client.post("/echo", "there and back").send().await.expect_body("there and back");
    client.get("/chunks?x").send().await.expect_body("onetwo").expect_no_header("content-length");
    client.request("HEAD", "/late").send().await.expect_status(200).expect_body("");
    client.get("/").times(3).await.expect_status(200);
    assert_eq!((origin.requests(), origin.connections()), (8, 1));
    origin.decide(|head| Behaviour::Answer(Reply::text(&head.method())));
    client.request("PUT", "/late").send().await.expect_body("PUT");
}

fn chunks(parts: &[&str]) -> Behaviour {
    let chunks = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
    Behaviour::Chunked { chunks, pause: Duration::ZERO }
}

#[tokio::test]
async fn an_origin_fails_in_every_way() {
    let origin = Origin::start().await;
    origin
        .on("/reset", Behaviour::Reset)
        .on("/half", Behaviour::Half { promised: 100, sent: 10 })
        .on("/raw", Behaviour::Raw(b"HTTP/1.1 200 OK\r\n".to_vec(), Then::Close));
    let mut client = RawClient::connect(origin.address()).await;
    client.send("GET /reset HTTP/1.1\r\n\r\n").await;
    client.expect_closed().await;
    let mut client = RawClient::connect(origin.address()).await;
    client.send("GET /half HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.head().await.header("content-length").as_deref(), Some("100"));
    assert_eq!(client.some().await, b"xxxxxxxxxx");
    client.expect_closed().await;
    let mut client = RawClient::connect(origin.address()).await;
    client.send("GET /raw HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.some().await, b"HTTP/1.1 200 OK\r\n");
    client.expect_closed().await;
    origin.answer(Behaviour::Freeze);
    let mut client = RawClient::connect(origin.address()).await;
    client.send("POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n").await;
    assert!(client.is_quiet_for(Duration::from_millis(50)).await);
    assert_eq!(origin.requests(), 4);
    client.reset();
}

#[tokio::test]
async fn a_killed_origin_refuses_and_a_revived_one_answers_at_the_same_address() {
    let origin = Origin::start().await;
    let mut client = RawClient::connect(origin.address()).await;
    assert_eq!(client.exchange(GET).await.status(), 200);
    origin.kill().await;
    client.expect_closed().await;
    let refused = Client::new(origin.address()).get("/").try_send().await;
    assert!(refused.is_err());
    origin.revive().await;
    Client::new(origin.address()).get("/").send().await.expect_status(200);
}

#[tokio::test]
async fn an_origin_closes_connections_unannounced_when_told_to() {
    let origin = Origin::start().await;
    origin.close_after(2);
    let mut client = RawClient::connect(origin.address()).await;
    for _ in 0..2 {
        assert!(client.exchange(GET).await.head.keeps_alive());
    }
    client.expect_closed().await;
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Ticks { count: 3, every: Duration::from_millis(20) });
    let client = Client::new(origin.address());
    let mut events = client.get("/").open().await;
    assert_eq!(events.status, 200);
    for tick in 0..3 {
        assert_eq!(events.next().await.unwrap(), format!("data: {tick}\n\n"));
    }
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn an_origin_in_a_process_of_its_own_dies_freezes_and_comes_back() {
    let mut origin = OriginProcess::start("b").await;
    let load = Load::on(origin.address()).post("/p", b"body").expect_body(b"body");
    let summary = load.clone().run(Duration::from_millis(200)).await;
    summary.expect_only(200);
    let tags: Vec<_> = origin.journal().into_iter().map(|noted| noted.tag).collect();
    assert_eq!(tags.len(), summary.total());

    origin.freeze();
    let frozen = load.clone().timeout(Duration::from_millis(50));
    let frozen = frozen.run(Duration::from_millis(100)).await;
    assert_eq!(frozen.failures().keys().collect::<Vec<_>>(), [&Failure::Timeout]);
    origin.thaw();

    origin.kill();
    let dead = load.clone().run(Duration::from_millis(100)).await;
    assert_eq!(dead.failures().keys().collect::<Vec<_>>(), [&Failure::Refused]);
    origin.revive().await;
    load.run(Duration::from_millis(100)).await.expect_only(200);
}

#[tokio::test]
async fn tls_and_http2_clients_reach_their_servers() {
    let authority = Authority::new();
    let origin = Origin::tls(&authority, &[tls::NAME]).await;
    let client = Client::tls(origin.address(), authority.trust());
    client.get("/").send().await.expect_status(200);
    let mut raw = RawClient::connect_tls(origin.address(), &authority.trust(), &[]).await;
    assert_eq!(raw.exchange(GET).await.status(), 200);
    let stranger = Authority::new().trust();
    assert!(stranger.connect(origin.address(), &[]).await.is_err(), "an unknown authority");
    let elsewhere = authority.trust().expecting("example.com");
    assert!(elsewhere.connect(origin.address(), &[]).await.is_err(), "another name");
}

#[tokio::test]
async fn a_websocket_sends_messages_back() {
    let address = websocket::echo_server().await;
    let mut socket = WebSocket::open(address, "/ws", &[("x-a", "b")]).await.unwrap();
    assert_eq!(socket.response.status(), 101);
    for message in [Message::text("hello"), Message::binary(vec![7; 100_000])] {
        socket.send(message.clone()).await;
        assert_eq!(socket.next().await, Some(message));
    }
    socket.close().await;
}

#[tokio::test]
async fn grpc_calls_of_every_kind_are_answered() {
    let address = grpc::echo_server().await;
    let mut client = GrpcClient::plain(address).await.header("x-a", "b");
    assert_eq!(client.say(Ping::new("hi", 1)).await.unwrap(), Ping::new("hi", 1));
    assert_eq!(
        client.say(Ping::new("fail", 1)).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let counted = client.count(Ping::new("n", 3)).await.unwrap();
    let counted: Vec<_> = counted.map(|ping| ping.unwrap().count).collect().await;
    assert_eq!(counted, [0, 1, 2]);
    let pings = vec![Ping::new("a", 1), Ping::new("b", 2)];
    let back = client.chat(tokio_stream::iter(pings.clone())).await.unwrap();
    let back: Vec<_> = back.map(Result::unwrap).collect().await;
    assert_eq!(back, pings);
}

#[tokio::test]
async fn a_load_tells_every_kind_of_failure_apart() {
    let origin = Origin::start().await;
    origin
        .on("/reset", Behaviour::Reset)
        .on("/half", Behaviour::Half { promised: 100, sent: 10 })
        .on("/freeze", Behaviour::Freeze);
    let load = |path: &str| {
        let load = Load::on(origin.address()).get(path).connections(2).rate(50);
        load.timeout(Duration::from_millis(100)).expect_body(b"ok")
    };
    let span = Duration::from_millis(200);
    load("/").run(span).await.expect_only(200);
    load("/").fresh().run(span).await.expect_only(200);
    for (path, failure) in
        [("/reset", Failure::Reset), ("/half", Failure::Broken), ("/freeze", Failure::Timeout)]
    {
        let summary = load(path).run(span).await;
        assert_eq!(summary.failures().keys().collect::<Vec<_>>(), [&failure], "{path}");
    }
    origin.answer(Behaviour::Answer(Reply::text("not ok")));
    let wrong = load("/").run(span).await.failures();
    assert_eq!(wrong.keys().collect::<Vec<_>>(), [&Failure::Wrong]);
    origin.answer(Behaviour::Answer(Reply::text("ok"))).close_after(2);
    assert!(load("/").run(span).await.failures().contains_key(&Failure::Stale));
}

#[tokio::test]
async fn a_load_keeps_its_rate_and_ends_when_told() {
    let origin = Origin::start().await;
    let running = Load::on(origin.address()).rate(200).connections(4).start();
    running.goes_on(40).await;
    let elapsed = running.elapsed();
    let summary = running.stop().await;
    summary.expect_only(200);
    assert!(elapsed > Duration::from_millis(100), "40 requests at 200/s, not {elapsed:?}");
    assert_eq!(summary.total(), origin.requests());
    assert!(summary.percentile(0.5) <= summary.percentile(1.0));
    assert_eq!(summary.between(Duration::ZERO, Duration::MAX).total(), summary.total());
}
