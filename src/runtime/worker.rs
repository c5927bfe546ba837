//! A worker: its sockets, its accept loops, its connections.
//!
//! Must stay true: at the end the accept queue is emptied before the listener closes; a connection
//! that the kernel had accepted is served.

use super::bind::Bound;
use super::handshake::{GONE, Handshake, Handshakes, why};
use crate::auth::ClientCertificate;
use crate::config::Http;
use crate::proxy::complaint::Complaint;
use crate::proxy::crowd::{Comer, Full};
use crate::proxy::drain::{ConnectionGuard, DoorGuard};
use crate::proxy::stream::ClientStream;
use crate::proxy::wire::HeadCaps;
use crate::proxy::{ConnectionLimits, Connections, Drain, Phase, Waits};
use crate::snapshot::Live;
use crate::telemetry::Clock;
use crate::telemetry::metrics::Metrics;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long a connection above the cap is kept.
const SPARE_LIFE: Duration = Duration::from_secs(2);
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
                no_files: Complaint::default(),
                full: Complaint::default(),
                crowded: Complaint::default(),
                handshakes: Complaint::default(),
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
    no_files: Complaint,
    full: Complaint,
    crowded: Complaint,
    handshakes: Complaint,
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
            Ok((tcp, peer)) => self.open(tcp, peer),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.serving.metrics.connection_refused("no_files");
                if self.no_files.is_due() {
                    log::error!(listener = &*self.name;
                        "no open file is left for new connections: raise the limit (ulimit -n), or lower http.max_connections");
                }
                tokio::time::sleep(NO_FILES_REST).await;
            }
            // The client was gone before it was accepted.
            Err(error) => log::debug!("accept failed: {error}"),
        }
    }

    /// Finds a place for a connection. What has none is closed unheard.
    fn place(&self, http: &Http, peer: SocketAddr) -> Option<ConnectionGuard> {
        let address = peer.ip().to_canonical();
        let comer = Comer {
            address,
            trusted: http.trusted_proxies.iter().any(|network| network.contains(&address)),
            max: http.max_connections,
            max_per_address: http.max_connections_per_address,
        };
        let placed = self.serving.drain.connection(&comer);
        if let Err(Full::Address) = placed {
            self.serving.metrics.connection_refused("max_connections_per_address");
            if self.crowded.is_due() {
                log::warn!(listener = &*self.name, address:% = address;
                    "one address has too many connections, more are closed: is it a proxy that http.trusted_proxies should name?");
            }
            return None;
        }
        if placed.as_ref().map_or(true, ConnectionGuard::is_spare) {
            self.serving.metrics.connection_refused("max_connections");
            if self.full.is_due() {
                log::error!(listener = &*self.name, max_connections = comer.max;
                    "too many connections are open, those above http.max_connections get 503 or are closed");
            }
        }
        placed.ok()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a connection lives as long as its client; `drain` counts it"
    )]
    fn open(self: &Arc<Self>, tcp: TcpStream, peer: SocketAddr) {
        let snapshot = self.serving.live.load();
        let Some(guard) = self.place(&snapshot.http, peer) else { return };
        self.serving.metrics.connection(&self.name);
        if let Err(error) = tcp.set_nodelay(true) {
            log::debug!("a client was gone when it was accepted: {error}");
            return;
        }
        let limits = limits(&snapshot.http, guard.is_spare());
        let handshake = self.tls.as_ref().map(|tls| tls.begin(&snapshot));
        let door = Arc::clone(self);
        if guard.is_spare() {
            tokio::spawn(async move {
                let _guard = guard;
                // It has no claim to more, whatever it is doing.
                drop(
                    tokio::time::timeout(SPARE_LIFE, door.serve(tcp, peer, handshake, limits))
                        .await,
                );
            });
            return;
        }
        tokio::spawn(async move {
            let _guard = guard;
            door.serve(tcp, peer, handshake, limits).await;
        });
    }

    async fn serve(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        handshake: Option<Handshake>,
        limits: ConnectionLimits,
    ) {
        let mut waits = Waits::new(&self.serving.drain);
        let (patience, pressure) = (limits.write_timeout, self.serving.drain.pressure());
        let Some(Handshake { acceptor, trust }) = handshake else {
            let stream = ClientStream::plain(tcp, patience).under(pressure).spare(limits.spare);
            return self.connections.serve(stream, waits, limits).await;
        };
        let deadline = Instant::now() + limits.handshake_timeout;
        match waits.within(deadline, acceptor.accept(tcp)).await {
            Some(Ok(io)) => {
                let tls = io.get_ref().1;
                let (chain, kind) = (tls.peer_certificates(), tls.handshake_kind());
                let chain = chain.unwrap_or_default();
                let shown = trust.and_then(|trust| {
                    ClientCertificate::read(&self.name, chain, kind, &trust, &self.serving.clock)
                });
                let stream = ClientStream::tls(io, patience).under(pressure);
                let stream = stream.shown(shown).spare(limits.spare);
                self.connections.serve(stream, waits, limits).await;
            }
            Some(Err(error)) => self.failed(peer, &error),
            None => self.serving.metrics.tls_failed("timeout"),
        }
    }

    /// Clients that simply went away are counted only.
    fn failed(&self, peer: SocketAddr, error: &io::Error) {
        let reason = why(error);
        self.serving.metrics.tls_failed(reason);
        if reason == GONE {
            return;
        }
        if let Some(failures) = self.handshakes.due() {
            log::warn!(listener = &*self.name, peer:% = peer, reason:% = error, failures = failures;
                "a TLS handshake has failed");
        }
    }
}

fn limits(http: &Http, spare: bool) -> ConnectionLimits {
    ConnectionLimits {
        spare,
        handshake_timeout: http.handshake_timeout,
        head: HeadCaps::from(http),
        head_timeout: http.head_timeout,
        idle_timeout: http.idle_timeout,
        body_timeout: http.body_timeout,
        write_timeout: http.write_timeout,
    }
}
