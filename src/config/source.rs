//! The text of all configuration files, and where a piece of it stands.
//!
//! The files are laid end to end, so that one pair of numbers ([`Span`]) names a place in any of
//! them; place 0 belongs to no file and marks what the gateway itself brought (a default).
//!
//! Must stay true: nothing of unbounded size is read, and a line is only shown after [`mask`].

use super::diagnostic::{Diagnostic, Findings};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of one file.
const MAX_FILE: usize = 1024 * 1024;
/// Files of one folder.
const MAX_FILES: usize = 256;

/// A place in the configuration: bytes over all files laid end to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// First byte; 0 is no place at all.
    pub(crate) start: usize,
    /// The byte after the last.
    pub(crate) end: usize,
}

impl Span {
    /// The place of what no file says.
    pub(crate) const NOWHERE: Self = Self { start: 0, end: 0 };

    /// Whether a file says it.
    pub(crate) fn is_somewhere(self) -> bool {
        self.start > 0
    }
}

/// One file.
pub(crate) struct Source {
    /// As the operator would type it.
    pub(crate) path: PathBuf,
    /// All of it.
    pub(crate) text: String,
    /// Where its first byte stands in [`Span`]s.
    pub(crate) base: usize,
}

impl Source {
    /// The line of a byte, counted from 1.
    pub(crate) fn line(&self, byte: usize) -> usize {
        let before = self.text.as_bytes().get(..byte).unwrap_or(self.text.as_bytes());
        memchr::memchr_iter(b'\n', before).count() + 1
    }
}

/// All files, in the order of their names.
pub(crate) struct Sources {
    /// The folder that was given.
    pub(crate) dir: PathBuf,
    /// The files that could be read.
    pub(crate) files: Vec<Source>,
}

impl Sources {
    /// Reads every `*.toml` directly in `dir`, except hidden ones (editors leave those behind).
    pub(crate) fn read(dir: &Path, findings: &mut Findings) -> Self {
        let mut sources = Self { dir: dir.to_owned(), files: Vec::new() };
        for path in list(dir, findings) {
            match read_text(&path) {
                Ok(text) => sources.push(path, text),
                Err(reason) => {
                    findings.push(Diagnostic::error("cannot be read").at_file(&path).help(reason));
                }
            }
        }
        sources
    }

    /// Puts one more file behind the others.
    pub(crate) fn push(&mut self, path: PathBuf, text: String) {
        let base = self.files.last().map_or(1, |last| last.base + last.text.len() + 1);
        self.files.push(Source { path, text, base });
    }

    /// The file of a place, and the place inside it.
    pub(crate) fn locate(&self, span: Span) -> Option<(&Source, Range<usize>)> {
        if !span.is_somewhere() {
            return None;
        }
        let after = self.files.partition_point(|file| file.base <= span.start);
        let file = self.files.get(after.checked_sub(1)?)?;
        let end = span.end.saturating_sub(file.base).min(file.text.len());
        let start = (span.start - file.base).min(end);
        Some((file, start..end))
    }

    /// Where something is, in the words of a message that is about `from`: `line 12`, or
    /// `conf/upstreams.toml:12` in another file.
    pub(crate) fn words(&self, span: Span, from: Span) -> Option<String> {
        let (file, range) = self.locate(span)?;
        let line = file.line(range.start);
        let same = self.locate(from).is_some_and(|(other, _)| other.base == file.base);
        Some(if same { format!("line {line}") } else { format!("{}:{line}", file.path.display()) })
    }
}

/// The files to read, sorted.
fn list(dir: &Path, findings: &mut Findings) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            let cause = Diagnostic::error("the configuration folder cannot be read").at_file(dir);
            findings.push(cause.help(format!("{error}; name another folder with --conf")));
            return paths;
        }
    };
    for entry in entries {
        match entry {
            Ok(entry) => paths.extend(is_configuration(&entry.path()).then(|| entry.path())),
            Err(error) => findings.push(
                Diagnostic::error("the configuration folder cannot be read")
                    .at_file(dir)
                    .help(error.to_string()),
            ),
        }
    }
    paths.sort();
    if paths.is_empty() && findings.is_clean() {
        let none = Diagnostic::error("there is no configuration in this folder").at_file(dir);
        findings.push(none.help("files must end in `.toml` and stand directly in it"));
    }
    if paths.len() > MAX_FILES {
        let many = format!("more than {MAX_FILES} files");
        findings.push(Diagnostic::error(many).at_file(dir).help("join some of them"));
        paths.truncate(MAX_FILES);
    }
    paths
}

fn is_configuration(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().first() == Some(&b'.'));
    !hidden && path.extension().is_some_and(|extension| extension == "toml") && !path.is_dir()
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().is_ok_and(|about| about.is_file()) {
        return Err("it is not a plain file".to_owned());
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > MAX_FILE {
        return Err("it is larger than 1 MiB; split it".to_owned());
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        // Some editors put a byte order mark before the text.
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = memchr::memchr_iter(b'\n', error.as_bytes().get(..good).unwrap_or(&[])).count();
        format!("line {} is not UTF-8", line + 1)
    })
}

/// Keys that hold a secret, or rather point to one.
pub(crate) const SECRETS: [&str; 7] =
    ["secret", "secrets", "pepper", "key", "token", "url", "replica_url"];

/// Header fields that carry one, in lower case.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "password"];

/// Hides what looks like a secret that stands in a file, byte for byte: reports go to logs.
pub(crate) fn mask(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let lower = line.to_ascii_lowercase();
        let keys = SECRETS.iter().chain(&CREDENTIALS);
        match keys.filter_map(|key| literal_after(&lower, key)).min() {
            Some(from) => {
                let (open, hidden) = line.split_at(from);
                shown.push_str(open);
                for symbol in hidden.chars() {
                    let kept = matches!(symbol, '\n' | '\r');
                    let stars = if kept { 0 } else { symbol.len_utf8() };
                    shown.extend(std::iter::repeat_n('*', stars));
                    shown.extend(kept.then_some(symbol));
                }
            }
            None => shown.push_str(line),
        }
    }
    shown
}

/// Where the value of `key = …` starts in a line, unless it only points to a secret.
fn literal_after(line: &str, key: &str) -> Option<usize> {
    line.match_indices(key).find_map(|(at, _)| {
        let before = line.get(..at)?.chars().next_back();
        let rest = line.get(at + key.len()..)?;
        let value = rest.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix('=')?;
        let value = value.trim_start_matches([' ', '\t']);
        let inner = value.trim_start_matches(['"', '\'']);
        let points = inner.starts_with("env:") || inner.starts_with("file:");
        let whole = before.is_none_or(|symbol| !symbol.is_alphanumeric() && symbol != '_');
        let counted = key == "cookie" && opens_per(line.get(..at)?);
        (whole && !points && !counted && !inner.trim().is_empty()).then(|| line.len() - value.len())
    })
}

/// Whether this ends in `per = {`: there stands the name of what a limit counts by, not its value.
fn opens_per(before: &str) -> bool {
    let open =
        |text: &str, sign| text.trim_end().strip_suffix(sign).map(str::trim_end).map(str::len);
    let table = before.trim_end_matches(['"', '\'']);
    let key = open(table, '{').and_then(|end| table.get(..end));
    let key = key.and_then(|key| key.get(..open(key, '=')?));
    key.and_then(|key| key.strip_suffix("per")).is_some_and(|front| {
        !front.ends_with(|symbol: char| symbol.is_alphanumeric() || matches!(symbol, '_' | '-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_secret_is_hidden_and_a_pointer_to_one_is_shown() {
        for (line, shown) in [
            ("secret = \"hunter2\"\n", "secret = *********\n"),
            ("api_key = { pepper = 'é' }", "api_key = { pepper = ******"),
            ("secret = \"env:JWT_SECRET\"", "secret = \"env:JWT_SECRET\""),
            ("key = \"file:tls/key.pem\" # there", "key = \"file:tls/key.pem\" # there"),
            ("secrets = { a = \"hunter2\" }", "secrets = *****************"),
            ("secret = [\"hunter2\"]", "secret = ***********"),
            ("url = \"postgres://u:hunter2@db/x\"", "url = ***************************"),
            ("url = \"env:DATABASE_URL\"", "url = \"env:DATABASE_URL\""),
            ("{ url = \"hunter2\", key = \"x\" }", "{ url = **********************"),
            (
                "set = { Authorization = \"hunter2\", x = 1 }",
                "set = { Authorization = ******************",
            ),
            ("set = { \"set-cookie\" = \"hunter2\" }", "set = { \"set-cookie\" = ***********"),
            ("monkey = \"x\"", "monkey = \"x\""),
            ("per = \"key\"", "per = \"key\""),
            ("per = { cookie = \"tenant\" }", "per = { cookie = \"tenant\" }"),
            ("a = { per = { 'cookie' = \"x\" } }", "a = { per = { 'cookie' = \"x\" } }"),
            ("per = { cookie = 1, key = \"x\" }", "per = { cookie = 1, key = *****"),
            ("super = { cookie = \"x\" }", "super = { cookie = *****"),
        ] {
            assert_eq!(mask(line), shown);
            assert_eq!(mask(line).len(), line.len());
        }
    }

    #[test]
    fn a_place_is_found_in_the_right_file() {
        let mut sources = Sources { dir: PathBuf::new(), files: Vec::new() };
        sources.push("a.toml".into(), "x = 1\n".to_owned());
        sources.push("b.toml".into(), "y = 1\nz = 2\n".to_owned());
        let second = sources.files[1].base;
        let (file, range) = sources.locate(Span { start: second + 6, end: second + 7 }).unwrap();
        assert_eq!((file.path.to_str(), range), (Some("b.toml"), 6..7));
        let z = Span { start: second + 6, end: second + 7 };
        assert_eq!(sources.words(z, z).as_deref(), Some("line 2"));
        assert_eq!(sources.words(z, Span { start: 1, end: 2 }).as_deref(), Some("b.toml:2"));
        assert!(sources.locate(Span::NOWHERE).is_none());
    }
}
