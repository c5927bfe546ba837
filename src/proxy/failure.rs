//! What a Pingora error means: whose fault it was, whether another try is safe, and what the client
//! is told.
//!
//! Must stay true: a client's own failure never counts against an endpoint, and what may have
//! reached an endpoint is sent again only where `upstreams::retry` says that it is harmless.

use super::exchange::Exchange;
use super::rejection::{BadBody, BadHead, Rejection, UpstreamFailure};
use crate::telemetry::Clock;
use crate::upstreams::{Body, Failure, Progress, may_retry};
use http::HeaderValue;
use http::header::EXPECT;
use pingora_error::{Error, ErrorSource, ErrorType};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

/// No connection came about.
pub(super) fn connecting(session: &Session, ctx: &mut Exchange, error: Box<Error>) -> Box<Error> {
    let kind = match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::Timeout,
        _ => Failure::Connect,
    };
    if let Some(passage) = ctx.passage() {
        passage.failed(kind);
    }
    decide_retry(session, ctx, error, Progress::Unsent)
}

/// Something failed after the connection stood.
pub(super) fn proxying(
    session: &Session,
    ctx: &mut Exchange,
    mut error: Box<Error>,
    clock: &Clock,
) -> Box<Error> {
    if ctx.rejection.is_none() && *error.esource() == ErrorSource::Upstream {
        ctx.rejection = out_of_time(session, ctx, &error, clock);
    }
    let ours = ctx.rejection.is_some();
    if ours || *error.esource() != ErrorSource::Upstream {
        if let Some(passage) = ctx.passage() {
            passage.abandoned(clock);
        }
        error.set_retry(false);
        return error;
    }
    if let Some(passage) = ctx.passage() {
        passage.failed(upstream_failure(&error));
    }
    let progress = match session.response_written() {
        Some(_) => Progress::Answered,
        None => Progress::Sent,
    };
    decide_retry(session, ctx, error, progress)
}

/// The end of a time that was not the endpoint's: the client's, in the middle of its body, or the
/// whole exchange's.
fn out_of_time(
    session: &Session,
    ctx: &mut Exchange,
    error: &Error,
    clock: &Clock,
) -> Option<Rejection> {
    let begun = session.response_written().is_some_and(|head| !head.status.is_informational());
    let passage = ctx.passage()?;
    if passage.cut_short() {
        return Some(UpstreamFailure::Timeout.into());
    }
    let timed_out = *error.etype() == ErrorType::ReadTimedout || passage.watch_fired();
    let silent = timed_out && passage.awaits_client();
    let slow = silent || passage.client_pauses(clock.now());
    (slow && !begun).then(|| BadBody::Timeout.into())
}

/// Whether the client waits to be asked for the body.
pub(super) fn expects_continue(request: &RequestHeader) -> bool {
    let expected = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.headers.get(EXPECT).is_some_and(expected)
}

fn decide_retry(
    session: &Session,
    ctx: &mut Exchange,
    mut error: Box<Error>,
    progress: Progress,
) -> Box<Error> {
    let body = if session.as_downstream().retry_buffer_truncated() {
        Body::Consumed
    } else {
        Body::Replayable
    };
    let method = &session.req_header().method;
    let again = ctx.passage().is_some_and(|passage| {
        may_retry(passage.upstream.definition().retry, passage.tries, method, body, progress)
    });
    error.set_retry(again);
    error
}

fn upstream_failure(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::Timeout,
        _ => Failure::Broken,
    }
}

/// What the client is told of an error; `None` when there is no client left to tell.
#[must_use]
pub(super) fn reason(error: &Error, ctx: &mut Exchange) -> Option<Rejection> {
    if let Some(failure) = ctx.passage().and_then(|passage| passage.failure) {
        return Some(UpstreamFailure::from(failure).into());
    }
    match error.esource() {
        ErrorSource::Downstream => match error.etype() {
            ErrorType::ReadTimedout => Some(BadBody::Timeout.into()),
            ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::WriteTimedout
            | ErrorType::ConnectionClosed => None,
            // A field that `Connection` names and may not, for one.
            ErrorType::InvalidHTTPHeader => Some(BadHead::Field.into()),
            _ => Some(BadBody::Malformed.into()),
        },
        ErrorSource::Upstream => Some(UpstreamFailure::Broken.into()),
        ErrorSource::Internal | ErrorSource::Unset => Some(Rejection::Internal),
    }
}
