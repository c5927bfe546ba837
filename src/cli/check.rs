//! `gateway check`: whether a folder is a configuration that can be run.

use super::{complain, print};
use crate::config::{self, SecretFiles};
use std::path::Path;
use std::process::ExitCode;

/// Prints a summary, or everything that is wrong. Nothing is written anywhere.
#[must_use]
pub fn check(dir: &Path) -> ExitCode {
    match config::load(dir, SecretFiles::Leave) {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                complain(&format!("{}\n", loaded.warnings));
            }
            print(&format!(
                "ok: {}, {}, {}, {}, {}",
                count(loaded.files, "file"),
                count(loaded.config.routes.len(), "route"),
                count(loaded.config.upstreams.len(), "upstream"),
                count(loaded.config.plans.len(), "plan"),
                count(loaded.warnings.len(), "warning"),
            ))
        }
        Err(report) => {
            complain(&report.to_string());
            ExitCode::FAILURE
        }
    }
}

fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}
