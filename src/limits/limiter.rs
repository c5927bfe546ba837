//! The limits of a request, reserved as one step: all rules let it through, or none is charged.
//!
//! Must stay true: a request that is let through allocates nothing here unless it meets more rules
//! than [`Few`] holds, two sets of enforced rules, or a rule in shadow mode that would refuse; the
//! clock is read once, while the counters are held, so no counter ever sees time go back.

use super::counters::{Counters, Held};
use super::few::Few;
use super::gcra::{Counter, Standing};
use super::grant::{Grant, Nearest};
use super::refused::Refused;
use super::rule::Rule;
use super::rule_set::{Prepared, RuleSet};
use super::subject::{Keyring, Subjects};
use super::wire;
use crate::telemetry::{Clock, Moment};
use http::HeaderValue;
use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How many counters a process keeps unless told otherwise: 65 MB when all are in use.
const ENTRIES: usize = 1_000_000;

/// The counters of all rules. One for each process; it outlives every snapshot.
///
/// Counters are kept under the rule's id and the subject, so a reload changes nothing for rules
/// that keep their id. Where such a rule's rate or burst has changed, permits in use stay in use
/// and are regained at the new rate, with at most the new burst in use.
pub struct Limiter {
    clock: Clock,
    keyring: Keyring,
    counters: Counters,
}

impl Limiter {
    /// A limiter with room for a million counters.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Self::with_capacity(clock, ENTRIES)
    }

    /// A limiter with room for about `entries` counters (each costs up to 64 bytes). Subjects
    /// that find none free share one for each rule.
    #[must_use]
    pub fn with_capacity(clock: Clock, entries: usize) -> Arc<Self> {
        Arc::new(Self { clock, keyring: Keyring::new(), counters: Counters::new(entries) })
    }

    /// How often a request was counted by its rule's shared counter, because all others were in
    /// use. Above zero means: more subjects are active than the limiter has counters.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.counters.overflowed()
    }

    /// Makes rules ready to be reserved. Rules that are off are left out.
    #[must_use]
    pub fn prepare(&self, rules: &[Rule]) -> RuleSet {
        RuleSet::new(rules, &self.keyring)
    }

    /// Takes one request from every rule of `sets`, or from none.
    ///
    /// # Errors
    /// Rules that have nothing left; the longest wait among them is the answer.
    pub fn reserve(&self, sets: &[&RuleSet], subjects: &Subjects<'_>) -> Result<Grant, Refused> {
        if sets.iter().all(|set| set.rules().is_empty()) {
            return Ok(Grant::default());
        }
        let mut charges = Few::new();
        for rule in sets.iter().flat_map(|set| set.rules()) {
            charges.push(Charge::new(rule, subjects));
        }
        let mut held = self.counters.hold(charges.iter().map(|charge| charge.key));
        let now = self.clock.now();
        for charge in charges.iter_mut() {
            charge.take(&mut held, now);
        }
        let refused = charges.iter().any(|charge| charge.wait().is_some());
        if refused {
            // Backwards, so that a counter met twice ends as it began.
            charges.iter().rev().for_each(|charge| charge.give_back(&mut held));
        }
        drop(held);
        let policy = policy(sets);
        if refused { Err(refuse(&charges, policy)) } else { Ok(grant(&charges, policy)) }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("overflowed", &self.overflowed()).finish_non_exhaustive()
    }
}

/// What one rule says to one request.
struct Charge<'r> {
    rule: &'r Prepared,
    key: u128,
    overflowed: bool,
    /// The counter before anything was taken.
    before: Counter,
    outcome: Result<Standing, Duration>,
}

impl<'r> Charge<'r> {
    fn new(rule: &'r Prepared, subjects: &Subjects<'_>) -> Self {
        let before = Counter::idle(rule.meter);
        let outcome = Err(Duration::ZERO);
        Self { rule, key: rule.key(subjects), overflowed: false, before, outcome }
    }

    fn take(&mut self, held: &mut Held<'_>, now: Moment) {
        let meter = self.rule.meter;
        let counter = match held.counter(self.key, meter, now) {
            Some(counter) => Some(counter),
            None => {
                self.key = self.rule.overflow_key();
                self.overflowed = true;
                held.overflow(self.key, meter, now)
            }
        };
        // There is always room for an overflow counter; if there were none, nothing gets through.
        self.outcome = counter.map_or(Err(meter.window()), |counter| {
            counter.adopt(meter, now);
            self.before = *counter;
            counter.take(now)
        });
    }

    fn give_back(&self, held: &mut Held<'_>) {
        match (&self.outcome, self.overflowed) {
            (Err(_), _) => {}
            (Ok(_), true) => held.restore_overflow(self.key, self.before),
            (Ok(_), false) => held.restore(self.key, self.before),
        }
    }

    /// How long the request must wait for this rule, if the rule can say so.
    fn wait(&self) -> Option<Duration> {
        self.outcome.err().filter(|_| !self.rule.shadow)
    }
}

fn policy(sets: &[&RuleSet]) -> Option<HeaderValue> {
    let mut policies = sets.iter().filter_map(|set| set.policy());
    match (policies.next(), policies.next()) {
        (None, _) => None,
        (Some(only), None) => Some(only.clone()),
        (Some(_), Some(_)) => {
            wire::policies(sets.iter().filter_map(|set| set.policy()).map(HeaderValue::as_bytes))
        }
    }
}

fn grant(charges: &Few<Charge<'_>>, policy: Option<HeaderValue>) -> Grant {
    let mut grant = Grant { policy, ..Grant::default() };
    let mut nearest: Option<(&Prepared, Standing)> = None;
    for charge in charges.iter() {
        match charge.outcome {
            Err(_) => grant.would_refuse.push(Arc::clone(&charge.rule.id)),
            Ok(_) if charge.rule.shadow => {}
            Ok(standing) => {
                if nearest.is_none_or(|(_, other)| nearness(standing) < nearness(other)) {
                    nearest = Some((charge.rule, standing));
                }
            }
        }
    }
    grant.nearest =
        nearest.map(|(rule, standing)| Nearest { quoted: Arc::clone(&rule.quoted), standing });
    grant
}

fn nearness(standing: Standing) -> (u32, Reverse<Duration>) {
    (standing.remaining(), Reverse(standing.next()))
}

fn refuse(charges: &Few<Charge<'_>>, policy: Option<HeaderValue>) -> Refused {
    let refusing = || charges.iter().filter_map(|charge| Some((charge.rule, charge.wait()?)));
    let mut refused = Refused {
        rule: Arc::default(),
        retry_after: Duration::ZERO,
        quoted: Arc::default(),
        policy,
        violated: refusing().map(|(rule, _)| Arc::clone(&rule.name)).collect(),
    };
    if let Some((rule, wait)) = refusing().max_by_key(|(_, wait)| *wait) {
        refused.rule = Arc::clone(&rule.id);
        refused.quoted = Arc::clone(&rule.quoted);
        refused.retry_after = wait;
    }
    refused
}
