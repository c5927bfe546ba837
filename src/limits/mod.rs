//! How often: rate rules, who they count, and the counters behind them.
//!
//! ```text
//! Rule ─prepare─▶ RuleSet ─┐
//!                Subjects ─┴─reserve─▶ Grant │ Refused ─▶ RateLimit, RateLimit-Policy
//!                               │
//!                         Limiter: a Counter (GCRA) for each rule and subject
//! ```
//!
//! Must stay true: any window of length T admits at most burst + rate × T for each rule and
//! subject, whatever the number of threads; a refused request is charged to no rule; a limiter
//! that is out of counters becomes stricter.

mod counters;
mod few;
mod gcra;
mod grant;
mod limiter;
mod refused;
pub mod rule;
mod rule_set;
mod subject;
mod table;
mod tally;
pub mod usage;
mod wire;

pub use grant::Grant;
pub use limiter::Limiter;
pub use refused::Refused;
pub use rule::{
    Measure, Mode, OnStoreFailure, Period, Plan, Precision, Quota, QuotaPeriod, Rate, Rule, Scope,
    Subject,
};
pub use rule_set::RuleSet;
pub use subject::{KeySubject, Subjects};
pub use tally::{Outcome, Tally};
