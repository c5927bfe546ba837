//! What one request costs in memory: at most a hundred times its own bytes, however it is written.
//!
//! Many requests of one shape are held at once by an upstream that never answers, and compared with as
//! many plain ones: what a connection costs anyway is not the request's doing.

use crate::h2_wire::{HEADERS, PREFACE, SETTINGS, WHOLE, block, frame};
use crate::support::credential::now;
use crate::support::eventually_async;
use crate::support::gateway::{Gateway, sign_jwt};
use crate::support::origin::{Behaviour, Origin};
use crate::support::raw::RawClient;
use std::fmt::Write as _;

const HELD: usize = 100;
/// Times the bytes of the request.
const MOST: usize = 100;
/// `http.max_head`.
const MAX_HEAD: usize = 32 * 1024;
/// What an allocator takes at a time.
const ARENA: usize = 2 << 20;
/// A smaller request counts as one of this size: a field of three bytes costs a place in a map.
const SMALL: usize = 1024;

async fn start(origin: &Origin) -> Gateway {
    origin.answer(Behaviour::Freeze);
    Gateway::builder()
        .toml("workers = 1\n[http]\nbody_timeout = \"20s\"\n[auth.jwt.default]\ndefault_plan = \"basic\"")
        .tls_listener("secure")
        .upstream("u", &[origin.address()])
        .route("open", "path = \"/*\"\nauth = \"none\"\nupstream = \"u\"")
        .route("tokens", "path = \"/tokens/*\"\nauth = \"jwt\"\nupstream = \"u\"")
        .plan("basic", "1000000/s")
        .start()
        .await
}

fn lines(fields: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// Shapes that reach the upstream.
fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let token = |claims: serde_json::Value| {
        format!(
            "GET /tokens/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
            sign_jwt(&claims)
        )
        .into_bytes()
    };
    let mut many = serde_json::json!({ "sub": "a", "exp": now() + 3600 });
    for n in 0..600 {
        many[format!("{n:x}")] = n.into();
    }
    let mut deep = serde_json::json!({ "sub": "a", "exp": now() + 3600 });
    deep["d"] = (0..100).fold(serde_json::json!(0), |inner, _| serde_json::json!([inner]));
    let chunks = "1\r\nx\r\n".repeat(5_000);
    vec![
        ("many short fields", lines(&"x:\r\n".repeat(90))),
        (
            "many names",
            lines(&(0..90).fold(String::new(), |mut text, n| {
                write!(text, "{n:x}:\r\n").unwrap();
                text
            })),
        ),
        ("crumbs of a cookie", lines(&format!("cookie: {}\r\n", "a;".repeat(15_000)))),
        ("cookies", lines(&"cookie: a\r\n".repeat(90))),
        ("a long value", lines(&format!("x: {}\r\n", "y".repeat(30_000)))),
        (
            "dots",
            format!("GET {}/a HTTP/1.1\r\nHost: a\r\n\r\n", "/a/..".repeat(1_600)).into_bytes(),
        ),
        (
            "escaped dots",
            format!("GET {}/a HTTP/1.1\r\nHost: a\r\n\r\n", "/%2e".repeat(2_000)).into_bytes(),
        ),
        (
            "escapes to be made",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "|".repeat(8_000)).into_bytes(),
        ),
        ("a token with many claims", token(many)),
        ("a token that is deep", token(deep)),
        (
            "a body byte by byte",
            format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
                .into_bytes(),
        ),
    ]
}

/// Opens as many connections with this request, and gives what they take once the upstream has all.
async fn hold(gateway: &mut Gateway, origin: &Origin, request: &[u8]) -> (u64, Vec<RawClient>) {
    let before = origin.requests();
    let mut clients = Vec::new();
    for _ in 0..HELD {
        let mut client = RawClient::connect(gateway.address()).await;
        client.send(request).await;
        clients.push(client);
    }
    origin.reached(before + HELD).await;
    (gateway.process().resident(), clients)
}

async fn deserted(gateway: &Gateway) {
    eventually_async("every connection to be closed", async || {
        let metrics = gateway.metrics().await;
        (metrics.sum("requests_in_flight", &[]) == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_costs_at_most_a_hundred_times_its_bytes() {
    let mut wrong = Vec::new();
    for (name, request) in shapes() {
        // Each has a gateway of its own: memory that was used once is rarely given back.
        let origin = Origin::start().await;
        let mut gateway = start(&origin).await;
        let (plain, clients) = hold(&mut gateway, &origin, &lines("")).await;
        drop(clients);
        deserted(&gateway).await;
        let (resident, clients) = hold(&mut gateway, &origin, &request).await;
        drop(clients);
        let each = usize::try_from(resident.saturating_sub(plain)).unwrap() / HELD;
        println!("{name}: {} bytes cost {each}, {} times", request.len(), each / request.len());
        if each > MOST * request.len().max(SMALL) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// One field is said once and then pointed to: a byte that stands for four thousand.
#[tokio::test]
async fn a_head_that_points_to_what_was_said_before_costs_no_more() {
    let origin = Origin::start().await;
    let mut gateway = start(&origin).await;
    let secure = gateway.listener("secure");
    let mut client = RawClient::connect_tls(secure, &gateway.trust(), &["h2"]).await;
    let head = block(&[
        (":method", b"GET"),
        (":scheme", b"https"),
        (":path", b"/a"),
        (":authority", b"a"),
    ]);
    let value = vec![b'y'; 3_900];
    // A literal that is remembered: a name of one byte, and 3,900 of value.
    let said = [&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d][..], &value].concat();
    client.send([PREFACE, &frame(SETTINGS, 0, 0, [])].concat()).await;
    client.send(frame(HEADERS, WHOLE, 1, [&head[..], &said].concat())).await;
    // As many that say nothing of it, on a connection of their own.
    let mut other = RawClient::connect_tls(secure, &gateway.trust(), &["h2"]).await;
    other.send([PREFACE, &frame(SETTINGS, 0, 0, [])].concat()).await;
    origin.reached(1).await;
    let start = gateway.process().resident();
    for n in 1..95_u32 {
        other.send(frame(HEADERS, WHOLE, 2 * n + 1, &head)).await;
    }
    origin.reached(95).await;
    let before = gateway.process().resident();
    let mut sent = 0;
    for n in 1..95_u32 {
        // Seven times in each head: more would be above `http.max_head`.
        let request = frame(HEADERS, WHOLE, 2 * n + 1, [&head[..], &[0xbe; 7]].concat());
        sent += request.len();
        client.send(request).await;
    }
    origin.reached(189).await;
    let plain = usize::try_from(before.saturating_sub(start)).unwrap();
    let took = usize::try_from(gateway.process().resident().saturating_sub(before)).unwrap();
    println!("94 plain streams cost {plain}; 94 of {sent} bytes that point cost {took}");
    // What it stands for is written out once for the upstream, so the size of a head is its price.
    assert!(took <= plain + 94 * MAX_HEAD + ARENA, "{took} bytes for {sent}");
    // And beyond the size of a head it is refused, with the connection's memory as before.
    for n in 95..2_000_u32 {
        if client
            .try_send(frame(HEADERS, WHOLE, 2 * n + 1, [&head[..], &[0xbe; 900]].concat()))
            .await
            .is_err()
        {
            break;
        }
    }
    let more = usize::try_from(gateway.process().resident().saturating_sub(before)).unwrap();
    println!("and 1 900 that are refused cost {}", more.saturating_sub(took));
    assert!(more <= took + (4 << 20), "{more} bytes");
    assert_eq!(origin.requests(), 189);
}
