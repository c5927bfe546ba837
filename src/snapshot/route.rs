//! One route, ready to run.

use super::policy::{Limits, Policies, Policy, insufficient_scope};
use super::{BuildError, Parts};
use crate::auth::{Method, Requirement};
use crate::config::{ActionDef, RouteDef};
use crate::limits::Rule;
use crate::routing::{CorsPolicy, HeaderEdits, Rewrite};
use crate::telemetry::metrics::{RouteMetrics, UpstreamMetrics};
use crate::upstreams::{self, Timeouts, Upstream};
use http::HeaderValue;
use std::collections::HashMap;
use std::sync::Arc;

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
    /// What its requests count as in the usage of consumers.
    pub class: Arc<str>,
    /// What it asks of a caller.
    pub auth: Requirement,
    /// `WWW-Authenticate` values for a caller without a valid credential.
    pub challenges: Challenges,
    /// Whether the credential goes on.
    pub forward_credential: bool,
    /// The operator's limits: the route's own, and those of its policies.
    pub limits: Limits,
    /// Policies that hold here, in the order of the file.
    pub policies: Vec<Arc<Policy>>,
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

/// Prebuilt `WWW-Authenticate` values (RFC 6750 3).
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
                // No scheme is registered for it either, and RFC 9110 11.6.1 wants one.
                Method::Certificate => HeaderValue::from_static("Certificate realm=\"datahub\""),
            })
            .collect();
        if !methods.contains(&Method::Jwt) {
            return Self { missing, ..Self::default() };
        }
        Self {
            missing,
            invalid_token: Some(HeaderValue::from_static(
                "Bearer realm=\"datahub\", error=\"invalid_token\"",
            )),
            insufficient_scope: insufficient_scope(scopes),
        }
    }
}

/// What a route changes, with failures of its expressions counted.
fn rewrite(rewrite: &Rewrite, parts: &Parts) -> Rewrite {
    let counted = |edits: &HeaderEdits| edits.clone().counted(|it| parts.counted(it));
    Rewrite {
        request: counted(&rewrite.request),
        response: counted(&rewrite.response),
        ..rewrite.clone()
    }
}

impl Route {
    pub(super) fn build(
        definition: &RouteDef,
        upstreams: &HashMap<&str, &Arc<Upstream>>,
        policies: &Policies,
        parts: &Parts,
    ) -> Result<Self, BuildError> {
        let action = match &definition.action {
            ActionDef::Proxy { upstream, timeouts, stream } => {
                let upstream = upstreams.get(&**upstream).ok_or_else(|| {
                    upstreams::BuildError::Unknown { upstream: Arc::clone(upstream) }
                })?;
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
        let policies = policies_of(definition, policies)?;
        let own = definition.limits.iter();
        let rules: Vec<Rule> =
            own.chain(policies.iter().flat_map(|policy| policy.rules())).cloned().collect();
        Ok(Self {
            name: Arc::clone(&definition.name),
            class: Arc::clone(&definition.class),
            auth: definition.auth.clone(),
            challenges: Challenges::build(&definition.auth),
            forward_credential: definition.forward_credential,
            limits: Limits::build(&rules, parts),
            policies,
            cors: definition.cors.as_ref().map(CorsPolicy::compile),
            max_body: definition.max_body,
            require_length: definition.require_length,
            rewrite: rewrite(&definition.rewrite, parts),
            action,
            metrics: parts.metrics.route(&definition.name),
        })
    }
}

/// The policies that a route names.
fn policies_of(route: &RouteDef, policies: &Policies) -> Result<Vec<Arc<Policy>>, BuildError> {
    let find = |name: &Arc<str>| {
        policies.get(name).cloned().ok_or_else(|| BuildError::Policy {
            route: Arc::clone(&route.name),
            policy: Arc::clone(name),
        })
    };
    route.policies.iter().map(find).collect()
}
