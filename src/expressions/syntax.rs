//! What the parser says of a text that is no expression, in words for an operator.

use super::mistake::{Mistake, Text};
use cel::ParseErrors;
use std::ops::Range;

/// The first thing that the parser stumbled over; what it says after is often only its consequence.
pub(super) fn mistake(source: &str, errors: &ParseErrors) -> Mistake {
    let Some(first) = errors.errors.first() else { return unreadable(source) };
    let at = Text { source }.position(first.pos.0, first.pos.1);
    let found = source.get(at.clone()).unwrap_or_default();
    let help = match found {
        "=" => "`==` compares",
        "and" | "AND" => "write `&&`",
        "or" | "OR" => "write `||`",
        "not" | "NOT" => "write `!`",
        "&" => "write `&&`, and something behind it",
        "|" => "write `||`, and something behind it",
        _ => "as `request.method == 'POST' && request.path.startsWith('/v2/')`",
    };
    said(at, label(&first.msg), help)
}

/// Nothing is known of why.
pub(super) fn unreadable(source: &str) -> Mistake {
    said(0..source.len(), "it cannot be read".to_owned(), "as `request.method == 'POST'`")
}

fn said(at: Range<usize>, label: String, help: &str) -> Mistake {
    Mistake::new(at, "this is not an expression", label, help)
}

fn label(message: &str) -> String {
    let text = message.trim_start_matches("Syntax error: ");
    let text = text.split(" expecting ").next().unwrap_or(text);
    let input = ["mismatched input ", "extraneous input ", "no viable alternative at input "];
    if let Some(found) = input.iter().find_map(|start| text.strip_prefix(start)) {
        return match found.trim_matches('\'') {
            "<EOF>" => "something is missing behind this".to_owned(),
            found => format!("`{}` is not expected here", short(found)),
        };
    }
    if let Some(found) = text.strip_prefix("token recognition error at: ") {
        return format!("`{}` means nothing here", short(found.trim_matches('\'').trim_end()));
    }
    if let Some((missing, _)) = text.strip_prefix("missing ").and_then(|it| it.split_once(" at ")) {
        return format!("`{}` is missing", short(missing.trim_matches('\'')));
    }
    if text.contains("has() macro") {
        return "`has` takes a field, as `has(claims.tenant)`".to_owned();
    }
    short(text)
}

fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
