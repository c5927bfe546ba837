//! An upstream that speaks HTTP/2: sends bodies back, or misbehaves by path when told to.

use super::tls;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

type Body = BoxBody<Bytes, Failed>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A server that ends with the test's runtime.
pub(crate) struct Http2Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicUsize,
    connections: AtomicUsize,
    misbehaves: AtomicBool,
}

impl Http2Origin {
    /// With prior knowledge.
    pub(crate) async fn plain() -> Self {
        Self::listen(None).await
    }

    /// Over TLS, with a certificate for `names`.
    pub(crate) async fn tls(authority: &tls::Authority, names: &[&str]) -> Self {
        Self::listen(Some(authority.acceptor(names, &["h2"]))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepted = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&accepted);
                match tls.clone() {
                    None => drop(tokio::spawn(serve(stream, shared))),
                    Some(tls) => drop(tokio::spawn(async move {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, shared).await;
                        }
                    })),
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections that agreed on TLS, where there is any.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// From now on `/reset` resets its stream, `/freeze` is not answered, `/half` breaks off in the
    /// middle of the response, `/close` ends the connection.
    pub(crate) fn misbehave(&self, misbehaves: bool) {
        self.shared.misbehaves.store(misbehaves, Ordering::SeqCst);
    }
}

async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
) {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let close = Arc::new(Notify::new());
    let service = service_fn(|request| answer(request, Arc::clone(&shared), Arc::clone(&close)));
    let connection =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Whoever goes away is gone.
        ended = connection => drop(ended),
        () = close.notified() => {}
    }
}

async fn answer(
    request: http::Request<Incoming>,
    shared: Arc<Shared>,
    close: Arc<Notify>,
) -> Result<http::Response<Body>, Failed> {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    if shared.misbehaves.load(Ordering::SeqCst) {
        match request.uri().path() {
            "/reset" => return Err("reset".into()),
            "/freeze" => std::future::pending().await,
            "/close" => {
                close.notify_one();
                std::future::pending().await
            }
            "/half" => {
                let half =
                    futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"half")))]);
                let broken = futures_util::stream::once(async {
                    // So that the first half is on its way.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(Failed::from("broken off"))
                });
                let body = http_body_util::StreamBody::new(half.chain(broken));
                return Ok(http::Response::new(BodyExt::boxed(body)));
            }
            _ => {}
        }
    }
    Ok(http::Response::new(request.into_body().map_err(Failed::from).boxed()))
}
