//! HTTP/2 clients that send what costs the server more than them: each costs a bounded memory and
//! time, and nobody else.

use crate::support::gateway::Gateway;
use crate::support::load::Load;
use crate::support::origin::{Behaviour, Origin};
use crate::support::raw::RawClient;
use crate::support::{Stopwatch, eventually_async};
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a flood may take of the gateway's memory, for good.
const MOST: u64 = 8 << 20;
/// Bytes that a flood is given up after: nobody has stopped it.
const ENOUGH: usize = 16 << 20;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// A head as HPACK has it, for a method of the static table.
fn head(method: u8, path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [&[0x80 | method, 0x87, 0x41][..], &text("localhost"), &[0x44], &text(path)].concat()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(2, path))
}

fn open_post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head(3, path))
}

/// How a flood ended.
#[derive(Debug, PartialEq)]
enum End {
    /// The gateway has closed the connection.
    Stopped,
    /// It took all that was sent.
    Borne,
}

async fn start(origin: &Origin) -> Gateway {
    origin.on("/hold", Behaviour::Freeze);
    Gateway::before(&[origin.address()], "")
        .toml("workers = 1\n[http]\nwrite_timeout = '1s'\nidle_timeout = '2s'\nbody_timeout = '1s'")
        .tls_listener("secure")
        .start()
        .await
}

/// Sends `begin`, and then `more` of the number of the round, until it is stopped or had enough.
async fn flood(
    gateway: &Gateway,
    reads: bool,
    begin: Vec<u8>,
    more: impl Fn(u32) -> Vec<u8>,
) -> End {
    let secure = gateway.listener("secure");
    let mut client = RawClient::connect_tls(secure, &gateway.trust(), &["h2"]).await;
    client.send([PREFACE, &frame(SETTINGS, 0, 0, &[]), &begin].concat()).await;
    let (mut sent, mut round) = (0, 0);
    while sent < ENOUGH {
        let mut bytes = Vec::new();
        while bytes.len() < 16 * 1024 {
            bytes.extend(more(round));
            round += 1;
        }
        sent += bytes.len();
        if client.try_send(&bytes).await.is_err() {
            return End::Stopped;
        }
        // What it says is taken, and not looked at.
        let moment = Duration::from_micros(1);
        while reads && let Ok(said) = tokio::time::timeout(moment, client.try_some()).await {
            if matches!(said.as_deref(), Ok([]) | Err(_)) {
                return End::Stopped;
            }
        }
    }
    End::Borne
}

/// A flood beside an honest client, which does not notice, and what is left of it: nothing.
async fn expect_harmless(
    what: &str,
    ends: &[End],
    reads: bool,
    begin: Vec<u8>,
    more: impl Fn(u32) -> Vec<u8>,
) {
    let origin = Origin::start().await;
    let mut gateway = start(&origin).await;
    let honest = Load::on(gateway.address()).rate(50).expect_body(b"ok");
    honest.clone().run(Duration::from_millis(500)).await.expect_only(200);
    let before = gateway.process().resident();
    let (beside, took) = (honest.start(), Stopwatch::start());
    let end = flood(&gateway, reads, begin, more).await;
    let took = took.elapsed();
    beside.goes_on(5).await;
    let peak = gateway.process().resident().saturating_sub(before);
    beside.stop().await.expect_only(200);
    println!("{what}: {end:?} after {took:?}, {} KiB more", peak >> 10);
    assert!(ends.contains(&end), "{what}: {end:?}");
    assert!(peak <= MOST, "{what}: {peak} bytes");
    eventually_async("nothing to be left of it", async || {
        let metrics = gateway.metrics().await;
        (metrics.sum("requests_in_flight", &[]) < 1.0 && metrics.sum("connections_open", &[]) < 6.0)
            .then_some(())
    })
    .await;
    let metrics = gateway.metrics().await;
    for name in ["upstream_failures_total", "upstream_errors_total"] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{what}: {name}");
    }
    assert_eq!(metrics.sum("requests_total", &[("status_class", "5xx")]), 0.0, "{what}");
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_opened_are_stopped() {
    expect_harmless("rapid reset", &[End::Stopped], true, Vec::new(), |round| {
        let stream = 2 * round + 1;
        [get(stream, "/hold"), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
    })
    .await;
}

#[tokio::test]
async fn more_streams_than_a_hundred_are_refused() {
    expect_harmless("streams", &[End::Stopped, End::Borne], true, Vec::new(), |round| {
        get(2 * round + 1, "/hold")
    })
    .await;
}

#[tokio::test]
async fn a_head_without_end_is_stopped() {
    let begin = frame(HEADERS, END_STREAM, 1, &head(2, "/"));
    expect_harmless("CONTINUATION", &[End::Stopped], true, begin.clone(), |_| {
        frame(CONTINUATION, 0, 1, &[])
    })
    .await;
    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x3e][..], &[b'y'; 8000]].concat();
    expect_harmless("large CONTINUATION", &[End::Stopped], true, begin, |_| {
        frame(CONTINUATION, 0, 1, &field)
    })
    .await;
}

#[tokio::test]
async fn empty_data_is_stopped() {
    expect_harmless("empty DATA", &[End::Stopped], true, open_post(1, "/hold"), |_| {
        frame(DATA, 0, 1, &[])
    })
    .await;
}

#[tokio::test]
async fn questions_whose_answers_nobody_reads_are_stopped() {
    for reads in [true, false] {
        let ends = if reads { [End::Borne, End::Stopped] } else { [End::Stopped, End::Stopped] };
        expect_harmless("PING", &ends, reads, Vec::new(), |round| {
            frame(PING, 0, 0, &u64::from(round).to_be_bytes())
        })
        .await;
        expect_harmless("SETTINGS", &ends, reads, Vec::new(), |_| {
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])
        })
        .await;
    }
}

#[tokio::test]
async fn frames_that_say_nothing_cost_nothing() {
    let ends = [End::Borne, End::Stopped];
    expect_harmless("PRIORITY", &ends, true, Vec::new(), |round| {
        frame(PRIORITY, 0, 2 * round + 1, &[0, 0, 0, 0, 7])
    })
    .await;
    expect_harmless("WINDOW_UPDATE", &ends, true, open_post(1, "/hold"), |_| {
        frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes())
    })
    .await;
}
