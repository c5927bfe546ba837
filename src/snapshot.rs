//! Everything a request decides by, compiled from [`Config`] and swapped as a whole.
//!
//! A request loads one [`Snapshot`] and keeps it to its end, so it never sees half of a reload.
//! What must survive a reload (counters, endpoint health, caches) lives in [`Parts`] and is only
//! referred to from here.
//!
//! Must stay true: [`Live`] is the only cell; nothing here changes after [`Snapshot::build`].

use crate::auth::{Authenticator, Caller, Directory, Method, Requirement, TokenCache};
use crate::config::{ActionDef, Config, Http, RouteDef};
use crate::limits::{Limiter, RuleSet};
use crate::routing::{CorsPolicy, Rewrite, Routes};
use crate::telemetry::Clock;
use crate::telemetry::metrics::{Metrics, RouteMetrics, RuleMetrics, UpstreamMetrics};
use crate::upstreams::{BuildError, Registry, Timeouts, Upstream};
use arc_swap::ArcSwap;
use http::HeaderValue;
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

/// What outlives every snapshot.
#[derive(Clone)]
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// Counters of all rules.
    pub limiter: Arc<Limiter>,
    /// Endpoint state of all upstreams.
    pub registry: Arc<Registry>,
    /// Consumers and keys.
    pub directory: Arc<Directory>,
    /// Verified tokens.
    pub tokens: Arc<TokenCache>,
    /// Where handles come from.
    pub metrics: Arc<Metrics>,
}

/// A set of rules with the metrics of each.
#[derive(Default)]
pub struct Limits {
    /// The rules, ready to be reserved.
    pub rules: RuleSet,
    metrics: Vec<(Arc<str>, RuleMetrics)>,
}

impl Limits {
    fn build(rules: &[crate::limits::Rule], parts: &Parts) -> Self {
        let metrics =
            rules.iter().map(|rule| (Arc::clone(&rule.id), parts.metrics.rule(&rule.id))).collect();
        Self { rules: parts.limiter.prepare(rules), metrics }
    }

    /// The metrics of the rule with this id, if it is one of these.
    #[must_use]
    pub fn metrics(&self, id: &str) -> Option<&RuleMetrics> {
        self.metrics.iter().find(|(known, _)| &**known == id).map(|(_, metrics)| metrics)
    }
}

/// What becomes of an admitted request.
pub enum Action {
    /// We answer ourselves.
    Answer(Answer),
    /// An upstream answers.
    Proxy(Way),
}

/// An answer that needs no upstream.
pub enum Answer {
    /// A redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// `Location` with its placeholders.
        location: String,
    },
    /// A fixed reply.
    Reply {
        /// 200 to 599.
        status: u16,
        /// `Content-Type`.
        content_type: HeaderValue,
        /// The body.
        body: bytes::Bytes,
    },
}

/// The way to an upstream.
pub struct Way {
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// How long each part may take.
    pub timeouts: Timeouts,
    /// No read and no total timeout once the response has begun.
    pub stream: bool,
    /// What the upstream did.
    pub metrics: UpstreamMetrics,
}

/// One route, ready to run.
pub struct Route {
    /// Its name in the file.
    pub name: Arc<str>,
    /// What it asks of a caller.
    pub auth: Requirement,
    /// `WWW-Authenticate` values for a caller without a valid credential.
    pub challenges: Challenges,
    /// Whether the credential goes on.
    pub forward_credential: bool,
    /// The operator's limits.
    pub limits: Limits,
    /// Cross-origin policy.
    pub cors: Option<CorsPolicy>,
    /// Bytes of a request body.
    pub max_body: u64,
    /// Whether a body needs a length.
    pub require_length: bool,
    /// Changes on the way through.
    pub rewrite: Rewrite,
    /// What answers.
    pub action: Action,
    /// What happened.
    pub metrics: RouteMetrics,
}

/// Prebuilt `WWW-Authenticate` values (WIRE section 3, RFC 6750 3).
#[derive(Debug, Default)]
pub struct Challenges {
    /// Nothing was sent.
    pub missing: Vec<HeaderValue>,
    /// A token was sent and is no good.
    pub invalid_token: Option<HeaderValue>,
    /// A valid credential lacks a scope.
    pub insufficient_scope: Option<HeaderValue>,
}

impl Challenges {
    fn build(requirement: &Requirement) -> Self {
        let Requirement::Required { methods, scopes } = requirement else {
            return Self::default();
        };
        let missing = methods
            .iter()
            .map(|method| match method {
                Method::ApiKey => HeaderValue::from_static("ApiKey realm=\"datahub\""),
                Method::Jwt => HeaderValue::from_static("Bearer realm=\"datahub\""),
            })
            .collect();
        if !methods.contains(&Method::Jwt) {
            return Self { missing, ..Self::default() };
        }
        let scope = format!(
            "Bearer realm=\"datahub\", error=\"insufficient_scope\", scope=\"{}\"",
            scopes.join(" ")
        );
        Self {
            missing,
            invalid_token: Some(HeaderValue::from_static(
                "Bearer realm=\"datahub\", error=\"invalid_token\"",
            )),
            insufficient_scope: HeaderValue::try_from(scope).ok(),
        }
    }
}

/// All that a request decides by.
pub struct Snapshot {
    /// Counts up with each reload that took effect.
    pub revision: u64,
    /// Caps and timeouts.
    pub http: Http,
    /// Whether the access log is written.
    pub access_log: bool,
    /// Who is it.
    pub authenticator: Authenticator,
    /// Which route.
    pub routes: Routes<Arc<Route>>,
    /// Upstreams, for probes and metrics.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What was read from the files.
    pub config: Config,
    plans: HashMap<Arc<str>, Limits>,
}

impl Snapshot {
    /// Compiles a checked configuration into run-time objects.
    ///
    /// # Errors
    /// An upstream that cannot be set up.
    pub fn build(config: Config, parts: &Parts, revision: u64) -> Result<Self, BuildError> {
        let upstreams = parts.registry.build(&config.upstreams)?;
        let by_name: HashMap<&str, &Arc<Upstream>> =
            upstreams.iter().map(|upstream| (&**upstream.name(), upstream)).collect();
        let mut routes = Vec::with_capacity(config.routes.len());
        for definition in &config.routes {
            let route = Route::build(definition, &by_name, parts)?;
            routes.push((definition.matcher.clone(), Arc::new(route)));
        }
        let plans = config
            .plans
            .iter()
            .map(|plan| (Arc::clone(&plan.name), Limits::build(&plan.rules, parts)))
            .collect();
        Ok(Self {
            revision,
            http: config.http.clone(),
            access_log: config.access_log,
            authenticator: Authenticator::new(
                config.api_key.clone(),
                config.issuers.clone(),
                Arc::clone(&parts.directory),
                Arc::clone(&parts.tokens),
                parts.clock.clone(),
            ),
            routes: Routes::build(routes),
            upstreams,
            plans,
            config,
        })
    }

    /// The certificate of the listener of this name.
    #[must_use]
    pub fn certificate(&self, listener: &str) -> Option<Arc<CertifiedKey>> {
        let found = self.config.certificates.iter().find(|(name, _)| &**name == listener);
        found.map(|(_, certificate)| Arc::clone(certificate.certified_key()))
    }

    /// The limits of a caller's plan; `None` when no plan of that name is in force.
    #[must_use]
    pub fn plan(&self, caller: &Caller) -> Option<&Limits> {
        self.plans.get(&caller.plan)
    }
}

impl Route {
    fn build(
        definition: &RouteDef,
        upstreams: &HashMap<&str, &Arc<Upstream>>,
        parts: &Parts,
    ) -> Result<Self, BuildError> {
        let action = match &definition.action {
            ActionDef::Proxy { upstream, timeouts, stream } => {
                let upstream = upstreams
                    .get(&**upstream)
                    .ok_or_else(|| BuildError::Unknown { upstream: Arc::clone(upstream) })?;
                Action::Proxy(Way {
                    upstream: Arc::clone(upstream),
                    timeouts: *timeouts,
                    stream: *stream,
                    metrics: parts.metrics.upstream(upstream.name()),
                })
            }
            ActionDef::Redirect { status, location } => {
                Action::Answer(Answer::Redirect { status: *status, location: location.clone() })
            }
            ActionDef::Reply { status, content_type, body } => Action::Answer(Answer::Reply {
                status: *status,
                content_type: content_type.clone(),
                body: body.clone(),
            }),
        };
        Ok(Self {
            name: Arc::clone(&definition.name),
            auth: definition.auth.clone(),
            challenges: Challenges::build(&definition.auth),
            forward_credential: definition.forward_credential,
            limits: Limits::build(&definition.limits, parts),
            cors: definition.cors.as_ref().map(CorsPolicy::compile),
            max_body: definition.max_body,
            require_length: definition.require_length,
            rewrite: definition.rewrite.clone(),
            action,
            metrics: parts.metrics.route(&definition.name),
        })
    }
}

/// The snapshot in force: the one cell that a reload writes.
pub struct Live(ArcSwap<Snapshot>);

impl Live {
    /// Starts with `first`.
    #[must_use]
    pub fn new(first: Snapshot) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(first)))
    }

    /// The snapshot in force, pinned for as long as it is held.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Puts `next` in force for every request that begins from now on.
    pub fn publish(&self, next: Snapshot) {
        self.0.store(Arc::new(next));
    }
}
