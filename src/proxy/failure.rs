//! What a Pingora error means: whose fault it was, whether another try is safe, and what the client
//! is told.
//!
//! Must stay true: a client's own failure never counts against an endpoint, and what may have
//! reached an endpoint is sent again only where `upstreams::retry` says that it is harmless.

use super::exchange::Exchange;
use super::rejection::{BadBody, Rejection, UpstreamFailure};
use crate::upstreams::{Body, Failure, Progress, may_retry};
use http::header::EXPECT;
use pingora_error::{Error, ErrorSource, ErrorType};
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
    session: &mut Session,
    ctx: &mut Exchange,
    mut error: Box<Error>,
) -> Box<Error> {
    if awaits_body(session, ctx, &error) {
        ctx.rejection = Some(BadBody::Timeout.into());
    }
    let ours = ctx.rejection.is_some();
    if ours || *error.esource() != ErrorSource::Upstream {
        if let Some(passage) = ctx.passage() {
            passage.end_watch();
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

/// Whether the endpoint said nothing because it was waiting for the rest of the body, as we were:
/// while there is something to send, Pingora does not count an endpoint's silence.
fn awaits_body(session: &mut Session, ctx: &mut Exchange, error: &Error) -> bool {
    let silence = *error.esource() == ErrorSource::Upstream
        && *error.etype() == ErrorType::ReadTimedout
        && ctx.passage().is_some_and(|passage| passage.answered.is_none() && !passage.stream);
    // Who was told to wait for a word of the endpoint does so.
    let invited = ctx.received > 0 || !session.req_header().headers.contains_key(EXPECT);
    silence && invited && !session.is_body_done()
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
    if ctx.passage().is_some_and(|passage| passage.timed_out) {
        return Some(UpstreamFailure::Timeout.into());
    }
    let etype = error.etype();
    match error.esource() {
        ErrorSource::Downstream => match etype {
            ErrorType::ReadTimedout => Some(BadBody::Timeout.into()),
            ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::WriteTimedout
            | ErrorType::ConnectionClosed => None,
            _ => Some(BadBody::Malformed.into()),
        },
        ErrorSource::Upstream => Some(
            match etype {
                ErrorType::ConnectTimedout
                | ErrorType::TLSHandshakeTimedout
                | ErrorType::ReadTimedout
                | ErrorType::WriteTimedout => UpstreamFailure::Timeout,
                ErrorType::ConnectRefused
                | ErrorType::ConnectNoRoute
                | ErrorType::ConnectError
                | ErrorType::BindError
                | ErrorType::SocketError
                | ErrorType::TLSHandshakeFailure
                | ErrorType::InvalidCert => UpstreamFailure::Connect,
                _ => UpstreamFailure::Broken,
            }
            .into(),
        ),
        ErrorSource::Internal | ErrorSource::Unset => Some(Rejection::Internal),
    }
}
