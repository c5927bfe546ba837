//! A request's head as every decision reads it: one canonical path, one host, one client address.
//!
//! Must stay true: nothing after this file looks at the raw target or the raw `Host` again.

use super::rejection::{BadBody, BadHead};
use super::wire::HeadCaps;
use crate::auth::{Caller, ClientCertificate, Credential, Sent};
use crate::expressions;
use crate::limits::{Facts, KeySubject, Subjects};
use crate::routing::{Asked, Origin, Target, parse_host};
use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING,
};
use http::{HeaderMap, Method, Version};
use pingora_http::RequestHeader;
use std::borrow::Cow;
use std::net::IpAddr;

/// Bytes of a method.
pub(super) const MAX_METHOD: usize = 32;

/// What a request asks for.
pub struct Head<'a> {
    header: &'a RequestHeader,
    target: Target<'a>,
    host: Cow<'a, str>,
    client: IpAddr,
    goes_on: bool,
    tls: bool,
    certificate: Option<&'a ClientCertificate>,
}

impl<'a> Head<'a> {
    /// Reads the head of a request that came from `client`. `goes_on` says that an HTTP/2 stream
    /// did not end with it: there, no field has to tell of a body.
    ///
    /// # Errors
    /// What can be read in two ways, is never served, or is too much.
    pub fn read(
        header: &'a RequestHeader,
        client: IpAddr,
        goes_on: bool,
        caps: HeadCaps,
    ) -> Result<Self, BadHead> {
        // `wire` looks at HTTP/1 only.
        if header.raw_path().len() > caps.target {
            return Err(BadHead::TargetTooLong);
        }
        if header.headers.len() > caps.fields {
            return Err(BadHead::TooManyFields);
        }
        let method = &header.method;
        if matches!(*method, Method::TRACE | Method::CONNECT) || method.as_str().len() > MAX_METHOD
        {
            return Err(BadHead::Method);
        }
        if header.headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
            return Err(BadHead::Framing);
        }
        let raw = std::str::from_utf8(header.raw_path()).map_err(|_| BadHead::Target)?;
        let target = Target::parse(raw)?;
        if raw == "*" && header.method != Method::OPTIONS {
            return Err(BadHead::Target);
        }
        let host = match (target.authority(), header.uri.authority()) {
            (Some(authority), _) => host_of(authority)?,
            (None, Some(authority)) => host_of(authority.as_str())?,
            (None, None) => match header.headers.get(HOST) {
                Some(value) => host_of(value.to_str().map_err(|_| BadHead::Host)?)?,
                None if header.version == Version::HTTP_10 => Cow::Borrowed(""),
                None => return Err(BadHead::Host),
            },
        };
        Ok(Self { header, target, host, client, goes_on, tls: false, certificate: None })
    }

    /// The same, and whether it came over TLS.
    #[must_use]
    pub fn over(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// The same with the certificate that the client showed when it connected.
    #[must_use]
    pub fn with_certificate(self, certificate: Option<&'a ClientCertificate>) -> Self {
        Self { certificate, ..self }
    }

    /// All that can say who calls.
    #[must_use]
    pub fn sent(&self) -> Sent<'a> {
        Sent { headers: self.headers(), certificate: self.certificate }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.header.method
    }

    /// The canonical target.
    #[must_use]
    pub const fn target(&self) -> &Target<'a> {
        &self.target
    }

    /// The host, lower case and without port; empty for an HTTP/1.0 request without one.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The resolved address of the client.
    #[must_use]
    pub const fn client(&self) -> IpAddr {
        self.client
    }

    /// The fields.
    #[must_use]
    pub fn headers(&self) -> &'a HeaderMap {
        &self.header.headers
    }

    /// What the routes are asked.
    #[must_use]
    pub fn asked(&self) -> Asked<'_> {
        self.asked_for(&self.header.method)
    }

    /// The same with another method.
    #[must_use]
    pub fn asked_for<'s>(&'s self, method: &'s Method) -> Asked<'s> {
        let origin = Origin { address: self.client, tls: self.tls, goes_on: self.goes_on };
        let (target, headers) = (&self.target, &self.header.headers);
        Asked { host: &self.host, target, method, headers, origin }
    }

    /// What expressions can read once it is known who calls.
    #[must_use]
    pub fn facts<'s>(
        &'s self,
        route: &'s str,
        caller: Option<&'s Caller>,
    ) -> expressions::Facts<'s> {
        let claims = caller.map(|caller| &*caller.claims as &dyn expressions::Claims);
        let caller = caller.map(|caller| expressions::Caller {
            consumer: &caller.consumer.username,
            id: &caller.consumer.id,
            plan: &caller.plan,
            custom_id: caller.consumer.custom_id.as_deref(),
            scopes: &caller.scopes,
            method: caller.credential.kind(),
            key: match &caller.credential {
                Credential::ApiKey(id) => id,
                Credential::Jwt { subject, .. } => subject,
                Credential::Certificate { fingerprint, .. } => fingerprint,
            },
        });
        expressions::Facts { route: Some(route), caller, claims, ..self.asked().facts() }
    }

    /// The method that a CORS preflight asks about (Fetch standard, "CORS-preflight request").
    #[must_use]
    pub fn preflight_method(&self) -> Option<Method> {
        let headers = &self.header.headers;
        if self.header.method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
            return None;
        }
        Method::from_bytes(headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
    }

    /// Whom limits count this request for.
    #[must_use]
    pub fn subjects<'s>(&self, caller: Option<&'s Caller>, facts: &'s dyn Facts) -> Subjects<'s> {
        Subjects {
            address: self.client,
            consumer: caller.map(|caller| &*caller.consumer.id),
            key: caller.map(|caller| match &caller.credential {
                Credential::ApiKey(id) => KeySubject::ApiKey(id),
                Credential::Jwt { issuer, subject } => KeySubject::Jwt { issuer, subject },
                Credential::Certificate { subject, .. } => KeySubject::Certificate(subject),
            }),
            facts,
        }
    }

    /// Checks what the head says of its body.
    ///
    /// # Errors
    /// A length above `max`, or none where `needs_length`.
    pub fn check_body(&self, max: u64, needs_length: bool) -> Result<(), BadBody> {
        let headers = &self.header.headers;
        let Some(length) = headers.get(CONTENT_LENGTH) else {
            let has_body = self.goes_on || headers.contains_key(TRANSFER_ENCODING);
            return if needs_length && has_body { Err(BadBody::LengthRequired) } else { Ok(()) };
        };
        // Pingora has checked that these are digits; more of them than fit are too many bytes.
        match length.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()) {
            Some(length) if length <= max => Ok(()),
            _ => Err(BadBody::TooLarge),
        }
    }
}

fn host_of(authority: &str) -> Result<Cow<'_, str>, BadHead> {
    Ok(parse_host(authority)?)
}

/// Whether the caller speaks gRPC and so reads a status of its own instead of HTTP's. gRPC-Web, which
/// browsers speak, reads HTTP's.
#[must_use]
pub fn is_grpc(header: &RequestHeader) -> bool {
    let content_type = header.headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
