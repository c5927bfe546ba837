//! The operator's listener: metrics, liveness, readiness.
//!
//! It is never behind the load balancer. What it tells is not secret, but it is nobody's business
//! either, so it listens on the loopback address by default, refuses names that a browser could be
//! tricked into using (DNS rebinding), and offers nothing to scripts of other origins.
//!
//! Must stay true: whatever its clients do, they cost a bounded amount of memory, and the threads
//! that serve requests do not wait for them.

mod answers;
mod door;

use crate::telemetry::Metrics;
use axum::Router;
use axum::middleware;
use axum::routing::get;
use door::Door;
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
    let served = axum::serve(door, router(state, loopback)).with_graceful_shutdown(stop);
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
    let router = Router::new()
        .route("/metrics", get(answers::metrics))
        .route("/livez", get(answers::livez))
        .route("/readyz", get(answers::readyz))
        .route("/healthz", get(answers::healthz))
        .fallback(answers::not_found)
        .method_not_allowed_fallback(answers::method_not_allowed)
        .with_state(Shared { state, scrape: Arc::default() });
    if loopback { router.layer(middleware::from_fn(door::check_host)) } else { router }
}
