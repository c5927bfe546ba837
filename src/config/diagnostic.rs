//! What is wrong with the configuration, for the operator: a place, a reason, a way out.
//!
//! Findings are collected while the files are read and compiled, never one at a time; together
//! with the text they speak of they make a [`Report`], which prints like a compiler does.
//!
//! Must stay true: a report shows no secret ([`mask`]) and has a bounded length.

use super::source::{Source, Sources, Span, mask};
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Findings that a report prints in full; the rest is counted.
const SHOWN: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but the operator should know.
    Warning,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    /// The place itself first, then others that have to do with it.
    marks: Vec<(Span, String)>,
    /// A file or folder, where no line can be shown.
    file: Option<PathBuf>,
    helps: Vec<String>,
    /// What follows the first place on its line is not shown.
    hides_rest: bool,
    hides_place: bool,
}

impl Diagnostic {
    /// Something that makes the configuration unusable: lower case, no final dot.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message.into())
    }

    /// Something that the operator should know.
    pub(crate) fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message.into())
    }

    fn new(severity: Severity, message: String) -> Self {
        let (marks, helps) = (Vec::new(), Vec::new());
        Self { severity, message, marks, file: None, helps, hides_rest: false, hides_place: false }
    }

    /// Where, and what is wrong there. The first place is the finding's own.
    #[must_use]
    pub(crate) fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        if span.is_somewhere() {
            self.marks.push((span, label.into()));
        }
        self
    }

    /// In which file or folder, where no line can be named.
    #[must_use]
    pub(crate) fn at_file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self
    }

    /// What follows the place on its line could be a secret.
    #[must_use]
    pub(crate) fn hide_rest(mut self) -> Self {
        self.hides_rest = true;
        self
    }

    /// What stands at the place could be a secret.
    #[must_use]
    pub(crate) fn hide_place(mut self) -> Self {
        self.hides_place = true;
        self
    }

    /// A way out.
    #[must_use]
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.helps.push(text.into());
        self
    }

    /// What is wrong, in one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    fn place(&self) -> Span {
        self.marks.first().map_or(Span::NOWHERE, |(span, _)| *span)
    }
}

/// Findings on their way into a report.
#[derive(Default)]
pub(crate) struct Findings {
    list: Vec<Diagnostic>,
}

impl Findings {
    /// One more.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Whether nothing stands in the way so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.list.iter().all(|finding| finding.severity != Severity::Error)
    }

    /// Puts them in the order of the files.
    pub(crate) fn into_report(mut self, sources: &Arc<Sources>) -> Report {
        self.list.sort_by_key(|finding| finding.place());
        Report { diagnostics: self.list, sources: Arc::clone(sources), watched: Vec::new() }
    }
}

/// Everything that is wrong, with the text it speaks of. `Display` is what operators read.
pub struct Report {
    diagnostics: Vec<Diagnostic>,
    sources: Arc<Sources>,
    watched: Vec<PathBuf>,
}

impl Report {
    /// The same, and which files and folders may mend it when they change.
    pub(crate) fn watching(self, watched: Vec<PathBuf>) -> Self {
        Self { watched, ..self }
    }

    /// Files and folders whose change may mend it.
    #[must_use]
    pub fn watched(&self) -> &[PathBuf] {
        &self.watched
    }

    /// How many findings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.diagnostics.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// The findings, in the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter()
    }

    /// Each finding as an operator reads it, with its place.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        let renderer = Renderer::plain();
        self.iter().map(move |finding| {
            let text = renderer.render(&[group(finding, &self.sources)]);
            text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
        })
    }

    /// Each finding in one line without its place, and the line of its file, counted from 1.
    pub(super) fn by_line(&self) -> impl Iterator<Item = (Option<usize>, String)> {
        self.iter().map(|finding| {
            let place = self.sources.locate(finding.place());
            let line = place.map(|(file, range)| file.line(range.start));
            let label = finding.marks.first().map(|(_, label)| label);
            let parts: Vec<&str> = std::iter::once(&finding.message)
                .chain(label)
                .chain(&finding.helps)
                .map(|it| &**it)
                .collect();
            (line, parts.join("; "))
        })
    }

    /// The last line of the report: `2 errors, 1 warning`.
    #[must_use]
    pub fn count(&self) -> String {
        let count = |severity, word: &str| {
            let number = self.iter().filter(|finding| finding.severity == severity).count();
            match number {
                0 => None,
                1 => Some(format!("1 {word}")),
                more => Some(format!("{more} {word}s")),
            }
        };
        let parts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// One line for a log: the count, then the first finding with its place.
    #[must_use]
    pub fn summary(&self) -> String {
        let Some(first) = self.diagnostics.first() else { return String::new() };
        let place = match self.sources.locate(first.place()) {
            Some((file, range)) => {
                format!("{}:{}: ", file.path.display(), file.line(range.start))
            }
            None => first.file.as_ref().map_or_else(String::new, |p| format!("{}: ", p.display())),
        };
        format!("{}; first: {place}{}", self.count(), first.message)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = Renderer::plain();
        for finding in self.iter().take(SHOWN) {
            let text = renderer.render(&[group(finding, &self.sources)]);
            for line in text.lines() {
                writeln!(f, "{}", line.trim_end())?;
            }
            writeln!(f)?;
        }
        if let Some(more) = self.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            writeln!(f, "(and {more} more, not shown)\n")?;
        }
        write!(f, "{}", self.count())
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report {}

/// A finding as the renderer wants it: one snippet per file that it speaks of.
fn group<'a>(finding: &'a Diagnostic, sources: &'a Sources) -> Group<'a> {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(finding.message.as_str()));
    let own = sources.locate(finding.place()).map(|(file, _)| file.base);
    let mut files: Vec<&Source> = Vec::new();
    for (span, _) in &finding.marks {
        if let Some((file, _)) = sources.locate(*span)
            && files.iter().all(|known| known.base != file.base)
        {
            files.push(file);
        }
    }
    for file in files {
        group = group.element(snippet(finding, sources, file, own == Some(file.base)));
    }
    if finding.marks.is_empty()
        && let Some(path) = &finding.file
    {
        group = group.element(Origin::path(path.display().to_string()));
    }
    for help in &finding.helps {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The lines of one file that a finding speaks of, and no others.
fn snippet<'a>(
    finding: &'a Diagnostic,
    sources: &'a Sources,
    file: &'a Source,
    own: bool,
) -> Snippet<'a, Annotation<'a>> {
    let marks: Vec<(Range<usize>, &str, bool)> = (finding.marks.iter().enumerate())
        .filter_map(|(index, (span, label))| {
            let (at, range) = sources.locate(*span)?;
            let range = first_line(&file.text, range);
            (at.base == file.base).then_some((range, label.as_str(), own && index == 0))
        })
        .collect();
    let first = marks.iter().map(|(range, ..)| range.start).min().unwrap_or(0);
    let last = marks.iter().map(|(range, ..)| range.end).max().unwrap_or(0);
    let from = file.text.get(..first).and_then(|text| text.rfind('\n')).map_or(0, |at| at + 1);
    let rest = file.text.get(last..).unwrap_or_default();
    let to = last + rest.find('\n').unwrap_or(rest.len());
    let mut shown = mask(file.text.get(from..to).unwrap_or_default()).replace('\r', " ");
    if let Some((range, _, true)) = marks.first().filter(|_| finding.hides_rest)
        && let Some((kept, hidden)) = shown.split_at_checked(range.end - from)
    {
        let (line, below) = hidden.split_at(hidden.find('\n').unwrap_or(hidden.len()));
        let is_header = kept.lines().next_back().unwrap_or(kept).trim_start().starts_with('[');
        let (open, secret) = line.split_at(value_behind(line, is_header));
        shown = format!("{kept}{open}{}{below}", "*".repeat(secret.len()));
    }
    if let Some((range, _, true)) = marks.first().filter(|_| finding.hides_place)
        && let Some(place) = shown.get(range.start - from..range.end - from)
    {
        let stars = "*".repeat(place.len());
        shown.replace_range(range.start - from..range.end - from, &stars);
    }
    Snippet::source(shown)
        .path(file.path.display().to_string())
        .line_start(file.line(from))
        .annotations(marks.into_iter().map(|(range, label, primary)| {
            let kind = if primary { AnnotationKind::Primary } else { AnnotationKind::Context };
            kind.span(range.start - from..range.end - from).label(label)
        }))
}

/// Where the value starts in what follows a key on its line. A table's header has none; behind it
/// may stand a comment.
fn value_behind(rest: &str, is_header: bool) -> usize {
    match rest.find('=') {
        Some(sign) => {
            let value = rest.get(sign + 1..).unwrap_or_default();
            rest.len() - value.trim_start_matches([' ', '\t']).len()
        }
        None if is_header => rest.find('#').unwrap_or(rest.len()),
        None => 0,
    }
}

/// What stands on the first line of a place, on whole characters and never past the line.
fn first_line(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(range.start);
    let end = text.ceil_char_boundary(range.end).max(start);
    let line = text.get(start..end).unwrap_or_default();
    let stop = line.find(['\n', '\r']).unwrap_or(line.len());
    start..start + stop
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_wrong_key_is_hidden_from_its_value_on() {
        for (text, key, shown) in [
            ("addresses = [\"hunter2\"]", "addresses", "addresses = ***********"),
            ("\"seret\"=\"hunter2\" # x", "\"seret\"", "\"seret\"=*************"),
            ("a.seret.b = 'hunter2'", "seret", "a.seret.b = *********"),
            ("[auth.mtls.default]", "default", "[auth.mtls.default]"),
            ("[auth.mtls.default.deep]", "default", "[auth.mtls.default.deep]"),
            ("[auth.mtls.default] # hunter2", "default", "[auth.mtls.default] *********"),
            ("  [{ seret = 'hunter2' }]", "seret", "  [{ seret = ************"),
            ("seret", "se", "se***"),
        ] {
            let mut sources = Sources { dir: PathBuf::new(), files: Vec::new() };
            sources.push("a.toml".into(), format!("# above\n{text}\n# below\n"));
            let start = 1 + "# above\n".len() + text.find(key).unwrap();
            let mut findings = Findings::default();
            let span = Span { start, end: start + key.len() };
            findings.push(Diagnostic::error("wrong").at(span, "here").hide_rest());
            let report = findings.into_report(&Arc::new(sources)).to_string();
            assert!(report.contains(&format!("2 | {shown}\n")), "{report}");
        }
    }
}
