//! Subcommands of `gateway`; the only code that prints.

pub mod consumers;
pub mod keys;
mod ledger;

pub use ledger::Ledger;

#[cfg(test)]
mod identity_tests;
