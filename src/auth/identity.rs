//! The vocabulary of identity: consumers, credentials, callers, and what a route asks for.

use crate::expressions;
use crate::telemetry::Clock;
use http::{HeaderName, HeaderValue};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Seconds since 1970-01-01T00:00:00Z: when something of the store begins or ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The second `secs` after the epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs)
    }

    /// Now.
    #[must_use]
    pub fn now(clock: &Clock) -> Self {
        Self(clock.unix_time().as_secs())
    }

    /// Seconds since the epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// This time and `span`; the far end of time if that is further still.
    #[must_use]
    pub const fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_secs()))
    }
}

/// A way to say who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `X-API-Key: dh_…`
    ApiKey,
    /// `Authorization: Bearer <jwt>`
    Jwt,
    /// A client certificate in the TLS handshake.
    Certificate,
}

/// What a route asks of its callers. There is no default: a route says it aloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `auth = "none"`: open to anyone.
    Open,
    /// One of these methods, with a valid credential.
    Required {
        /// Accepted methods, at least one.
        methods: Vec<Method>,
        /// Scopes that the credential must carry, all of them.
        scopes: Vec<Arc<str>>,
    },
}

/// A party that calls through the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Stable, given by the store.
    pub id: Arc<str>,
    /// Unique, chosen by the operator.
    pub username: Arc<str>,
    /// The operator's own reference, if any.
    pub custom_id: Option<Arc<str>>,
    /// The name of what it has bought.
    pub plan: Arc<str>,
    /// The names of policies that hold for it, beside its plan.
    pub policies: Arc<[Arc<str>]>,
    /// A disabled consumer is refused as if its credentials were unknown.
    pub enabled: bool,
}

/// Which credential a caller used; never the secret part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The 16-character id of an API key.
    ApiKey(Arc<str>),
    /// A token of the issuer of this name (in the file), for this subject.
    Jwt {
        /// Name of the `[auth.jwt.*]` table.
        issuer: Arc<str>,
        /// The `sub` claim.
        subject: Arc<str>,
    },
    /// A certificate that the client showed when it connected.
    Certificate {
        /// Whom it names.
        subject: Arc<str>,
        /// Its SHA-256, in hex.
        fingerprint: Arc<str>,
    },
}

impl Credential {
    /// As expressions name its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ApiKey(_) => "api_key",
            Self::Jwt { .. } => "jwt",
            Self::Certificate { .. } => "mtls",
        }
    }
}

/// An identified party: only `auth` makes one, after every check of the credential passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub consumer: Arc<Consumer>,
    /// By which credential.
    pub credential: Credential,
    /// Name of the plan in force: the credential's own, or else the consumer's.
    pub plan: Arc<str>,
    /// What the credential may do.
    pub scopes: Arc<[Arc<str>]>,
    /// What is kept of a token's claims.
    pub claims: Arc<Claims>,
    /// How requests carry all this; made by the first that does.
    pub fields: Fields,
}

/// What is kept of a verified token's claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// What the upstream is told.
    pub fields: Box<[Field]>,
    /// What rules count by, name and value.
    pub kept: Box<[(Arc<str>, Box<str>)]>,
}

impl Claims {
    /// The value of a claim that rules count by.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.kept.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

impl expressions::Claims for Claims {
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(Cow::Borrowed)
    }
}

/// Header fields that say who a caller is, made once and kept with it. They follow from the rest, so
/// two callers never differ in them.
#[derive(Clone, Debug, Default)]
pub struct Fields(OnceLock<Option<Box<[Field]>>>);

/// A header field.
pub type Field = (HeaderName, HeaderValue);

impl Fields {
    /// The fields; `make` is asked once. `None` if it could not make them.
    pub fn get_or_make(&self, make: impl FnOnce() -> Option<Box<[Field]>>) -> Option<&[Field]> {
        self.0.get_or_init(make).as_deref()
    }
}

impl PartialEq for Fields {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Fields {}

/// What API keys look like here.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeys {
    /// The `<env>` part of `dh_<env>_…`: lower-case letters and digits.
    pub environment: Arc<str>,
    /// Header that carries the key.
    pub header: HeaderName,
    /// Pepper of the stored digests, at least 32 bytes.
    pub pepper: Vec<u8>,
    /// Peppers whose keys are accepted beside, until they are digested anew under that one.
    pub previous_peppers: Vec<Vec<u8>>,
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeys").field("environment", &self.environment).finish_non_exhaustive()
    }
}
