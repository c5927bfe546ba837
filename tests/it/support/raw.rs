//! A client that sends exactly the bytes a test gives it.

use super::wire::{Framing, Head, Reader, Stream};
use super::{soon, tls};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct RawClient {
    reader: Reader<Stream>,
    /// A second handle to the same socket, to reset it.
    socket: Option<socket2::Socket>,
}

/// A response, taken apart no further than needed.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl RawResponse {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).unwrap();
        let stream = stream.into_std().unwrap();
        let socket = stream.try_clone().unwrap().into();
        let stream = TcpStream::from_std(stream).unwrap();
        Self { reader: Reader::new(Box::new(stream)), socket: Some(socket) }
    }

    /// Over TLS, offering `protocols` by ALPN.
    pub(crate) async fn connect_tls(
        address: SocketAddr,
        trust: &tls::Trust,
        protocols: &[&str],
    ) -> Self {
        let stream = soon("a TLS connection", trust.connect(address, protocols)).await.unwrap();
        Self { reader: Reader::new(Box::new(stream)), socket: None }
    }

    /// On a connection that a test made.
    pub(crate) fn over(stream: impl super::wire::Duplex + 'static) -> Self {
        Self { reader: Reader::new(Box::new(stream)), socket: None }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Fails where the other side has closed already.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let stream = &mut self.reader.stream;
        soon("room to send", async {
            stream.write_all(bytes.as_ref()).await?;
            stream.flush().await
        })
        .await
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish_sending(&mut self) {
        self.reader.stream.shutdown().await.unwrap();
    }

    /// The next response, to a request that was not HEAD.
    pub(crate) async fn response(&mut self) -> RawResponse {
        self.response_to("GET").await
    }

    /// The next response, to a request with `method`.
    pub(crate) async fn response_to(&mut self, method: &str) -> RawResponse {
        let head = self.head().await;
        let framing = head.response_framing(method);
        let body = soon("the body of a response", self.reader.body(framing)).await.unwrap();
        RawResponse { head, body }
    }

    /// The next head alone.
    pub(crate) async fn head(&mut self) -> Head {
        let head = soon("the head of a response", self.reader.head()).await.unwrap();
        head.expect("the connection was closed instead of answered")
    }

    /// Whatever comes next; empty when the other side has closed.
    pub(crate) async fn some(&mut self) -> Vec<u8> {
        self.try_some().await.unwrap()
    }

    /// As [`RawClient::some`], where the connection may have been reset.
    pub(crate) async fn try_some(&mut self) -> std::io::Result<Vec<u8>> {
        soon("bytes", self.reader.some()).await
    }

    /// The next `count` bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let framing = Framing::Length(count);
        soon("bytes", self.reader.body(framing)).await.unwrap()
    }

    /// Sends a whole request and takes its response.
    pub(crate) async fn exchange(&mut self, request: impl AsRef<[u8]>) -> RawResponse {
        self.send(request).await;
        self.response().await
    }

    /// Waits for the other side to close, by FIN or RST, with nothing more sent.
    pub(crate) async fn expect_closed(&mut self) {
        match soon("the end of the connection", self.reader.some()).await {
            Ok(bytes) => {
                assert!(bytes.is_empty(), "not closed: {}", String::from_utf8_lossy(&bytes));
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }

    /// Whether the connection stays open and silent for `span`.
    pub(crate) async fn is_quiet_for(&mut self, span: Duration) -> bool {
        tokio::time::timeout(span, self.reader.some()).await.is_err()
    }

    /// Ends the connection by RST.
    pub(crate) fn reset(self) {
        let socket = self.socket.as_ref().expect("a plain connection");
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}
