//! Leases at work: who takes from them, who asks for more, and who waits for an answer.
//!
//! One question at a time is under way for each rule and subject, beside requests. A request waits for
//! its answer only when nothing was taken ahead for it.

use super::charge::{Charge, Origin, Outcome, Way};
use super::fleet::{Account as Asked, Answer, Flow, Take};
use super::gcra::Meter;
use super::grant::Left;
use super::lease::{Lease, Next, Step};
use super::ledger::Ledger;
use super::vitals::Tally;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a question may take.
pub(super) const DEADLINE: Duration = Duration::from_millis(20);

/// Whom permits are asked for, and of what.
struct Errand {
    subject: u128,
    key: u128,
    /// What the request takes for which it was sent.
    cost: NonZeroU32,
    take: Take,
}

impl Ledger {
    /// Takes permits that are here. [`Outcome::Open`] means that only an answer can tell. When there is
    /// no room for one more lease, the rule is counted exactly.
    pub(super) fn take_leased(self: &Arc<Self>, charge: &mut Charge<'_>, meter: Meter) {
        if !self.try_lease(charge, meter, true) {
            charge.way = Way::Ask;
        }
    }

    /// Whether there is room for the lease at all.
    fn try_lease(self: &Arc<Self>, charge: &mut Charge<'_>, meter: Meter, first: bool) -> bool {
        // Read before the lock is taken: the lease then looks older than it is, never younger, to
        // itself; whether a permit is dead is asked under the lock.
        let since = self.clock.now();
        let found = self.leases.entry(charge.counted.key, since, Lease::default, |lease| {
            let now = self.clock.now();
            lease.go_by(meter);
            (lease.take(charge.cost, now, first), lease.wants(charge.cost, now))
        });
        let Some((step, wants)) = found else { return false };
        match step {
            Step::Granted { dies, remaining, next } => {
                charge.origin = Origin::Lease(dies);
                charge.outcome = Outcome::Granted(Left::new(remaining, next));
            }
            Step::Empty(wait) => charge.outcome = Outcome::Refused(wait),
            Step::Unknown => charge.outcome = Outcome::Open,
        }
        if let Some(want) = wants {
            self.send_for(charge, meter, want);
        }
        true
    }

    /// Waits until there is a permit or a refusal; falls back when nobody answers by then.
    pub(super) async fn wait_for_lease(
        self: &Arc<Self>,
        charge: &mut Charge<'_>,
        meter: Meter,
        deadline: Instant,
    ) {
        let key = charge.counted.key;
        let Some((news, failures)) =
            self.leases.find(key, |lease| (lease.news(), lease.failures()))
        else {
            return self.fall_back(charge);
        };
        loop {
            let mut told = std::pin::pin!(news.notified());
            told.as_mut().enable();
            self.try_lease(charge, meter, false);
            if charge.outcome != Outcome::Open {
                return;
            }
            let failed = self.leases.find(key, |lease| lease.failures() != failures);
            if failed != Some(false) || tokio::time::timeout_at(deadline, told).await.is_err() {
                return self.fall_back(charge);
            }
        }
    }

    /// Has somebody ask for permits, beside requests.
    fn send_for(self: &Arc<Self>, charge: &Charge<'_>, meter: Meter, want: u32) {
        let Some(fleet) = &self.fleet else { return };
        let errand = Errand {
            subject: charge.counted.subject,
            key: charge.counted.key,
            cost: charge.cost,
            take: Take {
                rule: Arc::clone(&charge.rule.id),
                account: Asked::Flow(Flow::of(meter)),
                want: want.max(charge.cost.get()).into(),
                least: charge.cost.get().into(),
                shadow: false,
            },
        };
        fleet.start(Box::pin(Arc::clone(self).keep(errand)));
    }

    /// Asks, and asks again for as long as there is too little for those who want it.
    async fn keep(self: Arc<Self>, mut errand: Errand) {
        while let Some(pause) = self.ask_for(&errand).await {
            tokio::time::sleep(pause).await;
            let now = self.clock.now();
            let found = self.leases.find(errand.key, |lease| (lease.poll(now), lease.meter()));
            let Some((Some(want), meter)) = found else { return };
            errand.take.want = want.max(errand.cost.get()).into();
            if let Some(meter) = meter {
                errand.take.account = Asked::Flow(Flow::of(meter));
            }
        }
    }

    /// Asks once; how long to pause before asking again, if that is to be done.
    async fn ask_for(&self, errand: &Errand) -> Option<Duration> {
        let fleet = self.fleet.as_ref()?;
        // Before the question is sent: from here on, the batch ages.
        let asked = self.clock.now();
        Tally::add(&self.tally.leases_asked, 1);
        let answer = fleet.take(errand.subject, std::slice::from_ref(&errand.take), DEADLINE).await;
        let taken = match answer {
            Ok(Answer::Charged(taken) | Answer::Refused(taken)) => taken.first().copied(),
            Ok(Answer::Missing) | Err(_) => None,
        };
        let told = self.leases.find(errand.key, |lease| {
            let next = match taken {
                Some(taken) => lease.answered(errand.cost, asked, self.clock.now(), taken),
                None => {
                    lease.failed();
                    Next::Rest
                }
            };
            (next, lease.listeners(), lease.take_died())
        });
        let (next, listeners, died) = told?;
        let granted = taken.map_or(0, |taken| u64::try_from(taken.granted).unwrap_or(0));
        Tally::add(&self.tally.permits_leased, granted);
        Tally::add(&self.tally.permits_died, died);
        listeners.iter().for_each(|news: &Arc<Notify>| news.notify_waiters());
        match next {
            Next::Poll(pause) => Some(pause),
            Next::Rest => None,
        }
    }
}
