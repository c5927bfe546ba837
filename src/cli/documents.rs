//! `gateway plans` and `gateway policies`: rows of the store that go before the files.
//!
//! Must stay true: what is written was checked as a file is checked.

use super::ledger::{Ledger, PAGE};
use super::notation::show_time;
use crate::auth::documents::{Document, DocumentKind};
use crate::auth::registry::{Page, RegistryError};
use crate::config;
use anyhow::{Context as _, bail};
use http::HeaderName;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;

/// The longest content that is read.
const MAX_BODY: u64 = 256 * 1024;

/// List, show, write and remove rows.
#[derive(Debug, clap::Args)]
pub struct Documents {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with rows.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print all names, and where each comes from.
    List,
    /// Write a row, new or not; it is in force everywhere within a second.
    Put {
        /// Its name, as consumers and routes refer to it.
        name: String,
        /// A file with what a table of this name would say, as TOML or JSON; `-` is standard input.
        file: String,
    },
    /// Remove a row; the table of that name in the files, if there is one, is in force again.
    Remove {
        /// Its name.
        name: String,
        /// Really.
        #[arg(long)]
        yes: bool,
    },
    /// Print the content of a row, as `put` takes it.
    Show {
        /// Its name.
        name: String,
    },
}

/// Does it. `check` says what is wrong with a content.
///
/// # Errors
/// What went wrong, and what to do about it.
pub async fn run(
    kind: DocumentKind,
    command: Command,
    check: impl Fn(DocumentKind, &str, &Value, &HeaderName) -> Result<(), String>,
    ledger: &mut Ledger<'_>,
) -> anyhow::Result<()> {
    let done = match command {
        Command::List => list(ledger, kind).await,
        Command::Put { name, file } => put(ledger, kind, &name, &file, check).await,
        Command::Remove { name, yes } => remove(ledger, kind, &name, yes).await,
        Command::Show { name } => show(ledger, kind, &name).await,
    };
    ledger.end(done).await
}

/// Compiles a content as if it were put in force now.
///
/// # Errors
/// All that is wrong with it.
pub fn check(
    kind: DocumentKind,
    name: &str,
    body: &Value,
    key_header: &HeaderName,
) -> Result<(), String> {
    config::check_row(kind, name, body, key_header).map_err(|report| report.to_string())
}

async fn put(
    ledger: &mut Ledger<'_>,
    kind: DocumentKind,
    name: &str,
    file: &str,
    check: impl Fn(DocumentKind, &str, &Value, &HeaderName) -> Result<(), String>,
) -> anyhow::Result<()> {
    let word = kind.as_str();
    let body = parse(&read(file)?).with_context(|| format!("{} is not readable", place(file)))?;
    refuse_a_heading(kind, name, &body)?;
    if let Err(problem) = check(kind, name, &body, &ledger.names.key_header) {
        bail!("{} is no {word} that can be put in force\n{problem}", place(file));
    }
    let before = match ledger.store.document(kind, name).await {
        Ok(document) => Some(document),
        Err(RegistryError::UnknownDocument { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let written = ledger.store.put_document(ledger.actor, kind, name, &body).await?;
    if ledger.json {
        return ledger.print_json(&to_json(&written, ledger));
    }
    let was = match before {
        Some(before) if before.body == written.body => "unchanged",
        Some(_) => "changed",
        None => "added",
    };
    let over = if is_in_files(ledger, kind, name) {
        format!("; it goes before the {word} of this name in the files")
    } else {
        String::new()
    };
    ledger.print(&format!("{was} {word} `{name}`{over}"))
}

async fn show(ledger: &mut Ledger<'_>, kind: DocumentKind, name: &str) -> anyhow::Result<()> {
    let document = ledger.store.document(kind, name).await?;
    let value = if ledger.json { to_json(&document, ledger) } else { document.body };
    ledger.print_json(&value)
}

async fn remove(
    ledger: &mut Ledger<'_>,
    kind: DocumentKind,
    name: &str,
    yes: bool,
) -> anyhow::Result<()> {
    let word = kind.as_str();
    let after = if is_in_files(ledger, kind, name) {
        format!("the {word} of this name in the files is in force again")
    } else {
        format!("whoever has this {word} is refused")
    };
    if !yes {
        ledger.store.document(kind, name).await?;
        bail!(
            "this removes the {word} `{name}` from the store, and then {after}; say --yes to do it"
        );
    }
    let removed = ledger.store.remove_document(ledger.actor, kind, name).await?;
    if ledger.json {
        return ledger.print_json(&to_json(&removed, ledger));
    }
    ledger.print(&format!("removed {word} `{name}`: {after}"))
}

async fn list(ledger: &mut Ledger<'_>, kind: DocumentKind) -> anyhow::Result<()> {
    let mut all: Vec<Document> = Vec::new();
    loop {
        let after = all.last().map(|document| &*document.name);
        let page = ledger.store.documents(kind, Page { after, limit: PAGE }).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            break;
        }
    }
    // Another version may have written what this one cannot put in force.
    let compiled = config::compile_rows(&all, &ledger.names.key_header);
    let refused: HashSet<&str> = compiled.refused().iter().map(|row| &*row.name).collect();
    if ledger.json {
        let entry = |document: &Document| {
            let mut entry = to_json(document, ledger);
            let compiles = !refused.contains(&*document.name);
            if let Value::Object(members) = &mut entry {
                members.insert("compiles".to_owned(), compiles.into());
            }
            entry
        };
        let rows = all.iter().map(entry).collect();
        return ledger.print_json(&rows);
    }
    let mut rows: Vec<[String; 3]> = Vec::new();
    for document in &all {
        let from = match is_in_files(ledger, kind, &document.name) {
            _ if refused.contains(&*document.name) => "store, not in force",
            true => "store, before files",
            false => "store",
        };
        let updated = show_time(document.updated_at);
        rows.push([document.name.to_string(), from.to_owned(), updated]);
    }
    for name in ledger.names.documents(kind) {
        if !all.iter().any(|document| document.name == *name) {
            rows.push([name.to_string(), "files".to_owned(), "-".to_owned()]);
        }
    }
    rows.sort_unstable();
    if rows.is_empty() {
        let (list, word) = (plural(kind), kind.as_str());
        return ledger
            .print(&format!("no {list} yet; write one: gateway {list} put <{word}> <file>"));
    }
    ledger.print_table(["NAME", "FROM", "UPDATED"], &rows)
}

fn is_in_files(ledger: &Ledger<'_>, kind: DocumentKind, name: &str) -> bool {
    ledger.names.documents(kind).iter().any(|known| &**known == name)
}

fn to_json(document: &Document, ledger: &Ledger<'_>) -> Value {
    json!({
        "name": &*document.name,
        "updated_at": show_time(document.updated_at),
        "overrides_files": is_in_files(ledger, document.kind, &document.name),
        "body": document.body,
    })
}

const fn plural(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Plan => "plans",
        DocumentKind::Policy => "policies",
    }
}

fn place(file: &str) -> String {
    if file == "-" { "standard input".to_owned() } else { format!("`{file}`") }
}

fn read(file: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().take(MAX_BODY + 1).read_to_string(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(MAX_BODY + 1).read_to_string(&mut text))
    };
    let length = read.with_context(|| format!("{} cannot be read", place(file)))?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_BODY) {
        bail!("{} is too long: at most {} KiB are read", place(file), MAX_BODY / 1024);
    }
    Ok(text)
}

/// JSON begins with a brace; no table of TOML does.
fn parse(text: &str) -> anyhow::Result<Value> {
    if text.trim_start().starts_with('{') {
        return Ok(serde_json::from_str(text)?);
    }
    let table: toml::Table = toml::from_str(text)?;
    Ok(serde_json::to_value(table)?)
}

/// A common slip: the table with its heading, as files have it.
fn refuse_a_heading(kind: DocumentKind, name: &str, body: &Value) -> anyhow::Result<()> {
    let list = plural(kind);
    if body.get(list).is_some_and(Value::is_object) {
        bail!("write only what stands below `[{list}.{name}]`, without the heading");
    }
    Ok(())
}
