//! What each rule says to one request, and the answer that follows from all of it.

use super::few::Few;
use super::gcra::{Counter, Meter};
use super::grant::{Grant, Left, Nearest};
use super::in_flight::Permit;
use super::refused::{Refused, Stopped, Unavailable};
use super::rule_set::Prepared;
use super::subject::Counted;
use super::wire::Policies;
use crate::telemetry::Moment;
use std::cmp::Reverse;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// How a rule is counted for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By a question of its own.
    Ask,
    /// Not at all: the fleet's counters are away.
    Fall,
    /// In this process.
    Here,
    /// From permits that were taken ahead of need.
    Lease,
}

/// What a rule said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Go on.
    Granted(Left),
    /// Nothing yet.
    Open,
    /// Wait.
    Refused(Duration),
    /// It cannot be counted, and must be.
    Unavailable,
    /// Go on; nobody counts.
    Uncounted,
}

/// Where a permit came from, so that it can go back there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// Nowhere it could go back to.
    Gone,
    /// A counter here, as it was before, and by which meter and when it was taken.
    Counter { key: u128, spare: bool, before: Counter, meter: Meter, then: Moment },
    /// A batch that dies then.
    Lease(Moment),
    /// A quota that is counted here.
    Quota(u128),
    /// Permits of a quota that are held here.
    HeldQuota(u128),
    /// The fleet's counter of a quota.
    SharedQuota,
}

/// What one rule says to one request.
pub(super) struct Charge<'r> {
    pub(super) rule: &'r Prepared,
    pub(super) counted: Counted,
    /// How many permits the request takes.
    pub(super) cost: NonZeroU32,
    pub(super) way: Way,
    /// Its place among the requests in flight.
    pub(super) permit: Option<Permit>,
    /// A question was sent and not answered: it may have been charged.
    pub(super) sent: bool,
    pub(super) origin: Origin,
    pub(super) outcome: Outcome,
}

impl<'r> Charge<'r> {
    pub(super) const fn new(
        rule: &'r Prepared,
        counted: Counted,
        cost: NonZeroU32,
        way: Way,
    ) -> Self {
        let (origin, outcome) = (Origin::Gone, Outcome::Open);
        Self { rule, counted, cost, way, permit: None, sent: false, origin, outcome }
    }

    /// What it takes of a number of permits.
    pub(super) fn permits(&self) -> u64 {
        self.cost.get().into()
    }

    /// How near its rule is to refusing such requests, the nearest first.
    fn nearness(&self, left: Left) -> (u32, Reverse<Duration>) {
        (left.remaining / self.cost, Reverse(left.next))
    }

    /// Whether the request may not go on because of this rule.
    pub(super) const fn stops(&self) -> bool {
        !self.rule.shadow && matches!(self.outcome, Outcome::Refused(_) | Outcome::Unavailable)
    }

    /// How long the request must wait for this rule, if the rule can say so.
    fn wait(&self) -> Option<Duration> {
        match self.outcome {
            Outcome::Refused(wait) if !self.rule.shadow => Some(wait),
            _ => None,
        }
    }
}

/// The answer, now that every rule has spoken.
pub(super) fn answer(charges: &mut Few<Charge<'_>>, policies: Policies) -> Result<Grant, Stopped> {
    if !charges.iter().any(Charge::stops) {
        return Ok(grant(charges, policies));
    }
    // Who has to wait is told how long, even if another rule cannot be counted meanwhile.
    let unavailable = charges.iter().find(|charge| charge.stops());
    match unavailable {
        Some(charge) if charges.iter().all(|charge| charge.wait().is_none()) => {
            Err(Unavailable { rule: Arc::clone(&charge.rule.id) }.into())
        }
        _ => Err(refuse(charges, &policies).into()),
    }
}

fn grant(charges: &mut Few<Charge<'_>>, policies: Policies) -> Grant {
    let mut grant = Grant { policies, ..Grant::default() };
    let mut nearest: Option<(&Prepared, Left, _)> = None;
    for charge in charges.iter_mut() {
        let permit = charge.permit.take();
        permit.into_iter().for_each(|permit| grant.permits.push(permit));
        match charge.outcome {
            Outcome::Refused(_) | Outcome::Unavailable => {
                grant.would_refuse.push(Arc::clone(&charge.rule.id));
            }
            Outcome::Granted(left) if !charge.rule.shadow => {
                let nearness = charge.nearness(left);
                if nearest.is_none_or(|(_, _, other)| nearness < other) {
                    nearest = Some((charge.rule, left, nearness));
                }
            }
            Outcome::Granted(_) | Outcome::Open | Outcome::Uncounted => {}
        }
    }
    grant.nearest = nearest.map(|(rule, left, _)| Nearest {
        quoted: Arc::clone(&rule.quoted),
        remaining: left.remaining,
        next: rule.is_timed().then_some(left.next),
        allowed: rule.allowed(),
    });
    grant
}

fn refuse(charges: &Few<Charge<'_>>, policies: &Policies) -> Refused {
    let refusing = || charges.iter().filter_map(|charge| Some((charge.rule, charge.wait()?)));
    let mut refused = Refused {
        rule: Arc::default(),
        retry_after: Duration::ZERO,
        timed: true,
        allowed: 0,
        quoted: Arc::default(),
        policy: policies.value(),
        violated: refusing().map(|(rule, _)| Arc::clone(&rule.name)).collect(),
    };
    if let Some((rule, wait)) = refusing().max_by_key(|(_, wait)| *wait) {
        refused.rule = Arc::clone(&rule.id);
        refused.quoted = Arc::clone(&rule.quoted);
        refused.timed = rule.is_timed();
        refused.allowed = rule.allowed();
        refused.retry_after = wait;
    }
    refused
}
