//! The rules of a plan or a route, prepared once for each snapshot.

use super::calendar;
use super::gcra::Meter;
use super::rule::{Measure, Mode, OnStoreFailure, Precision, Quota, Rule, Scope, Subject};
use super::subject::{Counted, Keyring, Named, RuleKey};
use super::wire;
use http::HeaderValue;
use std::fmt;
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
    Quota(Quota),
    Rate(Meter),
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
                Measure::Quota(quota) => Gauge::Quota(quota),
                Measure::Rate { rate, burst } => Gauge::Rate(Meter::new(rate, burst)),
            },
            shadow: rule.mode == Mode::Shadow,
            shared: rule.scope == Scope::Fleet,
            precision: rule.precision,
            on_failure: rule.on_store_failure,
            subject: rule.subject.clone(),
            key,
            overflow: keyring.overflow(key),
        }
    }

    fn policy(&self) -> String {
        let (permits, window) = match self.gauge {
            Gauge::Quota(quota) => (quota.permits, calendar::length(quota.per)),
            Gauge::Rate(meter) => (meter.burst(), meter.window()),
        };
        wire::policy(&self.quoted, permits.get(), window)
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
