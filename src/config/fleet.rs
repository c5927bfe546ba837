//! What a process is told of the fleet that it belongs to: where the stores are, how many tasks run,
//! what is remembered, and who may use the admin API. Plain data; `server` makes stores of it.
//!
//! Must stay true: no `Debug` here shows a secret, and a URL is one.

use super::secret::Secret;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where consumers and keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreDef {
    /// In one SQLite file.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// In PostgreSQL.
    Postgres(PostgresDef),
}

impl StoreDef {
    /// The file of the embedded store, if that is used.
    #[must_use]
    pub fn embedded(&self) -> Option<&Path> {
        match self {
            Self::Embedded { path } => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

/// PostgreSQL: a primary, and perhaps a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresDef {
    /// The primary.
    pub url: SecretText,
    /// A read replica.
    pub replica_url: Option<SecretText>,
    /// Certificates to trust, PEM; `None`: the system's.
    pub ca: Option<Arc<[u8]>>,
    /// Connections to each of the two.
    pub pool: NonZeroUsize,
    /// Look-ups that may reach it in a second.
    pub lookups_per_second: NonZeroU32,
}

/// Redis Cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisDef {
    /// One of its nodes, or the name that all of them have.
    pub url: SecretText,
    /// Certificates to trust, PEM; `None`: the system's.
    pub ca: Option<Arc<[u8]>>,
}

/// The fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetDef {
    /// How many tasks the operator runs: the least that a share is divided by.
    pub expected: NonZeroU32,
}

/// What is remembered of consumers and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheDef {
    /// Known keys kept in the process.
    pub keys: NonZeroUsize,
    /// Unknown keys kept in the process.
    pub unknown_keys: NonZeroUsize,
    /// How long a known key is believed while the store cannot be reached.
    pub stale_for: Duration,
    /// How long Redis keeps a key.
    pub redis_ttl: Duration,
}

/// The operator's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminDef {
    /// Where it listens; `None` is `address = "off"`.
    pub address: Option<SocketAddr>,
    /// Who may use the API, sorted by name; without anyone it is off.
    pub tokens: Vec<AdminToken>,
}

/// A bearer token of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// What the audit says of its bearer.
    pub name: Arc<str>,
    /// The token: at least 32 visible ASCII characters.
    pub token: SecretText,
}

/// Text that cannot be shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Arc<str>);

impl SecretText {
    /// The text itself, for the one who needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A secret that is text; `None` if it is not.
    pub(crate) fn of(secret: Secret) -> Option<Self> {
        String::from_utf8(secret.0).ok().map(|text| Self(text.into()))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}
