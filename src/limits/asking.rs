//! Questions that a request waits for: all of them at once, under one deadline.
//!
//! Rules that count the same subject are one question, which is answered as one step. Several subjects
//! are asked side by side; then a refusal by one forfeits what the rates of another gave, and quotas,
//! which nobody should lose that way, are charged last.
//!
//! Must stay true: whatever the fleet's counters do, [`Ledger::settle`] is over by its deadline.

use super::charge::{Charge, Origin, Outcome, Way};
use super::few::Few;
use super::fleet::{Account as Asked, Answer, FleetError, Flow, Take, Taken};
use super::grant::Left;
use super::leasing::DEADLINE;
use super::ledger::{Denial, Ledger};
use super::rule_set::Gauge;
use super::vitals::Tally;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// How long a spent quota is remembered: other tasks may give some of it back.
const QUOTA_DENIAL: Duration = Duration::from_millis(250);

/// One of several questions.
pub(super) type Asking<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Ledger {
    /// Finds out about every charge that is still open.
    pub(super) async fn settle(self: &Arc<Self>, charges: &mut Few<Charge<'_>>) {
        let deadline = Instant::now() + DEADLINE;
        let open = |charge: &&Charge<'_>| charge.outcome == Outcome::Open;
        let first = charges.iter().find(open).map(|charge| charge.counted.subject);
        let several =
            charges.iter().filter(open).any(|charge| Some(charge.counted.subject) != first);
        self.ask(charges, deadline, several).await;
        if several && !charges.iter().any(Charge::stops) {
            self.ask(charges, deadline, false).await;
        }
    }

    /// Asks about open charges, side by side.
    async fn ask(
        self: &Arc<Self>,
        charges: &mut Few<Charge<'_>>,
        deadline: Instant,
        quotas_later: bool,
    ) {
        let mut work: Vec<Asking<'_>> = Vec::new();
        let mut groups: Vec<Vec<&mut Charge<'_>>> = Vec::new();
        for charge in charges.iter_mut().filter(|charge| charge.outcome == Outcome::Open) {
            match (charge.way, charge.rule.gauge) {
                (_, Gauge::Quota(_)) if quotas_later => {}
                (Way::Lease, Gauge::Rate(meter)) => {
                    work.push(Box::pin(self.wait_for_lease(charge, meter, deadline)));
                }
                (Way::Fall, Gauge::Quota(quota)) => {
                    work.push(Box::pin(self.take_quota_share_late(charge, quota, deadline)));
                }
                (Way::Here, Gauge::Quota(quota)) => {
                    work.push(Box::pin(self.take_quota_here_late(charge, quota, deadline)));
                }
                _ => {
                    let subject = charge.counted.subject;
                    let same = groups.iter_mut().find(|group| {
                        group.first().is_some_and(|first| first.counted.subject == subject)
                    });
                    match same {
                        Some(group) => group.push(charge),
                        None => groups.push(vec![charge]),
                    }
                }
            }
        }
        for group in groups {
            work.push(Box::pin(self.ask_group(group, deadline)));
        }
        all(work).await;
    }

    /// Asks about rules that count the same subject.
    async fn ask_group(self: &Arc<Self>, mut group: Vec<&mut Charge<'_>>, deadline: Instant) {
        let asked = self.clock.now();
        let answer = self.ask_fleet(&group, deadline).await;
        let sent = answer == Err(FleetError::Timeout);
        let (taken, charged) = match answer {
            Ok(Answer::Charged(taken)) => (taken, true),
            Ok(Answer::Refused(taken)) => (taken, false),
            Ok(Answer::Missing) | Err(_) => (Vec::new(), false),
        };
        let mut taken = taken.into_iter();
        for charge in &mut group {
            match taken.next() {
                Some(taken) => self.hear(charge, taken, charged, asked),
                None => {
                    charge.sent = sent;
                    self.fall_back(charge);
                }
            }
        }
        for charge in group.iter_mut().filter(|charge| charge.outcome == Outcome::Open) {
            if let Gauge::Quota(quota) = charge.rule.gauge {
                self.take_quota_share_late(charge, quota, deadline).await;
            }
        }
    }

    async fn ask_fleet(
        self: &Arc<Self>,
        group: &[&mut Charge<'_>],
        deadline: Instant,
    ) -> Result<Answer, FleetError> {
        let (Some(fleet), Some(first)) = (&self.fleet, group.first()) else {
            return Err(FleetError::Broken);
        };
        let subject = first.counted.subject;
        let mut takes: Vec<_> = group.iter().filter_map(|charge| self.question(charge)).collect();
        let left = || deadline.saturating_duration_since(Instant::now());
        if left().is_zero() {
            return Err(FleetError::Timeout);
        }
        Tally::add(&self.tally.exact_calls, 1);
        match fleet.take(subject, &takes, left()).await {
            Ok(Answer::Missing) => {}
            answer => return answer,
        }
        for (charge, take) in group.iter().zip(&mut takes) {
            if let (Gauge::Quota(quota), Asked::Quota { known, .. }) =
                (charge.rule.gauge, &mut take.account)
            {
                // So far nothing was charged.
                let used = self.look_up(charge, quota, deadline).await;
                *known = Some(used.map_err(|_| FleetError::Open)?);
            }
        }
        if left().is_zero() {
            return Err(FleetError::Timeout);
        }
        Tally::add(&self.tally.exact_calls, 1);
        fleet.take(subject, &takes, left()).await
    }

    fn question(&self, charge: &Charge<'_>) -> Option<Take> {
        let (account, want) = match charge.rule.gauge {
            Gauge::Quota(quota) => self.quota_question(charge, quota),
            Gauge::Rate(meter) => (Asked::Flow(Flow::of(meter)), charge.cost.get().into()),
            // It is counted here.
            Gauge::Concurrency(_) => return None,
        };
        let rule = Arc::clone(&charge.rule.id);
        let least = charge.cost.get().into();
        Some(Take { rule, account, want, least, shadow: charge.rule.shadow })
    }

    /// Takes in what the fleet's counter said.
    fn hear(
        self: &Arc<Self>,
        charge: &mut Charge<'_>,
        taken: Taken,
        charged: bool,
        asked: crate::telemetry::Moment,
    ) {
        let gauge = charge.rule.gauge;
        if let Gauge::Quota(quota) = gauge {
            let left = self.hear_of_quota(charge, quota, taken, charged);
            charge.outcome = if taken.granted > 0 {
                Outcome::Granted(left)
            } else {
                let until = asked + QUOTA_DENIAL.min(left.next);
                let denial = Denial { gauge, cost: charge.cost, until };
                self.denials.insert(charge.counted.key, denial);
                Outcome::Refused(left.next)
            };
            if charged && taken.granted > 0 {
                charge.origin = Origin::SharedQuota;
            }
            return;
        }
        charge.outcome = if taken.granted > 0 {
            Outcome::Granted(Left::new(taken.remaining, taken.wait))
        } else {
            let denial = Denial { gauge, cost: charge.cost, until: asked + taken.wait };
            self.denials.insert(charge.counted.key, denial);
            Outcome::Refused(taken.wait)
        };
    }

    /// Refuses without asking what was refused before, until the moment that was named then.
    pub(super) fn recall(&self, charge: &mut Charge<'_>) {
        let Some(denial) = self.denials.get(&charge.counted.key) else { return };
        let Denial { gauge, cost, until } = denial;
        let now = self.clock.now();
        if gauge == charge.rule.gauge && cost <= charge.cost && now < until {
            Tally::add(&self.tally.denied_from_memory, 1);
            let wait = match gauge {
                Gauge::Concurrency(_) | Gauge::Rate(_) => until.since(now),
                Gauge::Quota(quota) => self.span(quota).left(self.clock.unix_time()),
            };
            charge.outcome = Outcome::Refused(wait);
        }
    }
}

/// Drives futures side by side until all are done.
pub(super) async fn all(mut work: Vec<Asking<'_>>) {
    std::future::poll_fn(|cx| {
        work.retain_mut(|asking| asking.as_mut().poll(cx).is_pending());
        if work.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
