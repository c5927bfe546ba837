//! A folder to a [`Loaded`] configuration, or to a [`Report`] of everything that is wrong.

use super::compile::{self, Context, Origins};
use super::diagnostic::{Diagnostic, Findings, Report};
use super::document::Document;
use super::schema::{self, File};
use super::secret::{Environment, SecretFiles, Vault, process_environment};
use super::shape;
use super::source::{Sources, Span};
use super::{Config, StoreDef};
use crate::expressions::Language;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A configuration that can be run, and what is known of where it came from.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Folders and files whose change should load it again: the folder itself, certificates,
    /// secrets, authorities.
    pub watched: Vec<PathBuf>,
    /// Secrets that were made, each in a file of its own.
    pub created: Vec<PathBuf>,
    /// What the operator should know; often empty.
    pub warnings: Report,
    /// How many files were read.
    pub files: usize,
    pub(super) sources: Arc<Sources>,
    pub(super) origins: Origins,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("config", &self.config)
            .field("watched", &self.watched)
            .finish_non_exhaustive()
    }
}

/// Reads every `*.toml` directly in `dir` as one configuration.
///
/// # Errors
/// Everything that is wrong, at once; nothing was changed then.
pub fn load(dir: &Path, secrets: SecretFiles) -> Result<Loaded, Report> {
    load_in(dir, secrets, &process_environment)
}

/// The same in an environment of one's own: variables are looked up there.
///
/// # Errors
/// As [`load`].
pub fn load_in(
    dir: &Path,
    secrets: SecretFiles,
    environment: &Environment<'_>,
) -> Result<Loaded, Report> {
    let mut findings = Findings::default();
    let sources = Sources::read(dir, &mut findings);
    compile_all(dir, sources, findings, secrets, environment)
}

/// One text as the only file of a folder that is nowhere.
///
/// # Errors
/// As [`load`].
#[cfg(any(test, feature = "fuzzing"))]
pub fn load_text(text: &str, environment: &Environment<'_>) -> Result<Loaded, Report> {
    let dir = Path::new("/nonexistent/conf");
    let mut sources = Sources { dir: dir.to_owned(), files: Vec::new() };
    sources.push(dir.join("gateway.toml"), text.to_owned());
    compile_all(dir, sources, Findings::default(), SecretFiles::Leave, environment)
}

fn compile_all(
    dir: &Path,
    sources: Sources,
    findings: Findings,
    secrets: SecretFiles,
    environment: &Environment<'_>,
) -> Result<Loaded, Report> {
    let sources = Arc::new(sources);
    let (file, mut cx) = open(dir, &sources, environment, findings)?;
    let compiled = compile::compile(&file, secrets, &mut cx);
    let Context { mut findings, vault, mut watched, .. } = cx;
    watched.extend_from_slice(&vault.watched);
    watched.sort();
    watched.dedup();
    match compiled {
        Some(compiled) if findings.is_clean() => Ok(Loaded {
            config: compiled.config,
            watched,
            created: vault.created,
            warnings: findings.into_report(&sources),
            files: sources.files.len(),
            origins: compiled.origins,
            sources,
        }),
        _ => {
            if findings.is_clean() {
                // Each part that fails says why; this line is for the case that one forgot.
                findings.push(Diagnostic::error("the configuration cannot be used").at_file(dir));
            }
            for path in &vault.created {
                findings.push(Diagnostic::warning("a new secret was made").at_file(path));
            }
            Err(findings.into_report(&sources).watching(watched))
        }
    }
}

/// Only where consumers and keys are kept: no other secret is read, since what prepares a store is not
/// given those of the gateways.
///
/// # Errors
/// What is wrong with the store, and whatever cannot be read at all.
pub fn load_store(dir: &Path) -> Result<StoreDef, Report> {
    load_store_in(dir, &process_environment)
}

/// The same in an environment of one's own.
///
/// # Errors
/// As [`load_store`].
pub fn load_store_in(dir: &Path, environment: &Environment<'_>) -> Result<StoreDef, Report> {
    let mut findings = Findings::default();
    let sources = Arc::new(Sources::read(dir, &mut findings));
    let (file, mut cx) = open(dir, &sources, environment, findings)?;
    let store = compile::compile_store(&file, &mut cx);
    let mut findings = cx.findings;
    match store {
        Some(store) if findings.is_clean() => Ok(store),
        _ => {
            if findings.is_clean() {
                findings.push(Diagnostic::error("the store cannot be used").at_file(dir));
            }
            Err(findings.into_report(&sources))
        }
    }
}

/// The files as one, and what compiling them begins with.
fn open<'a>(
    dir: &'a Path,
    sources: &'a Arc<Sources>,
    environment: &'a Environment<'a>,
    mut findings: Findings,
) -> Result<(File, Context<'a>), Report> {
    let mut document = Document::parse(sources, &mut findings);
    let complete = document.complete;
    let schema = schema::describe();
    let lost = shape::check(&mut document.root, schema.as_value(), &mut findings);
    let file = match File::deserialize(document.into_deserializer()) {
        Ok(file) => file,
        Err(error) => {
            let span =
                error.span().map_or(Span::NOWHERE, |it| Span { start: it.start, end: it.end });
            findings.push(Diagnostic::error(error.message()).at(span, "this cannot be read"));
            return Err(findings.into_report(sources));
        }
    };
    let vault = Vault::new(dir, environment);
    let watched = vec![dir.to_owned()];
    let language = Language::default();
    Ok((
        file,
        Context { language, claims: Vec::new(), sources, lost, complete, findings, vault, watched },
    ))
}
