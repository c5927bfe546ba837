//! What a filter sees of a request, of an admitted request, and of a response.

use super::super::head::Head;
use super::edits::{Edit, Protected, check_request, check_response};
use crate::auth;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::net::IpAddr;
use std::time::Duration;

/// A request's head, in the one reading that every decision of the gateway has of it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(super) head: &'a Head<'a>,
    pub(super) id: &'a HeaderValue,
    pub(super) began_at: Duration,
}

impl Request<'_> {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        self.head.method()
    }

    /// The canonical path: decoded where it may be, without dot segments.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.target().path()
    }

    /// The query, without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.head.target().query()
    }

    /// The host, in lower case and without port; empty for an HTTP/1.0 request without one.
    #[must_use]
    pub fn host(&self) -> &str {
        self.head.host()
    }

    /// The client's address: the peer's, or the one that a trusted proxy speaks for.
    #[must_use]
    pub const fn client(&self) -> IpAddr {
        self.head.client()
    }

    /// The header fields as the client sent them, its credential and its own claims about itself
    /// among them: what the upstream can believe is in [`Admitted::caller`].
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.head.headers()
    }

    /// The id that logs, responses and the upstream share.
    #[must_use]
    pub const fn id(&self) -> &HeaderValue {
        self.id
    }

    /// When it began, since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn began_at(&self) -> Duration {
        self.began_at
    }
}

/// A request that has passed every check, and what the upstream will get of it.
pub struct Admitted<'a> {
    pub(super) request: Request<'a>,
    pub(super) route: &'a str,
    pub(super) caller: Option<&'a auth::Caller>,
    pub(super) claims: &'a [HeaderName],
    pub(super) edits: &'a mut Vec<Edit>,
}

impl<'a> Admitted<'a> {
    /// The request as it came.
    #[must_use]
    pub const fn request(&self) -> &Request<'a> {
        &self.request
    }

    /// The name of its route.
    #[must_use]
    pub const fn route(&self) -> &str {
        self.route
    }

    /// Who calls; nobody known on a route with `auth = "none"`.
    #[must_use]
    pub fn caller(&self) -> Option<Caller<'a>> {
        self.caller.map(Caller)
    }

    /// Replaces a field of the request that goes to the upstream, after the edits of the route.
    ///
    /// # Errors
    /// The field is the gateway's own to set: framing, `Host`, and whatever says who calls.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Protected> {
        self.edit(Edit::Set(name, value))
    }

    /// Adds a field beside those of the same name.
    ///
    /// # Errors
    /// As [`Admitted::set_header`].
    pub fn add_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Protected> {
        self.edit(Edit::Add(name, value))
    }

    /// Takes all fields of a name away.
    ///
    /// # Errors
    /// As [`Admitted::set_header`].
    pub fn remove_header(&mut self, name: HeaderName) -> Result<(), Protected> {
        self.edit(Edit::Remove(name))
    }

    fn edit(&mut self, edit: Edit) -> Result<(), Protected> {
        check_request(edit.name(), self.claims)?;
        self.edits.push(edit);
        Ok(())
    }
}

/// Who calls, as the gateway has found out.
#[derive(Clone, Copy)]
pub struct Caller<'a>(&'a auth::Caller);

impl<'a> Caller<'a> {
    /// The consumer's id, given by the store.
    #[must_use]
    pub fn id(&self) -> &'a str {
        &self.0.consumer.id
    }

    /// The consumer's name, chosen by the operator.
    #[must_use]
    pub fn username(&self) -> &'a str {
        &self.0.consumer.username
    }

    /// The operator's own reference of the consumer.
    #[must_use]
    pub fn custom_id(&self) -> Option<&'a str> {
        self.0.consumer.custom_id.as_deref()
    }

    /// The name of the plan in force.
    #[must_use]
    pub fn plan(&self) -> &'a str {
        &self.0.plan
    }

    /// What the credential may do.
    pub fn scopes(&self) -> impl Iterator<Item = &'a str> {
        self.0.scopes.iter().map(|scope| &**scope)
    }

    /// The claims of a token that the configuration maps to header fields, as the upstream gets them.
    pub fn claims(&self) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        self.0.claims.fields.iter().map(|(name, value)| (name, value))
    }
}

/// The head of a response on its way to the client.
pub struct Response<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a mut HeaderMap,
}

impl Response<'_> {
    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The header fields, after the edits of the route.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        self.headers
    }

    /// Replaces a field.
    ///
    /// # Errors
    /// The field is the gateway's own to set: framing, CORS, `RateLimit`, `X-Request-Id`.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Protected> {
        self.edit(&Edit::Set(name, value))
    }

    /// Adds a field beside those of the same name.
    ///
    /// # Errors
    /// As [`Response::set_header`].
    pub fn add_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Protected> {
        self.edit(&Edit::Add(name, value))
    }

    /// Takes all fields of a name away.
    ///
    /// # Errors
    /// As [`Response::set_header`].
    pub fn remove_header(&mut self, name: HeaderName) -> Result<(), Protected> {
        self.edit(&Edit::Remove(name))
    }

    fn edit(&mut self, edit: &Edit) -> Result<(), Protected> {
        check_response(edit.name())?;
        edit.apply(self.headers);
        Ok(())
    }
}
