//! From the head of a request to who answers it: health at once, then whether there is room, then the
//! pipeline.
//!
//! Must stay true: only the question for health passes without room.

use super::account;
use super::crowd::Crowded;
use super::exchange::{self, Exchange, Stage, internal};
use super::filter::Point;
use super::head::Head;
use super::hooks::Gateway;
use super::hop;
use super::passage::{Passage, Sender};
use super::pipeline::{self, Decision};
use super::rejection::Rejection;
use super::reply;
use super::stream;
use super::wire::HeadCaps;
use crate::limits::Outcome;
use crate::snapshot::Action;
use http::Method;
use pingora_core::Result;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::Session;
use std::sync::Arc;

/// The path that the load balancer asks for on every public listener.
const HEALTH_PATH: &str = "/health";

/// What becomes of a request.
pub(super) enum Verdict {
    /// As the pipeline says.
    Decided(Decision),
    /// The load balancer asks.
    Health,
}

impl Gateway {
    pub(super) async fn judge(
        &self,
        session: &Session,
        ctx: &mut Exchange,
    ) -> Result<Verdict, Rejection> {
        let snapshot = Arc::clone(&ctx.snapshot);
        ctx.goes_on = match session.as_downstream() {
            ServerSession::H2(stream) => !stream.is_body_empty(),
            _ => false,
        };
        let caps = HeadCaps::from(&snapshot.http);
        let head = Head::read(session.req_header(), ctx.client.address, ctx.goes_on, caps)?
            .over(exchange::is_tls(session))
            .with_certificate(stream::certificate(session));
        if head.target().path() == HEALTH_PATH
            && matches!(*head.method(), Method::GET | Method::HEAD)
        {
            return Ok(Verdict::Health);
        }
        self.admit(session, ctx)?;
        let (limiter, filters) = (&self.parts.limiter, &mut ctx.filters);
        let decided = pipeline::decide(&snapshot, limiter, &head, filters, &mut ctx.trail).await;
        let outcome = match &decided {
            Ok(Decision::Admit(_) | Decision::Answer(..)) => Some(Outcome::Admitted),
            // The limits have taken it.
            Err(Rejection::Filter(stopped)) if stopped.point == Point::Admitted => {
                Some(Outcome::Admitted)
            }
            Err(Rejection::Limit(_)) => Some(Outcome::Refused),
            Ok(Decision::Preflight(_)) | Err(_) => None,
        };
        if let Some(outcome) = outcome {
            account::count_usage(ctx, outcome, &self.parts);
        }
        decided.map(Verdict::Decided)
    }

    /// Finds a place for a request among those in flight; on a spare connection there is none.
    fn admit(&self, session: &Session, ctx: &mut Exchange) -> Result<(), Rejection> {
        if stream::is_spare(session) {
            return Err(Rejection::Overloaded(Crowded::Connections));
        }
        let max = ctx.snapshot.http.max_requests;
        ctx.admitted = match self.drain.admit(max) {
            Ok(admitted) => Some(admitted),
            Err(crowded) => {
                if self.overloaded.is_due() {
                    log::error!(max_requests = max, memory_is_short = crowded == Crowded::Memory;
                        "too many requests are in flight, those above http.max_requests get 503: is an upstream slow?");
                }
                return Err(Rejection::Overloaded(crowded));
            }
        };
        Ok(())
    }

    /// Runs what was decided; whether the request is answered with that.
    pub(super) async fn run(
        &self,
        session: &mut Session,
        ctx: &mut Exchange,
        decision: Decision,
    ) -> Result<bool> {
        let admission = match decision {
            Decision::Preflight(answer) => {
                ctx.stage = Stage::Answered(None);
                ctx.status = reply::preflight(session, ctx, answer).await?;
                return Ok(true);
            }
            Decision::Answer(admission, answer) => {
                ctx.status = reply::filtered(session, ctx, admission, answer).await?;
                return Ok(true);
            }
            Decision::Admit(admission) => admission,
        };
        let Some(route) = ctx.trail.route.clone() else {
            return Err(internal("an admitted request has no route"));
        };
        match &route.action {
            Action::Proxy(way) => {
                let sender = Sender {
                    body: !session.as_downstream_mut().is_body_empty(),
                    upgrade: hop::is_websocket(session.req_header()),
                    patience: ctx.snapshot.http.body_timeout,
                    multiplexed: matches!(session.as_downstream(), ServerSession::H2(_)),
                };
                let passage = Passage::begin(admission, way, sender, self.parts.clock.now());
                ctx.stage = Stage::Passing(Box::new(passage));
                Ok(false)
            }
            Action::Answer(answer) => {
                ctx.stage = Stage::Answered(Some(admission));
                ctx.status = reply::answer(session, ctx, &route, answer).await?;
                Ok(true)
            }
        }
    }
}
