//! The harness drives a gateway: every handle that other tests use works.

use crate::support::gateway::{Gateway, Reloaded, succeed};
use crate::support::grpc::{self, GrpcClient, Ping};
use crate::support::load::{self, Load};
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;
use crate::support::websocket::{self, Message, WebSocket};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn keys_tokens_limits_and_logs_are_within_reach() {
    let origin = Origin::named("a").await;
    let gateway = Gateway::builder()
        .upstream("orders", &[origin.address()])
        .route("orders", "path = '/orders/*'\nauth = ['api_key', 'jwt']\nupstream = 'orders'")
        .plan("basic", "2/min")
        .plan("wide", "1000/s")
        .key("k1", "basic")
        .start()
        .await;

    gateway.get("/orders/1").send().await.expect_status(401).expect_code("no_credential");
    gateway.get("/orders/1").key("k1").times(2).await.expect_status(200);
    let refused = gateway.get("/orders/1").key("k1").send().await;
    refused.expect_status(429).expect_code("rate_limited").expect_header("retry-after", "30");
    assert_eq!(origin.requests(), 2);
    assert_eq!(origin.last().head.header("x-consumer-username").as_deref(), Some("k1"));

    let later = gateway.issue_key("k2", "wide", &[]);
    gateway.get("/orders/1").key(&later).send().await.expect_status(200);
    gateway.get("/orders/1").bearer(&gateway.token("k2")).send().await.expect_status(200);
    gateway
        .get("/orders/1")
        .bearer(&gateway.sign_jwt(&json!({"sub": "k2", "exp": 1})))
        .send()
        .await
        .expect_status(401);

    let log = gateway.access_log(7).await;
    assert_eq!(log[3]["status"], 429);
    assert_eq!(log[3]["route"], "orders");
    gateway.metric_is("requests_total", &[("route", "orders")], 7.0).await;
    assert!(succeed(&gateway.cli(&["consumers", "list"])).contains("k2"));
}

#[tokio::test]
async fn a_reload_is_waited_for_and_told_apart() {
    let origin = Origin::start().await;
    let gateway = Gateway::builder()
        .upstream("o", &[origin.address()])
        .route("a", "path = '/a'\nauth = 'none'\nupstream = 'o'")
        .start()
        .await;
    gateway.get("/b").send().await.expect_status(404);
    gateway.write_conf("more.toml", "[routes.b]\npath = '/b'\nauth = 'none'\nupstream = 'o'\n");
    assert_eq!(
        gateway.reload_and_wait().await,
        Reloaded { result: "success".to_owned(), revision: 2 }
    );
    gateway.get("/b").send().await.expect_status(200);
    gateway.write_conf("more.toml", "[routes.b]\npath = '/b'\nupstream = 'nowhere'\n");
    // The watch sees both files; whichever of watch and signal comes first is counted.
    let refused = gateway.reload_and_wait().await;
    assert_eq!(refused.revision, 2);
    gateway.stderr().containing("nowhere").await;
    gateway.get("/b").send().await.expect_status(200);
}

#[tokio::test]
async fn it_stops_when_told() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::builder()
        .upstream("o", &[origin.address()])
        .route("a", "path = '/*'\nauth = 'none'\nupstream = 'o'")
        .start()
        .await;
    let mut raw = RawClient::connect(gateway.address()).await;
    assert_eq!(raw.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 200);
    let (status, took) = gateway.stop(Duration::from_secs(5)).await;
    assert!(status.success(), "{status} after {took:?}");
    raw.expect_closed().await;
}

#[tokio::test]
async fn what_does_not_start_says_why() {
    let failed = Gateway::builder().toml("listeners.public.address = 'nowhere'").try_start().await;
    let failed = failed.err().unwrap();
    assert!(!failed.status.success());
    assert!(failed.stderr.contains("nowhere"), "{}", failed.stderr);
}

#[tokio::test]
async fn streams_pass_and_loads_are_clean() {
    let (origin, ws, rpc) =
        (Origin::start().await, websocket::echo_server().await, grpc::echo_server().await);
    origin.answer(Behaviour::Answer(Reply::text("ok")));
    let gateway = Gateway::builder()
        .tls_listener("secure")
        .upstream("o", &[origin.address()])
        .upstream("ws", &[ws])
        .upstream_with("rpc", &[rpc], "protocol = 'http2'")
        .route("a", "path = '/a'\nauth = 'none'\nupstream = 'o'")
        .route("ws", "path = '/ws'\nauth = 'none'\nupstream = 'ws'\nstream = true")
        .route("rpc", "path = '/it.Echo/*'\nauth = 'none'\nupstream = 'rpc'\nstream = true")
        .start()
        .await;
    let secure = gateway.listener("secure");
    gateway.http2_client("secure").get("/a").send().await.expect_status(200);
    let mut socket = WebSocket::open(gateway.address(), "/ws", &[]).await.unwrap();
    socket.send(Message::text("hi")).await;
    assert_eq!(socket.next().await, Some(Message::text("hi")));
    assert!(websocket::echoes_over_tls(secure, &gateway.trust(), "/ws", "x").await);
    let mut client = GrpcClient::tls(secure, &gateway.trust()).await;
    assert_eq!(client.say(Ping::new("hi", 1)).await.unwrap(), Ping::new("hi", 1));
    let kept = Load::on(gateway.address()).get("/a").expect_body(b"ok");
    let loads = vec![
        kept.clone(),
        kept.clone().fresh(),
        Load::on(secure).get("/a").expect_body(b"ok").http2(gateway.trust()),
        kept.post("/a", b"body"),
    ];
    for summary in load::run_all(loads, Duration::from_millis(500)).await {
        summary.expect_only(200);
    }
}
