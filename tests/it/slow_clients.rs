//! Clients that take their time, by accident or by intent, cost a bounded time and nobody else.

use crate::support::gateway::{Builder, Gateway};
use crate::support::http2::Http2;
use crate::support::http2_origin::Http2Origin;
use crate::support::load::Load;
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;
use crate::support::{Stopwatch, eventually_async};
use bytes::Bytes;
use std::time::Duration;

/// Every timeout of [`gateway`].
const TIMEOUT: Duration = Duration::from_secs(1);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(2);
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn builder(origin: &Origin) -> Builder {
    let times = r#"
        [http]
        handshake_timeout = "1s"
        head_timeout = "1s"
        idle_timeout = "1s"
        body_timeout = "1s"
        write_timeout = "1s"
        max_head = "2KiB"
        max_headers = 20
        max_target = "1KiB"
    "#;
    Gateway::builder()
        .toml(times)
        .upstream("origin", &[origin.address()])
        .route("all", "path = \"/*\"\nauth = \"none\"\nupstream = \"origin\"\nmax_body = \"64MiB\"")
        .tls_listener("secure")
}

#[track_caller]
fn expect_about_a_timeout(took: Duration) {
    assert!(took >= TIMEOUT.mul_f64(0.9), "too early: {took:?}");
    assert!(took < TIMEOUT + SLACK, "too late: {took:?}");
}

/// Waits until the gateway has no connection left.
async fn expect_deserted(gateway: &Gateway) {
    eventually_async("every connection to be closed", async || {
        let metrics = gateway.metrics().await;
        let open = ["connections_open", "requests_in_flight"].map(|name| metrics.sum(name, &[]));
        (open == [0.0, 0.0]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_says_nothing_is_closed_after_the_idle_timeout() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    let mut silent = RawClient::connect(gateway.address()).await;
    let took = Stopwatch::start();
    silent.expect_closed().await;
    expect_about_a_timeout(took.elapsed());

    let mut kept = RawClient::connect(gateway.address()).await;
    assert!(kept.exchange(GET).await.head.keeps_alive());
    let took = Stopwatch::start();
    kept.expect_closed().await;
    expect_about_a_timeout(took.elapsed());
}

#[tokio::test]
async fn a_head_has_a_time_in_all_and_not_for_each_byte() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    let mut half = RawClient::connect(gateway.address()).await;
    half.send("GET / HT").await;
    let took = Stopwatch::start();
    let response = half.response().await;
    expect_about_a_timeout(took.elapsed());
    assert_eq!(response.status(), 408);
    assert!(!response.head.keeps_alive());
    assert!(response.text().contains("\"code\":\"head_timeout\""), "{}", response.text());
    half.expect_closed().await;

    let mut dripping = RawClient::connect(gateway.address()).await;
    dripping.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
    let took = Stopwatch::start();
    while dripping.is_quiet_for(Duration::from_millis(100)).await {
        dripping.send("x").await;
        assert!(took.elapsed() < TIMEOUT + SLACK, "still waiting");
    }
    expect_about_a_timeout(took.elapsed());
    gateway.metric_is("heads_refused_total", &[("code", "head_timeout")], 2.0).await;
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_head_that_comes_slowly_but_in_time_is_answered() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    for _ in 0..3 {
        for piece in ["\r\nG", "ET ", "/ HTTP/1.1\r", "\nHost: a", "\r\n\r"] {
            client.send(piece).await;
            assert!(client.is_quiet_for(Duration::from_millis(20)).await);
        }
        assert_eq!(client.exchange("\n").await.status(), 200);
    }
}

#[tokio::test]
async fn a_head_has_a_size() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    let fields = (0..30).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let cases = [
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(3000)),
            431,
            "head_too_large",
        ),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(100_000)), 431, "head_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), 431, "too_many_fields"),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1200)), 414, "target_too_long"),
    ];
    for (request, status, code) in cases {
        let mut client = RawClient::connect(gateway.address()).await;
        // The answer may come before all is sent.
        drop(client.try_send(&request).await);
        let response = client.response().await;
        assert_eq!(response.status(), status, "{code}");
        assert!(response.text().contains(&format!("\"code\":\"{code}\"")), "{}", response.text());
        client.expect_closed().await;
    }
    gateway.metric_is("heads_refused_total", &[("code", "head_too_large")], 2.0).await;
    assert_eq!(origin.requests(), 0);
    expect_deserted(&gateway).await;
}

#[tokio::test]
async fn an_http2_head_has_the_same_size() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    let http2 = gateway.http2_client("secure");
    let get = || http2.get("/");
    let many = (0..30).fold(get(), |request, n| request.header(&format!("x-{n}"), "y"));
    many.send().await.expect_status(431).expect_code("too_many_fields");
    let long = format!("/{}", "x".repeat(1200));
    http2.get(&long).send().await.expect_status(414).expect_code("target_too_long");
    // The library refuses it before it is a request.
    get().header("x", &"x".repeat(3000)).send().await.expect_status(431);
    assert_eq!(origin.requests(), 0);
    get().send().await.expect_status(200);
    for code in ["too_many_fields", "target_too_long"] {
        gateway.metric_is("heads_refused_total", &[("code", code)], 1.0).await;
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n")).await;
        client.send("5\r\nhello\r\n").await;
        let took = Stopwatch::start();
        let response = client.response().await;
        expect_about_a_timeout(took.elapsed());
        assert_eq!(response.status(), 408, "{head}");
        assert!(!response.head.keeps_alive());
        assert!(response.text().contains("\"code\":\"body_timeout\""), "{}", response.text());
        client.expect_closed().await;
    }
    expect_deserted(&gateway).await;
    // It was not the upstream's fault.
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("upstream_failures_total", &[]), 0.0);
}

#[tokio::test]
async fn a_body_that_comes_slowly_arrives() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let gateway = builder(&origin).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n").await;
    for _ in 0..4 {
        assert!(client.is_quiet_for(TIMEOUT / 2).await);
        client.send([b'x'; 1000]).await;
    }
    let response = client.response().await;
    assert_eq!((response.status(), response.body), (200, vec![b'x'; 4000]));
}

#[tokio::test]
async fn a_body_that_only_drips_is_given_up() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n").await;
    let took = Stopwatch::start();
    while client.is_quiet_for(TIMEOUT / 5).await {
        client.send("x").await;
        assert!(took.elapsed() < TIMEOUT + SLACK, "still waiting");
    }
    expect_about_a_timeout(took.elapsed());
    let log = gateway.access_log(1).await;
    assert_eq!((&log[0]["status"], &log[0]["reason"]), (&408.into(), &"body_timeout".into()));
    expect_deserted(&gateway).await;
}

/// Sends a piece of a body over HTTP/2, and then one each so often.
async fn drip(gateway: &Gateway, path: &str, every: Option<Duration>) -> (u16, Duration) {
    let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let (mut body, response) = client.begin("POST", path, &[], false).await.split();
    let took = Stopwatch::start();
    let dripping = async {
        loop {
            body.send_data(Bytes::from_static(b"x"), false).unwrap();
            match every {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        response = response => (response.unwrap().status().as_u16(), took.elapsed()),
        () = dripping => unreachable!(),
    }
}

#[tokio::test]
async fn an_http2_body_that_stalls_or_drips_is_the_clients_fault() {
    let (origin, http2) = (Origin::start().await, Http2Origin::plain().await);
    http2.misbehave(true);
    // An endpoint may take its time, a client may not.
    let patient = "[upstreams.origin.timeouts]\nper_try = '10s'\ntotal = '10s'";
    let gateway = builder(&origin).toml(patient).start().await;
    for every in [None, Some(TIMEOUT / 5)] {
        let (status, took) = drip(&gateway, "/", every).await;
        assert_eq!(status, 408);
        expect_about_a_timeout(took);
    }
    let shared = Gateway::before(&[http2.address()], "protocol = 'http2'")
        .toml("[http]\nbody_timeout = '1s'\n[upstreams.orders.timeouts]\nper_try = '2s'")
        .tls_listener("secure")
        .start()
        .await;
    for every in [None, Some(TIMEOUT / 5)] {
        let (status, took) = drip(&shared, "/freeze", every).await;
        assert_eq!(status, 408);
        assert!(took < 2 * TIMEOUT + SLACK, "{took:?}");
    }
    for gateway in [&gateway, &shared] {
        let metrics = gateway.metrics().await;
        for name in ["upstream_failures_total", "upstream_errors_total"] {
            assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
        }
    }
}

#[tokio::test]
async fn an_http2_body_that_comes_slowly_arrives() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Echo);
    let gateway = builder(&origin).start().await;
    let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let mut exchange = client.begin("POST", "/", &[], false).await;
    for last in [false, false, false, false, true] {
        tokio::time::sleep(TIMEOUT / 2).await;
        exchange.body.send_data(Bytes::from(vec![b'x'; 1000]), last).unwrap();
    }
    let response = exchange.finish().await.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 5000));
}

#[tokio::test]
async fn who_does_not_read_is_cut_off() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::Answer(Reply::new(200).body(vec![b'x'; 32 << 20])));
    let gateway = builder(&origin).start().await;
    let mut http1 = RawClient::connect(gateway.address()).await;
    http1.send(GET).await;
    let (secure, trust) = (gateway.listener("secure"), gateway.trust());
    let mut tls = RawClient::connect_tls(secure, &trust, &[]).await;
    tls.send(GET).await;
    // Opened, and its body never asked for.
    let http2 = gateway.http2_client("secure");
    let unread = http2.get("/").open().await;
    origin.reached(3).await;
    let took = Stopwatch::start();
    let lines = gateway.access_log(3).await;
    assert!(took.elapsed() < TIMEOUT + 2 * SLACK, "{:?}", took.elapsed());
    for line in lines {
        assert_ne!(line["end"], "complete", "{line}");
    }
    drop((unread, http2));
    expect_deserted(&gateway).await;
    drop((http1, tls));
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut_off() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    for beginning in [&b""[..], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] {
        let mut client = RawClient::connect(gateway.listener("secure")).await;
        client.send(beginning).await;
        let took = Stopwatch::start();
        client.expect_closed().await;
        expect_about_a_timeout(took.elapsed());
    }
    gateway.metric_is("tls_handshakes_failed_total", &[("reason", "timeout")], 2.0).await;
}

#[tokio::test]
async fn an_http2_connection_that_says_nothing_is_closed() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    for said in [Vec::new(), PREFACE[..10].to_vec(), PREFACE.to_vec(), [PREFACE, SETTINGS].concat()]
    {
        let secure = gateway.listener("secure");
        let mut client = RawClient::connect_tls(secure, &gateway.trust(), &["h2"]).await;
        client.send(&said).await;
        let took = Stopwatch::start();
        // Its settings come, and whatever it says for a farewell.
        while !matches!(client.try_some().await.as_deref(), Ok([]) | Err(_)) {}
        expect_about_a_timeout(took.elapsed());
    }
    let http2 = gateway.http2_client("secure");
    http2.get("/").send().await.expect_status(200);
    expect_deserted(&gateway).await;
    http2.get("/").send().await.expect_status(200);
}

#[tokio::test]
async fn an_honest_client_does_not_notice_two_hundred_slow_ones() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    let honest = Load::on(gateway.address()).rate(50).expect_body(b"ok");
    let alone = honest.clone().run(Duration::from_secs(2)).await;
    alone.expect_only(200);
    let running = honest.clone().start();
    let fresh = honest.fresh().start();
    let control = Load::on(origin.address()).rate(50).start();
    let mut slow = Vec::new();
    let beginnings = [
        "",
        "GET / HTTP/1.1\r\nHo",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ];
    let span = Stopwatch::start();
    let mut opened = 0;
    while span.elapsed() < Duration::from_secs(3) {
        while slow.len() < 200 {
            let mut client = RawClient::connect(gateway.address()).await;
            client.send(beginnings[opened % beginnings.len()]).await;
            slow.push(client);
            opened += 1;
        }
        // As soon as some are thrown out, others take their places.
        let mut left = Vec::new();
        for mut client in slow {
            if client.is_quiet_for(Duration::from_millis(1)).await {
                left.push(client);
            }
        }
        slow = left;
    }
    let control = control.stop().await;
    for (name, summary) in [("kept", running.stop().await), ("fresh", fresh.stop().await)] {
        summary.expect_only(200).expect_p99(name, alone.percentile(0.99), &control);
    }
    drop(slow);
    expect_deserted(&gateway).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let origin = Origin::start().await;
    origin.decide(|head| {
        let reply = Reply::text(&head.target());
        match head.target().as_str() {
            "/slow" => Behaviour::After(Duration::from_millis(200), reply),
            _ => Behaviour::Answer(reply),
        }
    });
    let gateway = builder(&origin).start().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let together = [
        vec![get("/one"), get("/two"), get("/three")],
        vec![get("/slow"), get("/two"), get("/slow"), get("/four")],
        vec![get("/one"), post.to_owned(), get("/three")],
        vec![post.to_owned(), post.to_owned(), get("/three")],
    ];
    for requests in together {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(requests.concat()).await;
        for request in &requests {
            let response = client.response().await;
            let path = request.split(' ').nth(1).unwrap();
            assert_eq!((response.status(), response.text().as_str()), (200, path));
        }
        assert!(client.is_quiet_for(Duration::from_millis(50)).await);
    }
    // The second comes while the first is still at the upstream.
    let mut client = RawClient::connect(gateway.address()).await;
    let seen = origin.requests();
    client.send(get("/slow")).await;
    origin.reached(seen + 1).await;
    client.send(get("/two")).await;
    for path in ["/slow", "/two"] {
        let response = client.response().await;
        assert_eq!((response.status(), response.text().as_str()), (200, path));
    }
    // As old clients do: a line end behind a body.
    let mut client = RawClient::connect(gateway.address()).await;
    for _ in 0..2 {
        let response = client.exchange(format!("{post}\r\n")).await;
        assert_eq!((response.status(), response.text().as_str()), (200, "/post"));
    }
}

#[tokio::test]
async fn behind_a_chunked_body_the_connection_is_closed() {
    let origin = Origin::start().await;
    let gateway = builder(&origin).start().await;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut client = RawClient::connect(gateway.address()).await;
    let response = client.exchange(format!("{chunked}{GET}")).await;
    assert_eq!(response.status(), 200);
    client.expect_closed().await;
    assert_eq!(origin.requests(), 1);
    // One after the other, it is kept.
    let mut client = RawClient::connect(gateway.address()).await;
    for request in [chunked, GET, chunked] {
        assert_eq!(client.exchange(request).await.status(), 200);
    }
}

#[tokio::test]
async fn who_is_refused_while_sending_can_send_on_and_read_why() {
    let origin = Origin::start().await;
    let small = "path = \"/small\"\nauth = \"none\"\nupstream = \"origin\"\nmax_body = \"1KiB\"";
    let keyed = "path = \"/keyed\"\nauth = \"api_key\"\nupstream = \"origin\"\nmax_body = \"9MiB\"";
    let gateway = builder(&origin).route("small", small).route("keyed", keyed).start().await;
    let piece = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    for (path, status) in [("/small", 413), ("/keyed", 401)] {
        for framing in ["Transfer-Encoding: chunked", "Content-Length: 8388688"] {
            let mut client = RawClient::connect(gateway.address()).await;
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
            client.send(head).await;
            for _ in 0..8 {
                client.send(&piece).await;
            }
            let response = client.response().await;
            assert_eq!(response.status(), status, "{path} {framing}");
            client.expect_closed().await;
        }
    }
    expect_deserted(&gateway).await;
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let origin = Origin::start().await;
    let chunks = vec![b"one".to_vec(), b"two".to_vec()];
    origin.on("/chunks", Behaviour::Chunked { chunks, pause: Duration::ZERO });
    let gateway = builder(&origin).start().await;
    for (request, body) in [
        ("GET / HTTP/1.0\r\n\r\n", "ok"),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "ok"),
        ("GET /chunks HTTP/1.0\r\n\r\n", "onetwo"),
    ] {
        let mut client = RawClient::connect(gateway.address()).await;
        let response = client.exchange(request).await;
        assert_eq!((response.status(), response.text().as_str()), (200, body), "{request:?}");
        assert_eq!(response.head.header("transfer-encoding"), None);
        client.expect_closed().await;
    }
    let mut client = RawClient::connect(gateway.address()).await;
    for _ in 0..2 {
        let kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let response = client.exchange(kept).await;
        assert_eq!(response.status(), 200);
        let connection = response.head.header("connection");
        assert_eq!(connection.as_deref(), Some("keep-alive"));
    }
}
