//! One try of one request at one endpoint.
//!
//! Who holds a [`Pick`] says what came of it: [`Pick::responded`] when the response's head is there,
//! then [`Pick::succeeded`] when the response is complete (or the connection was upgraded), or
//! [`Pick::failed`]. The first of the latter two counts. Saying nothing is right when the client
//! left, or sent something wrong: that never counts against an endpoint. A status of 5xx is an
//! answer, not a failure, in this version: an application that fails one kind of request must not
//! lose all of its endpoints.
//!
//! Must stay true: the endpoint counts a try as in flight exactly as long as its `Pick` lives.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora_core::upstreams::peer::HttpPeer;

use super::definition::Timeouts;
use super::endpoint::Endpoint;
use super::outlier::{Change, Ticket};
use super::peer;
use crate::telemetry::Clock;

/// What an endpoint did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It could not be reached: refused, no route, TLS not agreed, not in time.
    Connect,
    /// It was silent for longer than a try may take.
    Timeout,
    /// It closed too early, or what it sent is not HTTP.
    Broken,
}

impl Failure {
    /// For logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }
}

/// Which connection a try may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// A kept one, or a new one where there is none.
    Any,
    /// A new one: kept ones have shown to be closed.
    New,
}

/// An endpoint chosen for one try, which counts as in flight until this is dropped.
#[derive(Debug)]
#[must_use = "a dropped pick is a try that is over"]
pub struct Pick {
    endpoint: Arc<Endpoint>,
    index: usize,
    /// The right to report an outcome, until it was used.
    ticket: Option<Ticket>,
}

impl Pick {
    pub(super) fn new(endpoint: &Arc<Endpoint>, index: usize, ticket: Ticket) -> Self {
        endpoint.condition.begin();
        Self { endpoint: Arc::clone(endpoint), index, ticket: Some(ticket) }
    }

    /// What Pingora shall connect to, how, and within which time.
    #[must_use]
    pub fn peer(&self, timeouts: &Timeouts, connection: Connection) -> Box<HttpPeer> {
        let mut peer = Box::new(self.endpoint.peer.clone());
        peer::set_timeouts(&mut peer, timeouts);
        if connection == Connection::New {
            peer::set_apart(&mut peer);
        }
        peer
    }

    /// Where the endpoint listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address()
    }

    /// The endpoint's address as text.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        self.endpoint.label()
    }

    /// The upstream's name.
    #[must_use]
    pub fn upstream(&self) -> &Arc<str> {
        self.endpoint.upstream()
    }

    /// The head of a response is there: an ejected endpoint that is on trial is back.
    ///
    /// Failures so far are only forgotten by [`Self::succeeded`], so that one which breaks off every
    /// response is found out.
    pub fn responded(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let change = self.endpoint.condition.outlier.responded(ticket, self.clock());
        self.tell(change, None);
    }

    /// The response is complete.
    pub fn succeeded(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let change = self.endpoint.condition.outlier.succeeded(ticket, self.clock());
        self.tell(change, None);
    }

    /// The endpoint failed.
    pub fn failed(&mut self, failure: Failure) {
        let Some(ticket) = self.ticket.take() else { return };
        let condition = &self.endpoint.condition;
        condition.count_failure();
        let change = condition.outlier.failed(ticket, &self.endpoint.ejection, self.clock());
        self.tell(change, Some(failure));
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    fn clock(&self) -> &Clock {
        &self.endpoint.condition.clock
    }

    fn tell(&self, change: Option<Change>, failure: Option<Failure>) {
        let (upstream, endpoint) = (&**self.upstream(), &**self.label());
        match change {
            None => {}
            Some(Change::Readmitted) => {
                log::info!(upstream = upstream, endpoint = endpoint; "endpoint is used again");
            }
            Some(Change::Ejected(span)) => {
                self.endpoint.condition.count_ejection();
                let reason = failure.map_or("", Failure::as_str);
                let seconds = span.as_secs_f64();
                log::warn!(
                    upstream = upstream, endpoint = endpoint, reason = reason, seconds = seconds;
                    "endpoint is ejected"
                );
            }
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.endpoint.condition.outlier.abandon(ticket);
        }
        self.endpoint.condition.end();
    }
}

/// The endpoints a request was sent to already; as many as a request may have tries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    tries: [Option<(usize, Mark)>; 3],
}

/// How sure it is that an endpoint is of no use to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// A kept connection was closed: another endpoint is better, a new connection may do.
    Stale,
    /// It failed.
    Failed,
}

impl Tried {
    /// `pick` failed: its endpoint is not picked for this request again.
    pub fn add(&mut self, pick: &Pick) {
        self.insert(pick, Mark::Failed);
    }

    /// A *reused* connection broke before a byte of the response came. The endpoint may well live
    /// and have closed it for idleness, so it is picked again if there is no other.
    pub fn add_stale(&mut self, pick: &Pick) {
        self.insert(pick, Mark::Stale);
    }

    /// Tries so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tries.iter().flatten().count()
    }

    /// Whether there was none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn mark(&self, index: usize) -> Option<Mark> {
        self.tries
            .iter()
            .flatten()
            .filter(|(tried, _)| *tried == index)
            .map(|(_, mark)| *mark)
            .max()
    }

    fn insert(&mut self, pick: &Pick, mark: Mark) {
        if let Some(free) = self.tries.iter_mut().find(|slot| slot.is_none()) {
            *free = Some((pick.index(), mark));
        }
    }
}
