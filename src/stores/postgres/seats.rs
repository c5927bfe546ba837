//! Connections as the server counts them: from the knock at its door until it is known to have let go.
//!
//! A server does not notice that nobody waits for it any more. It goes on with a question until it may
//! answer it, a frozen one finds all that was sent to it when it goes on, and whoever dials anew for each
//! question that was given up fills it. So a connection has a seat, and keeps it when it is given up: until
//! the socket is closed, which follows the answer to the last question, or until [`HELD`], the longest that
//! a server is waited for. An attempt to connect that nobody waits for keeps its seat just so.
//!
//! Seats are those of an address: where a name leads somewhere else, nobody waits for the old machine.
//!
//! Must stay true: a seat is free only when the server has no connection in it; nobody dials without one.

use super::error::PostgresError;
use super::lane::Held;
use super::settings::Server;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The longest that a server which says nothing counts as having a connection. One that runs has ended
/// the question, or has noticed that nobody is there, long before.
const HELD: Duration = Duration::from_secs(60);
/// A line that fell silent is closed here first; the other end notices by its own probes.
const NOTICED_WITHIN: Duration = Duration::from_secs(6);
/// A server may take so long to see that it was told good-bye.
const GOOD_BYE: Duration = Duration::from_millis(20);
/// The place of a question that was given up is not taken again before this: the next is likely to fare
/// no better, and is told at once.
const RESTS_FOR: Duration = Duration::from_millis(150);
/// Attempts that are under way at once.
const KNOCKS: usize = 2;
/// Attempts that begin within a second, at the least.
const STARTS: u32 = 16;
/// The time that a request to cancel may take, and how many there are at once.
const CANCELLED_WITHIN: Duration = Duration::from_millis(500);
const CANCELS: usize = 2;

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// So many connections to each address of a server.
#[derive(Debug)]
pub(super) struct Seats {
    most: u32,
    rooms: Mutex<HashMap<String, Room>>,
    cancels: Arc<Semaphore>,
    given_up: Arc<AtomicU32>,
}

/// The connections to an address.
#[derive(Clone, Debug)]
struct Room {
    seats: Arc<Semaphore>,
    knocks: Arc<Semaphore>,
    starts: Arc<Semaphore>,
}

/// A connection's place, kept until the server has let go.
type Seat = OwnedSemaphorePermit;

impl Seats {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            rooms: Mutex::default(),
            cancels: Arc::new(Semaphore::new(CANCELS)),
            given_up: Arc::default(),
        }
    }

    /// Connections that were given up in the middle of a question, and that the server still has.
    pub(super) fn given_up(&self) -> u32 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Connects to a host, at the first of its addresses that lets in. Waits `within` for a seat, and
    /// then as long for an answer.
    pub(super) async fn call(
        &self,
        host: &Config,
        server: &Server,
        within: Duration,
    ) -> Result<(Client, Line), PostgresError> {
        let at = || Arc::clone(&server.at);
        let found = addresses(host).await.map_err(|error| {
            let detail = format!("error connecting to server: {error}");
            PostgresError::Unreachable { at: at(), detail }
        })?;
        let detail = "its name leads to no address".to_owned();
        let mut failure = PostgresError::Unreachable { at: at(), detail };
        for (address, host) in found {
            let Ok(entry) = timeout(within, self.room(address).enter()).await else {
                failure = PostgresError::Busy { at: at() };
                continue;
            };
            let entry = entry.ok_or_else(|| PostgresError::Stopped { at: at() })?;
            match timeout(within, entry.knock(host, server.tls.clone())).await {
                Ok(Some(Ok(called))) => return Ok(called),
                Ok(Some(Err(error))) => failure = PostgresError::of_dial(&server.at, &error),
                Ok(None) | Err(_) => failure = PostgresError::Timeout { at: at(), within },
            }
        }
        Err(failure)
    }

    fn room(&self, address: String) -> Room {
        let mut rooms = self.rooms.lock();
        let most = usize::try_from(self.most).unwrap_or(usize::MAX);
        // Those that nothing leads to any more are forgotten, once they are empty.
        rooms.retain(|known, room| {
            *known == address || room.seats.available_permits() < most || room.is_paced(self.most)
        });
        let room = rooms.entry(address).or_insert_with(|| Room {
            seats: Arc::new(Semaphore::new(most)),
            knocks: Arc::new(Semaphore::new(KNOCKS)),
            starts: Arc::new(Semaphore::new(starts(self.most))),
        });
        room.clone()
    }

    /// Lets a connection work for `client`, in a task of its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection has a task of its own, which ends with it"
    )]
    pub(super) fn start(&self, line: Line, client: &Client, tls: &MakeRustlsConnect) -> Hold {
        let tie = Arc::new(Tie::default());
        let cancel = Cancel {
            token: client.cancel_token(),
            tls: tls.clone(),
            places: Arc::clone(&self.cancels),
        };
        let given_up = Arc::clone(&self.given_up);
        tokio::spawn(carry(line, Arc::clone(&tie), cancel, given_up));
        Hold(tie)
    }
}

/// So many attempts may begin in a second.
fn starts(most: u32) -> usize {
    usize::try_from((most / 4).max(STARTS)).unwrap_or(1)
}

impl Room {
    /// Waits for a seat, and for a turn to take it.
    async fn enter(self) -> Option<Entry> {
        let seat = self.seats.acquire_owned().await.ok()?;
        let knock = self.knocks.acquire_owned().await.ok()?;
        let start = self.starts.acquire_owned().await.ok()?;
        Some(Entry { seat, knock, start })
    }

    /// Whether there were attempts within the last second.
    fn is_paced(&self, most: u32) -> bool {
        self.starts.available_permits() < starts(most)
    }
}

/// What an attempt needs.
struct Entry {
    seat: Seat,
    knock: OwnedSemaphorePermit,
    start: OwnedSemaphorePermit,
}

impl Entry {
    /// Connects. The attempt goes on when nobody waits for it any more: only its end tells that the
    /// server is rid of it.
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection has a task of its own, which ends with it"
    )]
    async fn knock(
        self,
        host: Config,
        tls: MakeRustlsConnect,
    ) -> Option<Result<(Client, Line), Error>> {
        let Self { seat, knock, start } = self;
        tokio::spawn(async move {
            sleep(Duration::from_secs(1)).await;
            drop(start);
        });
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let answer = timeout(HELD, host.connect(tls)).await;
            drop(knock);
            let Ok(answer) = answer else { return };
            let answer = answer.map(|(client, link)| (client, Line { link, _seat: seat }));
            if let Err(Ok((client, line))) = tell.send(answer) {
                drop(client);
                line.end().await;
            }
        });
        told.await.ok()
    }
}

/// Where a host is: each address, and how to connect to that one.
async fn addresses(host: &Config) -> io::Result<Vec<(String, Config)>> {
    let port = host.get_ports().first().copied().unwrap_or(5432);
    let name = match (host.get_hostaddrs().first(), host.get_hosts().first()) {
        (Some(address), _) => return Ok(vec![(format!("{address}:{port}"), host.clone())]),
        (None, Some(Host::Tcp(name))) => name,
        (None, Some(Host::Unix(path))) => {
            return Ok(vec![(format!("{}:{port}", path.display()), host.clone())]);
        }
        (None, None) => return Ok(Vec::new()),
    };
    let found = tokio::net::lookup_host((name.as_str(), port)).await?;
    let alone = found.map(|address| {
        let mut host = host.clone();
        host.hostaddr(address.ip());
        (address.to_string(), host)
    });
    Ok(alone.collect())
}

/// A connection's own end of it, and its seat.
pub(super) struct Line {
    pub(super) link: tokio_postgres::Connection<Socket, Stream>,
    _seat: Seat,
}

impl Line {
    /// Goes on until the server has let go. To be called when the client is gone, or about to go.
    pub(super) async fn end(mut self) {
        if let Ok(ended) = timeout(HELD, &mut self.link).await {
            notice(ended.err()).await;
        }
    }

    /// The same, in a task of its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection has a task of its own, which ends with it"
    )]
    pub(super) fn end_alone(self) {
        tokio::spawn(self.end());
    }
}

/// Works for the client until it is gone, and then for the seat.
async fn carry(mut line: Line, tie: Arc<Tie>, cancel: Cancel, given_up: Arc<AtomicU32>) {
    let ended = tokio::select! {
        biased;
        ended = &mut line.link => Some(ended),
        () = tie.over.notified() => None,
    };
    match ended {
        Some(ended) => {
            notice(ended.err()).await;
            drop(line);
        }
        None if tie.is_asking() => {
            given_up.fetch_add(1, Ordering::Relaxed);
            let cancel = cancel.send(tie.in_transaction.load(Ordering::Relaxed));
            tokio::join!(line.end(), cancel, sleep(RESTS_FOR));
            given_up.fetch_sub(1, Ordering::Relaxed);
        }
        None => line.end().await,
    }
    tie.let_go();
}

/// The other end of a line may take a while to know that it is gone.
async fn notice(error: Option<Error>) {
    let is_silent = error.as_ref().and_then(|error| error.source()).is_some_and(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    });
    sleep(if is_silent { NOTICED_WITHIN } else { GOOD_BYE }).await;
}

/// A question that nobody waits for is to end.
struct Cancel {
    token: CancelToken,
    tls: MakeRustlsConnect,
    places: Arc<Semaphore>,
}

impl Cancel {
    /// It is only help: the server ends the question by itself, and too many would be a flood too. What
    /// may be the end of a transaction is left alone.
    async fn send(self, in_transaction: bool) {
        if in_transaction {
            return;
        }
        let Ok(_place) = self.places.try_acquire() else { return };
        let sent = timeout(CANCELLED_WITHIN, self.token.cancel_query(self.tls)).await;
        if let Ok(Err(error)) = sent {
            log::debug!(error:%; "PostgreSQL takes no request to cancel");
        }
    }
}

/// What a connection in use and its task know of each other.
#[derive(Debug, Default)]
struct Tie {
    over: Notify,
    is_asking: AtomicBool,
    in_transaction: AtomicBool,
    kept: Mutex<Kept>,
}

/// What is free again when the server has let go.
#[derive(Debug, Default)]
struct Kept {
    has_let_go: bool,
    place: Option<Held>,
}

impl Tie {
    fn is_asking(&self) -> bool {
        self.is_asking.load(Ordering::Relaxed)
    }

    fn let_go(&self) {
        let mut kept = self.kept.lock();
        kept.has_let_go = true;
        kept.place = None;
    }
}

/// A connection that works; it ends with this.
#[derive(Debug)]
pub(super) struct Hold(Arc<Tie>);

impl Hold {
    /// Keeps a place in a lane until the server has let go of the connection.
    pub(super) fn keep(&self, place: Held) {
        let mut kept = self.0.kept.lock();
        if !kept.has_let_go {
            kept.place = Some(place);
        }
    }

    /// A question goes out, or its answer is there.
    pub(super) fn set_asking(&self, on: bool) {
        self.0.is_asking.store(on, Ordering::Relaxed);
    }

    /// Whether a question is out.
    pub(super) fn is_asking(&self) -> bool {
        self.0.is_asking()
    }

    /// A transaction begins or ends.
    pub(super) fn set_in_transaction(&self, on: bool) {
        self.0.in_transaction.store(on, Ordering::Relaxed);
    }

    /// Whether a transaction is open.
    pub(super) fn in_transaction(&self) -> bool {
        self.0.in_transaction.load(Ordering::Relaxed)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.over.notify_one();
    }
}
