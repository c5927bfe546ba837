//! The life of one client connection: heads with deadlines and caps, requests, and its end.
//!
//! Pingora has no deadline for a whole head, no limit on its size worth the name, and never says
//! why it closed. So HTTP/1 heads are read here and handed over complete, with as much of the body
//! as came with them and not a byte of what follows: requests sent ahead wait for their turn.
//! HTTP/2, chosen by ALPN only, is in `http2`.
//!
//! Must stay true: no wait in here is without a deadline, and each ends when the process does.

use super::drain::Drain;
use super::gate::Gate;
use super::hooks::Gateway;
use super::http2::Http2;
use super::rejection::BadHead;
use super::reply;
use super::stream::{ClientStream, Transport};
use super::waits::Waits;
use super::wire::{self, Body, HeadCaps};
use crate::snapshot::Parts;
use crate::telemetry::Clock;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_id::request_id;
use bytes::{Buf as _, BytesMut};
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp as _};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Ssl as _, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Instant;

/// What a connection needs to know from the configuration it was accepted under.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Caps on a head.
    pub head: HeadCaps,
    /// A TLS handshake.
    pub handshake_timeout: Duration,
    /// From a head's first byte to its last.
    pub head_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Silence inside a request body.
    pub body_timeout: Duration,
    /// A client that does not read.
    pub write_timeout: Duration,
    /// Above the cap on connections: there is one answer, and then it is over.
    pub spare: bool,
}

/// How long bytes nobody will read are thrown away, so that the refusal arrives.
const LINGER: Duration = Duration::from_secs(2);

/// Serves connections of one worker.
pub struct Connections {
    proxy: Arc<HttpProxy<Gateway>>,
    http2: Http2,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Connections {
    /// Serves through `proxy`, whose pool of upstream connections belongs to this worker.
    #[must_use]
    pub fn new(proxy: HttpProxy<Gateway>, drain: &Arc<Drain>, parts: &Parts) -> Self {
        let proxy = Arc::new(proxy);
        Self {
            http2: Http2 { proxy: Arc::clone(&proxy), drain: Arc::clone(drain) },
            proxy,
            drain: Arc::clone(drain),
            metrics: Arc::clone(&parts.metrics),
            clock: parts.clock.clone(),
        }
    }

    /// Serves one connection to its end.
    pub async fn serve<T: Transport>(
        &self,
        stream: ClientStream<T>,
        waits: Waits,
        limits: ConnectionLimits,
    ) {
        if stream.selected_alpn_proto() == Some(ALPN::H2) {
            return self.http2.serve(Box::new(stream), waits, limits).await;
        }
        let gate = Arc::clone(stream.gate());
        let heads = Heads { waits, gate, limits, ahead: BytesMut::new() };
        self.serve_http1(Box::new(stream), heads).await;
    }

    async fn serve_http1(&self, stream: Stream, mut heads: Heads) {
        let shutdown = self.drain.shutdown_watch();
        let mut next = Some((stream, None));
        while let Some((mut stream, settings)) = next.take() {
            match heads.read(&mut stream).await {
                HeadRead::Complete(head) => {
                    next = self.serve_one(stream, settings, head, &heads.limits, &shutdown).await;
                }
                HeadRead::Closed => return,
                HeadRead::Bad(bad) => {
                    self.metrics.head_refused(bad.code());
                    self.metrics.answered(bad.status(), None);
                    let answer = reply::refused_head(bad, &request_id(self.clock.unix_time()));
                    return heads.part(stream, &answer).await;
                }
            }
        }
        // The client may still be sending what was refused.
        if let Some(stream) = heads.gate.left() {
            heads.part(stream, b"").await;
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

/// How reading a head ended.
enum HeadRead {
    /// A whole head that keeps the rules, and what came of its body.
    Complete(BytesMut),
    /// The client is gone, was silent too long, or the process ends.
    Closed,
    /// To be refused.
    Bad(BadHead),
}

/// Reads the heads of one HTTP/1 connection, one after the other.
struct Heads {
    waits: Waits,
    gate: Arc<Gate>,
    limits: ConnectionLimits,
    /// What came behind the last message: the next one has begun.
    ahead: BytesMut,
}

impl Heads {
    /// Waits for a head and reads it whole.
    async fn read(&mut self, stream: &mut Stream) -> HeadRead {
        self.gate.open();
        let mut buf = std::mem::take(&mut self.ahead);
        if buf.is_empty() {
            match self.first_bytes(stream).await {
                Ok(bytes) => buf = bytes,
                Err(_) => return HeadRead::Closed,
            }
        }
        let deadline = Instant::now() + self.limits.head_timeout;
        let mut searched = 0;
        loop {
            // RFC 9112 2.2: an empty line before the request line is to be ignored.
            while searched == 0 && buf.starts_with(b"\r\n") {
                buf.advance(2);
            }
            if let Some(end) = wire::head_end(&buf, searched) {
                return match wire::check(buf.get(..end).unwrap_or_default(), self.limits.head) {
                    Ok(body) => self.divide(buf, end, body),
                    Err(bad) => HeadRead::Bad(bad),
                };
            }
            if buf.len() > self.limits.head.bytes {
                return HeadRead::Bad(BadHead::TooLarge);
            }
            searched = buf.len();
            match self.waits.within(deadline, stream.read_buf(&mut buf)).await {
                Some(Ok(0) | Err(_)) => return HeadRead::Closed,
                Some(Ok(_)) => {}
                None if self.waits.ended() => return HeadRead::Closed,
                None => return HeadRead::Bad(BadHead::Timeout),
            }
        }
    }

    /// Keeps what is not of this message, and lets the connection give no more than its rest.
    fn divide(&mut self, mut buf: BytesMut, head: usize, body: Body) -> HeadRead {
        let rest = match body {
            Body::None => Some(0),
            Body::Length(length) => Some(length),
            Body::Chunks if !self.gate.follow(buf.get(head..).unwrap_or_default()) => {
                return HeadRead::Bad(BadHead::Framing);
            }
            Body::Chunks | Body::Unknown => None,
        };
        if let Some(length) = rest {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let end = head.saturating_add(length);
            if end < buf.len() {
                self.ahead = buf.split_off(end);
            }
            self.gate.limit(end.saturating_sub(buf.len()) as u64);
        }
        HeadRead::Complete(buf)
    }

    /// Waits for the next request's first bytes. Nothing is allocated until they are there.
    async fn first_bytes(&mut self, stream: &mut Stream) -> io::Result<BytesMut> {
        let deadline = Instant::now() + self.limits.idle_timeout;
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
                    self.waits.poll_over(deadline, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
                }
            }
        })
        .await
    }

    /// Says a last word and closes so that the client can read it: bytes still under way are
    /// thrown away first, because a close on unread data is a reset that takes the word with it.
    async fn part(&mut self, mut stream: impl AsyncRead + AsyncWrite + Unpin, word: &[u8]) {
        let parting = async {
            stream.write_all(word).await?;
            stream.flush().await?;
            stream.shutdown().await?;
            let mut waste = [0; 4096];
            while stream.read(&mut waste).await? > 0 {}
            io::Result::Ok(())
        };
        if let Some(Err(error)) = self.waits.within(Instant::now() + LINGER, parting).await {
            log::debug!("a client was gone before its connection was closed: {error}");
        }
    }
}
