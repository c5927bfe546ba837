//! Plans and policies ready to run, from the files and from the rows of the store.
//!
//! Must stay true: a row goes before the table of its name, whatever the table says, and also when it
//! does not compile: then nothing of that name is in force, and who has it is refused.

use super::Parts;
use crate::auth::access::{Access, Unmet};
use crate::auth::documents::DocumentKind;
use crate::config::{Config, PolicyDef, Rows};
use crate::expressions::Expression;
use crate::limits::{MAX_CLAIMS, Mode, Plan, Rule, RuleSet, Subject};
use crate::routing::HeaderEdits;
use crate::telemetry::metrics::RuleMetrics;
use http::HeaderValue;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Where a plan or policy that is in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The files.
    Files,
    /// A row of the store.
    Row,
}

impl Origin {
    /// As operators are told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Row => "row",
        }
    }
}

/// A set of rules with the metrics of each.
#[derive(Default)]
pub struct Limits {
    /// The rules, ready to be reserved.
    pub rules: RuleSet,
    metrics: Vec<(Arc<str>, RuleMetrics)>,
}

impl Limits {
    pub(super) fn build(rules: &[Rule], parts: &Parts) -> Self {
        let metrics =
            rules.iter().map(|rule| (Arc::clone(&rule.id), parts.metrics.rule(&rule.id))).collect();
        let counted = |rule: &Rule| rule.clone().counted(|it| parts.counted(it));
        let rules: Vec<Rule> = rules.iter().map(counted).collect();
        Self { rules: parts.limiter.prepare(&rules), metrics }
    }

    /// The metrics of the rule with this id, if it is one of these.
    #[must_use]
    pub fn metrics(&self, id: &str) -> Option<&RuleMetrics> {
        self.metrics.iter().find(|(known, _)| &**known == id).map(|(_, metrics)| metrics)
    }
}

/// A named set of conditions and rules, in force for the routes and consumers that name it.
pub struct Policy {
    /// Its name.
    pub name: Arc<str>,
    /// What it asks of a request.
    pub access: Access,
    /// A condition more.
    pub when: Option<Expression>,
    /// Whether a request that does not meet it is refused.
    pub mode: Mode,
    /// Its rules, for consumers; those of a route are in [`super::Route::limits`].
    pub limits: Limits,
    /// `WWW-Authenticate` for a token that lacks one of its scopes.
    pub insufficient_scope: Option<HeaderValue>,
    rules: Vec<Rule>,
    origin: Option<Origin>,
    causes: [(Arc<str>, RuleMetrics); 5],
}

impl Policy {
    fn build(definition: &PolicyDef, origin: Option<Origin>, parts: &Parts) -> Self {
        let PolicyDef { name, access, when, rules, mode } = definition;
        let cause = |condition: &str| {
            let cause: Arc<str> = format!("policy/{name}/{condition}").into();
            let metrics = parts.metrics.rule(&cause);
            (cause, metrics)
        };
        Self {
            name: Arc::clone(name),
            access: access.clone(),
            when: when.clone().map(|when| parts.counted(when)),
            mode: *mode,
            limits: Limits::build(rules, parts),
            insufficient_scope: insufficient_scope(&access.scopes),
            rules: rules.clone(),
            origin,
            causes: ["addresses", "consumers", "plans", "scopes", "when"].map(cause),
        }
    }

    /// What stands for a table whose row does not compile: a route that names it lets nobody in.
    fn withheld(name: &Arc<str>, parts: &Parts) -> Self {
        let (access, rules) = (Access::default(), Vec::new());
        let name = Arc::clone(name);
        let mode = Mode::Enforce;
        Self::build(&PolicyDef { name, access, when: None, rules, mode }, None, parts)
    }

    /// Where it comes from; `None` if it is not in force, and so refuses every request.
    #[must_use]
    pub const fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Its rules, as routes take them over.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What the access log says of a request that does not meet a condition of it:
    /// `policy/<name>/<condition>`.
    #[must_use]
    pub fn cause(&self, unmet: Unmet) -> &Arc<str> {
        &self.told(unmet).0
    }

    /// What is counted of a condition.
    #[must_use]
    pub fn metrics(&self, unmet: Unmet) -> &RuleMetrics {
        &self.told(unmet).1
    }

    const fn told(&self, unmet: Unmet) -> &(Arc<str>, RuleMetrics) {
        let [addresses, consumers, plans, scopes, when] = &self.causes;
        match unmet {
            Unmet::Address => addresses,
            Unmet::Consumer => consumers,
            Unmet::Plan => plans,
            Unmet::Scopes => scopes,
            Unmet::When => when,
        }
    }
}

/// The policies in force by name, and those that are withheld.
pub(super) type Policies = HashMap<Arc<str>, Arc<Policy>>;

/// The plans in force of both, a row before a table of the same name.
pub(super) fn plans(
    config: &Config,
    rows: &Rows,
    parts: &Parts,
) -> HashMap<Arc<str>, (Origin, Limits)> {
    let build = |origin| {
        move |plan: &Plan| (Arc::clone(&plan.name), (origin, Limits::build(&plan.rules, parts)))
    };
    let withheld: HashSet<&Arc<str>> = rows.withheld(DocumentKind::Plan).collect();
    let holds = |plan: &&Plan| rows.plan(&plan.name).is_none() && !withheld.contains(&plan.name);
    let of_files = config.plans.iter().filter(holds).map(build(Origin::Files));
    of_files.chain(rows.plans().map(build(Origin::Row))).collect()
}

/// The policies of both, a row before a table of the same name.
pub(super) fn policies(config: &Config, rows: &Rows, parts: &Parts) -> Policies {
    let build = |origin| {
        move |policy: &PolicyDef| {
            (Arc::clone(&policy.name), Arc::new(Policy::build(policy, Some(origin), parts)))
        }
    };
    let of_files = config.policies.iter().map(build(Origin::Files));
    // The later of two with one name stays.
    let withheld = rows
        .withheld(DocumentKind::Policy)
        .map(|name| (Arc::clone(name), Arc::new(Policy::withheld(name, parts))));
    of_files.chain(withheld).chain(rows.policies().map(build(Origin::Row))).collect()
}

/// The claims that rules count by and expressions read, those of the files first. The files have no
/// more than there is room for; a rule of a row whose claim finds none counts consumers, and to an
/// expression it is not there.
pub(super) fn claims(config: &Config, rows: &Rows) -> Arc<[Arc<str>]> {
    let of_routes = config.routes.iter().flat_map(|route| &route.limits);
    let of_plans = config.plans.iter().flat_map(|plan| &plan.rules);
    let of_policies = config.policies.iter().flat_map(|policy| &policy.rules);
    let mut names = counted(of_routes.chain(of_plans).chain(of_policies));
    let of_headers = (config.routes.iter())
        .flat_map(|route| [&route.rewrite.request, &route.rewrite.response])
        .flat_map(HeaderEdits::expressions);
    let of_conditions = config.policies.iter().filter_map(|policy| policy.when.as_ref());
    names.extend(of_headers.chain(of_conditions).flat_map(Expression::claims).cloned());
    let of_plans = rows.plans().flat_map(|plan| &plan.rules);
    let mut more = counted(of_plans.chain(rows.policies().flat_map(|policy| &policy.rules)));
    let of_conditions = rows.policies().filter_map(|policy| policy.when.as_ref());
    more.extend(of_conditions.flat_map(Expression::claims).cloned());
    for name in more {
        if names.len() >= MAX_CLAIMS && !names.contains(&name) {
            log::warn!(claim:% = name, most = MAX_CLAIMS;
                "too many claims are counted by; rules of rows with this one count consumers");
            continue;
        }
        names.insert(name);
    }
    names.into_iter().collect()
}

fn counted<'r>(rules: impl Iterator<Item = &'r Rule>) -> BTreeSet<Arc<str>> {
    let claims = |rule: &'r Rule| {
        let subject = match &rule.subject {
            Subject::Claim(name) => Some(name),
            _ => None,
        };
        subject.into_iter().chain(rule.expressions().flat_map(Expression::claims)).cloned()
    };
    rules.flat_map(claims).collect()
}

/// `WWW-Authenticate` for a token that lacks one of these.
pub(super) fn insufficient_scope(scopes: &[Arc<str>]) -> Option<HeaderValue> {
    let value = format!(
        "Bearer realm=\"datahub\", error=\"insufficient_scope\", scope=\"{}\"",
        scopes.join(" ")
    );
    HeaderValue::try_from(value).ok()
}
