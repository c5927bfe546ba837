//! The operator's listener: metrics, liveness, readiness, and the API for whoever has a token.
//!
//! It is never behind the load balancer. What it tells anyone is not secret, but it is nobody's business
//! either, so it listens on the loopback address by default, refuses names that a browser could be
//! tricked into using (DNS rebinding), and offers nothing to scripts of other origins.
//!
//! Must stay true: whatever its clients do, they cost a bounded amount of memory, and the threads
//! that serve requests do not wait for them.

mod answers;
pub mod api;
mod door;

use crate::telemetry::Metrics;
use api::ApiState;
use axum::Router;
use axum::middleware;
use axum::routing::get;
use door::{Door, Peer};
use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// After the stop, answers under way have this long to be sent.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Whether the process is ready for requests; if not, why.
pub type Ready = dyn Fn() -> Result<(), &'static str> + Send + Sync;
/// Called before each scrape, to set what the metrics do not know by themselves.
pub type BeforeScrape = dyn Fn(&Metrics) + Send + Sync;
/// Members of the `/healthz` document.
pub type Detail = dyn Fn() -> serde_json::Value + Send + Sync;

/// What the listener tells of.
#[derive(Clone)]
pub struct AdminState {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz` and `/healthz`.
    pub ready: Arc<Ready>,
    /// For `/metrics`.
    pub before_scrape: Arc<BeforeScrape>,
    /// For `/healthz`.
    pub detail: Arc<Detail>,
    /// For `/v1`; it is off without.
    pub api: Option<ApiState>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").finish_non_exhaustive()
    }
}

/// Answers on `listener` until `stop`, and a second longer what is under way.
///
/// # Errors
/// If the listener is not usable.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let loopback = listener.local_addr()?.ip().is_loopback();
    let door = Door::open(listener)?;
    let (stopped, mut stopping) = tokio::sync::watch::channel(());
    let stop = async move {
        stop.await;
        drop(stopped);
    };
    let service = router(state, loopback).into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(door, service).with_graceful_shutdown(stop);
    let last_call = async move {
        // An error is the news: nobody sends, the other end is dropped at the stop.
        drop(stopping.changed().await);
        tokio::time::sleep(LAST_CALL).await;
    };
    tokio::select! {
        result = served => result,
        () = last_call => Ok(()),
    }
}

/// What the answers share.
#[derive(Clone)]
struct Shared {
    state: AdminState,
    /// One scrape at a time: an exposition of thousands of routes is megabytes.
    scrape: Arc<Mutex<()>>,
}

fn router(state: AdminState, loopback: bool) -> Router {
    let api = state.api.clone().map_or_else(api::off, api::router);
    let router = Router::new()
        .route("/metrics", get(answers::metrics))
        .route("/livez", get(answers::livez))
        .route("/readyz", get(answers::readyz))
        .route("/healthz", get(answers::healthz))
        .fallback(answers::not_found)
        .method_not_allowed_fallback(answers::method_not_allowed)
        .with_state(Shared { state, scrape: Arc::default() })
        .nest(api::ROOT, api);
    if loopback { router.layer(middleware::from_fn(door::check_host)) } else { router }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    struct Admin {
        address: SocketAddr,
        ready: Arc<AtomicBool>,
        stop: oneshot::Sender<()>,
        served: JoinHandle<std::io::Result<()>>,
    }

    #[expect(clippy::disallowed_methods, reason = "the test ends with its tasks")]
    fn start() -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ready = Arc::new(AtomicBool::new(true));
        let is_ready = Arc::clone(&ready);
        let state =
            AdminState {
                metrics: Metrics::new(),
                ready: Arc::new(move || {
                    if is_ready.load(Ordering::SeqCst) { Ok(()) } else { Err("draining") }
                }),
                before_scrape: Arc::new(|metrics| metrics.reload_succeeded(7)),
                detail: Arc::new(|| json!({ "revision": 7 })),
                api: None,
            };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, state, async move { drop(stopped.await) }));
        Admin { address, ready, stop, served }
    }

    impl Admin {
        /// Sends `request` and reads whatever comes until the other end closes.
        async fn send(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // A reset is an end as well.
            drop(stream.read_to_end(&mut answer).await);
            String::from_utf8(answer).unwrap()
        }

        async fn get(&self, path: &str, host: &str) -> (u16, String, String) {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = self.send(&request).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn each_path_answers_in_its_own_format() {
        let admin = start();
        for (path, status, kind, contains) in [
            ("/livez", 200, "text/plain", "alive"),
            ("/readyz", 200, "text/plain", "ready"),
            ("/metrics", 200, "text/plain; version=0.0.4", "gateway_config_revision 7"),
            ("/healthz", 200, "application/health+json", "\"status\":\"pass\""),
            ("/", 404, "application/problem+json", "/metrics"),
        ] {
            let (got, head, body) = admin.get(path, "localhost").await;
            assert_eq!(got, status, "{path}");
            assert!(head.contains(&format!("content-type: {kind}")), "{path}: {head}");
            assert!(!head.contains("access-control"), "{path}: {head}");
            assert!(body.contains(contains), "{path}: {body}");
        }
        let answer =
            admin.send("POST /metrics HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n");
        let answer = answer.await.to_lowercase();
        assert!(answer.starts_with("http/1.1 405"), "{answer}");
        assert!(answer.contains("allow: get, head"), "{answer}");
    }

    #[tokio::test]
    async fn a_process_that_drains_is_alive_but_not_ready() {
        let admin = start();
        admin.ready.store(false, Ordering::SeqCst);
        assert_eq!(admin.get("/livez", "localhost").await.0, 200);
        let (status, _, body) = admin.get("/readyz", "localhost").await;
        assert_eq!((status, body.as_str()), (503, "draining\n"));
        let (status, _, body) = admin.get("/healthz", "localhost").await;
        let document: Value = serde_json::from_str(&body).unwrap();
        let expected = json!({
            "status": "fail", "output": "draining", "revision": 7,
            "version": env!("CARGO_PKG_VERSION"),
        });
        assert_eq!((status, document), (503, expected));
    }

    #[tokio::test]
    async fn a_name_that_a_browser_was_tricked_into_is_refused() {
        let admin = start();
        let (status, _, body) = admin.get("/metrics", "rebound.example").await;
        assert_eq!(status, 421);
        assert!(!body.contains("gateway_"));
        assert_eq!(admin.get("/metrics", &admin.address.to_string()).await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_cut_off() {
        let admin = start();
        let begun = Instant::now();
        assert_eq!(admin.send("GET /metrics HTTP/1.1\r\nHost: local").await, "");
        assert!(begun.elapsed() <= Duration::from_secs(11));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_say_nothing_keep_others_out_for_ten_seconds_at_most() {
        let admin = start();
        let mut silent = Vec::new();
        for _ in 0..door::MAX_CONNECTIONS {
            silent.push(TcpStream::connect(admin.address).await.unwrap());
        }
        let begun = Instant::now();
        assert_eq!(admin.get("/livez", "localhost").await.0, 200);
        assert!(begun.elapsed() >= Duration::from_secs(9), "the places were taken");
        assert!(begun.elapsed() <= Duration::from_secs(11));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_between_scrapes_but_not_for_ever() {
        let admin = start();
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        for _ in 0..3 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut answer = vec![0; 4096];
            let read = stream.read(&mut answer).await.unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"));
            // The clock is the test's own, so this takes no time.
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        let begun = Instant::now();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(begun.elapsed() <= Duration::from_secs(16));
    }

    #[tokio::test]
    async fn a_request_that_is_too_large_is_not_read_to_its_end() {
        let admin = start();
        let filler = "x".repeat(door::MAX_REQUEST);
        let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {filler}\r\n\r\n");
        assert!(!admin.send(&request).await.contains("200 OK"));
    }

    #[tokio::test]
    async fn it_stops_even_if_a_client_holds_its_connection() {
        let admin = start();
        let _idle = TcpStream::connect(admin.address).await.unwrap();
        assert_eq!(admin.get("/livez", "localhost").await.0, 200);
        admin.stop.send(()).unwrap();
        admin.served.await.unwrap().unwrap();
        assert!(TcpStream::connect(admin.address).await.is_err());
    }
}
