//! The byte stream of a client connection, as Pingora wants it.
//!
//! Pingora's own stream keeps fixed buffers per connection (64 KiB to read, 1460 bytes to write) and
//! measures times nobody reads. This one reads straight into the parser's buffer, collects small
//! writes so that a head and a small body leave in one system call, and gives the memory back when
//! the connection rests. Two things Pingora leaves open are closed here, for every protocol alike:
//! no read goes beyond the message that is being read ([`Gate`]), and no write waits longer than
//! the patience of the configuration for a client that takes nothing. And when Pingora drops a
//! connection in the middle of a message, the connection is kept for a farewell ([`Gate::left`]).
//!
//! Must stay true: an idle connection holds at most 2 KiB here, and of a request that was sent ahead
//! at most 1 KiB.

use super::crowd::Pressure;
use super::gate::Gate;
use super::stall::Stall;
use crate::auth::ClientCertificate;
use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use http::StatusCode;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use std::fmt::Debug;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Writes up to this size in all wait for a flush or for one more write.
const COLLECT: usize = 16 * 1024;
/// Capacity that is kept between responses.
const KEPT: usize = 2 * 1024;
/// Bytes that are taken from a client who sends its next request before its turn.
const AHEAD: usize = 1024;

/// What carries the bytes: TCP, or TLS over it.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + Debug + 'static {
    /// The socket below.
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A client's connection with a write buffer.
#[derive(Debug)]
pub struct ClientStream<T: Transport> {
    /// There until the end.
    io: Option<T>,
    gate: Arc<Gate>,
    /// Read before its turn.
    ahead: BytesMut,
    pending: BytesMut,
    stall: Stall,
    digest: Arc<SocketDigest>,
    tls: Option<Arc<SslDigest>>,
    /// Pingora's only place of its own for what its user knows of a connection.
    known: Option<Arc<ProxyDigest>>,
    http2: bool,
}

/// What one knows of a connection beside its bytes.
struct Known {
    certificate: Option<ClientCertificate>,
    spare: bool,
}

fn keep(known: Known) -> Option<Arc<ProxyDigest>> {
    let nothing = ResponseHeader::build(StatusCode::OK, Some(0)).ok()?;
    Some(Arc::new(ProxyDigest::new(Box::new(nothing), Some(Box::new(known)))))
}

fn known(session: &Session) -> Option<&Known> {
    session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
}

/// Whether the connection of a request is above the cap: it is let in to be answered once.
pub(super) fn is_spare(session: &Session) -> bool {
    known(session).is_some_and(|known| known.spare)
}

/// The certificate that the client of a request showed when it connected.
pub(super) fn certificate(session: &Session) -> Option<&ClientCertificate> {
    known(session)?.certificate.as_ref()
}

impl ClientStream<TcpStream> {
    /// Takes an accepted connection over; a client that reads nothing for `patience` is given up.
    #[must_use]
    pub fn plain(tcp: TcpStream, patience: Duration) -> Self {
        Self::new(tcp, patience, None, false)
    }
}

impl ClientStream<TlsStream<TcpStream>> {
    /// As [`ClientStream::plain`], where the TLS handshake is done.
    #[must_use]
    pub fn tls(io: TlsStream<TcpStream>, patience: Duration) -> Self {
        let session = io.get_ref().1;
        let http2 = session.alpn_protocol() == Some(b"h2");
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("");
        let cipher = session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("");
        let digest = SslDigest::new(cipher, version, None, None, Vec::new());
        Self::new(io, patience, Some(Arc::new(digest)), http2)
    }
}

impl<T: Transport> ClientStream<T> {
    fn new(io: T, patience: Duration, tls: Option<Arc<SslDigest>>, http2: bool) -> Self {
        let digest = Arc::new(SocketDigest::from_raw_fd(io.tcp().as_raw_fd()));
        Self {
            io: Some(io),
            gate: Arc::default(),
            ahead: BytesMut::new(),
            pending: BytesMut::new(),
            stall: Stall::new(patience),
            digest,
            tls,
            known: None,
            http2,
        }
    }

    /// Keeps the certificate that the client showed.
    #[must_use]
    pub fn shown(mut self, certificate: Option<ClientCertificate>) -> Self {
        if certificate.is_some() {
            self.known = keep(Known { certificate, spare: false });
        }
        self
    }

    /// The same, above the cap on connections or not: whoever reads a request of it can tell, and asks for
    /// nothing else.
    #[must_use]
    pub fn spare(mut self, spare: bool) -> Self {
        if spare {
            self.known = keep(Known { certificate: None, spare });
        }
        self
    }

    /// The same, giving up sooner who does not read while memory is short.
    #[must_use]
    pub fn under(mut self, pressure: &Arc<Pressure>) -> Self {
        self.stall.under(pressure);
        self
    }

    /// What limits reading from this connection.
    #[must_use]
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Does something with what carries the bytes.
    fn poll_io<R>(
        &mut self,
        poll: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        match &mut self.io {
            Some(io) => poll(Pin::new(io)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Writes out what waits; ready when nothing is left.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pending.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let written = self.poll_io(|io| io.poll_write(cx, &pending));
            self.pending = pending;
            let n = ready!(self.stall.watch(cx, written))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(n);
        }
        if self.pending.capacity() > KEPT {
            self.pending = BytesMut::new();
        } else {
            self.pending.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the client is gone. What it sends is kept until its turn.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            // Nothing more is read before its turn, so nothing can wake this up either.
            return Poll::Pending;
        }
        let mut space = [const { MaybeUninit::uninit() }; AHEAD];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(self.poll_io(|io| io.poll_read(cx, &mut read)))?;
        if read.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.ahead.extend_from_slice(read.filled());
        Poll::Pending
    }

    /// Pending, as a read is whose client sends nothing. What was collected leaves meanwhile: Pingora
    /// flushes a response of known length only at its end. HTTP/2 flushes by itself.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.http2 || self.pending.is_empty() {
            return Poll::Pending;
        }
        ready!(Pin::new(self).poll_flush(cx))?;
        Poll::Pending
    }

    /// Reads at most `left` bytes.
    fn poll_some(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        left: u64,
    ) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
        if !self.ahead.is_empty() {
            buf.put_slice(&self.ahead.split_to(most.min(self.ahead.len())));
            return Poll::Ready(Ok(()));
        }
        if most == buf.remaining() {
            return self.poll_io(|io| io.poll_read(cx, buf));
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(self.poll_io(|io| io.poll_read(cx, &mut part)))?;
        let n = part.filled().len();
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// A response that broke off was begun but perhaps not written: what there is of it goes out, as far
/// as the socket takes it, so that the client does not mistake it for a connection that was closed
/// before the request was read. And a close with bytes unread is a reset, which takes the answer with
/// it: so the connection itself is left to who can wait for them.
impl<T: Transport> Drop for ClientStream<T> {
    fn drop(&mut self) {
        let Some(mut io) = self.io.take() else { return };
        // Without the timer: the event loop may be gone.
        let mut cx = Context::from_waker(Waker::noop());
        while !self.pending.is_empty() {
            match Pin::new(&mut io).poll_write(&mut cx, &self.pending) {
                Poll::Ready(Ok(n)) if n > 0 => self.pending.advance(n),
                Poll::Ready(Err(error)) => {
                    return log::debug!("a client was gone before it was told anything: {error}");
                }
                _ => break,
            }
        }
        if self.gate.bytes() > 0 {
            self.gate.leave(Box::new(io));
        }
    }
}

impl<T: Transport> AsyncRead for ClientStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.gate.bytes();
        let before = buf.filled().len();
        let read = if left == 0 { self.poll_gone(cx) } else { self.poll_some(cx, buf, left) };
        if read.is_pending() {
            return self.poll_idle(cx);
        }
        let new = buf.filled_mut().get_mut(before..).unwrap_or_default();
        if let Some(at) = self.gate.passed(new) {
            // Two returns stand nowhere in a body of chunks: Pingora refuses it here, and says so.
            new.get_mut(at).into_iter().for_each(|byte| *byte = b'\r');
            buf.set_filled(before + at + 1);
            if buf.remaining() > 0 {
                buf.put_slice(b"\r");
            }
        }
        read
    }
}

impl<T: Transport> AsyncWrite for ClientStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.pending.len() + buf.len() > COLLECT {
            ready!(this.poll_pending(cx))?;
            if buf.len() >= COLLECT {
                let written = this.poll_io(|io| io.poll_write(cx, buf));
                return this.stall.watch(cx, written);
            }
        }
        if this.pending.capacity() == 0 {
            this.pending.reserve(KEPT.max(buf.len()));
        }
        this.pending.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_pending(cx))?;
        let flushed = this.poll_io(|io| io.poll_flush(cx));
        this.stall.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_pending(cx))?;
        let shut = this.poll_io(|io| io.poll_shutdown(cx));
        this.stall.watch(cx, shut)
    }
}

#[async_trait]
impl<T: Transport> Shutdown for ClientStream<T> {
    async fn shutdown(&mut self) {
        if let Err(error) = <Self as tokio::io::AsyncWriteExt>::shutdown(self).await {
            log::debug!("a client was gone before its connection was closed: {error}");
        }
    }
}

impl<T: Transport> UniqueID for ClientStream<T> {
    fn id(&self) -> UniqueIDType {
        self.io.as_ref().map_or(-1, |io| io.tcp().as_raw_fd())
    }
}

impl<T: Transport> Ssl for ClientStream<T> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.http2.then_some(ALPN::H2)
    }
}

impl<T: Transport> Peek for ClientStream<T> {}

impl<T: Transport> GetTimingDigest for ClientStream<T> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<T: Transport> GetProxyDigest for ClientStream<T> {
    // No proxy is spoken through: it is the one word about a connection that Pingora passes on.
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.known.clone()
    }
}

impl<T: Transport> GetSocketDigest for ClientStream<T> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn while_memory_is_short_who_does_not_read_is_given_up_sooner() {
        let (mut ours, client) = pair().await;
        let pressure = Arc::<Pressure>::default();
        pressure.set(true);
        ours = ours.under(&pressure);
        let (body, began) = (vec![b'x'; 1 << 20], Instant::now());
        while ours.write_all(&body).await.is_ok() {}
        assert!(began.elapsed() < PATIENCE / 2);
        drop(client);
    }

    async fn pair() -> (ClientStream<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ClientStream::plain(listener.accept().await.unwrap().0, PATIENCE), client)
    }

    #[tokio::test]
    async fn small_writes_wait_for_the_flush_and_leave_together() {
        let (mut ours, mut client) = pair().await;
        ours.write_all(b"head ").await.unwrap();
        ours.write_all(b"body").await.unwrap();
        assert!(client.try_read(&mut [0; 16]).is_err(), "nothing was sent before the flush");
        ours.flush().await.unwrap();
        let mut got = [0; 9];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"head body");
        assert!(ours.pending.capacity() <= KEPT);
    }

    #[tokio::test]
    async fn what_was_collected_leaves_when_the_client_is_waited_for() {
        let (mut ours, mut client) = pair().await;
        ours.write_all(b"half").await.unwrap();
        let waits = async {
            let mut sent = [0; 4];
            ours.read_exact(&mut sent).await.unwrap();
            sent
        };
        let reads = async {
            let mut got = [0; 4];
            client.read_exact(&mut got).await.unwrap();
            client.write_all(b"next").await.unwrap();
            got
        };
        assert_eq!(tokio::join!(waits, reads), (*b"next", *b"half"));
    }

    #[tokio::test]
    async fn a_large_body_passes_whole_and_leaves_no_buffer_behind() {
        let (mut ours, mut client) = pair().await;
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let reader = async move {
            let mut got = vec![0; expected.len()];
            client.read_exact(&mut got).await.unwrap();
            assert!(got == expected);
        };
        let writer = async {
            for chunk in sent.chunks(7_919) {
                ours.write_all(chunk).await.unwrap();
            }
            ours.flush().await.unwrap();
            assert!(ours.pending.capacity() <= KEPT);
        };
        tokio::join!(reader, writer);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up_and_one_that_takes_little_is_not() {
        let (mut ours, mut client) = pair().await;
        let patience = Duration::from_millis(200);
        ours.stall = Stall::new(patience);
        let body = vec![b'x'; 1 << 20];
        let began = Instant::now();
        let error = loop {
            if let Err(error) = ours.write_all(&body).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= patience);
        // What waits for the flush has the same time, and with room it goes.
        ours.pending.extend_from_slice(b"tail");
        assert_eq!(ours.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let reading = async {
            let mut space = vec![0; 1 << 20];
            loop {
                client.read_exact(&mut space).await.unwrap();
            }
        };
        tokio::select! {
            flushed = ours.flush() => flushed.unwrap(),
            () = reading => {}
        }
    }

    #[tokio::test]
    async fn no_read_goes_beyond_the_message() {
        let (mut ours, mut client) = pair().await;
        client.write_all(b"bodynext request").await.unwrap();
        ours.gate.limit(4);
        let mut got = [0; 64];
        assert_eq!(ours.read(&mut got).await.unwrap(), 4);
        assert_eq!(&got[..4], b"body");
        // The next request shows that the client is there, and stays where it is.
        let watched = tokio::time::timeout(Duration::from_millis(50), ours.read(&mut got)).await;
        assert!(watched.is_err());
        client.write_all(b" goes on").await.unwrap();
        ours.gate.open();
        let mut next = [0; 20];
        ours.read_exact(&mut next).await.unwrap();
        assert_eq!(&next, b"next request goes on");
        ours.gate.limit(0);
        drop(client);
        assert_eq!(ours.read(&mut got).await.unwrap(), 0, "the client is gone");
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_in_mid_message_is_left_for_a_farewell() {
        for (unread, left) in [(Gate::OPEN, true), (4, true), (0, false)] {
            let (mut ours, mut client) = pair().await;
            client.write_all(b"body").await.unwrap();
            ours.write_all(b"answer").await.unwrap();
            let gate = Arc::clone(&ours.gate);
            gate.limit(unread);
            drop(ours);
            let io = gate.left();
            assert_eq!(io.is_some(), left, "{unread}");
            drop(io);
            let mut answer = [0; 6];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
        }
    }
}
