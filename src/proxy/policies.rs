//! The policies that a request meets: the route's, and those that its consumer has by name.
//!
//! Must stay true: nothing is allocated unless a policy in shadow mode would refuse; a policy that
//! both the route and the consumer name is counted once; one that is nowhere, or is not in force,
//! refuses the request, also where it was meant to be in shadow mode.

use super::head::Head;
use super::rejection::Rejection;
use crate::auth::Caller;
use crate::auth::access::Unmet;
use crate::auth::registry::MAX_POLICIES;
use crate::expressions::Expression;
use crate::limits::{Mode, RuleSet};
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
    /// Checks the conditions of the route's policies, then those of the consumer's. What a policy in
    /// shadow mode would refuse is added to `would_refuse`.
    ///
    /// # Errors
    /// A condition that is not met, or a policy that is not in force anywhere.
    pub fn find(
        snapshot: &'s Snapshot,
        route: &Route,
        caller: Option<&Caller>,
        head: &Head<'_>,
        would_refuse: &mut Vec<Arc<str>>,
    ) -> Result<Self, Rejection> {
        let holds = |when: &Expression| when.holds(&head.facts(&route.name, caller));
        let mut check = |policy: &Arc<Policy>| {
            let checked = match policy.mode {
                Mode::Off => Ok(()),
                Mode::Enforce | Mode::Shadow => match policy.access.check(caller, head.client()) {
                    Ok(()) if policy.when.as_ref().is_none_or(holds) => Ok(()),
                    Ok(()) => Err(Unmet::When),
                    unmet => unmet,
                },
            };
            settle(policy, checked, would_refuse)
        };
        let unknown = |name: &Arc<str>| Rejection::PolicyUnknown { policy: Arc::clone(name) };
        for policy in &route.policies {
            if policy.origin().is_none() {
                return Err(unknown(&policy.name));
            }
            check(policy)?;
        }
        let mut own = [None; MAX_POLICIES];
        let names = caller.map_or(&[][..], |caller| &caller.consumer.policies);
        for (index, name) in names.iter().enumerate() {
            if route.policies.iter().any(|policy| policy.name == *name) {
                continue;
            }
            let place = own.get_mut(index).zip(snapshot.policy(name));
            let (place, policy) = place.ok_or_else(|| unknown(name))?;
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

/// What follows from the check of a policy's conditions.
fn settle(
    policy: &Arc<Policy>,
    checked: Result<(), Unmet>,
    would_refuse: &mut Vec<Arc<str>>,
) -> Result<(), Excluded> {
    let Err(unmet) = checked else { return Ok(()) };
    let metrics = policy.metrics(unmet);
    if policy.mode == Mode::Shadow {
        metrics.shadow();
        would_refuse.push(Arc::clone(policy.cause(unmet)));
        return Ok(());
    }
    metrics.refused();
    Err(Excluded { policy: Arc::clone(policy), unmet })
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

#[cfg(test)]
mod tests {
    use super::super::wire::HeadCaps;
    use super::*;
    use crate::auth::documents::DocumentKind;
    use crate::auth::{Consumer, Credential, Fields};
    use crate::snapshot::fixture::{row, snapshot, snapshot as snapshot_of};
    use pingora_http::RequestHeader;
    use serde_json::json;

    const FILES: &str = "
        [plans.basic]
        [policies.gate.limits.a]
        rate = \"1/s\"
        [policies.gold-only]
        plans = [\"gold\"]
        [policies.slow.limits.b]
        rate = \"1/s\"
        [policies.inside]
        addresses = [\"10.0.0.0/8\"]
        [routes.all]
        path = \"/*\"
        auth = \"api_key\"
        policies = [\"gate\", \"inside\"]
        reply = { status = 200 }
    ";

    fn caller(policies: &[&str]) -> Caller {
        Caller {
            consumer: Arc::new(Consumer {
                id: "c1".into(),
                username: "acme".into(),
                custom_id: None,
                plan: "basic".into(),
                policies: policies.iter().map(|name| Arc::from(*name)).collect(),
                enabled: true,
            }),
            credential: Credential::ApiKey("0123456789abcdef".into()),
            plan: "basic".into(),
            scopes: Arc::default(),
            claims: Arc::default(),
            fields: Fields::default(),
        }
    }

    /// The rules that a request of a consumer with these policies meets beside its plan's, or why
    /// it is refused.
    fn found(snapshot: &Snapshot, policies: &[&str], from: &str) -> Result<Vec<String>, String> {
        let mut would_refuse = Vec::new();
        let found = found_with(snapshot, policies, from, &mut would_refuse);
        assert_eq!(would_refuse.capacity(), 0);
        found
    }

    /// The same, with what would have been refused.
    fn found_with(
        snapshot: &Snapshot,
        policies: &[&str],
        from: &str,
        would_refuse: &mut Vec<Arc<str>>,
    ) -> Result<Vec<String>, String> {
        let mut header = RequestHeader::build("GET", b"/", None).unwrap();
        header.insert_header("host", "example.com").unwrap();
        let caps = HeadCaps { bytes: 1000, target: 100, fields: 10 };
        let head = Head::read(&header, from.parse().unwrap(), false, caps).unwrap();
        let route = snapshot.routes.find(&head.asked()).unwrap();
        let caller = caller(policies);
        let policies = Policies::find(snapshot, route, Some(&caller), &head, would_refuse);
        let sets = policies.as_ref().map(|policies| policies.sets(None, &route.limits));
        match sets {
            Ok(sets) => Ok(sets.rules().iter().map(|set| format!("{set:?}")).collect()),
            Err(Rejection::Policy(excluded)) => Err(format!("{excluded:?}")),
            Err(Rejection::PolicyUnknown { policy }) => Err(format!("unknown: {policy}")),
            Err(other) => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_consumers_policies_hold_beside_the_routes_and_none_counts_twice() {
        let snapshot = snapshot(FILES, &[]);
        let of_route = "[\"policy/gate/a\"]";
        for (policies, expected) in [
            (&[][..], &[of_route][..]),
            (&["slow"], &[of_route, "[\"policy/slow/b\"]"]),
            (&["gate", "slow", "inside"], &[of_route, "[\"policy/slow/b\"]"]),
        ] {
            let found = found(&snapshot, policies, "10.0.0.1").unwrap();
            assert_eq!(found, expected, "{policies:?}");
        }
    }

    #[test]
    fn a_policy_in_shadow_lets_pass_and_says_which_condition_is_not_met() {
        let files = FILES.replace("plans = [\"gold\"]", "plans = [\"gold\"]\nmode = \"shadow\"");
        let shadow = row(
            DocumentKind::Policy,
            "inside",
            json!({
                "mode": "shadow",
                "addresses": ["10.0.0.0/8"],
                "limits": {
                    "a": { "rate": "1/s" },
                    "b": { "rate": "1/s", "mode": "off" },
                },
            }),
        );
        let off = row(
            DocumentKind::Policy,
            "banned",
            json!({ "mode": "off", "consumers": ["other"], "limits": { "c": { "rate": "1/s" } } }),
        );
        let snapshot = snapshot(&files, &[shadow, off]);
        let mut would_refuse = Vec::new();
        let policies = ["gold-only", "slow", "banned"];
        let found = found_with(&snapshot, &policies, "192.0.2.1", &mut would_refuse).unwrap();
        let of_route = "[\"policy/gate/a\", \"policy/inside/a\"]";
        assert_eq!(found, [of_route, "[]", "[\"policy/slow/b\"]", "[]"]);
        let ids: Vec<&str> = would_refuse.iter().map(|id| &**id).collect();
        assert_eq!(ids, ["policy/inside/addresses", "policy/gold-only/plans"]);
        let inside = snapshot.policy("inside").unwrap();
        assert!(inside.limits.metrics("policy/inside/a").is_some());
        // One that is nowhere, or withheld, refuses whatever it was meant to be.
        let lost = row(DocumentKind::Policy, "inside", json!({ "mode": "shadow", "newer": true }));
        let snapshot = snapshot_of(&files, &[lost]);
        let refused = found_with(&snapshot, &[], "10.0.0.1", &mut would_refuse).unwrap_err();
        assert_eq!(refused, "unknown: inside");
    }

    #[test]
    fn a_consumer_is_refused_by_its_policies_and_by_one_that_is_nowhere() {
        let policy_row = |name, body| row(DocumentKind::Policy, name, body);
        let row = policy_row("banned", json!({ "consumers": ["other"] }));
        let snapshot = snapshot(FILES, &[row]);
        let many: Vec<String> = (0..9).map(|n| format!("p{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (policies, from, expected) in [
            (&["slow", "gold-only"][..], "10.0.0.1", "Excluded(policy/gold-only/plans)"),
            (&["slow", "nowhere"], "10.0.0.1", "unknown: nowhere"),
            (&["banned"], "10.0.0.1", "Excluded(policy/banned/consumers)"),
            // The route's conditions come first.
            (&["nowhere", "banned"], "192.0.2.1", "Excluded(policy/inside/addresses)"),
            (&many, "10.0.0.1", "unknown: p0"),
        ] {
            let refused = found(&snapshot, policies, from).unwrap_err();
            assert_eq!(refused, expected, "{policies:?}");
        }
        // What the file says in place of a row that does not compile must not let anybody in.
        for (name, policies, expected) in [
            ("gate", &[][..], "unknown: gate"),
            ("slow", &["slow"], "unknown: slow"),
            ("elsewhere", &["elsewhere"], "unknown: elsewhere"),
        ] {
            let broken = policy_row(name, json!({ "newer": true }));
            let snapshot = snapshot_of(FILES, &[broken]);
            assert_eq!(found(&snapshot, policies, "10.0.0.1").unwrap_err(), expected, "{name}");
        }
        // More than any store takes: what cannot be looked at is not passed over.
        let most = ["slow"; MAX_POLICIES + 1];
        assert_eq!(found(&snapshot, &most, "10.0.0.1").unwrap_err(), "unknown: slow");
    }
}
