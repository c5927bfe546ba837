//! Subcommands of `gateway`; the only code that prints.

pub mod check;
pub mod consumers;
pub mod keys;
mod ledger;
pub mod schema;

pub use ledger::Ledger;
