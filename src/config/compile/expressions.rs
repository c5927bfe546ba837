//! Expressions in the files: a mistake in one is a finding at its very place.

use super::{Context, Owner};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, At, Computed};
use crate::config::source::Span;
use crate::expressions::{Expression, Mistake, Sees, Wanted};
use std::ops::Range;
use std::sync::Arc;

/// A condition that may be left out: `when = "…"`.
pub(crate) fn condition(
    owner: Owner<'_>,
    when: &Option<At<String>>,
    sees: Sees,
    cx: &mut Context<'_>,
) -> Option<Option<Expression>> {
    let Some(when) = when else { return Some(None) };
    let place = format!("{}/when", place(owner));
    cx.expression(when, &place, sees, Wanted::Condition).map(Some)
}

/// What is computed for each request: `{ expr = "…" }` of a route.
pub(crate) fn computed(
    owner: Owner<'_>,
    table: &Computed,
    wanted: Wanted,
    route: &schema::Route,
    cx: &mut Context<'_>,
) -> Option<Expression> {
    let help = "write `{ expr = \"caller.plan\" }`";
    let text = cx.required(table.expr.as_ref(), owner, "expr", help)?;
    let expression = cx.expression(text, &place(owner), Sees::Caller, wanted)?;
    let open = route.auth.as_ref().filter(|auth| super::routes::is_open(auth));
    if let Some(open) = open.filter(|_| expression.asks_for_a_caller()) {
        cx.report(
            Diagnostic::error(format!("{} reads a caller that nobody knows", owner.subject()))
                .at(text.span, "nothing would come out")
                .at(open.span, "no credential is read")
                .help("read `request`, or ask for credentials"),
        );
        return None;
    }
    Some(expression)
}

/// What is computed for each request by a limit: `cost = { expr = "…" }`.
pub(crate) fn value(
    owner: Owner<'_>,
    (key, span): (&str, Span),
    text: Option<&At<String>>,
    wanted: Wanted,
    cx: &mut Context<'_>,
) -> Option<Expression> {
    let path: Vec<&str> = owner.path.iter().copied().chain([key]).collect();
    let owner = Owner { path: &path, span };
    let help = "write `{ expr = \"request.size / 1024 + 1\" }`";
    let text = cx.required(text, owner, "expr", help)?;
    cx.expression(text, &place(owner), Sees::Caller, wanted)
}

/// As metrics and the log name it: `route/orders/request_headers/set/X-Plan`.
fn place(owner: Owner<'_>) -> String {
    let mut path = owner.path.iter();
    let kind = match path.next() {
        Some(&"routes") => "route",
        Some(&"policies") => "policy",
        Some(&"plans") => "plan",
        other => other.copied().unwrap_or_default(),
    };
    path.fold(kind.to_owned(), |place, part| place + "/" + part)
}

impl Context<'_> {
    /// Text to expression.
    pub(crate) fn expression(
        &mut self,
        at: &At<String>,
        place: &str,
        sees: Sees,
        wanted: Wanted,
    ) -> Option<Expression> {
        match self.language.compile(&at.value, place, sees, wanted) {
            Ok(expression) => {
                self.claims.extend(expression.claims().map(|claim| (Arc::clone(claim), at.span)));
                Some(expression)
            }
            Err(mistakes) => {
                for Mistake { at: place, message, label, help } in mistakes {
                    let span = self.inside(at, &place);
                    self.report(Diagnostic::error(message).at(span, label).help(help));
                }
                None
            }
        }
    }

    /// Whether an expression reads who calls; what is wrong with it is told elsewhere.
    pub(crate) fn asks_for_a_caller(&self, text: &str) -> bool {
        let compiled = self.language.compile(text, "", Sees::Caller, Wanted::Condition);
        compiled.is_ok_and(|expression| expression.asks_for_a_caller())
    }

    /// A part of a text, where it stands in its file; the whole text where that cannot be told.
    fn inside(&self, at: &At<String>, part: &Range<usize>) -> Span {
        let found = || {
            let (file, range) = self.sources.locate(at.span)?;
            let offsets = offsets(file.text.get(range)?, &at.value)?;
            let place = |byte: usize| Some(at.span.start + offsets.get(byte)?);
            Some(Span { start: place(part.start)?, end: place(part.end)? })
        };
        found().unwrap_or(at.span)
    }
}

/// For each byte of a text, and for its end, where it stands in the TOML that spells it. `None` if
/// the TOML is not understood.
fn offsets(toml: &str, text: &str) -> Option<Vec<usize>> {
    let quote = toml.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let triple = quote.to_string().repeat(3);
    let width = if toml.len() >= 6 && toml.starts_with(&triple) { 3 } else { 1 };
    let mut inner = toml.get(width..toml.len().checked_sub(width)?)?;
    let mut start = width;
    if let Some(rest) = inner.strip_prefix('\n').filter(|_| width == 3) {
        (inner, start) = (rest, width + 1);
    }
    let mut offsets = Vec::with_capacity(text.len() + 1);
    let mut spelled = inner;
    for symbol in text.chars() {
        let first = spelled.chars().next()?;
        let length = match first {
            '\\' if quote == '"' => match spelled.chars().nth(1)? {
                'u' => 6,
                'U' => 10,
                'x' => 4,
                // The end of a line in a text of many lines spells nothing.
                '\n' | '\r' | ' ' | '\t' => return None,
                _ => 2,
            },
            first if first == symbol => first.len_utf8(),
            _ => return None,
        };
        offsets.extend(std::iter::repeat_n(start + inner.len() - spelled.len(), symbol.len_utf8()));
        spelled = spelled.get(length..)?;
    }
    offsets.push(start + inner.len());
    spelled.is_empty().then_some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_is_found_in_the_toml_that_spells_it() {
        for (toml, text, part) in [
            ("'a == b'", "a == b", "== b"),
            (r#""a == b""#, "a == b", "b"),
            (r#""é == 'b'""#, "é == 'b'", "'b'"),
            (r#""\u00e9 == 'b'""#, "é == 'b'", "'b'"),
            (r#""\"x\" == \"b\"""#, "\"x\" == \"b\"", "=="),
            ("\"\"\"\na ==\nb\"\"\"", "a ==\nb", "b"),
            ("'''a == b'''", "a == b", "b"),
        ] {
            let offsets = offsets(toml, text).unwrap();
            let start = text.find(part).unwrap();
            let (from, to) = (offsets[start], offsets[start + part.len()]);
            assert_eq!(&toml[from..to], part, "{toml}");
        }
        assert_eq!(offsets("\"\"\"a \\\n  b\"\"\"", "a b"), None);
    }
}
