//! HTTP/2 connections: the client's preface, its streams, the farewell.
//!
//! Pingora's own loop has no deadline for the preface, one idle time for all connections, and says
//! GOAWAY at once when the process is about to end, so that a client who comes then is sent away
//! before its first request is heard, again and again. Here a connection hears one request first,
//! as with HTTP/1.
//!
//! Must stay true: no wait without a deadline, and a stream that was opened is answered.

use super::connection::ConnectionLimits;
use super::drain::{Drain, Phase};
use super::hooks::Gateway;
use super::waits::Waits;
use pingora_core::apps::HttpServerApp as _;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{
    H2Accept, HttpSession, default_h2_options, handshake,
};
use pingora_core::protocols::{Digest, Stream};
use pingora_proxy::HttpProxy;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of a response that wait on a stream for its client.
const SEND_BUFFER: usize = 64 * 1024;
/// Malformed requests after which a connection is given up.
const MAX_MALFORMED: usize = 32;

/// Serves HTTP/2 connections of one worker.
pub(super) struct Http2 {
    pub(super) proxy: Arc<HttpProxy<Gateway>>,
    pub(super) drain: Arc<Drain>,
}

/// The streams of one connection that are being answered.
#[derive(Default)]
struct Streams {
    open: AtomicUsize,
    ended: Notify,
}

/// One of them.
struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.ended.notify_one();
        }
    }
}

impl Streams {
    fn open(self: &Arc<Self>) -> OpenStream {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(self))
    }

    async fn none_is_open(&self) {
        while self.open.load(Ordering::Relaxed) > 0 {
            self.ended.notified().await;
        }
    }
}

impl Http2 {
    /// Serves one connection to its end.
    pub(super) async fn serve(&self, stream: Stream, mut waits: Waits, limits: ConnectionLimits) {
        let digest = Arc::new(Digest {
            ssl_digest: stream.get_ssl_digest(),
            timing_digest: Vec::new(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        });
        let mut options = default_h2_options();
        // A client that does not read holds at most this much of each response here.
        options.max_send_buffer_size(SEND_BUFFER);
        options.max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX));
        let preface = Instant::now() + limits.head_timeout;
        let mut connection = match waits.within(preface, handshake(stream, Some(options))).await {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => return log::debug!("no HTTP/2 connection came about: {error}"),
            None => return,
        };
        let streams = Arc::new(Streams::default());
        let (mut heard, mut dismissed, mut malformed) = (false, false, 0);
        let mut ending = pin!(self.drain.reached(Phase::Announcing));
        loop {
            let silence = async {
                streams.none_is_open().await;
                let idle = Instant::now() + limits.idle_timeout;
                waits.within(idle, std::future::pending::<()>()).await
            };
            tokio::select! {
                biased;
                () = async {}, if heard && !dismissed && limits.spare => {
                    connection.graceful_shutdown();
                    dismissed = true;
                }
                () = &mut ending, if heard && !dismissed => {
                    connection.graceful_shutdown();
                    dismissed = true;
                }
                accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => {
                    match accepted {
                        Ok(Some(H2Accept::Session(session))) => {
                            heard = true;
                            self.answer(session, streams.open(), &limits);
                        }
                        Ok(Some(H2Accept::Rejected)) if malformed < MAX_MALFORMED => malformed += 1,
                        Ok(_) => return,
                        Err(error) => return log::debug!("an HTTP/2 connection broke: {error}"),
                    }
                }
                _ = silence => return,
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a stream lives as long as its request; `drain` counts it"
    )]
    fn answer(&self, session: HttpSession, open: OpenStream, limits: &ConnectionLimits) {
        let mut session = ServerSession::new_http2(session);
        session.set_write_timeout(Some(limits.write_timeout));
        session.set_total_drain_timeout(Some(limits.body_timeout));
        let (proxy, shutdown) = (Arc::clone(&self.proxy), self.drain.shutdown_watch());
        // Counted before the task runs: a connection that breaks meanwhile must not hide it.
        let in_flight = self.drain.request();
        tokio::spawn(async move {
            let _guards = (in_flight, open);
            proxy.process_new_http(session, &shutdown).await;
        });
    }
}
