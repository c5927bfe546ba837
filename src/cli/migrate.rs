//! `gateway migrate`: brings the tables of a store up to date.
//!
//! It runs where no gateway does, with the URL of the database and no other secret.

use super::{done, office, print};
use crate::config::{PostgresDef, StoreDef};
use crate::stores::postgres::migrate::{self, Migration};
use crate::telemetry::Clock;
use serde_json::{Value, json};
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
    match work(conf, args) {
        Ok(report) => print(&report),
        Err(error) => done(Err(error)),
    }
}

fn work(conf: &Path, args: &Args) -> anyhow::Result<String> {
    match office::load_store(conf)? {
        StoreDef::Embedded { path } => Ok(nothing(&path, args)),
        StoreDef::Postgres(wanted) => {
            let events = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            events.block_on(migrate(&wanted, args))
        }
    }
}

/// With one file for a store there is nothing to do.
fn nothing(path: &Path, args: &Args) -> String {
    let path = path.display();
    if args.json {
        return report_json("embedded", &path.to_string(), args, &[]);
    }
    format!(
        "nothing to do: the store is the file `{path}`, which whatever opens it brings up to date"
    )
}

async fn migrate(wanted: &PostgresDef, args: &Args) -> anyhow::Result<String> {
    let store = office::open_postgres(wanted, &Clock::system())?;
    let migrations = match args.dry_run {
        true => migrate::plan(&store).await?,
        false => migrate::apply(&store).await?,
    };
    if args.json {
        return Ok(report_json("postgres", store.place(), args, &migrations));
    }
    let place = store.place();
    if migrations.is_empty() {
        return Ok(format!("nothing to do: the tables at `{place}` are up to date"));
    }
    let word = if args.dry_run { "would apply" } else { "applied" };
    let line = |one: &Migration| format!("{word} {:04} {}", one.version, one.name);
    let lines: Vec<String> = migrations.iter().map(line).collect();
    Ok(format!("{}\nat `{place}`", lines.join("\n")))
}

fn report_json(store: &str, place: &str, args: &Args, migrations: &[Migration]) -> String {
    let entry = |one: &Migration| json!({ "version": one.version, "name": one.name });
    let list: Vec<Value> = migrations.iter().map(entry).collect();
    let value = json!({
        "store": store,
        "path": place,
        "dry_run": args.dry_run,
        "migrations": list,
    });
    format!("{value:#}")
}
