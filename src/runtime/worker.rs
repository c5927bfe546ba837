//! A worker: its sockets, its accept loops, its connections.
//!
//! Must stay true: at the end the accept queue is emptied before the listener closes; a connection
//! that the kernel had accepted is served.

use super::bind::Bound;
use super::handshake::{Handshake, Handshakes};
use crate::auth::ClientCertificate;
use crate::config::Http;
use crate::proxy::drain::DoorGuard;
use crate::proxy::stream::ClientStream;
use crate::proxy::wire::HeadCaps;
use crate::proxy::{ConnectionLimits, Connections, Drain, Phase, Waits};
use crate::snapshot::Live;
use crate::telemetry::Clock;
use crate::telemetry::metrics::Metrics;
use parking_lot::Mutex;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Between two complaints in the log about one thing.
const COMPLAINTS: Duration = Duration::from_secs(10);
/// How long the accept loop rests when the process is out of file descriptors.
const NO_FILES_REST: Duration = Duration::from_millis(50);

/// What a worker needs beside its sockets.
#[derive(Clone)]
pub struct Serving {
    /// The process's phase and counts.
    pub drain: Arc<Drain>,
    /// The snapshot in force.
    pub live: Arc<Live>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// One worker's sockets.
pub struct Worker(Vec<Place>);

/// One of them, counted as a door from here on: connections wait at it before its worker runs.
struct Place {
    open: DoorGuard,
    name: Arc<str>,
    socket: TcpListener,
    tls: Option<Arc<Handshakes>>,
}

/// Deals the sockets out to the workers.
#[must_use]
pub fn deal(mut bound: Vec<Bound>, workers: NonZeroUsize, drain: &Arc<Drain>) -> Vec<Worker> {
    let mut place = |listener: &mut Bound| {
        let (name, tls) = (Arc::clone(&listener.name), listener.tls.clone());
        let socket = listener.sockets.pop()?;
        Some(Place { open: drain.door(), name, socket, tls })
    };
    (0..workers.get()).map(|_| Worker(bound.iter_mut().filter_map(&mut place).collect())).collect()
}

impl Worker {
    /// Accepts and serves until the process drains; returns when nothing is in flight any more.
    ///
    /// # Errors
    /// A socket that the event loop does not take.
    pub async fn serve(self, connections: Connections, serving: Serving) -> io::Result<()> {
        let connections = Arc::new(connections);
        let mut loops = tokio::task::JoinSet::new();
        for Place { open, name, socket, tls } in self.0 {
            let listener = tokio::net::TcpListener::from_std(socket)?;
            let door = Door {
                _open: open,
                name,
                tls,
                connections: Arc::clone(&connections),
                serving: serving.clone(),
                complained: Mutex::default(),
            };
            loops.spawn(Arc::new(door).accept(listener));
        }
        while loops.join_next().await.is_some() {}
        serving.drain.idle().await;
        Ok(())
    }
}

/// One listening socket of one worker.
struct Door {
    _open: DoorGuard,
    name: Arc<str>,
    tls: Option<Arc<Handshakes>>,
    connections: Arc<Connections>,
    serving: Serving,
    complained: Mutex<Option<Instant>>,
}

impl Door {
    async fn accept(self: Arc<Self>, listener: tokio::net::TcpListener) {
        let closing = self.serving.drain.reached(Phase::Closing);
        tokio::pin!(closing);
        loop {
            tokio::select! {
                accepted = listener.accept() => self.admit(accepted).await,
                () = &mut closing => break,
            }
        }
        match listener.into_std() {
            Ok(listener) => self.empty(&listener).await,
            Err(error) => log::error!(error:% = error; "an accept queue cannot be emptied"),
        }
    }

    /// Serves what the kernel has accepted already. The socket itself is asked, because the event
    /// loop may not have heard of the last connections yet.
    async fn empty(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept().and_then(|(tcp, address)| {
                tcp.set_nonblocking(true)?;
                Ok((TcpStream::from_std(tcp)?, address))
            });
            match accepted {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                accepted => self.admit(accepted).await,
            }
        }
    }

    async fn admit(self: &Arc<Self>, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((tcp, _)) => self.open(tcp),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.serving.metrics.connection_refused("no_files");
                if self.may_complain() {
                    log::error!(listener = &*self.name;
                        "no open file is left for new connections: raise the limit (ulimit -n), or lower http.max_connections");
                }
                tokio::time::sleep(NO_FILES_REST).await;
            }
            // The client was gone before it was accepted.
            Err(error) => log::debug!("accept failed: {error}"),
        }
    }

    /// Whether the last complaint is long enough ago.
    fn may_complain(&self) -> bool {
        let now = Instant::now();
        let mut last = self.complained.lock();
        let due = last.is_none_or(|at| now.duration_since(at) >= COMPLAINTS);
        if due {
            *last = Some(now);
        }
        due
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a connection lives as long as its client; `drain` counts it"
    )]
    fn open(self: &Arc<Self>, tcp: TcpStream) {
        let snapshot = self.serving.live.load();
        let Some(guard) = self.serving.drain.connection(snapshot.http.max_connections) else {
            self.serving.metrics.connection_refused("max_connections");
            return;
        };
        self.serving.metrics.connection(&self.name);
        if let Err(error) = tcp.set_nodelay(true) {
            log::debug!("a client was gone when it was accepted: {error}");
            return;
        }
        let limits = limits(&snapshot.http);
        let handshake = self.tls.as_ref().map(|tls| tls.begin(&snapshot));
        let door = Arc::clone(self);
        tokio::spawn(async move {
            let _guard = guard;
            door.serve(tcp, handshake, limits).await;
        });
    }

    async fn serve(&self, tcp: TcpStream, handshake: Option<Handshake>, limits: ConnectionLimits) {
        let mut waits = Waits::new(&self.serving.drain);
        let patience = limits.write_timeout;
        let Some(Handshake { acceptor, trust }) = handshake else {
            let stream = ClientStream::plain(tcp, patience);
            return self.connections.serve(stream, waits, limits).await;
        };
        let deadline = Instant::now() + limits.head_timeout;
        match waits.within(deadline, acceptor.accept(tcp)).await {
            Some(Ok(io)) => {
                let chain = io.get_ref().1.peer_certificates().unwrap_or_default();
                let shown = trust.and_then(|trust| {
                    ClientCertificate::read(&self.name, chain, &trust, &self.serving.clock)
                });
                let stream = ClientStream::tls(io, patience).shown(shown);
                self.connections.serve(stream, waits, limits).await;
            }
            Some(Err(error)) => {
                self.serving.metrics.tls_failed();
                log::debug!("a TLS handshake failed: {error}");
            }
            None => self.serving.metrics.tls_failed(),
        }
    }
}

fn limits(http: &Http) -> ConnectionLimits {
    ConnectionLimits {
        head: HeadCaps::from(http),
        head_timeout: http.head_timeout,
        idle_timeout: http.idle_timeout,
        body_timeout: http.body_timeout,
        write_timeout: http.write_timeout,
    }
}
