//! What is spoken at the door: TLS and which, HTTP/1, HTTP/2 by ALPN only.

use crate::support::client::Client;
use crate::support::eventually_async;
use crate::support::gateway::{Builder, Gateway};
use crate::support::raw::RawClient;

const REPLY: &str = "path = \"/*\"\nauth = \"none\"\nreply = { status = 200, body = \"here\" }";

fn builder() -> Builder {
    Gateway::builder().route("all", REPLY).tls_listener("secure")
}

#[tokio::test]
async fn http2_is_agreed_on_by_alpn_and_http1_is_the_rest() {
    let gateway = builder().start().await;
    let address = gateway.listener("secure");
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = gateway.trust().connect(address, offered).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol();
        assert_eq!(protocol, agreed.map(str::as_bytes), "{offered:?}");
    }
    let refused = gateway.trust().connect(address, &["spdy/3"]).await;
    assert!(refused.is_err(), "nothing in common");
    gateway.http2_client("secure").get("/").times(3).await.expect_status(200);
    Client::tls(address, gateway.trust()).get("/").times(3).await.expect_status(200);
}

#[tokio::test]
async fn http2_is_not_offered_where_the_listener_says_so() {
    let gateway = builder().toml("[listeners.secure.tls]\nhttp2 = false").start().await;
    let stream = gateway.trust().connect(gateway.listener("secure"), &["h2", "http/1.1"]).await;
    assert_eq!(stream.unwrap().get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn http2_without_tls_is_refused() {
    let gateway = builder().start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    let response = client.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(response.status(), 505);
    client.expect_closed().await;
    // An upgrade to h2c is an ordinary request here.
    let mut client = RawClient::connect(gateway.address()).await;
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    assert_eq!(client.exchange(upgrade).await.status(), 200);
}

#[tokio::test]
async fn who_does_not_speak_tls_at_a_tls_listener_is_counted_and_closed() {
    let gateway = builder().start().await;
    let mut client = RawClient::connect(gateway.listener("secure")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // Perhaps with a TLS alert first.
    while !matches!(client.try_some().await.as_deref(), Ok([]) | Err(_)) {}
    gateway.metric_is("tls_handshakes_failed_total", &[("reason", "protocol")], 1.0).await;
    eventually_async("the connection to be forgotten", async || {
        (gateway.metrics().await.sum("connections_open", &[]) == 0.0).then_some(())
    })
    .await;
    gateway.http2_client("secure").get("/").send().await.expect_status(200);
}
