//! What an expression may be at most, and a look at its text before anything parses it.
//!
//! The parser is recursive and so are all who walk its tree: text that nests deeply, or is long,
//! must be refused by somebody who needs no stack. This file reads bytes from front to back.
//!
//! Must stay true: what passes has at most [`TOKENS`] tokens and nests at most [`DEPTH`] deep. Text
//! that is not closed and escapes that do not exist are refused here, since the parser would go on
//! behind them and find more than was counted.

use super::mistake::Mistake;
use std::ops::Range;

/// Bytes of an expression.
pub(super) const SOURCE: usize = 4096;
/// Words, numbers, texts and signs.
pub(super) const TOKENS: usize = 400;
/// Brackets inside brackets, and choices inside choices.
const DEPTH: usize = 16;
/// Levels of the tree; in a chain as `a + b + c` each sign is one. The interpreter takes some KiB of
/// stack for each.
pub(super) const LEVELS: usize = 32;
/// Parts of the tree.
pub(super) const NODES: usize = 256;
/// Bytes of one text that is given to an expression; a longer one is an error when it runs.
pub(super) const TEXT: usize = 16 * 1024;
/// The same where a pattern looks at it, which takes longer.
pub(super) const MATCHED: usize = 4 * 1024;
/// Bytes of a scope.
pub(super) const SCOPE: usize = 256;
/// Scopes of a caller that an expression sees.
pub(super) const SCOPES: usize = 128;
/// Bytes of a pattern.
pub(super) const PATTERN: usize = 256;
/// Bytes that a compiled pattern may take.
pub(super) const PATTERN_SIZE: usize = 64 * 1024;
/// Steps that an evaluation may take at worst; a step is a part of the tree, or [`STEP`] bytes.
pub(super) const STEPS: usize = 32 * 1024;
/// Bytes of text that count as one step.
pub(super) const STEP: usize = 64;

/// Looks at the text alone.
pub(super) fn check(source: &str) -> Result<(), Mistake> {
    if source.len() > SOURCE {
        return Err(Mistake::new(
            0..source.len(),
            "the expression is too long",
            format!("{} bytes; at most {SOURCE}", source.len()),
            "say it with fewer words, or with policies of their own",
        ));
    }
    let mut scan = Scan { source, bytes: source.as_bytes(), at: 0, tokens: 0, depth: 0 };
    while let Some(&byte) = scan.bytes.get(scan.at) {
        scan.token(byte)?;
        if scan.tokens > TOKENS {
            return Err(Mistake::new(
                0..source.len(),
                "the expression is too large",
                format!("more than {TOKENS} words and signs"),
                "say it with fewer words, or with policies of their own",
            ));
        }
        if scan.depth > DEPTH {
            return Err(Mistake::new(
                scan.at.saturating_sub(1)..scan.at.max(1),
                "the expression nests too deeply",
                format!("this is level {}; at most {DEPTH}", DEPTH + 1),
                "remove parentheses that are not needed, or split the expression",
            ));
        }
    }
    if scan.tokens == 0 {
        return Err(Mistake::new(
            0..source.len(),
            "the expression is empty",
            "nothing is said",
            "write an expression, as `request.method == 'GET'`, or remove the key",
        ));
    }
    Ok(())
}

struct Scan<'s> {
    source: &'s str,
    bytes: &'s [u8],
    at: usize,
    tokens: usize,
    depth: usize,
}

impl Scan<'_> {
    fn token(&mut self, byte: u8) -> Result<(), Mistake> {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | 0x0c => self.at += 1,
            b'\'' | b'"' => {
                self.tokens += 1;
                self.text(byte, false)?;
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                self.tokens += 1;
                self.word()?;
            }
            b'/' if self.bytes.get(self.at + 1) == Some(&b'/') => {
                return Err(unknown(
                    self.at..self.at + 2,
                    "a comment",
                    "write `#` behind the value",
                ));
            }
            byte if byte.is_ascii() => {
                self.tokens += 1;
                match byte {
                    b'(' | b'[' | b'{' | b'?' => self.depth += 1,
                    b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                self.at += 1;
            }
            _ => {
                let rest = self.source.get(self.at..).unwrap_or_default();
                let length = rest.chars().next().map_or(1, char::len_utf8);
                let help = "put text into quotes, as `'…'`";
                return Err(unknown(self.at..self.at + length, "this character", help));
            }
        }
        Ok(())
    }

    /// A word or a number; some words open a text.
    fn word(&mut self) -> Result<(), Mistake> {
        let start = self.at;
        while self
            .bytes
            .get(self.at)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        {
            self.at += 1;
        }
        let Some(&quote @ (b'\'' | b'"')) = self.bytes.get(self.at) else { return Ok(()) };
        match self.source.get(start..self.at) {
            Some("r" | "R") => self.text(quote, true),
            _ => Err(unknown(start..self.at + 1, "this before a quote", "leave it out")),
        }
    }

    /// From an opening quote to what follows the closing one.
    fn text(&mut self, quote: u8, raw: bool) -> Result<(), Mistake> {
        let start = self.at;
        if self.bytes.get(start..start + 3) == Some(&[quote; 3]) {
            let help = "one quote opens a text, and the same one closes it";
            return Err(unknown(start..start + 3, "a text in three quotes", help));
        }
        self.at += 1;
        loop {
            match self.bytes.get(self.at) {
                None | Some(b'\n' | b'\r') => {
                    return Err(Mistake::new(
                        start..start + 1,
                        "a text is not closed",
                        "it begins here",
                        "close it by the same quote; a line break is written `\\n`",
                    ));
                }
                Some(&byte) if byte == quote => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') if !raw => self.escape()?,
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Mistake> {
        let digits = |length: usize, good: fn(&u8) -> bool| {
            let digits = self.bytes.get(self.at + 2..self.at + 2 + length);
            digits.is_some_and(|digits| digits.iter().all(good))
        };
        let hex = |byte: &u8| byte.is_ascii_hexdigit();
        let octal = |byte: &u8| matches!(byte, b'0'..=b'7');
        let length = match self.bytes.get(self.at + 1) {
            Some(
                b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`',
            ) => 2,
            Some(b'x' | b'X') if digits(2, hex) => 4,
            Some(b'u') if digits(4, hex) => 6,
            Some(b'U') if digits(8, hex) => 10,
            Some(b'0'..=b'3') if digits(2, octal) => 4,
            _ => {
                return Err(Mistake::new(
                    self.at..self.at + 1,
                    "an escape does not exist",
                    "what follows is no escape",
                    "write `\\\\` for a backslash, or put `r` before the quote",
                ));
            }
        };
        self.at += length;
        Ok(())
    }
}

fn unknown(at: Range<usize>, what: &str, help: &str) -> Mistake {
    let label = "not known in expressions";
    Mistake::new(at, format!("{what} cannot stand in an expression"), label, help)
}
