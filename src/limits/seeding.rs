//! What the log knows of a quota, asked when nothing here or in Redis says what is used.
//!
//! A question goes on beside requests, so that its answer is not lost with the request that waited in
//! vain. Until somebody has answered, a share is a share of nothing known: an error of the log is not
//! an answer of zero.
//!
//! Must stay true: only an answer makes an account known; a request waits for none beyond its deadline.

use super::account::Account;
use super::charge::{Charge, Outcome};
use super::fleet::FleetError;
use super::grant::Left;
use super::ledger::Ledger;
use super::quotas::Errand;
use super::rule::{OnStoreFailure, Quota};
use super::usage::UsageError;
use crate::telemetry::Moment;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Between two warnings.
const QUIET: Duration = Duration::from_secs(10);

/// Look-ups that failed since the log was told.
#[derive(Debug, Default)]
pub(super) struct Unread {
    told: Option<Moment>,
    since: u64,
}

impl Unread {
    /// Counts one; how many there are, if it is time to say so.
    fn count(&mut self, now: Moment) -> Option<u64> {
        self.since += 1;
        if self.told.is_some_and(|told| now.since(told) < QUIET) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

impl Ledger {
    /// Asks the log first, for as long as there is time, then takes one of a quota that is counted here.
    pub(super) async fn take_quota_here_late(
        self: &Arc<Self>,
        charge: &mut Charge<'_>,
        quota: Quota,
        deadline: Instant,
    ) {
        let key = self.account_key(charge, quota);
        let mut known = self.began_here(quota);
        if let Some(log) = &self.log {
            let span = self.span(quota);
            let asked = log.quota_used(&charge.rule.id, charge.counted.subject, span.starts);
            match tokio::time::timeout_at(deadline, asked).await {
                Ok(Ok(total)) => {
                    self.accounts.find(key, |account| account.seed(total));
                    known = true;
                }
                Ok(Err(error)) => self.is_unread(&error),
                Err(_) => {}
            }
        }
        if known {
            return self.quota_here(charge, quota, false);
        }
        charge.outcome = match charge.rule.on_failure {
            OnStoreFailure::Closed => Outcome::Unavailable,
            OnStoreFailure::Open => {
                self.count_without_limit(charge, quota);
                Outcome::Uncounted
            }
            OnStoreFailure::Share => self.take_blind(charge, quota),
        };
        self.tally.fell_back(charge.rule.on_failure);
    }

    /// Asks the log what is left, for as long as there is time, then takes one of this task's share.
    pub(super) async fn take_quota_share_late(
        self: &Arc<Self>,
        charge: &mut Charge<'_>,
        quota: Quota,
        deadline: Instant,
    ) {
        let known = self.look_up(charge, quota, deadline).await.is_ok() || self.began_here(quota);
        charge.outcome = self.quota_share(charge, quota, !known);
        if charge.outcome == Outcome::Open {
            charge.outcome = self.take_blind(charge, quota);
        }
    }

    /// Whether the period began while this was there to count it: with nothing.
    fn began_here(&self, quota: Quota) -> bool {
        self.span(quota).starts >= self.since.as_secs()
    }

    fn take_blind(&self, charge: &Charge<'_>, quota: Quota) -> Outcome {
        let key = self.account_key(charge, quota);
        match self.account(key, charge, quota, |account| account.take_blind(charge.permits())) {
            Some(true) => {
                let left = self.span(quota).left(self.clock.unix_time());
                Outcome::Granted(Left::new(0, left))
            }
            Some(false) | None => Outcome::Unavailable,
        }
    }

    /// Waits until the log has said what is used of a quota.
    pub(super) async fn look_up(
        self: &Arc<Self>,
        charge: &Charge<'_>,
        quota: Quota,
        deadline: Instant,
    ) -> Result<u64, FleetError> {
        let key = self.account_key(charge, quota);
        let Some((news, before)) = self.begin_seeding(charge, quota) else {
            return self.ask_log(charge, quota, deadline).await;
        };
        let mut told = std::pin::pin!(news.notified());
        told.as_mut().enable();
        let busy = self.accounts.find(key, |account| account.seeding.is_some());
        if busy == Some(true) && tokio::time::timeout_at(deadline, told).await.is_err() {
            return Err(FleetError::Timeout);
        }
        let used = self
            .accounts
            .find(key, |account: &mut Account| (account.answers != before).then(|| account.used()));
        used.flatten().ok_or(FleetError::Broken)
    }

    /// The same, where there is no account that could take the answer in.
    async fn ask_log(
        &self,
        charge: &Charge<'_>,
        quota: Quota,
        deadline: Instant,
    ) -> Result<u64, FleetError> {
        let Some(log) = &self.log else { return Ok(0) };
        let span = self.span(quota);
        let asked = log.quota_used(&charge.rule.id, charge.counted.subject, span.starts);
        let answer = tokio::time::timeout_at(deadline, asked).await;
        answer.map_err(|_| FleetError::Timeout)?.map_err(|error| {
            self.is_unread(&error);
            FleetError::Broken
        })
    }

    /// Has somebody read from the log what is used, if nobody does yet: who is told then, and how often
    /// the log had answered before.
    fn begin_seeding(
        self: &Arc<Self>,
        charge: &Charge<'_>,
        quota: Quota,
    ) -> Option<(Arc<Notify>, u32)> {
        let key = self.account_key(charge, quota);
        let (news, new, before) = self.account(key, charge, quota, |account| {
            let new = account.seeding.is_none();
            (Arc::clone(account.seeding.get_or_insert_default()), new, account.answers)
        })?;
        if let (true, Some(fleet)) = (new, &self.fleet) {
            let (ledger, errand) = (Arc::clone(self), self.errand(charge, quota));
            fleet.start(Box::pin(async move { ledger.read_log(&errand).await }));
        }
        Some((news, before))
    }

    async fn read_log(&self, errand: &Errand) {
        let total = match &self.log {
            None => Ok(0),
            Some(log) => log.quota_used(&errand.rule, errand.subject, errand.span.starts).await,
        };
        let total = total.inspect_err(|error| self.is_unread(error)).ok();
        let news = self.accounts.find(errand.key, |account| {
            total.into_iter().for_each(|total| account.seed(total));
            account.seeding.take()
        });
        news.flatten().iter().for_each(|news| news.notify_waiters());
    }

    fn is_unread(&self, error: &UsageError) {
        if let Some(quotas) = self.unread.lock().count(self.clock.now()) {
            log::warn!(error:% = error, quotas;
                "what was used of a quota cannot be read; next to nothing is let through of it until it can");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ups_that_fail_are_told_once_in_a_while_with_their_number() {
        let (mut unread, began) = (Unread::default(), Moment::from_nanos(1 << 50));
        assert_eq!(unread.count(began), Some(1));
        assert_eq!((0..5).filter_map(|n| unread.count(began + Duration::from_secs(n))).count(), 0);
        assert_eq!(unread.count(began + QUIET), Some(6));
    }
}
