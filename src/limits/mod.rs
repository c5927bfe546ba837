//! How often: rate rules, who they count, and the counters behind them.

pub mod rule;

pub use rule::{Mode, Period, Plan, Rate, Rule, Subject};
