//! `[auth]`.

use super::{At, Entries, Text};
use crate::config::secret::Pointer;
use crate::config::value::KeyEnvironment;
use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// How callers say who they are.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    /// API keys.
    pub(crate) api_key: ApiKey,
    /// Believed issuers of tokens.
    pub(crate) jwt: Entries<Jwt>,
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
}

impl Default for ApiKey {
    fn default() -> Self {
        Self {
            environment: Text::default_is("live"),
            header: Text::default_is("X-API-Key"),
            pepper: None,
        }
    }
}

/// An issuer of tokens (HS256).
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Jwt {
    /// env:NAME or file:PATH, at least 32 bytes. Without it, env:JWT_SECRET if set, else a private
    /// file beside the store.
    pub(crate) secret: Option<At<Text<Pointer>>>,
    /// `iss` must equal it, where given.
    pub(crate) issuer: Option<At<String>>,
    /// `aud` must name one of them, where given.
    pub(crate) audiences: Vec<At<String>>,
    /// Forgiven on `exp` and `nbf`, at most 60s.
    pub(crate) leeway: At<Text<Duration>>,
    /// The claim that names the consumer.
    pub(crate) consumer_claim: At<String>,
    /// The claim with the scopes.
    pub(crate) scopes_claim: At<String>,
    /// Plan of bearers that the store does not know; without it they are refused.
    pub(crate) default_plan: Option<At<String>>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret: None,
            issuer: None,
            audiences: Vec::new(),
            leeway: Text::default_is("30s"),
            consumer_claim: At::default_is("sub".to_owned()),
            scopes_claim: At::default_is("scope".to_owned()),
            default_plan: None,
        }
    }
}
