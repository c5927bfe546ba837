//! Everything a request decides by, compiled from [`Config`] and swapped as a whole.
//!
//! Plans and policies can stand in the files and as rows of the store; a row goes before the table of
//! its name, and hides it also when it does not compile. [`Snapshot::build`] is where the two become
//! one.
//!
//! A request loads one [`Snapshot`] and keeps it to its end, so it never sees half of a reload.
//! What must survive a reload (counters, endpoint health, caches) lives in [`Parts`] and is only
//! referred to from here.
//!
//! Must stay true: [`Live`] is the only cell; nothing here changes after [`Snapshot::build`].

#[cfg(test)]
pub(crate) mod fixture;
mod policy;
mod route;

pub use policy::{Limits, Origin, Policy};
pub use route::{Action, Answer, Challenges, Route, Way};

use crate::auth::{
    Authenticator, Caller, Certificates, ClientTrust, Directory, RemoteKeySets, TokenCache,
};
use crate::config::{Config, Http, Rows};
use crate::expressions::Expression;
use crate::limits::{Addresses, Guard, Limiter, Tally};
use crate::routing::Routes;
use crate::telemetry::Clock;
use crate::telemetry::metrics::Metrics;
use crate::upstreams::{self, Registry, Upstream};
use arc_swap::ArcSwap;
use policy::Policies;
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

/// Why a checked configuration cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A route names a policy that is nowhere; the compiler of the files lets none pass.
    #[error("route `{route}` names the policy `{policy}`, which does not exist")]
    Policy {
        /// The route.
        route: Arc<str>,
        /// The policy.
        policy: Arc<str>,
    },
    /// An upstream that cannot be set up.
    #[error(transparent)]
    Upstream(#[from] upstreams::BuildError),
}

/// What outlives every snapshot.
#[derive(Clone)]
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// Counters of all rules.
    pub limiter: Arc<Limiter>,
    /// Counts of client addresses.
    pub addresses: Arc<Addresses>,
    /// Endpoint state of all upstreams.
    pub registry: Arc<Registry>,
    /// Consumers and keys.
    pub directory: Arc<Directory>,
    /// Verified tokens.
    pub tokens: Arc<TokenCache>,
    /// Keys of issuers that are fetched.
    pub issuer_keys: Arc<RemoteKeySets>,
    /// Usage since it was last stored.
    pub tally: Arc<Tally>,
    /// Where handles come from.
    pub metrics: Arc<Metrics>,
}

impl Parts {
    /// An expression whose failures are counted.
    #[must_use]
    pub fn counted(&self, expression: Expression) -> Expression {
        let metrics = self.metrics.expression(expression.place());
        expression.counted(metrics)
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
    /// What an address may do before anybody knows who calls.
    pub guard: Guard,
    /// Who is it.
    pub authenticator: Authenticator,
    /// Which route.
    pub routes: Routes<Arc<Route>>,
    /// Upstreams, for probes and metrics.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What was read from the files.
    pub config: Config,
    /// What was read from the store.
    pub rows: Arc<Rows>,
    plans: HashMap<Arc<str>, (Origin, Limits)>,
    policies: Policies,
}

impl Snapshot {
    /// Compiles a checked configuration, and what stands in the store, into run-time objects.
    ///
    /// # Errors
    /// An upstream that cannot be set up.
    pub fn build(
        config: Config,
        rows: Arc<Rows>,
        parts: &Parts,
        revision: u64,
    ) -> Result<Self, BuildError> {
        let upstreams = parts.registry.build(&config.upstreams)?;
        let by_name: HashMap<&str, &Arc<Upstream>> =
            upstreams.iter().map(|upstream| (&**upstream.name(), upstream)).collect();
        let policies = policy::policies(&config, &rows, parts);
        let mut routes = Vec::with_capacity(config.routes.len());
        for definition in &config.routes {
            let route = Route::build(definition, &by_name, &policies, parts)?;
            let mut matcher = definition.matcher.clone();
            matcher.when = matcher.when.map(|when| parts.counted(when));
            routes.push((matcher, Arc::new(route)));
        }
        Ok(Self {
            revision,
            http: config.http.clone(),
            access_log: config.access_log,
            guard: Guard::new(&config.address_guard, &parts.addresses, &parts.metrics),
            authenticator: Authenticator::new(
                config.api_key.clone(),
                config.issuers.clone(),
                Arc::clone(&parts.directory),
                Arc::clone(&parts.tokens),
                &parts.issuer_keys,
                parts.clock.clone(),
            )
            .keeping(policy::claims(&config, &rows))
            .with_certificates(Certificates::new(config.mtls.clone(), config.clients.clone())),
            routes: Routes::build(routes),
            upstreams,
            plans: policy::plans(&config, &rows, parts),
            policies,
            config,
            rows,
        })
    }

    /// The certificate of the listener of this name.
    #[must_use]
    pub fn certificate(&self, listener: &str) -> Option<Arc<CertifiedKey>> {
        let found = self.config.certificates.iter().find(|(name, _)| &**name == listener);
        found.map(|(_, certificate)| Arc::clone(certificate.certified_key()))
    }

    /// Whose client certificates the listener of this name believes, if it asks for them.
    #[must_use]
    pub fn client_trust(&self, listener: &str) -> Option<&Arc<ClientTrust>> {
        let found = self.config.clients.iter().find(|(name, _)| &**name == listener);
        found.map(|(_, trust)| trust)
    }

    /// The limits of a caller's plan; `None` when no plan of that name is in force.
    #[must_use]
    pub fn plan(&self, caller: &Caller) -> Option<&Limits> {
        self.plans.get(&caller.plan).map(|(_, limits)| limits)
    }

    /// The policy of this name, if one is in force.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.policies.get(name).filter(|policy| policy.origin().is_some())
    }

    /// Where the plan of this name comes from; `None` if none is in force.
    #[must_use]
    pub fn origin_of_plan(&self, name: &str) -> Option<Origin> {
        self.plans.get(name).map(|(origin, _)| *origin)
    }

    /// Where the policy of this name comes from; `None` if none is in force.
    #[must_use]
    pub fn origin_of_policy(&self, name: &str) -> Option<Origin> {
        self.policies.get(name).and_then(|policy| policy.origin())
    }

    /// The plans in force, in no order.
    pub fn plan_names(&self) -> impl Iterator<Item = (&Arc<str>, Origin)> {
        self.plans.iter().map(|(name, (origin, _))| (name, *origin))
    }

    /// The policies in force, in no order.
    pub fn policy_names(&self) -> impl Iterator<Item = (&Arc<str>, Origin)> {
        self.policies.iter().filter_map(|(name, policy)| Some((name, policy.origin()?)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::documents::DocumentKind::{Plan, Policy};
    use fixture::{row, snapshot};
    use serde_json::json;

    const FILES: &str = "
        [plans.basic.limits.requests]
        rate = \"1/s\"
        [plans.gold]
        [policies.gate]
        [policies.other]
        [policies.lost]
        [routes.all]
        path = \"/*\"
        auth = \"api_key\"
        policies = [\"gate\", \"other\"]
        reply = { status = 200 }
        [routes.all.limits.own]
        rate = \"1/s\"
    ";

    #[test]
    fn a_row_goes_before_the_table_of_its_name_and_it_can_be_told_which_is_in_force() {
        let limits = |rate: &str| json!({ "limits": { "of-row": { "rate": rate } } });
        let snapshot = snapshot(
            FILES,
            &[
                row(Plan, "gold", limits("5/s")),
                row(Plan, "silver", json!({})),
                row(Plan, "basic", limits("wrong")),
                row(Plan, "nowhere", limits("wrong")),
                row(Policy, "lost", limits("wrong")),
                row(Policy, "gate", limits("7/s")),
                row(Policy, "spare", json!({})),
            ],
        );
        for (plan, origin) in [
            ("gold", Some(Origin::Row)),
            ("silver", Some(Origin::Row)),
            // What the files say in its place could let more through.
            ("basic", None),
            ("nowhere", None),
            ("none", None),
        ] {
            assert_eq!(snapshot.origin_of_plan(plan), origin, "{plan}");
        }
        assert_eq!(snapshot.plan_names().count(), 2);
        for (policy, origin) in [
            ("gate", Some(Origin::Row)),
            ("spare", Some(Origin::Row)),
            ("other", Some(Origin::Files)),
            ("lost", None),
            ("none", None),
        ] {
            assert_eq!(snapshot.origin_of_policy(policy), origin, "{policy}");
            assert_eq!(snapshot.policy(policy).is_some(), origin.is_some(), "{policy}");
        }
        assert_eq!(snapshot.policy_names().count(), 3);
        let (_, gold) = &snapshot.plans["gold"];
        assert!(gold.metrics("plan/gold/of-row").is_some());
    }

    #[test]
    fn a_route_has_the_rules_of_its_policies_as_they_are_in_force() {
        let limits = json!({ "limits": { "of-row": { "rate": "7/s" } } });
        let snapshot = snapshot(FILES, &[row(Policy, "gate", limits)]);
        let definition = &snapshot.config.routes[0];
        let route =
            Route::build(definition, &HashMap::new(), &snapshot.policies, &fixture::parts())
                .unwrap_or_else(|error| panic!("{error}"));
        let names: Vec<&str> = route.policies.iter().map(|policy| &*policy.name).collect();
        assert_eq!((names, &*route.class), (vec!["gate", "other"], "all"));
        for id in ["route/all/own", "policy/gate/of-row"] {
            assert!(route.limits.metrics(id).is_some(), "{id}");
        }
    }

    #[test]
    fn a_route_is_never_built_without_one_of_its_policies() {
        let mut config = fixture::config(FILES);
        config.policies.clear();
        let built = Snapshot::build(config, Arc::default(), &fixture::parts(), 1);
        assert!(matches!(built, Err(BuildError::Policy { .. })));
    }
}
