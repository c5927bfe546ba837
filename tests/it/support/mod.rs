//! The harness: a gateway process, origins that behave and misbehave, and clients of every kind.
//!
//! Must stay true: every wait has a bound ([`PATIENCE`]), every port is the kernel's choice, every
//! file lies in a folder of the test's own, and what is started here ends with its value.

pub(crate) mod client;
pub(crate) mod credential;
pub(crate) mod disk;
pub(crate) mod gateway;
pub(crate) mod grpc;
pub(crate) mod http2;
pub(crate) mod http2_origin;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod origin;
pub(crate) mod origin_process;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod secret;
pub(crate) mod tls;
pub(crate) mod websocket;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// How long anything may take that should happen soon; only a failing test waits it out.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `condition` gives a value; `what` says in the failure what was waited for.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// As [`eventually`], for a condition that has to ask somebody.
pub(crate) async fn eventually_async<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Gives `future` at most [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

/// How long something takes.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The size of a test that has a long form: `make soak` asks for `long`.
pub(crate) fn sized<T>(short: T, long: T) -> T {
    if std::env::var_os("GATEWAY_SOAK").is_some() { long } else { short }
}
