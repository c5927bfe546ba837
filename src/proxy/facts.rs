//! What rules can ask about a request, beside who calls.

use crate::auth::Caller;
use crate::expressions;
use crate::limits::Facts;
use http::{HeaderMap, HeaderName};
use std::borrow::Cow;

/// A request as rules see it.
pub(super) struct RequestFacts<'r> {
    caller: Option<&'r Caller>,
    headers: &'r HeaderMap,
    known: Option<&'r expressions::Facts<'r>>,
}

impl<'r> RequestFacts<'r> {
    /// Of a request with these fields.
    pub(super) const fn new(caller: Option<&'r Caller>, headers: &'r HeaderMap) -> Self {
        Self { caller, headers, known: None }
    }

    /// The same, and what expressions read.
    pub(super) const fn knowing(self, known: &'r expressions::Facts<'r>) -> Self {
        Self { known: Some(known), ..self }
    }
}

impl Facts for RequestFacts<'_> {
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        self.caller?.claims.get(name).map(Cow::Borrowed)
    }

    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        let mut values = self.headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
        let mut joined = [first, b", ", second].concat();
        for value in values {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(value);
        }
        Some(Cow::Owned(joined))
    }

    fn known(&self) -> Option<&expressions::Facts<'_>> {
        self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_header_is_all_of_its_values_and_none_of_another_spelling() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-tenant");
        headers.insert("x_tenant", HeaderValue::from_static("other"));
        let read = |headers: &HeaderMap| {
            let facts = RequestFacts::new(None, headers);
            facts.header(&name).map(|value| String::from_utf8(value.into_owned()).unwrap())
        };
        assert_eq!(read(&headers), None);
        for (value, expected) in [("a", "a"), ("b", "a, b"), ("", "a, b, ")] {
            headers.append(&name, HeaderValue::from_static(value));
            assert_eq!(read(&headers).as_deref(), Some(expected));
        }
        assert!(RequestFacts::new(None, &headers).claim("tenant").is_none());
    }
}
