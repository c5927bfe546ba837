//! File to domain: every value parsed, every name resolved, every rule between keys checked.
//!
//! A function here looks at everything before it gives up: it returns `None` only after it has
//! reported why, so that all errors of all tables come in one report.

mod action;
mod auth;
mod clients;
mod cloudwatch;
mod conflicts;
mod expressions;
mod fleet;
mod guard;
mod issuer_keys;
mod issuers;
mod limits;
mod matcher;
mod plans;
mod policies;
mod process;
mod rewrite;
mod routes;
mod upstreams;
mod url;

pub(crate) use fleet::{Settings, compile_store};

use super::certificate::Certificate;
use super::diagnostic::{Diagnostic, Findings};
use super::schema::{At, Entries, File, Text};
use super::secret::{SecretFiles, Vault};
use super::shape::Lost;
use super::source::{Sources, Span};
use super::value::{Bounded, Name, Written};
use super::{Config, Fixed, PolicyDef, words};
use crate::auth::JwksUrl;
use crate::expressions::Language;
use crate::limits::Plan;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What compiling yields besides its findings.
pub(crate) struct Compiled {
    /// The configuration.
    pub(crate) config: Config,
    /// Where the keys stand that cannot be reloaded.
    pub(crate) origins: Origins,
}

/// Where the keys stand that cannot be reloaded.
pub(crate) struct Origins {
    pub(crate) workers: Span,
    /// Name, place of the name, place of the address.
    pub(crate) listeners: Vec<(Arc<str>, Span, Span)>,
    pub(crate) settings: Settings,
}

/// What all of compiling shares.
pub(crate) struct Context<'a> {
    /// What expressions are written in.
    pub(crate) language: Language,
    /// Claims that expressions read, and where.
    pub(crate) claims: Vec<(Arc<str>, Span)>,
    /// The text.
    pub(crate) sources: &'a Sources,
    /// Keys that were taken out of the tree.
    pub(crate) lost: Lost,
    /// Whether all files are in the tree.
    pub(crate) complete: bool,
    /// What is wrong.
    pub(crate) findings: Findings,
    /// Where secrets come from.
    pub(crate) vault: Vault<'a>,
    /// Files whose change matters, besides those of the vault.
    pub(crate) watched: Vec<PathBuf>,
}

/// A table with a name: what messages call it, and where the name stands.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    /// Its path in the tree.
    pub(crate) path: &'a [&'a str],
    /// Its name in the file.
    pub(crate) span: Span,
}

impl Owner<'_> {
    /// As messages name it.
    pub(crate) fn subject(&self) -> String {
        words::subject(self.path)
    }
}

/// Names and where they are defined.
pub(crate) type Names<'a> = BTreeMap<&'a str, Span>;

/// The names of a table.
pub(crate) fn names<T>(entries: &Entries<T>) -> Names<'_> {
    entries.0.iter().map(|(name, _)| (name.value.as_str(), name.span)).collect()
}

impl Context<'_> {
    /// One more finding.
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.findings.push(diagnostic);
    }

    /// Text to value.
    pub(crate) fn read<T: Written>(&mut self, at: &At<Text<T>>) -> Option<T> {
        self.parse(&at.value.text, at.span)
    }

    /// Text to value, where the text has no type of its own in the schema.
    pub(crate) fn parse<T: Written>(&mut self, text: &str, span: Span) -> Option<T> {
        match T::parse(text) {
            Ok(value) => Some(value),
            Err(invalid) => {
                // A URL with an `@` may have a password before it.
                let secret = T::WHAT == super::secret::Pointer::WHAT
                    || (T::WHAT == JwksUrl::WHAT && text.contains('@'));
                let shown = if secret { "this".to_owned() } else { quoted(text) };
                let wrong = Diagnostic::error(format!("{shown} is not {}", T::WHAT))
                    .at(span, invalid.label)
                    .help(invalid.help);
                self.report(if secret { wrong.hide_place() } else { wrong });
                None
            }
        }
    }

    /// Text to value, where another place reports what is wrong with it.
    pub(crate) fn read_quietly<T: Written>(&self, at: &At<Text<T>>) -> Option<T> {
        self.read_text_quietly(&at.value.text)
    }

    /// The same for text that has no type of its own.
    pub(crate) fn read_text_quietly<T: Written>(&self, text: &str) -> Option<T> {
        T::parse(text).ok()
    }

    /// Text to value, between two bounds.
    pub(crate) fn bounded<T: Bounded>(&mut self, at: &At<Text<T>>, least: T, most: T) -> Option<T> {
        let value = self.read(at)?;
        if value >= least && value <= most {
            return Some(value);
        }
        let message = format!("`{}` is out of range", value.show());
        let label = format!("it must be {} to {}", least.show(), most.show());
        self.report(Diagnostic::error(message).at(at.span, label));
        None
    }

    /// A list of different items, each read; `None` if one of them is wrong.
    pub(crate) fn read_set<T: Written + PartialEq>(
        &mut self,
        list: &[At<Text<T>>],
        what: &str,
    ) -> Option<Vec<T>> {
        let items: Vec<(Span, Option<T>)> =
            list.iter().map(|item| (item.span, self.read(item))).collect();
        let read: Vec<(Span, &T)> =
            items.iter().filter_map(|(span, item)| Some((*span, item.as_ref()?))).collect();
        self.refuse_twice(&read, what);
        items.into_iter().map(|(_, item)| item).collect()
    }

    /// The name of a table, which becomes a label.
    pub(crate) fn name(&mut self, name: &At<String>) -> Option<Arc<str>> {
        self.parse::<Name>(&name.value, name.span).map(|name| name.0)
    }

    /// A key that must be there.
    pub(crate) fn required<'v, T>(
        &mut self,
        value: Option<&'v T>,
        owner: Owner<'_>,
        key: &str,
        help: &str,
    ) -> Option<&'v T> {
        if value.is_none() && !self.is_lost(owner, key) {
            let message = format!("{} has no `{key}`", owner.subject());
            let label = format!("`{key}` is missing");
            self.report(Diagnostic::error(message).at(owner.span, label).help(help));
        }
        value
    }

    /// Whether a key is in the file after all, but wrong in a way that was told.
    pub(crate) fn is_lost(&self, owner: Owner<'_>, key: &str) -> bool {
        let path: Vec<&str> = owner.path.iter().copied().chain([key]).collect();
        self.lost.contains(&path)
    }

    /// A name that must be defined in the table `table`.
    pub(crate) fn reference(
        &mut self,
        owner: Owner<'_>,
        kind: &str,
        table: &str,
        at: &At<String>,
        known: &Names<'_>,
    ) -> Option<Arc<str>> {
        let define = format!("define it as `[{table}.{}]`", shorten(&at.value));
        self.reference_or(owner, (kind, table), at, known, &define)
    }

    /// The same, where there is more to say than how to define it.
    pub(crate) fn reference_or(
        &mut self,
        owner: Owner<'_>,
        (kind, table): (&str, &str),
        at: &At<String>,
        known: &Names<'_>,
        define: &str,
    ) -> Option<Arc<str>> {
        let name = at.value.as_str();
        if known.contains_key(name) {
            return Some(name.into());
        }
        if !self.complete || self.lost.contains(&[table, name]) {
            return None;
        }
        let help = match words::nearest(name, known.keys().copied()) {
            Some(near) => {
                let place = known.get(near).and_then(|span| self.sources.words(*span, at.span));
                let place = place.map_or_else(String::new, |place| format!(" ({place})"));
                format!("did you mean `{near}`{place}?")
            }
            None => define.to_owned(),
        };
        self.report(
            Diagnostic::error(format!("{} names an unknown {kind}", owner.subject()))
                .at(at.span, format!("no {kind} has this name"))
                .help(help),
        );
        None
    }

    /// An item that is in a list twice.
    pub(crate) fn refuse_twice<T: PartialEq>(&mut self, items: &[(Span, T)], what: &str) {
        if let Some((span, _)) = items.get(1000) {
            let many = Diagnostic::error(format!("there are too many {what}s in one list"));
            self.report(many.at(*span, "more than 1000"));
            return;
        }
        for (index, (span, item)) in items.iter().enumerate() {
            let earlier = items.iter().take(index).find(|(_, other)| other == item);
            if let Some((first, _)) = earlier {
                self.report(
                    Diagnostic::error(format!("the same {what} is listed twice"))
                        .at(*span, "again here")
                        .at(*first, "first here"),
                );
            }
        }
    }
}

/// A text in backticks.
pub(crate) fn quoted(text: &str) -> String {
    if text.is_empty() { "the empty text".to_owned() } else { format!("`{}`", shorten(text)) }
}

/// A text as it can stand in a message.
pub(crate) fn shorten(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect::<String>().escape_debug().to_string();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

/// Compiles a file; `None` means that the findings say why not.
pub(crate) fn compile(file: &File, files: SecretFiles, cx: &mut Context<'_>) -> Option<Compiled> {
    let key_header = cx.read_quietly(&file.auth.api_key.header);
    cx.language = std::mem::take(&mut cx.language).hiding(key_header);
    let process = process::compile(file, cx);
    let plan_names = names(&file.plans);
    let plans = plans::compile(&file.plans, cx);
    let policies = policies::compile(&file.policies, Some(&plan_names), cx);
    let upstream_names = names(&file.upstreams);
    let upstreams = upstreams::compile(&file.upstreams, cx);
    let routes = routes::compile(file, &upstream_names, cx);
    limits::refuse_many_claims(file, cx);
    let guard = guard::compile(&file.address_guard, cx);
    let fleet = fleet::compile(file, cx);
    let cloudwatch = cloudwatch::compile(&file.cloudwatch, &upstream_names, cx);
    let clients = clients::compile(file, &plan_names, cx);
    // Last, because secrets are made only when nothing else is wrong.
    let auth = auth::compile(file, &plan_names, files, cx);

    let (process, listeners) = process?;
    let (fleet, settings) = fleet?;
    let (api_key, issuers) = auth?;
    let clients = clients?;
    let certificates: Vec<(Arc<str>, Certificate)> = process.certificates;
    let config = Config {
        fixed: Fixed {
            workers: process.workers,
            listeners: process.listeners,
            admin: fleet.admin,
            store: fleet.store,
            redis: fleet.redis,
            fleet: fleet.fleet,
            cache: fleet.cache,
            cloudwatch: cloudwatch?,
        },
        certificates,
        clients: clients.trusts,
        http: process.http,
        drain: process.drain,
        access_log: process.access_log,
        address_guard: guard?,
        api_key,
        issuers,
        mtls: clients.rules,
        plans: plans?,
        policies: policies?,
        upstreams: upstreams?,
        routes: routes?,
    };
    Some(Compiled { config, origins: Origins { workers: file.workers.span, listeners, settings } })
}

/// Compiles what a row of the store can be.
pub(crate) fn compile_row(
    file: &File,
    cx: &mut Context<'_>,
) -> Option<(Vec<Plan>, Vec<PolicyDef>)> {
    let plans = plans::compile(&file.plans, cx);
    let policies = policies::compile(&file.policies, None, cx);
    Some((plans?, policies?))
}
