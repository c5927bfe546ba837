//! Tokens: which issuer's, whether it signed them, and what they say.
//!
//! The issuer decides the algorithm, never the token. Headers that point to keys (`jku`, `x5u`,
//! `jwk`, `x5c`) are not looked at; headers that change what a token means (`crit`, `b64`, `zip`,
//! `enc`, nested tokens) are refused.
//!
//! Must stay true: nothing of a token is believed before its signature fits, except for `iss`, which
//! only picks whose key is tried.

use super::compact::{self, Compact};
use super::denials;
use super::denied::InvalidReason;
use super::identity::JwtIssuer;
use jsonwebtoken::crypto;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The longest name of a consumer or subject in a token.
const MAX_CLAIM: usize = 256;
/// The longest `kid`.
const MAX_KID: usize = 128;
/// The most scopes that are taken from a token.
const MAX_SCOPES: usize = 256;
/// Every whole number up to here is exact in a double.
const MAX_DATE: f64 = 9_007_199_254_740_992.0;

/// Stands for the whole configuration of all issuers: what was verified under one is void under another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation([u8; 32]);

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Generation(..)")
    }
}

/// The issuers of one configuration, ready to verify.
pub(super) struct Issuers {
    list: Vec<Issuer>,
    generation: Generation,
}

struct Issuer {
    definition: Arc<JwtIssuer>,
    key: DecodingKey,
}

/// What a token says, after every check of the token itself passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    /// Name of the issuer's table.
    pub(super) issuer: Arc<str>,
    /// Plan of bearers that the store does not know.
    pub(super) default_plan: Option<Arc<str>>,
    /// Name of the consumer.
    pub(super) consumer: Arc<str>,
    /// `sub`, or else the consumer's name.
    pub(super) subject: Arc<str>,
    /// `jti`.
    pub(super) id: Option<Arc<str>>,
    /// `iat`, in seconds since 1970.
    pub(super) issued_at: Option<i64>,
    pub(super) scopes: Arc<[Arc<str>]>,
    /// Seconds since 1970 at which it ends, leeway included.
    pub(super) ends_at: i64,
}

impl Issuers {
    pub(super) fn new(definitions: Vec<Arc<JwtIssuer>>) -> Self {
        let generation = generation(&definitions);
        let issuer = |definition: Arc<JwtIssuer>| Issuer {
            key: DecodingKey::from_secret(&definition.secret),
            definition,
        };
        Self { list: definitions.into_iter().map(issuer).collect(), generation }
    }

    pub(super) const fn generation(&self) -> Generation {
        self.generation
    }

    /// Verifies a token at `now` since 1970.
    pub(super) fn verify(&self, token: &[u8], now: Duration) -> Result<Verified, InvalidReason> {
        let token = compact::parse(token)?;
        check_header(&token.header)?;
        let claimed = optional_text(&token.claims, "iss")?;
        let named = |issuer: &&Issuer| issuer.definition.issuer.as_deref() == claimed;
        let is_named = claimed.is_some() && self.list.iter().any(|issuer| named(&issuer));
        let candidates = self.list.iter().filter(|issuer| {
            if is_named { named(issuer) } else { issuer.definition.issuer.is_none() }
        });
        let mut refused = InvalidReason::Issuer;
        for issuer in candidates {
            match issuer.verify(&token, now) {
                Ok(verified) => return Ok(verified),
                // What an issuer says of its own token tells more than that it is not another's.
                Err(InvalidReason::Signature) if refused != InvalidReason::Issuer => {}
                Err(reason) => refused = reason,
            }
        }
        Err(refused)
    }
}

impl Issuer {
    fn verify(&self, token: &Compact<'_>, now: Duration) -> Result<Verified, InvalidReason> {
        if token.header.get("alg").and_then(Value::as_str) != Some("HS256") {
            return Err(InvalidReason::Algorithm);
        }
        match crypto::verify(token.signature, token.signed, &self.key, Algorithm::HS256) {
            Ok(true) => self.read(&token.claims, now),
            Ok(false) | Err(_) => Err(InvalidReason::Signature),
        }
    }

    /// Checks and reads the claims of a token that this issuer signed.
    fn read(&self, claims: &Map<String, Value>, now: Duration) -> Result<Verified, InvalidReason> {
        let issuer = &*self.definition;
        let ends_at = check_dates(claims, issuer.leeway, now)?;
        if issuer.issuer.is_some() && optional_text(claims, "iss")? != issuer.issuer.as_deref() {
            return Err(InvalidReason::Issuer);
        }
        check_audience(claims, &issuer.audiences)?;
        let consumer = name(claims, &issuer.consumer_claim)?.ok_or(InvalidReason::ConsumerClaim)?;
        let consumer: Arc<str> = consumer.into();
        let subject = match name(claims, "sub")? {
            Some(subject) if *subject != *consumer => subject.into(),
            _ => Arc::clone(&consumer),
        };
        Ok(Verified {
            issuer: Arc::clone(&issuer.name),
            default_plan: issuer.default_plan.clone(),
            consumer,
            subject,
            id: token_id(claims)?,
            issued_at: date(claims, "iat")?,
            scopes: scopes(claims.get(&issuer.scopes_claim))?,
            ends_at,
        })
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|issuer| &issuer.definition.name)).finish()
    }
}

/// Refuses what would change the meaning of the token, or is not what it should be.
fn check_header(header: &Map<String, Value>) -> Result<(), InvalidReason> {
    if !header.get("alg").is_some_and(Value::is_string) {
        return Err(InvalidReason::Algorithm);
    }
    if ["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
        return Err(InvalidReason::Critical);
    }
    match optional_text(header, "cty")? {
        Some(nested) if nested.eq_ignore_ascii_case("jwt") => return Err(InvalidReason::Critical),
        _ => {}
    }
    optional_text(header, "typ")?;
    match optional_text(header, "kid")? {
        Some(kid) if kid.len() > MAX_KID => Err(InvalidReason::Malformed),
        _ => Ok(()),
    }
}

/// Checks `exp`, `nbf` and `iat`; returns when the token ends, leeway included.
fn check_dates(
    claims: &Map<String, Value>,
    leeway: Duration,
    now: Duration,
) -> Result<i64, InvalidReason> {
    let leeway = i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX);
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let ends_at = date(claims, "exp")?.ok_or(InvalidReason::NoExpiry)?.saturating_add(leeway);
    let begins_at = date(claims, "nbf")?.map_or(i64::MIN, |nbf| nbf.saturating_sub(leeway));
    // RFC 7519 4.1.4: not on or after.
    if now >= ends_at {
        return Err(InvalidReason::Expired);
    }
    if now < begins_at { Err(InvalidReason::NotYet) } else { Ok(ends_at) }
}

/// `jti`, by which the token can be taken back.
fn token_id(claims: &Map<String, Value>) -> Result<Option<Arc<str>>, InvalidReason> {
    match optional_text(claims, "jti")? {
        Some(id) if id.len() > denials::MAX_CLAIM => Err(InvalidReason::Malformed),
        id => Ok(id.map(Arc::from)),
    }
}

/// A claim in seconds since 1970, fractions cut off.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, InvalidReason> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let number = value.as_i64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| seconds.abs() <= MAX_DATE)?;
        #[expect(clippy::cast_possible_truncation, reason = "within the exact whole numbers")]
        Some(seconds.trunc() as i64)
    });
    number.map(Some).ok_or(InvalidReason::Malformed)
}

/// `aud` names one of `audiences`, if there are any.
fn check_audience(claims: &Map<String, Value>, audiences: &[String]) -> Result<(), InvalidReason> {
    let ours = |value: &Value| match value.as_str() {
        Some(text) => Ok(audiences.iter().any(|audience| audience == text)),
        None => Err(InvalidReason::Malformed),
    };
    let named = match claims.get("aud") {
        None => false,
        Some(Value::Array(list)) => {
            list.iter().try_fold(false, |named, value| Ok(named | ours(value)?))?
        }
        Some(value) => ours(value)?,
    };
    if named || audiences.is_empty() { Ok(()) } else { Err(InvalidReason::Audience) }
}

/// A claim that goes into a header: short, printable ASCII as the names in the store (RFC 9110 5.5
/// lets servers read other bytes as they like, some as line breaks), no space around it.
fn name<'c>(claims: &'c Map<String, Value>, claim: &str) -> Result<Option<&'c str>, InvalidReason> {
    match optional_text(claims, claim)? {
        Some(text)
            if text.is_empty()
                || text.len() > MAX_CLAIM
                || text.trim() != text
                || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) =>
        {
            Err(InvalidReason::ConsumerClaim)
        }
        text => Ok(text),
    }
}

/// A list of texts, or one text with spaces (RFC 8693 4.2).
fn scopes(value: Option<&Value>) -> Result<Arc<[Arc<str>]>, InvalidReason> {
    let scopes: Vec<Arc<str>> = match value {
        None => Vec::new(),
        Some(Value::String(text)) => {
            text.split(' ').filter(|scope| !scope.is_empty()).map(Arc::from).collect()
        }
        Some(Value::Array(list)) => {
            let text = |value: &Value| value.as_str().map(Arc::from);
            list.iter().map(text).collect::<Option<_>>().ok_or(InvalidReason::Malformed)?
        }
        Some(_) => return Err(InvalidReason::Malformed),
    };
    if scopes.len() > MAX_SCOPES { Err(InvalidReason::Malformed) } else { Ok(scopes.into()) }
}

fn optional_text<'m>(
    map: &'m Map<String, Value>,
    name: &str,
) -> Result<Option<&'m str>, InvalidReason> {
    match map.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(InvalidReason::Malformed),
    }
}

/// A digest of all that the issuers are, each part with its length before it.
fn generation(issuers: &[Arc<JwtIssuer>]) -> Generation {
    let mut hash = Sha256::new();
    let mut feed = |part: &[u8]| {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    };
    for issuer in issuers {
        let JwtIssuer {
            name,
            secret,
            issuer,
            audiences,
            leeway,
            consumer_claim,
            scopes_claim,
            default_plan,
        } = &**issuer;
        feed(name.as_bytes());
        feed(secret);
        // An absent value and an empty one are two things.
        feed(&[u8::from(issuer.is_some()), u8::from(default_plan.is_some())]);
        feed(issuer.as_deref().unwrap_or_default().as_bytes());
        feed(default_plan.as_deref().unwrap_or_default().as_bytes());
        feed(&audiences.len().to_be_bytes());
        audiences.iter().for_each(|audience| feed(audience.as_bytes()));
        feed(&leeway.as_nanos().to_be_bytes());
        feed(consumer_claim.as_bytes());
        feed(scopes_claim.as_bytes());
    }
    Generation(hash.finalize().into())
}
