//! What a connection costs while it rests, and what a client that never reads.

use crate::support::eventually_async;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;
use crate::turn;

/// Kept-alive connections.
const CLIENTS: u64 = 2_000;
/// The same over TLS, where each costs time.
const SECURE: u64 = 400;
/// The promise for one of them.
const MOST: u64 = 32 * 1024;
/// First requests make what is made once and for all.
const BEFORE: u64 = 50;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn start(origin: &Origin) -> Gateway {
    Gateway::before(&[origin.address()], "")
        .toml("workers = 1\n[http]\nmax_connections_per_address = 10000\nidle_timeout = '10m'")
        .tls_listener("secure")
        .start()
        .await
}

/// Resident bytes for each of `count` clients, and they.
async fn cost<C>(
    gateway: &mut Gateway,
    count: u64,
    mut connect: impl AsyncFnMut(&Gateway) -> C,
) -> (u64, Vec<C>) {
    let mut clients = Vec::new();
    for _ in 0..BEFORE {
        clients.push(connect(gateway).await);
    }
    let before = gateway.process().resident();
    for _ in 0..count {
        clients.push(connect(gateway).await);
    }
    (gateway.process().resident().saturating_sub(before) / count, clients)
}

#[tokio::test]
async fn a_connection_that_rests_after_a_request_takes_32_kib_at_most() {
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    let mut gateway = start(&origin).await;
    let (each, mut clients) = cost(&mut gateway, CLIENTS, async |gateway| {
        let mut client = RawClient::connect(gateway.address()).await;
        assert_eq!(client.exchange(GET).await.status(), 200);
        client
    })
    .await;
    println!("{each} bytes for each of {CLIENTS} connections at rest");
    assert!(each <= MOST, "{each} bytes for each connection");
    // They are what they seem: each can be used again.
    for client in clients.iter_mut().step_by(100) {
        assert_eq!(client.exchange(GET).await.status(), 200);
    }
}

#[tokio::test]
async fn a_connection_that_rests_takes_little_more_with_tls() {
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    let mut gateway = start(&origin).await;
    let (each, clients) = cost(&mut gateway, SECURE, async |gateway| {
        let secure = gateway.listener("secure");
        let mut client = RawClient::connect_tls(secure, &gateway.trust(), &[]).await;
        assert_eq!(client.exchange(GET).await.status(), 200);
        client
    })
    .await;
    println!("{each} bytes for each of {SECURE} connections with TLS");
    drop(clients);
    let mut gateway = start(&origin).await;
    let (http2, clients) = cost(&mut gateway, SECURE, async |gateway| {
        let mut client = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
        assert_eq!(client.get("/", &[]).await.status, 200);
        client
    })
    .await;
    println!("{http2} bytes for each of {SECURE} connections with HTTP/2");
    drop(clients);
    // The libraries of TLS and HTTP/2 have buffers of their own.
    assert!(each <= 2 * MOST && http2 <= 3 * MOST, "{each}, {http2}");
}

/// Asks for the large answer and reads its head alone.
async fn ask(gateway: &Gateway) -> Option<RawClient> {
    let mut client = RawClient::connect(gateway.address()).await;
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    (client.head().await.status() == 200).then_some(client)
}

#[tokio::test]
async fn who_never_reads_cannot_take_all_memory() {
    const MIB: u64 = 1 << 20;
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    origin.on("/large", Behaviour::Answer(Reply::new(200).body(vec![b'x'; 16 << 20])));
    let mut gateway = start(&origin).await;
    let (each, clients) = cost(&mut gateway, 50, ask).await;
    println!("{} KiB for each who never reads", each >> 10);
    drop(clients);

    let limit = gateway.process().resident() / MIB + 100;
    let conf = gateway.read_conf("gateway.toml");
    let with = conf.replace("[http]\n", &format!("[http]\nmax_memory = \"{limit}MiB\"\n"));
    gateway.write_conf("gateway.toml", &with);
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    let (mut held, mut refused) = (Vec::new(), 0);
    while refused < 20 {
        match ask(&gateway).await {
            Some(client) => held.push(client),
            None => refused += 1,
        }
        assert!(held.len() < 1_000, "nobody was refused");
    }
    let resident = gateway.process().resident() / MIB;
    println!("{} held {resident} MiB of {limit}", held.len());
    assert!(resident < limit + 100, "{resident} MiB, and {limit} were allowed");
    let mut asks = RawClient::connect(gateway.address()).await;
    assert_eq!(asks.exchange("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 200);
    gateway.stderr().containing("memory is short").await;
    // They are shown out long before their timeout, and the others are served again.
    eventually_async("memory", async || (asks.exchange(GET).await.status() == 200).then_some(()))
        .await;
    drop(held);
}
