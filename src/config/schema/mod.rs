//! What may stand in a file of `conf/`: every key, its form, and its default.
//!
//! These types are read by serde, described to editors by schemars, and compiled to the domain by
//! `compile`. A default is written here and nowhere else, as an operator would write it; the
//! shipped `conf/` shows the same text, and a test compares the two.
//!
//! Must stay true: every table denies unknown keys.

mod auth;
mod cloudwatch;
mod fleet;
mod guard;
mod limits;
mod parts;
mod per;
mod route;
mod upstream;

pub(crate) use auth::{Auth, Jwt};
pub(crate) use cloudwatch::CloudWatch;
pub(crate) use fleet::{Admin, AdminToken, Cache, Fleet, Postgres, Redis, Store};
pub(crate) use guard::{AddressGuard, AddressRate};
pub(crate) use limits::{
    Limit, LimitOwner, Mode, OfRoute, OnStoreFailure, Plan, Policy, Precision, Scope,
};
pub(crate) use parts::{At, Entries, OneOrMany, Text, TextOrTable, Workers};
pub(crate) use per::{CostForm, PartOfRequest, Per, PerForm};
pub(crate) use route::{
    AuthMethod, Computed, Cors, EncodedSlash, HeaderEdits, Redirect, Reply, Route, RouteTimeouts,
};
pub(crate) use upstream::{
    Balance, Ejection, Health, Probe, Protocol, Timeouts, Upstream, UpstreamTls, Verify,
};

use super::secret::Pointer;
use super::value::ByteSize;
use ipnet::IpNet;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// A configuration of DataHub Gateway. All `*.toml` files of a folder are one configuration.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    /// Worker threads, each with its own event loop. "auto": the CPUs that the cgroup grants,
    /// rounded up. Read at start only.
    pub(crate) workers: At<Workers>,
    /// Where clients connect. Read at start only.
    pub(crate) listeners: Entries<Listener>,
    /// The operator's listener. Read at start only.
    pub(crate) admin: Admin,
    /// Limits on connections and request heads.
    pub(crate) http: Http,
    /// From SIGTERM to the end of the process.
    pub(crate) drain: Drain,
    /// Consumers and keys: one SQLite file, or PostgreSQL. Read at start only.
    pub(crate) store: Store,
    /// Redis Cluster, for counters that a fleet shares. Read at start only.
    pub(crate) redis: Redis,
    /// The fleet. Read at start only.
    pub(crate) fleet: Fleet,
    /// What is remembered of consumers and keys. Read at start only.
    pub(crate) cache: Cache,
    /// The access log.
    pub(crate) access_log: AccessLog,
    /// Metrics for Amazon CloudWatch. Read at start only.
    pub(crate) cloudwatch: CloudWatch,
    /// What one client address may do before anybody looks at its credentials.
    pub(crate) address_guard: AddressGuard,
    /// How callers say who they are.
    pub(crate) auth: Auth,
    /// What consumers have bought.
    pub(crate) plans: Entries<Plan>,
    /// Conditions and limits for routes and consumers that name them.
    pub(crate) policies: Entries<Policy>,
    /// Which request goes where.
    pub(crate) routes: Entries<Route>,
    /// To whom requests go.
    pub(crate) upstreams: Entries<Upstream>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            workers: At::default_is(Workers::Auto),
            listeners: Entries::default(),
            admin: Admin::default(),
            http: Http::default(),
            drain: Drain::default(),
            store: Store::default(),
            redis: Redis::default(),
            fleet: Fleet::default(),
            cache: Cache::default(),
            access_log: AccessLog::default(),
            cloudwatch: CloudWatch::default(),
            address_guard: AddressGuard::default(),
            auth: Auth::default(),
            plans: Entries::default(),
            policies: Entries::default(),
            routes: Entries::default(),
            upstreams: Entries::default(),
        }
    }
}

/// A public listener.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(crate) struct Listener {
    /// IP address and port; port 0 takes a free one.
    pub(crate) address: Option<At<Text<SocketAddr>>>,
    /// TLS, where it is spoken.
    pub(crate) tls: Option<At<ListenerTls>>,
}

/// TLS of a public listener.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub(crate) struct ListenerTls {
    /// File with the chain, PEM, leaf first.
    pub(crate) certificate: Option<At<String>>,
    /// Private key, PEM: file:PATH or env:NAME. A file is refused when others can read it.
    pub(crate) key: Option<At<Text<Pointer>>>,
    /// Whether HTTP/2 is offered by ALPN.
    pub(crate) http2: At<bool>,
    /// File with the authorities of client certificates, PEM; without it none is asked for.
    pub(crate) client_ca: Option<At<String>>,
    /// Whether a client must show a certificate. One that does not verify is always refused.
    pub(crate) client_certificate: At<ClientCertificates>,
    /// File with what those authorities have revoked, PEM (BEGIN X509 CRL), one list for each of them.
    pub(crate) client_crl: Option<At<String>>,
}

impl Default for ListenerTls {
    fn default() -> Self {
        Self {
            certificate: None,
            key: None,
            http2: At::default_is(true),
            client_ca: None,
            client_certificate: At::default_is(ClientCertificates::Optional),
            client_crl: None,
        }
    }
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum ClientCertificates {
    /// Who has none can use what takes none.
    Optional,
    /// Without one there is no connection.
    Required,
}

/// Limits on connections and request heads.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    /// Size of a request head; 431 above.
    pub(crate) max_head: At<Text<ByteSize>>,
    /// Fields of a request head; 431 above.
    #[schemars(range(min = 8, max = 1000))]
    pub(crate) max_headers: At<u32>,
    /// Size of a request target; 414 above.
    pub(crate) max_target: At<Text<ByteSize>>,
    /// A TLS handshake, from the first connection to its end.
    pub(crate) handshake_timeout: At<Text<Duration>>,
    /// From the first byte of a head to its last; 408 after.
    pub(crate) head_timeout: At<Text<Duration>>,
    /// Between two requests of a connection; keep it above the load balancer's.
    pub(crate) idle_timeout: At<Text<Duration>>,
    /// Silence inside a request body; once it is over, also less than 256 bytes a second.
    pub(crate) body_timeout: At<Text<Duration>>,
    /// A client that does not read.
    pub(crate) write_timeout: At<Text<Duration>>,
    /// Open connections, all listeners together.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_connections: At<u32>,
    /// Open connections of one address, or /64 of IPv6; trusted proxies have no such limit.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_connections_per_address: At<u32>,
    /// Requests in flight, streams and WebSockets among them; 503 above.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_requests: At<u32>,
    /// Memory of the process above which requests get 503; without it, 90 % of what the cgroup grants.
    pub(crate) max_memory: Option<At<Text<ByteSize>>>,
    /// Whose X-Request-Id a request keeps.
    pub(crate) request_ids: At<RequestIds>,
    /// Networks whose X-Forwarded-For and X-Request-Id are believed.
    pub(crate) trusted_proxies: Vec<At<Text<IpNet>>>,
    /// X-RateLimit-Limit, -Remaining and -Reset (seconds left) beside RateLimit, for old clients.
    pub(crate) legacy_rate_limit_headers: At<bool>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            max_head: Text::default_is("32KiB"),
            max_headers: At::default_is(100),
            max_target: Text::default_is("8KiB"),
            handshake_timeout: Text::default_is("10s"),
            head_timeout: Text::default_is("10s"),
            idle_timeout: Text::default_is("75s"),
            body_timeout: Text::default_is("30s"),
            write_timeout: Text::default_is("60s"),
            max_connections: At::default_is(20_000),
            max_connections_per_address: At::default_is(2_000),
            max_requests: At::default_is(10_000),
            max_memory: None,
            request_ids: At::default_is(RequestIds::Trusted),
            trusted_proxies: Vec::new(),
            legacy_rate_limit_headers: At::default_is(false),
        }
    }
}

/// Whose X-Request-Id a request keeps.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum RequestIds {
    /// That of a trusted proxy; every other request gets a new one.
    Trusted,
    /// Nobody's: every request gets a new one.
    Own,
}

/// From SIGTERM to the end of the process.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Drain {
    /// How long health answers 503 and responses say Connection: close before listeners close.
    pub(crate) announce: At<Text<Duration>>,
    /// The end, whatever is in flight.
    pub(crate) deadline: At<Text<Duration>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { announce: Text::default_is("10s"), deadline: Text::default_is("50s") }
    }
}

/// The access log.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessLog {
    /// Where it goes.
    pub(crate) output: At<Output>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { output: At::default_is(Output::Stdout) }
    }
}

/// Where the access log goes.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Output {
    /// One JSON line per request.
    Stdout,
    /// Nothing is written.
    Off,
}

/// The JSON Schema of a file, for editors; also what the structure of a file is checked against.
pub(crate) fn describe() -> Schema {
    let settings = SchemaSettings::draft07().with_transform(WithoutNull);
    let mut schema = settings.into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "DataHub Gateway".into());
    schema
}

/// TOML has no null, and the default of a table is what its keys say.
#[derive(Clone)]
struct WithoutNull;

impl Transform for WithoutNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        if object.get("default").is_some_and(|it| it.is_null() || is_full(it)) {
            object.remove("default");
        }
        if let Some(kinds) = object.get_mut("type").and_then(|it| it.as_array_mut()) {
            kinds.retain(|kind| kind != "null");
            if let [only] = kinds.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(choices) = object.get_mut("anyOf").and_then(|it| it.as_array_mut()) {
            choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
            if let [only] = choices.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                object.insert("allOf".to_owned(), vec![only].into());
            }
        }
    }
}

fn is_full(value: &serde_json::Value) -> bool {
    value.as_object().is_some_and(|object| !object.is_empty())
}
