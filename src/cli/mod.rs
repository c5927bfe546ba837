//! Subcommands of `gateway`; the only code that prints.

pub mod check;
pub mod schema;
