//! Clients that send evenly by the clock, whatever is answered.
//!
//! Each of many connections has its own turns. What a request took is counted from its turn, not from when
//! its connection was free for it.

use crate::gateway::Usage;
use crate::origin::BODY;
use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use jsonwebtoken::{EncodingKey, Header};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Who calls: `consumer-00` and so on.
pub(crate) const CONSUMERS: u32 = 50;
/// What the tokens are signed with.
pub(crate) const SECRET: &str = "a secret that only the bench of capacity has seen";
/// As a load balancer keeps them.
const CONNECTIONS: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(5);
const SAMPLED_EVERY: Duration = Duration::from_secs(1);
/// How long tokens are good.
const VALID: Duration = Duration::from_secs(3600);

/// What a load has seen.
pub(crate) struct Seen {
    pub(crate) span: Duration,
    /// Of answers that were right, in any order.
    pub(crate) took: Vec<Duration>,
    /// What went wrong, and how often.
    pub(crate) errors: BTreeMap<String, usize>,
    /// What the gateway used, each second.
    pub(crate) usage: Vec<Usage>,
}

/// Sends `rate` requests a second for `span`, and asks each second what the gateway uses.
pub(crate) async fn load(
    address: SocketAddr,
    rate: u32,
    span: Duration,
    usage: impl Fn() -> Result<Usage>,
) -> Result<Seen> {
    let requests = (0..CONSUMERS).map(|number| request(address, number));
    let requests = requests.collect::<Result<Vec<_>>>()?;
    let (took, errors) = (RefCell::new(Vec::new()), RefCell::new(BTreeMap::new()));
    let (began, done) = (Instant::now(), Cell::new(false));
    let runs = (0..CONNECTIONS).map(|first| {
        let (requests, took, errors) = (&requests, &took, &errors);
        async move {
            let mut connection = Connection { address, stream: None, read: Vec::new() };
            for number in (first..).step_by(CONNECTIONS as usize) {
                let due = Duration::from_secs_f64(f64::from(number) / f64::from(rate));
                if due >= span {
                    break;
                }
                tokio::time::sleep_until((began + due).into()).await;
                let request = requests.get((number % CONSUMERS) as usize).context("a request")?;
                match connection.ask(request).await {
                    Ok(()) => took.borrow_mut().push(began.elapsed() - due),
                    Err(error) => {
                        connection.stream = None;
                        *errors.borrow_mut().entry(format!("{error:#}")).or_default() += 1;
                    }
                }
            }
            Ok::<_, anyhow::Error>(())
        }
    });
    let sampled = async {
        let mut all = vec![usage()?];
        while !done.get() {
            tokio::time::sleep(SAMPLED_EVERY).await;
            all.push(usage()?);
        }
        Ok(all)
    };
    let sent = async {
        let sent = try_join_all(runs).await;
        done.set(true);
        sent
    };
    let (_, usage) = tokio::try_join!(sent, sampled)?;
    Ok(Seen { span, took: took.into_inner(), errors: errors.into_inner(), usage })
}

/// A request of one of the consumers.
fn request(address: SocketAddr, number: u32) -> Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let claims = serde_json::json!({
        "sub": format!("consumer-{number:02}"),
        "iat": now.as_secs(),
        "exp": (now + VALID).as_secs(),
    });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key)?;
    Ok(format!("GET /orders HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"))
}

struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    read: Vec<u8>,
}

impl Connection {
    async fn ask(&mut self, request: &str) -> Result<()> {
        tokio::time::timeout(PATIENCE, self.exchange(request)).await.context("no answer")?
    }

    async fn exchange(&mut self, request: &str) -> Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        stream.write_all(request.as_bytes()).await?;
        self.read.clear();
        loop {
            ensure!(stream.read_buf(&mut self.read).await? > 0, "the connection was closed");
            let Some(end) = memchr::memmem::find(&self.read, b"\r\n\r\n") else { continue };
            let status = self.read.get(9..12).unwrap_or_default();
            if status != b"200" {
                bail!("status {}", String::from_utf8_lossy(status));
            }
            if self.read.len() >= end + 4 + BODY {
                ensure!(self.read.len() == end + 4 + BODY, "more than the body");
                return Ok(());
            }
        }
    }
}
