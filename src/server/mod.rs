//! The composition root: the only place that makes stores, limiter, listeners and tasks, and the
//! order in which a process starts and ends.
//!
//! Must stay true: no listener is open before the first snapshot and the first look at the store's
//! changes; nothing that a request was promised is lost at the end.

mod cloudwatch;
mod crew;
mod operator;
mod readings;
mod stores;

pub use stores::open_postgres;

use crate::auth::api_key::KeyForm;
use crate::auth::directory::{self, Source};
use crate::auth::{Directory, RemoteKeySets, TokenCache};
use crate::config::{self, Config, Loaded, SecretFiles};
use crate::limits::usage::UsageLog;
use crate::limits::{Addresses, Limiter};
use crate::proxy::filter::{Chain, Filters};
use crate::proxy::{Drain, Phase};
use crate::runtime::{self, EndSignals, Ending, Signals};
use crate::snapshot::{Live, Parts, Snapshot};
use crate::stores::Store;
use crate::stores::cached::Cached;
use crate::stores::redis::SharedRows;
use crate::tasks::key_uses::KeyUses;
use crate::tasks::publish::Publisher;
use crate::tasks::reload::Reload;
use crate::tasks::usage::Flush;
use crate::tasks::watch::{FileWatch, WatchError};
use crate::tasks::{feed, health, jwks, rows};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{AccessLog, Clock};
use crate::upstreams::Registry;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use stores::Stores;
use tokio::task::JoinSet;

/// How long the feed of changes may say nothing, beyond its own interval, before it counts as silent.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// Verified tokens kept in memory.
const TOKENS: usize = 100_000;
/// How long the last metrics may take to be published at the end.
const PUBLISH: Duration = Duration::from_secs(2);
/// How long a start waits for the keys of issuers: tokens get 503 where none have come.
const KEYS: Duration = Duration::from_millis(3500);
/// How long the store may take to be handed the last usage at the end.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How long logs may take to be written at the end.
const FLUSH: Duration = Duration::from_secs(1);

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder with the configuration.
    pub conf: PathBuf,
    /// What requests meet beside what the configuration says.
    pub filters: Filters,
}

/// A process that answers.
pub struct Ready {
    /// What it runs with.
    pub config: Config,
    /// Consumers and keys.
    pub store: Arc<dyn Store>,
    /// Public listeners by name, with their real ports.
    pub listeners: BTreeMap<Arc<str>, SocketAddr>,
    /// The operator's listener.
    pub admin: Option<SocketAddr>,
}

/// Everything that runs in one process.
struct Process {
    live: Arc<Live>,
    parts: Parts,
    filters: Chain,
    drain: Arc<Drain>,
    access_log: AccessLog,
    stores: Stores,
    publisher: Arc<Publisher>,
    usage: Arc<Flush>,
    key_uses: Arc<KeyUses>,
    cloudwatch: Option<cloudwatch::Publisher>,
}

/// Runs a gateway until a signal ends it. `on_ready` is called once it answers.
///
/// # Errors
/// What keeps it from starting, with what to do about it.
pub fn run(
    options: &Options,
    on_ready: impl AsyncFnOnce(&Ready) -> anyhow::Result<()>,
) -> anyhow::Result<Ending> {
    event_loop()?.block_on(serve(options, on_ready))
}

/// One worker's event loop.
fn event_loop() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()
}

async fn serve(
    options: &Options,
    on_ready: impl AsyncFnOnce(&Ready) -> anyhow::Result<()>,
) -> anyhow::Result<Ending> {
    let (hangup, mut end) = Signals::take().context("signals cannot be handled")?.split();
    let (loaded, watch) = load(&options.conf)?;
    let open_files = runtime::raise_open_files();
    let connections = loaded.config.http.max_connections;
    let (fixed, watched) = (loaded.config.fixed.clone(), loaded.watched.clone());
    let mut process = tokio::select! {
        built = Process::build(loaded, &options.filters) => built?,
        () = end.next() => {
            log::info!("a signal ends the process before it was ready");
            return Ok(Ending::Idle);
        }
    };
    let workers = fixed.workers.unwrap_or_else(runtime::granted_cpus);
    let bound = runtime::bind(&fixed.listeners, workers, &process.live)?;
    let admin = fixed.admin.address.map(runtime::bind_admin).transpose()?;
    let operator = fixed.admin.clone();

    let mut tasks = JoinSet::new();
    process.publish(&fixed.cloudwatch)?;
    process.follow_store(&mut tasks);
    process.probe(&mut tasks);
    process.fetch_keys(&mut tasks).await;
    let (live, drain) = (Arc::clone(&process.live), Arc::clone(&process.drain));
    tasks.spawn(runtime::watch_memory(live, drain));
    let reload = Reload::new(
        options.conf.clone(),
        fixed,
        Arc::clone(&process.publisher),
        watch,
        watched,
        hangup,
    );
    tasks.spawn(reload.run());
    let ready = Ready {
        config: process.live.load().config.clone(),
        store: Arc::clone(&process.stores.store),
        listeners: bound.iter().map(|one| (Arc::clone(&one.name), one.address)).collect(),
        admin: admin.as_ref().and_then(|listener| listener.local_addr().ok()),
    };
    if let Some(listener) = admin {
        process.administrate(listener, &operator, &mut tasks);
    }
    let mut crew = process.work(runtime::deal(bound, workers, &process.drain))?;
    on_ready(&ready).await?;
    check_open_files(open_files, connections);
    let addresses: Vec<_> =
        ready.listeners.iter().map(|(name, address)| format!("{name}={address}")).collect();
    log::info!(version = env!("CARGO_PKG_VERSION"), conf:% = options.conf.display(),
        listeners = addresses.join(" "), workers = workers.get(), revision = 1;
        "gateway is ready");
    process.until_the_end(&mut end, &mut crew).await
}

/// Loads the configuration and watches its files, without a moment between the two in which a
/// change could be missed.
fn load(conf: &Path) -> anyhow::Result<(Loaded, Option<FileWatch>)> {
    let unwatched = |error: &WatchError| {
        log::error!(error:% = error; "only SIGHUP reloads the configuration");
    };
    let mut watch = FileWatch::start(&[conf.to_path_buf()]).inspect_err(unwatched).ok();
    let loaded = config::load(conf, SecretFiles::Create)
        .map_err(|report| anyhow::anyhow!("the configuration is not usable\n{report}"))?;
    for path in &loaded.created {
        log::warn!(path:% = path.display(); "made a new secret");
    }
    if let Some(Err(error)) = watch.as_mut().map(|watch| watch.update(&loaded.watched)) {
        log::error!(error:% = error; "a file of the configuration is not watched");
    }
    Ok((loaded, watch))
}

/// Says when so many connections can need more open files than there may be.
fn check_open_files(limit: u64, connections: usize) {
    let needed = runtime::open_files_for(connections);
    if limit < needed {
        log::warn!(limit = limit, needed = needed, max_connections = connections;
            "fewer open files than http.max_connections can need: raise the limit (ulimit -n), or lower it");
    }
}

/// What outlives snapshots.
fn parts(config: &Config, stores: &Stores, clock: Clock, metrics: Arc<Metrics>) -> Parts {
    let (cache, form) = (config.fixed.cache, KeyForm::new(&config.api_key));
    let store = Arc::clone(&stores.store);
    let source: Arc<dyn Source> = match &stores.redis {
        Some(redis) => {
            let secret = form.derive("datahub-gateway cache");
            let rows = Arc::new(SharedRows::new(Arc::clone(redis)));
            Arc::new(Cached::new(Arc::clone(&store) as _, rows, &secret, cache.redis_ttl))
        }
        None => Arc::clone(&store) as _,
    };
    let settings = directory::Settings {
        known: cache.keys.get(),
        unknown: cache.unknown_keys.get(),
        stale_for: cache.stale_for,
        // Two polls may be missed.
        silent_after: SILENT_AFTER + 2 * store.poll_interval(),
    };
    let secret = form.derive("datahub-gateway limits");
    let secret = secret.first_chunk().copied().unwrap_or_default();
    let fleet = stores.redis.clone().map(|redis| redis as _);
    let log: Option<Arc<dyn UsageLog>> = Some(Arc::clone(&store) as _);
    Parts {
        limiter: Limiter::with_stores(clock.clone(), &secret, fleet, log),
        // Of the process alone: nobody can know which addresses are counted together.
        addresses: Addresses::new(clock.clone(), &rand::random()),
        registry: Registry::new(clock.clone()),
        directory: Arc::new(Directory::with_settings(source, settings, clock.clone())),
        tokens: Arc::new(TokenCache::new(TOKENS)),
        issuer_keys: Arc::new(RemoteKeySets::new(clock.clone())),
        tally: Arc::default(),
        metrics,
        clock,
    }
}

impl Process {
    /// Makes everything that outlives a snapshot, learns what the store knows, and builds the first
    /// snapshot.
    async fn build(loaded: Loaded, filters: &Filters) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let metrics = Metrics::new();
        let filters = filters.chain(&metrics, &clock)?;
        let config = &loaded.config;
        let stores = Stores::open(config, &clock)?;
        let parts = parts(config, &stores, clock, Arc::clone(&metrics));
        if !loaded.warnings.is_empty() {
            log::warn!(warnings:% = loaded.warnings; "the configuration has warnings");
        }
        stores.wait_for_schema(&parts.clock).await?;
        let look = async || {
            feed::first_look(&*stores.store, &parts.directory, &parts.clock).await?;
            rows::load(&*stores.store, &config.api_key.header).await
        };
        let rows = stores.wait_for(&parts.clock, look).await?;
        let access_log = AccessLog::stdout(&metrics)?;
        let expected = config.fixed.fleet.expected;
        let live = Live::new(Snapshot::build(loaded.config, Arc::new(rows), &parts, 1)?);
        metrics.reload_succeeded(1);
        let usage = Flush::new(Arc::clone(&stores.store), &parts, expected);
        let key_uses = KeyUses::new(
            Arc::clone(&stores.store) as _,
            Arc::clone(&parts.directory),
            Arc::clone(&metrics),
        );
        let publisher = Publisher::new(Arc::clone(&live), parts.clone());
        let drain = Drain::new();
        let cloudwatch = None;
        Ok(Self {
            live,
            parts,
            filters,
            drain,
            access_log,
            stores,
            publisher,
            usage,
            key_uses,
            cloudwatch,
        })
    }

    /// Follows what the store says from here on.
    fn follow_store(&self, tasks: &mut JoinSet<()>) {
        let parts = &self.parts;
        let changed = Arc::<rows::Notice>::default();
        // What changed since the rows were read is not told again.
        changed.give();
        tasks.spawn(feed::run(
            Arc::clone(&self.stores.store),
            Arc::clone(&parts.directory),
            parts.clock.clone(),
            Arc::clone(&parts.metrics),
            Arc::clone(&changed),
        ));
        let store = Arc::clone(&self.stores.store);
        tasks.spawn(rows::run(store, Arc::clone(&self.publisher), changed));
        tasks.spawn(Arc::clone(&self.usage).run());
        tasks.spawn(Arc::clone(&self.key_uses).run());
    }

    fn probe(&self, tasks: &mut JoinSet<()>) {
        let (live, drain) = (Arc::clone(&self.live), Arc::clone(&self.drain));
        tasks.spawn(health::probe(
            move || live.load().upstreams.clone(),
            self.parts.clock.clone(),
            async move { drain.reached(Phase::Closing).await },
        ));
    }

    /// Fetches the keys of issuers from here on, and waits for the first ones.
    async fn fetch_keys(&self, tasks: &mut JoinSet<()>) {
        let keys = &self.parts.issuer_keys;
        tasks.spawn(jwks::run(Arc::clone(keys), self.parts.clock.clone()));
        keys.first_look(KEYS).await;
    }

    async fn until_the_end(
        &mut self,
        end: &mut EndSignals,
        crew: &mut JoinSet<std::io::Result<()>>,
    ) -> anyhow::Result<Ending> {
        tokio::select! {
            () = end.next() => {}
            Some(ended) = crew.join_next() => ended?.context("a worker cannot serve")?,
        }
        let times = self.live.load().config.drain;
        let (requests, connections) = (self.drain.requests(), self.drain.connections());
        log::info!(requests = requests, connections = connections,
            announce_seconds = times.announce.as_secs_f64(),
            deadline_seconds = times.deadline.as_secs_f64(); "draining");
        let ending = runtime::drain(&self.drain, times, end).await;
        match ending {
            Ending::Idle => log::info!("drained"),
            Ending::Deadline => {
                let left = self.drain.requests();
                log::warn!(requests = left; "drain deadline passed, requests are cut off");
            }
            Ending::Signal => log::warn!("a second signal ends the process at once"),
        }
        // A flush that is cut off, or fails, leaves what it could not hand over.
        let usage = tokio::time::timeout(HAND_OVER, self.usage.flush());
        let key_uses = tokio::time::timeout(HAND_OVER, self.key_uses.flush());
        drop(tokio::join!(usage, key_uses, finish(self.cloudwatch.take())));
        self.usage.tell_lost();
        if let Err(error) = self.access_log.flush_and_close(FLUSH) {
            log::warn!(error:% = error; "the access log is incomplete");
        }
        Ok(ending)
    }
}

/// Publishes what was counted last.
async fn finish(publisher: Option<cloudwatch::Publisher>) {
    if let Some(publisher) = publisher
        && !publisher.finish(PUBLISH).await
    {
        log::warn!("the last metrics may not have reached CloudWatch");
    }
}
