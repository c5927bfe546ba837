//! Active health checks: asks every endpoint in turn, and tells it what came back.
//!
//! Each endpoint is asked on its own, `interval` after the last question began (a tenth more or
//! less, so that a fleet does not ask in step), over a new connection, and never twice at once.
//! Which endpoints there are is read from the snapshot in force every second, so a reload needs no
//! notice; what earlier probes found stays with the endpoint. One that is probed no longer is
//! unknown again.
//!
//! Must stay true: at most `AT_ONCE` probes run together, each ends by its timeout, and all of
//! them end with [`probe`].

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use rand::Rng;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::{Id, JoinError, JoinSet, spawn_blocking};
use tokio::time;

use crate::telemetry::{Clock, Moment};
use crate::upstreams::{Check, Endpoint, Get, Health, Question, Upstream};

/// Probes that run at the same time.
const AT_ONCE: usize = 32;
/// How long a change of the snapshot may go unnoticed.
const GLANCE: Duration = Duration::from_secs(1);
/// The least time between two probes of an endpoint, whatever the file says.
const SHORTEST: Duration = Duration::from_millis(1);

/// Probes the endpoints of the upstreams that `current` returns, until `stop` completes.
pub async fn probe(
    current: impl Fn() -> Vec<Arc<Upstream>>,
    clock: Clock,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut rota = Rota::default();
    let mut running = JoinSet::new();
    let connector = Arc::new(OnceCell::new());
    let mut glance = clock.now();
    loop {
        let now = clock.now();
        if now >= glance {
            rota.follow(&current(), now, &mut rand::rng());
            glance = now + GLANCE;
        }
        while let Some(endpoint) = rota.begin(now, &mut rand::rng()) {
            let task = running.spawn(ask(Arc::clone(&endpoint), Arc::clone(&connector)));
            rota.running.insert(task.id(), key(&endpoint));
        }
        let pause = rota.next_due().map_or(glance, |due| due.min(glance)).since(now);
        tokio::select! {
            () = &mut stop => return,
            Some(ended) = running.join_next_with_id() => rota.settle(ended),
            () = time::sleep(pause) => {}
        }
    }
}

type Key = (Arc<str>, SocketAddr);

fn key(endpoint: &Endpoint) -> Key {
    (Arc::clone(endpoint.upstream()), endpoint.address())
}

/// Who is asked when.
#[derive(Default)]
struct Rota {
    turns: HashMap<Key, Turn>,
    running: HashMap<Id, Key>,
}

struct Turn {
    endpoint: Arc<Endpoint>,
    interval: Duration,
    due: Moment,
    running: bool,
}

impl Rota {
    /// Takes over the endpoints of the snapshot in force. New ones have their turn soon, but not all
    /// at the same moment.
    fn follow(&mut self, upstreams: &[Arc<Upstream>], now: Moment, rng: &mut impl Rng) {
        let mut before = std::mem::take(&mut self.turns);
        for endpoint in upstreams.iter().flat_map(|upstream| upstream.endpoints()) {
            let Some(check) = endpoint.check() else { continue };
            let interval = check.rules().interval.max(SHORTEST);
            let key = key(endpoint);
            let (due, running) = match before.remove(&key) {
                Some(turn) => (turn.due.min(now + interval), turn.running),
                None => {
                    let running = self.running.values().any(|running| *running == key);
                    (now + interval.mul_f64(rng.random_range(0.0..0.1)), running)
                }
            };
            let endpoint = Arc::clone(endpoint);
            self.turns.insert(key, Turn { endpoint, interval, due, running });
        }
        for gone in before.into_values() {
            gone.endpoint.forget_probes();
        }
    }

    /// The endpoint whose turn it is, if there is one.
    fn begin(&mut self, now: Moment, rng: &mut impl Rng) -> Option<Arc<Endpoint>> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let waiting = self.turns.values_mut().filter(|turn| !turn.running && turn.due <= now);
        let turn = waiting.min_by_key(|turn| turn.due)?;
        turn.running = true;
        turn.due = now + turn.interval.mul_f64(rng.random_range(0.9..1.1));
        Some(Arc::clone(&turn.endpoint))
    }

    /// When the next turn is, unless it must wait for a probe to end.
    fn next_due(&self) -> Option<Moment> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        self.turns.values().filter(|turn| !turn.running).map(|turn| turn.due).min()
    }

    /// Takes what came of a probe, unless its endpoint is not probed any more.
    fn settle(&mut self, ended: Result<(Id, Result<(), Fault>), JoinError>) {
        let (id, answer) = match ended {
            Ok((id, answer)) => (id, answer),
            Err(e) => (e.id(), Err(Fault::Unable(e.to_string()))),
        };
        let Some(turn) = self.running.remove(&id).and_then(|key| self.turns.get_mut(&key)) else {
            return;
        };
        turn.running = false;
        report(&turn.endpoint, answer);
    }
}

/// What a bad answer was.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Http(&'static str),
    #[error("status {0}")]
    Status(u16),
    #[error("no answer in time")]
    Timeout,
    /// The question was not asked, so it says nothing about the endpoint.
    #[error("{0}")]
    Unable(String),
}

/// Tells the endpoint, and the log where that changes anything.
fn report(endpoint: &Endpoint, answer: Result<(), Fault>) {
    let (upstream, label) = (&**endpoint.upstream(), &**endpoint.label());
    if let Err(Fault::Unable(reason)) = &answer {
        let reason = reason.as_str();
        log::error!(upstream, endpoint = label, reason; "health probe cannot be sent");
        return;
    }
    match endpoint.observe(answer.is_ok()) {
        None | Some(Health::Unknown) => {}
        Some(Health::Healthy) => {
            log::info!(upstream, endpoint = label; "endpoint is healthy");
        }
        Some(Health::Unhealthy) => {
            let reason = answer.err().map(|fault| fault.to_string()).unwrap_or_default();
            let reason = reason.as_str();
            log::warn!(upstream, endpoint = label, reason; "endpoint is unhealthy");
        }
    }
}

/// Asks one endpoint once.
async fn ask(endpoint: Arc<Endpoint>, connector: Arc<OnceCell<Connector>>) -> Result<(), Fault> {
    let Some(check) = endpoint.check() else { return Ok(()) };
    match check.question() {
        Question::Connect(address) => {
            within(check, async { TcpStream::connect(address).await.map_err(Fault::Connect) })
                .await
                .map(drop)
        }
        Question::Get(get) => {
            // Reads the system's certificates: not on a thread that serves requests, and not while
            // the endpoint's time runs.
            let connector = connector
                .get_or_try_init(|| spawn_blocking(|| Connector::new(None)))
                .await
                .map_err(|e| Fault::Unable(e.to_string()))?;
            within(check, ask_http(get, connector)).await
        }
    }
}

async fn within<T>(
    check: &Check,
    question: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    time::timeout(check.rules().timeout, question).await.unwrap_or(Err(Fault::Timeout))
}

/// Sends the request and reads the response's head; the connection ends with the session.
async fn ask_http(get: &Get, connector: &Connector) -> Result<(), Fault> {
    let http = |e: Box<pingora_core::Error>| Fault::Http(e.etype().as_str());
    let (mut session, _) = connector.get_http_session(get.peer()).await.map_err(http)?;
    let request = match &session {
        HttpSession::H2(_) => get.absolute_form(),
        HttpSession::H1(_) | HttpSession::Custom(()) => get.origin_form(),
    };
    session.write_request_header(Box::new(request.clone())).await.map_err(http)?;
    session.finish_request_body().await.map_err(http)?;
    loop {
        session.read_response_header().await.map_err(http)?;
        match session.response_header().map(|head| head.status) {
            Some(status) if status.is_informational() => {}
            Some(status) if status.is_success() => return Ok(()),
            Some(status) => return Err(Fault::Status(status.as_u16())),
            None => return Err(Fault::Http("no response")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use hyper::body::Incoming;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::upstreams::fixture::{address, build, health, orders};
    use crate::upstreams::{Probe, Protocol, Tried, Unavailable, UpstreamDef, UpstreamTls};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A server that gives these answers in turn, and the last one for ever.
    struct Origin {
        address: SocketAddr,
        answers: mpsc::Receiver<u16>,
        _task: JoinSet<()>,
    }

    impl Origin {
        async fn start(answers: &[u16]) -> Self {
            Self::start_with(answers, None).await
        }

        async fn start_with(answers: &[u16], tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let (told, heard) = mpsc::channel(1);
            let mut answers = VecDeque::from(answers.to_vec());
            let mut task = JoinSet::new();
            task.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let answer = answers.front().copied().expect("an answer");
                    let asked = match &tls {
                        None => serve(stream, answer).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, answer).await,
                            Err(_) => false,
                        },
                    };
                    if asked && answers.len() > 1 {
                        answers.pop_front();
                    }
                    if told.send(if asked { answer } else { 0 }).await.is_err() {
                        return;
                    }
                }
            });
            Self { address, answers: heard, _task: task }
        }

        /// Waits until the answers so far and `more` of them were taken: a probe begins only after
        /// the one before was settled.
        async fn serve(&mut self, more: usize) {
            for _ in 0..=more {
                self.answers.recv().await.expect("the server runs");
            }
        }
    }

    /// Reads one request and answers it.
    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: u16) -> bool {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return false,
            }
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\nhost: orders.test\r\n"), "{head}");
        let early = "HTTP/1.1 103 Early Hints\r\n\r\n";
        let answer = format!("{early}HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\nhello");
        stream.write_all(answer.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok()
    }

    fn http() -> Probe {
        Probe::Http { path: "/health?deep=1".to_owned(), host: Some("orders.test".to_owned()) }
    }

    fn probed(address: SocketAddr, probe: Probe) -> UpstreamDef {
        UpstreamDef { health: Some(health(probe)), ..orders(&[address]) }
    }

    fn upstream(def: &UpstreamDef) -> Arc<Upstream> {
        build(def, &Clock::system())
    }

    fn found(upstream: &Upstream) -> Health {
        upstream.states().next().expect("an endpoint").1.health
    }

    /// Probes `upstream` until `script` ends.
    async fn probing(upstream: &Arc<Upstream>, script: impl Future<Output = ()>) {
        let upstreams = vec![Arc::clone(upstream)];
        tokio::select! {
            () = probe(|| upstreams.clone(), Clock::system(), std::future::pending()) => {}
            done = time::timeout(PATIENCE, script) => done.expect("the script ends in time"),
        }
    }

    async fn until_found(upstream: &Upstream, health: Health) {
        while found(upstream) != health {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_endpoint_is_left_out_after_bad_answers_and_used_again_after_good_ones() {
        let answers = [200, 299, 500, 503, 302, 404, 204, 200];
        let mut origin = Origin::start(&answers).await;
        let upstream = upstream(&probed(origin.address, http()));
        probing(&upstream, async {
            // Between two calls one answer is served that the next call's count includes.
            origin.serve(2).await;
            assert_eq!(found(&upstream), Health::Healthy);
            origin.serve(2).await;
            assert_eq!(found(&upstream), Health::Unhealthy);
            let refused = upstream.pick(&Tried::default()).err();
            assert_eq!(refused, Some(Unavailable::NoneHealthy));
            origin.serve(2).await;
            assert_eq!(found(&upstream), Health::Healthy);
            assert!(upstream.pick(&Tried::default()).is_ok());
        })
        .await;
    }

    #[tokio::test]
    async fn an_endpoint_that_flaps_stays_as_it_was() {
        let answers: Vec<u16> =
            [200, 200].into_iter().chain([500, 500, 200].repeat(5)).chain([200]).collect();
        let mut origin = Origin::start(&answers).await;
        let upstream = upstream(&probed(origin.address, http()));
        probing(&upstream, async {
            origin.serve(2).await;
            for _ in 2..answers.len() {
                assert_eq!(found(&upstream), Health::Healthy);
                origin.serve(0).await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn an_endpoint_that_refuses_connections_is_unhealthy() {
        for probe in [Probe::Tcp, http()] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            drop(listener);
            let upstream = upstream(&probed(address, probe));
            probing(&upstream, until_found(&upstream, Health::Unhealthy)).await;
        }
    }

    #[tokio::test]
    async fn a_frozen_endpoint_is_unhealthy_though_its_connections_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut def = probed(address, http());
        def.health.as_mut().expect("probes").timeout = Duration::from_millis(5);
        let frozen = upstream(&def);
        probing(&frozen, until_found(&frozen, Health::Unhealthy)).await;
        let open = upstream(&probed(address, Probe::Tcp));
        probing(&open, until_found(&open, Health::Healthy)).await;
    }

    #[tokio::test]
    async fn http2_is_asked_with_prior_knowledge() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut def = probed(listener.local_addr().expect("an address"), http());
        def.protocol = Protocol::Http2;
        let upstream = upstream(&def);
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer =
                    hyper::service::service_fn(async |request: hyper::Request<Incoming>| {
                        assert_eq!(*request.uri(), "http://orders.test/health?deep=1");
                        Ok::<_, Infallible>(hyper::Response::new(String::new()))
                    });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), answer);
                // Ends only when the prober closes: no connection is kept.
                assert!(connection.await.is_ok());
            }
        });
        probing(&upstream, until_found(&upstream, Health::Healthy)).await;
        assert!(server.try_join_next().is_none());
    }

    #[tokio::test]
    async fn tls_is_checked_as_for_requests() {
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = ca.self_signed(&ca_key).expect("a certificate").der().clone();
        let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let leaf = rcgen::CertificateParams::new(["orders.test".to_owned()])
            .and_then(|params| params.signed_by(&key, &issuer))
            .expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .expect("a key for the certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));

        for (server_name, trusted, expected) in [
            ("orders.test", true, Health::Healthy),
            ("bills.test", true, Health::Unhealthy),
            ("orders.test", false, Health::Unhealthy),
        ] {
            let mut origin = Origin::start_with(&[200], Some(acceptor.clone())).await;
            let mut def = probed(origin.address, http());
            let ca = trusted.then(|| Arc::from([authority.clone()]));
            def.tls = Some(UpstreamTls { server_name: server_name.to_owned(), ca, verify: true });
            let upstream = upstream(&def);
            probing(&upstream, origin.serve(3)).await;
            assert_eq!(found(&upstream), expected, "{server_name}, trusted: {trusted}");
        }
    }

    #[tokio::test]
    async fn nothing_runs_after_the_stop() {
        let upstreams = vec![upstream(&probed(address(1), Probe::Tcp))];
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let probes = probe(|| upstreams.clone(), Clock::system(), async {
            assert!(stopped.await.is_err());
        });
        drop(stop);
        time::timeout(PATIENCE, probes).await.expect("the probes end");
    }

    fn slow(count: u8) -> Arc<Upstream> {
        let mut rules = health(Probe::Tcp);
        rules.interval = Duration::from_secs(10);
        let addresses: Vec<_> = (1..=count).map(address).collect();
        build(&UpstreamDef { health: Some(rules), ..orders(&addresses) }, &Clock::manual())
    }

    struct Turns {
        rota: Rota,
        tasks: JoinSet<Result<(), Fault>>,
        rng: StdRng,
        now: Moment,
    }

    impl Turns {
        fn of(upstreams: &[Arc<Upstream>]) -> Self {
            let (rota, tasks, now) = (Rota::default(), JoinSet::new(), Clock::manual().now());
            let mut turns = Self { rota, tasks, rng: StdRng::seed_from_u64(7), now };
            turns.follow(upstreams);
            turns
        }

        fn follow(&mut self, upstreams: &[Arc<Upstream>]) {
            self.rota.follow(upstreams, self.now, &mut self.rng);
        }

        /// Starts all probes whose turn it is after `seconds`; how many.
        fn after(&mut self, seconds: u64) -> usize {
            self.now = self.now + Duration::from_secs(seconds);
            let before = self.rota.running.len();
            while let Some(endpoint) = self.rota.begin(self.now, &mut self.rng) {
                let task = self.tasks.spawn(async { Ok(()) });
                self.rota.running.insert(task.id(), key(&endpoint));
            }
            self.rota.running.len() - before
        }

        async fn settle_all(&mut self) {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.rota.settle(ended);
            }
        }
    }

    #[tokio::test]
    async fn every_endpoint_has_a_turn_each_interval_and_one_at_a_time() {
        let mut turns = Turns::of(&[slow(5)]);
        assert_eq!(turns.after(1), 5);
        assert_eq!(turns.after(30), 0);
        turns.settle_all().await;
        assert_eq!(turns.after(0), 5);
        turns.settle_all().await;
        assert_eq!(turns.after(8), 0);
        assert_eq!(turns.after(3), 5);
    }

    #[tokio::test]
    async fn only_so_many_probes_run_at_once() {
        let mut turns = Turns::of(&[slow(40)]);
        assert_eq!(turns.after(1), AT_ONCE);
        assert_eq!(turns.rota.next_due(), None);
        turns.settle_all().await;
        assert_eq!(turns.after(0), 40 - AT_ONCE);
    }

    #[tokio::test]
    async fn a_reload_keeps_the_turns_and_forgets_who_is_gone() {
        let upstream = slow(2);
        let mut turns = Turns::of(&[Arc::clone(&upstream)]);
        assert_eq!(turns.after(1), 2);
        for _ in 0..3 {
            upstream.endpoints()[0].observe(false);
        }
        turns.follow(&[]);
        assert_eq!(found(&upstream), Health::Unknown);
        // Back again while their probes still run: not asked twice at once.
        turns.follow(&[Arc::clone(&upstream)]);
        assert_eq!(turns.after(5), 0);
        turns.settle_all().await;
        turns.follow(&[upstream]);
        assert_eq!(turns.after(0), 2);
    }
}
