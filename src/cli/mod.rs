//! Subcommands of `gateway`; the only code that prints.
