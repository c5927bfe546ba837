//! What the operator's listener tells of a process, and lets be changed.

use super::Process;
use super::readings;
use crate::admin::api::{ApiState, Fault, Origin, Ports, Tokens};
use crate::admin::{self, AdminState};
use crate::auth::api_key::KeyForm;
use crate::auth::documents::DocumentKind;
use crate::config::{self, AdminDef};
use crate::snapshot::{self, Snapshot};
use crate::telemetry::metrics::{self, Metric, Reading};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::Arc;
use tokio::task::JoinSet;

impl Process {
    /// Answers on `listener` until the process ends.
    pub(super) fn administrate(
        &self,
        listener: TcpListener,
        wanted: &AdminDef,
        tasks: &mut JoinSet<()>,
    ) {
        let drain = Arc::clone(&self.drain);
        let state = AdminState {
            metrics: Arc::clone(&self.parts.metrics),
            ready: Arc::new(move || if drain.begun() { Err("draining") } else { Ok(()) }),
            before_scrape: self.before_scrape(),
            detail: self.detail(),
            api: self.api(wanted),
        };
        tasks.spawn(async move {
            // It answers until the process ends: the drain is to be seen on it.
            if let Err(error) = admin::serve(listener, state, std::future::pending()).await {
                log::error!(error:% = error; "the admin listener failed");
            }
        });
    }

    fn before_scrape(&self) -> Arc<admin::BeforeScrape> {
        let (live, drain) = (Arc::clone(&self.live), Arc::clone(&self.drain));
        let (limiter, directory) =
            (Arc::clone(&self.parts.limiter), Arc::clone(&self.parts.directory));
        let (postgres, redis) = (self.stores.postgres.clone(), self.stores.redis.clone());
        let tally = Arc::clone(&self.parts.tally);
        let issuer_keys = Arc::clone(&self.parts.issuer_keys);
        Arc::new(move |metrics| {
            let snapshot = live.load();
            metrics.set_live(metrics::Live {
                connections: drain.connections(),
                requests_in_flight: drain.requests(),
                limiter_overflow: limiter.overflowed(),
                endpoints: endpoints(&snapshot),
            });
            let mut all = Vec::new();
            readings::of_directory(directory.vitals(), &mut all);
            readings::of_issuer_keys(issuer_keys.vitals(), &mut all);
            readings::of_limits(limiter.vitals(), &mut all);
            if let Some(postgres) = &postgres {
                readings::of_postgres(postgres.vitals(), &mut all);
            }
            if let Some(redis) = &redis {
                readings::of_redis(redis.vitals(), &mut all);
            }
            all.push(Reading::new(Metric::UsageLost, &[], tally.lost()));
            metrics.set_readings(all);
        })
    }

    fn detail(&self) -> Arc<admin::Detail> {
        let (live, clock) = (Arc::clone(&self.live), self.parts.clock.clone());
        let (limiter, redis) = (Arc::clone(&self.parts.limiter), self.stores.redis.clone());
        let (directory, began) = (Arc::clone(&self.parts.directory), clock.now());
        Arc::new(move || {
            let snapshot = live.load();
            let confirmed = directory.confirmed_at().map(|at| clock.now().since(at).as_secs_f64());
            json!({
                "store": { "confirmed_seconds_ago": confirmed },
                "redis": redis.as_ref().map(|redis| json!({ "up": redis.vitals().up })),
                "limits": { "degraded": limiter.vitals().degraded },
                "version": env!("CARGO_PKG_VERSION"),
                "revision": snapshot.revision,
                "uptime_seconds": clock.now().since(began).as_secs(),
                "endpoints": endpoints(&snapshot).iter().map(|endpoint| json!({
                    "upstream": &*endpoint.upstream,
                    "endpoint": endpoint.endpoint,
                    "up": endpoint.up,
                })).collect::<Vec<_>>(),
            })
        })
    }

    /// The API; `None` without a token.
    fn api(&self, wanted: &AdminDef) -> Option<ApiState> {
        let secret = |token: &config::AdminToken| {
            (token.name.to_string(), token.token.expose().as_bytes().to_vec())
        };
        let clock = self.parts.clock.clone();
        let tokens = Tokens::new(wanted.tokens.iter().map(secret).collect(), clock.clone())?;
        let (form, named, believed) =
            (Arc::clone(&self.live), Arc::clone(&self.live), Arc::clone(&self.live));
        let checking = Arc::clone(&self.live);
        Some(ApiState {
            ports: Ports::of(&self.stores.store),
            tokens,
            clock,
            key_form: Arc::new(move || KeyForm::new(&form.load().config.api_key)),
            check_document: Arc::new(move |kind, name, body| {
                check(&checking.load(), kind, name, body)
            }),
            in_force: Arc::new(move |kind| in_force(&named.load(), kind)),
            issuers: Arc::new(move || believed.load().config.credential_issuers()),
        })
    }
}

/// Compiles a plan or policy as if it were put in force now.
fn check(
    snapshot: &Snapshot,
    kind: DocumentKind,
    name: &str,
    body: &Value,
) -> Result<(), Vec<Fault>> {
    let key_header = &snapshot.config.api_key.header;
    let faults = config::faults_of_row(kind, name, body, key_header).into_iter();
    let faults: Vec<Fault> = faults.map(|(pointer, message)| Fault { pointer, message }).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn in_force(snapshot: &Snapshot, kind: DocumentKind) -> Vec<(Arc<str>, Origin)> {
    let entry = |(name, origin): (&Arc<str>, snapshot::Origin)| {
        let origin = match origin {
            snapshot::Origin::Files => Origin::File,
            snapshot::Origin::Row => Origin::Row,
        };
        (Arc::clone(name), origin)
    };
    match kind {
        DocumentKind::Plan => snapshot.plan_names().map(entry).collect(),
        DocumentKind::Policy => snapshot.policy_names().map(entry).collect(),
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
