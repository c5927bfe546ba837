//! An origin that answers every request with the same kilobyte.
//!
//! It has a thread of its own in this process, outside of the quota.

use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Bytes of a body.
pub(crate) const BODY: usize = 1024;

/// It serves until it is dropped.
pub(crate) struct Origin {
    address: SocketAddr,
    _running: oneshot::Sender<()>,
}

impl Origin {
    /// Starts it on a free port.
    pub(crate) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let (running, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    // The sender is dropped, never used.
                    _ = ended => {}
                    () = listen(&listener) => {}
                }
            });
        });
        Ok(Self { address, _running: running })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn listen(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        // The gateway may end a connection as it likes.
        tokio::spawn(async { drop(serve(stream).await) });
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY}\r\n\r\n");
    let answer = [head.as_bytes(), &[b'.'; BODY]].concat();
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await? > 0 {
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            stream.write_all(&answer).await?;
        }
    }
    Ok(())
}
