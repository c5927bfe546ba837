//! What a route asks beside host and path, and which of two routes asks more.
//!
//! Must stay true: the order does not depend on where a route stands in a file.

use super::canonical::{meaning, unescaped};
use super::matcher::{Matcher, PathPattern, Segment, ValueMatch};
use super::table::Asked;
use crate::expressions::Expression;
use http::{HeaderMap, HeaderName, Method};
use std::cmp::{Ordering, Reverse};

/// A route whose host and path match a request.
pub(super) struct Candidate<T> {
    pub(super) asks: Matcher,
    pub(super) value: T,
}

/// How near a candidate came, from far to near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Near {
    /// A header or a query parameter is missing, or a condition is not met.
    #[default]
    Far,
    /// It takes neither the method nor the encoded slash.
    MethodAndSlash,
    /// Only the method does not fit.
    Method,
    /// Only the encoded slash does not fit.
    Slash,
    /// All fits but for a condition of which nobody can tell whether it is met.
    Unclear,
}

impl<T> Candidate<T> {
    /// Puts the lists in an order of their own, so that equal matchers are equal.
    pub(super) fn new(mut asks: Matcher, value: T) -> Self {
        asks.methods.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        asks.headers.sort_unstable_by(|a, b| header_key(a).cmp(&header_key(b)));
        asks.query.sort_unstable();
        Self { asks, value }
    }

    /// Whether the rest of the head fits too.
    pub(super) fn check(&self, asked: &Asked<'_>) -> Result<(), Near> {
        let query = asked.target.query().unwrap_or_default();
        if !self.asks.headers.iter().all(|(name, value)| has_header(asked.headers, name, value))
            || !self.asks.query.iter().all(|(name, value)| has_parameter(query, name, value))
        {
            return Err(Near::Far);
        }
        let met = self.asks.when.as_ref().map_or(Some(true), |when| when.is_met(&asked.facts()));
        if met == Some(false) {
            return Err(Near::Far);
        }
        let slash = self.asks.keep_encoded_slash || !asked.target.has_encoded_slash();
        match (takes_method(&self.asks.methods, asked.method), slash) {
            (true, true) => met.map(drop).ok_or(Near::Unclear),
            _ if met.is_none() => Err(Near::Far),
            (true, false) => Err(Near::Slash),
            (false, true) => Err(Near::Method),
            (false, false) => Err(Near::MethodAndSlash),
        }
    }

    /// Orders the routes of one pattern, best first: a method over any, then more headers, then
    /// more query parameters, then more of these with a value, then a condition over none. What is
    /// still equal and yet can match the same request is a [`conflict`]; the rest of the order only
    /// makes it fixed.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.asks, &other.asks);
        Reverse(specificity(a))
            .cmp(&Reverse(specificity(b)))
            .then_with(|| a.headers.iter().map(header_key).cmp(b.headers.iter().map(header_key)))
            .then_with(|| a.query.cmp(&b.query))
            .then_with(|| {
                a.methods.iter().map(Method::as_str).cmp(b.methods.iter().map(Method::as_str))
            })
            .then_with(|| a.keep_encoded_slash.cmp(&b.keep_encoded_slash))
            .then_with(|| condition(a).cmp(&condition(b)))
    }
}

/// Whether some request matches both and nothing decides between them: the same host and path
/// pattern, equally specific in the rest. Two different values of one header or parameter are
/// taken to exclude each other, although a client can send both; and so are two different conditions.
#[must_use]
pub fn conflict(a: &Matcher, b: &Matcher) -> bool {
    meet(a, b) && condition(a) == condition(b)
}

/// Whether only two different conditions can tell them apart. If both are met, [`conflict`] says
/// nothing, and the first by text answers.
#[must_use]
pub fn only_conditions_decide(a: &Matcher, b: &Matcher) -> bool {
    meet(a, b) && condition(a) != condition(b)
}

/// Whether some request matches all but the conditions of both, and neither is more specific.
fn meet(a: &Matcher, b: &Matcher) -> bool {
    share_host(a, b)
        && a.paths.iter().any(|path| b.paths.iter().any(|other| same_pattern(path, other)))
        && specificity(a) == specificity(b)
        && share_method(&a.methods, &b.methods)
        && !exclude(&a.headers, &b.headers)
        && !exclude(&a.query, &b.query)
}

/// The text of its condition.
fn condition(asks: &Matcher) -> Option<&str> {
    asks.when.as_ref().map(Expression::source)
}

/// The larger, the more a matcher asks.
fn specificity(asks: &Matcher) -> (bool, usize, usize, usize, usize, bool) {
    (
        !asks.methods.is_empty(),
        asks.headers.len(),
        asks.query.len(),
        asks.headers.iter().filter(|(_, value)| *value != ValueMatch::Present).count(),
        asks.query.iter().filter(|(_, value)| *value != ValueMatch::Present).count(),
        asks.when.is_some(),
    )
}

fn header_key((name, value): &(HeaderName, ValueMatch)) -> (&str, &ValueMatch) {
    (name.as_str(), value)
}

/// Whether a route with these methods takes `method`; `GET` brings `HEAD`, none takes all.
fn takes_method(methods: &[Method], method: &Method) -> bool {
    methods.is_empty()
        || methods.contains(method)
        || (*method == Method::HEAD && methods.contains(&Method::GET))
}

fn share_method(a: &[Method], b: &[Method]) -> bool {
    a.is_empty() && b.is_empty()
        || a.iter().any(|method| takes_method(b, method))
        || b.iter().any(|method| takes_method(a, method))
}

fn has_header(headers: &HeaderMap, name: &HeaderName, wanted: &ValueMatch) -> bool {
    match wanted {
        ValueMatch::Present => headers.contains_key(name),
        ValueMatch::Exact(text) => {
            headers.get_all(name).iter().any(|value| value.as_bytes() == text.as_bytes())
        }
    }
}

fn has_parameter(query: &str, name: &str, wanted: &ValueMatch) -> bool {
    let same = |raw: &str, text: &str| unescaped(raw, |_| true).eq(text.bytes());
    query.split('&').filter(|pair| !pair.is_empty()).any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        same(key, name)
            && match wanted {
                ValueMatch::Present => true,
                ValueMatch::Exact(text) => same(value, text),
            }
    })
}

fn share_host(a: &Matcher, b: &Matcher) -> bool {
    (a.hosts.is_empty() && b.hosts.is_empty()) || a.hosts.iter().any(|host| b.hosts.contains(host))
}

/// Whether two patterns are the same but for the names of their parameters.
fn same_pattern(a: &PathPattern, b: &PathPattern) -> bool {
    let (PathPattern::Exact { segments: left, .. } | PathPattern::Prefix { segments: left }) = a;
    let (PathPattern::Exact { segments: right, .. } | PathPattern::Prefix { segments: right }) = b;
    let ends_alike = match (a, b) {
        (
            PathPattern::Exact { trailing_slash: one, .. },
            PathPattern::Exact { trailing_slash: other, .. },
        ) => one == other || left.is_empty(),
        (PathPattern::Prefix { .. }, PathPattern::Prefix { .. }) => true,
        _ => false,
    };
    let same_segment = |pair: (&Segment, &Segment)| match pair {
        (Segment::Literal(one), Segment::Literal(other)) => meaning(one).eq(meaning(other)),
        (Segment::Param(_), Segment::Param(_)) => true,
        _ => false,
    };
    ends_alike && left.len() == right.len() && left.iter().zip(right).all(same_segment)
}

/// Whether two lists ask the same name for different values.
fn exclude<N: PartialEq>(a: &[(N, ValueMatch)], b: &[(N, ValueMatch)]) -> bool {
    a.iter().any(|(name, value)| {
        b.iter().any(|(other, wanted)| match (value, wanted) {
            (ValueMatch::Exact(one), ValueMatch::Exact(two)) => name == other && one != two,
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::notation::{origin, request, route};
    use super::super::target::Target;
    use super::*;

    #[test]
    fn routes_conflict_when_nothing_decides_between_them() {
        for (a, b) in [
            ("/a", "/a"),
            ("/a keep", "/a"),
            ("/{x}", "/{y}"),
            ("/{x}/*", "/{y}/*"),
            ("/a@b", "/a%40b"),
            ("a.com/a", "a.com/a"),
            ("a.com/a b.com/a", "b.com/a c.com/a"),
            ("*.com/a", "*.com/a"),
            ("/a /b", "/c /b"),
            ("GET /a", "GET /a"),
            ("GET /a", "HEAD /a"),
            ("GET,PUT /a", "PUT,POST /a"),
            ("/a x=1", "/a x=1"),
            ("/a x=1", "/a y=1"),
            ("/a x=*", "/a x=*"),
            ("/a x=1 y=1", "/a y=1 x=1"),
            ("/a ?q=1", "/a ?q=1"),
            ("/a ?q=1", "/a ?r=1"),
            ("/", "/"),
        ] {
            assert!(conflict(&route(a), &route(b)), "{a} and {b}");
            assert!(conflict(&route(b), &route(a)), "{b} and {a}");
        }
    }

    #[test]
    fn routes_do_not_conflict_when_something_decides() {
        for (a, b) in [
            ("/a", "/b"),
            ("/a", "/a/"),
            ("/a", "/a/*"),
            ("/a/{x}", "/a/*"),
            ("/a/{x}", "/{x}/a"),
            ("/{x}", "/a"),
            ("/", "/*"),
            ("a.com/a", "b.com/a"),
            ("a.com/a", "*.com/a"),
            ("*.com/a", "*.a.com/a"),
            ("a.com/a", "/a"),
            ("GET /a", "/a"),
            ("GET /a", "POST /a"),
            ("/a x=1", "/a"),
            ("/a x=1", "/a x=2"),
            ("/a x=1", "/a x=*"),
            ("/a x=1 y=1", "/a x=1 z=*"),
            ("/a ?q=1", "/a"),
            ("/a ?q=1", "/a ?q=2"),
            ("/a ?q=1", "/a ?q=*"),
            ("/a ?q=1", "/a x=1"),
        ] {
            assert!(!conflict(&route(a), &route(b)), "{a} and {b}");
            assert!(!conflict(&route(b), &route(a)), "{b} and {a}");
        }
    }

    #[test]
    fn a_head_is_checked_whole() {
        for (asks, asked, expected) in [
            ("/a", "GET /a", Ok(())),
            ("GET /a", "GET /a", Ok(())),
            ("GET /a", "HEAD /a", Ok(())),
            ("HEAD /a", "GET /a", Err(Near::Method)),
            ("GET /a", "POST /a", Err(Near::Method)),
            ("/a", "BREW /a", Ok(())),
            ("/a x=1", "GET /a x=1", Ok(())),
            ("/a x=1", "GET /a x=2 x=1", Ok(())),
            ("/a x=1", "GET /a x=11", Err(Near::Far)),
            ("/a x=*", "GET /a x=", Ok(())),
            ("/a x=*", "GET /a", Err(Near::Far)),
            ("/a x=1 y=1", "GET /a x=1", Err(Near::Far)),
            ("/a ?q=1", "GET /a?q=1", Ok(())),
            ("/a ?q=1", "GET /a?p=1&q=2&q=1", Ok(())),
            ("/a ?q=1", "GET /a?%71=%31", Ok(())),
            ("/a ?q=1", "GET /a?q=1%", Err(Near::Far)),
            ("/a ?q=1", "GET /a?Q=1", Err(Near::Far)),
            ("/a ?q=1", "GET /a?xq=1", Err(Near::Far)),
            ("/a ?q=1", "GET /a", Err(Near::Far)),
            ("/a ?q=*", "GET /a?q", Ok(())),
            ("/a ?q=*", "GET /a?&&q=&", Ok(())),
            ("/a ?q=", "GET /a?q", Ok(())),
            ("/a ?q=a=b", "GET /a?q=a=b", Ok(())),
            ("/a ?q=a+b", "GET /a?q=a+b", Ok(())),
            ("/a", "GET /a%2Fb", Err(Near::Slash)),
            ("/a keep", "GET /a%2Fb", Ok(())),
            ("PUT /a", "GET /a%2Fb", Err(Near::MethodAndSlash)),
            ("PUT /a keep", "GET /a%2Fb", Err(Near::Method)),
            ("PUT /a x=1", "GET /a%2Fb", Err(Near::Far)),
        ] {
            let request = request(asked);
            let target = Target::parse(&request.target).unwrap();
            let asked = Asked {
                host: "",
                target: &target,
                method: &request.method,
                headers: &request.headers,
                origin: origin(),
            };
            assert_eq!(Candidate::new(route(asks), ()).check(&asked), expected, "{asks}");
        }
    }
}
