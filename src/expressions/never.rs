//! Comparisons with a text that no request can have: a method in small letters, a host with a port.
//!
//! They are of the right kind, and never true; whoever writes one means another. What an operator
//! could mean after all (an empty text, `*` as a path) is let through.

use super::checker::Checker;
use super::names::nearest;
use super::reference::{Reference, number_of};
use cel::common::ast::{Expr, IdedExpr, LiteralValue};
use ipnet::IpNet;

/// What `caller.method` can be.
const CREDENTIALS: [&str; 4] = ["api_key", "jwt", "mtls", "none"];

/// What is wrong, what is wrong at the text, and a way out.
type Never = (String, String, String);

impl Checker<'_> {
    /// `one == other`, whichever of them is the text.
    pub(super) fn never_met(&mut self, one: &IdedExpr, other: &IdedExpr) {
        self.look_for(one, other, whole);
        self.look_for(other, one, whole);
    }

    /// `one in [other, …]`.
    pub(super) fn never_among(&mut self, one: &IdedExpr, others: &IdedExpr) {
        if let Expr::List(list) = &others.expr {
            list.elements.iter().for_each(|other| self.look_for(one, other, whole));
        }
    }

    /// `one.startsWith(other)`.
    pub(super) fn never_begins(&mut self, one: Option<&IdedExpr>, other: Option<&IdedExpr>) {
        if let (Some(one), Some(other)) = (one, other) {
            self.look_for(one, other, beginning);
        }
    }

    fn look_for(
        &mut self,
        read: &IdedExpr,
        text: &IdedExpr,
        never: fn(&Reference, &str) -> Option<Never>,
    ) {
        let (Expr::Ident(name), Expr::Literal(LiteralValue::String(text_read))) =
            (&read.expr, &text.expr)
        else {
            return;
        };
        let reference = number_of(name).and_then(|number| self.references.get(number));
        let found = reference.and_then(|reference| never(reference, text_read.inner()));
        if let Some((message, label, help)) = found {
            self.refuse(self.place(text.id), message, label, help);
        }
    }
}

/// Why this is never all of the text.
fn whole(reference: &Reference, text: &str) -> Option<Never> {
    let shown = text.escape_debug();
    match reference {
        Reference::Credential if !CREDENTIALS.contains(&text) => {
            let help = match nearest(text, &CREDENTIALS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", CREDENTIALS.join(", ")),
            };
            let message = format!("`{shown}` is never the method of a caller");
            Some((message, "no credential is called so".to_owned(), help))
        }
        Reference::Method if text.bytes().any(|byte| byte.is_ascii_lowercase()) => {
            let help = format!("write `{}`", text.to_ascii_uppercase().escape_debug());
            let message = format!("`{shown}` is never the method of a request");
            Some((message, "a small letter".to_owned(), help))
        }
        Reference::Address if text.contains('/') && text.parse::<IpNet>().is_ok() => {
            let help = format!("write `inNetwork(request.address, '{shown}')`");
            Some((format!("`{shown}` is never an address"), "a network".to_owned(), help))
        }
        Reference::Path if text != "*" => beginning(reference, text),
        Reference::Host => host(text),
        _ => None,
    }
}

/// Why this is never the beginning of the text.
fn beginning(reference: &Reference, text: &str) -> Option<Never> {
    let begins = text.is_empty() || text.starts_with('/');
    if begins || !matches!(reference, Reference::Path) {
        return None;
    }
    let shown = text.escape_debug();
    let label = "a path begins with `/`".to_owned();
    Some((format!("no path begins with `{shown}`"), label, format!("write `/{shown}`")))
}

fn host(text: &str) -> Option<Never> {
    let lower = text.to_ascii_lowercase();
    let port = lower.rsplit_once(':').filter(|(name, port)| {
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        digits && (name.ends_with(']') || !name.contains(':'))
    });
    let label = match port {
        Some(_) => "a host stands here without its port",
        None if lower != text => "a capital letter",
        None => return None,
    };
    let name = port.map_or(lower.as_str(), |(name, _)| name);
    let help = format!("write `{}`", name.escape_debug());
    Some((format!("`{}` is never a host", text.escape_debug()), label.to_owned(), help))
}
