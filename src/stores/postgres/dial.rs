//! Making connections: to the primary wherever it is, or to a replica.
//!
//! All hosts of a URL are tried at once, because one that is frozen accepts and then says nothing. A
//! server in recovery is no primary. Where a URL names several hosts, one that writes an older history
//! than was seen before is none either: it is a primary that was given up and came back.
//!
//! While connections fail or fall silent, one attempt at a time is made, with pauses, so that a server
//! that is slow or comes back is neither met by a storm nor missed for long.
//!
//! Must stay true: each step of an attempt ends by its deadline, TLS and password included; nobody dials
//! without a seat.

use super::connection::{Connection, Marks};
use super::error::PostgresError;
use super::news::News;
use super::seats::{Hold, Seats};
use super::settings::Server;
use crate::telemetry::Clock;
use bb8_postgres::bb8::ManageConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

/// How long the other hosts may take once one has answered: two may call themselves primary.
const GRACE: Duration = Duration::from_millis(20);
/// In trouble, before an attempt.
const BREATH: Duration = Duration::from_millis(20);
/// In trouble, after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection under suspicion gives a sign of life within this.
const PROVES_WITHIN: Duration = Duration::from_millis(150);

/// How a connection is to behave, and what its server is. A transaction in which nothing happens is ended
/// by the server: it may hold the lock that every write takes. So is a connection whose other end is gone.
const SET_UP: &str = "SET idle_in_transaction_session_timeout = '3s'; \
                      SET tcp_keepalives_idle = 5; \
                      SET tcp_keepalives_interval = 2; \
                      SET tcp_keepalives_count = 3; \
                      SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN NULL \
                      ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END";

/// Whom a connection is to lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The one that writes.
    Primary,
    /// Any that answers.
    Replica,
}

/// Makes the connections to a server.
#[derive(Debug)]
pub(super) struct Dialer {
    server: Server,
    role: Role,
    within: Duration,
    pub(super) marks: Marks,
    failures: AtomicU64,
    pub(super) news: News,
}

/// Where connections of one kind are made: so many, each for questions that end by themselves.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) seats: Seats,
    set_up: Arc<str>,
    /// Held by the one attempt in trouble.
    turn: Mutex<()>,
    /// The last failure, for those who wait for a connection.
    failure: watch::Sender<Option<PostgresError>>,
}

impl Door {
    /// A statement that nobody waits for any more is ended by the server: after `statement`, or after
    /// `lock` where it waits for one.
    pub(super) fn new(seats: u32, statement: Duration, lock: Duration) -> Self {
        let (statement, lock) = (statement.as_millis(), lock.as_millis());
        let set_up =
            format!("SET statement_timeout = {statement}; SET lock_timeout = {lock}; {SET_UP}");
        Self {
            seats: Seats::new(seats),
            set_up: set_up.into(),
            turn: Mutex::new(()),
            failure: watch::Sender::new(None),
        }
    }

    /// Hears of failures from now on.
    pub(super) fn failures(&self) -> watch::Receiver<Option<PostgresError>> {
        let mut failures = self.failure.subscribe();
        failures.mark_unchanged();
        failures
    }
}

impl Dialer {
    pub(super) fn new(server: &Server, role: Role, within: Duration, clock: Clock) -> Self {
        Self {
            server: server.clone(),
            role,
            within,
            marks: Marks::default(),
            failures: AtomicU64::new(0),
            news: News::new(&server.at, role, clock),
        }
    }

    fn at(&self) -> Arc<str> {
        Arc::clone(&self.server.at)
    }

    /// How many attempts failed.
    pub(super) fn failed(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Makes a connection, in one attempt.
    pub(super) async fn dial(&self, door: &Arc<Door>) -> Result<Connection, PostgresError> {
        let mut attempts = self.call_all(door);
        let (mut best, mut failure): (Option<(Open, u32)>, _) = (None, None);
        loop {
            let next = match best {
                None => attempts.join_next().await,
                Some(_) if self.role == Role::Replica => None,
                Some(_) => timeout(GRACE, attempts.join_next()).await.unwrap_or(None),
            };
            let Some(attempt) = next else { break };
            match attempt {
                Ok(Ok((open, timeline))) => {
                    if best.as_ref().is_none_or(|(_, other)| *other < timeline) {
                        best = Some((open, timeline));
                    }
                }
                // These explain less than the primary's own words.
                Ok(Err(PostgresError::ReadOnly { .. } | PostgresError::Busy { .. }))
                    if failure.is_some() => {}
                Ok(Err(error)) => failure = Some(error),
                Err(ended) => failure = failure.or_else(|| Some(self.ended(&ended))),
            }
        }
        match best {
            // With one host there is no choice; its history is what there is.
            Some((_, timeline))
                if self.server.hosts.len() > 1 && timeline < self.marks.timeline() =>
            {
                let detail = "it goes on with a history from before a promotion";
                Err(read_only(&self.server.at, detail))
            }
            Some(((client, hold), timeline)) => {
                self.marks.note_timeline(timeline);
                Ok(Connection::new(client, hold, timeline, &self.marks))
            }
            None => Err(failure.unwrap_or_else(|| PostgresError::Stopped { at: self.at() })),
        }
    }

    fn call_all(&self, door: &Arc<Door>) -> JoinSet<Result<(Open, u32), PostgresError>> {
        let mut attempts = JoinSet::new();
        for host in &self.server.hosts {
            let (host, server, door) = (host.clone(), self.server.clone(), Arc::clone(door));
            let (within, role) = (self.within, self.role);
            attempts.spawn(async move {
                let (client, line) = door.seats.call(&host, &server, within).await?;
                let hold = door.seats.start(line, &client, &server.tls);
                let asked = ask(&client, &door.set_up, &server.at, role);
                let timeline = timeout(within, asked).await.unwrap_or_else(|_| {
                    Err(PostgresError::Timeout { at: Arc::clone(&server.at), within })
                })?;
                Ok(((client, hold), timeline))
            });
        }
        attempts
    }

    fn ended(&self, ended: &JoinError) -> PostgresError {
        PostgresError::Failed { at: self.at(), code: None, detail: ended.to_string() }
    }

    async fn attempt(&self, door: &Arc<Door>) -> Result<Connection, PostgresError> {
        let dialed = self.dial(door).await;
        match &dialed {
            Ok(_) => self.news.works(),
            // It was not even tried.
            Err(error @ PostgresError::Busy { .. }) => {
                door.failure.send_replace(Some(error.clone()));
            }
            // It was made, and ended; the next may well stand.
            Err(error @ PostgresError::Lost { .. }) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                door.failure.send_replace(Some(error.clone()));
            }
            Err(error) => {
                self.marks.note_trouble();
                self.failures.fetch_add(1, Ordering::Relaxed);
                // Nobody may ask for long, and then it is not to come as a surprise.
                self.news.fails(error);
                door.failure.send_replace(Some(error.clone()));
            }
        }
        dialed
    }
}

/// A connection that is there, and is not known yet.
type Open = (Client, Hold);

/// Lets a pool make connections by a [`Dialer`].
#[derive(Clone, Debug)]
pub(super) struct Manager {
    pub(super) dialer: Arc<Dialer>,
    pub(super) door: Arc<Door>,
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = PostgresError;

    async fn connect(&self) -> Result<Connection, PostgresError> {
        let Self { dialer, door } = self;
        if !dialer.marks.is_troubled() {
            return dialer.attempt(door).await;
        }
        let _turn = door.turn.lock().await;
        tokio::time::sleep(BREATH).await;
        let dialed = dialer.attempt(door).await;
        if dialed.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        dialed
    }

    /// It asks nothing where nothing is suspected: a question would cost a round trip. To dial anew in
    /// place of each connection under suspicion would cost a server that is merely busy far more.
    async fn is_valid(&self, connection: &mut Connection) -> Result<(), PostgresError> {
        let marks = &self.dialer.marks;
        let lost = |detail: &str| {
            Err(PostgresError::Lost { at: self.dialer.at(), detail: detail.to_owned() })
        };
        if connection.is_broken(marks) {
            return lost("another connection to it broke");
        }
        if !connection.is_doubtful(marks) {
            return Ok(());
        }
        connection.asks();
        match timeout(PROVES_WITHIN, connection.client.simple_query("")).await {
            Ok(Ok(_)) => {
                connection.is_answered(marks);
                Ok(())
            }
            Ok(Err(_)) => lost("it broke"),
            Err(_) => {
                marks.note_death();
                lost("it gives no sign of life")
            }
        }
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.is_broken(&self.dialer.marks)
    }
}

/// Says how a connection is to behave, and asks what it leads to; a replica writes history zero.
async fn ask(
    client: &Client,
    set_up: &str,
    at: &Arc<str>,
    role: Role,
) -> Result<u32, PostgresError> {
    let said = client.simple_query(set_up).await;
    let said = said.map_err(|error| PostgresError::of_dial(at, &error))?;
    if role == Role::Replica {
        return Ok(0);
    }
    let row = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.and_then(|row| row.get(1))
        .and_then(timeline)
        .ok_or_else(|| read_only(at, "it is a replica, in recovery"))
}

fn read_only(at: &Arc<str>, detail: &str) -> PostgresError {
    PostgresError::ReadOnly { at: Arc::clone(at), detail: detail.to_owned() }
}

/// The history that the name of a WAL file begins with: 8 hex digits.
pub(super) fn timeline(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok()
}
