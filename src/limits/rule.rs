//! What a limit is: permits per period with a burst, per calendar period, or at the same time, counted
//! per subject.

use crate::expressions::Expression;
use http::HeaderName;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// The span that a [`Rate`]'s permits are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// 24 hours.
    Day,
    /// 60 minutes.
    Hour,
    /// 60 seconds.
    Minute,
    /// One second.
    Second,
}

impl Period {
    /// The span itself.
    #[must_use]
    pub const fn span(self) -> Duration {
        Duration::from_secs(match self {
            Self::Day => 86_400,
            Self::Hour => 3_600,
            Self::Minute => 60,
            Self::Second => 1,
        })
    }
}

/// How many requests are let through per period, in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Requests per period.
    pub permits: NonZeroU32,
    /// The period.
    pub per: Period,
}

/// The calendar span that a [`Quota`] is for, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaPeriod {
    /// From midnight to midnight.
    Day,
    /// From the full hour on.
    Hour,
    /// From the full minute on.
    Minute,
    /// From the first day of a month on.
    Month,
}

/// How many requests are let through in a calendar period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Requests per period.
    pub permits: NonZeroU32,
    /// The period.
    pub per: QuotaPeriod,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// What may go on in a calendar period, however it is spread.
    Quota(Quota),
    /// Requests in flight at the same time.
    Concurrency(NonZeroU32),
    /// A flow, by the generic cell rate algorithm.
    Rate {
        /// The long-run rate.
        rate: Rate,
        /// How many at once after a rest; the permits of the rate unless the file says otherwise.
        burst: NonZeroU32,
    },
}

/// Who shares a rule's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All tasks, through Redis; without Redis there is one task.
    #[default]
    Fleet,
    /// Each task counts for itself.
    Task,
}

/// How a fleet's rule is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Each request asks Redis: burst + rate × T in any window of length T.
    Exact,
    /// Tasks take permits ahead of need: burst + rate × (T + 100 ms). A rule too slow for that (below
    /// 10/s for each task, or with a burst below what it regains in 100 ms) is counted exactly.
    #[default]
    Leased,
}

/// What a fleet's rule does while its counters cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnStoreFailure {
    /// Refuse with 503.
    Closed,
    /// Let through.
    Open,
    /// Each task lets through its share: the limit divided by the number of tasks.
    #[default]
    Share,
}

/// So many different claims can be counted by; they are kept with each verified token.
pub const MAX_CLAIMS: usize = 16;

/// Whom a rule counts: each value of it has a counter of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The resolved client address.
    Address,
    /// A claim of the caller's token, for each issuer apart; without it the consumer.
    Claim(Arc<str>),
    /// The consumer, over all of its keys and tokens.
    Consumer,
    /// The value of a header, which the client chooses: it groups and does not protect. Without it
    /// the consumer.
    Header(HeaderName),
    /// The single credential.
    Key,
    /// What an expression makes of the request; without it the consumer.
    Expression(Expression),
    /// One counter for all requests that the rule applies to.
    Route,
}

/// How many permits one request takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cost {
    /// What an expression makes of the request: at least one, at most the burst or the quota.
    Expression(Expression),
    /// Always the same number. It is no more than the burst or the quota.
    Fixed(NonZeroU32),
}

impl Rule {
    /// The expressions that it has.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let subject = match &self.subject {
            Subject::Expression(expression) => Some(expression),
            _ => None,
        };
        let cost = match &self.cost {
            Cost::Expression(expression) => Some(expression),
            Cost::Fixed(_) => None,
        };
        subject.into_iter().chain(cost)
    }

    /// The same, with failures of its expressions counted as `count` says.
    #[must_use]
    pub fn counted(mut self, count: impl Fn(Expression) -> Expression) -> Self {
        if let Subject::Expression(expression) = self.subject {
            self.subject = Subject::Expression(count(expression));
        }
        if let Cost::Expression(expression) = self.cost {
            self.cost = Cost::Expression(count(expression));
        }
        self
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self::Fixed(NonZeroU32::MIN)
    }
}

/// Whether a rule refuses, or only counts what it would have refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Refuse.
    #[default]
    Enforce,
    /// Do not even count.
    Off,
    /// Count and log, never refuse.
    Shadow,
}

impl Mode {
    /// What this is inside of something with the mode `outer`: it can say less, not more.
    #[must_use]
    pub const fn within(self, outer: Self) -> Self {
        match (self, outer) {
            (Self::Off, _) | (_, Self::Off) => Self::Off,
            (Self::Shadow, _) | (_, Self::Shadow) => Self::Shadow,
            (Self::Enforce, Self::Enforce) => Self::Enforce,
        }
    }
}

/// One limit, as `[plans.*.limits.*]` or `[routes.*.limits.*]` in a file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name that clients see in `RateLimit`, and that metrics are labelled with.
    pub name: Arc<str>,
    /// `plan/<name>/<rule>`, `policy/<name>/<rule>` or `route/<name>/<rule>`: counters are kept under it, so they survive
    /// reloads as long as the names do.
    pub id: Arc<str>,
    /// What is counted.
    pub measure: Measure,
    /// Whom it counts.
    pub subject: Subject,
    /// How much of it one request takes.
    pub cost: Cost,
    /// Whether it refuses.
    pub mode: Mode,
    /// Who shares its counters.
    pub scope: Scope,
    /// How a fleet's counters are kept.
    pub precision: Precision,
    /// What it does without them.
    pub on_store_failure: OnStoreFailure,
}

/// What a consumer has bought: a named set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name, as consumers refer to it.
    pub name: Arc<str>,
    /// All of them apply to each request of the plan's consumers.
    pub rules: Vec<Rule>,
}
