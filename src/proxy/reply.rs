//! What the gateway itself says to a client.
//!
//! The only file that writes a status of our own. Refusals are problem documents (RFC 9457), or a
//! gRPC status for those who speak gRPC, and leave the connection open when the request was read to
//! its end, so that a client that is refused does not also pay for a new connection.

use super::drain::Drain;
use super::exchange::Exchange;
use super::forward;
use super::head;
use super::rejection::{BadHead, Rejection, Told};
use crate::auth::{Denied, Method as Credentials};
use crate::routing::{CORS_FIELDS, NoMatch, Preflight};
use crate::snapshot::{Answer, Route};
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use std::time::Duration;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// When to come back after a 503 that has no better answer, in seconds; the request id spreads it
/// so that not everyone returns at once.
const COME_BACK: (u64, u64) = (1, 4);

/// Adds what every response carries, whoever made it.
pub fn decorate(response: &mut ResponseHeader, exchange: &Exchange) -> Result<()> {
    response.insert_header(forward::REQUEST_ID, exchange.request_id().clone())?;
    if let Some(grant) = exchange.grant() {
        if let Some(policy) = grant.rate_limit_policy() {
            response.insert_header(RATE_LIMIT_POLICY, policy)?;
        }
        if let Some(limit) = grant.rate_limit() {
            response.insert_header(RATE_LIMIT, limit)?;
        }
    }
    Ok(())
}

/// Says to a browser which origins may read the response.
pub fn allow_origin(
    response: &mut ResponseHeader,
    route: &Route,
    headers: &http::HeaderMap,
) -> Result<()> {
    if let Some(cors) = &route.cors {
        // What the upstream says of it is not the route's policy.
        for name in &CORS_FIELDS {
            response.remove_header(name);
        }
        for (name, value) in cors.actual(headers) {
            if name == http::header::VARY {
                response.append_header(name, value)?;
            } else {
                response.insert_header(name, value)?;
            }
        }
    }
    Ok(())
}

/// Answers the load balancer's question on the public listener.
pub async fn health(session: &mut Session, exchange: &Exchange, drain: &Drain) -> Result<u16> {
    let (status, body) = if drain.begun() {
        (StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"draining\n"))
    } else {
        (StatusCode::OK, Bytes::from_static(b"ok\n"))
    };
    let mut response = ResponseHeader::build(status, Some(4))?;
    response.insert_header(CONTENT_TYPE, TEXT)?;
    response.insert_header(CACHE_CONTROL, NO_STORE)?;
    decorate(&mut response, exchange)?;
    send(session, response, body).await?;
    Ok(status.as_u16())
}

/// Answers as the route says, without an upstream.
pub async fn answer(
    session: &mut Session,
    exchange: &Exchange,
    route: &Route,
    answer: &Answer,
) -> Result<u16> {
    let (mut response, body) = match answer {
        Answer::Reply { status, content_type, body } => {
            let mut response = ResponseHeader::build(*status, Some(6))?;
            response.insert_header(CONTENT_TYPE, content_type.clone())?;
            (response, body.clone())
        }
        Answer::Redirect { status, location } => {
            let mut response = ResponseHeader::build(*status, Some(6))?;
            response.insert_header(LOCATION, exchange.location(session, location)?)?;
            (response, Bytes::new())
        }
    };
    decorate(&mut response, exchange)?;
    allow_origin(&mut response, route, &session.req_header().headers)?;
    forward::edit_response(&mut response, &route.rewrite.response)?;
    let status = response.status.as_u16();
    send(session, response, body).await?;
    Ok(status)
}

/// Answers a CORS preflight.
pub async fn preflight(
    session: &mut Session,
    exchange: &Exchange,
    answer: Preflight,
) -> Result<u16> {
    let mut response = ResponseHeader::build(StatusCode::NO_CONTENT, Some(8))?;
    for (name, value) in answer.headers() {
        response.append_header(name.clone(), value.clone())?;
    }
    decorate(&mut response, exchange)?;
    session.write_response_header(Box::new(response), true).await?;
    Ok(StatusCode::NO_CONTENT.as_u16())
}

/// Refuses a request; the status that was written.
pub async fn refuse(
    session: &mut Session,
    exchange: &Exchange,
    rejection: &Rejection,
) -> Result<u16> {
    let told = rejection.told();
    let mut response = if head::is_grpc(session.req_header()) {
        grpc_status(&told)?
    } else {
        let mut response = ResponseHeader::build(told.status, Some(10))?;
        response.insert_header(CONTENT_TYPE, PROBLEM)?;
        response
    };
    response.insert_header(CACHE_CONTROL, NO_STORE)?;
    explain(&mut response, exchange, rejection, told.status)?;
    decorate(&mut response, exchange)?;
    if let Some(route) = exchange.route() {
        allow_origin(&mut response, route, &session.req_header().headers)?;
    }
    let status = response.status.as_u16();
    if response.headers.contains_key(GRPC_STATUS) {
        session.write_response_header(Box::new(response), true).await?;
    } else {
        let body = problem(&told, rejection, exchange.request_id());
        send(session, response, body).await?;
    }
    Ok(status)
}

/// Adds what a particular refusal has to say beside its body.
fn explain(
    response: &mut ResponseHeader,
    exchange: &Exchange,
    rejection: &Rejection,
    status: StatusCode,
) -> Result<()> {
    match rejection {
        Rejection::Access(denied) => challenge(response, exchange.route(), denied)?,
        Rejection::Limit(refused) => {
            if let Some(policy) = refused.rate_limit_policy() {
                response.insert_header(RATE_LIMIT_POLICY, policy)?;
            }
            if let Some(limit) = refused.rate_limit() {
                response.insert_header(RATE_LIMIT, limit)?;
            }
            response.insert_header(RETRY_AFTER, seconds(refused.retry_after))?;
        }
        Rejection::Route(NoMatch::Method { allow }) => {
            response.insert_header(ALLOW, allow.clone())?;
        }
        _ => {}
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let spread = exchange.request_id().as_bytes().last().map_or(0, |&byte| u64::from(byte));
        let wait = COME_BACK.0 + spread % COME_BACK.1;
        response.insert_header(RETRY_AFTER, HeaderValue::from(wait))?;
    }
    Ok(())
}

/// `WWW-Authenticate`, as RFC 6750 3 wants it: no error code when nothing was sent.
fn challenge(response: &mut ResponseHeader, route: Option<&Route>, denied: &Denied) -> Result<()> {
    let Some(challenges) = route.map(|route| &route.challenges) else { return Ok(()) };
    match denied {
        Denied::Invalid { method: Credentials::Jwt, .. } => {
            if let Some(value) = &challenges.invalid_token {
                response.append_header(WWW_AUTHENTICATE, value.clone())?;
            }
        }
        Denied::Scope { .. } => {
            if let Some(value) = &challenges.insufficient_scope {
                response.append_header(WWW_AUTHENTICATE, value.clone())?;
            }
        }
        Denied::Unavailable(_) => {}
        _ => {
            for value in &challenges.missing {
                response.append_header(WWW_AUTHENTICATE, value.clone())?;
            }
        }
    }
    Ok(())
}

/// Whole seconds, rounded up, at least one.
fn seconds(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}

/// A refusal for gRPC: a response of headers only ("Trailers-Only" in the gRPC protocol).
fn grpc_status(told: &Told) -> Result<ResponseHeader> {
    let mut response = ResponseHeader::build(StatusCode::OK, Some(8))?;
    response.insert_header(CONTENT_TYPE, GRPC)?;
    response.insert_header(GRPC_STATUS, HeaderValue::from(u16::from(told.grpc)))?;
    response.insert_header(GRPC_MESSAGE, HeaderValue::from_static(told.title))?;
    Ok(response)
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

async fn send(session: &mut Session, mut response: ResponseHeader, body: Bytes) -> Result<()> {
    // RFC 9110 8.6: these two have no content, and no length to tell.
    if !matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.insert_header(CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    }
    let headers_only = body.is_empty() || session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(response), headers_only).await?;
    if !headers_only {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// The whole answer to a head that never became a request. The connection closes after it.
#[must_use]
pub fn refused_head(bad: BadHead) -> Vec<u8> {
    let told = Rejection::Head(bad).told();
    let body = format!(
        "{{\"type\":\"{}\",\"title\":\"{}\",\"status\":{},\"code\":\"{}\"}}\n",
        told.kind,
        told.title,
        told.status.as_str(),
        told.code
    );
    format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        told.status.as_str(),
        told.status.canonical_reason().unwrap_or_default(),
        body.len(),
    )
    .into_bytes()
}
