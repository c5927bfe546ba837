//! `gateway check`: whether a folder is a configuration that can be run.

use super::{complain, print};
use crate::config::{self, SecretFiles};
use crate::limits::Plan;
use std::path::Path;
use std::process::ExitCode;

/// Plans whose names are printed.
const SHOWN: usize = 20;

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
                plans(&loaded.config.plans),
                count(loaded.warnings.len(), "warning"),
            ))
        }
        Err(report) => {
            complain(&report.to_string());
            ExitCode::FAILURE
        }
    }
}

/// How many there are, and which: consumers refer to them by name.
fn plans(plans: &[Plan]) -> String {
    let shown: Vec<&str> = plans.iter().take(SHOWN).map(|plan| &*plan.name).collect();
    let rest = if plans.len() > SHOWN { ", …" } else { "" };
    match shown.as_slice() {
        [] => count(0, "plan"),
        shown => format!("{} ({}{rest})", count(plans.len(), "plan"), shown.join(", ")),
    }
}

fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}
