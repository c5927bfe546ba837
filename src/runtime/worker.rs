//! A worker: its sockets, its accept loops, its connections.
//!
//! Must stay true: at the end the accept queue is emptied before the listener closes; a connection
//! that the kernel had accepted is served.

use super::bind::Bound;
use crate::config::Http;
use crate::proxy::drain::DoorGuard;
use crate::proxy::stream::ClientStream;
use crate::proxy::wire::HeadCaps;
use crate::proxy::{ConnectionLimits, Connections, Drain, Phase};
use crate::snapshot::Live;
use crate::telemetry::metrics::Metrics;
use rustls::ServerConfig;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

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
}

/// One worker's sockets.
pub struct Worker(Vec<(Arc<str>, TcpListener, Option<Arc<ServerConfig>>)>);

/// Deals the sockets out to the workers.
#[must_use]
pub fn deal(mut bound: Vec<Bound>, workers: NonZeroUsize) -> Vec<Worker> {
    (0..workers.get())
        .map(|_| {
            Worker(
                bound
                    .iter_mut()
                    .filter_map(|listener| {
                        let socket = listener.sockets.pop()?;
                        Some((Arc::clone(&listener.name), socket, listener.tls.clone()))
                    })
                    .collect(),
            )
        })
        .collect()
}

impl Worker {
    /// Accepts and serves until the process drains; returns when nothing is in flight any more.
    ///
    /// # Errors
    /// A socket that the event loop does not take.
    pub async fn serve(self, connections: Connections, serving: Serving) -> io::Result<()> {
        let connections = Arc::new(connections);
        let mut loops = tokio::task::JoinSet::new();
        for (name, socket, tls) in self.0 {
            let listener = tokio::net::TcpListener::from_std(socket)?;
            let door = Door {
                _open: serving.drain.door(),
                name,
                tls: tls.map(TlsAcceptor::from),
                connections: Arc::clone(&connections),
                serving: serving.clone(),
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
    tls: Option<TlsAcceptor>,
    connections: Arc<Connections>,
    serving: Serving,
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
        // Connections that the kernel already accepted are served like the others.
        while let Some(accepted) = at_once(listener.accept()).await {
            if accepted.is_err() {
                break;
            }
            self.admit(accepted).await;
        }
    }

    async fn admit(self: &Arc<Self>, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((tcp, _)) => self.open(tcp),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.serving.metrics.connection_refused("no_files");
                log::error!(listener = &*self.name;
                    "no file descriptor is left for a new connection: raise the limit on open files");
                tokio::time::sleep(NO_FILES_REST).await;
            }
            // The client was gone before it was accepted.
            Err(error) => log::debug!("accept failed: {error}"),
        }
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
        let door = Arc::clone(self);
        tokio::spawn(async move {
            let _guard = guard;
            door.serve(tcp, limits).await;
        });
    }

    async fn serve(&self, tcp: TcpStream, limits: ConnectionLimits) {
        let Some(tls) = &self.tls else {
            let stream = Box::new(ClientStream::plain(tcp));
            return self.connections.serve(stream, limits).await;
        };
        match tokio::time::timeout(limits.head_timeout, tls.accept(tcp)).await {
            Ok(Ok(io)) => {
                self.connections.serve(Box::new(ClientStream::tls(io)), limits).await;
            }
            Ok(Err(error)) => {
                self.serving.metrics.tls_failed();
                log::debug!("a TLS handshake failed: {error}");
            }
            Err(_) => self.serving.metrics.tls_failed(),
        }
    }
}

fn limits(http: &Http) -> ConnectionLimits {
    ConnectionLimits {
        head: HeadCaps { bytes: http.max_head, fields: http.max_headers, target: http.max_target },
        head_timeout: http.head_timeout,
        idle_timeout: http.idle_timeout,
        body_timeout: http.body_timeout,
        write_timeout: http.write_timeout,
    }
}

/// What `future` has now, if it has anything.
async fn at_once<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}
