//! What stays when a mixed load has gone by: nothing.
//!
//! The short form sees that descriptors, connections and requests are given back; `make soak` runs for
//! twenty minutes and looks at the slope of the memory besides.

use crate::support::client::Client;
use crate::support::credential;
use crate::support::gateway::{Builder, Gateway};
use crate::support::load::{Load, Running};
use crate::support::raw::RawClient;
use crate::support::websocket::{Message, WebSocket, echo_server};
use crate::support::{eventually, eventually_async, sized};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_secs(1);

/// An upstream that keeps nothing of what it was sent: any body is answered with 4 KiB, `/broken` with
/// the end of the connection.
async fn forgetful_origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = service_fn(async |request: http::Request<hyper::body::Incoming>| {
                    if request.uri().path() == "/broken" {
                        return Err("broken");
                    }
                    drop(http_body_util::BodyExt::collect(request.into_body()).await);
                    Ok(http::Response::new(Full::new(Bytes::from_static(&[b'x'; 4096]))))
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // Whoever leaves is gone.
                drop(served.await);
            });
        }
    });
    address
}

fn described(origin: SocketAddr, echo: SocketAddr) -> Builder {
    Gateway::builder()
        .toml("[http]\nidle_timeout = \"5s\"\nbody_timeout = \"2s\"\nhead_timeout = \"2s\"")
        // Full within the first minutes, so that what still grows later is none of them.
        .toml("[cache]\nkeys = 256\nunknown_keys = 256")
        .tls_listener("secure")
        .upstream("origin", &[origin])
        .upstream("echo", &[echo])
        .route("reply", "path = '/reply'\nauth = 'none'\nreply = { status = 200, body = 'here' }")
        .route(
            "open",
            "path = '/open/*'\nauth = 'none'\nupstream = 'origin'\nstrip_prefix = '/open'",
        )
        .route("closed", "path = '/closed'\nauth = ['api_key', 'jwt']\nupstream = 'origin'")
        .route("socket", "path = '/socket'\nauth = 'none'\nupstream = 'echo'\nstream = true")
        .plan("free", "20/s")
        .key("caller", "free")
}

/// One round of everything that no steady load does.
async fn oddities(gateway: &Gateway, round: u64) {
    let client = gateway.client();
    for number in 0..4 {
        let path = format!("/{round}/{number}/{:x}", rand::random::<u64>());
        client.get(&path).send().await.expect_status(404);
        let refused = client.get("/closed").key(&credential::invented()).send().await;
        // The store has 100 ms, which a busy machine may not give it.
        assert!(matches!(refused.status, 401 | 429 | 503), "{}", refused.status);
        // As many as the cache of keys has room for, so that the cache of tokens does not grow for good either.
        let claims = json!({ "sub": format!("nobody-{}", (4 * round + number) % 256), "exp": 4_000_000_000_u64 });
        let stranger = gateway.sign_jwt(&claims);
        let refused = client.get("/closed").header("authorization", &format!("Bearer {stranger}"));
        let refused = refused.send().await;
        assert!(matches!(refused.status, 401 | 429 | 503), "{}", refused.status);
    }
    let broken = client.get("/open/broken").send().await;
    assert!(matches!(broken.status, 502 | 503), "{}", broken.status);
    let mut socket = WebSocket::open(gateway.address(), "/socket", &[]).await.unwrap();
    socket.send(Message::text("hello")).await;
    assert_eq!(socket.next().await, Some(Message::text("hello")));
    socket.close().await;
    // Heads and bodies that are never finished, in three ways of leaving.
    for begun in
        ["GET /reply HT", "POST /open/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"]
    {
        let mut left = RawClient::connect(gateway.address()).await;
        left.send(begun).await;
        let mut reset = RawClient::connect(gateway.address()).await;
        reset.send(begun).await;
        reset.reset();
        let mut ended = RawClient::connect(gateway.address()).await;
        ended.send(begun).await;
        ended.finish_sending().await;
    }
    let mut bad = RawClient::connect(gateway.address()).await;
    bad.send("GET /reply HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert_eq!(bad.response().await.status(), 400);
}

/// Loads of every kind, a quarter of which is refused.
fn loads(gateway: &Gateway) -> Vec<Running> {
    let key = gateway.key("caller");
    let token = format!("Bearer {}", gateway.token("caller"));
    let on = || Load::on(gateway.address()).rate(25).connections(3);
    let secure = Load::on(gateway.listener("secure")).rate(25).http2(gateway.trust());
    [
        on().get("/reply"),
        on().get("/open/thing"),
        on().get("/open/thing").fresh(),
        on().get("/closed").header("x-api-key", &key),
        on().get("/closed").header("authorization", &token),
        on().post("/open/upload", &[b'u'; 20_000]),
        secure.get("/open/thing"),
        Load::on(gateway.listener("secure")).rate(10).http2(gateway.trust()).post("/closed", b"x"),
    ]
    .map(Load::start)
    .into()
}

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    descriptors: usize,
    threads: usize,
}

fn holdings(gateway: &mut Gateway) -> Holdings {
    let threads = format!("/proc/{}/task", gateway.process().pid());
    Holdings {
        descriptors: gateway.process().descriptors(),
        threads: std::fs::read_dir(threads).unwrap().count(),
    }
}

/// By how many bytes a second memory grew over the second half of `samples`: the slope of the line
/// with the least squares through them.
#[expect(clippy::cast_precision_loss, reason = "memory of one process, in bytes")]
fn slope(samples: &[(Duration, u64)]) -> f64 {
    let half = &samples[samples.len() / 2..];
    let points: Vec<(f64, f64)> =
        half.iter().map(|(at, bytes)| (at.as_secs_f64(), *bytes as f64)).collect();
    let count = points.len() as f64;
    let (mean_x, mean_y) = (
        points.iter().map(|point| point.0).sum::<f64>() / count,
        points.iter().map(|point| point.1).sum::<f64>() / count,
    );
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    covariance / variance
}

#[tokio::test(flavor = "multi_thread")]
async fn soak_every_kind_of_client_leaves_nothing_behind() {
    let span = sized(Duration::from_secs(10), Duration::from_secs(20 * 60));
    let (origin, echo) = (forgetful_origin().await, echo_server().await);
    let mut gateway = described(origin, echo).start().await;
    // Once, so that what is made at first use is there.
    oddities(&gateway, 0).await;
    gateway.get("/open/thing").send().await.expect_status(200);
    let before = holdings(&mut gateway);
    let began = Instant::now();
    let running = loads(&gateway);
    let (mut samples, mut round) = (Vec::new(), 0);
    while began.elapsed() < span {
        round += 1;
        oddities(&gateway, round).await;
        if round % 5 == 0 {
            let body =
                format!("[routes.more]\npath = '/more/{}'\nauth = 'none'\nreply = {{}}", round % 2);
            gateway.write_conf("more.toml", &body);
            assert_eq!(gateway.reload_and_wait().await.result, "success");
        }
        samples.push((began.elapsed(), gateway.process().resident()));
        tokio::time::sleep(LOOK).await;
    }
    let mut requests = 0;
    for load in running {
        let summary = load.stop().await;
        requests += summary.total();
        assert!(summary.failures().is_empty(), "{summary:?}");
        let odd =
            summary.statuses().into_keys().find(|status| !matches!(status, 200 | 401 | 429 | 503));
        assert_eq!(odd, None, "{summary:?}");
    }
    let growth = slope(&samples) * 600.0 / 1_048_576.0;
    println!("{requests} requests in {span:?}; memory {samples:?}; {growth:.2} MiB per 10 minutes");
    if span >= Duration::from_secs(600) {
        assert!(growth <= 1.0, "memory grows by {growth:.2} MiB per 10 minutes");
    }
    gateway.metric_is("requests_in_flight", &[], 0.0).await;
    eventually_async("connections to be closed", async || {
        (gateway.metrics().await.sum("connections_open", &[]) == 0.0).then_some(())
    })
    .await;
    // Idle connections to upstreams are kept, as many as the load had at once.
    let most = before.descriptors + 40;
    eventually("descriptors to be given back", || {
        (gateway.process().descriptors() <= most).then_some(())
    })
    .await;
    let after = holdings(&mut gateway);
    println!("before {before:?}, after {after:?}");
    assert!(after.threads <= before.threads + 1, "{before:?} {after:?}");
    Client::new(gateway.admin()).get("/livez").send().await.expect_status(200);
}
