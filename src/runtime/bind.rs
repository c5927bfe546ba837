//! Listening sockets, bound before any worker starts: a taken port ends the process at once, and
//! port 0 has an answer.

use super::handshake::Handshakes;
use crate::config::Listener;
use crate::snapshot::Live;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Pending connections that the kernel may hold; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot listen on {address}: {source}; {hint}")]
pub struct BindError {
    /// The listener's name in the file.
    pub name: Arc<str>,
    /// Where it should listen.
    pub address: SocketAddr,
    /// What to do.
    pub hint: &'static str,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

/// A bound listener: one socket per worker.
pub struct Bound {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Where it listens; the real port.
    pub address: SocketAddr,
    pub(super) sockets: Vec<TcpListener>,
    pub(super) tls: Option<Arc<Handshakes>>,
}

/// Binds every listener, with one socket for each of `workers`.
///
/// # Errors
/// The first address that cannot be had.
pub fn bind(
    listeners: &[Listener],
    workers: NonZeroUsize,
    live: &Arc<Live>,
) -> Result<Vec<Bound>, BindError> {
    listeners
        .iter()
        .map(|listener| {
            let (address, sockets) = bind_one(listener.address, workers)
                .map_err(|source| describe(Arc::clone(&listener.name), listener.address, source))?;
            let handshakes = |http2| Arc::new(Handshakes::new(&listener.name, http2, live));
            let tls = listener.tls.as_ref().map(|tls| handshakes(tls.http2));
            Ok(Bound { name: Arc::clone(&listener.name), address, sockets, tls })
        })
        .collect()
}

/// Binds the operator's listener.
///
/// # Errors
/// The address cannot be had.
pub fn bind_admin(address: SocketAddr) -> Result<TcpListener, BindError> {
    let one = NonZeroUsize::MIN;
    let bound = bind_one(address, one).and_then(|(_, mut sockets)| {
        sockets.pop().ok_or_else(|| io::Error::other("no socket was made"))
    });
    bound.map_err(|source| describe(Arc::from("admin"), address, source))
}

fn describe(name: Arc<str>, address: SocketAddr, source: io::Error) -> BindError {
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has this port: stop it, or choose another `address`"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege: choose a higher one, or grant CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address: `0.0.0.0` listens on all that it has"
        }
        _ => "check the `address` of this listener",
    };
    BindError { name, address, hint, source }
}

fn bind_one(
    address: SocketAddr,
    workers: NonZeroUsize,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // A socket that shares its port would also share it with another gateway's. The first does not
    // share, so it finds a taken port taken; it lets the others in once it has the port.
    let first = listen(address, false)?;
    first.set_reuse_port(workers.get() > 1)?;
    let first: TcpListener = first.into();
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers.get() {
        sockets.push(listen(address, true)?.into());
    }
    Ok((address, sockets))
}

fn listen(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
