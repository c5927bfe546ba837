//! The rules of a plan or a route, prepared once for each snapshot.

use super::gcra::Meter;
use super::rule::{Mode, Rule, Subject};
use super::subject::{Keyring, RuleKey, Subjects};
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
            .filter_map(|rule| Prepared::new(rule, keyring))
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

/// One rule, ready to be counted.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) id: Arc<str>,
    pub(super) name: Arc<str>,
    /// The name as it stands in header fields.
    pub(super) quoted: Arc<str>,
    pub(super) meter: Meter,
    pub(super) shadow: bool,
    subject: Subject,
    key: RuleKey,
}

impl Prepared {
    fn new(rule: &Rule, keyring: &Keyring) -> Option<Self> {
        Some(Self {
            id: Arc::clone(&rule.id),
            name: Arc::clone(&rule.name),
            quoted: wire::quote(&rule.name),
            meter: Meter::of(rule)?,
            shadow: rule.mode == Mode::Shadow,
            subject: rule.subject.clone(),
            key: keyring.rule(&rule.id),
        })
    }

    fn policy(&self) -> String {
        wire::policy(&self.quoted, self.meter.burst().get(), self.meter.window())
    }

    /// The key of the counter that a request is counted by.
    pub(super) fn key(&self, subjects: &Subjects<'_>) -> u128 {
        self.key.of(&self.subject, subjects)
    }

    /// The key of the counter for the subjects that have none.
    pub(super) fn overflow_key(&self) -> u128 {
        self.key.overflow()
    }
}
