//! PostgreSQL in the contract suite, and what is particular to it.

use crate::Place;
use crate::lab::{Server, shared};
use datahub_gateway::stores::postgres::{Bounds, Settings, migrate};
use datahub_gateway::stores::{Postgres, Reactor};
use datahub_gateway::telemetry::Clock;
use std::sync::Arc;
use std::time::Duration;

/// A database of its own on the server that all tests share.
pub(crate) struct Database {
    url: String,
    reactor: Arc<Reactor>,
}

/// Deadlines that hold while forty tests share two cores.
fn patient() -> Bounds {
    Bounds {
        connections: 6,
        replica_look_up: Duration::from_secs(10),
        primary_look_up: Duration::from_secs(10),
        quotas: Duration::from_secs(10),
        changes: Duration::from_secs(10),
        administration: Duration::from_secs(30),
        connect: Duration::from_secs(10),
        ..Bounds::default()
    }
}

fn open(url: &str, replica: Option<&str>, bounds: Bounds, clock: Clock) -> Postgres {
    let settings = Settings::parse(url, replica, None, bounds).unwrap();
    Postgres::connect(settings, Reactor::start().unwrap(), clock)
}

/// Migrates, from outside of the runtime of the test.
fn migrated(server: &Server, database: &str) {
    let store = open(&server.url(database), None, patient(), Clock::system());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let events = tokio::runtime::Builder::new_current_thread().enable_all().build();
            events.unwrap().block_on(migrate::apply(&store)).unwrap();
        });
    });
}

impl Place for Database {
    type Store = Postgres;

    const DATES_CHANGES: bool = false;

    fn empty() -> Self {
        let database = shared().database();
        migrated(shared(), &database);
        Self { url: shared().url(&database), reactor: Reactor::start().unwrap() }
    }

    fn open(&self, clock: Clock) -> Postgres {
        let settings = Settings::parse(&self.url, None, None, patient()).unwrap();
        Postgres::connect(settings, Arc::clone(&self.reactor), clock)
    }
}

#[path = "postgres_bound.rs"]
mod bound;
#[path = "postgres_drills.rs"]
mod drills;
#[path = "postgres_schema.rs"]
mod schema;
#[path = "postgres_trust.rs"]
mod trust;
