//! The composition root: the only place that makes stores, limiter, listeners and tasks, and the
//! order in which a process starts and ends.
//!
//! Must stay true: no listener is open before the first snapshot and the first look at the store's
//! changes; nothing that a request was promised is lost at the end.

use crate::admin::{self, AdminState};
use crate::auth::{Directory, TokenCache};
use crate::config::{self, Config, Loaded, SecretFiles};
use crate::limits::Limiter;
use crate::proxy::{Connections, Drain, Gateway, Phase};
use crate::runtime::{self, EndSignals, Ending, Serving, Signals, Worker};
use crate::snapshot::{Live, Parts, Snapshot};
use crate::stores::embedded::Embedded;
use crate::tasks::reload::Reload;
use crate::tasks::watch::{FileWatch, WatchError};
use crate::tasks::{feed, health};
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::{AccessLog, Clock};
use crate::upstreams::Registry;
use anyhow::Context as _;
use pingora_core::server::configuration::ServerConf;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Verified tokens kept in memory.
const TOKENS: usize = 100_000;
/// How long logs may take to be written at the end.
const FLUSH: Duration = Duration::from_secs(1);

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder with the configuration.
    pub conf: PathBuf,
}

/// A process that answers.
pub struct Ready {
    /// What it runs with.
    pub config: Config,
    /// Consumers and keys.
    pub store: Arc<Embedded>,
    /// Public listeners by name, with their real ports.
    pub listeners: BTreeMap<Arc<str>, SocketAddr>,
    /// The operator's listener.
    pub admin: Option<SocketAddr>,
}

/// Everything that runs in one process.
struct Process {
    live: Arc<Live>,
    parts: Parts,
    drain: Arc<Drain>,
    access_log: AccessLog,
    store: Arc<Embedded>,
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
    let process = Process::build(loaded)?;
    let workers = fixed.workers.unwrap_or_else(runtime::granted_cpus);
    let bound = runtime::bind(&fixed.listeners, workers, &process.live)?;
    let admin = fixed.admin.map(runtime::bind_admin).transpose()?;

    let mut tasks = JoinSet::new();
    process.follow_store(&mut tasks).await?;
    process.probe(&mut tasks);
    let reload = Reload::new(
        options.conf.clone(),
        fixed,
        Arc::clone(&process.live),
        process.parts.clone(),
        watch,
        watched,
        hangup,
    );
    tasks.spawn(reload.run());
    let ready = Ready {
        config: process.live.load().config.clone(),
        store: Arc::clone(&process.store),
        listeners: bound.iter().map(|one| (Arc::clone(&one.name), one.address)).collect(),
        admin: admin.as_ref().and_then(|listener| listener.local_addr().ok()),
    };
    if let Some(listener) = admin {
        process.administrate(listener, &mut tasks);
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

/// Opens the store; one that has to be made knows nobody, which the operator should hear of.
fn open_store(path: &Path, clock: &Clock) -> anyhow::Result<Arc<Embedded>> {
    let known = path.exists();
    let store = Embedded::open(path, clock.clone())?;
    if !known {
        log::warn!(path:% = path.display(); "made a new, empty store");
    }
    Ok(Arc::new(store))
}

impl Process {
    fn build(loaded: Loaded) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let metrics = Metrics::new();
        let store = open_store(&loaded.config.fixed.store_path, &clock)?;
        let parts = Parts {
            limiter: Limiter::new(clock.clone(), &rand::random()),
            registry: Registry::new(clock.clone()),
            directory: Arc::new(Directory::new(Arc::clone(&store) as _, clock.clone())),
            tokens: Arc::new(TokenCache::new(TOKENS)),
            metrics: Arc::clone(&metrics),
            clock,
        };
        if !loaded.warnings.is_empty() {
            log::warn!(warnings:% = loaded.warnings; "the configuration has warnings");
        }
        let access_log = AccessLog::stdout(&metrics)?;
        let live = Live::new(Snapshot::build(loaded.config, &parts, 1)?);
        metrics.reload_succeeded(1);
        Ok(Self { live, parts, drain: Drain::new(), access_log, store })
    }

    /// Learns where the store stands, and follows its changes from there.
    async fn follow_store(&self, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
        let parts = &self.parts;
        feed::first_look(&*self.store, &parts.directory, &parts.clock)
            .await
            .context("the store does not answer")?;
        tasks.spawn(feed::run(
            Arc::clone(&self.store) as _,
            Arc::clone(&parts.directory),
            parts.clock.clone(),
            Arc::clone(&parts.metrics),
        ));
        Ok(())
    }

    fn probe(&self, tasks: &mut JoinSet<()>) {
        let (live, drain) = (Arc::clone(&self.live), Arc::clone(&self.drain));
        tasks.spawn(health::probe(
            move || live.load().upstreams.clone(),
            self.parts.clock.clone(),
            async move { drain.reached(Phase::Closing).await },
        ));
    }

    fn administrate(&self, listener: TcpListener, tasks: &mut JoinSet<()>) {
        let (drain, live) = (Arc::clone(&self.drain), Arc::clone(&self.live));
        let (counts, limiter) = (Arc::clone(&self.drain), Arc::clone(&self.parts.limiter));
        let (seen, began) = (Arc::clone(&self.live), self.parts.clock.now());
        let clock = self.parts.clock.clone();
        let state = AdminState {
            metrics: Arc::clone(&self.parts.metrics),
            ready: Arc::new(move || if drain.begun() { Err("draining") } else { Ok(()) }),
            before_scrape: Arc::new(move |metrics| {
                metrics.set_live(metrics::Live {
                    connections: counts.connections(),
                    requests_in_flight: counts.requests(),
                    limiter_overflow: limiter.overflowed(),
                    endpoints: endpoints(&live.load()),
                });
            }),
            detail: Arc::new(move || {
                let snapshot = seen.load();
                json!({
                    "version": env!("CARGO_PKG_VERSION"),
                    "revision": snapshot.revision,
                    "uptime_seconds": clock.now().since(began).as_secs(),
                    "endpoints": endpoints(&snapshot).iter().map(|endpoint| json!({
                        "upstream": &*endpoint.upstream,
                        "endpoint": endpoint.endpoint,
                        "up": endpoint.up,
                    })).collect::<Vec<_>>(),
                })
            }),
        };
        tasks.spawn(async move {
            // It answers until the process ends: the drain is to be seen on it.
            if let Err(error) = admin::serve(listener, state, std::future::pending()).await {
                log::error!(error:% = error; "the admin listener failed");
            }
        });
    }

    /// Starts the workers: the first on this thread, each further one on a thread of its own.
    fn work(&self, workers: Vec<Worker>) -> anyhow::Result<JoinSet<std::io::Result<()>>> {
        let mut crew = JoinSet::new();
        for (number, worker) in workers.into_iter().enumerate() {
            let (connections, serving) = (self.connections(), self.serving());
            if number == 0 {
                crew.spawn(worker.serve(connections(), serving));
                continue;
            }
            let (ended, end) = tokio::sync::oneshot::channel();
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let served = event_loop().and_then(|events| {
                        events.block_on(async { worker.serve(connections(), serving).await })
                    });
                    // Nobody listens once the process is ending anyway.
                    drop(ended.send(served));
                })
                .context("a worker's thread cannot be started")?;
            crew.spawn(async move { end.await.unwrap_or(Ok(())) });
        }
        Ok(crew)
    }

    fn serving(&self) -> Serving {
        Serving {
            drain: Arc::clone(&self.drain),
            live: Arc::clone(&self.live),
            metrics: Arc::clone(&self.parts.metrics),
        }
    }

    /// Makes a worker's proxy on that worker's own thread, because the pool of upstream
    /// connections belongs to its event loop.
    fn connections(&self) -> impl FnOnce() -> Connections + Send + 'static {
        let gateway = Gateway {
            live: Arc::clone(&self.live),
            parts: self.parts.clone(),
            drain: Arc::clone(&self.drain),
            access_log: self.access_log.clone(),
        };
        let (drain, parts) = (Arc::clone(&self.drain), self.parts.clone());
        move || {
            let conf = ServerConf {
                threads: 1,
                work_stealing: false,
                upstream_keepalive_pool_size: 4096,
                // The first try and at most two more; `upstreams::retry` decides.
                max_retries: 3,
                ..ServerConf::default()
            };
            let proxy = pingora_proxy::http_proxy(&Arc::new(conf), gateway);
            Connections::new(proxy, &drain, &parts)
        }
    }

    async fn until_the_end(
        &self,
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
        if let Err(error) = self.access_log.flush_and_close(FLUSH) {
            log::warn!(error:% = error; "the access log is incomplete");
        }
        Ok(ending)
    }
}

fn endpoints(snapshot: &Snapshot) -> Vec<metrics::LiveEndpoint> {
    snapshot
        .upstreams
        .iter()
        .flat_map(|upstream| {
            upstream.states().map(|(label, state)| metrics::LiveEndpoint {
                upstream: Arc::clone(upstream.name()),
                endpoint: label.to_string(),
                up: state.up(),
            })
        })
        .collect()
}
