//! What a route asks of a request's head, already parsed: a value here cannot be wrong.

use crate::expressions::Expression;
use std::sync::Arc;

/// A host that a route is for; lower case, without port and final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(Box<str>),
    /// `*.example.com` keeps `.example.com`: one or more labels before it.
    Wildcard(Box<str>),
}

/// One segment of a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Text that must be equal.
    Literal(Box<str>),
    /// `{name}`: any one segment that is not empty.
    Param(Box<str>),
}

/// A path that a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// `/orders/{id}`: these segments and no more.
    Exact {
        /// The parts between the slashes.
        segments: Vec<Segment>,
        /// `/orders/` is not `/orders`.
        trailing_slash: bool,
    },
    /// `/orders/*`: `/orders` itself and everything below it, never `/ordersx`.
    Prefix {
        /// The parts between the slashes; none for `/*`.
        segments: Vec<Segment>,
    },
}

/// What a header or query parameter must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValueMatch {
    /// One of its values equals this.
    Exact(Box<str>),
    /// It is there, whatever its value (`"*"` in the file).
    Present,
}

/// Everything a route asks of a head. Empty lists ask nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// Any of these.
    pub hosts: Vec<HostPattern>,
    /// Any of these; at least one.
    pub paths: Vec<PathPattern>,
    /// Any of these; `GET` brings `HEAD` with it.
    pub methods: Vec<http::Method>,
    /// All of these.
    pub headers: Vec<(http::HeaderName, ValueMatch)>,
    /// All of these; names and values as they stand after percent-decoding (`+` is no space).
    pub query: Vec<(Box<str>, ValueMatch)>,
    /// Take an encoded slash in a segment as data instead of refusing the request.
    pub keep_encoded_slash: bool,
    /// A condition on the request, looked at last.
    pub when: Option<Expression>,
}

/// The name of a route, shared by all that speak of it.
pub type RouteName = Arc<str>;
