//! One node: the connection to it, and the breaker that keeps requests away from it.
//!
//! A connection is shared by all requests, as redis-rs multiplexes it. It is opened and driven on the
//! thread for drivers, never by a request.

use super::settings::{Address, Settings};
use super::slots::slot;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls_pki_types::ServerName;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;
/// Commands that wait to be written to one connection.
const WAITING: usize = 1024;

/// A connection. It ends with its last owner, whatever the node does.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// The node, or the way to it, has ended it.
    over: Arc<AtomicBool>,
    _open: oneshot::Sender<()>,
}

impl Link {
    /// Opens a connection and logs in. Runs on the thread for drivers, and has no deadline of its own.
    pub(super) async fn open(settings: &Settings, address: &Address) -> Result<Self, RedisError> {
        let tcp = TcpStream::connect((&*address.host, address.port)).await?;
        tcp.set_nodelay(true)?;
        match &settings.tls {
            None => Self::log_in(settings, tcp).await,
            Some(tls) => {
                let name = ServerName::try_from(address.host.to_string()).map_err(|_| {
                    io::Error::other("the node's name cannot stand in a certificate")
                })?;
                Self::log_in(settings, tls.connect(name, tcp).await?).await
            }
        }
    }

    async fn log_in(
        settings: &Settings,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, RedisError> {
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &settings.user {
            login = login.set_username(user);
        }
        if let Some(password) = &settings.password {
            login = login.set_password(password);
        }
        // Who asks knows by when the answer must be here.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WAITING);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&login, stream, config).await?;
        let (open, closed) = oneshot::channel::<()>();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let mut drivers = JoinSet::new();
        drivers.spawn(async move {
            tokio::select! {
                () = driver => {}
                // An error is the news: nobody has the connection any more.
                _ = closed => {}
            }
            ended.store(true, Ordering::Relaxed);
        });
        drivers.detach_all();
        Ok(Self { connection, over, _open: open })
    }

    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

/// One node that has slots.
pub(super) struct Node {
    pub(super) address: Address,
    link: ArcSwapOption<Link>,
    failures: AtomicU32,
    open: AtomicBool,
    /// Why it was last of no use.
    reason: Mutex<String>,
    /// A key of a slot that it has, to be written when it is probed.
    pub(super) probe: String,
}

impl Node {
    /// A node that was not reached yet and that has these slots.
    pub(super) fn new(address: Address, has: RangeInclusive<usize>) -> Self {
        let mut tags = (0_u32..).map(|n| format!("{n:x}"));
        let tag = tags.find(|tag| has.contains(&slot(tag.as_bytes())));
        Self {
            address,
            link: ArcSwapOption::empty(),
            failures: AtomicU32::new(0),
            open: AtomicBool::new(false),
            reason: Mutex::new("it was not reached yet".to_owned()),
            probe: format!("dh:{{{}}}:probe", tag.unwrap_or_default()),
        }
    }

    /// The connection, if there is one and the breaker is closed.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        if self.is_open() { None } else { self.link.load_full() }
    }

    /// Whether the breaker is open.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether it has to be reached again.
    pub(super) fn is_lost(&self) -> bool {
        let link = self.link.load();
        self.is_open() || link.as_ref().is_none_or(|link| link.over.load(Ordering::Relaxed))
    }

    /// An answer came.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// No answer came, or a useless one; whether this opened the breaker.
    pub(super) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        failures >= FAILURES && !self.open.swap(true, Ordering::Relaxed)
    }

    /// The connection is of no use any more.
    pub(super) fn lose(&self, broken: &Arc<Link>) {
        let current = self.link.load();
        if current.as_ref().is_some_and(|link| Arc::ptr_eq(link, broken)) {
            self.link.store(None);
        }
    }

    /// A probe came back: requests may go there again.
    pub(super) fn recover(&self, link: Link) {
        self.link.store(Some(Arc::new(link)));
        self.failures.store(0, Ordering::Relaxed);
        self.open.store(false, Ordering::Relaxed);
    }

    /// Why it was last of no use.
    pub(super) fn reason(&self) -> String {
        self.reason.lock().clone()
    }

    /// A probe failed.
    pub(super) fn give_up(&self, reason: String) {
        *self.reason.lock() = reason;
        self.open.store(true, Ordering::Relaxed);
        self.link.store(None);
    }
}
