//! What is known of a request when an expression is evaluated, as the parts of the gateway tell it.
//!
//! Everything is borrowed, and nothing is made before an expression asks for it.

use http::HeaderMap;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// What is known.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The request.
    pub request: Request<'a>,
    /// The name of the route; nothing while it is looked for.
    pub route: Option<&'a str>,
    /// Who calls; nobody on an open route.
    pub caller: Option<Caller<'a>>,
    /// What the token said.
    pub claims: Option<&'a dyn Claims>,
}

/// The head of a request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The canonical path.
    pub path: &'a str,
    /// The host, lower case and without port.
    pub host: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a str>,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// The resolved address of the client.
    pub address: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Whether an HTTP/2 stream goes on after the head: there, no field has to tell of a body.
    pub goes_on: bool,
}

/// Who calls.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The consumer's username.
    pub consumer: &'a str,
    /// The consumer's id.
    pub id: &'a str,
    /// The plan.
    pub plan: &'a str,
    /// The consumer's custom id.
    pub custom_id: Option<&'a str>,
    /// The scopes of the credential.
    pub scopes: &'a [Arc<str>],
    /// `api_key`, `jwt`, `mtls` or `none`.
    pub method: &'static str,
    /// The id of the key, the subject of the token, or the SHA-256 of the certificate.
    pub key: &'a str,
}

/// The claims of a token that were kept for rules.
pub trait Claims: Send + Sync {
    /// The claim of this name, as text.
    fn claim(&self, name: &str) -> Option<Cow<'_, str>>;
}
