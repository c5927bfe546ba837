//! The store of a fleet: PostgreSQL, a primary and perhaps a replica.
//!
//! ```text
//! request path ─▶ Source ──▶ budget ─▶ replica, primary    one statement, 40 ms and 45 ms
//! follower ─────▶ ChangeFeed ────────▶ primary             polls, and listens
//! operators ────▶ Registry, Documents, Denials, Audit ───▶ primary, in transactions
//! every task ───▶ UsageLog ──────────▶ primary             batches, each applied once
//! ```
//!
//! All of it runs on the [`Reactor`]; who waits for it can go away at any time. Connections are made
//! when they are needed, and those that turn out to be dead, silent or read-only are given up, so that a
//! promotion, a change of addresses or a restart of the server is followed without a restart of ours.
//!
//! Must stay true: no answer is waited for without a deadline; what is unknown comes from the database
//! and never from an outage; no input reaches SQL but as a parameter; no plain key gets here.

mod audit;
mod budget;
mod connection;
mod consumers;
mod denials;
mod dial;
mod documents;
mod error;
mod feed;
mod keys;
mod lane;
mod listener;
mod lookup;
pub mod migrate;
mod news;
mod pool;
mod registry;
mod rows;
mod seats;
mod settings;
mod trust;
mod usage;
mod uses;
mod vitals;
mod work;
mod write;

pub use error::PostgresError;
pub use settings::{Bounds, InvalidSettings, Settings};
pub use vitals::{PoolVitals, Vitals};

use super::Reactor;
use crate::telemetry::Clock;
use budget::Budget;
use dial::Role;
use pool::Pool;
use settings::Server;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Consumers, keys and all else in PostgreSQL.
pub struct Postgres {
    shared: Arc<Shared>,
    reactor: Arc<Reactor>,
}

/// What those who work on the reactor need.
struct Shared {
    clock: Clock,
    bounds: Bounds,
    primary: Arc<Pool>,
    replica: Option<Arc<Pool>>,
    budget: Budget,
    /// As much again for quotas, so that new subjects keep out no key.
    quota_budget: Budget,
    epoch: feed::Epoch,
    /// Where the primary is, for the listener.
    server: Server,
    stir: Arc<Notify>,
    is_listening: AtomicBool,
}

impl Shared {
    fn to_listen(&self) -> (Server, Arc<Notify>) {
        (self.server.clone(), Arc::clone(&self.stir))
    }
}

impl Postgres {
    /// A store at the place that `settings` name. It connects when it is first asked, so PostgreSQL need
    /// not run yet.
    #[must_use]
    pub fn connect(settings: Settings, reactor: Arc<Reactor>, clock: Clock) -> Self {
        let Settings { primary, replica, bounds } = settings;
        let pool = |server: &Server, role| Arc::new(Pool::new(server, role, bounds, clock.clone()));
        let shared = Shared {
            primary: pool(&primary, Role::Primary),
            replica: replica.as_ref().map(|replica| pool(replica, Role::Replica)),
            budget: Budget::new(bounds.look_ups_per_second, clock.clone()),
            quota_budget: Budget::new(bounds.look_ups_per_second, clock.clone()),
            epoch: feed::Epoch::default(),
            server: primary,
            stir: Arc::default(),
            is_listening: AtomicBool::new(false),
            bounds,
            clock,
        };
        Self { shared: Arc::new(shared), reactor }
    }

    /// Checks that the database has the schema of this gateway.
    ///
    /// # Errors
    /// The database cannot be asked, or has another schema: what to do about it.
    pub async fn check_schema(&self) -> Result<(), PostgresError> {
        let shared = Arc::clone(&self.shared);
        let checked = self.reactor.run(async move {
            let pool = &shared.primary;
            pool.within(shared.bounds.administration, migrate::check(pool)).await
        });
        checked.await.unwrap_or_else(|| Err(self.shared.primary.stopped()))
    }

    /// How the connections fare; cheap.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        Vitals {
            primary: self.shared.primary.vitals(),
            replica: self.shared.replica.as_ref().map(|replica| replica.vitals()),
            throttled: self.shared.budget.refused() + self.shared.quota_budget.refused(),
        }
    }

    /// Addresses and database of the primary, to be shown.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.shared.primary.at
    }

    /// Begins to listen for notifications, if that was not done yet.
    fn listen(&self) {
        if !self.shared.is_listening.swap(true, Ordering::Relaxed) {
            self.reactor.start_work(listener::listen(Arc::downgrade(&self.shared)));
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postgres").field(&self.place()).finish()
    }
}
