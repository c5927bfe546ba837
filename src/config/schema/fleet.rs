//! What the tasks of a fleet share: `[store]`, `[redis]`, `[fleet]`, `[cache]`, and the tokens of the
//! admin API.

use super::{At, Entries, Text};
use crate::config::secret::Pointer;
use crate::config::source::Span;
use crate::config::value::AdminAddress;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// The operator's listener: /metrics, /livez, /readyz, and the admin API.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// IP address and port; "off" closes it.
    pub(crate) address: At<Text<AdminAddress>>,
    /// Who may use the admin API, by name; the audit says it. Without any, env:ADMIN_TOKEN is taken
    /// if set; without that too, the API is off.
    pub(crate) tokens: Entries<AdminToken>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: Text::default_is("127.0.0.1:9901"), tokens: Entries::default() }
    }
}

/// A bearer token of the admin API.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["token"]))]
pub(crate) struct AdminToken {
    /// env:NAME or file:PATH, at least 32 bytes.
    pub(crate) token: Option<At<Text<Pointer>>>,
}

/// Consumers and keys: one SQLite file, or PostgreSQL.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// The SQLite file, from the folder of the configuration. Not used with PostgreSQL.
    pub(crate) path: At<String>,
    /// PostgreSQL, for a fleet.
    pub(crate) postgres: Postgres,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: At::default_is("../data/gateway.db".to_owned()),
            postgres: Postgres::default(),
        }
    }
}

/// PostgreSQL, for a fleet; used where there is a URL of it.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Postgres {
    /// env:NAME or file:PATH with postgres://USER:PASSWORD@HOST/DATABASE. Without it,
    /// env:DATABASE_URL if set.
    pub(crate) url: Option<At<Text<Pointer>>>,
    /// The same for a read replica. Without it, env:DATABASE_REPLICA_URL if set.
    pub(crate) replica_url: Option<At<Text<Pointer>>>,
    /// File with the authority to trust, PEM; default: the system's.
    pub(crate) ca: Option<At<String>>,
    /// The most connections to the primary, and to the replica; 3 more at most beside them.
    #[schemars(range(min = 6, max = 100))]
    pub(crate) pool: At<u32>,
    /// Look-ups that reach PostgreSQL in a second; what is above is told to come back.
    #[schemars(range(min = 10, max = 1_000_000))]
    pub(crate) lookups_per_second: At<u32>,
}

impl Postgres {
    /// Where it is spoken of.
    pub(crate) fn span(&self) -> Span {
        first_given([
            self.url.as_ref().map(|at| at.span),
            self.replica_url.as_ref().map(|at| at.span),
            self.ca.as_ref().map(|at| at.span),
            Some(self.pool.span),
            Some(self.lookups_per_second.span),
        ])
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: None,
            replica_url: None,
            ca: None,
            pool: At::default_is(10),
            lookups_per_second: At::default_is(5_000),
        }
    }
}

/// Redis Cluster, for counters that a fleet shares; used where there is a URL of it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redis {
    /// env:NAME or file:PATH with rediss://USER:PASSWORD@HOST:PORT. Without it, env:REDIS_URL if set.
    pub(crate) url: Option<At<Text<Pointer>>>,
    /// File with the authority to trust, PEM; default: the system's.
    pub(crate) ca: Option<At<String>>,
}

impl Redis {
    /// Where it is spoken of.
    pub(crate) fn span(&self) -> Span {
        first_given([self.url.as_ref().map(|at| at.span), self.ca.as_ref().map(|at| at.span)])
    }
}

/// The fleet.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fleet {
    /// How many tasks run: while Redis is away, a limit is divided by it, or by more if more were
    /// seen.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) expected: At<u32>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { expected: At::default_is(1) }
    }
}

/// What is remembered of consumers and keys.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cache {
    /// Known keys kept in the process.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) keys: At<u32>,
    /// Unknown keys kept in the process.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) unknown_keys: At<u32>,
    /// How long a known key is believed while the store cannot be reached.
    pub(crate) stale_for: At<Text<Duration>>,
    /// How long Redis keeps a key, at most 60s.
    pub(crate) redis_ttl: At<Text<Duration>>,
}

impl Cache {
    /// Where it is spoken of.
    pub(crate) fn span(&self) -> Span {
        let spans =
            [self.keys.span, self.unknown_keys.span, self.stale_for.span, self.redis_ttl.span];
        first_given(spans.map(Some))
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            keys: At::default_is(50_000),
            unknown_keys: At::default_is(8_192),
            stale_for: Text::default_is("10m"),
            redis_ttl: Text::default_is("60s"),
        }
    }
}

pub(super) fn first_given<const N: usize>(spans: [Option<Span>; N]) -> Span {
    spans.into_iter().flatten().find(|span| span.is_somewhere()).unwrap_or(Span::NOWHERE)
}
