//! What flows: WebSockets and server-sent events, each piece at once and for as long as it takes.

use crate::support::gateway::{Builder, Gateway};
use crate::support::http2::Http2;
use crate::support::raw::RawClient;
use crate::support::soon;
use crate::support::websocket::{self, Error, Message, WebSocket};
use crate::support::wire::{Head, Reader, Stream};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// Longer than every timeout of [`before`].
const LONG: Duration = Duration::from_millis(1_200);

/// Timeouts that a stream has to outlive, on a route that is none and on one that is.
fn before(upstream: SocketAddr) -> Builder {
    let times = "[timeouts]\nconnect = \"300ms\"\nper_try = \"300ms\"\ntotal = \"600ms\"";
    let route = |path: &str, more: &str| {
        format!("path = {path:?}\nauth = \"api_key\"\nupstream = \"u\"\n{more}\n{times}")
    };
    Gateway::builder()
        .tls_listener("secure")
        .plan("basic", "1000/s")
        .key("alice", "basic")
        .upstream("u", &[upstream])
        .route("ordinary", &route("/ordinary", "max_body = \"1KiB\""))
        .route("stream", &route("/stream", "stream = true"))
}

/// An upstream that the test plays itself.
struct Played(TcpListener);

impl Played {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next connection and its first request.
    async fn accept(&self) -> (Reader<Stream>, Head) {
        let (stream, _) = soon("a connection", self.0.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut reader: Reader<Stream> = Reader::new(Box::new(stream));
        let head = soon("a request", reader.head()).await.unwrap().unwrap();
        (reader, head)
    }
}

async fn say(reader: &mut Reader<Stream>, text: &str) {
    reader.stream.write_all(text.as_bytes()).await.unwrap();
    reader.stream.flush().await.unwrap();
}

/// The other side has gone away.
async fn expect_gone(reader: &mut Reader<Stream>) {
    let end = soon("the gateway to hang up", reader.some()).await;
    assert!(end.is_err() || end.is_ok_and(|bytes| bytes.is_empty()));
}

#[tokio::test]
async fn a_websocket_carries_messages_of_every_size_both_ways() {
    let echo = websocket::echo_server().await;
    let gateway = before(echo).start().await;
    let key = gateway.key("alice");
    let key = [("x-api-key", key.as_str())];
    let mut socket = WebSocket::open(gateway.address(), "/ordinary", &key).await.unwrap();
    assert_eq!(socket.response.status(), 101);
    assert_eq!(socket.response.headers()["x-request-id"].len(), 36);
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).await;
        assert!(socket.next().await == Some(message), "{size} bytes");
    }
    // Many small ones, sent before the first is read.
    for number in 0..200 {
        socket.send(Message::text(number.to_string())).await;
    }
    for number in 0..200 {
        assert_eq!(socket.next().await, Some(Message::text(number.to_string())));
    }
    socket.close().await;
    let line = &gateway.access_log(1).await[0];
    assert_eq!((&line["status"], &line["route"]), (&101.into(), &"ordinary".into()), "{line}");
    assert_eq!(line["end"], serde_json::Value::Null, "{line}");
}

#[tokio::test]
async fn an_upgrade_makes_a_stream_of_any_route() {
    let echo = websocket::echo_server().await;
    let gateway = before(echo).start().await;
    let key = gateway.key("alice");
    let key = [("x-api-key", key.as_str())];
    let mut socket = WebSocket::open(gateway.address(), "/ordinary", &key).await.unwrap();
    assert!(socket.is_quiet_for(LONG).await, "nothing comes, not even an end");
    socket.send(Message::text("still there")).await;
    assert_eq!(socket.next().await, Some(Message::text("still there")));
    socket.close().await;
}

#[tokio::test]
async fn a_websocket_is_upgraded_over_tls() {
    let echo = websocket::echo_server().await;
    let gateway = before(echo)
        .route("open", "path = \"/open\"\nauth = \"none\"\nupstream = \"u\"")
        .start()
        .await;
    let secure = gateway.listener("secure");
    assert!(websocket::echoes_over_tls(secure, &gateway.trust(), "/open", "hello").await);
}

#[tokio::test]
async fn an_upgrade_is_asked_for_and_answered_without_our_secrets() {
    let upstream = Played::start().await;
    let gateway = before(upstream.address()).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    let key = gateway.key("alice");
    client
        .send(format!(
            "GET /ordinary HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nX-Consumer-Id: forged\r\n\
             Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ))
        .await;
    let (mut reader, head) = upstream.accept().await;
    assert!(!head.text().contains(&key) && !head.text().contains("forged"), "{}", head.text());
    assert_eq!(head.headers("x-consumer-username"), ["alice"]);
    assert_eq!(head.headers("connection"), ["Upgrade"]);
    assert_eq!(head.headers("upgrade"), ["websocket"]);
    assert_eq!(head.headers("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    say(
        &mut reader,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst",
    )
    .await;
    let response = client.head().await;
    assert_eq!((response.status(), response.headers("upgrade")), (101, vec!["websocket".into()]));
    assert_eq!(client.exactly(5).await, b"first");
    // From here on nothing is HTTP, and nothing is counted as a body.
    client.send(vec![b'x'; 5_000]).await;
    let mut received = 0;
    while received < 5_000 {
        received += soon("bytes", reader.some()).await.unwrap().len();
    }
    say(&mut reader, "GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.exactly(18).await, b"GET / HTTP/1.1\r\n\r\n");
    client.finish_sending().await;
    drop(client);
    expect_gone(&mut reader).await;
}

#[tokio::test]
async fn the_end_of_one_side_of_a_websocket_is_the_end_of_the_other() {
    let upstream = Played::start().await;
    let gateway = before(upstream.address()).start().await;
    let key = gateway.key("alice");
    let request = format!(
        "GET /ordinary HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\n\r\n"
    );
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\n\r\n";
    for client_ends in [true, false] {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(&request).await;
        let (mut reader, _) = upstream.accept().await;
        say(&mut reader, switch).await;
        assert_eq!(client.head().await.status(), 101);
        if client_ends {
            client.reset();
            expect_gone(&mut reader).await;
        } else {
            drop(reader);
            client.expect_closed().await;
        }
    }
}

#[tokio::test]
async fn an_upgrade_passes_the_same_checks_as_a_request() {
    let upstream = Played::start().await;
    let gateway = before(upstream.address()).start().await;
    let refused = WebSocket::open(gateway.address(), "/ordinary", &[]).await;
    let Err(Error::Http(response)) = refused.map(|_| ()) else { panic!("upgraded") };
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    // What the upstream says instead is the client's to read.
    let key = gateway.key("alice");
    let mut client = RawClient::connect(gateway.address()).await;
    for _ in 0..2 {
        client
            .send(format!(
                "GET /ordinary HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\n\r\n"
            ))
            .await;
        let (mut reader, _) = upstream.accept().await;
        say(
            &mut reader,
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        )
        .await;
        let response = client.response().await;
        assert_eq!((response.status(), response.text().as_str()), (403, "no"));
    }
}

#[tokio::test]
async fn an_upgrade_that_does_not_happen_has_the_timeouts_of_its_route() {
    let upstream = Played::start().await;
    let gateway = before(upstream.address()).start().await;
    let key = gateway.key("alice");
    for wish in ["websocket", "h2c", "anything"] {
        let mut client = RawClient::connect(gateway.address()).await;
        client
            .send(format!(
                "GET /ordinary HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: Upgrade\r\n\
                 Upgrade: {wish}\r\n\r\n"
            ))
            .await;
        let (mut reader, _) = upstream.accept().await;
        say(&mut reader, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").await;

        assert_eq!(client.head().await.status(), 200);
        assert_eq!(client.exactly(5).await, b"01234");
        // Silence, which only a stream may keep.
        client.expect_closed().await;
        expect_gone(&mut reader).await;
    }
}

#[tokio::test]
async fn a_response_of_known_length_is_passed_on_as_it_comes() {
    let upstream = Played::start().await;
    let gateway = before(upstream.address()).start().await;
    let key = gateway.key("alice");
    for secure in [false, true] {
        let mut client = match secure {
            false => RawClient::connect(gateway.address()).await,
            true => {
                let address = gateway.listener("secure");
                RawClient::connect_tls(address, &gateway.trust(), &["http/1.1"]).await
            }
        };
        let request = format!("GET /stream HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n");
        client.send(request).await;
        let (mut reader, _) = upstream.accept().await;
        say(&mut reader, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(client.head().await.status(), 200);
        say(&mut reader, "01234").await;
        assert_eq!(client.exactly(5).await, b"01234");
        say(&mut reader, "56789").await;
        assert_eq!(client.exactly(5).await, b"56789");
    }
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                      Transfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn each_event_arrives_when_it_is_sent() {
    let upstream = Played::start().await;
    let gateway = before(upstream.address()).start().await;
    for client in [gateway.client(), gateway.http2_client("secure")] {
        let request = client.get("/stream").key("alice").header("accept", "text/event-stream");
        let (mut opened, mut reader) = tokio::join!(request.open(), async {
            let (mut reader, _) = upstream.accept().await;
            // The head alone, before there is any event.
            say(&mut reader, EVENTS).await;
            reader
        });
        assert_eq!(opened.status, 200);
        assert_eq!(opened.headers["content-type"], "text/event-stream");
        for number in 0..5 {
            // The next one is sent only after this one was received.
            say(&mut reader, &format!("9\r\ndata: {number}\n\n\r\n")).await;
            assert_eq!(opened.next().await.unwrap(), format!("data: {number}\n\n"));
        }
        say(&mut reader, "0\r\n\r\n").await;
        assert_eq!(opened.next().await, None);
    }
}

#[tokio::test]
async fn a_stream_may_be_silent_for_longer_than_any_timeout() {
    let upstream = Played::start().await;
    let gateway = before(upstream.address()).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    let key = gateway.key("alice");
    client.send(format!("GET /stream HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n")).await;
    let (mut reader, _) = upstream.accept().await;
    say(&mut reader, EVENTS).await;
    assert_eq!(client.head().await.status(), 200);
    assert!(client.is_quiet_for(LONG).await);
    say(&mut reader, "9\r\ndata: 1\n\n\r\n").await;
    assert_eq!(client.exactly(14).await, b"9\r\ndata: 1\n\n\r\n");
}

#[tokio::test]
async fn a_client_that_stops_listening_ends_the_stream_at_the_upstream() {
    let upstream = Played::start().await;
    let gateway = before(upstream.address()).start().await;
    let key = gateway.key("alice");
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(format!("GET /stream HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n")).await;
    let (mut reader, _) = upstream.accept().await;
    say(&mut reader, EVENTS).await;
    assert_eq!(client.head().await.status(), 200);
    drop(client);
    expect_gone(&mut reader).await;

    let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let exchange = client.begin("GET", "/stream", &[("x-api-key", &key)], true).await;
    let (mut reader, _) = upstream.accept().await;
    say(&mut reader, EVENTS).await;
    let response = exchange.open().await.unwrap();
    assert_eq!(response.status(), 200);
    // The stream ends, its connection does not.
    drop(response);
    expect_gone(&mut reader).await;
    let exchange = client.begin("GET", "/none", &[], true).await;
    assert_eq!(exchange.finish().await.unwrap().status, 404);
    for line in gateway.access_log(3).await.iter().filter(|line| line["route"] == "stream") {
        assert_eq!((&line["status"], &line["end"]), (&200.into(), &"client_gone".into()), "{line}");
    }
}
