//! How often: rates, quotas and requests in flight, who they count, and the counters behind them.
//!
//! ```text
//! Rule ─prepare─▶ RuleSet ─┐
//!                Subjects ─┴─reserve─▶ Grant │ Stopped ─▶ RateLimit, RateLimit-Policy
//!                               │
//!                         Limiter ─▶ Ledger: for each rule and subject
//!                                      a Counter (GCRA) here, for the task's rules and for shares
//!                                      a Lease of the fleet's permits, or a question to FleetCounters
//!                                      an Account of a quota, which lasts in UsageLog
//!                                      a number InFlight, of which the Grant holds Permits
//! ```
//!
//! Before all of this, [`guard`] counts client addresses, in memory of a fixed size.
//!
//! Must stay true: any window of length T admits at most burst + rate × T for each rule and
//! subject, or burst + rate × (T + 100 ms) where it is leased, whatever the number of threads and
//! tasks; a refused request is charged to no rule that can give back; a limiter that is out of
//! counters becomes stricter; no request waits here longer than 20 ms.

mod account;
mod asking;
mod calendar;
mod charge;
mod counters;
mod facts;
mod few;
pub mod fleet;
mod gcra;
mod grant;
pub mod guard;
mod in_flight;
mod lease;
mod leasing;
mod ledger;
mod limiter;
mod quotas;
mod refused;
pub mod rule;
mod rule_set;
mod seeding;
mod slots;
mod subject;
mod table;
mod tally;
pub mod usage;
mod vitals;
mod wire;

pub use facts::{Facts, NoFacts};
pub use grant::Grant;
pub use guard::{Addresses, Guard, GuardDef, Limited, Permit};
pub use limiter::Limiter;
pub use refused::{Refused, Stopped, Unavailable};
pub use rule::{
    Cost, MAX_CLAIMS, Measure, Mode, OnStoreFailure, Period, Plan, Precision, Quota, QuotaPeriod,
    Rate, Rule, Scope, Subject,
};
pub use rule_set::RuleSet;
pub use subject::{KeySubject, Subjects};
pub use tally::{Outcome, Tally};
pub use vitals::Vitals;
pub use wire::Legacy;
