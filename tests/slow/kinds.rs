//! Two thousand slow clients of each kind: each is shown out at its deadline, and an honest client
//! beside them notices nothing.

use crate::support::gateway::Gateway;
use crate::support::load::{Load, Summary};
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::{Stopwatch, eventually, eventually_async, sized, soon};
use crate::turn;
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Slow clients of a kind.
const CLIENTS: usize = 2_000;
/// The timeout that a kind runs into.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Every other timeout.
const FAR: &str = "60s";
/// The promise to the honest.
const P99: Duration = Duration::from_millis(50);

/// How a client is slow.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// The timeout of `[http]` that ends it.
    timeout: &'static str,
    /// On the listener with TLS.
    tls: bool,
    /// What is sent first.
    begin: &'static [u8],
    /// The response to that is read before the time runs.
    answered: bool,
    /// Sent again and again from then on.
    drip: &'static [u8],
    /// Between two of them.
    every: Duration,
    /// What it is told in the end.
    told: Option<&'static str>,
}

const SILENT: Kind = Kind {
    name: "silent",
    timeout: "idle_timeout",
    tls: false,
    begin: b"",
    answered: false,
    drip: b"",
    every: Duration::from_millis(500),
    told: None,
};
const POST: &[u8] = b"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nab";
/// The beginning of a ClientHello.
const HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01];

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// One slow client from beginning to end: how long it was kept, and what it was told.
async fn linger(kind: Kind, address: SocketAddr) -> (Duration, String) {
    let mut stream = connect(address).await;
    let mut kept = Stopwatch::start();
    stream.write_all(kind.begin).await.unwrap();
    let (mut told, mut space) = (Vec::new(), [0; 2048]);
    if kind.answered {
        let count = soon("an answer", stream.read(&mut space)).await.unwrap();
        assert!(space[..count].starts_with(b"HTTP/1.1 200"));
        kept = Stopwatch::start();
    }
    loop {
        match tokio::time::timeout(kind.every, stream.read(&mut space)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(count)) => told.extend_from_slice(&space[..count]),
            // A write may meet a connection that was closed meanwhile.
            Err(_) => drop(stream.write_all(kind.drip).await),
        }
        assert!(kept.elapsed() < 10 * TIMEOUT, "{}: never closed", kind.name);
    }
    (kept.elapsed(), String::from_utf8_lossy(&told).into_owned())
}

async fn start(origin: &Origin, timeout: &str) -> Gateway {
    let timeouts =
        ["handshake_timeout", "head_timeout", "idle_timeout", "body_timeout", "write_timeout"];
    let mut http = "[http]\nmax_connections_per_address = 10000\n".to_owned();
    for name in timeouts {
        let value = if name == timeout { format!("{TIMEOUT:?}") } else { FAR.to_owned() };
        http.push_str(&format!("{name} = \"{value}\"\n"));
    }
    Gateway::builder()
        .toml(&http)
        .upstream_with("o", &[origin.address()], "[timeouts]\nper_try = '60s'\ntotal = '60s'")
        .route("all", "path = '/*'\nauth = 'none'\nupstream = 'o'\nmax_body = '1MiB'")
        .tls_listener("secure")
        .start()
        .await
}

async fn origin() -> Origin {
    let origin = Origin::start().await;
    origin.on("/sink", Behaviour::Freeze);
    origin.on("/large", Behaviour::Answer(Reply::new(200).body(vec![b'x'; LARGE])));
    origin
}

/// The honest client lost nothing, and waited no longer than it would have without the slow ones;
/// `control` went past the gateway at the same time.
#[track_caller]
fn expect_unharmed(kind: &str, alone: &Summary, beside: &Summary, control: &Summary) {
    beside.expect_only(200);
    let p99 = |summary: &Summary| summary.percentile(0.99);
    let text = format!(
        "{kind}: honest p50 {:?}, p99 {:?}; without the slow ones p99 {:?}; past the gateway {:?}",
        beside.percentile(0.5),
        p99(beside),
        p99(alone),
        p99(control)
    );
    println!("{text}");
    // Tests of other crates, or builds, may have the machine's two processors.
    let busy = p99(alone) * 3 + p99(control) * 3;
    let most = |usual: Duration| sized(usual.max(busy), P99);
    assert!(beside.percentile(0.9) <= most(P99), "{text}");
    assert!(p99(beside) <= most(10 * P99), "{text}");
}

/// Waits until nobody but the honest is left.
async fn expect_deserted(gateway: &Gateway) {
    eventually_async("the slow ones to be gone", async || {
        (gateway.metrics().await.sum("connections_open", &[]) < 10.0).then_some(())
    })
    .await;
}

async fn crowd(kind: Kind) {
    let _turn = turn::mine().await;
    let origin = origin().await;
    let mut gateway = start(&origin, kind.timeout).await;
    let address = if kind.tls { gateway.listener("secure") } else { gateway.address() };
    let honest = Load::on(gateway.address()).rate(100).expect_body(b"ok");
    let alone = honest.clone().run(Duration::from_secs(1)).await;
    let (beside, control) = (honest.start(), Load::on(origin.address()).rate(100).start());

    let mut slow = JoinSet::new();
    for number in 0..CLIENTS {
        slow.spawn(linger(kind, address));
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
    }
    let all_there = beside.elapsed();
    let mut kept = Vec::new();
    while let Some(ended) = soon("the slow ones to end", slow.join_next()).await {
        let (span, told) = ended.unwrap();
        match kind.told {
            Some(code) => assert!(told.contains(code), "{}: {told:?}", kind.name),
            None => assert_eq!(told, "", "{}", kind.name),
        }
        kept.push(span);
    }
    let (beside, control) = (beside.stop().await, control.stop().await);
    kept.sort();
    let (first, median, last) = (kept[0], kept[CLIENTS / 2], kept[CLIENTS - 1]);
    println!("{}: kept for {first:?} to {last:?}, half of them {median:?}", kind.name);
    assert!(first >= TIMEOUT.mul_f64(0.95), "too early: {first:?}");
    // A drip is needed to see that a body comes too slowly.
    assert!(median < TIMEOUT + 2 * kind.every, "too late: {median:?}");
    assert!(last < TIMEOUT * 2 + 2 * kind.every, "too late: {last:?}");
    beside.expect_only(200);
    let beside = beside.between(all_there, Duration::MAX);
    expect_unharmed(kind.name, &alone, &beside, &control);
    expect_deserted(&gateway).await;
    let metrics = gateway.metrics().await;
    for name in ["upstream_failures_total", "upstream_errors_total", "connections_refused_total"] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{}: {name}", kind.name);
    }
    assert!(gateway.process().ended().is_none());
}

#[tokio::test]
async fn two_thousand_who_say_nothing() {
    crowd(SILENT).await;
}

#[tokio::test]
async fn two_thousand_with_half_a_line() {
    let told = Some("\"code\":\"head_timeout\"");
    let timeout = "head_timeout";
    crowd(Kind { name: "half a line", timeout, begin: b"GET / HT", told, ..SILENT }).await;
}

#[tokio::test]
async fn two_thousand_whose_head_drips() {
    let told = Some("\"code\":\"head_timeout\"");
    let begin = b"GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let timeout = "head_timeout";
    crowd(Kind { name: "dripped head", timeout, begin, drip: b"x", told, ..SILENT }).await;
}

#[tokio::test]
async fn two_thousand_whose_body_stalls() {
    let told = Some("\"code\":\"body_timeout\"");
    crowd(Kind { name: "stalled body", timeout: "body_timeout", begin: POST, told, ..SILENT })
        .await;
}

#[tokio::test]
async fn two_thousand_whose_body_drips() {
    let told = Some("\"code\":\"body_timeout\"");
    let timeout = "body_timeout";
    crowd(Kind { name: "dripped body", timeout, begin: POST, drip: b"x", told, ..SILENT }).await;
}

#[tokio::test]
async fn two_thousand_who_stay_after_their_answer() {
    let begin = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    crowd(Kind { name: "idle", begin, answered: true, ..SILENT }).await;
}

#[tokio::test]
async fn two_thousand_who_never_begin_a_handshake() {
    let timeout = "handshake_timeout";
    crowd(Kind { name: "no handshake", timeout, tls: true, ..SILENT }).await;
}

#[tokio::test]
async fn two_thousand_whose_handshake_drips() {
    let timeout = "handshake_timeout";
    let kind = Kind { name: "dripped handshake", timeout, begin: HELLO, drip: &[0], ..SILENT };
    crowd(Kind { tls: true, ..kind }).await;
}

/// More than the system keeps for a client whose window is small.
const LARGE: usize = 160 * 1024;

/// Asks for a large answer through a small window, and never reads it.
async fn ask_and_look_away(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
    let mut stream = soon("a connection", socket.connect(address)).await.unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn two_thousand_who_never_read() {
    let _turn = turn::mine().await;
    let origin = origin().await;
    let gateway = start(&origin, "write_timeout").await;
    let honest = Load::on(gateway.address()).rate(100).expect_body(b"ok");
    let alone = honest.clone().run(Duration::from_secs(1)).await;
    let (beside, control) = (honest.start(), Load::on(origin.address()).rate(100).start());
    let mut slow = Vec::new();
    let began = Stopwatch::start();
    for number in 0..CLIENTS {
        slow.push(ask_and_look_away(gateway.address()).await);
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
    }
    let opened = began.elapsed();
    let all_there = beside.elapsed();
    expect_deserted(&gateway).await;
    let last = began.elapsed();
    println!("stalled reader: opened in {opened:?}, the last was closed after {last:?}");
    assert!(last >= TIMEOUT.mul_f64(0.95), "too early: {last:?}");
    assert!(last < opened + TIMEOUT * 2, "too late: {last:?}");
    let (beside, control) = (beside.stop().await, control.stop().await);
    beside.expect_only(200);
    // What they have asked for is a load of its own, as long as it is being fetched.
    let beside = beside.between(all_there, Duration::MAX);
    expect_unharmed("stalled reader", &alone, &beside, &control);
    let cut = |line: &&String| line.contains("\"/large\"") && line.contains("\"end\":\"");
    eventually("a line of each", || {
        (gateway.stdout().all().iter().filter(cut).count() == CLIENTS).then_some(())
    })
    .await;
    let metrics = gateway.metrics().await;
    for name in ["upstream_failures_total", "upstream_errors_total"] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
    }
    drop(slow);
}
