//! `[auth]`.

use super::{At, Entries, Text};
use crate::auth::{Algorithm, JwksUrl, SubjectPart};
use crate::config::jose::{PublicFile, TokenType};
use crate::config::secret::Pointer;
use crate::config::value::KeyEnvironment;
use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How callers say who they are.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    /// API keys.
    pub(crate) api_key: ApiKey,
    /// Believed issuers of tokens.
    pub(crate) jwt: Entries<Jwt>,
    /// Client certificates, of listeners that ask for them.
    pub(crate) mtls: Mtls,
}

/// What is read from client certificates.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mtls {
    /// What names the consumer: the common name, or the first alternative name of a kind.
    pub(crate) subject: At<Subject>,
    /// Plan of subjects that the store does not know; without it they are refused.
    pub(crate) default_plan: Option<At<String>>,
}

impl Default for Mtls {
    fn default() -> Self {
        Self { subject: At::default_is(Subject::CommonName), default_plan: None }
    }
}

/// A part of a certificate that can name a consumer.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Subject {
    /// The common name.
    CommonName,
    /// The first DNS name.
    Dns,
    /// The first URI.
    Uri,
    /// The first mail address.
    Email,
}

impl From<Subject> for SubjectPart {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::CommonName => Self::CommonName,
            Subject::Dns => Self::Dns,
            Subject::Uri => Self::Uri,
            Subject::Email => Self::Email,
        }
    }
}

/// API keys look like `dh_<environment>_<id>_<secret><checksum>`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ApiKey {
    /// Lower-case letters and digits.
    pub(crate) environment: At<Text<KeyEnvironment>>,
    /// The header that carries the key.
    pub(crate) header: At<Text<HeaderName>>,
    /// env:NAME or file:PATH, at least 32 bytes. Without it, env:API_KEY_PEPPER if set, else a
    /// private file beside the store.
    pub(crate) pepper: Option<At<Text<Pointer>>>,
    /// Peppers whose keys are accepted beside, at most 4. A key that is used is digested anew under
    /// `pepper`; `gateway keys peppers` says when one is not needed any more.
    pub(crate) previous_peppers: Vec<At<Text<Pointer>>>,
}

impl Default for ApiKey {
    fn default() -> Self {
        Self {
            environment: Text::default_is("live"),
            header: Text::default_is("X-API-Key"),
            pepper: None,
            previous_peppers: Vec::new(),
        }
    }
}

/// An issuer of tokens. Its keys are secrets, or public keys from one place.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Jwt {
    /// env:NAME or file:PATH, at least 32 bytes. Where no key is named at all, env:JWT_SECRET if set,
    /// else a private file beside the store.
    pub(crate) secret: Option<At<Text<Pointer>>>,
    /// The same by `kid`, for several at a time.
    pub(crate) secrets: Entries<Text<Pointer>>,
    /// file:PATH with public keys, PEM (BEGIN PUBLIC KEY).
    pub(crate) public_key: Option<At<Text<PublicFile>>>,
    /// file:PATH with a set of public keys (RFC 7517).
    pub(crate) jwks: Option<At<Text<PublicFile>>>,
    /// Where such a set is fetched from, https.
    pub(crate) jwks_url: Option<At<Text<JwksUrl>>>,
    /// How often it is fetched; sooner where the server says so.
    pub(crate) refresh: At<Text<Duration>>,
    /// File with the authority to trust there, PEM; default: the system's.
    pub(crate) ca: Option<At<String>>,
    /// Whether the URL may be http: then whoever is on the way decides which tokens are good.
    pub(crate) allow_http: At<bool>,
    /// Whether the URL may lead to private, loopback and link-local addresses.
    pub(crate) allow_private: At<bool>,
    /// The algorithm of keys that do not name theirs; default: HS256 of secrets, RS256 of RSA keys.
    pub(crate) algorithm: Option<At<Text<Algorithm>>>,
    /// `iss` must equal it, where given.
    pub(crate) issuer: Option<At<String>>,
    /// `aud` must name one of them, where given.
    pub(crate) audiences: Vec<At<String>>,
    /// `typ` must be one of them, where given.
    pub(crate) types: Vec<At<Text<TokenType>>>,
    /// Forgiven on `exp` and `nbf`, at most 60s.
    pub(crate) leeway: At<Text<Duration>>,
    /// The claim that names the consumer.
    pub(crate) consumer_claim: At<String>,
    /// The claim with the scopes.
    pub(crate) scopes_claim: At<String>,
    /// The claim with the plan; a token that has it goes before the consumer's own plan.
    pub(crate) plan_claim: Option<At<String>>,
    /// Plan of bearers that the store does not know; without it they are refused.
    pub(crate) default_plan: Option<At<String>>,
    /// Headers in which the upstream is told of claims, by name. Nobody else can send them.
    pub(crate) headers: Entries<String>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret: None,
            secrets: Entries::default(),
            public_key: None,
            jwks: None,
            jwks_url: None,
            refresh: Text::default_is("5m"),
            ca: None,
            allow_http: At::default_is(false),
            allow_private: At::default_is(false),
            algorithm: None,
            issuer: None,
            audiences: Vec::new(),
            types: Vec::new(),
            leeway: Text::default_is("30s"),
            consumer_claim: At::default_is("sub".to_owned()),
            scopes_claim: At::default_is("scope".to_owned()),
            plan_claim: None,
            default_plan: None,
            headers: Entries::default(),
        }
    }
}
