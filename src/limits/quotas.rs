//! Quotas at work: counted here, taken from the fleet's counters, and made to last.

use super::account::{Account, TERM};
use super::asking::{Asking, all};
use super::calendar::Span;
use super::charge::{Charge, Origin, Outcome, Way};
use super::fleet::{Account as Asked, Answer, Take, Taken};
use super::grant::Left;
use super::leasing::DEADLINE;
use super::ledger::Ledger;
use super::rule::{Precision, Quota};
use super::subject::Counted;
use super::usage::QuotaCount;
use super::vitals::Tally;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Spreads periods over the keys of accounts.
const MIX: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;

/// More than any quota.
const NO_LIMIT: u64 = 1 << 52;

/// Counters that are raised at the same time.
const SIDE_BY_SIDE: usize = 32;

/// A counter of the fleet that somebody looks after beside requests.
pub(super) struct Errand {
    pub(super) key: u128,
    pub(super) rule: Arc<str>,
    pub(super) subject: u128,
    pub(super) span: Span,
    pub(super) permits: u64,
    /// What one request takes of it.
    pub(super) cost: u64,
}

impl Ledger {
    pub(super) fn span(&self, quota: Quota) -> Span {
        Span::around(quota.per, self.clock.unix_time())
    }

    pub(super) fn account_key(&self, charge: &Charge<'_>, quota: Quota) -> u128 {
        key_of(charge.counted, self.span(quota))
    }

    /// Takes one of a quota that is counted here. [`Outcome::Open`] means that the log must be asked.
    pub(super) fn take_quota_here(&self, charge: &mut Charge<'_>, quota: Quota) {
        self.quota_here(charge, quota, self.log.is_some());
    }

    pub(super) fn quota_here(&self, charge: &mut Charge<'_>, quota: Quota, ask_first: bool) {
        let left = self.span(quota).left(self.clock.unix_time());
        let (permits, cost) = (permits(quota), charge.permits());
        let mut key = self.account_key(charge, quota);
        let take = |account: &mut Account| {
            (!ask_first || !account.is_new()).then(|| account.take_here(permits, cost))
        };
        let mut taken = self.account(key, charge, quota, take);
        if taken.is_none() {
            // Who finds no place shares one for each rule.
            key = self.spare_key(charge, quota);
            taken = self.spare_account(charge, quota, take);
        }
        charge.outcome = match taken {
            Some(None) => Outcome::Open,
            Some(Some(Some(remaining))) => {
                charge.origin = Origin::Quota(key);
                Outcome::Granted(Left::new(remaining, left))
            }
            Some(Some(None)) | None => Outcome::Refused(left),
        };
    }

    /// Takes one of those that are held; without, [`Outcome::Open`] and [`Way::Ask`].
    pub(super) fn take_quota_held(self: &Arc<Self>, charge: &mut Charge<'_>, quota: Quota) {
        let key = self.account_key(charge, quota);
        let (permits, cost) = (permits(quota), charge.permits());
        let tasks = u64::from(self.tasks());
        let found = self.account(key, charge, quota, |account| {
            let taken = account.take_held(permits, cost, self.clock.now());
            (taken, taken.and_then(|_| account.wants(permits, cost, tasks)))
        });
        charge.way = Way::Ask;
        let Some((taken, wants)) = found else { return };
        if let Some(remaining) = taken {
            charge.origin = Origin::HeldQuota(key);
            let left = self.span(quota).left(self.clock.unix_time());
            charge.outcome = Outcome::Granted(Left::new(remaining, left));
        }
        if let (Some(want), Some(fleet)) = (wants, &self.fleet) {
            let work = Arc::clone(self).fetch(self.errand(charge, quota), want);
            fleet.start(Box::pin(work));
        }
    }

    /// Takes one of this task's share. [`Outcome::Open`] means that nobody has said yet what is left.
    pub(super) fn take_quota_share(&self, charge: &Charge<'_>, quota: Quota) -> Outcome {
        self.quota_share(charge, quota, self.log.is_some())
    }

    pub(super) fn quota_share(
        &self,
        charge: &Charge<'_>,
        quota: Quota,
        ask_first: bool,
    ) -> Outcome {
        let key = self.account_key(charge, quota);
        let (permits, cost) = (permits(quota), charge.permits());
        let tasks = u64::from(self.tasks());
        let left = self.span(quota).left(self.clock.unix_time());
        let owes = !charge.sent;
        let take = |account: &mut Account| {
            (!ask_first || !account.is_new() || account.held() > 0)
                .then(|| account.take_share(permits, cost, tasks, owes))
        };
        let taken = self.account(key, charge, quota, take);
        match taken.or_else(|| self.spare_account(charge, quota, take)) {
            Some(None) => Outcome::Open,
            Some(Some(Some(remaining))) => Outcome::Granted(Left::new(remaining, left)),
            Some(Some(None)) | None => Outcome::Refused(left),
        }
    }

    /// Counts one that is let through whatever was used.
    pub(super) fn count_without_limit(&self, charge: &Charge<'_>, quota: Quota) {
        let key = self.account_key(charge, quota);
        self.account(key, charge, quota, |account| account.take_uncounted(charge.permits()));
    }

    /// What to ask the fleet's counter of a quota, and for how many.
    pub(super) fn quota_question(&self, charge: &Charge<'_>, quota: Quota) -> (Asked, i64) {
        let span = self.span(quota);
        let (permits, cost) = (permits(quota), charge.permits());
        let tasks = u64::from(self.tasks());
        let key = key_of(charge.counted, span);
        let size = self.accounts.find(key, |account| {
            let size = match charge.rule.precision {
                Precision::Exact => cost,
                Precision::Leased => account.size(permits, cost, tasks),
            };
            size + account.owed()
        });
        (self.asked(span, permits, None), signed(size.unwrap_or(cost)))
    }

    fn asked(&self, span: Span, permits: u64, known: Option<u64>) -> Asked {
        let ends_in = span.left(self.clock.unix_time());
        Asked::Quota { permits, period: span.starts, ends_in, known }
    }

    /// Takes in what the fleet's counter said; what is left by it.
    pub(super) fn hear_of_quota(
        self: &Arc<Self>,
        charge: &Charge<'_>,
        quota: Quota,
        taken: Taken,
        charged: bool,
    ) -> Left {
        let (key, permits) = (self.account_key(charge, quota), permits(quota));
        let granted = u64::try_from(taken.granted).unwrap_or(0);
        let heard = self.account(key, charge, quota, |account| {
            if charged && granted > 0 {
                account.granted(granted, charge.permits(), taken.remaining, permits);
            } else if granted == 0 {
                account.saw(taken.remaining, permits);
            }
            let tend = account.held() > 0 && !std::mem::replace(&mut account.tended, true);
            (account.held(), tend)
        });
        let (held, tend) = heard.unwrap_or_default();
        if let (true, Some(fleet)) = (tend, &self.fleet) {
            fleet.start(Box::pin(Arc::clone(self).tend(self.errand(charge, quota))));
        }
        Left::new(taken.remaining + held, self.span(quota).left(self.clock.unix_time()))
    }

    /// Gives back what a request took and did not use.
    pub(super) fn return_to_fleet(self: &Arc<Self>, charge: &Charge<'_>) {
        let super::rule_set::Gauge::Quota(quota) = charge.rule.gauge else { return };
        let key = self.account_key(charge, quota);
        self.accounts.find(key, |account| account.give_back_held(charge.permits()));
        // It goes back with all else that is held and not in use.
        let tend = self.accounts.find(key, |account| !std::mem::replace(&mut account.tended, true));
        if let (Some(true), Some(fleet)) = (tend, &self.fleet) {
            fleet.start(Box::pin(Arc::clone(self).tend(self.errand(charge, quota))));
        }
    }

    /// Takes more ahead of need.
    async fn fetch(self: Arc<Self>, errand: Errand, want: u64) {
        let taken = self.ask_quota(&errand, signed(want), signed(errand.cost), None).await;
        self.accounts.find(errand.key, |account| {
            account.asking = false;
            if let Some(taken) = taken {
                let granted = u64::try_from(taken.granted).unwrap_or(0);
                account.granted(granted, 0, taken.remaining, errand.permits);
            }
        });
    }

    /// Gives back, each [`TERM`], what is held and not in use, until nothing is held.
    async fn tend(self: Arc<Self>, errand: Errand) {
        loop {
            tokio::time::sleep(TERM).await;
            let (now, tasks) = (self.clock.now(), u64::from(self.tasks()));
            let unused = self
                .accounts
                .find(errand.key, |it| it.unused(now, errand.permits, errand.cost, tasks));
            if unused.is_some_and(|unused| unused > 0) {
                let unused = unused.unwrap_or(0);
                let back = self.ask_quota(&errand, -signed(unused), -signed(unused), None).await;
                self.accounts.find(errand.key, |account| match back {
                    Some(taken) => account.saw(taken.remaining, errand.permits),
                    None => account.keep(unused),
                });
            }
            let over = errand.span.left(self.clock.unix_time()).is_zero();
            let done = self.accounts.find(errand.key, |account| {
                account.tended = account.held() > 0 && !over;
                !account.tended
            });
            if done != Some(false) {
                return;
            }
        }
    }

    /// Raises the fleet's counters to what the log knows. Whether they say less cannot be seen from here:
    /// they may have been flushed, and seeded before this task's last counts were in the log.
    async fn raise(self: Arc<Self>, errands: Vec<(Errand, u64)>) {
        let failed = AtomicU64::new(0);
        for some in errands.chunks(SIDE_BY_SIDE) {
            let work = some.iter().map(|(errand, total)| -> Asking<'_> {
                Box::pin(async {
                    if self.ask_quota(errand, 0, 0, Some(*total)).await.is_none() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            all(work.collect()).await;
        }
        let failed = failed.into_inner();
        if failed > 0 {
            log::debug!(failed; "counters of quotas were not raised; the next batch raises them");
        }
    }

    async fn ask_quota(
        &self,
        errand: &Errand,
        want: i64,
        least: i64,
        known: Option<u64>,
    ) -> Option<Taken> {
        let account = self.asked(errand.span, errand.permits, known);
        let take = Take { rule: Arc::clone(&errand.rule), account, want, least, shadow: false };
        let fleet = self.fleet.as_ref()?;
        match fleet.take(errand.subject, &[take], DEADLINE).await {
            Ok(Answer::Charged(taken) | Answer::Refused(taken)) => taken.first().copied(),
            Ok(Answer::Missing) | Err(_) => None,
        }
    }

    /// What was let through of quotas since this was last asked.
    pub(super) fn drain(&self) -> Vec<QuotaCount> {
        let mut counts = Vec::new();
        self.accounts.each(|account| counts.extend(account.drain()));
        counts
    }

    /// Takes in what the log answered to what was drained.
    pub(super) fn reconcile(self: &Arc<Self>, counts: &[QuotaCount], totals: &[u64]) {
        let mut errands = Vec::new();
        for (count, total) in counts.iter().zip(totals) {
            let span = Span { starts: count.period, ends: count.ends };
            let key = key_of(self.keyring.known(&count.rule, count.subject), span);
            self.accounts.find(key, |account| account.raise(*total));
            let rule = Arc::clone(&count.rule);
            let errand =
                Errand { key, rule, subject: count.subject, span, permits: NO_LIMIT, cost: 1 };
            errands.push((errand, *total));
        }
        if let Some(fleet) = &self.fleet {
            fleet.start(Box::pin(Arc::clone(self).raise(errands)));
        }
    }

    pub(super) fn errand(&self, charge: &Charge<'_>, quota: Quota) -> Errand {
        let span = self.span(quota);
        Errand {
            key: key_of(charge.counted, span),
            rule: Arc::clone(&charge.rule.id),
            subject: charge.counted.subject,
            span,
            permits: permits(quota),
            cost: charge.permits(),
        }
    }

    pub(super) fn account<R>(
        &self,
        key: u128,
        charge: &Charge<'_>,
        quota: Quota,
        work: impl FnOnce(&mut Account) -> R,
    ) -> Option<R> {
        let now = self.clock.unix_time();
        let make = || {
            let durable = charge.rule.shared || self.fleet.is_none();
            let kept = durable && (self.fleet.is_some() || self.log.is_some());
            let span = Span::around(quota.per, now);
            Account::new(&charge.rule.id, charge.counted.subject, span, durable, kept)
        };
        self.accounts.entry(key, now, make, |account| {
            account.touched = now.as_secs();
            work(account)
        })
    }

    /// The account that those share who find no room. The log does not hear of it: nobody can say
    /// whose it is.
    fn spare_account<R>(
        &self,
        charge: &Charge<'_>,
        quota: Quota,
        work: impl FnOnce(&mut Account) -> R,
    ) -> Option<R> {
        Tally::add(&self.tally.overflowed, 1);
        let span = self.span(quota);
        let make = || Account::new(&charge.rule.id, charge.counted.subject, span, false, false);
        self.spare.entry(self.spare_key(charge, quota), self.clock.unix_time(), make, work)
    }

    fn spare_key(&self, charge: &Charge<'_>, quota: Quota) -> u128 {
        mixed(charge.rule.overflow_key(), self.span(quota))
    }
}

const fn key_of(counted: Counted, span: Span) -> u128 {
    mixed(counted.key, span)
}

const fn mixed(key: u128, span: Span) -> u128 {
    key ^ (span.starts as u128).wrapping_mul(MIX)
}

fn permits(quota: Quota) -> u64 {
    quota.permits.get().into()
}

fn signed(permits: u64) -> i64 {
    i64::try_from(permits).unwrap_or(i64::MAX)
}
