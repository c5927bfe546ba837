//! The files as one tree: parsed, laid end to end, merged.
//!
//! Tables like `[http]` and `[routes]` may be spread over files; a name or a key that is given
//! twice is an error with both places, in one file (where TOML itself refuses it) or in two.
//!
//! A file with a syntax error is left out of the tree, and the tree is then incomplete: nobody
//! may conclude that something is missing.

use super::diagnostic::{Diagnostic, Findings};
use super::source::{Source, Sources, Span};
use super::words;
use serde::de::IntoDeserializer;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Error};

/// Syntax errors of one file that are told.
const TOLD: usize = 20;

/// All files as one tree.
pub(crate) struct Document<'a> {
    /// The tree; its places are those of [`Sources`].
    pub(crate) root: DeTable<'a>,
    /// Whether every file is in it.
    pub(crate) complete: bool,
}

impl<'a> Document<'a> {
    /// Parses and merges all files.
    pub(crate) fn parse(sources: &'a Sources, findings: &mut Findings) -> Self {
        let mut document = Self { root: DeTable::new(), complete: findings.is_clean() };
        for file in &sources.files {
            if too_deep(&file.text) {
                let deep = Diagnostic::error("tables are nested too deeply").at_file(&file.path);
                findings.push(deep.help("no key of the gateway needs more than five levels"));
                document.complete = false;
                continue;
            }
            let (tree, errors) = DeTable::parse_recoverable(&file.text);
            let broken = errors.iter().any(|error| error.message() != DUPLICATE);
            syntax(file, &errors, findings);
            if broken {
                document.complete = false;
                continue;
            }
            let tree = shift_table(tree.into_inner(), file.base);
            merge(&mut document.root, tree, &mut Vec::new(), findings);
        }
        document
    }

    /// The tree as serde reads it.
    pub(crate) fn into_deserializer(self) -> toml::Deserializer<'a> {
        Spanned::new(0..0, self.root).into_deserializer()
    }
}

/// What TOML says of a key that is there twice.
const DUPLICATE: &str = "duplicate key";

/// Whether parsing could exhaust the stack: nested brackets and dotted keys multiply. The deepest
/// key of the gateway is in five tables.
fn too_deep(text: &str) -> bool {
    const DEEPEST: usize = 8;
    let mut depth = 0_usize;
    let mut dots = 0_usize;
    let mut rest = text;
    while let Some(at) = rest.find(['[', ']', '{', '}', '"', '\'', '#', '.', '=', ',', '\n']) {
        let tail = rest.get(at..).unwrap_or_default();
        let symbol = tail.as_bytes().first().copied().unwrap_or_default();
        match symbol {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'.' => dots += 1,
            _ => {}
        }
        if matches!(symbol, b'[' | b'{' | b'=' | b',' | b'\n' | b'#') {
            dots = 0;
        }
        if depth > DEEPEST || dots > DEEPEST {
            return true;
        }
        rest = match symbol {
            b'#' => tail.split_once('\n').map_or("", |(_, rest)| rest),
            b'"' | b'\'' => after_string(tail),
            _ => tail.get(1..).unwrap_or_default(),
        };
    }
    false
}

/// What follows the string at the start of this text; a broken one ends with its line.
fn after_string(text: &str) -> &str {
    for quotes in ["\"\"\"", "'''"] {
        if let Some(inner) = text.strip_prefix(quotes) {
            return inner.split_once(quotes).map_or("", |(_, rest)| rest);
        }
    }
    let quote = text.as_bytes().first().copied().unwrap_or_default();
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = !escaped && (byte == quote || byte == b'\n');
        escaped = !escaped && quote == b'"' && byte == b'\\';
        ends
    });
    end.and_then(|end| text.get(end + 2..)).unwrap_or_default()
}

/// Tells what TOML itself refuses in a file.
fn syntax(file: &Source, errors: &[Error], findings: &mut Findings) {
    let mut known_tables = Vec::new();
    for error in errors.iter().take(TOLD) {
        let range = error.span().unwrap_or(file.text.len()..file.text.len());
        let span = Span { start: file.base + range.start, end: file.base + range.end };
        if error.message() != DUPLICATE {
            let message = error.message().trim();
            findings.push(Diagnostic::error("the file is not valid TOML").at(span, message));
            continue;
        }
        // A table that is there twice brings its keys twice; once is enough to say it.
        let line = line_start(&file.text, range.start);
        let header = file.text.get(line..).filter(|rest| rest.trim_start().starts_with('['));
        let table = if header.is_some() { Some(line) } else { header_before(&file.text, line) };
        if header.is_some() {
            known_tables.push(table);
        } else if table.is_some() && known_tables.contains(&table) {
            continue;
        }
        findings.push(duplicate(file, range, span));
    }
}

fn duplicate(file: &Source, range: Range<usize>, span: Span) -> Diagnostic {
    let name = file.text.get(range.clone()).unwrap_or_default().trim_matches(['"', '\'']);
    let place =
        |range: Range<usize>| Span { start: file.base + range.start, end: file.base + range.end };
    match original(&file.text, range.start) {
        Some((path, first)) if path.last().is_some_and(|key| key == name) => {
            twice(&path, true, place(first), span)
        }
        _ => {
            let inline = before_on_line(&file.text, name, range.start);
            let first = inline.map_or(Span::NOWHERE, place);
            let twice =
                Diagnostic::error(format!("`{name}` is given twice")).at(span, "again here");
            twice.at(first, "first here").help("keep one of the two")
        }
    }
}

/// A name or key that stands in two places.
fn twice(path: &[String], in_one_file: bool, first: Span, second: Span) -> Diagnostic {
    let shared = in_one_file && is_shared(path);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let (key, table) = path.split_last().map_or(("", &[][..]), |(key, table)| (*key, table));
    let named = words::subject(&path);
    let message = match table {
        _ if shared => format!("{named} is given twice"),
        _ if !named.starts_with('`') => format!("{named} is defined twice"),
        [] => format!("`{key}` is given twice"),
        table => format!("`{key}` is given twice in {}", words::subject(table)),
    };
    Diagnostic::error(message)
        .at(second, "again here")
        .at(first, "first here")
        .help("all files of the folder are one configuration; keep one of the two")
}

/// Where `name = …` stands on the line before this byte, as in an inline table.
fn before_on_line(text: &str, name: &str, byte: usize) -> Option<Range<usize>> {
    let start = line_start(text, byte);
    let before = text.get(start..byte)?;
    let given = |at: &usize| {
        let rest = before.get(at + name.len()..).unwrap_or_default();
        rest.trim_start().starts_with('=')
    };
    let at = before.match_indices(name).map(|(at, _)| at).filter(given).last()?;
    Some(start + at..start + at + name.len())
}

fn line_start(text: &str, byte: usize) -> usize {
    text.get(..byte).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1)
}

/// Where the line of the last `[table]` before this byte starts.
fn header_before(text: &str, byte: usize) -> Option<usize> {
    let mut end = byte;
    while let Some(before) = end.checked_sub(1).and_then(|last| text.get(..last)) {
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        if text.get(start..end).is_some_and(|line| line.trim_start().starts_with('[')) {
            return Some(start);
        }
        end = start;
    }
    None
}

/// The key path at `second`, where TOML found a key again, and where it was first.
fn original(text: &str, second: usize) -> Option<(Vec<String>, Range<usize>)> {
    let start = line_start(text, second);
    let before = text.get(..start)?;
    let line = text.get(start..)?.lines().next()?.trim_start();
    let relative = if let Some(header) = line.strip_prefix('[') {
        format!("[{}]", header.trim_start_matches('[').split(']').next()?)
    } else {
        format!("{} = 0", line.split('=').next()?)
    };
    let relative = chain(&DeTable::parse(&relative).ok()?.into_inner());
    let known = DeTable::parse_recoverable(before).0.into_inner();
    let mut path = if line.starts_with('[') { Vec::new() } else { current_table(before)? };
    path.extend(relative);
    // The key that is there twice may stand in the middle of a dotted one.
    let mut table = &known;
    let mut found = None;
    for (depth, key) in path.iter().enumerate() {
        let Some((at, value)) = table.iter().find(|(known, _)| known.get_ref().as_ref() == key)
        else {
            break;
        };
        found = Some((depth + 1, at.span()));
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    let (depth, span) = found?;
    path.truncate(depth);
    Some((path, span))
}

/// The keys of a tree that has one branch.
fn chain(table: &DeTable<'_>) -> Vec<String> {
    let mut keys = Vec::new();
    let mut table = Some(table);
    while let Some((key, value)) = table.and_then(|table| table.iter().next()) {
        keys.push(key.get_ref().to_string());
        table = match value.get_ref() {
            DeValue::Table(inner) => Some(inner),
            _ => None,
        };
    }
    keys
}

/// The table that a key at the end of this text would belong to.
fn current_table(before: &str) -> Option<Vec<String>> {
    let Some(header) = header_before(before, before.len()) else { return Some(Vec::new()) };
    let name = before.get(header..)?.trim_start().trim_start_matches('[').split(']').next()?;
    Some(chain(&DeTable::parse(&format!("[{name}]")).ok()?.into_inner()))
}

fn shift_table(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    let moved = |span: Range<usize>| span.start + base..span.end + base;
    let mut shifted = DeTable::new();
    for (key, value) in table {
        let key = Spanned::new(moved(key.span()), key.into_inner());
        shifted.insert(key, shift_value(value, base));
    }
    shifted
}

fn shift_value(value: Spanned<DeValue<'_>>, base: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shift_table(table, base)),
        DeValue::Array(list) => {
            let mut shifted = DeArray::new();
            for item in list {
                shifted.push(shift_value(item, base));
            }
            DeValue::Array(shifted)
        }
        plain => plain,
    };
    Spanned::new(span.start + base..span.end + base, value)
}

/// Adds a file's tree to the whole.
fn merge<'a>(
    whole: &mut DeTable<'a>,
    more: DeTable<'a>,
    path: &mut Vec<String>,
    findings: &mut Findings,
) {
    for (key, value) in more {
        path.push(key.get_ref().to_string());
        let known = whole.get_key_value(&key).map(|(known, _)| known.span());
        match (known, whole.get_mut(&key).map(Spanned::get_mut), value.get_ref()) {
            (Some(_), Some(DeValue::Table(known)), DeValue::Table(_)) if is_shared(path) => {
                if let DeValue::Table(table) = value.into_inner() {
                    merge(known, table, path, findings);
                }
            }
            (Some(first), ..) => {
                let place = |range: Range<usize>| Span { start: range.start, end: range.end };
                findings.push(twice(path, false, place(first), place(key.span())));
            }
            (None, ..) => {
                whole.insert(key, value);
            }
        }
        path.pop();
    }
}

/// Tables that may be spread over files.
fn is_shared(path: &[String]) -> bool {
    match path {
        [table] => table != "workers",
        [auth, table] => auth == "auth" && matches!(table.as_str(), "api_key" | "jwt" | "mtls"),
        _ => false,
    }
}
