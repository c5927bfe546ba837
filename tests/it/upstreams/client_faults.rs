//! What clients do wrong is theirs: never a 5xx, never held against an endpoint.

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway};
use crate::support::grpc::{self, GrpcClient, Ping};
use crate::support::http2::Http2;
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;
use crate::support::{eventually, soon};
use bytes::Bytes;
use std::time::Duration;

/// One failure would be seen at once.
const STRICT: &str = "[ejection]\nfailures = 1\nbase = '30s'\nmax = '30s'\n";

fn before(origin: &Origin) -> Builder {
    Gateway::before(&[origin.address()], STRICT)
}

async fn expect_no_blame(gateway: &Gateway) {
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("upstream_failures_total", &[]), 0.0);
    assert_eq!(metrics.sum("upstream_endpoint_up", &[]), 1.0);
    let failed = metrics.sum("gateway_requests_total", &[("status_class", "5xx")]);
    assert_eq!(failed, 0.0);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_upstream() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Silent);
    let gateway = before(&origin)
        .route("stream", "path = '/stream'\nauth = 'none'\nupstream = 'orders'\nstream = true")
        .start()
        .await;
    let whole = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let half = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbody";
    let chunk = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n";
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let stream = "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut asked, mut lines) = (0, 0);
    for request in [get, whole, half, chunk, stream] {
        for reset in [false, true] {
            let mut client = RawClient::connect(gateway.address()).await;
            client.send(request).await;
            asked += 1;
            origin.reached(asked).await;
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            origin.has_open(0).await;
            lines += 1;
            let line = gateway.access_log(lines).await.pop().unwrap();
            assert_eq!((&line["status"], &line["end"]), (&499.into(), &"client_gone".into()));
        }
    }
    assert_eq!(origin.requests(), asked, "sent again for nobody");
    expect_no_blame(&gateway).await;
    origin.answer(Behaviour::Answer(Reply::text("ok")));
    gateway.get("/").send().await.expect_status(200);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_response_ends_it_upstream() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Ticks { count: 100_000, every: Duration::from_millis(5) });
    let gateway = before(&origin).tls_listener("secure").start().await;
    for http2 in [false, true] {
        let client = if http2 { gateway.http2_client("secure") } else { gateway.client() };
        for asked in 1..=3 {
            let mut events = client.get("/").open().await;
            assert_eq!(events.next().await.unwrap(), "data: 0\n\n");
            assert_eq!(origin.open(), 1, "{asked}");
            drop(events);
            origin.has_open(0).await;
        }
    }
    let lines = gateway.access_log(6).await;
    assert!(lines.iter().all(|line| line["end"] == "client_gone"), "{lines:?}");
    expect_no_blame(&gateway).await;
}

#[tokio::test]
async fn an_http2_client_that_resets_its_stream_ends_the_request_upstream() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Silent);
    let gateway = before(&origin).tls_listener("secure").start().await;
    let client = gateway.http2_client("secure");
    for asked in 1..=3 {
        tokio::select! {
            answer = client.get("/").send() => panic!("answered: {}", answer.status),
            () = origin.reached(asked) => {}
        }
        origin.has_open(0).await;
    }
    expect_no_blame(&gateway).await;
}

#[tokio::test]
async fn an_http2_client_that_breaks_its_body_is_the_one_to_blame() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let gateway = before(&origin).tls_listener("secure").start().await;
    let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let mut lines = 0;
    for (fields, end) in [
        (&[("content-length", "9")][..], Some(true)),
        (&[("content-length", "3")], Some(false)),
        (&[("content-length", "9")], None),
        (&[], None),
    ] {
        let asked = origin.connections();
        let mut exchange = client.begin("POST", "/", fields, false).await;
        match end {
            // More or less than it said.
            Some(end) => drop(exchange.body.send_data(Bytes::from_static(b"body"), end)),
            None => {
                exchange.body.send_data(Bytes::from_static(b"body"), false).unwrap();
                eventually("the request upstream", || (origin.connections() > asked).then_some(()))
                    .await;
                exchange.body.send_reset(h2::Reason::CANCEL);
            }
        }
        let ended = exchange.finish().await;
        assert!(ended.is_err() || ended.is_ok_and(|it| it.status < 500), "{fields:?}");
        lines += 1;
        let line = gateway.access_log(lines).await.pop().unwrap();
        assert!(line["status"].as_u64().unwrap() < 500, "{line}");
        origin.has_open(0).await;
    }
    assert_eq!(client.get("/", &[]).await.status, 200, "the connection goes on");
    expect_no_blame(&gateway).await;
}

#[tokio::test]
async fn what_ends_before_it_is_a_request_is_nobodys_failure() {
    let origin = Origin::start().await;
    let gateway = before(&origin).tls_listener("secure").start().await;
    for begin in ["", "\r\n", "GET /", "GET / HTTP/1.1\r\nHost: a\r\n", "\x16\x03\x01\x02\x00\x01"]
    {
        for (address, reset) in
            [gateway.address(), gateway.listener("secure")].into_iter().zip([false, true])
        {
            let mut client = RawClient::connect(address).await;
            client.send(begin).await;
            if reset {
                client.reset();
            } else {
                drop(client);
            }
        }
    }
    gateway.metric_is("connections_open", &[], 0.0).await;
    assert_eq!((origin.requests(), gateway.stdout().all().len()), (0, 0));
    expect_no_blame(&gateway).await;
    let text = gateway.stderr().text();
    assert!(!text.contains("\"level\":\"error\"") && !text.contains("ERROR"), "{text}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_large_answer_is_recorded_as_gone() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Answer(Reply::new(200).body(vec![b'x'; 32 << 20])));
    let gateway = before(&origin).start().await;
    for (asked, reset) in [(1, false), (2, true)] {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.head().await.status(), 200);
        client.exactly(100_000).await;
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        let line = gateway.access_log(asked).await.pop().unwrap();
        assert_eq!((&line["status"], &line["end"]), (&200.into(), &"client_gone".into()), "{line}");
        origin.has_open(0).await;
    }
    expect_no_blame(&gateway).await;
}

#[tokio::test]
async fn a_grpc_client_that_gives_up_counts_only_when_the_endpoint_had_its_time() {
    // Accepts connections and never says a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let frozen = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    let good = grpc::echo_server().await;
    let conf = format!("protocol = 'http2'\n[timeouts]\nper_try = '300ms'\n{STRICT}");
    let gateway = Gateway::before(&[frozen, good], &conf)
        .route("all", "stream = true")
        .tls_listener("secure")
        .start()
        .await;
    let mut client = GrpcClient::tls(gateway.listener("secure"), &gateway.trust()).await;
    let mut said = async |patience: u64| {
        let patience = Duration::from_millis(patience);
        tokio::time::timeout(patience, client.say(Ping::new("hi", 1))).await.is_ok()
    };
    let hasty = [said(100).await, said(100).await];
    assert_eq!(hasty.iter().filter(|answered| **answered).count(), 1, "one of two is frozen");
    expect_no_blame_of(&gateway, 2.0).await;
    let patient = [said(600).await, said(600).await];
    assert_eq!(patient.iter().filter(|answered| **answered).count(), 1);
    gateway.metric_is("upstream_endpoint_up", &[("upstream", "orders")], 1.0).await;
    for _ in 0..10 {
        assert!(said(5_000).await, "the frozen endpoint is not asked any more");
    }
}

async fn expect_no_blame_of(gateway: &Gateway, up: f64) {
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("upstream_failures_total", &[]), 0.0);
    assert_eq!(metrics.sum("upstream_endpoint_up", &[]), up);
}

#[tokio::test]
async fn a_broken_request_body_is_400_and_never_complete_upstream() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let gateway = before(&origin).start().await;
    let mut refused = 0;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "zz\r\nbody\r\n0\r\n\r\n",
        "4\r\nbodyX\r\n0\r\n\r\n",
        "4\r\nbody\r\n-1\r\n\r\n",
        "4 \r\nbody\r\n4x\r\nbody\r\n0\r\n\r\n",
        "4\r\nbody\r\nffffffffffffffffff\r\nx",
    ] {
        for comes_later in [false, true] {
            let mut client = RawClient::connect(gateway.address()).await;
            if comes_later {
                client.send(format!("{head}2\r\nok\r\n")).await;
                // Passed on already, so that what follows is found wrong in the middle.
                origin.has_open(1).await;
                client.send(body).await;
            } else {
                client.send(format!("{head}{body}")).await;
            }
            let code = if comes_later { "malformed_body" } else { "ambiguous_framing" };
            let response = client.response().await;
            assert_eq!(response.status(), 400, "{body:?}: {}", response.text());
            assert!(response.text().contains(code), "{body:?}: {}", response.text());
            client.expect_closed().await;
            refused += usize::from(comes_later);
            origin.has_open(0).await;
            if comes_later {
                let line = gateway.access_log(refused).await.pop().unwrap();
                assert_eq!(line["reason"], code, "{line}");
                assert_eq!(line.get("end"), None, "told in full: {line}");
            }
        }
    }
    // Nobody upstream has read a whole body of these.
    origin.has_open(0).await;
    assert!(origin.seen().iter().all(|seen| seen.body.is_empty()), "{:?}", origin.seen());
    expect_no_blame(&gateway).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_no_fault_of_the_endpoint() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let gateway = before(&origin).route("all", "max_body = '10B'").start().await;
    let chunks = "4\r\nbody\r\n".repeat(3);
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
    ] {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(request).await;
        assert_eq!(client.response().await.status(), 413);
    }
    origin.has_open(0).await;
    expect_no_blame(&gateway).await;
    gateway.post("/", "0123456789").send().await.expect_status(200);
}

#[tokio::test]
async fn a_client_that_leaves_while_another_endpoint_is_tried_is_recorded_as_gone() {
    let (frozen, silent) = (Origin::named("frozen").await, Origin::named("silent").await);
    frozen.answer(Behaviour::Freeze);
    silent.answer(Behaviour::Silent);
    let conf = "[timeouts]\nper_try = '300ms'\n[ejection]\nfailures = 100";
    let gateway = Gateway::before(&[frozen.address(), silent.address()], conf).start().await;
    let client = Client::new(gateway.address());
    let sent = tokio::time::timeout(Duration::from_millis(450), client.get("/").send()).await;
    assert!(sent.is_err());
    let line = gateway.access_log(1).await.pop().unwrap();
    assert_eq!((&line["status"], &line["end"]), (&499.into(), &"client_gone".into()), "{line}");
    assert_eq!(line["tries"], 2, "{line}");
    soon("the end upstream", silent.has_open(0)).await;
}

/// Accepts, waits a while for more of the request, and gives up, as many servers do.
async fn impatient_server(patience: Duration) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                tokio::time::sleep(patience).await;
                drop(stream);
            });
        }
    });
    address
}

#[tokio::test]
async fn an_endpoint_that_gives_up_on_a_slow_client_is_not_to_blame() {
    let endpoint = impatient_server(Duration::from_millis(1500)).await;
    let gateway = Gateway::before(&[endpoint], STRICT).start().await;
    for framing in
        ["Content-Length: 9\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"]
    {
        let mut client = RawClient::connect(gateway.address()).await;
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}");
        assert_eq!(client.exchange(request).await.status(), 408, "{framing:?}");
    }
    expect_no_blame(&gateway).await;
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_ever_is_not_the_endpoints_fault() {
    let endpoint = impatient_server(Duration::from_secs(60)).await;
    let conf = format!("[timeouts]\nper_try = '500ms'\n{STRICT}");
    let gateway = Gateway::before(&[endpoint], &conf).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(client.exchange(request).await.status(), 408);
    expect_no_blame(&gateway).await;
}

#[tokio::test]
async fn a_wish_for_another_protocol_lifts_no_timeout() {
    let origin = Origin::start().await;
    let gateway = before(&origin).toml("[http]\nbody_timeout = '1s'").start().await;
    for upgrade in ["foo", "websocket"] {
        let mut client = RawClient::connect(gateway.address()).await;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: {upgrade}\r\nConnection: upgrade\r\n\
             Content-Length: 100000\r\n\r\n"
        );
        client.send(head).await;
        let drip = async {
            let mut pace = tokio::time::interval(Duration::from_millis(200));
            for _ in 0..12 {
                pace.tick().await;
                client.send("x").await;
            }
            client.response().await.status()
        };
        assert_eq!(soon("the refusal of a dripped body", drip).await, 408, "{upgrade}");
        assert!(origin.seen().iter().all(|seen| seen.head.header("upgrade").is_none()));
    }
    expect_no_blame(&gateway).await;
}

#[tokio::test]
async fn a_stream_may_take_longer_than_the_total_to_send_its_body() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::After(Duration::from_millis(300), Reply::text("done")));
    let conf = format!("[timeouts]\nconnect = '300ms'\nper_try = '800ms'\ntotal = '1s'\n{STRICT}");
    let gateway = Gateway::before(&[origin.address()], &conf)
        .route("stream", "path = '/stream'\nauth = 'none'\nupstream = 'orders'\nstream = true")
        .start()
        .await;
    for (path, status) in [("/stream", 200), ("/", 408)] {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")).await;
        let mut pace = tokio::time::interval(Duration::from_millis(250));
        for _ in 0..6 {
            pace.tick().await;
            client.send("x").await;
        }
        assert_eq!(client.response().await.status(), status, "{path}");
    }
    expect_no_blame(&gateway).await;
}
