//! What a command that administers works with: the configuration, the store that it names, and who
//! gives the command.
//!
//! Must stay true: only a command that adds the first consumer makes a store; the others make nothing,
//! since a gateway whose store is away for a while must not find an empty one in its place.

use super::ledger::{FileNames, Ledger};
use crate::auth::registry::Actor;
use crate::config::{self, Config, PostgresDef, Report, SecretFiles, StoreDef};
use crate::server;
use crate::stores::{Embedded, Postgres, Reactor, Store};
use crate::telemetry::Clock;
use anyhow::Context as _;
use nix::unistd::{User, gethostname, getuid};
use std::path::Path;
use std::sync::Arc;

/// What to do where there is no store yet.
#[derive(Clone, Copy)]
pub(super) enum Absent {
    Make,
    Refuse,
}

/// What a command works with.
pub(super) struct Office {
    pub(super) config: Config,
    names: FileNames,
    store: Arc<dyn Store>,
    actor: Actor,
    clock: Clock,
    json: bool,
    out: std::io::Stdout,
    err: std::io::Stderr,
}

impl Office {
    pub(super) fn ledger(&mut self) -> Ledger<'_> {
        Ledger {
            store: &*self.store,
            actor: &self.actor,
            names: &self.names,
            clock: &self.clock,
            json: self.json,
            out: &mut self.out,
            err: &mut self.err,
        }
    }
}

/// Opens the store that the configuration names and does `work` on it. Gateways that run on the same
/// store take notice by themselves.
pub(super) fn administrate(
    conf: &Path,
    absent: Absent,
    json: bool,
    work: impl AsyncFnOnce(&mut Office) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (config, store) = open(conf, absent, clock.clone()).await?;
        let mut office = Office {
            names: FileNames::of(&config),
            config,
            store,
            actor: actor(),
            clock,
            json,
            out: std::io::stdout(),
            err: std::io::stderr(),
        };
        work(&mut office).await
    })
}

/// The configuration, without a secret being made.
pub(super) fn load(conf: &Path) -> anyhow::Result<Config> {
    load_with(conf, SecretFiles::Leave)
}

/// Only the store that the configuration names, without the secrets that a gateway needs.
pub(super) fn load_store(conf: &Path) -> anyhow::Result<StoreDef> {
    config::load_store(conf).map_err(|report| unusable(&report))
}

/// The configuration and its store: the one place that knows which kinds of stores there are.
async fn open(
    conf: &Path,
    absent: Absent,
    clock: Clock,
) -> anyhow::Result<(Config, Arc<dyn Store>)> {
    let config = load(conf)?;
    match config.fixed.store.clone() {
        StoreDef::Embedded { path } => match absent {
            Absent::Make => open_or_make(conf, config, &path, clock),
            Absent::Refuse => open_existing(conf, &path, clock),
        },
        StoreDef::Postgres(wanted) => {
            let postgres = open_postgres(&wanted, &clock)?;
            postgres.check_schema().await?;
            Ok((config, Arc::new(postgres)))
        }
    }
}

/// PostgreSQL as the configuration names it, whatever is in it.
pub(super) fn open_postgres(wanted: &PostgresDef, clock: &Clock) -> anyhow::Result<Postgres> {
    let reactor = Reactor::start().context("no thread for the driver of PostgreSQL")?;
    server::open_postgres(wanted, reactor, clock)
}

/// Makes nothing: a secret that a running gateway has lost must not come back as another one.
fn open_existing(
    conf: &Path,
    path: &Path,
    clock: Clock,
) -> anyhow::Result<(Config, Arc<dyn Store>)> {
    let store = Embedded::open_existing(path, clock)?;
    // Another command may have made the store, and its pepper, after the first look at them.
    Ok((load(conf)?, Arc::new(store)))
}

/// Makes the store where there is none, and secrets only for a store that is made.
fn open_or_make(
    conf: &Path,
    mut config: Config,
    path: &Path,
    clock: Clock,
) -> anyhow::Result<(Config, Arc<dyn Store>)> {
    if !path.exists() {
        config = load_with(conf, SecretFiles::Create)?;
    }
    let store = Embedded::open(path, clock)?;
    Ok((config, Arc::new(store)))
}

fn load_with(conf: &Path, secrets: SecretFiles) -> anyhow::Result<Config> {
    config::load(conf, secrets).map(|loaded| loaded.config).map_err(|report| unusable(&report))
}

fn unusable(report: &Report) -> anyhow::Error {
    anyhow::anyhow!("the configuration is not usable\n{report}")
}

/// `cli:<user>@<host>`, as the system knows them; what an environment says anybody can write.
fn actor() -> Actor {
    let id = getuid();
    // A container often has a user without a name.
    let user = User::from_uid(id).ok().flatten().map_or_else(|| id.to_string(), |user| user.name);
    let host = gethostname().ok().map(|name| name.to_string_lossy().into_owned());
    Actor::named(&format!("cli:{user}@{}", host.as_deref().unwrap_or("localhost")))
}
