//! A steady, bounded load that remembers what became of every single request.

use super::wire::{Reader, Stream};
use super::{soon, tls};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Ended in the middle of an answer.
    Broken,
    /// No connection.
    Refused,
    /// A new connection ended before the first byte of an answer.
    Reset,
    /// A connection that had answered before ended before the first byte of the next answer.
    Stale,
    /// No whole answer within [`Load::timeout`].
    Timeout,
    /// A whole answer whose body is not the expected one.
    Wrong,
}

/// What became of one request.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// When it was sent, since the start of the load.
    pub(crate) at: Duration,
    pub(crate) latency: Duration,
    /// The status, or why there is none.
    pub(crate) result: Result<u16, Failure>,
    /// `x-request-tag`, unique in one load.
    pub(crate) tag: String,
    /// The body of a whole answer.
    pub(crate) body: Vec<u8>,
}

/// How connections are used.
#[derive(Clone)]
enum Kind {
    /// A new connection for each request.
    Fresh,
    /// HTTP/1.1, kept until the server says `close`.
    Kept,
    /// HTTP/2 over TLS; so many streams share one connection.
    Http2(tls::Trust),
}

/// What is to be sent.
#[derive(Clone)]
pub(crate) struct Load {
    address: SocketAddr,
    kind: Kind,
    connections: usize,
    rate: u32,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    expected: Option<Vec<u8>>,
    timeout: Duration,
}

impl Load {
    /// `GET /` over 4 kept-alive connections, 100 requests a second together.
    pub(crate) fn on(address: SocketAddr) -> Self {
        Self {
            address,
            kind: Kind::Kept,
            connections: 4,
            rate: 100,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            expected: None,
            timeout: Duration::from_secs(10),
        }
    }

    /// A new connection for each request.
    pub(crate) fn fresh(self) -> Self {
        Self { kind: Kind::Fresh, ..self }
    }

    /// HTTP/2 over TLS.
    pub(crate) fn http2(self, trust: tls::Trust) -> Self {
        Self { kind: Kind::Http2(trust), ..self }
    }

    pub(crate) fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// Requests per second, all connections together.
    pub(crate) fn rate(self, rate: u32) -> Self {
        Self { rate, ..self }
    }

    pub(crate) fn get(self, path: &str) -> Self {
        Self { method: "GET".to_owned(), path: path.to_owned(), ..self }
    }

    pub(crate) fn post(self, path: &str, body: &[u8]) -> Self {
        Self { method: "POST".to_owned(), path: path.to_owned(), body: body.to_vec(), ..self }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Every body of a 200 must be this one.
    pub(crate) fn expect_body(self, body: &[u8]) -> Self {
        Self { expected: Some(body.to_vec()), ..self }
    }

    pub(crate) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Loads for `span`.
    pub(crate) async fn run(self, span: Duration) -> Summary {
        let running = self.start();
        tokio::time::sleep(span).await;
        running.stop().await
    }

    /// Loads until told to stop, from a thread of its own, whatever the test does meanwhile.
    pub(crate) fn start(self) -> Running {
        let shared = Arc::new(Shared {
            load: self,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
            outcomes: Mutex::new(Vec::new()),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(worker.run());
        });
        Running { shared, thread: Some(thread) }
    }
}

/// A load that is on.
pub(crate) struct Running {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Requests that have ended so far.
    pub(crate) fn ended(&self) -> usize {
        self.shared.outcomes.lock().unwrap().len()
    }

    /// Waits until `count` more requests have ended.
    pub(crate) async fn goes_on(&self, count: usize) {
        let target = self.ended() + count;
        super::eventually("the load to go on", || (self.ended() >= target).then_some(())).await;
    }

    /// How long it has been on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// What happened so far.
    pub(crate) fn so_far(&self) -> Summary {
        let outcomes = self.shared.outcomes.lock().unwrap().clone();
        Summary { outcomes }
    }

    /// Sends nothing new, and waits for what is still open.
    pub(crate) async fn stop(mut self) -> Summary {
        self.shared.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().unwrap();
        super::eventually("the load to end", || thread.is_finished().then_some(())).await;
        thread.join().unwrap();
        self.so_far()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

struct Shared {
    load: Load,
    began: Instant,
    stop: AtomicBool,
    sent: AtomicUsize,
    outcomes: Mutex<Vec<Outcome>>,
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let http2 = match &self.load.kind {
            Kind::Http2(trust) => Some(Arc::new(Multiplexed::new(trust.clone()))),
            Kind::Fresh | Kind::Kept => None,
        };
        let mut lanes = tokio::task::JoinSet::new();
        for lane in 0..self.load.connections {
            lanes.spawn(Arc::clone(&self).lane(lane, http2.clone()));
        }
        while let Some(ended) = lanes.join_next().await {
            ended.unwrap();
        }
    }

    async fn lane(self: Arc<Self>, lane: usize, http2: Option<Arc<Multiplexed>>) {
        let lanes = u32::try_from(self.load.connections).unwrap();
        let period = Duration::from_secs(1) * lanes / self.load.rate.max(1);
        let offset = period * u32::try_from(lane).unwrap() / lanes;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut kept = None;
        loop {
            ticks.tick().await;
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let tag = format!("t{}", self.sent.fetch_add(1, Ordering::SeqCst));
            let (at, began) = (self.began.elapsed(), Instant::now());
            let exchange = async {
                match &http2 {
                    Some(multiplexed) => multiplexed.exchange(&self.load, &tag).await,
                    None => self.load.exchange(&mut kept, &tag).await,
                }
            };
            let result = tokio::time::timeout(self.load.timeout, exchange).await;
            let result = result.unwrap_or(Err(Failure::Timeout));
            if result.is_err() || matches!(self.load.kind, Kind::Fresh) {
                kept = None;
            }
            let (result, body) = match result {
                Ok((status, body)) => (self.load.judge(status, &body), body),
                Err(failure) => (Err(failure), Vec::new()),
            };
            let outcome = Outcome { at, latency: began.elapsed(), result, tag, body };
            self.outcomes.lock().unwrap().push(outcome);
        }
    }
}

impl Load {
    /// One request over HTTP/1.1, on the kept connection if there is one.
    async fn exchange(
        &self,
        kept: &mut Option<Reader<Stream>>,
        tag: &str,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let reused = kept.is_some();
        let lost = if reused { Failure::Stale } else { Failure::Reset };
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.address).await;
                let stream = stream.map_err(|_| Failure::Refused)?;
                stream.set_nodelay(true).map_err(|_| Failure::Reset)?;
                Reader::new(Box::new(stream) as Stream)
            }
        };
        connection.stream.write_all(&self.bytes(tag)).await.map_err(|_| lost)?;
        connection.stream.flush().await.map_err(|_| lost)?;
        let head = match connection.head().await {
            Ok(Some(head)) => head,
            Ok(None) => return Err(lost),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(Failure::Broken);
            }
            Err(_) => return Err(lost),
        };
        let body = connection.body(head.response_framing(&self.method)).await;
        let body = body.map_err(|_| Failure::Broken)?;
        if head.keeps_alive() && matches!(self.kind, Kind::Kept) {
            *kept = Some(connection);
        }
        Ok((head.status(), body))
    }

    fn bytes(&self, tag: &str) -> Vec<u8> {
        let mut text = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nx-request-tag: {tag}\r\n",
            self.method, self.path, self.address
        );
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if matches!(self.kind, Kind::Fresh) {
            text.push_str("connection: close\r\n");
        }
        if self.method != "GET" {
            text.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend(&self.body);
        bytes
    }

    fn judge(&self, status: u16, body: &[u8]) -> Result<u16, Failure> {
        let wrong =
            self.expected.as_ref().is_some_and(|expected| status == 200 && expected != body);
        if wrong { Err(Failure::Wrong) } else { Ok(status) }
    }
}

/// One HTTP/2 connection that all lanes share, opened again when it is gone.
struct Multiplexed {
    trust: tls::Trust,
    sender: tokio::sync::Mutex<Option<http2::SendRequest<Full<Bytes>>>>,
}

impl Multiplexed {
    fn new(trust: tls::Trust) -> Self {
        Self { trust, sender: tokio::sync::Mutex::new(None) }
    }

    /// As a client that honours GOAWAY: a request that surely was not read is sent once more, on
    /// another connection.
    async fn exchange(&self, load: &Load, tag: &str) -> Result<(u16, Vec<u8>), Failure> {
        let mut builder = http::Request::builder()
            .method(load.method.as_str())
            .uri(format!("https://{}:{}{}", tls::NAME, load.address.port(), load.path))
            .header("x-request-tag", tag);
        for (name, value) in &load.headers {
            builder = builder.header(name, value);
        }
        let mut request = builder.body(Full::new(Bytes::from(load.body.clone()))).unwrap();
        let mut again = true;
        let response = loop {
            let (mut sender, reused) = self.sender(load.address).await?;
            let mut error = match sender.try_send_request(request).await {
                Ok(response) => break response,
                Err(error) => error,
            };
            match error.take_message() {
                Some(unsent) if reused && again => request = unsent,
                _ if reused => return Err(Failure::Stale),
                _ => return Err(Failure::Reset),
            }
            again = false;
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|_| Failure::Broken)?.to_bytes();
        Ok((status, body.to_vec()))
    }

    async fn sender(
        &self,
        address: SocketAddr,
    ) -> Result<(http2::SendRequest<Full<Bytes>>, bool), Failure> {
        let mut held = self.sender.lock().await;
        if let Some(sender) = held.as_mut()
            && sender.ready().await.is_ok()
        {
            return Ok((sender.clone(), true));
        }
        let stream = self.trust.connect(address, &["h2"]).await;
        let stream = stream.map_err(|_| Failure::Refused)?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, driver) = handshake.await.map_err(|_| Failure::Reset)?;
        tokio::spawn(async { drop(driver.await) });
        *held = Some(sender.clone());
        Ok((sender, false))
    }
}

/// Every outcome of a load, or of a part of it.
#[derive(Clone)]
pub(crate) struct Summary {
    pub(crate) outcomes: Vec<Outcome>,
}

impl std::fmt::Debug for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} requests: {:?}, failed: {:?}; p50 {:?}, p99 {:?}, worst {:?}",
            self.total(),
            self.statuses(),
            self.failures(),
            self.percentile(0.5),
            self.percentile(0.99),
            self.percentile(1.0),
        )
    }
}

impl Summary {
    pub(crate) fn total(&self) -> usize {
        self.outcomes.len()
    }

    /// Answers by status.
    pub(crate) fn statuses(&self) -> BTreeMap<u16, usize> {
        count(self.outcomes.iter().filter_map(|outcome| outcome.result.ok()))
    }

    /// Failures by kind.
    pub(crate) fn failures(&self) -> BTreeMap<Failure, usize> {
        count(self.outcomes.iter().filter_map(|outcome| outcome.result.err()))
    }

    /// The latency that a share of the requests did not exceed; 1.0 is the worst.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let mut latencies: Vec<_> = self.outcomes.iter().map(|outcome| outcome.latency).collect();
        latencies.sort();
        #[expect(clippy::cast_possible_truncation, reason = "an index into a list in memory")]
        #[expect(clippy::cast_sign_loss, reason = "a share is not negative")]
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
        let rank = (latencies.len() as f64 * share).ceil() as usize;
        latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The requests sent between two moments since the start.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> Self {
        let within = |outcome: &&Outcome| outcome.at >= from && outcome.at < to;
        Self { outcomes: self.outcomes.iter().filter(within).cloned().collect() }
    }

    /// The 99th percentile is at most twice `before`, but for what else went on on this machine:
    /// `control` went past the gateway at the same time.
    #[track_caller]
    pub(crate) fn expect_p99(&self, name: &str, before: Duration, control: &Self) -> &Self {
        let (now, beside) = (self.percentile(0.99), control.percentile(0.99));
        let text = format!("{name}: p99 {before:?} before, {now:?} now, control {beside:?}");
        println!("{text}");
        assert!(now <= before * 2 + beside * 3 + Duration::from_millis(100), "{text}");
        self
    }

    /// Every request was answered with `status`, and there were some.
    #[track_caller]
    pub(crate) fn expect_only(&self, status: u16) -> &Self {
        assert!(self.total() > 0, "no request was made");
        let all = BTreeMap::from([(status, self.total())]);
        assert_eq!(self.statuses(), all, "{self:?}");
        self
    }
}

fn count<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

/// Runs several loads for the same `span`.
pub(crate) async fn run_all(loads: Vec<Load>, span: Duration) -> Vec<Summary> {
    let running: Vec<_> = loads.into_iter().map(Load::start).collect();
    tokio::time::sleep(span).await;
    let mut summaries = Vec::new();
    for one in running {
        summaries.push(soon("a load to end", one.stop()).await);
    }
    summaries
}
