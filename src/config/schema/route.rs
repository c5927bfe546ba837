//! `[routes.*]`.

use super::{At, Entries, Limit, OfRoute, OneOrMany, Text, TextOrTable};
use crate::config::uri::{HostHeader, LocationTemplate, Origin};
use crate::config::value::ByteSize;
use crate::routing::{HostPattern, PathPattern};
use http::{HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which request goes where. The most specific route wins, whatever the order in the files.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path", "auth"]))]
#[schemars(extend("oneOf" = [
    { "required": ["upstream"] }, { "required": ["redirect"] }, { "required": ["reply"] }
]))]
pub(crate) struct Route {
    /// "/orders" exact, "/orders/*" prefix, "/orders/{id}" parameter; or a list.
    pub(crate) path: Option<At<OneOrMany<Text<PathPattern>>>>,
    /// Accepted credentials; "none" opens the route.
    pub(crate) auth: Option<At<OneOrMany<AuthMethod>>>,
    /// Name of the upstream that answers.
    pub(crate) upstream: Option<At<String>>,
    /// Answer with a redirect.
    pub(crate) redirect: Option<At<Redirect>>,
    /// Answer with fixed text.
    pub(crate) reply: Option<At<Reply>>,
    /// "api.example.com" or "*.example.com"; none: any host.
    pub(crate) hosts: Vec<At<Text<HostPattern>>>,
    /// None: any; GET brings HEAD with it.
    pub(crate) methods: Vec<At<Text<Method>>>,
    /// Headers that must be there; "*" for any value.
    pub(crate) headers: Entries<String>,
    /// Query parameters that must be there; "*" for any value.
    pub(crate) query: Entries<String>,
    /// An expression in CEL that must be true; it sees `request` only.
    pub(crate) when: Option<At<String>>,
    /// What happens to %2F in a path.
    pub(crate) encoded_slash: At<EncodedSlash>,
    /// Scopes that the credential must carry, all of them (403).
    pub(crate) scopes: Vec<At<String>>,
    /// Names of policies that hold here.
    pub(crate) policies: Vec<At<String>>,
    /// What its requests count as in the usage of consumers; default: the route's name.
    pub(crate) class: Option<At<String>>,
    /// Whether the upstream sees keys and tokens.
    pub(crate) forward_credential: At<bool>,
    /// Size of a request body; 413 above.
    pub(crate) max_body: At<Text<ByteSize>>,
    /// 411 for a body without Content-Length.
    pub(crate) require_length: At<bool>,
    /// No read and total timeout after the response head (events, sockets).
    pub(crate) stream: At<bool>,
    /// Taken from the front of the path.
    pub(crate) strip_prefix: Option<At<String>>,
    /// Exchanged at the front of the path.
    pub(crate) replace_prefix: Option<At<ReplacePrefix>>,
    /// Host towards the upstream; default: the client's.
    pub(crate) host: Option<At<Text<HostHeader>>>,
    /// Changes on the way to the upstream.
    pub(crate) request_headers: HeaderEdits,
    /// Changes on the way to the client.
    pub(crate) response_headers: HeaderEdits,
    /// As in the upstream; what is left out is the upstream's.
    pub(crate) timeouts: Option<At<RouteTimeouts>>,
    /// The operator's limits, beside the caller's plan.
    pub(crate) limits: Entries<Limit<OfRoute>>,
    /// Cross-origin policy.
    pub(crate) cors: Option<At<Cors>>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            path: None,
            auth: None,
            upstream: None,
            redirect: None,
            reply: None,
            hosts: Vec::new(),
            methods: Vec::new(),
            headers: Entries::default(),
            query: Entries::default(),
            when: None,
            encoded_slash: At::default_is(EncodedSlash::Refuse),
            scopes: Vec::new(),
            policies: Vec::new(),
            class: None,
            forward_credential: At::default_is(false),
            max_body: Text::default_is("10MiB"),
            require_length: At::default_is(false),
            stream: At::default_is(false),
            strip_prefix: None,
            replace_prefix: None,
            host: None,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            timeouts: None,
            limits: Entries::default(),
            cors: None,
        }
    }
}

/// A way to say who one is.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum AuthMethod {
    /// Open to anyone.
    None,
    /// An API key.
    ApiKey,
    /// A token.
    Jwt,
    /// A client certificate.
    Mtls,
}

/// What happens to %2F in a path.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum EncodedSlash {
    /// 400.
    Refuse,
    /// It is data inside a segment.
    Keep,
}

/// A redirect.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["location"]))]
pub(crate) struct Redirect {
    /// 301, 302, 303, 307 or 308.
    #[schemars(range(min = 301, max = 308))]
    pub(crate) status: At<u32>,
    /// Where to; `{path}` and `{query}` stand for the request's own.
    pub(crate) location: Option<At<Text<LocationTemplate>>>,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { status: At::default_is(308), location: None }
    }
}

/// A fixed reply.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Reply {
    /// 200 to 599.
    #[schemars(range(min = 200, max = 599))]
    pub(crate) status: At<u32>,
    /// Content-Type.
    pub(crate) content_type: At<Text<HeaderValue>>,
    /// The body.
    pub(crate) body: At<String>,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            status: At::default_is(200),
            content_type: Text::default_is("text/plain; charset=utf-8"),
            body: At::default_is(String::new()),
        }
    }
}

/// Exchanged at the front of the path.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["from", "to"]))]
pub(crate) struct ReplacePrefix {
    /// What is taken away.
    pub(crate) from: Option<At<String>>,
    /// What stands there instead.
    pub(crate) to: Option<At<String>>,
}

/// Header changes of one direction, in this order: remove, set, add.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HeaderEdits {
    /// Gone.
    pub(crate) remove: Vec<At<Text<HeaderName>>>,
    /// The only value afterwards.
    pub(crate) set: Entries<TextOrTable<HeaderValue, Computed>>,
    /// One more value.
    pub(crate) add: Entries<TextOrTable<HeaderValue, Computed>>,
}

/// What an expression computes from each request.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["expr"]))]
pub(crate) struct Computed {
    /// The expression, in CEL.
    pub(crate) expr: Option<At<String>>,
}

/// Timeouts of a route.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RouteTimeouts {
    /// TCP and TLS to the endpoint.
    pub(crate) connect: Option<At<Text<Duration>>>,
    /// Silence of the endpoint.
    pub(crate) per_try: Option<At<Text<Duration>>>,
    /// Over all tries; 504 after.
    pub(crate) total: Option<At<Text<Duration>>>,
}

/// Cross-origin policy.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["origins"]))]
pub(crate) struct Cors {
    /// "https://app.example.com"; "*" for any, then without credentials.
    pub(crate) origins: Option<At<Vec<At<Text<Origin>>>>>,
    /// Methods allowed.
    pub(crate) methods: Vec<At<Text<Method>>>,
    /// Request headers allowed.
    pub(crate) headers: Vec<At<Text<HeaderName>>>,
    /// Response headers that scripts may read.
    pub(crate) expose: Vec<At<Text<HeaderName>>>,
    /// Whether cookies and credentials may come along.
    pub(crate) credentials: At<bool>,
    /// How long a browser may remember the preflight.
    pub(crate) max_age: At<Text<Duration>>,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: None,
            methods: ["GET", "HEAD", "POST"].map(Text::default_is).into(),
            headers: Vec::new(),
            expose: Vec::new(),
            credentials: At::default_is(false),
            max_age: Text::default_is("10m"),
        }
    }
}
