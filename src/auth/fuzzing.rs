//! What fuzzing needs of tokens and cannot reach from outside: an issuer, and its verdict.

use super::algorithm::Algorithm;
use super::issuer::{IssuerKeys, JwtIssuer};
use super::jwt::Issuers;
use super::key::{BadKey, Key};
use super::remote_keys::RemoteKeySets;
use crate::telemetry::Clock;
use std::sync::Arc;
use std::time::Duration;

/// What a good token says.
pub struct Believed {
    /// The consumer's name.
    pub consumer: Arc<str>,
    /// Its scopes.
    pub scopes: Arc<[Arc<str>]>,
}

/// One issuer with one secret, at one moment.
pub struct Verifier {
    issuers: Issuers,
    now: Duration,
}

impl Verifier {
    /// Takes HS256 of `secret` with `iss` and `aud`, at `now` since 1970.
    ///
    /// # Errors
    /// The secret is too short.
    pub fn new(secret: &[u8], iss: &str, aud: &str, now: Duration) -> Result<Self, BadKey> {
        let keys = [Key::secret(None, Algorithm::Hs256, secret)?];
        let issuer = JwtIssuer {
            name: "fuzzed".into(),
            keys: IssuerKeys::Given(Arc::new(keys.into_iter().collect())),
            issuer: Some(iss.into()),
            audiences: vec![aud.into()],
            types: Vec::new(),
            leeway: Duration::ZERO,
            consumer_claim: "sub".into(),
            scopes_claim: "scope".into(),
            plan_claim: None,
            default_plan: None,
            headers: Vec::new(),
        };
        let remote = RemoteKeySets::new(Clock::manual());
        Ok(Self { issuers: Issuers::new(vec![Arc::new(issuer)], &remote), now })
    }

    /// What a token says, if it is good.
    #[must_use]
    pub fn verify(&self, token: &[u8]) -> Option<Believed> {
        let (verified, _) = self.issuers.verify(token, self.now).ok()?;
        Some(Believed { consumer: verified.consumer, scopes: verified.scopes })
    }
}
