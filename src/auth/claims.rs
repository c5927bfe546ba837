//! What a token says, once its signature fits.
//!
//! Must stay true: what becomes a name, a plan or a header is printable ASCII of a bounded length, so
//! that no claim can break a line.

use super::denials;
use super::denied::InvalidReason;
use super::identity::{Claims as Kept, Field};
use super::issuer::JwtIssuer;
use super::jwt::Verified;
use super::key::KeyId;
use http::HeaderValue;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// The longest name of a consumer, subject or plan in a token.
pub(super) const MAX_NAME: usize = 256;
/// The longest claim that goes into a header.
const MAX_HEADER: usize = 1024;
/// The longest claim that rules count by.
const MAX_KEPT: usize = 1024;
/// The most scopes that are taken from a token.
const MAX_SCOPES: usize = 256;
/// Every whole number up to here is exact in a double.
const MAX_DATE: f64 = 9_007_199_254_740_992.0;

type Claims = Map<String, Value>;

/// Checks and reads the claims of a token that `key` of `issuer` signed.
pub(super) fn read(
    issuer: &JwtIssuer,
    key: KeyId,
    (claims, kept): (&Claims, &[Arc<str>]),
    now: Duration,
) -> Result<Verified, InvalidReason> {
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
    let plan = match &issuer.plan_claim {
        Some(claim) => name(claims, claim)?.map(Arc::from),
        None => None,
    };
    Ok(Verified {
        issuer: Arc::clone(&issuer.name),
        key,
        default_plan: issuer.default_plan.clone(),
        plan,
        consumer,
        subject,
        id: token_id(claims)?,
        issued_at: date(claims, "iat", f64::trunc)?,
        scopes: scopes(claims.get(&issuer.scopes_claim))?,
        claims: Arc::new(Kept { fields: fields(claims, issuer)?, kept: keep(claims, kept) }),
        ends_at,
    })
}

/// Checks `exp`, `nbf` and `iat`; returns when the token ends, leeway included.
fn check_dates(claims: &Claims, leeway: Duration, now: Duration) -> Result<i64, InvalidReason> {
    let leeway = i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX);
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let ends_at =
        date(claims, "exp", f64::trunc)?.ok_or(InvalidReason::NoExpiry)?.saturating_add(leeway);
    // Up: not even a part of a second too early.
    let begins_at =
        date(claims, "nbf", f64::ceil)?.map_or(i64::MIN, |nbf| nbf.saturating_sub(leeway));
    // RFC 7519 4.1.4: not on or after.
    if now >= ends_at {
        return Err(InvalidReason::Expired);
    }
    if now < begins_at { Err(InvalidReason::NotYet) } else { Ok(ends_at) }
}

/// `jti`, by which the token can be taken back.
fn token_id(claims: &Claims) -> Result<Option<Arc<str>>, InvalidReason> {
    match optional_text(claims, "jti")? {
        Some(id) if id.len() > denials::MAX_CLAIM => Err(InvalidReason::Malformed),
        id => Ok(id.map(Arc::from)),
    }
}

/// A claim in seconds since 1970, made whole by `round`.
fn date(claims: &Claims, name: &str, round: fn(f64) -> f64) -> Result<Option<i64>, InvalidReason> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let number = value.as_i64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| seconds.abs() <= MAX_DATE)?;
        #[expect(clippy::cast_possible_truncation, reason = "within the exact whole numbers")]
        Some(round(seconds) as i64)
    });
    number.map(Some).ok_or(InvalidReason::Malformed)
}

/// `aud` names one of `audiences`, if there are any.
fn check_audience(claims: &Claims, audiences: &[String]) -> Result<(), InvalidReason> {
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
fn name<'c>(claims: &'c Claims, claim: &str) -> Result<Option<&'c str>, InvalidReason> {
    match optional_text(claims, claim)? {
        Some(text) if !is_printable(text, MAX_NAME) => Err(InvalidReason::ConsumerClaim),
        text => Ok(text),
    }
}

/// Whether a text can be a name: printable ASCII, no space around it.
pub(super) fn is_printable(text: &str, longest: usize) -> bool {
    !text.is_empty()
        && text.len() <= longest
        && text.trim() == text
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The claims that the upstream is told. A claim that is not there is no field; one that no field can
/// carry is refused, since to leave it out would say that it is not there.
fn fields(claims: &Claims, issuer: &JwtIssuer) -> Result<Box<[Field]>, InvalidReason> {
    let mut fields = Vec::with_capacity(issuer.headers.len());
    for (header, claim) in &issuer.headers {
        let text = match claims.get(claim) {
            None => continue,
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            Some(_) => return Err(InvalidReason::HeaderClaim),
        };
        let value = HeaderValue::try_from(&text).ok().filter(|_| is_printable(&text, MAX_HEADER));
        fields.push((header.clone(), value.ok_or(InvalidReason::HeaderClaim)?));
    }
    Ok(fields.into())
}

/// The claims that rules count by, where they are there. One that is no single value, or a long one, is
/// as good as absent: then the rule counts the consumer.
fn keep(claims: &Claims, names: &[Arc<str>]) -> Box<[(Arc<str>, Box<str>)]> {
    let value = |name: &Arc<str>| {
        let text: Box<str> = match claims.get(&**name)? {
            Value::String(text) => text.as_str().into(),
            value @ (Value::Number(_) | Value::Bool(_)) => value.to_string().into(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        (!text.is_empty() && text.len() <= MAX_KEPT).then(|| (Arc::clone(name), text))
    };
    names.iter().filter_map(value).collect()
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

/// A member that is a text, where it is there.
pub(super) fn optional_text<'m>(
    map: &'m Claims,
    name: &str,
) -> Result<Option<&'m str>, InvalidReason> {
    match map.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(InvalidReason::Malformed),
    }
}
