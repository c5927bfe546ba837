//! `[upstreams.*]`.

use super::{At, Text, TextOrTable};
use crate::config::uri::{HostHeader, ProbePath, ServerName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// Endpoints that can stand in for each other.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["endpoints"]))]
pub(crate) struct Upstream {
    /// "10.0.0.1:8080" or { address = "10.0.0.1:8080", weight = 2 }.
    pub(crate) endpoints: Option<At<Vec<At<EndpointItem>>>>,
    /// How one is picked.
    pub(crate) balance: At<Balance>,
    /// What is spoken.
    pub(crate) protocol: At<Protocol>,
    /// How long an idle connection is kept; below what the endpoint itself allows.
    pub(crate) idle_timeout: At<Text<Duration>>,
    /// How long each part may take; a route may have its own.
    pub(crate) timeouts: Timeouts,
    /// When another endpoint is tried.
    pub(crate) retry: Retry,
    /// Endpoints that fail are left out for a while.
    pub(crate) ejection: Ejection,
    /// Active probes; none without this table.
    pub(crate) health: Option<At<Health>>,
    /// TLS to the endpoints; none without this table.
    pub(crate) tls: Option<At<UpstreamTls>>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            endpoints: None,
            balance: At::default_is(Balance::RoundRobin),
            protocol: At::default_is(Protocol::Http1),
            idle_timeout: Text::default_is("50s"),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            ejection: Ejection::default(),
            health: None,
            tls: None,
        }
    }
}

/// An address, or a table with more to say.
pub(crate) type EndpointItem = TextOrTable<SocketAddr, Endpoint>;

/// An endpoint with more to say.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(crate) struct Endpoint {
    /// IP address and port.
    pub(crate) address: Option<At<Text<SocketAddr>>>,
    /// Its share of the requests, against the others'.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) weight: At<u32>,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { address: None, weight: At::default_is(1) }
    }
}

/// How an endpoint is picked.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// Of two at random, the one with fewer requests in flight.
    LeastRequests,
}

/// What is spoken to the endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; gRPC needs it.
    Http2,
}

/// How long each part may take.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// TCP and TLS to the endpoint.
    pub(crate) connect: At<Text<Duration>>,
    /// Silence of the endpoint.
    pub(crate) per_try: At<Text<Duration>>,
    /// Over all tries; 504 after.
    pub(crate) total: At<Text<Duration>>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Text::default_is("2s"),
            per_try: Text::default_is("15s"),
            total: Text::default_is("30s"),
        }
    }
}

/// When another endpoint is tried.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retry {
    /// Further tries; only when nothing was sent, or the method is idempotent.
    #[schemars(range(min = 0, max = 2))]
    pub(crate) retries: At<u32>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { retries: At::default_is(1) }
    }
}

/// Endpoints that fail are left out for a while.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ejection {
    /// Failures in a row until an endpoint is left out.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) failures: At<u32>,
    /// How long the first time; doubles with each repetition.
    pub(crate) base: At<Text<Duration>>,
    /// The longest.
    pub(crate) max: At<Text<Duration>>,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: At::default_is(3),
            base: Text::default_is("1s"),
            max: Text::default_is("30s"),
        }
    }
}

/// Active probes.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Health {
    /// What is asked.
    #[serde(rename = "type")]
    pub(crate) probe: At<Probe>,
    /// The path of an HTTP probe; 200 to 299 is good.
    pub(crate) path: At<Text<ProbePath>>,
    /// Host of an HTTP probe; default: the endpoint's address.
    pub(crate) host: Option<At<Text<HostHeader>>>,
    /// Between two probes of an endpoint.
    pub(crate) interval: At<Text<Duration>>,
    /// How long one may take.
    pub(crate) timeout: At<Text<Duration>>,
    /// Good answers in a row until it is used again.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) healthy_after: At<u32>,
    /// Bad answers in a row until it is left out.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) unhealthy_after: At<u32>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            probe: At::default_is(Probe::Http),
            path: Text::default_is("/health"),
            host: None,
            interval: Text::default_is("5s"),
            timeout: Text::default_is("2s"),
            healthy_after: At::default_is(2),
            unhealthy_after: At::default_is(3),
        }
    }
}

/// What a probe asks.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Probe {
    /// GET of the path.
    Http,
    /// A connection that opens.
    Tcp,
}

/// TLS to the endpoints.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["server_name"]))]
pub(crate) struct UpstreamTls {
    /// The name in the certificate, and SNI.
    pub(crate) server_name: Option<At<Text<ServerName>>>,
    /// File with the certificates to trust, PEM; default: the system's.
    pub(crate) ca: Option<At<String>>,
    /// Whether chain and name are checked.
    pub(crate) verify: At<Verify>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { server_name: None, ca: None, verify: At::default_is(Verify::On) }
    }
}

/// Whether chain and name are checked.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum Verify {
    /// They are.
    #[serde(rename = "on")]
    On,
    /// Anyone can pretend to be the endpoint.
    #[serde(rename = "off-insecure")]
    OffInsecure,
}
