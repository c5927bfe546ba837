//! Tokens: which issuer's, and which of its keys signed them.
//!
//! The issuer's keys decide the algorithm, never the token. Headers that point to keys (`jku`, `x5u`,
//! `jwk`, `x5c`) are not looked at; headers that change what a token means (`crit`, `b64`, `zip`,
//! `enc`, nested tokens) are refused.
//!
//! Must stay true: nothing of a token is believed before its signature fits, except for `iss` and
//! `kid`, which only pick whose keys are tried.

use super::claims::{self, optional_text};
use super::compact::{self, Compact};
use super::denied::InvalidReason;
use super::identity::Claims;
use super::issuer::{Generation, IssuerKeys, JwtIssuer};
use super::key::{KeyId, KeySet, MAX_KID, Mismatch};
use super::remote_keys::{RemoteKeySets, RemoteKeys};
use http::HeaderName;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The issuers of one configuration, ready to verify.
pub(super) struct Issuers {
    list: Vec<Issuer>,
    headers: Vec<HeaderName>,
    /// Claims that are kept with a token, of every issuer.
    kept: Arc<[Arc<str>]>,
}

struct Issuer {
    definition: Arc<JwtIssuer>,
    generation: Generation,
    keys: Keys,
}

enum Keys {
    Given(Arc<KeySet>),
    Fetched(Arc<RemoteKeys>),
}

/// What a token says, after every check of the token itself passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    /// Name of the issuer's table.
    pub(super) issuer: Arc<str>,
    /// The key that signed it.
    pub(super) key: KeyId,
    /// Plan of bearers that the store does not know.
    pub(super) default_plan: Option<Arc<str>>,
    /// The plan that the token names.
    pub(super) plan: Option<Arc<str>>,
    /// Name of the consumer.
    pub(super) consumer: Arc<str>,
    /// `sub`, or else the consumer's name.
    pub(super) subject: Arc<str>,
    /// `jti`.
    pub(super) id: Option<Arc<str>>,
    /// `iat`, in seconds since 1970.
    pub(super) issued_at: Option<i64>,
    pub(super) scopes: Arc<[Arc<str>]>,
    /// What is kept of its claims.
    pub(super) claims: Arc<Claims>,
    /// Seconds since 1970 at which it ends, leeway included.
    pub(super) ends_at: i64,
}

/// Why a token was not verified.
#[derive(Debug)]
pub(super) enum Unverified {
    /// It is not good.
    Invalid(InvalidReason),
    /// These have no key of its name, or none at all yet. They may have it once they are asked again.
    Missing(Vec<Arc<RemoteKeys>>),
}

impl From<InvalidReason> for Unverified {
    fn from(reason: InvalidReason) -> Self {
        Self::Invalid(reason)
    }
}

impl Issuers {
    /// `remote` has the keys that are fetched, and goes on having them when configurations change.
    pub(super) fn new(definitions: Vec<Arc<JwtIssuer>>, remote: &RemoteKeySets) -> Self {
        let mut headers: Vec<HeaderName> = Vec::new();
        for (name, _) in definitions.iter().flat_map(|issuer| &issuer.headers) {
            if !headers.contains(name) {
                headers.push(name.clone());
            }
        }
        let issuer = |definition: &Arc<JwtIssuer>| Issuer {
            generation: Generation::of(definition, &definitions),
            keys: match &definition.keys {
                IssuerKeys::Given(keys) => Keys::Given(Arc::clone(keys)),
                IssuerKeys::Fetched { source, refresh } => {
                    Keys::Fetched(remote.find_or_add(source, *refresh))
                }
            },
            definition: Arc::clone(definition),
        };
        Self { list: definitions.iter().map(issuer).collect(), headers, kept: Arc::default() }
    }

    /// The same, keeping the claims of these names with each token.
    pub(super) fn keeping(mut self, names: Arc<[Arc<str>]>) -> Self {
        for issuer in &mut self.list {
            issuer.generation = issuer.generation.keeping(&names);
        }
        self.kept = names;
        self
    }

    /// The headers in which upstreams are told of claims.
    pub(super) fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Whether what was verified under `generation` with `key` would be verified again.
    pub(super) fn vouch(&self, generation: &Generation, key: &KeyId) -> bool {
        let mut same = self.list.iter().filter(|issuer| issuer.generation == *generation);
        same.any(|issuer| match &issuer.keys {
            Keys::Given(keys) => keys.contains(key),
            Keys::Fetched(remote) => {
                remote.current().as_ref().is_some_and(|keys| keys.contains(key))
            }
        })
    }

    /// Verifies a token at `now` since 1970; says under which generation.
    pub(super) fn verify(
        &self,
        token: &[u8],
        now: Duration,
    ) -> Result<(Verified, Generation), Unverified> {
        let token = compact::parse(token)?;
        let asks = Asks::of(&token)?;
        let claims = token.claims()?;
        let claimed = optional_text(&claims, "iss")?;
        let named = |issuer: &&Issuer| issuer.definition.issuer.as_deref() == claimed;
        let is_named = claimed.is_some() && self.list.iter().any(|issuer| named(&issuer));
        let candidates = self.list.iter().filter(|issuer| {
            if is_named { named(issuer) } else { issuer.definition.issuer.is_none() }
        });
        let mut refused = InvalidReason::Issuer;
        let mut missing = Vec::new();
        for issuer in candidates {
            match issuer.verify(&token, &asks, (&claims, &*self.kept), now) {
                Ok(verified) => return Ok((verified, issuer.generation)),
                Err(Unverified::Missing(remote)) => missing.extend(remote),
                // What an issuer says of its own token tells more than that it is not another's.
                Err(Unverified::Invalid(reason)) if refused.tells_less_than(reason) => {
                    refused = reason;
                }
                Err(Unverified::Invalid(_)) => {}
            }
        }
        match missing.is_empty() || refused.is_of_own_token() {
            true => Err(refused.into()),
            false => Err(Unverified::Missing(missing)),
        }
    }
}

impl InvalidReason {
    /// Whether an issuer had signed the token that it says this of.
    const fn is_of_own_token(self) -> bool {
        !matches!(self, Self::Issuer | Self::Signature | Self::Algorithm | Self::KeyUnknown)
    }

    /// What one candidate says gives way to what a later one says, if that is closer to the token.
    const fn tells_less_than(self, other: Self) -> bool {
        matches!(self, Self::Issuer)
            || (!self.is_of_own_token() && !matches!(other, Self::Signature))
    }
}

/// What a token's header says: nothing of it is believed.
struct Asks<'t> {
    algorithm: &'t str,
    kid: Option<&'t str>,
    kind: Option<&'t str>,
}

impl<'t> Asks<'t> {
    /// Refuses what would change the meaning of the token, or is not what it should be.
    fn of(token: &'t Compact<'_>) -> Result<Self, InvalidReason> {
        let header: &Map<String, Value> = &token.header;
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm.ok_or(InvalidReason::Algorithm)?;
        if ["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
            return Err(InvalidReason::Critical);
        }
        match optional_text(header, "cty")? {
            Some(nested) if nested.eq_ignore_ascii_case("jwt") => {
                return Err(InvalidReason::Critical);
            }
            _ => {}
        }
        let kind = optional_text(header, "typ")?;
        match optional_text(header, "kid")? {
            Some(kid) if kid.len() > MAX_KID => Err(InvalidReason::Malformed),
            kid => Ok(Self { algorithm, kid, kind }),
        }
    }

    fn check_kind(&self, types: &[String]) -> Result<(), InvalidReason> {
        let kind = self.kind.unwrap_or_default();
        // RFC 7515 4.1.9: the prefix may be left out.
        let (prefix, rest) = kind.split_at_checked("application/".len()).unwrap_or(("", kind));
        let bare = if prefix.eq_ignore_ascii_case("application/") { rest } else { kind };
        match types.is_empty() || types.iter().any(|known| known.eq_ignore_ascii_case(bare)) {
            true => Ok(()),
            false => Err(InvalidReason::Type),
        }
    }
}

impl Issuer {
    fn verify(
        &self,
        token: &Compact<'_>,
        asks: &Asks<'_>,
        claims: (&Map<String, Value>, &[Arc<str>]),
        now: Duration,
    ) -> Result<Verified, Unverified> {
        let prove =
            |keys: &KeySet| keys.verify(asks.algorithm, asks.kid, token.signed, &token.signature);
        let key = match &self.keys {
            Keys::Given(keys) => prove(keys).map_err(|mismatch| mismatch.into()),
            Keys::Fetched(remote) => match remote.current().as_ref().map(|keys| prove(keys)) {
                None | Some(Err(Mismatch::Unknown)) => {
                    Err(Unverified::Missing(vec![Arc::clone(remote)]))
                }
                Some(proved) => proved.map_err(|mismatch| mismatch.into()),
            },
        }?;
        asks.check_kind(&self.definition.types)?;
        Ok(claims::read(&self.definition, key, claims, now)?)
    }
}

/// Only the signature: what is signed need not be claims.
#[cfg(test)]
pub(super) fn prove(token: &[u8], keys: &KeySet) -> Result<KeyId, InvalidReason> {
    let token = compact::parse(token)?;
    let asks = Asks::of(&token)?;
    match keys.verify(asks.algorithm, asks.kid, token.signed, &token.signature) {
        Ok(key) => Ok(key),
        Err(mismatch) => Err(mismatch.reason()),
    }
}

impl From<Mismatch> for Unverified {
    fn from(mismatch: Mismatch) -> Self {
        Self::Invalid(mismatch.reason())
    }
}

impl Mismatch {
    const fn reason(self) -> InvalidReason {
        match self {
            Self::Algorithm => InvalidReason::Algorithm,
            Self::Signature => InvalidReason::Signature,
            Self::Unknown => InvalidReason::KeyUnknown,
        }
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|issuer| &issuer.definition.name)).finish()
    }
}
