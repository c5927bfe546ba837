//! Everything that is counted, here and with the fleet, and what a rule does when it cannot be.
//!
//! Must stay true: a lock is held for a few dozen instructions and never while something is awaited.

use super::account::Account;
use super::charge::{Charge, Origin, Outcome, Way};
use super::counters::{Counters, Held};
use super::fleet::FleetCounters;
use super::gcra::{Counter, Meter};
use super::grant::Left;
use super::in_flight::InFlight;
use super::lease::Lease;
use super::rule::{OnStoreFailure, Period, Precision};
use super::rule_set::{Gauge, Prepared};
use super::seeding::Unread;
use super::slots::Slots;
use super::subject::Keyring;
use super::usage::UsageLog;
use super::vitals::Tally;
use crate::telemetry::{Clock, Moment};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Leases, and accounts of quotas: some 300 bytes each.
const SLOTS: usize = 200_000;
/// Refusals that are remembered.
const DENIALS: usize = 50_000;
/// A rule that lets each task have less than this many requests in a second is not leased.
const LEAST_LEASED: u64 = 10;
/// When to come back if too many requests are in flight: nobody knows when one ends.
const COME_BACK: Duration = Duration::from_secs(1);
/// A burst is leased when it lasts for one part in so many of a second.
const LEASES_A_SECOND: u64 = 10;

/// What a counter of the fleet had not.
#[derive(Clone, Copy)]
pub(super) struct Denial {
    pub(super) gauge: Gauge,
    pub(super) cost: NonZeroU32,
    pub(super) until: Moment,
}

/// All counters.
pub(super) struct Ledger {
    pub(super) clock: Clock,
    pub(super) keyring: Keyring,
    pub(super) counters: Counters,
    pub(super) accounts: Slots<Account>,
    /// One account for each quota, for those subjects that find no room.
    pub(super) spare: Slots<Account>,
    pub(super) leases: Slots<Lease>,
    pub(super) in_flight: Arc<InFlight>,
    /// Until when a counter of the fleet has too little, by the rule and what was asked of it then.
    pub(super) denials: Cache<u128, Denial>,
    pub(super) fleet: Option<Arc<dyn FleetCounters>>,
    pub(super) log: Option<Arc<dyn UsageLog>>,
    pub(super) tally: Tally,
    /// Tasks, as far as others than the fleet's counters know.
    pub(super) expected: AtomicU32,
    /// When this began to count: a quota's period that began later began with nothing.
    pub(super) since: Duration,
    pub(super) unread: Mutex<Unread>,
}

impl Ledger {
    pub(super) fn new(
        clock: Clock,
        keyring: Keyring,
        entries: usize,
        fleet: Option<Arc<dyn FleetCounters>>,
        log: Option<Arc<dyn UsageLog>>,
    ) -> Self {
        Self {
            since: clock.unix_time(),
            unread: Mutex::default(),
            clock,
            keyring,
            counters: Counters::new(entries),
            accounts: Slots::new(SLOTS),
            spare: Slots::new(SLOTS),
            leases: Slots::new(SLOTS),
            in_flight: InFlight::new(),
            // It takes its memory at once.
            denials: Cache::new(if fleet.is_some() { DENIALS } else { 1 }),
            fleet,
            log,
            tally: Tally::default(),
            expected: AtomicU32::new(1),
        }
    }

    /// How many tasks a share is divided by.
    pub(super) fn tasks(&self) -> u32 {
        let seen = self.fleet.as_ref().map_or(0, |fleet| fleet.tasks());
        self.expected.load(Ordering::Relaxed).max(seen).max(1)
    }

    /// How a rule is counted for this subject now.
    pub(super) fn way(&self, rule: &Prepared, subject: u128) -> Way {
        match &self.fleet {
            Some(fleet) if rule.shared && rule.is_timed() => {
                if !fleet.ready(subject) {
                    Way::Fall
                } else if self.is_leased(rule) {
                    Way::Lease
                } else {
                    Way::Ask
                }
            }
            _ => Way::Here,
        }
    }

    fn is_leased(&self, rule: &Prepared) -> bool {
        let Gauge::Rate(meter) = rule.gauge else { return rule.precision == Precision::Leased };
        let rate = meter.rate();
        let (permits, seconds) = (u64::from(rate.permits.get()), seconds(rate.per));
        let least = LEAST_LEASED.saturating_mul(rule.fixed_cost().get().into());
        rule.precision == Precision::Leased
            && permits >= least.saturating_mul(u64::from(self.tasks()) * seconds)
            && u64::from(meter.burst().get()) * LEASES_A_SECOND * seconds >= permits
    }

    /// Takes a place among the requests in flight.
    pub(super) fn take_place(&self, charge: &mut Charge<'_>, most: NonZeroU32) {
        charge.outcome = match self.in_flight.take(charge.counted.key, most) {
            Some((permit, left)) => {
                charge.permit = Some(permit);
                Outcome::Granted(Left::new(left.into(), Duration::ZERO))
            }
            None => Outcome::Refused(COME_BACK),
        };
    }

    /// Takes permits of a rate that is counted here, in full or as a share.
    pub(super) fn take_counter(
        charge: &mut Charge<'_>,
        meter: Meter,
        held: &mut Held<'_>,
        now: Moment,
    ) {
        let mut key = charge.counted.key;
        let mut spare = false;
        let counter = match held.counter(key, meter, now) {
            Some(counter) => Some(counter),
            None => {
                key = charge.rule.overflow_key();
                spare = true;
                held.overflow(key, meter, now)
            }
        };
        // There is always room for an overflow counter; if there were none, nothing gets through.
        let Some(counter) = counter else {
            charge.outcome = Outcome::Refused(meter.window());
            return;
        };
        counter.adopt(meter, now);
        let before = *counter;
        charge.outcome = match counter.take(charge.cost, now) {
            Ok(standing) => {
                charge.origin = Origin::Counter { key, spare, before, meter, then: now };
                Outcome::Granted(Left::new(standing.remaining().into(), standing.next()))
            }
            Err(wait) => Outcome::Refused(wait),
        };
    }

    /// Does what the rule says for the time when it cannot be counted together.
    pub(super) fn fall_back(&self, charge: &mut Charge<'_>) {
        if let (OnStoreFailure::Share, Gauge::Rate(meter)) =
            (charge.rule.on_failure, charge.rule.gauge)
        {
            let share = meter.share(self.tasks(), charge.rule.fixed_cost());
            let mut held = self.counters.hold(std::iter::once(charge.counted.key));
            Self::take_counter(charge, share, &mut held, self.clock.now());
            drop(held);
            self.tally.fell_back(OnStoreFailure::Share);
        } else {
            self.fall_back_beside_counters(charge);
        }
    }

    /// The same, for all but a share of a rate.
    pub(super) fn fall_back_beside_counters(&self, charge: &mut Charge<'_>) {
        charge.outcome = match (charge.rule.on_failure, charge.rule.gauge) {
            (OnStoreFailure::Closed, Gauge::Quota(_) | Gauge::Rate(_)) => Outcome::Unavailable,
            (OnStoreFailure::Open, Gauge::Rate(_)) => Outcome::Uncounted,
            (OnStoreFailure::Open, Gauge::Quota(quota)) => {
                self.count_without_limit(charge, quota);
                Outcome::Uncounted
            }
            (OnStoreFailure::Share, Gauge::Quota(quota)) => self.take_quota_share(charge, quota),
            // Counted by the caller, who holds the counter, or never by the fleet.
            (OnStoreFailure::Share, Gauge::Rate(_)) | (_, Gauge::Concurrency(_)) => charge.outcome,
        };
        self.tally.fell_back(charge.rule.on_failure);
    }

    /// Puts back, exactly, what was taken from counters that have been held since.
    pub(super) fn restore(charges: &mut super::few::Few<Charge<'_>>, held: &mut Held<'_>) {
        // Backwards, so that a counter met twice ends as it began.
        for charge in charges.iter().rev() {
            if let Origin::Counter { key, spare, before, .. } = charge.origin {
                if spare {
                    held.restore_overflow(key, before);
                } else {
                    held.restore(key, before);
                }
            }
        }
        for charge in charges.iter_mut() {
            if matches!(charge.origin, Origin::Counter { .. }) {
                charge.origin = Origin::Gone;
            }
        }
    }

    /// Puts back what can be.
    pub(super) fn give_back(self: &Arc<Self>, charge: &mut Charge<'_>) {
        charge.permit = None;
        let (key, cost, permits) = (charge.counted.key, charge.cost, charge.permits());
        match std::mem::replace(&mut charge.origin, Origin::Gone) {
            Origin::Gone => {}
            Origin::Counter { key, spare, meter, then, .. } => {
                let mut held = self.counters.hold(std::iter::once(key));
                let now = self.clock.now();
                let counter: Option<&mut Counter> =
                    if spare { held.spare(key) } else { held.known(key) };
                counter.into_iter().for_each(|it| it.give_back(cost, meter, then, now));
            }
            Origin::Lease(dies) => {
                let now = self.clock.now();
                self.leases.find(key, |lease| lease.give_back(cost, dies, now));
            }
            Origin::Quota(account) => {
                // A key is a subject's or a rule's, so only one of them has it.
                let back = |account: &mut Account| account.give_back_here(permits);
                if self.accounts.find(account, back).is_none() {
                    self.spare.find(account, back);
                }
            }
            Origin::HeldQuota(account) => {
                self.accounts.find(account, |account| account.give_back_held(permits));
            }
            Origin::SharedQuota => self.return_to_fleet(charge),
        }
    }
}

const fn seconds(per: Period) -> u64 {
    per.span().as_secs()
}
