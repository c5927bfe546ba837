//! One `[auth.jwt.*]` table: whose tokens are believed, by which keys, and what is read from them.

use super::jwks_source::JwksSource;
use super::key::KeySet;
use http::HeaderName;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whose tokens are believed, and what is read from them.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtIssuer {
    /// Name of the table.
    pub name: Arc<str>,
    /// Its keys.
    pub keys: IssuerKeys,
    /// `iss` must equal this, where given.
    pub issuer: Option<String>,
    /// `aud` must contain one of these, where given.
    pub audiences: Vec<String>,
    /// `typ` must be one of these, where given; in small letters, without `application/`.
    pub types: Vec<String>,
    /// Clock difference forgiven on `exp` and `nbf`; at most 60 s.
    pub leeway: Duration,
    /// The claim that names the consumer (`username` in the store).
    pub consumer_claim: String,
    /// The claim with the scopes: a list, or one string with spaces.
    pub scopes_claim: String,
    /// The claim that names the plan, before the consumer's own.
    pub plan_claim: Option<String>,
    /// Plan of token bearers that the store does not know; without it they are refused.
    pub default_plan: Option<Arc<str>>,
    /// Which claims the upstream is told, in which header.
    pub headers: Vec<(HeaderName, String)>,
}

/// The keys of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerKeys {
    /// As the files say.
    Given(Arc<KeySet>),
    /// As a URL says at the moment.
    Fetched {
        /// Where.
        source: Arc<JwksSource>,
        /// How often it is asked.
        refresh: Duration,
    },
}

impl fmt::Debug for JwtIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtIssuer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Stands for all that an issuer is, but for its keys: what was verified under one is void under
/// another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation([u8; 32]);

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Generation(..)")
    }
}

impl Generation {
    /// Of `issuer` beside `others`: whether a token is tried with an issuer that names no `iss`
    /// depends on which ones are named.
    pub(super) fn of(issuer: &JwtIssuer, others: &[Arc<JwtIssuer>]) -> Self {
        let JwtIssuer {
            name,
            keys: _,
            issuer: iss,
            audiences,
            types,
            leeway,
            consumer_claim,
            scopes_claim,
            plan_claim,
            default_plan,
            headers,
        } = issuer;
        let mut hash = Parts(Sha256::new());
        hash.text(name);
        hash.optional(iss.as_deref());
        hash.optional(default_plan.as_deref());
        hash.optional(plan_claim.as_deref());
        hash.list(audiences.iter().map(String::as_str));
        hash.list(types.iter().map(String::as_str));
        hash.part(&leeway.as_nanos().to_be_bytes());
        hash.text(consumer_claim);
        hash.text(scopes_claim);
        hash.list(headers.iter().flat_map(|(header, claim)| [header.as_str(), claim.as_str()]));
        if iss.is_none() {
            hash.list(others.iter().filter_map(|other| other.issuer.as_deref()));
        }
        Self(hash.0.finalize().into())
    }

    /// Where the claims of these names are kept with a token: one that was verified without them has
    /// lost them.
    pub(super) fn keeping(self, names: &[Arc<str>]) -> Self {
        let mut hash = Parts(Sha256::new());
        hash.part(&self.0);
        hash.list(names.iter().map(|name| &**name));
        Self(hash.0.finalize().into())
    }
}

/// A digest of parts, each with its length before it.
struct Parts(Sha256);

impl Parts {
    fn part(&mut self, part: &[u8]) {
        self.0.update(part.len().to_be_bytes());
        self.0.update(part);
    }

    fn text(&mut self, text: &str) {
        self.part(text.as_bytes());
    }

    /// An absent text and an empty one are two things.
    fn optional(&mut self, text: Option<&str>) {
        self.part(&[u8::from(text.is_some())]);
        self.text(text.unwrap_or_default());
    }

    fn list<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        let mut length: usize = 0;
        for text in texts {
            self.text(text);
            length += 1;
        }
        self.part(&length.to_be_bytes());
    }
}
