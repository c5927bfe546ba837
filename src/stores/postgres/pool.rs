//! Connections to one server, shared by those who ask it.
//!
//! Who asks comes in by a lane, and the lanes have connections of their own: a flood of look-ups keeps
//! out neither the question for changes nor an operator, a slow operation keeps out no look-up, and a
//! flood of new subjects of a quota keeps out nobody but its like.
//!
//! Must stay true: whoever waits here waits inside [`Pool::within`], so with a deadline; only so many
//! questions of requests wait.

use super::dial::{Dialer, Manager, Role};
use super::error::PostgresError;
use super::settings::{Bounds, Server};
use super::vitals::{Counters, PoolVitals};
pub(super) use super::work::{Value, Work};
use crate::telemetry::Clock;
use bb8_postgres::bb8::{self, PooledConnection, QueueStrategy, RunError};
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_postgres::Client;

/// How often it is seen to that there is a connection.
const TENDED_EVERY: Duration = Duration::from_millis(250);
/// A connection that nobody used for so long is closed.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// Look-ups that may be under way or wait.
const MOST_LOOK_UPS: u32 = 512;
/// Questions for a quota that may be under way or wait; the last of them still has a chance.
const MOST_QUOTAS: u32 = 32;
/// Connections of the other lanes. What has changed may take one while the question for more has one.
const FOR_CHANGES: u32 = 2;
const FOR_ADMINISTRATION: u32 = 2;
const FOR_QUOTAS: u32 = 1;
/// The fewest connections with which nobody keeps the others out.
pub(super) const FEWEST: u32 = FOR_CHANGES + FOR_ADMINISTRATION + FOR_QUOTAS + 1;

/// What a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// For operators, and usage that is written down.
    Administration,
    /// For what has changed: asking for it, and loading it.
    Changes,
    /// For keys and consumers of requests.
    LookUps,
    /// For what was used of a quota, which a request asks too.
    Quotas,
}

/// Why something was not done.
pub(super) trait Reason {
    /// What PostgreSQL has to do with it.
    fn of_store(&self) -> Option<&PostgresError>;
}

impl Reason for PostgresError {
    fn of_store(&self) -> Option<&PostgresError> {
        Some(self)
    }
}

/// The connections to one server.
pub(super) struct Pool {
    pub(super) at: Arc<str>,
    bounds: Bounds,
    pub(super) dialer: Arc<Dialer>,
    /// Made by who first asks, on the reactor, since its work is to be done there.
    connections: OnceLock<bb8::Pool<Manager>>,
    administration: Gate,
    changes: Gate,
    look_ups: Gate,
    quotas: Gate,
    pub(super) counters: Counters,
}

impl Pool {
    /// The connections to `server`; none is made yet.
    pub(super) fn new(server: &Server, role: Role, bounds: Bounds, clock: Clock) -> Self {
        let reserved = match role {
            Role::Primary => FEWEST - 1,
            Role::Replica => 0,
        };
        let look_ups = bounds.connections.saturating_sub(reserved).max(1);
        Self {
            at: Arc::clone(&server.at),
            bounds,
            dialer: Arc::new(Dialer::new(server, role, bounds.connect, clock)),
            connections: OnceLock::new(),
            administration: Gate::new(FOR_ADMINISTRATION, u32::MAX),
            changes: Gate::new(FOR_CHANGES, u32::MAX),
            look_ups: Gate::new(look_ups, MOST_LOOK_UPS),
            quotas: Gate::new(FOR_QUOTAS, MOST_QUOTAS),
            counters: Counters::default(),
        }
    }

    fn gate(&self, lane: Lane) -> &Gate {
        match lane {
            Lane::Administration => &self.administration,
            Lane::Changes => &self.changes,
            Lane::LookUps => &self.look_ups,
            Lane::Quotas => &self.quotas,
        }
    }

    /// Lets a request's question in, if not too many are.
    pub(super) fn admit(self: &Arc<Self>, lane: Lane) -> Result<Admitted, PostgresError> {
        let (gate, admitted) = (self.gate(lane), Admitted(Arc::clone(self), lane));
        if gate.inside.fetch_add(1, Ordering::Relaxed) < gate.most {
            return Ok(admitted);
        }
        self.counters.refuse();
        Err(PostgresError::Busy { at: Arc::clone(&self.at) })
    }

    /// Runs `work`, but not beyond `deadline`; a failure is counted and told.
    pub(super) async fn within<T, E: From<PostgresError> + Reason>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let result = tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
            self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
            Err(PostgresError::Timeout { at: Arc::clone(&self.at), within: deadline }.into())
        });
        match result.as_ref().err().and_then(Reason::of_store) {
            Some(error @ PostgresError::Unreadable { .. }) => self.finds_unreadable(error),
            Some(error) => self.dialer.news.fails(error),
            None => {}
        }
        result
    }

    /// Counts and tells that a row cannot be read.
    pub(super) fn finds_unreadable(&self, error: &PostgresError) {
        self.counters.count(error);
        self.dialer.news.fails(error);
    }

    /// Waits for a connection.
    pub(super) async fn take(&self, lane: Lane) -> Result<Work<'_>, PostgresError> {
        let waiting = self.counters.wait();
        let permit = self.gate(lane).permits.acquire().await;
        let connection = match &permit {
            Ok(_) => self.connection().await,
            Err(_) => Err(self.stopped()),
        };
        waiting.end();
        let (permit, connection) = (permit.map_err(|_| self.stopped())?, connection?);
        self.counters.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(Work { pool: self, connection, _permit: permit })
    }

    /// Waits for a connection, but not beyond `deadline`. That others are before is no fault of the server.
    pub(super) async fn turn(
        &self,
        lane: Lane,
        deadline: Duration,
    ) -> Result<Work<'_>, PostgresError> {
        tokio::time::timeout(deadline, self.take(lane)).await.unwrap_or_else(|_| {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            Err(PostgresError::Busy { at: Arc::clone(&self.at) })
        })
    }

    async fn connection(&self) -> Result<PooledConnection<'_, Manager>, PostgresError> {
        let connections = self.connections();
        let mut failures = self.dialer.failures();
        let mut getting = pin!(connections.get());
        loop {
            tokio::select! {
                biased;
                got = &mut getting => return got.map_err(|error| match error {
                    RunError::User(error) => error,
                    RunError::TimedOut => self.stopped(),
                }),
                // Nobody else will give one back, so there is nothing to wait for.
                failed = failures.changed() => {
                    let failure = failures.borrow_and_update().clone();
                    match failure {
                        Some(error) if connections.state().connections == 0 => return Err(error),
                        _ if failed.is_err() => return Err(self.stopped()),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Sees to it that there is a connection before one is needed. To be called on the reactor.
    pub(super) fn warm(&self) {
        self.connections();
    }

    /// The history that the primary writes; zero where it is not known yet.
    pub(super) fn timeline(&self) -> u32 {
        self.dialer.marks.timeline()
    }

    /// A connection of one's own, that is in no pool and ends with its use.
    pub(super) async fn own(&self) -> Result<Client, PostgresError> {
        self.dialer.dial().await.map(|connection| connection.client)
    }

    fn connections(&self) -> &bb8::Pool<Manager> {
        self.connections.get_or_init(|| {
            bb8::Pool::builder()
                .max_size(self.bounds.connections)
                .min_idle(1)
                .max_lifetime(self.bounds.oldest)
                .idle_timeout(IDLE_FOR)
                // It waits with pauses of its own, and those who wait have deadlines of theirs.
                .retry_connection(false)
                .connection_timeout(self.bounds.administration.saturating_mul(2))
                .test_on_check_out(true)
                .reaper_rate(TENDED_EVERY)
                .queue_strategy(QueueStrategy::Lifo)
                .build_unchecked(Manager(Arc::clone(&self.dialer)))
        })
    }

    /// How the connections fare.
    pub(super) fn vitals(&self) -> PoolVitals {
        let state = self.connections.get().map(bb8::Pool::state);
        PoolVitals {
            most: self.bounds.connections,
            connections: state.as_ref().map_or(0, |state| state.connections),
            idle: state.as_ref().map_or(0, |state| state.idle_connections),
            failed_to_connect: self.dialer.failed(),
            ..self.counters.read()
        }
    }

    pub(super) fn stopped(&self) -> PostgresError {
        PostgresError::Stopped { at: Arc::clone(&self.at) }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.at).finish()
    }
}

/// Who may have a connection of a lane.
struct Gate {
    permits: Semaphore,
    /// Those of requests that are under way or wait.
    inside: AtomicU32,
    most: u32,
}

impl Gate {
    fn new(connections: u32, most: u32) -> Self {
        let permits = Semaphore::new(usize::try_from(connections).unwrap_or(1));
        Self { permits, inside: AtomicU32::new(0), most }
    }
}

/// A request's question that was let in.
#[derive(Debug)]
pub(super) struct Admitted(Arc<Pool>, Lane);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.gate(self.1).inside.fetch_sub(1, Ordering::Relaxed);
    }
}
