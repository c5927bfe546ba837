//! Subcommands of `gateway`; the only code that prints.

pub mod check;
pub mod consumers;
mod demo;
mod healthcheck;
pub mod keys;
mod ledger;
mod run;
pub mod schema;

pub use ledger::Ledger;

use crate::auth::registry::Actor;
use crate::config::{self, SecretFiles};
use crate::stores::embedded::Embedded;
use crate::telemetry::Clock;
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// A programmable reverse proxy and API gateway.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, propagate_version = true)]
struct Cli {
    /// Folder with the configuration; all its *.toml files are read as one.
    #[arg(long, global = true, value_name = "DIR", default_value = "conf", env = "DATAHUB_CONF")]
    conf: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration: print every mistake with its place and a way out.
    Check,
    /// Consumers: who calls.
    Consumers(consumers::Consumers),
    /// Ask a running gateway for its health; for containers.
    Healthcheck(healthcheck::Args),
    /// API keys.
    Keys(keys::Keys),
    /// Serve until SIGTERM.
    Run(run::Args),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Check => check::check(&cli.conf),
        Command::Consumers(args) => {
            let open = match args.command {
                consumers::Command::Add { .. } => open_or_make,
                _ => open_existing,
            };
            done(administrate(&cli.conf, open, args.json, async |office| {
                consumers::run(args.command, &mut office.ledger()).await
            }))
        }
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Keys(args) => {
            done(administrate(&cli.conf, open_existing, args.json, async |office| {
                let keys = office.config.api_key.clone();
                keys::run(args.command, &keys, &mut office.ledger()).await
            }))
        }
        Command::Run(args) => run::run(cli.conf, &args),
        Command::Schema => schema::schema(),
    }
}

/// The exit code of a command; what went wrong is printed for the operator.
fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {}", explain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Prints a result, and returns the exit code of a command that has nothing more to do.
fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        // Who closes the pipe after the first lines has what it wanted.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            done(Err(anyhow::Error::new(error).context("the result could not be printed")))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints what is wrong. Where even that cannot be written, the exit code has to say it.
fn complain(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// An error with its causes, each said once: many a message quotes its cause already.
fn explain(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// What a command on consumers and keys works with.
struct Office {
    config: config::Config,
    plans: Vec<Arc<str>>,
    store: Embedded,
    actor: Actor,
    clock: Clock,
    json: bool,
    out: std::io::Stdout,
    err: std::io::Stderr,
}

impl Office {
    fn ledger(&mut self) -> Ledger<'_> {
        Ledger {
            registry: &self.store,
            actor: &self.actor,
            plans: &self.plans,
            clock: &self.clock,
            json: self.json,
            out: &mut self.out,
            err: &mut self.err,
        }
    }
}

/// How a command comes to its configuration and its store.
type Open = fn(&Path, Clock) -> anyhow::Result<(config::Config, Embedded)>;

/// Makes nothing: a secret that a running gateway has lost must not come back as another one.
fn open_existing(conf: &Path, clock: Clock) -> anyhow::Result<(config::Config, Embedded)> {
    let config = load(conf, SecretFiles::Leave)?;
    let store = Embedded::open_existing(store_path(&config)?, clock)?;
    // Another command may have made the store, and its pepper, after the first look at them.
    Ok((load(conf, SecretFiles::Leave)?, store))
}

/// Makes the store where there is none, and secrets only for a store that is made.
fn open_or_make(conf: &Path, clock: Clock) -> anyhow::Result<(config::Config, Embedded)> {
    let mut config = load(conf, SecretFiles::Leave)?;
    if !store_path(&config)?.exists() {
        config = load(conf, SecretFiles::Create)?;
    }
    let store = Embedded::open(store_path(&config)?, clock)?;
    Ok((config, store))
}

fn store_path(config: &config::Config) -> anyhow::Result<&Path> {
    config.fixed.store.embedded().context("this command works on the embedded store only")
}

fn load(conf: &Path, secrets: SecretFiles) -> anyhow::Result<config::Config> {
    config::load(conf, secrets)
        .map(|loaded| loaded.config)
        .map_err(|report| anyhow::anyhow!("the configuration is not usable\n{report}"))
}

/// Opens the store that the configuration names and does `work` on it. A gateway that runs on the
/// same store takes notice by itself.
fn administrate(
    conf: &Path,
    open: Open,
    json: bool,
    work: impl AsyncFnOnce(&mut Office) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    let (config, store) = open(conf, clock.clone())?;
    let mut office = Office {
        plans: config.plans.iter().map(|plan| Arc::clone(&plan.name)).collect(),
        config,
        store,
        actor: Actor::named("cli"),
        clock,
        json,
        out: std::io::stdout(),
        err: std::io::stderr(),
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work(&mut office))
}

#[cfg(test)]
mod identity_tests;
