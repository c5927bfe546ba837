//! What a connection costs while it rests.

use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::raw::RawClient;
use crate::turn;

/// Kept-alive connections.
const CLIENTS: u32 = 2_000;
/// The promise for one of them.
const MOST: u64 = 32 * 1024;

#[tokio::test]
async fn a_connection_that_rests_after_a_request_takes_32_kib_at_most() {
    let _turn = turn::mine().await;
    let origin = Origin::start().await;
    let mut gateway = Gateway::before(&[origin.address()], "")
        .toml("workers = 1\n[http]\nmax_connections_per_address = 10000\nidle_timeout = '10m'")
        .start()
        .await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut clients = Vec::new();
    // What a first request makes once and for all does not count.
    for _ in 0..50 {
        let mut client = RawClient::connect(gateway.address()).await;
        assert_eq!(client.exchange(get).await.status(), 200);
        clients.push(client);
    }
    let before = gateway.process().resident();
    for _ in 0..CLIENTS {
        let mut client = RawClient::connect(gateway.address()).await;
        assert_eq!(client.exchange(get).await.status(), 200);
        clients.push(client);
    }
    let each = gateway.process().resident().saturating_sub(before) / u64::from(CLIENTS);
    println!("{each} bytes for each of {CLIENTS} connections at rest");
    assert!(each <= MOST, "{each} bytes for each connection");
    // They are what they seem: each can be used again.
    for client in clients.iter_mut().step_by(100) {
        assert_eq!(client.exchange(get).await.status(), 200);
    }
}
