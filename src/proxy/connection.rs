//! The life of one client connection: heads with deadlines and caps, requests, and its end.
//!
//! Pingora has no deadline for a whole head, no limit on its size worth the name, and never says
//! why it closed. So HTTP/1 heads are read here and handed over complete; HTTP/2, chosen by ALPN
//! only, is delegated with the same accounting.
//!
//! Must stay true: no wait in here is without a deadline, and each ends when the process does.

use super::drain::{Drain, Phase};
use super::hooks::Gateway;
use super::rejection::BadHead;
use super::reply;
use super::wire::{self, HeadCaps};
use crate::snapshot::Parts;
use crate::telemetry::Clock;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_id::request_id;
use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use http::HeaderValue;
use pingora_core::apps::{
    HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp,
};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, timeout, timeout_at};

/// What a connection needs to know from the configuration it was accepted under.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Caps on a head.
    pub head: HeadCaps,
    /// From a head's first byte to its last.
    pub head_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Silence inside a request body.
    pub body_timeout: Duration,
    /// A client that does not read.
    pub write_timeout: Duration,
}

/// How long an idle connection is still served once the listeners are closed.
const LAST_CALL: Duration = Duration::from_secs(1);
/// How long bytes nobody will read are thrown away, so that the refusal arrives.
const LINGER: Duration = Duration::from_millis(500);

/// Serves connections of one worker.
pub struct Connections {
    proxy: Arc<HttpProxy<Gateway>>,
    http2: Arc<Http2>,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Connections {
    /// Serves through `proxy`, whose pool of upstream connections belongs to this worker.
    #[must_use]
    pub fn new(
        proxy: HttpProxy<Gateway>,
        drain: &Arc<Drain>,
        parts: &Parts,
        idle_timeout: Duration,
    ) -> Self {
        let proxy = Arc::new(proxy);
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(idle_timeout);
        Self {
            http2: Arc::new(Http2 { proxy: Arc::clone(&proxy), drain: Arc::clone(drain), options }),
            proxy,
            drain: Arc::clone(drain),
            metrics: Arc::clone(&parts.metrics),
            clock: parts.clock.clone(),
        }
    }

    /// Serves one connection to its end.
    pub async fn serve(&self, stream: Stream, limits: ConnectionLimits) {
        let shutdown = self.drain.shutdown_watch();
        if stream.selected_alpn_proto() == Some(ALPN::H2) {
            self.http2.process_new(stream, &shutdown).await;
            return;
        }
        let mut waits = Waits::new(&self.drain, limits.idle_timeout);
        let mut next = Some((stream, None));
        while let Some((mut stream, settings)) = next.take() {
            match read_head(&mut stream, &mut waits, &limits).await {
                HeadRead::Complete(head) => {
                    next = self.serve_one(stream, settings, head, &limits, &shutdown).await;
                }
                HeadRead::Closed => {}
                HeadRead::Bad(bad) => {
                    self.metrics.head_refused(bad.code());
                    refuse(&mut stream, bad, &request_id(self.clock.unix_time())).await;
                }
            }
        }
    }

    /// Answers one request; gives the connection back if it can serve another.
    async fn serve_one(
        &self,
        stream: Stream,
        settings: Option<HttpPersistentSettings>,
        head: BytesMut,
        limits: &ConnectionLimits,
        shutdown: &ShutdownWatch,
    ) -> Option<(Stream, Option<HttpPersistentSettings>)> {
        let _in_flight = self.drain.request();
        let mut session = ServerSession::new_http1(stream);
        match settings {
            Some(settings) => settings.apply_to_session(&mut session),
            None => session.set_keepalive(Some(limits.idle_timeout.as_secs())),
        }
        session.set_read_timeout(Some(limits.body_timeout));
        session.set_write_timeout(Some(limits.write_timeout));
        session.set_total_drain_timeout(Some(limits.body_timeout));
        session.set_pipelined_prefix(head);
        let reused = self.proxy.process_new_http(session, shutdown).await?;
        Some(reused.consume())
    }
}

/// HTTP/2 connections: Pingora's loop, our count of requests in flight.
struct Http2 {
    proxy: Arc<HttpProxy<Gateway>>,
    drain: Arc<Drain>,
    options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let _in_flight = self.drain.request();
        self.proxy.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// How reading a head ended.
enum HeadRead {
    /// A whole head that keeps the rules, and whatever came behind it.
    Complete(BytesMut),
    /// The client is gone, was silent too long, or the process ends.
    Closed,
    /// To be refused.
    Bad(BadHead),
}

/// The two long waits of a connection, registered once instead of once a request.
struct Waits {
    idle_timeout: Duration,
    sleep: Pin<Box<Sleep>>,
    closing: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    last_call: bool,
}

impl Waits {
    fn new(drain: &Arc<Drain>, idle_timeout: Duration) -> Self {
        let drain = Arc::clone(drain);
        Self {
            idle_timeout,
            sleep: Box::pin(tokio::time::sleep(idle_timeout)),
            closing: Box::pin(async move { drain.reached(Phase::Closing).await }),
            last_call: false,
        }
    }

    /// Ready when the connection has waited until `deadline`, or until the process's last call.
    fn poll_over(&mut self, deadline: &mut Instant, cx: &mut Context<'_>) -> Poll<()> {
        if !self.last_call && self.closing.as_mut().poll(cx).is_ready() {
            self.last_call = true;
            *deadline = (*deadline).min(Instant::now() + LAST_CALL);
        }
        // The timer is moved only when it fires early: most waits end long before.
        if self.sleep.deadline() > *deadline {
            self.sleep.as_mut().reset(*deadline);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= *deadline {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(*deadline);
        }
        Poll::Pending
    }
}

/// Waits for a head and reads it whole.
async fn read_head(stream: &mut Stream, waits: &mut Waits, limits: &ConnectionLimits) -> HeadRead {
    let Ok(mut buf) = first_bytes(stream, waits).await else {
        return HeadRead::Closed;
    };
    let mut deadline = None;
    let mut searched = 0;
    loop {
        // RFC 9112 2.2: an empty line before the request line is to be ignored.
        while searched == 0 && buf.starts_with(b"\r\n") {
            buf.advance(2);
        }
        if let Some(end) = wire::head_end(&buf, searched) {
            let head = buf.get(..end).unwrap_or_default();
            return match wire::check(head, limits.head) {
                Ok(()) => HeadRead::Complete(buf),
                Err(bad) => HeadRead::Bad(bad),
            };
        }
        if buf.len() > limits.head.bytes {
            return HeadRead::Bad(BadHead::TooLarge);
        }
        searched = buf.len();
        // Most heads come whole; only one that does not needs a clock.
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.head_timeout);
        match timeout_at(deadline, stream.read_buf(&mut buf)).await {
            Ok(Ok(0) | Err(_)) => return HeadRead::Closed,
            Ok(Ok(_)) => {}
            Err(_) => return HeadRead::Bad(BadHead::Timeout),
        }
    }
}

/// Waits for the next request's first bytes. Nothing is allocated until they are there.
async fn first_bytes(stream: &mut Stream, waits: &mut Waits) -> io::Result<BytesMut> {
    let mut deadline = Instant::now() + waits.idle_timeout;
    if waits.last_call {
        return Err(io::ErrorKind::TimedOut.into());
    }
    poll_fn(|cx| {
        let mut space = [const { MaybeUninit::uninit() }; 4096];
        let mut read = ReadBuf::uninit(&mut space);
        match Pin::new(&mut *stream).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) if read.filled().is_empty() => {
                Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            Poll::Ready(Ok(())) => Poll::Ready(Ok(BytesMut::from(read.filled()))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                waits.poll_over(&mut deadline, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    })
    .await
}

/// Says why, and closes so that the client can read it: bytes still under way are thrown away
/// first, because a close on unread data is a reset that takes the answer with it.
async fn refuse(stream: &mut Stream, bad: BadHead, request_id: &HeaderValue) {
    let answer = async {
        stream.write_all(&reply::refused_head(bad, request_id)).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        let mut waste = [0; 4096];
        while stream.read(&mut waste).await? > 0 {}
        io::Result::Ok(())
    };
    match timeout(LINGER, answer).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => log::debug!("a refused client was gone: {error}"),
    }
}
