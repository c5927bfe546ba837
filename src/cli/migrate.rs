//! `gateway migrate`: brings the tables of a store up to date.

use super::{done, office, print};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// Options of `gateway migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) fn run(conf: &Path, args: &Args) -> ExitCode {
    match migrate(conf, args) {
        Ok(report) => print(&report),
        Err(error) => done(Err(error)),
    }
}

/// With one file for a store there is nothing to do.
fn migrate(conf: &Path, args: &Args) -> anyhow::Result<String> {
    let path = office::load(conf)?.fixed.store_path;
    let path = path.display();
    if args.json {
        let value = json!({
            "store": "embedded",
            "path": path.to_string(),
            "dry_run": args.dry_run,
            "migrations": [],
        });
        return Ok(format!("{value:#}"));
    }
    Ok(format!(
        "nothing to do: the store is the file `{path}`, which whatever opens it brings up to date"
    ))
}
