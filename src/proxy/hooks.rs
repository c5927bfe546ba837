//! Pingora's hooks, each a line or two: what happens in them is in the files beside this one.
//!
//! Must stay true: nothing is decided here. `verdict.rs` asks `pipeline.rs`, which decides, `passage.rs` goes to the
//! upstream, `reply.rs` answers, `account.rs` records.

use super::account;
use super::complaint::Complaint;
use super::drain::Drain;
use super::edits;
use super::exchange::{self, Exchange, Stage, internal};
use super::failure;
use super::filter::Chain;
use super::forward::{self, Arrival};
use super::hop;
use super::rejection::{BadBody, Rejection};
use super::reply;
use super::stream;
use super::verdict::Verdict;
use crate::snapshot::{Live, Parts};
use crate::telemetry::access_log::AccessLog;
use async_trait::async_trait;
use bytes::Bytes;
use http::Version;
use pingora_core::Result;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::Error;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

/// One worker's side of the proxy.
pub struct Gateway {
    /// The snapshot in force.
    pub live: Arc<Live>,
    /// The filters of who embeds the gateway.
    pub filters: Chain,
    /// What outlives snapshots.
    pub parts: Parts,
    /// Where the process stands.
    pub drain: Arc<Drain>,
    /// Where records go.
    pub access_log: AccessLog,
    /// That there are too many requests.
    pub overloaded: Complaint,
}

impl Gateway {
    /// Ends a request with `rejection`, and Pingora's part of it with an error.
    fn stop<T>(ctx: &mut Exchange, rejection: impl Into<Rejection>) -> Result<T> {
        ctx.rejection = Some(rejection.into());
        Err(internal("stopped by the gateway"))
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.live.load(), &self.parts.clock)
    }

    // The default brings a compression module that allocates for every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Exchange) -> Result<bool> {
        forward::forget_spelling(session.req_header_mut());
        hop::close_when_told(session);
        hop::forget_nominated(session.req_header_mut());
        ctx.meet(session);
        if stream::is_spare(session) {
            session.set_keepalive(None);
        }
        ctx.filters = self.filters.begin(ctx.request_id(), ctx.began_at);
        match self.judge(session, ctx).await {
            Ok(Verdict::Decided(decision)) => self.run(session, ctx, decision).await,
            Ok(Verdict::Health) => {
                ctx.stage = Stage::Answered(None);
                ctx.status = reply::health(session, ctx, &self.drain).await?;
                Ok(true)
            }
            Err(rejection) => {
                let written = reply::refuse(session, ctx, &rejection).await;
                ctx.rejection = Some(rejection);
                ctx.status = written?;
                Ok(true)
            }
        }
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Exchange,
    ) -> Result<()> {
        if session.was_upgraded() {
            return Ok(());
        }
        let length = body.as_ref().map_or(0, |chunk| chunk.len() as u64);
        ctx.received = ctx.received.saturating_add(length);
        let max = ctx.route().map_or(0, |route| route.max_body);
        if ctx.received > max {
            return Self::stop(ctx, BadBody::TooLarge);
        }
        if ctx.crawls(self.parts.clock.now()) {
            return Self::stop(ctx, BadBody::Timeout);
        }
        match ctx.passage().map(|passage| passage.sending(end, &self.parts.clock)) {
            Some(Err(late)) => Self::stop(ctx, late),
            Some(Ok(())) | None => Ok(()),
        }
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Exchange) -> Result<Box<HttpPeer>> {
        let now = self.parts.clock.now();
        ctx.received = 0;
        let Some(passage) = ctx.passage() else {
            return Err(internal("an endpoint was asked for without an admission"));
        };
        match passage.next_try(now) {
            Ok(peer) => Ok(peer),
            Err(rejection) => Self::stop(ctx, rejection),
        }
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        fd: RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Exchange,
    ) -> Result<()> {
        let expects = failure::expects_continue(session.req_header());
        if let Some(passage) = ctx.passage() {
            passage.connected(peer, fd, reused, expects, &self.parts.clock);
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Exchange,
    ) -> Result<()> {
        let Some(route) = ctx.trail.route.clone() else {
            return Err(internal("a forwarded request has no route"));
        };
        let target = exchange::target(session).map_err(|_| internal("a routed target is bad"))?;
        let authenticator = &ctx.snapshot.authenticator;
        let credentials: &[_] = if route.forward_credential {
            &[]
        } else {
            authenticator.credential_headers_of(&route.auth)
        };
        let here = session.server_addr().and_then(|address| address.as_inet()).copied();
        let ends = request.send_end_stream();
        let mut parts = forward::take_request(request);
        let arrival = Arrival {
            client: ctx.client,
            tls: exchange::is_tls(session),
            port: here.map_or(0, |address| address.port()),
            host: forward::asked_host(&parts),
        };
        if !hop::is_websocket(session.req_header()) {
            hop::refuse_upgrade(&mut parts.headers);
        }
        let stop_here = [credentials, authenticator.claim_headers()];
        forward::strip(&mut parts.headers, ctx.client.trusted, &stop_here);
        forward::identify(&mut parts.headers, ctx.trail.caller.as_deref())?;
        forward::forwarded(&mut parts.headers, arrival)?;
        forward::trace(&mut parts.headers, ctx.request_id(), &ctx.trace);
        forward::join_cookies(&mut parts.headers)?;
        forward::host(&mut parts, route.rewrite.host.as_ref(), target.authority(), here)?;
        edits::apply(&mut parts.headers, &route.rewrite.request, session, ctx);
        ctx.filters.edit(&mut parts.headers);
        forward::set_target(&mut parts.uri, &target, &route.rewrite.path)?;
        *request = parts.into();
        if let Some(ends) = ends {
            request.set_send_end_stream(ends);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Exchange,
    ) -> Result<()> {
        if response.status.is_informational() && response.status.as_u16() != 101 {
            ctx.passage().into_iter().for_each(|passage| passage.informed(&self.parts.clock));
            return Ok(());
        }
        if self.drain.begun() {
            session.set_keepalive(None);
        }
        let now = self.parts.clock.now();
        if let Some(passage) = ctx.passage() {
            passage.head_came(response.status.as_u16(), now);
        }
        ctx.status = response.status.as_u16();
        let mut parts = forward::take_response(response);
        // RFC 9110 2.5: what is passed on is in our version, whatever the endpoint speaks.
        parts.version = parts.version.max(Version::HTTP_11);
        hop::strip(&mut parts.headers, ctx.status);
        hop::unchunk(session, &mut parts.headers);
        reply::decorate(&mut parts.headers, ctx);
        if let Some(route) = ctx.route() {
            reply::allow_origin(&mut parts.headers, route, &session.req_header().headers);
            edits::apply(&mut parts.headers, &route.rewrite.response, session, ctx);
        }
        if let Err(stopped) = ctx.filters.response(parts.status, &mut parts.headers).await {
            return Self::stop(ctx, stopped);
        }
        *response = parts.into();
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Exchange,
    ) -> Result<Option<Duration>> {
        match ctx.passage().map(|passage| passage.body_came(end, &self.parts.clock)) {
            Some(Err(late)) => Self::stop(ctx, late),
            Some(Ok(())) | None => Ok(None),
        }
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Exchange,
        error: Box<Error>,
    ) -> Box<Error> {
        failure::connecting(session, ctx, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Exchange,
        _reused: bool,
    ) -> Box<Error> {
        failure::proxying(session, ctx, error, &self.parts.clock)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Exchange,
    ) -> FailToProxy {
        // What was begun cannot be taken back, and nobody reads what a lost client is told.
        let begun = session.response_written().is_some_and(|head| !head.status.is_informational());
        if ctx.rejection.is_none() {
            ctx.rejection = failure::reason(error, ctx);
        }
        if begun {
            ctx.aborted = true;
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let Some(rejection) = ctx.rejection.take() else {
            ctx.aborted = true;
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        session.set_keepalive(None);
        match reply::refuse(session, ctx, &rejection).await {
            Ok(status) => ctx.status = status,
            Err(error) => log::debug!("a client was gone before it was refused: {error}"),
        }
        ctx.rejection = Some(rejection);
        FailToProxy { error_code: ctx.status, can_reuse_downstream: false }
    }

    // Metrics and the access log say it, with the request's id.
    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Exchange,
        _: &Error,
        _: pingora_proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Exchange) {
        account::record(session, ctx, error, &self.parts, &self.access_log);
    }
}
