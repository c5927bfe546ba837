//! Making connections: to the primary wherever it is, or to a replica.
//!
//! All hosts of a URL are tried at once, because one that is frozen accepts and then says nothing. A
//! server in recovery is no primary. Where a URL names several hosts, one that writes an older history
//! than was seen before is none either: it is a primary that was given up and came back.
//!
//! While connections fail or fall silent, one attempt at a time is made, with pauses, so that a server
//! that is slow or comes back is neither met by a storm nor missed for long.
//!
//! Must stay true: an attempt ends by its deadline, TLS and password included.

use super::connection::{Connection, Marks};
use super::error::PostgresError;
use super::news::News;
use super::settings::Server;
use crate::telemetry::Clock;
use bb8_postgres::PostgresConnectionManager;
use bb8_postgres::bb8::ManageConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long the other hosts may take once one has answered: two may call themselves primary.
const GRACE: Duration = Duration::from_millis(20);
/// In trouble, before an attempt.
const BREATH: Duration = Duration::from_millis(20);
/// In trouble, after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// How a connection is to behave, and what its server is. A statement that nobody waits for any more
/// is ended by the server, and so is a transaction in which nothing happens: it may hold the lock that
/// every write takes.
const SET_UP: &str = "SET statement_timeout = '6s'; \
                      SET idle_in_transaction_session_timeout = '3s'; \
                      SET lock_timeout = '4s'; \
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

type Host = Arc<PostgresConnectionManager<MakeRustlsConnect>>;

/// Makes the connections of a pool.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) at: Arc<str>,
    role: Role,
    within: Duration,
    hosts: Vec<Host>,
    pub(super) marks: Marks,
    /// Held by the one attempt in trouble.
    turn: Mutex<()>,
    /// The last failure, for those who wait for a connection.
    failure: watch::Sender<Option<PostgresError>>,
    failures: AtomicU64,
    pub(super) news: News,
}

impl Dialer {
    pub(super) fn new(server: &Server, role: Role, within: Duration, clock: Clock) -> Self {
        let manager = |host: &tokio_postgres::Config| {
            Arc::new(PostgresConnectionManager::new(host.clone(), server.tls.clone()))
        };
        Self {
            at: Arc::clone(&server.at),
            role,
            within,
            hosts: server.hosts.iter().map(manager).collect(),
            marks: Marks::default(),
            turn: Mutex::new(()),
            failure: watch::Sender::new(None),
            failures: AtomicU64::new(0),
            news: News::new(&server.at, role, clock),
        }
    }

    /// Hears of failures from now on.
    pub(super) fn failures(&self) -> watch::Receiver<Option<PostgresError>> {
        let mut failures = self.failure.subscribe();
        failures.mark_unchanged();
        failures
    }

    /// How many attempts failed.
    pub(super) fn failed(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Makes a connection, in one attempt.
    pub(super) async fn dial(&self) -> Result<Connection, PostgresError> {
        let mut attempts = self.call_all();
        let (mut best, mut failure): (Option<(Client, u32)>, _) = (None, None);
        loop {
            let next = match best {
                None => attempts.join_next().await,
                Some(_) if self.role == Role::Replica => None,
                Some(_) => tokio::time::timeout(GRACE, attempts.join_next()).await.unwrap_or(None),
            };
            let Some(attempt) = next else { break };
            match attempt {
                Ok(Ok((client, timeline))) => {
                    if best.as_ref().is_none_or(|(_, other)| *other < timeline) {
                        best = Some((client, timeline));
                    }
                }
                // A replica that says so explains less than the primary's own words.
                Ok(Err(PostgresError::ReadOnly { .. })) if failure.is_some() => {}
                Ok(Err(error)) => failure = Some(error),
                Err(ended) => failure = failure.or_else(|| Some(self.ended(&ended))),
            }
        }
        match best {
            // With one host there is no choice; its history is what there is.
            Some((_, timeline)) if self.hosts.len() > 1 && timeline < self.marks.timeline() => {
                Err(read_only(&self.at, "it goes on with a history from before a promotion"))
            }
            Some((client, timeline)) => {
                self.marks.note_timeline(timeline);
                Ok(Connection::new(client, timeline, &self.marks))
            }
            None => {
                Err(failure.unwrap_or_else(|| PostgresError::Stopped { at: Arc::clone(&self.at) }))
            }
        }
    }

    fn call_all(&self) -> JoinSet<Result<(Client, u32), PostgresError>> {
        let mut attempts = JoinSet::new();
        for host in &self.hosts {
            let (host, at) = (Arc::clone(host), Arc::clone(&self.at));
            let (within, role) = (self.within, self.role);
            attempts.spawn(async move {
                let attempt = open(&host, &at, role);
                tokio::time::timeout(within, attempt)
                    .await
                    .unwrap_or_else(|_| Err(PostgresError::Timeout { at, within }))
            });
        }
        attempts
    }

    fn ended(&self, ended: &JoinError) -> PostgresError {
        let (at, detail) = (Arc::clone(&self.at), ended.to_string());
        PostgresError::Failed { at, code: None, detail }
    }

    async fn attempt(&self) -> Result<Connection, PostgresError> {
        let dialed = self.dial().await;
        match &dialed {
            Ok(_) => self.news.works(),
            Err(error) => {
                self.marks.note_trouble();
                self.failures.fetch_add(1, Ordering::Relaxed);
                // Nobody may ask for long, and then it is not to come as a surprise.
                self.news.fails(error);
                self.failure.send_replace(Some(error.clone()));
            }
        }
        dialed
    }
}

/// Lets a pool make connections by a [`Dialer`].
#[derive(Clone, Debug)]
pub(super) struct Manager(pub(super) Arc<Dialer>);

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = PostgresError;

    async fn connect(&self) -> Result<Connection, PostgresError> {
        let dialer = &*self.0;
        if !dialer.marks.is_troubled() {
            return dialer.attempt().await;
        }
        let _turn = dialer.turn.lock().await;
        tokio::time::sleep(BREATH).await;
        let dialed = dialer.attempt().await;
        if dialed.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        dialed
    }

    /// It asks nothing: what is known is enough, and a question would cost a round trip.
    async fn is_valid(&self, connection: &mut Connection) -> Result<(), PostgresError> {
        if connection.is_doubtful(&self.0.marks) {
            let detail = "another connection to it broke".to_owned();
            return Err(PostgresError::Lost { at: Arc::clone(&self.0.at), detail });
        }
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.is_broken(&self.0.marks)
    }
}

/// Connects to one host and asks what it is; a replica writes history zero.
async fn open(host: &Host, at: &Arc<str>, role: Role) -> Result<(Client, u32), PostgresError> {
    let client = host.connect().await.map_err(|error| PostgresError::of_dial(at, &error))?;
    let said = client.simple_query(SET_UP).await;
    let said = said.map_err(|error| PostgresError::of_dial(at, &error))?;
    if role == Role::Replica {
        return Ok((client, 0));
    }
    let row = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    match row.and_then(|row| row.get(1)).and_then(timeline) {
        Some(timeline) => Ok((client, timeline)),
        None => Err(read_only(at, "it is a replica, in recovery")),
    }
}

fn read_only(at: &Arc<str>, detail: &str) -> PostgresError {
    PostgresError::ReadOnly { at: Arc::clone(at), detail: detail.to_owned() }
}

/// The history that the name of a WAL file begins with: 8 hex digits.
pub(super) fn timeline(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok()
}
