//! HTTP/2 clients: of upstreams that speak HTTP/1, and of gRPC services.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Builder, Gateway};
use crate::support::grpc::{self, GrpcClient, Ping};
use crate::support::http2::Http2;
use crate::support::origin::{Behaviour, Origin, Reply};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Code;

fn before(origin: &Origin) -> Builder {
    Gateway::builder()
        .tls_listener("secure")
        .plan("basic", "1000/s")
        .key("alice", "basic")
        .upstream("u", &[origin.address()])
        .route("all", "path = \"/*\"\nauth = \"none\"\nupstream = \"u\"")
}

async fn connect(gateway: &Gateway) -> Http2 {
    Http2::connect(gateway.listener("secure"), &gateway.trust()).await
}

#[tokio::test]
async fn an_http1_upstream_gets_what_an_http1_client_would_have_sent() {
    let origin = Origin::start().await;
    let reply =
        Reply::text("ok").header("x-two", "1").header("x-two", "2").header("Keep-Alive", "5");
    origin.answer(Behaviour::Answer(reply));
    let gateway = before(&origin).start().await;
    let fields = [("te", "trailers"), ("x-two", "a"), ("x-two", "b"), ("accept", "*/*")];
    let response = connect(&gateway).await.get("/a%20b?c=d", &fields).await;
    assert_eq!((response.status, &response.body[..]), (200, &b"ok"[..]));
    let two: Vec<_> = response.headers.get_all("x-two").iter().collect();
    assert_eq!(two, ["1", "2"]);
    for name in ["connection", "keep-alive", "transfer-encoding"] {
        assert!(!response.headers.contains_key(name), "{name}");
    }
    let head = origin.last().head;
    assert_eq!(head.first_line(), "GET /a%20b?c=d HTTP/1.1");
    let authority = format!("localhost:{}", gateway.listener("secure").port());
    assert_eq!(head.headers("host"), [authority]);
    assert_eq!(head.headers("x-two"), ["a", "b"]);
    assert_eq!(head.header("transfer-encoding"), None, "there is no body");
    assert!(!head.text().contains(":authority") && !head.text().contains(":path"));
}

#[tokio::test]
async fn crumbs_of_a_cookie_are_one_field_for_an_http1_upstream() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let mut client = connect(&gateway).await;
    // RFC 9113 8.2.3: clients may send each on its own.
    client.get("/", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]).await;
    assert_eq!(origin.last().head.headers("cookie"), ["a=1; b=2; c=3; d=4"]);
    client.get("/", &[("cookie", "a=1")]).await;
    assert_eq!(origin.last().head.headers("cookie"), ["a=1"]);
}

#[tokio::test]
async fn many_streams_share_a_connection_and_none_waits_for_another() {
    let origin = Origin::start().await;
    origin.decide(|head| match head.target().as_str() {
        "/slow" => Behaviour::Freeze,
        target => Behaviour::Answer(Reply::text(target)),
    });
    let gateway = before(&origin).start().await;
    let mut client = connect(&gateway).await;
    let slow = client.begin("GET", "/slow", &[], true).await;
    let mut exchanges = Vec::new();
    for number in 0..80 {
        let exchange = client.begin("GET", &format!("/{number}"), &[], true).await;
        exchanges.push(exchange.finish());
    }
    for (number, response) in
        futures_util::future::join_all(exchanges).await.into_iter().enumerate()
    {
        let response = response.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(String::from_utf8(response.body).unwrap(), format!("/{number}"));
    }
    assert_eq!(origin.requests(), 81);
    drop(slow);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("connections_total", &[("listener", "secure")]), 1.0);
}

#[tokio::test]
async fn caps_on_heads_hold_for_http2_too() {
    let origin = Origin::start().await;
    let gateway = before(&origin)
        .toml("[http]\nmax_head = \"4KiB\"\nmax_headers = 20\nmax_target = \"256B\"")
        .start()
        .await;
    let mut client = connect(&gateway).await;
    let long = format!("/{}", "a".repeat(256));
    assert_eq!(client.get(&long, &[]).await.status, 414);
    let many: Vec<_> = (0..21).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "v")).collect();
    assert_eq!(client.get("/", &many).await.status, 431);
    let large = "v".repeat(5_000);
    let refused = client.begin("GET", "/", &[("x-large", &large)], true).await.finish().await;
    assert!(refused.is_err() || refused.is_ok_and(|response| response.status == 431));
    assert_eq!(origin.requests(), 0);
    let mut client = connect(&gateway).await;
    assert_eq!(client.get(&long[..255], &many[..15]).await.status, 200);
}

#[tokio::test]
async fn http1_over_tls_is_spoken_to_those_who_ask_for_it() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let client = Client::tls(gateway.listener("secure"), gateway.trust());
    client.get("/").times(3).await.expect_status(200);
    assert_eq!(origin.last().head.headers("x-forwarded-proto"), ["https"]);
    let logged = gateway.access_log(3).await;
    assert!(logged.iter().all(|line| line["tls"] == true && line["version"] == "1.1"));
}

async fn rpc() -> (Gateway, GrpcClient) {
    let service = grpc::echo_server().await;
    let gateway = Gateway::builder()
        .tls_listener("secure")
        .plan("basic", "1000/s")
        .plan("few", "2/h")
        .key("alice", "basic")
        .key("bob", "few")
        .upstream_with("rpc", &[service], "protocol = \"http2\"")
        .route(
            "rpc",
            "path = \"/it.Echo/*\"\nmethods = [\"POST\"]\nauth = \"api_key\"\nupstream = \"rpc\"",
        )
        .start()
        .await;
    let client = GrpcClient::tls(gateway.listener("secure"), &gateway.trust()).await;
    let client = client.header("x-api-key", &gateway.key("alice"));
    (gateway, client)
}

#[tokio::test]
async fn unary_calls_and_their_trailers_pass() {
    let (gateway, mut client) = rpc().await;
    for number in 0..5 {
        let ping = Ping::new("hi", number);
        assert_eq!(client.say(ping.clone()).await.unwrap(), ping);
    }
    let large = Ping::new(&"x".repeat(1_000_000), 1);
    assert_eq!(client.say(large.clone()).await.unwrap(), large);
    // The service's own refusal: its words, in its trailers.
    let refused = client.say(Ping::new("fail", 1)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "asked to"));
    assert_eq!(refused.metadata().get("x-request-id").unwrap().len(), 36);
    let logged = gateway.access_log(7).await;
    assert!(logged.iter().all(|line| line["status"] == 200 && line["end"].is_null()), "{logged:?}");
}

#[tokio::test]
async fn streams_of_a_service_arrive_message_by_message() {
    let (_gateway, mut client) = rpc().await;
    let mut counted = client.count(Ping::new("n", 20)).await.unwrap();
    for number in 0..20 {
        assert_eq!(counted.message().await.unwrap(), Some(Ping::new("n", number)));
    }
    assert_eq!(counted.message().await.unwrap(), None);
    assert!(counted.trailers().await.unwrap().is_some());
}

#[tokio::test]
async fn both_sides_of_a_call_talk_in_turns() {
    let (gateway, mut client) = rpc().await;
    let (say, heard) = mpsc::unbounded_channel();
    let pings = futures_util::stream::unfold(heard, |mut heard: mpsc::UnboundedReceiver<Ping>| {
        Box::pin(async move { heard.recv().await.map(|ping| (ping, heard)) })
    });
    say.send(Ping::new("0", 0)).unwrap();
    let mut chat = client.chat(pings).await.unwrap();
    assert_eq!(chat.message().await.unwrap(), Some(Ping::new("0", 0)));
    for number in 1..20 {
        // Each is sent only after the answer to the one before.
        say.send(Ping::new("turn", number)).unwrap();
        assert_eq!(chat.message().await.unwrap(), Some(Ping::new("turn", number)));
    }
    drop(say);
    assert_eq!(chat.message().await.unwrap(), None);
    drop(chat);
    // A caller that loses interest ends the call everywhere.
    let (say, heard) = mpsc::unbounded_channel();
    let pings = futures_util::stream::unfold(heard, |mut heard: mpsc::UnboundedReceiver<Ping>| {
        Box::pin(async move { heard.recv().await.map(|ping| (ping, heard)) })
    });
    say.send(Ping::new("0", 0)).unwrap();
    let chat = client.chat(pings).await.unwrap();
    drop((chat, say));
    drop(client);
    eventually("no call to be left", || (gateway.stdout().all().len() >= 2).then_some(())).await;
    gateway.metric_is("requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn a_refused_call_has_a_status_of_grpc() {
    let (gateway, mut client) = rpc().await;
    let secure = gateway.listener("secure");
    let mut stranger = GrpcClient::tls(secure, &gateway.trust()).await;
    let refused = stranger.say(Ping::new("hi", 1)).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unauthenticated, "A credential is required")
    );
    let bob = GrpcClient::tls(secure, &gateway.trust()).await;
    let mut bob = bob.header("x-api-key", &gateway.key("bob"));
    for _ in 0..2 {
        bob.say(Ping::new("hi", 1)).await.unwrap();
    }
    let refused = bob.count(Ping::new("hi", 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.metadata().get("retry-after").is_some());
    client.say(Ping::new("hi", 1)).await.unwrap();
    // HTTP/1 cannot carry calls, and is told so in its own words.
    gateway.get("/it.Echo/Say").send().await.expect_status(405);
}

#[tokio::test]
async fn a_large_upload_is_not_held_back_by_the_window_of_another() {
    let origin = Origin::start().await;
    origin.decide(|head| match head.target().as_str() {
        "/frozen" => Behaviour::Freeze,
        _ => Behaviour::Echo,
    });
    let gateway = before(&origin).start().await;
    let mut client = connect(&gateway).await;
    // Fills its window, since nobody reads it at the other end.
    let mut frozen = client.begin("POST", "/frozen", &[], false).await;
    frozen.body.send_data(Bytes::from(vec![b'x'; 60_000]), false).unwrap();
    origin.reached(1).await;
    let mut exchange = client.begin("POST", "/echo", &[], false).await;
    exchange.body.send_data(Bytes::from(vec![b'y'; 200_000]), true).unwrap();
    let response = tokio::time::timeout(Duration::from_secs(10), exchange.finish()).await;
    assert_eq!(response.expect("an answer").unwrap().body.len(), 200_000);
    drop(frozen);
}
