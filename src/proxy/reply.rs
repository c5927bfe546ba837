//! What the gateway itself says to a client.
//!
//! The only file that writes a status of our own. Refusals are problem documents (RFC 9457), or a
//! gRPC status for those who speak gRPC, and leave the connection open when the request was read to
//! its end, so that a client that is refused does not also pay for a new connection.

use super::drain::Drain;
use super::edits;
use super::exchange::{Exchange, Stage, internal};
use super::filter::{self, Why};
use super::forward;
use super::head;
use super::pipeline::Admission;
use super::policies::Excluded;
use super::rejection::{BadHead, Rejection, Told};
use crate::auth::access::Unmet;
use crate::auth::{Denied, Method as Credentials};
use crate::limits::Legacy;
use crate::routing::{CORS_FIELDS, NoMatch, Preflight};
use crate::snapshot::{Answer, Route};
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE,
};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora_core::Result;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::Session;
use std::time::Duration;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEGACY_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const LEGACY_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const LEGACY_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// When to come back after a refusal that has no better answer, in seconds; the request id spreads it
/// so that not everyone returns at once.
const COME_BACK: (u64, u64) = (1, 4);

/// Adds what every response carries, whoever made it.
pub fn decorate(response: &mut HeaderMap, exchange: &Exchange) {
    response.insert(forward::REQUEST_ID, exchange.request_id().clone());
    if let Some(grant) = exchange.grant() {
        if let Some(policy) = grant.rate_limit_policy() {
            response.insert(RATE_LIMIT_POLICY, policy);
        }
        if let Some(limit) = grant.rate_limit() {
            response.insert(RATE_LIMIT, limit);
        }
        if exchange.snapshot.http.legacy_rate_limit_headers {
            legacy(response, grant.legacy());
        }
    }
}

/// `X-RateLimit-*`, for clients from before `RateLimit`.
fn legacy(response: &mut HeaderMap, told: Option<Legacy>) {
    let Some(Legacy { limit, remaining, reset }) = told else { return };
    response.insert(LEGACY_LIMIT, limit.into());
    response.insert(LEGACY_REMAINING, remaining.into());
    if let Some(reset) = reset {
        response.insert(LEGACY_RESET, reset.into());
    }
}

/// Says to a browser which origins may read the response.
pub fn allow_origin(response: &mut HeaderMap, route: &Route, request: &HeaderMap) {
    let Some(cors) = &route.cors else { return };
    // What the upstream says of it is not the route's policy.
    for name in &CORS_FIELDS {
        response.remove(name);
    }
    for (name, value) in cors.actual(request) {
        if name == VARY {
            response.append(name, value);
        } else {
            response.insert(name, value);
        }
    }
}

/// Answers the load balancer's question on the public listener.
pub async fn health(session: &mut Session, exchange: &Exchange, drain: &Drain) -> Result<u16> {
    let (status, body) = if drain.begun() {
        (StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"draining\n"))
    } else {
        (StatusCode::OK, Bytes::from_static(b"ok\n"))
    };
    let mut response = begin(status);
    response.headers.insert(CONTENT_TYPE, TEXT);
    response.headers.insert(CACHE_CONTROL, NO_STORE);
    decorate(&mut response.headers, exchange);
    send(session, response, body).await
}

/// Answers as the route says, without an upstream.
pub async fn answer(
    session: &mut Session,
    exchange: &mut Exchange,
    route: &Route,
    answer: &Answer,
) -> Result<u16> {
    let (response, body) = match answer {
        Answer::Reply { status, content_type, body } => {
            let mut response = begin(status_of(*status));
            response.headers.insert(CONTENT_TYPE, content_type.clone());
            (response, body.clone())
        }
        Answer::Redirect { status, location } => {
            let mut response = begin(status_of(*status));
            response.headers.insert(LOCATION, exchange.location(session, location)?);
            (response, Bytes::new())
        }
    };
    finish(session, exchange, route, response, body).await
}

/// Answers as a filter says, in place of the route's action.
pub async fn filtered(
    session: &mut Session,
    exchange: &mut Exchange,
    admission: Admission,
    answer: Box<filter::Answer>,
) -> Result<u16> {
    let Some(route) = exchange.trail.route.clone() else {
        return Err(internal("an admitted request has no route"));
    };
    exchange.stage = Stage::Answered(Some(admission));
    let ends = !answer.status.is_informational();
    let mut response = begin(if ends { answer.status } else { StatusCode::INTERNAL_SERVER_ERROR });
    response.headers.extend(answer.headers);
    finish(session, exchange, &route, response, answer.body).await
}

/// Makes an answer one of its route, shows it to the filters, and sends it.
async fn finish(
    session: &mut Session,
    exchange: &mut Exchange,
    route: &Route,
    mut response: Parts,
    body: Bytes,
) -> Result<u16> {
    decorate(&mut response.headers, exchange);
    allow_origin(&mut response.headers, route, &session.req_header().headers);
    edits::apply(&mut response.headers, &route.rewrite.response, session, exchange);
    let shown = exchange.filters.response(response.status, &mut response.headers).await;
    let Err(stopped) = shown else { return send(session, response, body).await };
    let rejection = stopped.into();
    let written = refuse(session, exchange, &rejection).await;
    exchange.rejection = Some(rejection);
    written
}

/// Answers a CORS preflight.
pub async fn preflight(
    session: &mut Session,
    exchange: &Exchange,
    answer: Preflight,
) -> Result<u16> {
    let mut response = begin(StatusCode::NO_CONTENT);
    for (name, value) in answer.headers() {
        response.headers.append(name.clone(), value.clone());
    }
    decorate(&mut response.headers, exchange);
    send(session, response, Bytes::new()).await
}

/// Refuses a request; the status that was written.
pub async fn refuse(
    session: &mut Session,
    exchange: &Exchange,
    rejection: &Rejection,
) -> Result<u16> {
    let told = rejection.told();
    let grpc = head::is_grpc(session.req_header());
    let mut response = if grpc { grpc_status(&told) } else { begin(told.status) };
    response.headers.entry(CONTENT_TYPE).or_insert(PROBLEM);
    response.headers.insert(CACHE_CONTROL, NO_STORE);
    explain(&mut response.headers, exchange, rejection, told.status);
    decorate(&mut response.headers, exchange);
    if let Some(route) = exchange.route() {
        allow_origin(&mut response.headers, route, &session.req_header().headers);
    }
    let body = if grpc { Bytes::new() } else { problem(&told, rejection, exchange.request_id()) };
    send(session, response, body).await
}

/// Adds what a particular refusal has to say beside its body.
fn explain(
    response: &mut HeaderMap,
    exchange: &Exchange,
    rejection: &Rejection,
    status: StatusCode,
) {
    match rejection {
        Rejection::Access(denied) => challenge(response, exchange.route(), denied),
        Rejection::Address(limited) => {
            response.insert(RETRY_AFTER, seconds(limited.retry_after));
        }
        Rejection::Policy(excluded) => lacking_scope(response, exchange.route(), excluded),
        Rejection::Filter(filter::Stopped { why: Why::Refused(refusal), .. }) => {
            if let Some(wait) = refusal.wait() {
                response.insert(RETRY_AFTER, seconds(wait));
            }
        }
        Rejection::Limit(refused) => {
            if let Some(policy) = refused.rate_limit_policy() {
                response.insert(RATE_LIMIT_POLICY, policy);
            }
            if exchange.snapshot.http.legacy_rate_limit_headers {
                legacy(response, Some(refused.legacy()));
            }
            if let Some(limit) = refused.rate_limit() {
                response.insert(RATE_LIMIT, limit);
            }
            let wait =
                if refused.is_timed() { seconds(refused.retry_after) } else { come_back(exchange) };
            response.insert(RETRY_AFTER, wait);
        }
        Rejection::Route(NoMatch::Method { allow }) => {
            response.insert(ALLOW, allow.clone());
        }
        _ => {}
    }
    if status == StatusCode::SERVICE_UNAVAILABLE && !response.contains_key(RETRY_AFTER) {
        response.insert(RETRY_AFTER, come_back(exchange));
    }
}

fn come_back(exchange: &Exchange) -> HeaderValue {
    let spread = exchange.request_id().as_bytes().last().map_or(0, |&byte| u64::from(byte));
    HeaderValue::from(COME_BACK.0 + spread % COME_BACK.1)
}

/// `WWW-Authenticate`, as RFC 6750 3 wants it: no error code when nothing was sent.
fn challenge(response: &mut HeaderMap, route: Option<&Route>, denied: &Denied) {
    let Some(challenges) = route.map(|route| &route.challenges) else { return };
    let values = match denied {
        Denied::Invalid { method: Credentials::Jwt, .. } => challenges.invalid_token.as_slice(),
        Denied::Scope { .. } => challenges.insufficient_scope.as_slice(),
        Denied::Unavailable(_) => &[],
        _ => challenges.missing.as_slice(),
    };
    for value in values {
        response.append(WWW_AUTHENTICATE, value.clone());
    }
}

/// The same for a scope that a policy asks for, where the route takes tokens.
fn lacking_scope(response: &mut HeaderMap, route: Option<&Route>, excluded: &Excluded) {
    let tokens = route.is_some_and(|route| route.challenges.insufficient_scope.is_some());
    let challenge = excluded.policy.insufficient_scope.as_ref();
    if let Some(challenge) = challenge.filter(|_| tokens && excluded.unmet == Unmet::Scopes) {
        response.append(WWW_AUTHENTICATE, challenge.clone());
    }
}

/// Whole seconds, rounded up, at least one.
fn seconds(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}

/// A refusal for gRPC: a response of headers only ("Trailers-Only" in the gRPC protocol).
fn grpc_status(told: &Told) -> Parts {
    let mut response = begin(StatusCode::OK);
    response.headers.insert(CONTENT_TYPE, GRPC);
    response.headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(told.grpc)));
    response.headers.insert(GRPC_MESSAGE, HeaderValue::from_static(told.title));
    response
}

/// An empty response.
fn begin(status: StatusCode) -> Parts {
    let mut response = http::Response::new(()).into_parts().0;
    response.status = status;
    response.headers.reserve(10);
    response
}

/// A status of the configuration, where it was checked.
fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The problem document. Nothing in it needs escaping: titles and codes are ours, policy names and
/// request ids are checked where they enter.
fn problem(told: &Told, rejection: &Rejection, request_id: &HeaderValue) -> Bytes {
    let mut out = String::with_capacity(320);
    for part in ["{\"type\":\"", told.kind, "\",\"title\":\"", told.title, "\",\"status\":"] {
        out.push_str(part);
    }
    out.push_str(told.status.as_str());
    for part in [",\"code\":\"", told.code, "\",\"request_id\":\""] {
        out.push_str(part);
    }
    out.push_str(request_id.to_str().unwrap_or_default());
    out.push('"');
    if let Rejection::Limit(refused) = rejection {
        out.push_str(",\"violated-policies\":[");
        for (n, name) in refused.violated().enumerate() {
            let separator = if n == 0 { "\"" } else { ",\"" };
            for part in [separator, name, "\""] {
                out.push_str(part);
            }
        }
        out.push(']');
    }
    out.push_str("}\n");
    Bytes::from(out)
}

/// Whether a status has no content (RFC 9110 15.3.5, 15.3.6, 15.4.5), whatever a filter says with it: over
/// HTTP/2 it would go out all the same.
fn is_bare(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Sends it; the status that was sent.
async fn send(session: &mut Session, mut response: Parts, body: Bytes) -> Result<u16> {
    let status = response.status;
    let body = if is_bare(status) { Bytes::new() } else { body };
    // RFC 9110 8.6: of these, only 205 has a length to tell.
    if !is_bare(status) || status == StatusCode::RESET_CONTENT {
        response.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let response = Box::new(response.into());
    if body.is_empty() || session.req_header().method == Method::HEAD {
        // Pingora would end an HTTP/2 stream with a frame of its own, or not at all: gRPC looks for
        // its status in the frame that ends the stream.
        if let ServerSession::H2(stream) = session.as_downstream_mut() {
            stream.write_response_header(response, true)?;
        } else {
            session.write_response_header(response, true).await?;
        }
    } else {
        session.write_response_header(response, false).await?;
        session.write_response_body(Some(body), true).await?;
    }
    Ok(status.as_u16())
}

/// The whole answer to a head that never became a request. The connection closes after it.
#[must_use]
pub fn refused_head(bad: BadHead, request_id: &HeaderValue) -> Vec<u8> {
    let rejection = Rejection::Head(bad);
    let told = rejection.told();
    let body = problem(&told, &rejection, request_id);
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n\
         Content-Length: {}\r\nX-Request-Id: {}\r\nConnection: close\r\n\r\n",
        told.status.as_str(),
        told.status.canonical_reason().unwrap_or_default(),
        body.len(),
        request_id.to_str().unwrap_or_default(),
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}
