//! The byte stream of a client connection, as Pingora wants it.
//!
//! Pingora's own stream keeps fixed buffers per connection (64 KiB to read, 1460 bytes to write) and
//! measures times nobody reads. This one reads straight into the parser's buffer, collects small
//! writes so that a head and a small body leave in one system call, and gives the memory back when
//! the connection rests.
//!
//! Must stay true: an idle connection holds at most 2 KiB here.

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use std::fmt::Debug;
use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Writes up to this size in all wait for a flush or for one more write.
const COLLECT: usize = 16 * 1024;
/// Capacity that is kept between responses.
const KEPT: usize = 2 * 1024;

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
    io: T,
    pending: BytesMut,
    digest: Arc<SocketDigest>,
    tls: Option<Arc<SslDigest>>,
    http2: bool,
}

impl ClientStream<TcpStream> {
    /// Takes an accepted connection over.
    #[must_use]
    pub fn plain(tcp: TcpStream) -> Self {
        Self::new(tcp, None, false)
    }
}

impl ClientStream<TlsStream<TcpStream>> {
    /// Takes a connection over whose handshake is done.
    #[must_use]
    pub fn tls(io: TlsStream<TcpStream>) -> Self {
        let session = io.get_ref().1;
        let http2 = session.alpn_protocol() == Some(b"h2");
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("");
        let cipher = session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("");
        let digest = SslDigest::new(cipher, version, None, None, Vec::new());
        Self::new(io, Some(Arc::new(digest)), http2)
    }
}

impl<T: Transport> ClientStream<T> {
    fn new(io: T, tls: Option<Arc<SslDigest>>, http2: bool) -> Self {
        let digest = Arc::new(SocketDigest::from_raw_fd(io.tcp().as_raw_fd()));
        Self { io, pending: BytesMut::new(), digest, tls, http2 }
    }

    /// Writes out what waits; ready when nothing is left.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pending.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.pending.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.pending))?;
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
}

/// A response that broke off was begun but perhaps not written: what there is of it goes out, as far
/// as the socket takes it, so that the client does not mistake it for a connection that was closed
/// before the request was read.
impl<T: Transport> Drop for ClientStream<T> {
    fn drop(&mut self) {
        if let Poll::Ready(Err(error)) = self.poll_pending(&mut Context::from_waker(Waker::noop()))
        {
            log::debug!("a client was gone before it was told anything: {error}");
        }
    }
}

impl<T: Transport> AsyncRead for ClientStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
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
                return Pin::new(&mut this.io).poll_write(cx, buf);
            }
        }
        if this.pending.capacity() == 0 {
            this.pending.reserve(KEPT.max(buf.len()));
        }
        this.pending.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
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
        self.io.tcp().as_raw_fd()
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
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
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

    async fn pair() -> (ClientStream<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ClientStream::plain(listener.accept().await.unwrap().0), client)
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
}
