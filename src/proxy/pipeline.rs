//! What is decided about a request, in the order of the text.
//!
//! Must stay true: every action passes every check before it; only a CORS preflight, which
//! browsers send without credentials, comes before them. Only this file makes an [`Admission`].

use super::facts::RequestFacts;
use super::filter::{Answer, Visits};
use super::head::Head;
use super::policies::Policies;
use super::rejection::Rejection;
use crate::auth::{Caller, Denied, Method};
use crate::limits::{Grant, Limited, Limiter, Permit, Stopped};
use crate::routing::Preflight;
use crate::snapshot::{Limits, Route, Snapshot};
use crate::telemetry::metrics::RuleMetrics;
use std::sync::Arc;

/// What becomes of a request that is not refused.
pub enum Decision {
    /// The route's action runs.
    Admit(Admission),
    /// A filter has an answer in place of the route's action.
    Answer(Admission, Box<Answer>),
    /// A browser learns what it may send.
    Preflight(Preflight),
}

/// A request that passed every check; without one, no endpoint can be picked.
pub struct Admission {
    grant: Grant,
    _made_here: (),
}

impl Admission {
    /// What the limits granted.
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }
}

/// What was learned on the way, whatever the decision: the access log wants it.
#[derive(Default)]
pub struct Trail {
    /// The route that matched.
    pub route: Option<Arc<Route>>,
    /// Who calls.
    pub caller: Option<Arc<Caller>>,
    /// What in shadow mode would have refused it.
    pub would_refuse: Vec<Arc<str>>,
    /// The place that its address has for it, until it ends.
    pub permit: Option<Permit>,
}

/// Decides about a request.
///
/// # Errors
/// Why it is refused.
pub async fn decide(
    snapshot: &Snapshot,
    limiter: &Limiter,
    head: &Head<'_>,
    filters: &mut Visits,
    trail: &mut Trail,
) -> Result<Decision, Rejection> {
    if let Some(preflight) = preflight(snapshot, head, trail) {
        return Ok(Decision::Preflight(preflight));
    }
    filters.request(head).await?;
    let route = snapshot.routes.find(&head.asked())?;
    trail.route = Some(Arc::clone(route));
    // Before the credentials are read: guessing keys must cost the one who guesses.
    trail.permit = snapshot.guard.enter(head.client(), &mut trail.would_refuse)?;
    head.check_body(route.max_body, route.require_length)?;
    trail.caller = match identify(snapshot, route, head, &mut trail.would_refuse).await? {
        Err(Denied::Scope { caller, required }) => {
            trail.caller = Some(Arc::clone(&caller));
            return Err(Denied::Scope { caller, required }.into());
        }
        identified => identified?,
    };
    let caller = trail.caller.as_deref();
    let policies = Policies::find(snapshot, route, caller, head, &mut trail.would_refuse)?;
    let plan = match caller {
        Some(caller) => Some(snapshot.plan(caller).ok_or(Rejection::PlanUnknown)?),
        None => None,
    };
    let grant = reserve(limiter, plan, route, &policies, head, trail).await?;
    trail.would_refuse.extend_from_slice(grant.would_refuse());
    let admission = Admission { grant, _made_here: () };
    Ok(match filters.admitted(snapshot, head, route, caller).await? {
        Some(answer) => Decision::Answer(admission, answer),
        None => Decision::Admit(admission),
    })
}

/// Learns who calls. Where too many credentials were refused of late, only one that is known to be
/// good is let in, and no other costs a look-up or a verification.
async fn identify(
    snapshot: &Snapshot,
    route: &Route,
    head: &Head<'_>,
    would_refuse: &mut Vec<Arc<str>>,
) -> Result<Result<Option<Arc<Caller>>, Denied>, Limited> {
    let (authenticator, guard) = (&snapshot.authenticator, &snapshot.guard);
    let known = authenticator.identify_cached(&route.auth, head.sent(), head.client());
    // A certificate is no guess: whoever shows it has its key.
    let may_be_guessed = match &known {
        None => !authenticator.remembers(&route.auth, head.sent(), head.client()),
        Some(Err(denied)) => guessed(denied),
        Some(Ok(_)) => false,
    };
    if may_be_guessed {
        guard.may_try(head.client(), would_refuse)?;
    }
    let identified = match known {
        Some(known) => known,
        None => authenticator.look_up(&route.auth, head.sent(), head.client()).await,
    };
    if identified.as_ref().is_err_and(guessed) {
        guard.tried_in_vain(head.client());
    }
    Ok(identified)
}

fn guessed(denied: &Denied) -> bool {
    matches!(denied, Denied::Invalid { method, .. } if *method != Method::Certificate)
}

/// Takes one request from the caller's plan, from the route with its policies, and from the
/// caller's own policies; the strictest answer wins.
async fn reserve(
    limiter: &Limiter,
    plan: Option<&Limits>,
    route: &Route,
    policies: &Policies<'_>,
    head: &Head<'_>,
    trail: &Trail,
) -> Result<Grant, Rejection> {
    let caller = trail.caller.as_deref();
    let known = head.facts(&route.name, caller);
    let facts = RequestFacts::new(caller, head.headers()).knowing(&known);
    let subjects = head.subjects(caller, &facts);
    let sets = policies.sets(plan, &route.limits);
    let granted = limiter.reserve(sets.rules(), &subjects).await;
    let metrics = |id: &str| sets.metrics(id);
    match &granted {
        Ok(grant) => {
            let refused = grant.would_refuse().iter();
            refused.filter_map(|id| metrics(id)).for_each(RuleMetrics::shadow);
        }
        Err(Stopped::Refused(refused)) => {
            metrics(&refused.rule).into_iter().for_each(RuleMetrics::refused);
        }
        // Counted as a fallback by the limiter, and by its code with the route.
        Err(Stopped::Unavailable(_)) => {}
    }
    Ok(granted?)
}

/// The answer to a CORS preflight, found at the route that the announced request would take.
fn preflight(snapshot: &Snapshot, head: &Head<'_>, trail: &mut Trail) -> Option<Preflight> {
    let wanted = head.preflight_method()?;
    let route = snapshot.routes.find(&head.asked_for(&wanted)).ok()?;
    let answer = route.cors.as_ref()?.preflight(head.headers())?;
    trail.route = Some(Arc::clone(route));
    Some(answer)
}
