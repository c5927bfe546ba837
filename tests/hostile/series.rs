//! Ten thousand names that nobody has heard of leave no trace: no series, no memory.

use crate::recorder::Recorder;
use crate::support::credential::{base64url, invented, now};
use crate::support::gateway::Gateway;
use crate::support::wire::Reader;
use crate::support::{eventually_async, gateway::sign_jwt};
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Requests that are sent at once on one connection.
const BATCH: usize = 100;
const KINDS: usize = 8;
/// Tokens of subjects that nobody has heard of, but that are signed.
const TOKENS: usize = 4;
/// What nine thousand may take for good: an allocator takes 2 MiB at a time.
const MOST: u64 = 6 << 20;
/// What is kept of a verified token, of which so many are kept and no more.
const TOKEN: u64 = 5 << 10;

/// What is new in each request of a kind.
fn request(kind: usize) -> String {
    let name = format!("{:032x}", rand::random::<u128>());
    let plain = |method: &str, path: &str, fields: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    match kind {
        0 => plain("GET", &format!("/{name}?{name}"), ""),
        1 => format!("GET / HTTP/1.1\r\nHost: {name}.test\r\n\r\n"),
        2 => plain(&format!("X{}", &name[..16]), "/", ""),
        3 => plain("GET", "/keys/x", &format!("X-API-Key: {}\r\n", invented())),
        4 => {
            let token = sign_jwt(&serde_json::json!({ "sub": name, "exp": now() + 3600 }));
            plain("GET", "/tokens/x", &format!("Authorization: Bearer {token}\r\n"))
        }
        5 => {
            let forged =
                format!("{}.{}.x", base64url(b"{\"alg\":\"HS256\"}"), base64url(name.as_bytes()));
            plain("GET", "/tokens/x", &format!("Authorization: Bearer {forged}\r\n"))
        }
        6 => plain("GET", "/", &format!("X-{name}: {name}\r\nCookie: {name}={name}\r\n")),
        _ => plain("GET", &format!("/%{}", &name[..2]), ""),
    }
}

/// Sends `count` requests of a kind, and takes every answer.
async fn ask(address: SocketAddr, kind: usize, count: usize) {
    let mut reader = Reader::new(TcpStream::connect(address).await.unwrap());
    for _ in 0..count.div_ceil(BATCH) {
        let batch: String = (0..BATCH).map(|_| request(kind)).collect();
        reader.stream.write_all(batch.as_bytes()).await.unwrap();
        for _ in 0..BATCH {
            let head = reader.head().await.unwrap().expect("an answer");
            assert!(head.status() < 500, "{head:?}");
            reader.body(head.response_framing("GET")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn ten_thousand_unknown_names_add_no_series_and_no_memory() {
    let (_recorder, address) = Recorder::start().await;
    let limits = "[limits.per_address]\nrate = \"1000000/s\"\nper = \"address\"";
    let mut gateway = Gateway::builder()
        .toml("workers = 1\n[auth.jwt.default]\ndefault_plan = \"basic\"")
        .toml("[address_guard]\nfailed_tries = \"off\"")
        .upstream("u", &[address])
        .route("open", &format!("path = \"/*\"\nauth = \"none\"\nupstream = \"u\"\n{limits}"))
        .route("keys", "path = \"/keys/*\"\nauth = \"api_key\"\nupstream = \"u\"")
        .route("tokens", "path = \"/tokens/*\"\nauth = \"jwt\"\nupstream = \"u\"")
        .plan("basic", "1000000/s")
        .start()
        .await;
    for kind in 0..KINDS {
        ask(gateway.address(), kind, BATCH).await;
    }
    let names = settled(&gateway).await;
    for round in 0..3 {
        let mut grown = [0_u64; KINDS];
        for (kind, grown) in grown.iter_mut().enumerate() {
            let before = gateway.process().resident();
            ask(gateway.address(), kind, 1_300).await;
            let after = settled(&gateway).await;
            *grown = gateway.process().resident().saturating_sub(before);
            let new: Vec<_> = after.iter().filter(|series| !names.contains(series)).collect();
            assert!(new.is_empty(), "{new:?}");
        }
        println!("round {round}: {:?} KiB", grown.map(|bytes| bytes >> 10));
        let tokens = std::mem::take(&mut grown[TOKENS]);
        assert!(tokens <= 1_300 * TOKEN + MOST, "1 300 tokens took {tokens}");
        let others = grown.iter().sum::<u64>();
        assert!(round == 0 || others <= MOST, "9 100 names took {others}");
    }
}

/// The series, once nothing is in flight.
async fn settled(gateway: &Gateway) -> Vec<String> {
    let metrics = eventually_async("quiet", async || {
        let metrics = gateway.metrics().await;
        (metrics.sum("requests_in_flight", &[]) == 0.0).then_some(metrics)
    })
    .await;
    let text =
        |sample: &crate::support::metrics::Sample| format!("{}{:?}", sample.name, sample.labels);
    metrics.samples.iter().map(text).collect()
}
