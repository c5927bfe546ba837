//! Bodies: how large, how framed, how slow, and that they arrive whole.

use crate::support::client::Answer;
use crate::support::gateway::{Builder, Gateway};
use crate::support::http2::Http2;
use crate::support::origin::{Behaviour, Origin, Reply, Then};
use crate::support::raw::RawClient;
use crate::support::{eventually, soon};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt;

fn before(upstream: SocketAddr) -> Builder {
    Gateway::builder()
        .tls_listener("secure")
        .upstream("u", &[upstream])
        .route("ten", "path = \"/ten\"\nauth = \"none\"\nupstream = \"u\"\nmax_body = \"10B\"")
        .route(
            "length",
            "path = \"/length\"\nauth = \"none\"\nupstream = \"u\"\nrequire_length = true",
        )
        .route("big", "path = \"/big\"\nauth = \"none\"\nupstream = \"u\"\nmax_body = \"20MiB\"")
        .route(
            "fixed",
            "path = \"/fixed\"\nauth = \"none\"\nreply = { body = \"ok\" }\nmax_body = \"10B\"",
        )
}

/// An upstream that only listens: what it was sent on each connection, byte for byte.
struct Sink {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

#[derive(Clone, Default)]
struct Received {
    bytes: Vec<u8>,
    closed: bool,
}

impl Sink {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let all = Arc::clone(&received);
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(Received::default());
                    all.len() - 1
                };
                let all = Arc::clone(&all);
                #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        all.lock().unwrap()[number].bytes.extend(&buffer[..read]);
                    }
                    all.lock().unwrap()[number].closed = true;
                });
            }
        });
        Self { address, received }
    }

    /// What followed the heads, once every one of `count` connections is closed.
    async fn bodies(&self, count: usize) -> Vec<String> {
        let all = eventually("the gateway to give up", || {
            let all = self.received.lock().unwrap();
            (all.len() >= count && all.iter().all(|one| one.closed)).then(|| all.clone())
        })
        .await;
        let body = |one: &Received| {
            let text = String::from_utf8_lossy(&one.bytes).into_owned();
            text.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        all.iter().map(body).collect()
    }
}

const CHUNKED: &str = "HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_body_of_the_largest_size_passes_in_any_framing() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let gateway = before(origin.address()).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    let request = "POST /ten HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789";
    assert_eq!(client.exchange(request).await.text(), "0123456789");
    let request = format!("POST /ten {CHUNKED}4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\n\r\n");
    assert_eq!(client.exchange(request).await.text(), "0123456789");
    assert_eq!((origin.requests(), origin.connections()), (2, 1));

    let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    for fields in [&[("content-length", "10")][..], &[]] {
        let mut exchange = client.begin("POST", "/ten", fields, false).await;
        exchange.body.send_data(Bytes::from_static(b"0123"), false).unwrap();
        exchange.body.send_data(Bytes::from_static(b"456789"), true).unwrap();
        assert_eq!(exchange.finish().await.unwrap().body, b"0123456789");
    }
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_unread() {
    let origin = Origin::start().await;
    let gateway = before(origin.address()).start().await;
    for path in ["/ten", "/fixed"] {
        for length in ["11", "999999999999999999"] {
            let mut client = RawClient::connect(gateway.address()).await;
            let request = format!(
                "PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\
                 Expect: 100-continue\r\n\r\n"
            );
            let response = client.exchange(request).await;
            assert_eq!(response.status(), 413, "{path} {length}");
            assert!(response.text().contains("\"body_too_large\""));
            assert_eq!(response.head.headers("connection"), ["close"]);
            client.expect_closed().await;
        }
    }
    let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let exchange = client.begin("PUT", "/ten", &[("content-length", "11")], false).await;
    assert_eq!(exchange.finish().await.unwrap().status, 413);
    // The connection carries on.
    assert_eq!(client.get("/ten", &[]).await.status, 200);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_cut_off_before_the_upstream_has_more_than_it_may() {
    let sink = Sink::start().await;
    let gateway = before(sink.address).start().await;
    // PUT may be tried again; this one must not be.
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(format!("PUT /ten {CHUNKED}6\r\n012345\r\n")).await;
    eventually("the first chunk to arrive", || {
        let all = sink.received.lock().unwrap();
        all.first().and_then(|one| one.bytes.ends_with(b"012345\r\n").then_some(()))
    })
    .await;
    client.send("5\r\n6789a\r\n0\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.status(), 413);
    assert!(response.text().contains("\"body_too_large\""), "{}", response.text());
    assert_eq!(response.head.headers("connection"), ["close"]);
    client.expect_closed().await;
    assert_eq!(sink.bodies(1).await, ["6\r\n012345\r\n"]);

    let mut client = RawClient::connect(gateway.address()).await;
    let chunk = "x".repeat(100_000);
    client.send(format!("PUT /ten {CHUNKED}186a0\r\n{chunk}")).await;
    assert_eq!(client.response().await.status(), 413);

    let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let mut exchange = client.begin("PUT", "/ten", &[], false).await;
    exchange.body.send_data(Bytes::from_static(b"0123456789a"), false).unwrap();
    assert_eq!(exchange.finish().await.unwrap().status, 413);
    let bodies = sink.bodies(3).await;
    assert_eq!(bodies, ["6\r\n012345\r\n", "", ""]);
}

#[tokio::test]
async fn a_body_without_a_length_is_refused_where_the_route_wants_one() {
    let origin = Origin::start().await;
    let gateway = before(origin.address()).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    let response = client.exchange(format!("POST /length {CHUNKED}0\r\n\r\n")).await;
    assert_eq!(response.status(), 411);
    assert!(response.text().contains("\"length_required\""));
    let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let mut exchange = client.begin("POST", "/length", &[], false).await;
    exchange.body.send_data(Bytes::from_static(b"1"), true).unwrap();
    assert_eq!(exchange.finish().await.unwrap().status, 411);
    assert_eq!(origin.requests(), 0);

    gateway.post("/length", "1").send().await.expect_status(200);
    gateway.get("/length").send().await.expect_status(200);
    assert_eq!(client.get("/length", &[]).await.status, 200);
    let exchange = client.begin("POST", "/length", &[], true).await;
    assert_eq!(exchange.finish().await.unwrap().status, 200, "no body needs no length");
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_answered() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let gateway = before(origin.address()).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    client
        .send("POST /ten HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 100);
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_both_directions() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let gateway = before(origin.address()).start().await;
    let body: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let check = |answer: &Answer| {
        answer.expect_status(200);
        assert!(answer.body == body, "{} bytes", answer.body.len());
    };
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for _ in 0..2 {
            check(&client.post("/big", body.clone()).send().await);
        }
    }
    // Chunked, in pieces that fit nothing.
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(format!("POST /big {CHUNKED}")).await;
    for chunk in body.chunks(7_777) {
        client.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).await;
    }
    client.send("0\r\n\r\n").await;
    assert!(client.response().await.body == body);
    assert!(origin.last().body == body);
}

#[tokio::test]
async fn a_body_that_stops_half_way_is_given_up() {
    let sink = Sink::start().await;
    let times = "[http]\nbody_timeout = \"300ms\"\n[upstreams.u.timeouts]\nper_try = \"200ms\"";
    let gateway = before(sink.address).toml(times).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    client.send("POST /ten HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234").await;
    let response = client.response().await;
    assert_eq!(response.status(), 408);
    assert!(response.text().contains("\"body_timeout\""), "{}", response.text());
    client.expect_closed().await;
    assert_eq!(sink.bodies(1).await, ["01234"]);

    let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let mut exchange = client.begin("POST", "/ten", &[], false).await;
    exchange.body.send_data(Bytes::from_static(b"01234"), false).unwrap();
    assert_eq!(exchange.finish().await.unwrap().status, 408);
}

#[tokio::test]
async fn a_body_with_broken_chunks_is_refused() {
    let sink = Sink::start().await;
    let gateway = before(sink.address).start().await;
    for chunks in ["x\r\n", "-1\r\n", "5\r\nhelloX", "fffffffffffffffff\r\n", "5 5\r\nhello\r\n"] {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(format!("POST /ten {CHUNKED}{chunks}")).await;
        let response = client.response().await;
        assert!(matches!(response.status(), 400 | 413), "{chunks:?}: {}", response.text());
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let sink = Sink::start().await;
    let gateway = before(sink.address).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    client.send("POST /ten HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234").await;
    eventually("the body to arrive", || {
        let all = sink.received.lock().unwrap();
        all.first().and_then(|one| one.bytes.ends_with(b"01234").then_some(()))
    })
    .await;
    client.reset();
    assert_eq!(sink.bodies(1).await, ["01234"]);
    let line = &gateway.access_log(1).await[0];
    assert_eq!((&line["status"], &line["end"]), (&499.into(), &"client_gone".into()), "{line}");
}

#[tokio::test]
async fn a_response_that_ends_with_the_connection_is_framed_for_the_client() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Raw(b"HTTP/1.1 200 OK\r\n\r\nall of it".to_vec(), Then::Close));
    let gateway = before(origin.address()).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    for _ in 0..2 {
        let response = client.exchange("GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(response.text(), "all of it");
        assert!(response.head.keeps_alive());
    }
    gateway.http2_client("secure").get("/big").send().await.expect_body("all of it");
    // An HTTP/1.0 client knows no chunks.
    let mut client = RawClient::connect(gateway.address()).await;
    let request = "GET /big HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let response = client.exchange(request).await;
    assert_eq!(response.head.header("transfer-encoding"), None);
    assert_eq!(response.head.headers("connection"), ["close"]);
    assert_eq!(response.text(), "all of it");
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_made_to_look_whole() {
    let origin = Origin::start().await;
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec();
    origin.decide(move |head| match head.target().as_str() {
        "/big?half" => Behaviour::Half { promised: 100, sent: 10 },
        "/big?chunks" => Behaviour::Raw(chunks.clone(), Then::Close),
        _ => Behaviour::Answer(Reply::text("ok")),
    });
    let gateway = before(origin.address()).start().await;
    for target in ["/big?half", "/big?chunks"] {
        for client in [gateway.client(), gateway.http2_client("secure")] {
            let mut opened = client.get(target).open().await;
            assert_eq!(opened.status, 200);
            let end = async {
                loop {
                    match opened.try_next().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break "whole",
                        Err(_) => break "broken",
                    }
                }
            };
            assert_eq!(soon("the end", end).await, "broken", "{target}");
        }
    }
    let logged = gateway.access_log(4).await;
    assert!(logged.iter().all(|line| line["end"] == "truncated"), "{logged:?}");
    gateway.get("/big").send().await.expect_status(200);
}

#[tokio::test]
async fn an_upstream_may_answer_before_it_has_the_whole_body() {
    let early = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = before(early.local_addr().unwrap()).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    client.send("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx").await;
    let (mut stream, _) = soon("the gateway", early.accept()).await.unwrap();
    let mut head = [0; 64];
    soon("a head", stream.read(&mut head)).await.unwrap();
    let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
    let response = client.response().await;
    assert_eq!((response.status(), response.text().as_str()), (403, "no"));
    assert_eq!(response.head.headers("connection"), ["close"]);
    soon("the end", async {
        while client.try_send(vec![b'x'; 65_536]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
