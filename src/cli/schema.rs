//! `gateway schema`: the JSON Schema of configuration files, for editors.

use crate::config;
use std::process::ExitCode;

/// Prints the schema.
#[must_use]
pub fn schema() -> ExitCode {
    super::print(&format!("{:#}", config::json_schema()))
}
