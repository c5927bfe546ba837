//! Makes the stores that the configuration names, and waits until they answer.

use crate::auth::Outage;
use crate::config::{Config, PostgresDef, RedisDef, StoreDef};
use crate::stores::postgres::{self, Bounds};
use crate::stores::redis;
use crate::stores::{Embedded, Postgres, Reactor, Redis, Store};
use crate::telemetry::Clock;
use anyhow::Context as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a store may take until it answers for the first time: a database that fails over is back
/// by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions to a store that does not answer yet.
const PAUSE: Duration = Duration::from_millis(500);

/// What a process keeps its knowledge in.
pub(super) struct Stores {
    /// Consumers and keys, plans and policies, usage.
    pub(super) store: Arc<dyn Store>,
    /// The same once more, where it is PostgreSQL: its pools have counts.
    pub(super) postgres: Option<Arc<Postgres>>,
    /// What the tasks of a fleet share besides.
    pub(super) redis: Option<Arc<Redis>>,
}

impl Stores {
    /// Opens what `config` names, without waiting for a server.
    pub(super) fn open(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let reactor = Reactor::start().context("no thread for the drivers of stores")?;
        let redis = match &config.fixed.redis {
            Some(wanted) => Some(open_redis(wanted, &reactor)?),
            None => None,
        };
        Ok(match &config.fixed.store {
            StoreDef::Embedded { path } => {
                Self { store: open_file(path, clock)?, postgres: None, redis }
            }
            StoreDef::Postgres(wanted) => {
                let postgres = Arc::new(open_postgres(wanted, reactor, clock)?);
                Self { store: Arc::<Postgres>::clone(&postgres), postgres: Some(postgres), redis }
            }
        })
    }

    /// Where the store is.
    fn place(&self) -> &str {
        self.postgres.as_ref().map_or("the file", |postgres| postgres.place())
    }

    /// Waits until the store answers a question that a start depends on.
    pub(super) async fn wait_for<T>(
        &self,
        clock: &Clock,
        ask: impl AsyncFn() -> Result<T, Outage>,
    ) -> anyhow::Result<T> {
        let began = clock.now();
        let mut told = false;
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(outage) if clock.now().since(began) >= PATIENCE => {
                    let place = self.place();
                    return Err(anyhow::Error::new(outage).context(format!(
                        "the store at `{place}` did not say within {} s what it knows; the log says \
                         why: look for locks and for a migration under way",
                        PATIENCE.as_secs()
                    )));
                }
                Err(outage) => {
                    if !std::mem::replace(&mut told, true) {
                        log::warn!(store = self.place(), reason = outage.as_str();
                            "waiting for the store");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits until the store answers and has the right schema.
    pub(super) async fn wait_for_schema(&self, clock: &Clock) -> anyhow::Result<()> {
        let Some(postgres) = &self.postgres else { return Ok(()) };
        let began = clock.now();
        let mut told = false;
        while let Err(error) = postgres.check_schema().await {
            if !error.may_pass() || clock.now().since(began) >= PATIENCE {
                return Err(error.into());
            }
            if !std::mem::replace(&mut told, true) {
                log::warn!(error:% = error; "waiting for the store");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Opens the store's file; one that has to be made knows nobody, which the operator should hear of.
fn open_file(path: &Path, clock: &Clock) -> anyhow::Result<Arc<dyn Store>> {
    let known = path.exists();
    let store = Embedded::open(path, clock.clone())?;
    if !known {
        log::warn!(path:% = path.display(); "made a new, empty store");
    }
    Ok(Arc::new(store))
}

/// PostgreSQL as a configuration names it. It is connected to when it is first asked.
///
/// # Errors
/// What is wrong with its URL, and what to do about it.
pub fn open_postgres(
    wanted: &PostgresDef,
    reactor: Arc<Reactor>,
    clock: &Clock,
) -> anyhow::Result<Postgres> {
    let bounds = Bounds {
        connections: u32::try_from(wanted.pool.get()).unwrap_or(u32::MAX),
        look_ups_per_second: wanted.lookups_per_second.get(),
        ..Bounds::default()
    };
    let replica = wanted.replica_url.as_ref().map(|url| url.expose());
    let settings =
        postgres::Settings::parse(wanted.url.expose(), replica, wanted.ca.as_deref(), bounds)?;
    Ok(Postgres::connect(settings, reactor, clock.clone()))
}

fn open_redis(wanted: &RedisDef, reactor: &Arc<Reactor>) -> anyhow::Result<Arc<Redis>> {
    let settings = redis::Settings::parse(wanted.url.expose(), wanted.ca.as_deref())?;
    Ok(Redis::connect(settings, Arc::clone(reactor)))
}
