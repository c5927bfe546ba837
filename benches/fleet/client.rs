//! Clients that send evenly, more and more, whatever is answered.
//!
//! They share one thread, which on a small machine is what the gateways can spare.

use crate::RATE;
use crate::gateways::Gateways;
use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How many times the rule's rate is sent, at the beginning and at the end.
pub(crate) const LEAST: u32 = 3;
pub(crate) const MOST: u32 = 6;
/// Connections to each gateway.
const CONNECTIONS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(10);

/// One request, by the time since the load began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) sent: Duration,
    pub(crate) answered: Duration,
    pub(crate) admitted: bool,
}

/// Loads all gateways alike for `span`.
pub(crate) async fn load(gateways: &Gateways, path: &str, span: Duration) -> Result<Vec<Seen>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        for address in gateways.addresses() {
            connections.push(Connection::open(address, path).await?);
        }
    }
    let (began, all) = (Instant::now(), f64::from(u32::try_from(connections.len())?));
    let runs = connections.into_iter().zip(0_u32..).map(|(mut connection, first)| async move {
        let mut seen = Vec::new();
        for turn in 0_u32.. {
            let due = due(f64::from(turn) * all + f64::from(first), span);
            if due >= span {
                break;
            }
            tokio::time::sleep_until((began + due).into()).await;
            let sent = began.elapsed();
            let admitted = connection.ask().await?;
            seen.push(Seen { sent, answered: began.elapsed(), admitted });
        }
        Ok::<_, anyhow::Error>(seen)
    });
    Ok(try_join_all(runs).await?.concat())
}

/// When request `number` of all is to be sent: what was sent by `t` is the integral of a rate that rises
/// evenly from [`LEAST`] to [`MOST`].
fn due(number: f64, span: Duration) -> Duration {
    let (least, rise, span) = (f64::from(LEAST), f64::from(MOST - LEAST), span.as_secs_f64());
    let root = (least * least + 2.0 * rise * number / (f64::from(RATE) * span)).sqrt();
    Duration::from_secs_f64(span * (root - least) / rise)
}

struct Connection {
    stream: TcpStream,
    request: String,
    read: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        Ok(Self { stream, request, read: Vec::new() })
    }

    /// Whether the answer is 200; it is 429 otherwise.
    async fn ask(&mut self) -> Result<bool> {
        self.stream.write_all(self.request.as_bytes()).await?;
        self.read.clear();
        while whole(&self.read).is_none() {
            let more = self.stream.read_buf(&mut self.read);
            let more = tokio::time::timeout(PATIENCE, more).await.context("no answer")??;
            ensure!(more > 0, "the connection was closed");
        }
        let head = String::from_utf8_lossy(&self.read).to_ascii_lowercase();
        match head.split(' ').nth(1) {
            Some("200") => Ok(true),
            Some("429") if header(&head, "retry-after").is_some_and(|after| after >= 1) => {
                Ok(false)
            }
            _ => bail!("an answer that is not to be:\n{head}"),
        }
    }
}

/// Something, when all of an answer has been read.
fn whole(read: &[u8]) -> Option<()> {
    let end = memchr::memmem::find(read, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(read.get(..end)?).to_ascii_lowercase();
    let length = header(&head, "content-length").unwrap_or(0);
    (read.len() >= end + 4 + length).then_some(())
}

/// A number in the head of an answer, all in small letters.
fn header(head: &str, name: &str) -> Option<usize> {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line?.trim().parse().ok()
}
