//! `gateway run`: serve until SIGTERM.

use super::demo;
use crate::proxy::filter::Filters;
use crate::runtime::Ending;
use crate::server::{self, Options, Ready};
use crate::telemetry::{Clock, ProcessLog};
use anyhow::Context as _;
use log::LevelFilter;
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Options of `gateway run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Start the demo upstream too, give a demo consumer a fresh key, and print what to paste.
    #[arg(long)]
    demo: bool,
    /// Write the real addresses to this file, as JSON, once requests are answered.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// What the process log on standard error says at least: error, warn, info or debug.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "DATAHUB_LOG")]
    log: LevelFilter,
}

/// Runs the gateway, and says why it could not.
pub(super) fn run(conf: PathBuf, filters: Filters, args: &Args) -> ExitCode {
    serve(conf, filters, args).unwrap_or_else(|error| super::done(Err(error)))
}

/// Runs the gateway.
pub(super) fn serve(conf: PathBuf, filters: Filters, args: &Args) -> anyhow::Result<ExitCode> {
    let log = ProcessLog::stderr(args.log, Clock::system())?;
    let options = Options { conf, filters };
    let ended = log
        .install()
        .context("the process log cannot be installed")
        .and_then(|()| server::run(&options, async |ready| announce(args, ready).await));
    // Nothing is left to tell anybody of a log that cannot be written.
    drop(log.flush_and_close(Duration::from_secs(1)));
    // Threads that still serve what the deadline cut off end after this.
    Ok(match ended? {
        Ending::Idle | Ending::Deadline => ExitCode::SUCCESS,
        Ending::Signal => ExitCode::FAILURE,
    })
}

async fn announce(args: &Args, ready: &Ready) -> anyhow::Result<()> {
    if args.demo {
        demo::start(ready).await?;
    }
    match &args.ready_file {
        Some(path) => write_addresses(path, ready)
            .with_context(|| format!("the ready file {} cannot be written", path.display())),
        None => Ok(()),
    }
}

/// Writes beside the file and renames, so that a reader sees all of it or nothing.
fn write_addresses(path: &Path, ready: &Ready) -> anyhow::Result<()> {
    let listeners: serde_json::Map<_, _> = ready
        .listeners
        .iter()
        .map(|(name, address)| (name.to_string(), json!(address.to_string())))
        .collect();
    let admin = ready.admin.map(|address| address.to_string());
    let text = json!({ "listeners": listeners, "admin": admin }).to_string();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let beside = folder.unwrap_or(Path::new(".")).join(format!(".ready-{}", std::process::id()));
    std::fs::File::create(&beside)?.write_all(text.as_bytes())?;
    std::fs::rename(&beside, path)?;
    Ok(())
}
