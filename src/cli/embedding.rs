//! The gateway as a part of another program.
//!
//! `gateway` itself is this without filters, so what is built here can do all that it can.

use super::{Cli, Command, execute, run};
use crate::proxy::filter::{Filter, Filters};
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser as _};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The gateway, to be built into a program of one's own: see the documentation of the [crate].
#[derive(Debug)]
pub enum Gateway {}

impl Gateway {
    /// Begins to describe one.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// A gateway that is being described.
///
/// The process is the gateway's own from [`Builder::run`] or [`Builder::command_line`] on: it installs
/// its log, handles SIGTERM and SIGHUP, and starts its own threads, so neither is to be called from
/// inside an async runtime.
#[derive(Debug, Default)]
#[must_use = "nothing is served before `run` or `command_line`"]
pub struct Builder {
    conf: Option<PathBuf>,
    ready_file: Option<PathBuf>,
    filters: Filters,
}

impl Builder {
    /// The folder with the configuration. Without it, `DATAHUB_CONF` or else `conf`.
    pub fn conf(mut self, folder: impl Into<PathBuf>) -> Self {
        self.conf = Some(folder.into());
        self
    }

    /// A file that [`Builder::run`] writes once requests are answered, with the real addresses, as JSON.
    pub fn ready_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ready_file = Some(path.into());
        self
    }

    /// Adds a filter behind those that were added before.
    pub fn filter(mut self, filter: impl Filter) -> Self {
        self.filters.push(filter);
        self
    }

    /// Serves until a signal ends it, as `gateway run` does: with reloads, and a drain that loses no
    /// request. Does not look at the program's arguments.
    ///
    /// # Errors
    /// What keeps it from starting, with what to do about it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut words: Vec<OsString> = vec!["gateway".into(), "run".into()];
        for (option, path) in [("--conf", self.conf), ("--ready-file", self.ready_file)] {
            words.extend(path.into_iter().flat_map(|path| [option.into(), path.into()]));
        }
        // The defaults of `gateway run` are written once, with its options.
        let Cli { conf, command } = Cli::try_parse_from(words)?;
        match command {
            Command::Run(args) => run::serve(conf, self.filters, &args),
            _ => anyhow::bail!("`run` is read as another command"),
        }
    }

    /// Does what the program's arguments say: all subcommands of `gateway`, among them `run` with these
    /// filters. The folder given here holds where neither `--conf` nor `DATAHUB_CONF` names one.
    #[must_use]
    pub fn command_line(self) -> ExitCode {
        let matches = Cli::command().get_matches();
        let said = matches.value_source("conf") != Some(ValueSource::DefaultValue);
        match (Cli::from_arg_matches(&matches), self.conf) {
            (Ok(cli), Some(conf)) if !said => execute(Cli { conf, ..cli }, self.filters),
            (Ok(cli), _) => execute(cli, self.filters),
            (Err(error), _) => error.exit(),
        }
    }
}
