//! What a route changes on the way through: path, host, headers, and its answer to CORS.

use http::{HeaderName, HeaderValue};
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

/// Header changes of one direction, in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Gone.
    pub remove: Vec<HeaderName>,
    /// The only value afterwards.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// One more value.
    pub add: Vec<(HeaderName, HeaderValue)>,
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
