//! Subcommands of `gateway`; the only code that prints.

pub mod audit;
pub mod check;
pub mod consumers;
mod demo;
pub mod documents;
pub mod embedding;
mod healthcheck;
pub mod keys;
mod ledger;
mod migrate;
mod notation;
mod office;
mod peppers;
mod run;
pub mod schema;
pub mod tokens;
pub mod usage;

pub use ledger::{FileNames, Ledger};

use crate::auth::documents::DocumentKind;
use crate::proxy::filter::Filters;
use clap::{Parser, Subcommand};
use office::{Absent, Office, administrate};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    /// Print who changed what, and when.
    Audit(audit::Args),
    /// Check the configuration: print every mistake with its place and a way out.
    Check,
    /// Consumers: who calls.
    Consumers(consumers::Consumers),
    /// Ask a running gateway for its health; for containers.
    Healthcheck(healthcheck::Args),
    /// API keys.
    Keys(keys::Keys),
    /// Bring the tables of a store up to date.
    Migrate(migrate::Args),
    /// Plans that stand in the store; they go before those of the files.
    Plans(documents::Documents),
    /// Policies that stand in the store; they go before those of the files.
    Policies(documents::Documents),
    /// Serve until SIGTERM.
    Run(run::Args),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Tokens that are taken back before they end.
    Tokens(tokens::Tokens),
    /// Print what consumers have used.
    Usage(usage::Args),
}

/// Runs one command of the program, where what is served meets these filters.
fn execute(Cli { conf, command }: Cli, filters: Filters) -> ExitCode {
    match command {
        Command::Audit(args) => {
            office(&conf, args.json, async |office| audit::run(&args, &mut office.ledger()).await)
        }
        Command::Check => check::check(&conf),
        Command::Consumers(args) => {
            let absent = match args.command {
                consumers::Command::Add { .. } => Absent::Make,
                _ => Absent::Refuse,
            };
            done(administrate(&conf, absent, args.json, async |office| {
                consumers::run(args.command, &mut office.ledger()).await
            }))
        }
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Keys(args) => office(&conf, args.json, async |office| {
            let keys = office.config.api_key.clone();
            keys::run(args.command, &keys, &mut office.ledger()).await
        }),
        Command::Migrate(args) => migrate::run(&conf, &args),
        Command::Plans(args) => documents(&conf, DocumentKind::Plan, args),
        Command::Policies(args) => documents(&conf, DocumentKind::Policy, args),
        Command::Run(args) => run::run(conf, filters, &args),
        Command::Schema => schema::schema(),
        Command::Tokens(args) => office(&conf, args.json, async |office| {
            tokens::run(args.command, &mut office.ledger()).await
        }),
        Command::Usage(args) => {
            office(&conf, args.json, async |office| usage::run(&args, &mut office.ledger()).await)
        }
    }
}

/// A command on a store that is there already.
fn office(
    conf: &Path,
    json: bool,
    work: impl AsyncFnOnce(&mut Office) -> anyhow::Result<()>,
) -> ExitCode {
    done(administrate(conf, Absent::Refuse, json, work))
}

fn documents(conf: &Path, kind: DocumentKind, args: documents::Documents) -> ExitCode {
    office(conf, args.json, async |office| {
        documents::run(kind, args.command, documents::check, &mut office.ledger()).await
    })
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

#[cfg(test)]
mod administration_tests;
#[cfg(test)]
mod desk;
#[cfg(test)]
mod identity_tests;
