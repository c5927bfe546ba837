//! A TCP proxy on loopback that misbehaves on request.
//!
//! It runs on a thread of its own, so that it keeps its promises whatever the test's event loop does.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They go through.
    Pass,
    /// They are accepted, and nothing comes back; open ones too.
    Blackhole,
    /// New ones are refused; open ones live on.
    Refuse,
    /// They are reset, open ones too.
    Reset,
    /// Each piece of data is late by so much, both ways.
    Late(Duration),
}

/// The proxies of one lab. They end with it.
pub(crate) struct Faults {
    modes: Vec<watch::Sender<Mode>>,
    ports: Vec<u16>,
    _running: oneshot::Sender<()>,
}

impl Faults {
    /// A proxy for each of these ports.
    pub(crate) fn before(targets: &[u16]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut modes, mut ports) = (Vec::new(), Vec::new());
        let inside = runtime.enter();
        for target in targets {
            // Not awaited: a test's own event loop may be running on this thread.
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let (sender, mode) = watch::channel(Mode::Pass);
            ports.push(listener.local_addr().unwrap().port());
            modes.push(sender);
            runtime.spawn(listen(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, *target)), mode));
        }
        drop(inside);
        let (running, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || drop(runtime.block_on(ended)));
        Self { modes, ports, _running: running }
    }

    /// Where the proxies listen.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Changes what one of them does.
    pub(crate) fn set(&self, index: usize, mode: Mode) {
        self.modes[index].send_replace(mode);
    }

    /// Changes what all of them do.
    pub(crate) fn set_all(&self, mode: Mode) {
        for sender in &self.modes {
            sender.send_replace(mode);
        }
    }
}

async fn listen(listener: TcpListener, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let here = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    loop {
        let now = *mode.borrow_and_update();
        if now == Mode::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(here).await.ok();
        }
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            accepted = accept(listener.as_ref()) => {
                if let Ok(client) = accepted {
                    tokio::spawn(carry(client, target, mode.clone()));
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Reset {
        return reset(&client);
    }
    if mode.wait_for(|mode| *mode != Mode::Blackhole).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    for stream in [&client, &server] {
        drop(stream.set_nodelay(true));
    }
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let broken = tokio::select! {
        () = pump(&mut from_client, &mut to_server, mode.clone()) => false,
        () = pump(&mut from_server, &mut to_client, mode.clone()) => false,
        found = mode.wait_for(|mode| *mode == Mode::Reset) => found.is_ok(),
    };
    if broken {
        reset(&from_client.unsplit(to_client));
    }
}

async fn pump(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let passed = mode.wait_for(|mode| *mode != Mode::Blackhole).await.map(|mode| *mode);
        if let Ok(Mode::Late(by)) = passed {
            tokio::time::sleep(by).await;
        }
        if passed.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Closes a connection with RST when it is dropped.
fn reset(stream: &TcpStream) {
    drop(socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}
