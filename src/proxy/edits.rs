//! What a route changes in the fields of a request or response, and what it computes for that.
//!
//! Must stay true: a value that cannot be computed is left out, and with `set` so is what the other
//! side said under that name; what is set or removed is so in every spelling; no computed value is longer than [`COMPUTED`].

use super::exchange::{self, Exchange};
use super::forward::remove_twins;
use crate::expressions::Facts;
use crate::routing::{FieldValue, HeaderEdits};
use http::{HeaderMap, HeaderValue};
use pingora_proxy::Session;

/// Applies edits of the route of `exchange`.
pub(super) fn apply(
    headers: &mut HeaderMap,
    edits: &HeaderEdits,
    session: &Session,
    exchange: &Exchange,
) {
    // Nothing is read anew where nothing is computed.
    let head =
        if edits.expressions().next().is_some() { exchange::head(session, exchange) } else { None };
    let route = exchange.route().map(|route| &*route.name);
    let facts = head.as_ref().zip(route);
    let facts = facts.map(|(head, route)| head.facts(route, exchange.trail.caller.as_deref()));
    edit(headers, edits, facts.as_ref());
}

fn edit(headers: &mut HeaderMap, edits: &HeaderEdits, facts: Option<&Facts<'_>>) {
    // What the operator says or takes away cannot be said by another spelling of its name either.
    if !(edits.remove.is_empty() && edits.set.is_empty()) {
        remove_twins(headers, edits.remove.iter().chain(edits.set.iter().map(|(name, _)| name)));
    }
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        match value_of(value, facts) {
            Some(value) => headers.insert(name.clone(), value),
            // What a client sent under this name must not pass for what we say.
            None => headers.remove(name),
        };
    }
    for (name, value) in &edits.add {
        if let Some(value) = value_of(value, facts) {
            headers.append(name.clone(), value);
        }
    }
}

/// Bytes of a value that is computed.
const COMPUTED: usize = 1024;

/// The value of a field; none, if it cannot be computed or no header can carry it.
fn value_of(value: &FieldValue, facts: Option<&Facts<'_>>) -> Option<HeaderValue> {
    let expression = match value {
        FieldValue::Fixed(value) => return Some(value.clone()),
        FieldValue::Computed(expression) => expression,
    };
    let text = expression.text(facts?)?;
    if text.len() > COMPUTED {
        expression.failed("the value is too long for a header");
        return None;
    }
    let value = HeaderValue::try_from(text).ok();
    if value.is_none() {
        expression.failed("the value is none that a header can carry");
    }
    value
}
