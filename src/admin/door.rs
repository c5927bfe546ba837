//! Who gets to talk to the operator's listener, for how long, and how much.
//!
//! Must stay true: a connection ends at its deadline whatever trickles in or out of it; there are
//! never more than [`MAX_CONNECTIONS`] of them; none sends more than [`MAX_REQUEST`] at a time.

use super::answers;
use super::api::MAX_BODY;
use axum::extract::Request;
use axum::extract::connect_info::Connected;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use http::header::HOST;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at once; more wait in the kernel's queue.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request: the largest body of the API, with its framing, and a head of 16 KiB.
pub(super) const MAX_REQUEST: usize = MAX_BODY + 32 * 1024;
/// From the accept to a request's first byte, and from there to the first byte of its response.
const REQUEST: Duration = Duration::from_secs(10);
/// From the first byte of a response to the next request; above the usual scrape interval.
const NEXT: Duration = Duration::from_secs(75);
/// After a failed accept, for example without a free file descriptor.
const PAUSE: Duration = Duration::from_millis(200);

/// The listener.
pub(super) struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Door {
    pub(super) fn open(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Ok(Self { listener: TcpListener::from_std(listener)?, places })
    }
}

impl Listener for Door {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            // Only a closed semaphore refuses, and nobody closes this one.
            return std::future::pending().await;
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return (Visit::new(stream, place), peer),
                Err(error) => {
                    log::warn!(error:% = error; "the operator's listener cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(SocketAddr);

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One connection, with its deadline.
pub(super) struct Visit {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    /// Bytes read since the last response began.
    heard: usize,
    _place: OwnedSemaphorePermit,
}

impl Visit {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        let deadline = Box::pin(tokio::time::sleep(REQUEST));
        Self { stream, deadline, heard: 0, _place: place }
    }

    /// Turns waiting into an error once the deadline has passed.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_pending() && self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if self.heard == 0 && read > 0 {
            self.deadline.as_mut().reset(Instant::now() + REQUEST);
        }
        self.heard += read;
        if self.heard > MAX_REQUEST {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        self.in_time(cx, poll)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The first write after a read begins a response.
        if std::mem::take(&mut self.heard) > 0 {
            self.deadline.as_mut().reset(Instant::now() + NEXT);
        }
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.in_time(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.in_time(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.in_time(cx, poll)
    }
}

/// Lets through what was asked by address or as `localhost`. A page in a browser on this machine
/// can point a name of its own at the loopback address, but not send another name than that.
pub(super) async fn check_host(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(HOST).iter();
    let local = match (hosts.next(), hosts.next(), request.uri().authority()) {
        (Some(host), None, None) => host.to_str().is_ok_and(is_local),
        (None, None, Some(authority)) => is_local(authority.as_str()),
        _ => false,
    };
    if local { next.run(request).await } else { answers::misdirected() }
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        // A colon inside brackets does not begin a port.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match literal {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local_names() {
        for host in
            ["localhost", "LocalHost:9901", "127.0.0.1", "127.0.0.1:9901", "[::1]", "[::1]:9901"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            ":9901",
            "evil.example",
            "evil.example:9901",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[localhost]",
            "[::1",
            "127.0.0.1:99x",
            "::1]",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
