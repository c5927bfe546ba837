//! `gateway schema`: the JSON Schema of configuration files, for editors.

use crate::config;
use std::process::ExitCode;

/// Prints the schema.
#[must_use]
#[expect(clippy::print_stdout, reason = "what this command is for")]
pub fn schema() -> ExitCode {
    println!("{:#}", config::json_schema());
    ExitCode::SUCCESS
}
