//! The policies that a request meets: the route's, and those that its consumer has by name.
//!
//! Must stay true: nothing is allocated; a policy that both the route and the consumer name is
//! counted once; one that is nowhere refuses the request.

use super::head::Head;
use super::rejection::Rejection;
use crate::auth::Caller;
use crate::auth::access::Unmet;
use crate::auth::registry::MAX_POLICIES;
use crate::limits::RuleSet;
use crate::snapshot::{Limits, Policy, Route, Snapshot};
use crate::telemetry::metrics::RuleMetrics;
use std::sync::Arc;

/// Sets of rules that one request can meet: the plan's, the route's, and each of its consumer's
/// policies'.
const SETS: usize = 2 + MAX_POLICIES;

/// A request's policy whose condition it does not meet.
#[derive(Clone, thiserror::Error)]
#[error("a condition of policy `{}` is not met", policy.name)]
pub struct Excluded {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The condition.
    pub unmet: Unmet,
}

impl std::fmt::Debug for Excluded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Excluded({})", self.policy.cause(self.unmet))
    }
}

/// The consumer's own policies, all conditions met.
pub struct Policies<'s> {
    own: [Option<&'s Policy>; MAX_POLICIES],
}

impl<'s> Policies<'s> {
    /// Checks the conditions of the route's policies, then those of the consumer's.
    ///
    /// # Errors
    /// A condition that is not met, or a policy of the consumer that is not in force anywhere.
    pub fn find(
        snapshot: &'s Snapshot,
        route: &Route,
        caller: Option<&Caller>,
        head: &Head<'_>,
    ) -> Result<Self, Rejection> {
        let check = |policy: &Arc<Policy>| match policy.access.check(caller, head.client()) {
            Ok(()) => Ok(()),
            Err(unmet) => Err(Excluded { policy: Arc::clone(policy), unmet }),
        };
        route.policies.iter().try_for_each(check)?;
        let mut own = [None; MAX_POLICIES];
        let names = caller.map_or(&[][..], |caller| &caller.consumer.policies);
        for (index, name) in names.iter().enumerate() {
            if route.policies.iter().any(|policy| policy.name == *name) {
                continue;
            }
            let place = own.get_mut(index).zip(snapshot.policy(name));
            let unknown = || Rejection::PolicyUnknown { policy: Arc::clone(name) };
            let (place, policy) = place.ok_or_else(unknown)?;
            check(policy)?;
            *place = Some(&**policy);
        }
        Ok(Self { own })
    }
    /// All rules that a request meets: the plan's, the route's with its policies', and the
    /// consumer's own policies'.
    #[must_use]
    pub fn sets(&self, plan: Option<&'s Limits>, route: &'s Limits) -> Sets<'s> {
        let own = self.own.iter().flatten().map(|policy| &policy.limits);
        let mut sets = Sets { limits: [route; SETS], rules: [&route.rules; SETS], count: 0 };
        for limits in plan.into_iter().chain([route]).chain(own) {
            sets.push(limits);
        }
        sets
    }
}

/// Sets of rules, to be reserved in one step.
pub struct Sets<'s> {
    limits: [&'s Limits; SETS],
    rules: [&'s RuleSet; SETS],
    count: usize,
}

impl<'s> Sets<'s> {
    fn push(&mut self, limits: &'s Limits) {
        if let (Some(place), Some(rules)) =
            (self.limits.get_mut(self.count), self.rules.get_mut(self.count))
        {
            (*place, *rules) = (limits, &limits.rules);
            self.count += 1;
        }
    }

    /// As the limiter takes them.
    #[must_use]
    pub fn rules(&self) -> &[&'s RuleSet] {
        self.rules.get(..self.count).unwrap_or_default()
    }

    /// The metrics of the rule with this id.
    #[must_use]
    pub fn metrics(&self, id: &str) -> Option<&'s RuleMetrics> {
        self.limits.iter().take(self.count).find_map(|limits| limits.metrics(id))
    }
}
