//! One request from its first hook to its last: Pingora's `CTX`.
//!
//! Must stay true: an endpoint can only be picked on a [`Passage`], and a passage is only begun
//! from an [`Admission`]. The counts that the limits and the balancer hold are guards in here, so
//! they end with the request however it ends.

use super::client::Client;
use super::drain::AdmittedGuard;
use super::filter::Visits;
use super::head::Head;
use super::passage::Passage;
use super::pipeline::{Admission, Trail};
use super::rejection::{BadHead, Rejection};
use super::wire::HeadCaps;
use crate::limits::Grant;
use crate::routing::Target;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::request_id::{accept_request_id, request_id};
use crate::telemetry::trace::TraceContext;
use crate::telemetry::{Clock, Moment};
use http::{HeaderMap, HeaderValue};
use pingora_core::Result;
use pingora_proxy::Session;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Bytes per second, on average, that a body must bring once `http.body_timeout` is over.
const SLOWEST_BODY: u64 = 256;

/// How far a request has come.
pub enum Stage {
    /// Nothing is decided.
    Received,
    /// It goes to an upstream.
    Passing(Box<Passage>),
    /// We answer it ourselves, as the route or the protocol asks.
    Answered(Option<Admission>),
}

/// One request.
pub struct Exchange {
    /// The snapshot it is decided by, to its end.
    pub snapshot: Arc<Snapshot>,
    /// When it began, on the monotonic time line.
    pub began: Moment,
    /// When it began, since 1970.
    pub began_at: Duration,
    /// How far it has come.
    pub stage: Stage,
    /// Why it was refused or failed, if it was.
    pub rejection: Option<Rejection>,
    /// The status that the client was told; zero before.
    pub status: u16,
    /// Route and caller, as far as they are known.
    pub trail: Trail,
    /// Whether its HTTP/2 stream went on after the head.
    pub goes_on: bool,
    /// Its visits to the filters.
    pub filters: Visits,
    /// Where it came from.
    pub client: Client,
    /// Its place in a distributed trace.
    pub trace: TraceContext,
    /// Bytes of the request body so far.
    pub received: u64,
    /// The client went away, or was cut off, before the end.
    pub aborted: bool,
    /// One of the places that there are for requests in flight, once it has one.
    pub admitted: Option<AdmittedGuard>,
    request_id: HeaderValue,
}

impl Exchange {
    /// A request that is about to be read.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, clock: &Clock) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self {
            snapshot,
            began: clock.now(),
            began_at: clock.unix_time(),
            stage: Stage::Received,
            rejection: None,
            status: 0,
            trail: Trail::default(),
            goes_on: false,
            filters: Visits::default(),
            client: Client { peer: nowhere, address: nowhere.ip(), trusted: false },
            trace: TraceContext::start(false),
            received: 0,
            aborted: false,
            admitted: None,
            request_id: HeaderValue::from_static(""),
        }
    }

    /// Takes from the session what is known before anything is decided.
    pub fn meet(&mut self, session: &Session) {
        let headers = &session.req_header().headers;
        if let Some(peer) = session.client_addr().and_then(|address| address.as_inet()) {
            self.client = Client::resolve(*peer, headers, &self.snapshot.http.trusted_proxies);
        }
        self.request_id =
            self.trusted_request_id(headers).unwrap_or_else(|| request_id(self.began_at));
        let mut parents = headers.get_all(super::forward::TRACEPARENT).iter();
        // Two of them are none: the standard has one, and nobody could say which is meant.
        if let (Some(parent), None) = (parents.next(), parents.next()) {
            self.trace = TraceContext::resume(parent.as_bytes()).unwrap_or(self.trace);
        }
    }

    fn trusted_request_id(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let kept = self.client.trusted && self.snapshot.http.keeps_request_ids;
        let value = headers.get(super::forward::REQUEST_ID).filter(|_| kept)?;
        accept_request_id(value)
    }

    /// The id that logs, responses and the upstream share.
    #[must_use]
    pub const fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The route, once it is found.
    #[must_use]
    pub fn route(&self) -> Option<&Route> {
        self.trail.route.as_deref()
    }

    /// What the limits granted, if they were asked and did.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        match &self.stage {
            Stage::Passing(passage) => Some(passage.admission.grant()),
            Stage::Answered(admission) => admission.as_ref().map(Admission::grant),
            Stage::Received => None,
        }
    }

    /// The passage to the upstream, once it has begun.
    pub fn passage(&mut self) -> Option<&mut Passage> {
        match &mut self.stage {
            Stage::Passing(passage) => Some(passage),
            _ => None,
        }
    }

    /// Whether the request's body comes so slowly that only somebody who means to hold a place here
    /// would send it so. A stream takes its time.
    pub fn crawls(&mut self, now: Moment) -> bool {
        let (elapsed, received) = (now.since(self.began), self.received);
        elapsed > self.snapshot.http.body_timeout
            && received < elapsed.as_secs().saturating_mul(SLOWEST_BODY)
            && self.passage().is_some_and(|passage| !passage.stream)
    }

    /// A redirect's `Location` for this request.
    ///
    /// # Errors
    /// Never for a request that was routed.
    pub fn location(&self, session: &Session, template: &str) -> Result<HeaderValue> {
        let target = target(session).map_err(|_| internal("a routed request has a bad target"))?;
        crate::routing::location(template, &target)
            .map_err(|_| internal("a redirect's location is no header value"))
    }
}

/// The request's canonical target. It was accepted before it was routed, so it is again.
///
/// # Errors
/// Never for a request that was routed.
pub fn target(session: &Session) -> Result<Target<'_>, BadHead> {
    let raw = std::str::from_utf8(session.req_header().raw_path()).map_err(|_| BadHead::Target)?;
    Ok(Target::parse(raw)?)
}

/// The request's head. It was accepted before it was routed, so it is again.
#[must_use]
pub fn head<'s>(session: &'s Session, exchange: &Exchange) -> Option<Head<'s>> {
    let caps = HeadCaps::from(&exchange.snapshot.http);
    let head = Head::read(session.req_header(), exchange.client.address, exchange.goes_on, caps);
    Some(head.ok()?.over(is_tls(session)))
}

/// Whether a request came over TLS.
#[must_use]
pub fn is_tls(session: &Session) -> bool {
    session.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

/// An error of our own making.
#[must_use]
pub fn internal(what: &'static str) -> Box<pingora_core::Error> {
    pingora_core::Error::explain(pingora_core::ErrorType::InternalError, what)
}
