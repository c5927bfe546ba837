//! A desk for tests of commands: a store, and what is typed and printed there.

use super::{FileNames, Ledger, audit, consumers, documents, keys, tokens, usage};
use crate::auth::ApiKeys;
use crate::auth::documents::DocumentKind;
use crate::auth::registry::Actor;
use crate::stores::Embedded;
use crate::telemetry::Clock;
use clap::Parser;
use serde_json::Value;
use std::path::PathBuf;

#[derive(Parser)]
enum Cli {
    Audit(audit::Args),
    Consumers(consumers::Consumers),
    Keys(keys::Keys),
    Plans(documents::Documents),
    Policies(documents::Documents),
    Tokens(tokens::Tokens),
    Usage(usage::Args),
}

/// The files have plans `free` and `pro`, a policy `careful` and an issuer `corporate`.
pub(super) struct Desk {
    folder: tempfile::TempDir,
    pub(super) store: Embedded,
    pub(super) names: FileNames,
    pub(super) clock: Clock,
}

/// What a command printed.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) out: String,
    pub(super) err: String,
}

impl Desk {
    pub(super) fn new() -> Self {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        let store = Embedded::open(&folder.path().join("gateway.db"), clock.clone()).unwrap();
        let names = FileNames {
            key_header: http::HeaderName::from_static("x-api-key"),
            issuers: vec!["corporate".into()],
            plans: vec!["free".into(), "pro".into()],
            policies: vec!["careful".into()],
        };
        Self { folder, store, names, clock }
    }

    /// A file, and its path as one types it.
    pub(super) fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub(super) async fn run_into(
        &self,
        line: &str,
        out: &mut dyn std::io::Write,
    ) -> Result<String, String> {
        let words = std::iter::once("gateway").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let mut err = Vec::new();
        let mut ledger = Ledger {
            actor: &Actor::named("cli:ann@desk"),
            store: &self.store,
            names: &self.names,
            clock: &self.clock,
            json: false,
            out,
            err: &mut err,
        };
        let done = match cli {
            Cli::Audit(args) => {
                ledger.json = args.json;
                audit::run(&args, &mut ledger).await
            }
            Cli::Consumers(args) => {
                ledger.json = args.json;
                consumers::run(args.command, &mut ledger).await
            }
            Cli::Keys(args) => {
                ledger.json = args.json;
                keys::run(args.command, &api_keys(), &mut ledger).await
            }
            Cli::Plans(args) => {
                ledger.json = args.json;
                documents::run(DocumentKind::Plan, args.command, check, &mut ledger).await
            }
            Cli::Policies(args) => {
                ledger.json = args.json;
                documents::run(DocumentKind::Policy, args.command, check, &mut ledger).await
            }
            Cli::Tokens(args) => {
                ledger.json = args.json;
                tokens::run(args.command, &mut ledger).await
            }
            Cli::Usage(args) => {
                ledger.json = args.json;
                usage::run(&args, &mut ledger).await
            }
        };
        done.map_err(|error| format!("{error:#}"))?;
        Ok(String::from_utf8(err).unwrap())
    }

    pub(super) async fn try_run(&self, line: &str) -> Result<Printed, String> {
        let mut out = Vec::new();
        let err = self.run_into(line, &mut out).await?;
        Ok(Printed { out: String::from_utf8(out).unwrap(), err })
    }

    pub(super) async fn run(&self, line: &str) -> Printed {
        self.try_run(line).await.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    pub(super) async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.run(&format!("{line} --json")).await.out).unwrap()
    }

    pub(super) async fn refusal(&self, line: &str) -> String {
        self.try_run(line).await.unwrap_err()
    }
}

/// Only what has limits can be put in force here.
fn check(kind: DocumentKind, name: &str, body: &Value, _: &http::HeaderName) -> Result<(), String> {
    match body.get("limits") {
        Some(_) => Ok(()),
        None => Err(format!("error: {} `{name}` has no limits", kind.as_str())),
    }
}

pub(super) fn api_keys() -> ApiKeys {
    ApiKeys {
        environment: "test".into(),
        header: http::HeaderName::from_static("x-api-key"),
        pepper: vec![7; 32],
        previous_peppers: Vec::new(),
    }
}
