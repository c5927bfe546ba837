//! What a request carries that can say who sent it, as it was sent.

use super::authenticator::invalid_token;
use super::certificate::ClientCertificate;
use super::denied::{AmbiguousReason, Denied, InvalidReason};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

/// All in which a request can carry a credential.
#[derive(Clone, Copy)]
pub struct Sent<'h> {
    /// Its fields.
    pub headers: &'h HeaderMap,
    /// What its connection began with.
    pub certificate: Option<&'h ClientCertificate>,
}

impl<'h> From<&'h HeaderMap> for Sent<'h> {
    fn from(headers: &'h HeaderMap) -> Self {
        Self { headers, certificate: None }
    }
}

/// A credential as it was sent.
#[derive(Clone, Copy)]
pub(super) enum Presented<'h> {
    Key(&'h [u8]),
    Token(&'h [u8]),
    Certificate(&'h ClientCertificate),
}

/// The bearer token, if there is one; another scheme is not ours.
pub(super) fn presented_token(headers: &HeaderMap) -> Result<Option<&[u8]>, Denied> {
    const SCHEME: &[u8] = b"bearer";
    let Some(value) = single(headers, &AUTHORIZATION)? else {
        return Ok(None);
    };
    let (scheme, rest) = value.split_at(value.len().min(SCHEME.len()));
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Ok(None);
    }
    match rest {
        [] => Err(invalid_token(InvalidReason::Malformed)),
        [b' ', ..] => Ok(Some(rest.trim_ascii_start())),
        // A longer word that only begins like it.
        _ => Ok(None),
    }
}

pub(super) fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h [u8]>, Denied> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(ambiguous(AmbiguousReason::Repeated)),
        (value, None) => Ok(value.map(http::HeaderValue::as_bytes)),
    }
}

pub(super) const fn ambiguous(reason: AmbiguousReason) -> Denied {
    Denied::Ambiguous { reason }
}
