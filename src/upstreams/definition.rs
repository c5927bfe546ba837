//! What `[upstreams.*]` says, parsed.

use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// How an endpoint is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Two at random, the one with fewer requests in flight per weight (Mitzenmacher, "The Power of
    /// Two Choices in Randomized Load Balancing", 2001).
    LeastRequests,
    /// Smooth weighted round robin (nginx, 2012).
    #[default]
    RoundRobin,
}

/// What is spoken to the endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive.
    #[default]
    Http1,
    /// HTTP/2, over TLS by ALPN or in clear text with prior knowledge; gRPC needs it.
    Http2,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointDef {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the requests, against the others'.
    pub weight: NonZeroU32,
}

/// TLS towards the endpoints. Verification is on unless the file says
/// `verify = "off-insecure"` in so many words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name that the certificate must carry, also sent as SNI; never empty.
    pub server_name: String,
    /// Certificates to trust instead of the system's; each can be an anchor.
    pub ca: Option<Arc<[CertificateDer<'static>]>>,
    /// Whether the chain and the name are checked.
    pub verify: bool,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `GET path`, and a status of 200 to 299.
    Http {
        /// The path, with query if any.
        path: String,
        /// The `Host` header; the endpoint's address without it.
        host: Option<String>,
    },
    /// A connection that opens.
    Tcp,
}

/// Active health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Between two probes of an endpoint.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Good answers in a row until it is used again.
    pub healthy_after: NonZeroU32,
    /// Bad answers in a row until it is left out.
    pub unhealthy_after: NonZeroU32,
}

/// Passive health: an endpoint that fails requests is left out for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row (connect, reset, per-try timeout) until it is left out.
    pub failures: NonZeroU32,
    /// How long the first time; doubles with each repetition up to `max`.
    pub base: Duration,
    /// The longest.
    pub max: Duration,
}

/// How long each part may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS to the endpoint.
    pub connect: Duration,
    /// Silence of the endpoint: until the first byte of the response and between two reads.
    pub per_try: Duration,
    /// The whole exchange over all tries; a streaming route has none after the response head.
    pub total: Duration,
}

/// When another endpoint is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further tries after the first: 0, 1 or 2.
    pub retries: u32,
}

/// One upstream: endpoints that can stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamDef {
    /// Its name in the file.
    pub name: Arc<str>,
    /// At least one.
    pub endpoints: Vec<EndpointDef>,
    /// How one is picked.
    pub balance: Balance,
    /// What is spoken.
    pub protocol: Protocol,
    /// TLS, where the endpoints speak it.
    pub tls: Option<UpstreamTls>,
    /// Probes, where the file asks for them.
    pub health: Option<HealthCheck>,
    /// Passive health.
    pub ejection: Ejection,
    /// Timeouts, unless a route has its own.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Retry,
    /// How long an idle connection is kept for reuse.
    pub idle_timeout: Duration,
}
