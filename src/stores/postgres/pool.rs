//! Connections to one server, shared by those who ask it.
//!
//! Who asks comes in by a lane, and the lanes have connections of their own: a flood of look-ups keeps
//! out neither the question for changes nor an operator, a slow operation keeps out no look-up, and a
//! flood of new subjects of a quota keeps out nobody but its like. Requests have a set of connections of
//! their own, on which the server ends a question soon after nobody waits for it any more.
//!
//! Who gave up a connection in the middle of a question keeps the lane's place until the server has let go
//! of it, so that however the server hangs, it has no more connections than there may be.
//!
//! Must stay true: whoever waits here waits inside [`Pool::within`], so with a deadline; only so many
//! questions of requests wait.

use super::connection::Connection;
use super::dial::{Dialer, Door, Manager, Role};
use super::error::PostgresError;
use super::lane::Gate;
pub(super) use super::lane::Lane;
use super::settings::{Bounds, Server};
use super::vitals::{Counters, PoolVitals};
pub(super) use super::work::{Value, Work};
use crate::telemetry::Clock;
use bb8_postgres::bb8::{self, PooledConnection, QueueStrategy, RunError};
use std::fmt;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

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
/// The server ends a question of a request so long after nobody waits for it.
const LET_GO: Duration = Duration::from_millis(200);
/// It ends what is not asked for a request after these.
const STATEMENT_WITHIN: Duration = Duration::from_secs(6);
const LOCK_WITHIN: Duration = Duration::from_secs(4);
/// The fewest connections with which nobody keeps the others out.
pub(super) const FEWEST: u32 = FOR_CHANGES + FOR_ADMINISTRATION + FOR_QUOTAS + 1;

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
    requests: Set,
    /// For all that is not asked for a request; a replica is asked for nothing else.
    works: Option<Set>,
    /// For a connection that is in no pool.
    aside: Arc<Door>,
    administration: Gate,
    changes: Gate,
    look_ups: Gate,
    quotas: Gate,
    pub(super) counters: Counters,
}

impl Pool {
    /// The connections to `server`; none is made yet.
    pub(super) fn new(server: &Server, role: Role, bounds: Bounds, clock: Clock) -> Self {
        let (works, quotas) = match role {
            Role::Primary => (FOR_CHANGES + FOR_ADMINISTRATION, FOR_QUOTAS),
            Role::Replica => (0, 0),
        };
        let requests = bounds.connections.saturating_sub(works).max(1);
        let look_ups = requests.saturating_sub(quotas).max(1);
        let longest = bounds.primary_look_up.max(bounds.replica_look_up).max(bounds.quotas);
        let soon = longest + LET_GO;
        Self {
            at: Arc::clone(&server.at),
            bounds,
            dialer: Arc::new(Dialer::new(server, role, bounds.connect, clock)),
            requests: Set::new(requests, soon, soon),
            works: (works > 0).then(|| Set::new(works, STATEMENT_WITHIN, LOCK_WITHIN)),
            aside: Arc::new(Door::new(1, STATEMENT_WITHIN, LOCK_WITHIN)),
            administration: Gate::new(FOR_ADMINISTRATION, u32::MAX),
            changes: Gate::new(FOR_CHANGES, u32::MAX),
            look_ups: Gate::new(look_ups, MOST_LOOK_UPS),
            quotas: Gate::new(FOR_QUOTAS, MOST_QUOTAS),
            counters: Counters::default(),
        }
    }

    fn set(&self, lane: Lane) -> &Set {
        match (lane, &self.works) {
            (Lane::Administration | Lane::Changes, Some(works)) => works,
            _ => &self.requests,
        }
    }

    /// How many connections there may be, and so how many may turn out to be dead.
    pub(super) const fn most(&self) -> u32 {
        self.bounds.connections
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
        if gate.inside.fetch_add(1, Ordering::Relaxed) < gate.most
            && !gate.is_spent()
            && !self.is_away(lane)
        {
            return Ok(admitted);
        }
        self.counters.refuse();
        Err(PostgresError::Busy { at: Arc::clone(&self.at) })
    }

    /// Whether there is no connection, and no use in waiting for one: it is being tried to make one.
    fn is_away(&self, lane: Lane) -> bool {
        let connections = self.set(lane).connections.get();
        self.dialer.marks.is_troubled()
            && connections.is_some_and(|connections| connections.state().connections == 0)
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
        let (waiting, gate) = (self.counters.wait(), self.gate(lane));
        let permit = Arc::clone(&gate.permits).acquire_owned().await;
        let connection = match &permit {
            Ok(_) => self.connection(self.set(lane)).await,
            Err(_) => Err(self.stopped()),
        };
        waiting.end();
        let (permit, connection) = (permit.map_err(|_| self.stopped())?, connection?);
        self.counters.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(Work { pool: self, connection, gate, permit: Some(permit) })
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

    async fn connection<'p>(
        &'p self,
        set: &'p Set,
    ) -> Result<PooledConnection<'p, Manager>, PostgresError> {
        self.warm();
        let connections = self.connections(set);
        let mut failures = set.door.failures();
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
        for set in self.sets() {
            self.connections(set);
        }
    }

    fn sets(&self) -> impl Iterator<Item = &Set> {
        std::iter::once(&self.requests).chain(&self.works)
    }

    /// The history that the primary writes; zero where it is not known yet.
    pub(super) fn timeline(&self) -> u32 {
        self.dialer.marks.timeline()
    }

    /// A connection of one's own, that is in no pool and ends with its use.
    pub(super) async fn own(&self) -> Result<Connection, PostgresError> {
        self.dialer.dial(&self.aside).await
    }

    fn connections<'p>(&self, set: &'p Set) -> &'p bb8::Pool<Manager> {
        set.connections.get_or_init(|| {
            let (dialer, door) = (Arc::clone(&self.dialer), Arc::clone(&set.door));
            bb8::Pool::builder()
                .max_size(set.most)
                .min_idle(1)
                .max_lifetime(self.bounds.oldest)
                .idle_timeout(IDLE_FOR)
                // It waits with pauses of its own, and those who wait have deadlines of theirs.
                .retry_connection(false)
                .connection_timeout(self.bounds.administration.saturating_mul(2))
                .test_on_check_out(true)
                .reaper_rate(TENDED_EVERY)
                .queue_strategy(QueueStrategy::Lifo)
                .build_unchecked(Manager { dialer, door })
        })
    }

    /// How the connections fare.
    pub(super) fn vitals(&self) -> PoolVitals {
        let (mut connections, mut idle) = (0, 0);
        for set in self.sets() {
            let state = set.connections.get().map(bb8::Pool::state);
            connections += set.door.seats.given_up();
            connections += state.as_ref().map_or(0, |state| state.connections);
            idle += state.as_ref().map_or(0, |state| state.idle_connections);
        }
        PoolVitals {
            most: self.bounds.connections,
            connections,
            idle,
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

/// Connections whose questions the server ends alike.
struct Set {
    most: u32,
    door: Arc<Door>,
    /// Made by who first asks, on the reactor, since its work is to be done there.
    connections: OnceLock<bb8::Pool<Manager>>,
}

impl Set {
    fn new(most: u32, statement: Duration, lock: Duration) -> Self {
        let door = Arc::new(Door::new(most, statement, lock));
        Self { most, door, connections: OnceLock::new() }
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
