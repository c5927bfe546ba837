//! The rules of a plan or a route, prepared once for each snapshot.

use super::calendar;
use super::gcra::Meter;
use super::rule::{Cost, Measure, Mode, OnStoreFailure, Precision, Quota, Rule, Scope, Subject};
use super::subject::{Counted, Keyring, Named, RuleKey, Subjects};
use super::wire;
use http::HeaderValue;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Rules that apply together. Made by [`Limiter::prepare`](super::Limiter::prepare).
///
/// It holds no counters: those stay with the limiter, under the rules' ids.
#[derive(Clone, Default)]
pub struct RuleSet {
    rules: Vec<Prepared>,
    policy: Option<HeaderValue>,
}

impl RuleSet {
    pub(super) fn new(rules: &[Rule], keyring: &Keyring) -> Self {
        let rules: Vec<_> = rules
            .iter()
            .filter(|rule| rule.mode != Mode::Off)
            .map(|rule| Prepared::new(rule, keyring))
            .collect();
        let policies: Vec<_> =
            rules.iter().filter(|rule| !rule.shadow).map(Prepared::policy).collect();
        let policy = wire::join(policies.iter().map(String::as_bytes));
        Self { rules, policy }
    }

    pub(super) fn rules(&self) -> &[Prepared] {
        &self.rules
    }

    /// `RateLimit-Policy` of the rules that are enforced.
    pub(super) const fn policy(&self) -> Option<&HeaderValue> {
        self.policy.as_ref()
    }
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|rule| &rule.id)).finish()
    }
}

/// What a rule counts, ready for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gauge {
    Concurrency(NonZeroU32),
    Quota(Quota),
    Rate(Meter),
}

/// The highest cost that can be paid at all.
const fn most(measure: Measure) -> NonZeroU32 {
    match measure {
        // A request is one request.
        Measure::Concurrency(_) => NonZeroU32::MIN,
        Measure::Quota(quota) => quota.permits,
        Measure::Rate { burst, .. } => burst,
    }
}

/// One rule, ready to be counted.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) id: Arc<str>,
    pub(super) name: Arc<str>,
    /// The name as it stands in header fields.
    pub(super) quoted: Arc<str>,
    pub(super) gauge: Gauge,
    pub(super) shadow: bool,
    /// Whether all tasks count together.
    pub(super) shared: bool,
    pub(super) precision: Precision,
    pub(super) on_failure: OnStoreFailure,
    subject: Subject,
    cost: Cost,
    most: NonZeroU32,
    key: RuleKey,
    overflow: u128,
}

impl Prepared {
    fn new(rule: &Rule, keyring: &Keyring) -> Self {
        let key = keyring.rule(&rule.id);
        Self {
            id: Arc::clone(&rule.id),
            name: Arc::clone(&rule.name),
            quoted: wire::quote(&rule.name),
            gauge: match rule.measure {
                Measure::Concurrency(most) => Gauge::Concurrency(most),
                Measure::Quota(quota) => Gauge::Quota(quota),
                Measure::Rate { rate, burst } => Gauge::Rate(Meter::new(rate, burst)),
            },
            shadow: rule.mode == Mode::Shadow,
            shared: rule.scope == Scope::Fleet,
            precision: rule.precision,
            on_failure: rule.on_store_failure,
            subject: rule.subject.clone(),
            cost: rule.cost.clone(),
            most: most(rule.measure),
            key,
            overflow: keyring.overflow(key),
        }
    }

    fn policy(&self) -> String {
        let window = match self.gauge {
            Gauge::Concurrency(most) => return wire::concurrency_policy(&self.quoted, most.get()),
            Gauge::Quota(quota) => calendar::length(quota.per),
            Gauge::Rate(meter) => meter.window(),
        };
        wire::policy(&self.quoted, self.allowed(), window)
    }

    /// The most that one subject can take at once.
    pub(super) fn allowed(&self) -> u32 {
        match self.gauge {
            Gauge::Concurrency(most) => most.get(),
            Gauge::Quota(quota) => quota.permits.get(),
            Gauge::Rate(meter) => meter.burst().get(),
        }
    }

    /// Whether it can be said when there is more.
    pub(super) const fn is_timed(&self) -> bool {
        !matches!(self.gauge, Gauge::Concurrency(_))
    }

    /// How many permits this request takes.
    pub(super) fn cost_of(&self, subjects: &Subjects<'_>) -> NonZeroU32 {
        match &self.cost {
            Cost::Fixed(permits) => *permits.min(&self.most),
            Cost::Expression(expression) => {
                let number = subjects.facts.known().and_then(|known| expression.number(known));
                // Nothing is free, and nothing costs more than there can be: what nobody can tell costs that,
                // since it is the client who made it so.
                let most = i64::from(self.most.get());
                let permits = number.unwrap_or(most).clamp(1, most);
                u32::try_from(permits).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
            }
        }
    }

    /// How many permits every request takes; what a share of the rule lets through at the least.
    pub(super) fn fixed_cost(&self) -> NonZeroU32 {
        match &self.cost {
            Cost::Fixed(permits) => *permits.min(&self.most),
            Cost::Expression(_) => NonZeroU32::MIN,
        }
    }

    /// Whom it counts a request for.
    pub(super) fn counted(&self, named: &mut Named<'_>) -> Counted {
        named.counted(&self.subject, self.key)
    }

    /// The key of the counter for the subjects that have none.
    pub(super) const fn overflow_key(&self) -> u128 {
        self.overflow
    }
}
