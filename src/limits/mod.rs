//! How often: rate rules, who they count, and the counters behind them.

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
mod wire;

pub use grant::Grant;
pub use limiter::Limiter;
pub use refused::Refused;
pub use rule::{Mode, Period, Plan, Rate, Rule, Subject};
pub use rule_set::RuleSet;
pub use subject::{KeySubject, Subjects};
