//! `gateway check`: whether a folder is a configuration that can be run.

use crate::config::{self, SecretFiles};
use std::path::Path;
use std::process::ExitCode;

/// Prints a summary, or everything that is wrong. Nothing is written anywhere.
#[must_use]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what this command is for")]
pub fn check(dir: &Path) -> ExitCode {
    match config::load(dir, SecretFiles::Leave) {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                eprintln!("{}\n", loaded.warnings);
            }
            println!(
                "ok: {}, {}, {}, {}, {}",
                count(loaded.files, "file"),
                count(loaded.config.routes.len(), "route"),
                count(loaded.config.upstreams.len(), "upstream"),
                count(loaded.config.plans.len(), "plan"),
                count(loaded.warnings.len(), "warning"),
            );
            ExitCode::SUCCESS
        }
        Err(report) => {
            eprintln!("{report}");
            ExitCode::FAILURE
        }
    }
}

fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}
