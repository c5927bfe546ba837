//! What the commands on the store share: the store, where they print, and how.

use crate::auth::api_key::KeyId;
use crate::auth::documents::DocumentKind;
use crate::auth::registry::{Actor, KeyInfo, Page, Registry, RegistryError};
use crate::config::Config;
use crate::stores::Store;
use crate::telemetry::Clock;
use anyhow::Context as _;
use http::HeaderName;
use std::io::Write;
use std::sync::Arc;

/// Rows that are read from the store at once.
pub(super) const PAGE: usize = 500;
/// Names among which a similar one is looked for.
const SEARCHED: usize = 20_000;
/// Names that fit into a hint.
const SHOWN: usize = 20;
/// The least similarity that is worth a suggestion.
const SIMILAR: f64 = 0.8;

/// Names that stand in the files of the configuration.
#[derive(Clone, Debug)]
pub struct FileNames {
    /// The header that carries API keys.
    pub key_header: HeaderName,
    /// Issuers of tokens.
    pub issuers: Vec<Arc<str>>,
    /// Plans.
    pub plans: Vec<Arc<str>>,
    /// Policies.
    pub policies: Vec<Arc<str>>,
}

impl FileNames {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            key_header: config.api_key.header.clone(),
            issuers: config.credential_issuers(),
            plans: config.plans.iter().map(|plan| Arc::clone(&plan.name)).collect(),
            policies: config.policies.iter().map(|policy| Arc::clone(&policy.name)).collect(),
        }
    }

    /// Of what a document can describe.
    pub(super) fn documents(&self, kind: DocumentKind) -> &[Arc<str>] {
        match kind {
            DocumentKind::Plan => &self.plans,
            DocumentKind::Policy => &self.policies,
        }
    }
}

/// The store, and where to print.
pub struct Ledger<'a> {
    /// Everything that is kept.
    pub store: &'a dyn Store,
    /// Who writes.
    pub actor: &'a Actor,
    /// What the files have.
    pub names: &'a FileNames,
    /// The time.
    pub clock: &'a Clock,
    /// Whether to print JSON instead of tables.
    pub json: bool,
    /// Results.
    pub out: &'a mut dyn Write,
    /// Warnings.
    pub err: &'a mut dyn Write,
}

impl Ledger<'_> {
    /// Prints a value as JSON.
    pub(super) fn print_json(&mut self, value: &serde_json::Value) -> anyhow::Result<()> {
        writeln!(self.out, "{value:#}").context("the result could not be printed")
    }

    /// Prints a line.
    pub(super) fn print(&mut self, line: &str) -> anyhow::Result<()> {
        // In one piece: a reader that goes after the first part must not look like one that never was.
        self.out
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| self.out.flush())
            .context("the result could not be printed")
    }

    /// Prints rows below their headings, each column as wide as its widest cell.
    pub(super) fn print_table<const N: usize>(
        &mut self,
        headings: [&str; N],
        rows: &[[String; N]],
    ) -> anyhow::Result<()> {
        let rows: Vec<_> =
            rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
        let mut widths = headings.map(str::len);
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.print_row(&headings.map(str::to_owned), &widths)?;
        rows.iter().try_for_each(|row| self.print_row(row, &widths))
    }

    fn print_row(&mut self, cells: &[String], widths: &[usize]) -> anyhow::Result<()> {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        self.print(padded.join("  ").trim_end())
    }

    /// Prints a warning.
    pub(super) fn warn(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.err, "warning: {text}").context("a warning could not be printed")
    }

    /// Warns of a plan or a policy that is nowhere: whoever has it is refused.
    pub(super) async fn warn_of_unknown(
        &mut self,
        kind: DocumentKind,
        name: &str,
    ) -> anyhow::Result<()> {
        if self.names.documents(kind).iter().any(|known| &**known == name) {
            return Ok(());
        }
        match self.store.document(kind, name).await {
            Ok(_) => return Ok(()),
            Err(RegistryError::UnknownDocument { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut known = self.rows(kind).await.unwrap_or_default();
        known.extend(self.names.documents(kind).iter().cloned());
        known.sort_unstable();
        known.dedup();
        let kind = kind.as_str();
        let hint = hint(name, &known);
        self.warn(&format!(
            "no {kind} is called `{name}`; requests are refused until there is one: {hint}"
        ))
    }

    /// The end of a command: an error gets a way out.
    pub(super) async fn end(&self, done: anyhow::Result<()>) -> anyhow::Result<()> {
        match done.map_err(anyhow::Error::downcast::<RegistryError>) {
            Ok(()) => Ok(()),
            Err(Ok(refused)) => Err(self.explain(refused).await),
            Err(Err(error)) => Err(error),
        }
    }

    async fn explain(&self, error: RegistryError) -> anyhow::Error {
        let way_out = match &error {
            RegistryError::UnknownConsumer(name) => match self.similar_consumer(name).await {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`gateway consumers list` shows all".to_owned(),
            },
            RegistryError::UnknownDocument { kind, name } => {
                let (kind, list) = match *kind {
                    "plan" => (DocumentKind::Plan, "plans"),
                    _ => (DocumentKind::Policy, "policies"),
                };
                let rows = self.rows(kind).await.unwrap_or_default();
                if self.names.documents(kind).iter().any(|known| **known == **name) {
                    format!("the {} of this name stands in the files", kind.as_str())
                } else if let Some(near) = nearest(name, rows.iter().map(|name| &**name)) {
                    format!("did you mean `{near}`?")
                } else {
                    format!("`gateway {list} list` shows all")
                }
            }
            RegistryError::UnknownDenial(_) => "`gateway tokens list` shows all".to_owned(),
            RegistryError::UnknownKey(_) => "`gateway keys list` shows all".to_owned(),
            _ => return error.into(),
        };
        anyhow::anyhow!("{error}; {way_out}")
    }

    /// Names of rows, some thousands at most.
    async fn rows(&self, kind: DocumentKind) -> Result<Vec<Arc<str>>, RegistryError> {
        let mut names: Vec<Arc<str>> = Vec::new();
        loop {
            let page = Page { after: names.last().map(|name| &**name), limit: PAGE };
            let documents = self.store.documents(kind, page).await?;
            let is_last = documents.len() < PAGE;
            names.extend(documents.into_iter().map(|document| document.name));
            if is_last || names.len() >= SEARCHED {
                return Ok(names);
            }
        }
    }

    async fn similar_consumer(&self, name: &str) -> Option<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        while names.len() < SEARCHED {
            let page = Page { after: names.last().map(|name| &**name), limit: PAGE };
            // Without the list there is no suggestion, and the first error is the one that counts.
            let consumers = self.store.consumers(page).await.ok()?;
            let is_last = consumers.len() < PAGE;
            names.extend(consumers.into_iter().map(|info| info.consumer.username));
            if is_last {
                break;
            }
        }
        nearest(name, names.iter().map(|name| &**name)).map(Arc::from)
    }
}

/// All keys by id, of one consumer or of everybody.
pub(super) async fn all_keys(
    registry: &dyn Registry,
    consumer: Option<&str>,
) -> Result<Vec<KeyInfo>, RegistryError> {
    let mut all: Vec<KeyInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| info.id);
        let page = Page { after: after.as_ref().map(KeyId::as_str), limit: PAGE };
        let page = registry.keys(consumer, page).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// Which name was meant, or else which names there are.
pub(super) fn hint(name: &str, known: &[Arc<str>]) -> String {
    let shown: Vec<&str> = known.iter().take(SHOWN).map(|name| &**name).collect();
    match nearest(name, known.iter().map(|name| &**name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there are none yet".to_owned(),
        None => {
            let more = if known.len() > SHOWN { ", …" } else { "" };
            format!("there are `{}`{more}", shown.join("`, `"))
        }
    }
}

/// Without signs that would change what else a terminal shows.
fn printable(text: &str) -> String {
    let is_plain = |sign: char| sign == ' ' || sign.is_ascii_graphic() || sign.is_alphanumeric();
    text.chars().fold(String::new(), |mut printed, sign| {
        if is_plain(sign) {
            printed.push(sign);
        } else {
            printed.extend(sign.escape_debug());
        }
        printed
    })
}

/// The most similar of `names`, if it is similar enough.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_name() {
        let plans = ["free", "pro", "enterprise"];
        assert_eq!(nearest("enterprize", plans.into_iter()), Some("enterprise"));
        assert_eq!(nearest("gold", plans.into_iter()), None);
    }

    #[test]
    fn a_cell_cannot_change_what_a_terminal_shows() {
        for (text, printed) in [
            ("crm-7 \"x\" \u{e4}\u{5b57}", "crm-7 \"x\" \u{e4}\u{5b57}"),
            ("\u{1b}[2J\r\n\t", "\\u{1b}[2J\\r\\n\\t"),
            ("\u{202e}\u{200b}", "\\u{202e}\\u{200b}"),
        ] {
            assert_eq!(printable(text), printed);
        }
    }

    #[test]
    fn a_hint_names_few() {
        let known: Vec<Arc<str>> = (0..21).map(|number| format!("{number}").into()).collect();
        assert_eq!(hint("x", &[]), "there are none yet");
        assert_eq!(hint("x", &known[..2]), "there are `0`, `1`");
        assert!(hint("x", &known).ends_with("`18`, `19`, …"));
    }
}
