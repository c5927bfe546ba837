//! Text to [`Config`], or to every [`Diagnostic`] at once; no network.
//!
//! ```text
//! *.toml ─▶ source ─▶ document ─▶ shape ─▶ schema ─▶ compile ─▶ Config
//!           text      one tree    fits?    serde     values, names, rules
//! ```
//!
//! No step stops at its first error; each leaves out what is wrong and goes on with the rest, so
//! that an operator sees everything in one [`Report`].

mod certificate;
mod cloudwatch;
mod compile;
mod diagnostic;
mod document;
mod fixed;
mod fleet;
mod jose;
mod load;
mod pattern;
mod rows;
mod schema;
mod secret;
mod shape;
mod source;
mod uri;
mod value;
mod words;

pub use certificate::Certificate;
pub use cloudwatch::{CloudWatchDef, is_private};
pub use diagnostic::{Diagnostic, Report, Severity};
pub use fleet::{
    AdminDef, AdminToken, CacheDef, FleetDef, PostgresDef, RedisDef, SecretText, StoreDef,
};
#[cfg(any(test, feature = "fuzzing"))]
pub use load::load_text;
pub use load::{Loaded, load, load_in, load_store, load_store_in};
pub use rows::{RefusedRow, Rows, check_row, compile_rows, faults_of_row};
pub use secret::{Environment, SecretFiles};

use crate::auth::access::Access;
use crate::auth::{ApiKeys, CERTIFICATES, CertificateRules, ClientTrust, JwtIssuer, Requirement};
use crate::expressions::Expression;
use crate::limits::{GuardDef, Mode, Plan, Rule};
use crate::routing::{Cors, Matcher, Rewrite};
use crate::upstreams::{Timeouts, UpstreamDef};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Everything that `conf/` says, checked: a value of this type can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What cannot change without a restart.
    pub fixed: Fixed,
    /// Certificates of the listeners with TLS, by the listener's name. A reload exchanges them.
    pub certificates: Vec<(Arc<str>, Certificate)>,
    /// Whose client certificates the listeners believe that ask for them, by the listener's name. A
    /// reload exchanges them.
    pub clients: Vec<(Arc<str>, Arc<ClientTrust>)>,
    /// Limits on connections and heads.
    pub http: Http,
    /// How the process ends.
    pub drain: Drain,
    /// Whether the access log is written.
    pub access_log: bool,
    /// What an address may do before anybody knows who calls.
    pub address_guard: GuardDef,
    /// Accepted API keys.
    pub api_key: ApiKeys,
    /// Believed token issuers, sorted by name.
    pub issuers: Vec<Arc<JwtIssuer>>,
    /// What is read from client certificates.
    pub mtls: CertificateRules,
    /// Plans, sorted by name.
    pub plans: Vec<Plan>,
    /// Policies, sorted by name.
    pub policies: Vec<PolicyDef>,
    /// Upstreams, sorted by name.
    pub upstreams: Vec<UpstreamDef>,
    /// Routes, sorted by name.
    pub routes: Vec<RouteDef>,
}

impl Config {
    /// The names under which the deny list can take something back: those of the issuers of tokens,
    /// and the one that stands for client certificates, where a listener asks for them.
    #[must_use]
    pub fn credential_issuers(&self) -> Vec<Arc<str>> {
        let certificates = (!self.clients.is_empty()).then(|| CERTIFICATES.into());
        let tokens = self.issuers.iter().map(|issuer| Arc::clone(&issuer.name));
        tokens.chain(certificates).collect()
    }
}

/// What is read once at start; a reload that changes it is refused, with the place.
#[derive(Clone, Debug, PartialEq)]
pub struct Fixed {
    /// Worker threads; `None` asks the cgroup.
    pub workers: Option<NonZeroUsize>,
    /// Public listeners, sorted by name.
    pub listeners: Vec<Listener>,
    /// The operator's listener.
    pub admin: AdminDef,
    /// Consumers and keys.
    pub store: StoreDef,
    /// Counters that a fleet shares; `None`: they are in the process.
    pub redis: Option<RedisDef>,
    /// The fleet.
    pub fleet: FleetDef,
    /// What is remembered of consumers and keys.
    pub cache: CacheDef,
    /// Metrics for CloudWatch.
    pub cloudwatch: CloudWatchDef,
}

/// A public listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// TLS, where it is spoken.
    pub tls: Option<ListenerTls>,
}

/// TLS of a public listener. Its certificate is in [`Config::certificates`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
}

/// Limits on connections and heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Bytes of a request head (431 above).
    pub max_head: usize,
    /// Fields of a request head (431 above).
    pub max_headers: usize,
    /// Bytes of a request target (414 above).
    pub max_target: usize,
    /// From the beginning of a TLS handshake to its end.
    pub handshake_timeout: Duration,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Silence inside a request body; once it is over, also less than 256 bytes a second.
    pub body_timeout: Duration,
    /// How long a write to the client may stall.
    pub write_timeout: Duration,
    /// Open connections, all listeners together.
    pub max_connections: usize,
    /// Open connections of one address; trusted proxies have no such limit.
    pub max_connections_per_address: usize,
    /// Requests in flight (503 above).
    pub max_requests: usize,
    /// Bytes in memory above which requests get 503; `None` goes by the cgroup.
    pub max_memory: Option<u64>,
    /// Whether the request id of a trusted proxy is kept.
    pub keeps_request_ids: bool,
    /// Peers whose `X-Forwarded-For` and request ids are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether `X-RateLimit-*` are sent beside `RateLimit`.
    pub legacy_rate_limit_headers: bool,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// From SIGTERM until the listeners close.
    pub announce: Duration,
    /// From SIGTERM until the process ends, whatever is in flight.
    pub deadline: Duration,
}

/// A named set of conditions and rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDef {
    /// Its name, as routes and consumers refer to it.
    pub name: Arc<str>,
    /// What it asks of a request.
    pub access: Access,
    /// A condition more.
    pub when: Option<Expression>,
    /// Its limits, no stricter than its mode.
    pub rules: Vec<Rule>,
    /// Whether its conditions refuse.
    pub mode: Mode,
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteDef {
    /// Its name in the file.
    pub name: Arc<str>,
    /// What its requests count as in the usage of consumers.
    pub class: Arc<str>,
    /// What it asks of a head.
    pub matcher: Matcher,
    /// What it asks of a caller.
    pub auth: Requirement,
    /// Whether the credential goes on to the upstream.
    pub forward_credential: bool,
    /// The operator's limits, beside the caller's plan.
    pub limits: Vec<Rule>,
    /// Names of policies that hold here; each exists in [`Config::policies`].
    pub policies: Vec<Arc<str>>,
    /// Cross-origin policy.
    pub cors: Option<Cors>,
    /// Bytes of a request body (413 above).
    pub max_body: u64,
    /// Whether a body without a length is refused (411).
    pub require_length: bool,
    /// Changes on the way through.
    pub rewrite: Rewrite,
    /// What answers.
    pub action: ActionDef,
}

/// What answers a request.
#[derive(Clone, Debug, PartialEq)]
pub enum ActionDef {
    /// An upstream.
    Proxy {
        /// Its name; exists in [`Config::upstreams`].
        upstream: Arc<str>,
        /// The route's own timeouts, already merged with the upstream's.
        timeouts: Timeouts,
        /// `stream = true`: no per-read and no total timeout once the response has begun.
        stream: bool,
    },
    /// A redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// `Location`; `{path}` and `{query}` stand for the request's own.
        location: String,
    },
    /// A fixed reply.
    Reply {
        /// 200 to 599.
        status: u16,
        /// `Content-Type`.
        content_type: http::HeaderValue,
        /// The body.
        body: bytes::Bytes,
    },
}

/// The JSON Schema of a configuration file, for editors.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schema::describe().to_value()
}
