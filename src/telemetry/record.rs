//! One request, as telemetry sees it once it is over.
//!
//! Must stay true: fields are borrowed from the request, so making a record costs nothing; no field
//! can carry a key, a token or a query.

use http::{Method, StatusCode, Version};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Which credential was used; never the secret part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// The public id of an API key.
    ApiKey(&'a str),
    /// A token.
    Jwt {
        /// Name of the issuer in the configuration.
        issuer: &'a str,
        /// Its `sub` claim.
        subject: &'a str,
    },
    /// A client certificate.
    Certificate {
        /// Whom it names.
        subject: &'a str,
        /// Its SHA-256, in hex.
        fingerprint: &'a str,
    },
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The response was sent to its end.
    #[default]
    Complete,
    /// The client went away before that.
    ClientGone,
    /// The response had begun and could not be finished.
    Truncated,
}

/// All that a line of the access log needs.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the head was complete, since 1970-01-01T00:00:00Z.
    pub started: Duration,
    /// From then to the end.
    pub duration: Duration,
    /// The part of it that was spent on the upstream, all tries together.
    pub upstream_duration: Option<Duration>,
    /// The method.
    pub method: &'a Method,
    /// The host that was asked for.
    pub host: &'a [u8],
    /// The canonical path, without the query: queries carry what must not be logged.
    pub path: &'a [u8],
    /// The version the client spoke.
    pub version: Version,
    /// The status that was sent, or would have been.
    pub status: StatusCode,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// How it ended.
    pub end: End,
    /// Name of the route, if one matched.
    pub route: Option<&'a str>,
    /// Id of the consumer.
    pub consumer: Option<&'a str>,
    /// The credential.
    pub credential: Option<Credential<'a>>,
    /// The plan in force.
    pub plan: Option<&'a str>,
    /// The client's address, behind trusted proxies the one that they name.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Whether the client spoke TLS with us.
    pub tls: bool,
    /// The request's id.
    pub request_id: &'a [u8],
    /// The trace that the request belongs to: checked hex digits, written as they are.
    pub trace_id: &'a str,
    /// The gateway's own part of it: the same.
    pub span_id: &'a str,
    /// `X-Amzn-Trace-Id`, as the load balancer sent it.
    pub amzn_trace_id: Option<&'a [u8]>,
    /// Name of the upstream.
    pub upstream: Option<&'a str>,
    /// The endpoint that was tried last.
    pub endpoint: Option<SocketAddr>,
    /// How many endpoints were tried.
    pub tries: u32,
    /// Why the gateway refused, as a code.
    pub reason: Option<&'static str>,
    /// What the client is not told of that reason, such as whether a key was unknown or revoked.
    pub cause: Option<&'a str>,
    /// Rules, conditions and guards in shadow mode that would have refused.
    pub would_refuse: &'a [Arc<str>],
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
}
