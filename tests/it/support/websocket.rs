//! WebSocket, both ends.

use super::{soon, tls};
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
pub(crate) use tokio_tungstenite::tungstenite::{Error, Message};

/// Starts a server that sends every message back; it ends with the test's runtime.
pub(crate) async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    address
}

async fn echo(stream: TcpStream) {
    // Whoever does not shake hands, or leaves in the middle, is simply gone.
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        let data = message.is_text() || message.is_binary();
        if data && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A client's end.
pub(crate) struct WebSocket {
    stream: WebSocketStream<TcpStream>,
    /// The answer to the upgrade.
    pub(crate) response: Response,
}

impl WebSocket {
    /// Opens `target` at `address`, with more request headers.
    pub(crate) async fn open(
        address: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let mut request = format!("ws://{address}{target}").into_client_request()?;
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let stream = soon("a connection", TcpStream::connect(address)).await?;
        let opened = soon("an upgrade", tokio_tungstenite::client_async(request, stream)).await?;
        Ok(Self { stream: opened.0, response: opened.1 })
    }

    pub(crate) async fn send(&mut self, message: Message) {
        soon("room to send", self.stream.send(message)).await.unwrap();
    }

    /// The next message; `None` when the connection is closed.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        soon("a message", self.stream.next()).await.map(Result::unwrap)
    }

    /// Whether nothing comes for `span`.
    pub(crate) async fn is_quiet_for(&mut self, span: std::time::Duration) -> bool {
        tokio::time::timeout(span, self.stream.next()).await.is_err()
    }

    /// Waits for the other side to end the connection, with or without a goodbye.
    pub(crate) async fn expect_end(&mut self) {
        match soon("the end", self.stream.next()).await {
            None | Some(Err(_)) => {}
            Some(Ok(message)) => assert!(message.is_close(), "{message:?}"),
        }
    }

    /// Says goodbye and waits for the other side to do the same.
    pub(crate) async fn close(mut self) {
        soon("a close", self.stream.close(None)).await.unwrap();
        while let Some(message) = soon("the end", self.stream.next()).await {
            assert!(message.is_ok_and(|message| message.is_close()));
        }
    }
}

/// Opens a WebSocket over TLS; only whether it works and echoes.
pub(crate) async fn echoes_over_tls(
    address: SocketAddr,
    trust: &tls::Trust,
    target: &str,
    text: &str,
) -> bool {
    let stream = soon("TLS", trust.connect(address, &["http/1.1"])).await.unwrap();
    let request = format!("ws://{}{target}", tls::NAME);
    let opened = soon("an upgrade", tokio_tungstenite::client_async(request, stream)).await;
    let (mut socket, _) = opened.unwrap();
    soon("room", socket.send(Message::text(text))).await.unwrap();
    let back = soon("an echo", socket.next()).await;
    back.is_some_and(|message| message.is_ok_and(|message| message == Message::text(text)))
}
