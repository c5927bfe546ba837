//! What is recorded of a request: one [`Record`], from which metrics and the access log are fed.

use super::exchange::{self, Exchange};
use super::rejection::Rejection;
use crate::auth::{Caller, Credential};
use crate::limits::Outcome;
use crate::snapshot::Parts;
use crate::telemetry::record::{Credential as Used, End, Record};
use crate::telemetry::{AccessLog, Metrics};
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, StatusCode};
use pingora_error::{Error, ErrorType};
use pingora_proxy::Session;
use std::time::Duration;

const AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
/// What is recorded when a client left before it could be told anything (nginx's code for it).
const CLIENT_GONE: u16 = 499;

/// Counts a request that the limits let through, or refused, as usage of its consumer.
pub(super) fn count_usage(ctx: &Exchange, outcome: Outcome, parts: &Parts) {
    let (Some(route), Some(caller)) = (ctx.route(), ctx.trail.caller.as_deref()) else { return };
    let consumer = (&caller.consumer.id, &caller.consumer.username);
    parts.tally.count(consumer, &route.class, outcome, ctx.began_at);
}

/// Records a request that is over.
pub(super) fn record(
    session: &Session,
    ctx: &mut Exchange,
    error: Option<&Error>,
    parts: &Parts,
    access_log: &AccessLog,
) {
    let duration = parts.clock.now().since(ctx.began);
    if error.is_none()
        && let Some(passage) = ctx.passage()
    {
        passage.completed();
    }
    let status = status(session, ctx);
    let code = count(ctx, status, duration, &parts.metrics);
    if !ctx.snapshot.access_log {
        return;
    }
    let request = session.req_header();
    let target = exchange::target(session).ok();
    let caller = ctx.trail.caller.as_deref();
    let (upstream_duration, upstream, endpoint, tries) = upstream(ctx);
    let cause = cause(ctx, error);
    access_log.record(&Record {
        started: ctx.began_at,
        duration,
        upstream_duration,
        method: &request.method,
        host: host(session),
        path: target.as_ref().map_or(b"", |target| target.path().as_bytes()),
        version: request.version,
        status,
        request_bytes: session.body_bytes_read() as u64,
        response_bytes: session.body_bytes_sent() as u64,
        end: end(session, ctx, error),
        route: ctx.route().map(|route| &*route.name),
        consumer: caller.map(|caller| &*caller.consumer.id),
        credential: caller.map(credential),
        plan: caller.map(|caller| &*caller.plan),
        client: ctx.client.address,
        peer: ctx.client.peer,
        tls: session.digest().is_some_and(|digest| digest.ssl_digest.is_some()),
        request_id: ctx.request_id().as_bytes(),
        trace_id: ctx.trace.trace_id(),
        span_id: ctx.trace.span_id(),
        amzn_trace_id: bytes(&request.headers, &AMZN_TRACE_ID),
        upstream,
        endpoint,
        tries,
        reason: code,
        cause,
        would_refuse: &ctx.trail.would_refuse,
        user_agent: bytes(&request.headers, &USER_AGENT),
    });
}

/// Counts a request that is over. Gives the code of the reason why it was refused, if it was.
fn count(
    ctx: &Exchange,
    status: StatusCode,
    duration: Duration,
    metrics: &Metrics,
) -> Option<&'static str> {
    let told = ctx.rejection.as_ref().map(Rejection::told);
    let code = told.as_ref().map(|told| told.code);
    match (ctx.route(), code) {
        (Some(route), code) => {
            route.metrics.observe(status, duration);
            code.into_iter().for_each(|code| route.metrics.rejected(code));
        }
        (None, Some(code)) => metrics.head_refused(code),
        // The load balancer's question.
        (None, None) => return None,
    }
    metrics.answered(status, Some(duration));
    match (&ctx.rejection, told.map(|told| told.status.as_u16())) {
        (Some(Rejection::Address(_) | Rejection::Limit(_)), _) => metrics.limited(),
        (_, Some(401 | 403)) => metrics.denied(),
        _ => {}
    }
    code
}

/// The status that was sent; 499 when the client left before there was one.
fn status(session: &Session, ctx: &Exchange) -> StatusCode {
    let written = session.response_written().map(|head| head.status);
    let sent = StatusCode::from_u16(ctx.status).ok().or(written);
    let gone = || StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST);
    sent.filter(|_| written.is_some()).unwrap_or_else(gone)
}

fn end(session: &Session, ctx: &Exchange, error: Option<&Error>) -> End {
    if ctx.aborted && error.is_some_and(|e| *e.esource() != pingora_error::ErrorSource::Downstream)
    {
        End::Truncated
    } else if ctx.aborted || session.response_written().is_none() {
        End::ClientGone
    } else {
        End::Complete
    }
}

fn upstream(ctx: &Exchange) -> (Option<Duration>, Option<&str>, Option<std::net::SocketAddr>, u32) {
    let exchange::Stage::Passing(passage) = &ctx.stage else { return (None, None, None, 0) };
    let name = Some(&**passage.upstream.name());
    (passage.upstream_duration(), name, passage.endpoint, passage.tries)
}

/// What the client is not told: which check failed, what Pingora met, or what the endpoint did
/// after which nobody was left to ask. An error by which we stopped Pingora tells nothing.
fn cause<'a>(ctx: &'a Exchange, error: Option<&'a Error>) -> Option<&'a str> {
    match &ctx.rejection {
        Some(Rejection::Access(denied)) => Some(denied.reason()),
        Some(Rejection::Filter(stopped)) => Some(&stopped.cause),
        Some(Rejection::Address(limited)) => Some(limited.check.id()),
        Some(Rejection::Limit(refused)) => Some(&refused.rule),
        Some(Rejection::Policy(excluded)) => Some(excluded.policy.cause(excluded.unmet)),
        Some(Rejection::PolicyUnknown { policy }) => Some(policy),
        Some(Rejection::LimitUnavailable(unavailable)) => Some(&unavailable.rule),
        Some(Rejection::Overloaded(crowded)) => Some(crowded.as_str()),
        Some(Rejection::Internal) | None => error.map(|error| error.etype().as_str()),
        Some(_) => error
            .filter(|error| *error.etype() != ErrorType::InternalError)
            .map(|error| error.etype().as_str())
            .or_else(|| last_failure(ctx)),
    }
}

fn last_failure(ctx: &Exchange) -> Option<&'static str> {
    let exchange::Stage::Passing(passage) = &ctx.stage else { return None };
    passage.failure.map(crate::upstreams::Failure::as_str)
}

fn credential(caller: &Caller) -> Used<'_> {
    match &caller.credential {
        Credential::ApiKey(id) => Used::ApiKey(id),
        Credential::Jwt { issuer, subject } => Used::Jwt { issuer, subject },
        Credential::Certificate { subject, fingerprint } => {
            Used::Certificate { subject, fingerprint }
        }
    }
}

fn host(session: &Session) -> &[u8] {
    let request = session.req_header();
    match request.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => bytes(&request.headers, &HOST).unwrap_or_default(),
    }
}

fn bytes<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get(name).map(http::HeaderValue::as_bytes)
}
