//! Active health checks: asks every endpoint in turn, and tells it what came back.
//!
//! Each endpoint is asked on its own, `interval` after the last question began (a tenth more or
//! less, so that a fleet does not ask in step), over a new connection, and never twice at once.
//! Which endpoints there are is read from the snapshot in force at least once a second, so a reload
//! needs no notice; what earlier probes found stays with the endpoint.
//!
//! Must stay true: at most [`AT_ONCE`] probes run together, each ends by its timeout, and all of
//! them end with [`probe`].

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use rand::Rng;
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinSet};
use tokio::time;

use crate::telemetry::{Clock, Moment};
use crate::upstreams::{Check, Endpoint, Get, Health, Question, Upstream};

/// Probes that run at the same time.
const AT_ONCE: usize = 32;
/// How long a change of the snapshot may go unnoticed.
const GLANCE: Duration = Duration::from_secs(1);

/// Probes the endpoints of the upstreams that `current` returns until `stop` completes.
pub async fn probe(
    current: impl Fn() -> Vec<Arc<Upstream>>,
    clock: Clock,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut rota = Rota::default();
    let mut running = JoinSet::new();
    let mut connector = None;
    loop {
        let now = clock.now();
        rota.follow(&current(), now, &mut rand::rng());
        while running.len() < AT_ONCE {
            let Some(endpoint) = rota.begin(now, &mut rand::rng()) else { break };
            let connector = Arc::clone(connector.get_or_insert_with(Arc::default));
            running.spawn(ask(endpoint, connector));
        }
        let pause = rota.pause(now, running.len() < AT_ONCE);
        tokio::select! {
            () = &mut stop => return,
            Some(ended) = running.join_next() => rota.settle(ended),
            () = time::sleep(pause) => {}
        }
    }
}
