//! What a route changes on the way through: path, host, headers, and its answer to CORS.

use super::canonical::meaning;
use super::target::Target;
use crate::expressions::Expression;
use http::header::InvalidHeaderValue;
use http::{HeaderName, HeaderValue};
use std::borrow::Cow;
use std::time::Duration;

/// What becomes of the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathRewrite {
    /// The canonical path goes on as it is.
    #[default]
    Keep,
    /// Replace the route's prefix by this one (`""` strips it).
    ReplacePrefix {
        /// What is taken away; whole segments.
        prefix: Box<str>,
        /// What stands there instead; starts with `/` or is empty.
        with: Box<str>,
    },
}

impl PathRewrite {
    /// The path that the upstream gets for the canonical `path`. It starts with one slash; a path
    /// that does not begin with the prefix stays as it is.
    #[must_use]
    pub fn apply<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let Self::ReplacePrefix { prefix, with } = self else { return Cow::Borrowed(path) };
        let Some(rest) = strip_segments(path, prefix) else { return Cow::Borrowed(path) };
        let with = with.trim_matches('/');
        match (with.is_empty(), rest.is_empty()) {
            (true, true) => Cow::Borrowed("/"),
            (true, false) => Cow::Borrowed(rest),
            (false, _) => Cow::Owned(format!("/{with}{rest}")),
        }
    }
}

/// What follows the whole segments of `prefix`: empty, or starting with a slash. Segments are
/// compared as routes compare them.
fn strip_segments<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let mut rest = path;
    for wanted in prefix.split('/').filter(|segment| !segment.is_empty()) {
        let after = rest.strip_prefix('/')?;
        let (segment, tail) = after.split_at(after.find('/').unwrap_or(after.len()));
        if !meaning(segment).eq(meaning(wanted)) {
            return None;
        }
        rest = tail;
    }
    Some(rest)
}

/// The `Location` of a redirect: `template` with the request's own `{path}` and `{query}`. The query
/// comes with its `?`, or with `&` where the template has a `?` before it.
///
/// # Errors
/// A template with a character that no header can carry; a target has none.
pub fn location(template: &str, target: &Target<'_>) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut text = String::with_capacity(template.len() + target.path().len());
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        text.push_str(before);
        rest = if let Some(after) = from.strip_prefix("{path}") {
            text.push_str(target.path());
            after
        } else if let Some(after) = from.strip_prefix("{query}") {
            if let Some(query) = target.query() {
                text.push(if text.contains('?') { '&' } else { '?' });
                text.push_str(query);
            }
            after
        } else {
            text.push('{');
            from.get(1..).unwrap_or_default()
        };
    }
    text.push_str(rest);
    HeaderValue::try_from(text)
}

/// Header changes of one direction, in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Gone.
    pub remove: Vec<HeaderName>,
    /// The only value afterwards.
    pub set: Vec<(HeaderName, FieldValue)>,
    /// One more value.
    pub add: Vec<(HeaderName, FieldValue)>,
}

impl HeaderEdits {
    /// The expressions that make a value for each request.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.set.iter().chain(&self.add).filter_map(|(_, value)| match value {
            FieldValue::Computed(expression) => Some(expression),
            FieldValue::Fixed(_) => None,
        })
    }

    /// The same, with failures counted as `count` says.
    #[must_use]
    pub fn counted(mut self, count: impl Fn(Expression) -> Expression) -> Self {
        for (_, value) in self.set.iter_mut().chain(&mut self.add) {
            if let FieldValue::Computed(expression) = value {
                *expression = count(expression.clone());
            }
        }
        self
    }
}

/// The value of a header that a route sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// The same for every request.
    Fixed(HeaderValue),
    /// Another one for each.
    Computed(Expression),
}

/// All that a route changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The path.
    pub path: PathRewrite,
    /// The `Host` that the upstream sees; the client's own without it.
    pub host: Option<HeaderValue>,
    /// Towards the upstream.
    pub request: HeaderEdits,
    /// Towards the client.
    pub response: HeaderEdits,
}

/// Cross-origin policy of a route (Fetch standard, "CORS protocol").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Origins allowed, serialized as browsers send them; empty with `any_origin`.
    pub origins: Vec<Box<str>>,
    /// `origins = ["*"]`; never together with credentials.
    pub any_origin: bool,
    /// Methods allowed.
    pub methods: Vec<http::Method>,
    /// Request headers allowed.
    pub headers: Vec<HeaderName>,
    /// Response headers that scripts may read.
    pub expose: Vec<HeaderName>,
    /// Whether cookies and credentials may come along.
    pub credentials: bool,
    /// How long a browser may remember the preflight.
    pub max_age: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        for (prefix, with, path, expected) in [
            ("/v1", "", "/v1/orders", "/orders"),
            ("/v1", "", "/v1", "/"),
            ("/v1", "", "/v1/", "/"),
            ("/v1", "", "/v1x/orders", "/v1x/orders"),
            ("/v1", "", "/v1%2Forders", "/v1%2Forders"),
            ("/v1", "", "/v10", "/v10"),
            ("/v1", "", "/", "/"),
            ("/v1", "", "/other", "/other"),
            ("/v1", "", "/v1/v1/a", "/v1/a"),
            ("/v1", "/api", "/v1/orders/", "/api/orders/"),
            ("/v1", "/api", "/v1", "/api"),
            ("/v1", "/api", "/v1/", "/api/"),
            ("/v1", "/api/", "/v1/a", "/api/a"),
            ("/v1", "api", "/v1/a", "/api/a"),
            ("/v1", "/", "/v1/a", "/a"),
            ("/v1/x", "/y/z", "/v1/x/a", "/y/z/a"),
            ("/v1/x", "", "/v1", "/v1"),
            ("/v1/", "", "/v1/a", "/a"),
            ("/", "/api", "/a", "/api/a"),
            ("/", "/api", "/", "/api/"),
            ("", "/api", "/a", "/api/a"),
            ("/a@b", "", "/a%40b/c", "/c"),
            ("/v1", "/api", "*", "*"),
        ] {
            let rewrite = PathRewrite::ReplacePrefix { prefix: prefix.into(), with: with.into() };
            assert_eq!(rewrite.apply(path), expected, "{prefix} by {with} in {path}");
        }
        assert!(matches!(PathRewrite::Keep.apply("/a//b"), Cow::Borrowed("/a//b")));
    }

    #[test]
    fn taking_a_prefix_away_does_not_allocate() {
        let rewrite = PathRewrite::ReplacePrefix { prefix: "/v1".into(), with: "".into() };
        for path in ["/v1/a", "/v1", "/a"] {
            assert!(matches!(rewrite.apply(path), Cow::Borrowed(_)), "{path}");
        }
    }

    #[test]
    fn a_location_carries_path_and_query() {
        for (template, target, expected) in [
            ("https://a{path}{query}", "/x/y?z=1", "https://a/x/y?z=1"),
            ("https://a{path}{query}", "/x", "https://a/x"),
            ("https://a{path}", "//evil.example/?z", "https://a/evil.example/"),
            ("{path}", "//evil.example", "/evil.example"),
            ("/new{query}", "/x?", "/new?"),
            ("/new?a=1{query}", "/x?b=2", "/new?a=1&b=2"),
            ("/new?a=1{query}", "/x", "/new?a=1"),
            ("/fixed", "/x?y", "/fixed"),
            ("{path}", "/{query}?z", "/%7Bquery%7D"),
            ("{query}", "/x?{path}", "?{path}"),
            ("/{other}{", "/x", "/{other}{"),
            ("https://a{path}", "/%0a", ""),
        ] {
            match Target::parse(target) {
                Ok(target) => assert_eq!(location(template, &target).unwrap(), expected),
                Err(_) => assert_eq!(expected, "", "{target}"),
            }
        }
    }

    #[test]
    fn a_template_cannot_split_a_header() {
        let target = Target::parse("/").unwrap();
        for template in ["/a\r\nX: y", "/a\n", "/\0"] {
            assert!(location(template, &target).is_err(), "{template:?}");
        }
    }
}
