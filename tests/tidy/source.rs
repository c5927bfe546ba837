//! One source file as the tidy rules see it: its text, and its code without comments, the inside
//! of strings, or test modules.
//!
//! Must stay true: every form has the same lines as the file, so that a finding has a line number.

use std::path::Path;

/// A file under `src/`, `tests/`, `benches/` or `examples/`.
pub(crate) struct Source {
    /// Relative to the package, with `/`.
    pub(crate) path: String,
    /// As it stands in the file.
    pub(crate) text: String,
    /// Comments and the inside of literals are spaces.
    pub(crate) code: String,
    /// As `code`, with `#[cfg(test)]` items blank as well.
    pub(crate) production: String,
    /// Lines of `#[cfg(test)]` items.
    test_lines: usize,
}

impl Source {
    pub(crate) fn load(root: &Path, file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let path = file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        Self::new(path, text)
    }

    pub(crate) fn new(path: String, text: String) -> Self {
        let code = blank_comments_and_literals(&text);
        let (production, test_lines) = blank_test_items(&code);
        Self { path, text, code, production, test_lines }
    }

    /// The files and folders of the modules that this file compiles for tests only.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let inside = self.path.strip_suffix("/mod.rs").or_else(|| self.path.strip_suffix(".rs"));
        let folder = match inside.unwrap_or(&self.path) {
            "src/lib" | "src/main" => "src",
            folder => folder,
        };
        let marks = self.code.match_indices(TEST_MARK).map(|(at, _)| at + TEST_MARK.len());
        marks
            .filter_map(|at| {
                let item = &self.code[at..];
                let end = item.find(['{', ';'])?;
                item[end..].starts_with(';').then_some(())?;
                let (_, name) = item[..end].trim().rsplit_once("mod ")?;
                Some([format!("{folder}/{name}.rs"), format!("{folder}/{name}/")])
            })
            .flatten()
            .collect()
    }

    /// Lines outside of test items.
    pub(crate) fn production_lines(&self) -> usize {
        self.text.lines().count() - self.test_lines
    }
}

const TEST_MARK: &str = "#[cfg(test)]";

/// The number of the line, from 1, that byte `at` is on.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Whether the byte belongs to an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Every place where `word` stands on its own, not as a part of a longer one.
pub(crate) fn words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let bytes = text.as_bytes();
        let before = at.checked_sub(1).is_some_and(|i| is_word(bytes[i]));
        let after = bytes.get(at + word.len()).copied().is_some_and(is_word);
        !(before || after)
    })
}

/// The end of what opens at `open` (`{`, `(` or `[`), just behind its closing bracket.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

fn blank(out: &mut [u8], from: usize, to: usize) {
    for byte in &mut out[from..to] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        let end = if rest.starts_with(b"//") {
            let end = find(bytes, at, b"\n").unwrap_or(bytes.len());
            blank(&mut out, at, end);
            end
        } else if rest.starts_with(b"/*") {
            let end = block_comment_end(bytes, at);
            blank(&mut out, at, end);
            end
        } else if let Some(end) = string_literal(bytes, at) {
            blank(&mut out, at, end);
            end
        } else if let Some(end) = char_literal(text, at) {
            blank(&mut out, at, end);
            end
        } else if is_word(bytes[at]) {
            // A whole word at once, so that the `r` of `for` never opens a raw string.
            at + bytes[at..].iter().take_while(|byte| is_word(**byte)).count()
        } else {
            at + 1
        };
        at = end;
    }
    String::from_utf8(out).unwrap()
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    (from..bytes.len()).find(|at| bytes[*at..].starts_with(needle))
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// A string that starts at `at`, its prefix included: its end.
fn string_literal(bytes: &[u8], at: usize) -> Option<usize> {
    let prefix = bytes[at..].iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    let raw = prefix > 0 && bytes[at + prefix - 1] == b'r';
    if prefix > 2 {
        return None;
    }
    let hashes =
        if raw { bytes[at + prefix..].iter().take_while(|byte| **byte == b'#').count() } else { 0 };
    let quote = at + prefix + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    if raw {
        let mut close = vec![b'"'];
        close.resize(hashes + 1, b'#');
        let end = find(bytes, quote + 1, &close).map_or(bytes.len(), |end| end + close.len());
        return Some(end);
    }
    let mut end = quote + 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    Some((end + 1).min(bytes.len()))
}

/// A character literal at `at` (not a lifetime): its end.
fn char_literal(text: &str, at: usize) -> Option<usize> {
    let mut inside = text.get(at..)?.strip_prefix('\'')?.char_indices();
    let (_, first) = inside.next()?;
    let end = if first == '\\' {
        // The escaped character itself, which may be a quote.
        inside.next()?;
        inside.find(|(_, c)| *c == '\'')?.0
    } else {
        let (offset, close) = inside.next()?;
        if close != '\'' {
            return None;
        }
        offset
    };
    Some(at + 1 + end + 1)
}

/// The code without `#[cfg(test)]` items, and how many lines those have.
fn blank_test_items(code: &str) -> (String, usize) {
    let mut out = code.as_bytes().to_vec();
    let (mut lines, mut behind) = (0, 0);
    for (at, _) in code.match_indices(TEST_MARK) {
        if at < behind {
            continue;
        }
        let after = &code[at + TEST_MARK.len()..];
        let stop = after.find(['{', ';']).unwrap_or(after.len());
        let from = at + TEST_MARK.len() + stop;
        behind = if after[stop..].starts_with('{') { closing(code, from) } else { from };
        lines += code[at..behind].matches('\n').count() + 1;
        blank(&mut out, at, behind);
    }
    (String::from_utf8(out).unwrap(), lines)
}

#[test]
fn comments_and_literals_are_blank_and_code_stays() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("x{", 'y', b'\'')"#, "f(    ,    , b    )"),
        (r##"f(r#"a"b"#) + for"##, "f(        ) + for"),
        (r#"g("a\"b") <'a>"#, "g(      ) <'a>"),
        (r"let c = '\u{7f}'; x", "let c =         ; x"),
        ("let c = 'ä'; x", "let c =     ; x"),
    ] {
        assert_eq!(blank_comments_and_literals(text), code);
    }
}

#[test]
fn test_modules_do_not_count_as_production() {
    let text = "//! Doc.\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n\n    // Why.\n    fn b() {}\n}\nfn c() {}\n";
    let source = Source::new("src/a.rs".to_owned(), text.to_owned());
    assert_eq!(source.production_lines(), 4);
    assert!(source.production.contains("fn c") && !source.production.contains("fn b"));
}

#[test]
fn files_of_test_modules_are_known() {
    let text = "#[cfg(test)]\npub(crate) mod fake;\n#[cfg(test)]\nmod tests {\n}\nmod real;\n";
    for (path, folder) in
        [("src/auth/mod.rs", "src/auth"), ("src/auth.rs", "src/auth"), ("src/lib.rs", "src")]
    {
        let source = Source::new(path.to_owned(), text.to_owned());
        assert_eq!(source.test_modules(), [format!("{folder}/fake.rs"), format!("{folder}/fake/")]);
    }
}
