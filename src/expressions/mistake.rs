//! What is wrong with the text of an expression, before it has a place in a file.

use std::ops::Range;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the expression.
    pub at: Range<usize>,
    /// What is wrong: lower case, no final dot.
    pub message: String,
    /// What is wrong at that place.
    pub label: String,
    /// A way out.
    pub help: String,
}

impl Mistake {
    pub(super) fn new(
        at: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { at, message: message.into(), label: label.into(), help: help.into() }
    }
}

/// Where characters of a text stand: the parser counts characters, a file bytes.
pub(super) struct Text<'s> {
    pub(super) source: &'s str,
}

impl Text<'_> {
    /// The byte at which the character of this number begins; the end, if there are fewer.
    fn byte(&self, character: usize) -> usize {
        self.source.char_indices().nth(character).map_or(self.source.len(), |(byte, _)| byte)
    }

    /// The bytes of these characters, the last one included.
    pub(super) fn characters(&self, first: u32, last: u32) -> Range<usize> {
        let start = self.byte(usize::try_from(first).unwrap_or(usize::MAX));
        let end = self.byte(usize::try_from(last).unwrap_or(usize::MAX).saturating_add(1));
        self.widened(start..end.max(start))
    }

    /// What stands at a line and a column, both counted from 1.
    pub(super) fn position(&self, line: isize, column: isize) -> Range<usize> {
        let line = usize::try_from(line.max(1)).unwrap_or(1);
        let column = usize::try_from(column.max(1)).unwrap_or(1);
        let before: usize =
            self.source.split_inclusive('\n').take(line - 1).map(|line| line.chars().count()).sum();
        let start = self.byte(before + column - 1);
        let rest = self.source.get(start..).unwrap_or_default();
        self.widened(start..start + leading_word(rest).max(1).min(rest.len()))
    }

    /// A place that is only the dot or bracket of something, with the names around it.
    pub(super) fn around(&self, at: Range<usize>) -> Range<usize> {
        let end = match self.source.get(at.clone()) {
            Some(".") => self.word_after(&at).end,
            Some("[") => {
                let rest = self.source.get(at.end..).unwrap_or_default();
                rest.find(']').map_or(at.end, |close| at.end + close + 1)
            }
            _ => return at,
        };
        let front = self.source.get(..at.start).unwrap_or_default();
        let name = |symbol: char| symbol.is_alphanumeric() || matches!(symbol, '_' | '.');
        front.trim_end_matches(name).len()..end
    }

    /// The word that follows a place, as the field after a dot; else the place itself.
    pub(super) fn word_after(&self, at: &Range<usize>) -> Range<usize> {
        let rest = self.source.get(at.end..).unwrap_or_default();
        let start = at.end + rest.len() - rest.trim_start().len();
        let length = leading_word(self.source.get(start..).unwrap_or_default());
        if length == 0 { at.clone() } else { start..start + length }
    }

    /// The word before a place, as the name of what is called before its parenthesis.
    pub(super) fn word_before(&self, at: &Range<usize>) -> Range<usize> {
        let front = self.source.get(..at.start).unwrap_or_default().trim_end();
        let is_word = |symbol: char| symbol.is_alphanumeric() || symbol == '_';
        let length: usize =
            front.chars().rev().take_while(|symbol| is_word(*symbol)).map(char::len_utf8).sum();
        if length == 0 { at.clone() } else { front.len() - length..front.len() }
    }

    /// An empty place is the last character, or everything.
    fn widened(&self, at: Range<usize>) -> Range<usize> {
        if at.start < at.end && self.source.is_char_boundary(at.end) {
            return at;
        }
        let start = self.source.char_indices().next_back().map_or(0, |(byte, _)| byte);
        at.start.min(start)..self.source.len()
    }
}

fn leading_word(text: &str) -> usize {
    let is_word = |symbol: &char| symbol.is_alphanumeric() || *symbol == '_';
    text.chars().take_while(is_word).map(char::len_utf8).sum()
}
