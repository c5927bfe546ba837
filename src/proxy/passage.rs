//! The way of an admitted request to an upstream: tries, their endpoints, and their clock.
//!
//! Three waits are told apart. For the endpoint: `per_try` from the end of the request to the
//! response's head, then between two reads. For the client that sends a body: its own timeout, and
//! the endpoint is not blamed for it. For all together: `total`, unless the response is a stream
//! that has begun. Where Pingora's read timeout cannot tell them apart, the watchdog does; it cannot
//! on a connection that other requests share, as with HTTP/2.
//!
//! Must stay true: a request waits at most its route's total timeout, whatever is tried; and what
//! may have reached an endpoint is sent again only where that is harmless.

use super::pipeline::Admission;
use super::rejection::{BadBody, Rejection, UpstreamFailure};
use super::watchdog::Watchdog;
use crate::snapshot::Way;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::telemetry::{Clock, Moment};
use crate::upstreams::{Connection, Failure, Pick, Timeouts, Tried, Upstream};
use pingora_core::upstreams::peer::HttpPeer;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

/// What the client's side of a passage is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender {
    /// The request has a body.
    pub body: bool,
    /// The request asks for another protocol.
    pub upgrade: bool,
    /// How long the client may pause inside the body.
    pub patience: Duration,
    /// The client speaks HTTP/2, where Pingora has no time limit for its pauses.
    pub multiplexed: bool,
}

/// The way of one request.
pub struct Passage {
    /// The proof that every check was passed.
    pub admission: Admission,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// The endpoint that was asked last.
    pub endpoint: Option<SocketAddr>,
    /// How many endpoints were asked.
    pub tries: u32,
    /// The last try failed so.
    pub failure: Option<Failure>,
    /// The current endpoint, counted as in use.
    pick: Option<Pick>,
    /// Which connection the next try may use.
    connection: Connection,
    /// The connection of the current try had served another request before.
    reused: bool,
    /// When the request was sent to its end.
    sent: Option<Moment>,
    /// The current try was told to have gone wrong.
    blamed: bool,
    /// When the response's head came.
    answered: Option<Moment>,
    /// No read and no total timeout once the response has begun.
    pub stream: bool,
    /// The same, as the route says it.
    flows: bool,
    sender: Sender,
    /// Pingora's limit for each read of this try.
    read_timeout: Duration,
    watchdog: Watchdog,
    timeouts: Timeouts,
    metrics: UpstreamMetrics,
    tried: Tried,
    deadline: Moment,
    try_began: Moment,
    /// When the client last sent something of its body.
    heard: Moment,
    /// When the watchdog was last told to wait for it.
    awaited: Moment,
}

/// An endpoint that closes after a client's pause of this length is not to blame.
const PAUSE: Duration = Duration::from_secs(1);

impl Passage {
    /// Begins a way. The total timeout runs from here.
    #[must_use]
    pub fn begin(admission: Admission, way: &Way, sender: Sender, now: Moment) -> Self {
        Self {
            admission,
            upstream: Arc::clone(&way.upstream),
            endpoint: None,
            tries: 0,
            failure: None,
            pick: None,
            connection: Connection::Any,
            reused: false,
            sent: None,
            blamed: false,
            answered: None,
            stream: way.stream || sender.upgrade,
            flows: way.stream,
            sender,
            read_timeout: way.timeouts.per_try,
            watchdog: Watchdog::default(),
            timeouts: way.timeouts,
            metrics: way.metrics.clone(),
            tried: Tried::default(),
            deadline: now + way.timeouts.total,
            try_began: now,
            heard: now,
            awaited: now,
        }
    }

    /// Picks the endpoint of the next try.
    ///
    /// # Errors
    /// No endpoint is left, or no time.
    pub fn next_try(&mut self, now: Moment) -> Result<Box<HttpPeer>, Rejection> {
        let left = self.deadline.since(now);
        if left.is_zero() {
            return Err(UpstreamFailure::Timeout.into());
        }
        self.pick = None;
        let pick = match (self.upstream.pick(&self.tried), self.failure) {
            (Ok(pick), _) => self.pick.insert(pick),
            // Nobody is left to ask: what the last one did is the answer.
            (Err(_), Some(failure)) => return Err(UpstreamFailure::from(failure).into()),
            (Err(unavailable), None) => return Err(unavailable.into()),
        };
        if self.tries > 0 {
            self.metrics.retried();
        }
        self.tries += 1;
        self.metrics.tried();
        self.blamed = false;
        self.endpoint = Some(pick.address());
        self.failure = None;
        self.reused = false;
        self.sent = None;
        self.try_began = now;
        self.heard = now;
        let bounded = Timeouts {
            connect: self.timeouts.connect.min(left),
            per_try: self.timeouts.per_try.min(left),
            total: left,
        };
        let mut peer = pick.peer(&bounded, self.connection);
        self.read_timeout = bounded.per_try;
        if self.stream {
            // A stream may be silent; the watchdog keeps the deadline of its response head.
            peer.options.read_timeout = None;
        } else if self.sender.body && carries_one(&peer) {
            // Runs while the client sends, so it must not be shorter than the client's own. From
            // the end of the body on, the watchdog is stricter.
            self.read_timeout = self.timeouts.per_try.max(self.sender.patience).min(left);
            peer.options.read_timeout = Some(self.read_timeout);
        }
        Ok(peer)
    }

    /// There is a connection. `expects` tells whether the client waits to be asked for the body.
    pub fn connected(
        &mut self,
        peer: &HttpPeer,
        socket: RawFd,
        reused: bool,
        expects: bool,
        clock: &Clock,
    ) {
        self.reused = reused;
        if carries_one(peer) {
            self.watchdog = Watchdog::on(socket);
        }
        if !self.sender.body {
            // All but the head, which is written next.
            self.sent = Some(self.try_began);
        }
        if expects || (self.stream && !self.sender.body) {
            self.watch_for_head(clock.now());
        } else {
            self.watch_client(clock.now());
        }
    }

    /// A piece of the request's body is sent on, `last` or not.
    ///
    /// # Errors
    /// The client has taken all the time that there was.
    pub fn sending(&mut self, last: bool, clock: &Clock) -> Result<(), BadBody> {
        if self.answered.is_some() || !self.sender.body {
            return Ok(());
        }
        let now = clock.now();
        self.heard = now;
        if !self.stream && now >= self.deadline {
            return Err(BadBody::Timeout);
        }
        if last {
            self.sent = Some(now);
            self.watch_for_head(now);
        } else if !self.sender.multiplexed {
            self.watchdog.end();
        } else if now.since(self.awaited) >= self.sender.patience / 8 || !self.watchdog.is_set() {
            self.watch_client(now);
        }
        Ok(())
    }

    /// The endpoint asks for the body, or says something else that is not its response.
    pub fn informed(&mut self, clock: &Clock) {
        if self.sent.is_none() {
            self.watchdog.end();
            self.watch_client(clock.now());
        }
    }

    /// Whether it is the client's turn: to send the rest of its body. A client that waits to be
    /// asked for it need not wait for ever (RFC 9110 10.1.1).
    #[must_use]
    pub fn awaits_client(&self) -> bool {
        self.sender.body && self.sent.is_none()
    }

    /// Whether the client has paused inside its body for so long that an endpoint may give up.
    #[must_use]
    pub fn client_pauses(&self, now: Moment) -> bool {
        self.awaits_client() && now.since(self.heard) >= PAUSE
    }

    /// The response's head is here; with 101 it is the protocol that the client asked for.
    pub fn head_came(&mut self, status: u16, now: Moment) {
        self.watchdog.end();
        let switched = status == 101;
        if status >= 500 {
            self.blame();
        }
        if self.sender.upgrade && !switched && !self.flows {
            // A response like another, and by now Pingora cannot be told how long its reads may take.
            self.stream = false;
            self.watchdog.set(self.deadline.since(now));
        }
        if self.answered.is_none() {
            self.answered = Some(now);
            self.metrics.observe(now.since(self.try_began));
        }
        if let Some(pick) = &mut self.pick {
            pick.responded();
        }
    }

    /// A piece of the response's body is here, `last` or not.
    ///
    /// # Errors
    /// There is no more time for the rest.
    pub fn body_came(&mut self, last: bool, clock: &Clock) -> Result<(), UpstreamFailure> {
        if self.stream {
            return Ok(());
        }
        // The end of a body that ends with its connection may be the watchdog's doing.
        if self.watchdog.fired() {
            return Err(UpstreamFailure::Timeout);
        }
        if last {
            self.watchdog.end();
            return Ok(());
        }
        let left = self.deadline.since(clock.now());
        if left.is_zero() {
            return Err(UpstreamFailure::Timeout);
        }
        // The next read might end after the deadline.
        if left < self.read_timeout && !self.watchdog.is_set() {
            self.watchdog.set(left);
        }
        Ok(())
    }

    /// The response is complete.
    pub fn completed(&mut self) {
        self.watchdog.end();
        if let Some(pick) = &mut self.pick {
            pick.succeeded();
        }
    }

    /// The endpoint failed this try.
    pub fn failed(&mut self, failure: Failure) {
        let failure = if self.watchdog.fired() { Failure::Timeout } else { failure };
        self.failure = Some(failure);
        self.watchdog.end();
        self.metrics.failed(failure.as_str());
        self.blame();
        let Some(pick) = &mut self.pick else { return };
        if self.reused && failure == Failure::Broken && self.answered.is_none() {
            // Endpoints close idle connections as they like; that is not held against them.
            // Others may have been closed by now as well, and tries are few.
            self.connection = Connection::New;
            self.tried.add_stale(pick);
        } else {
            pick.failed(failure);
            self.tried.add(pick);
        }
    }

    /// The try ended, and not by the endpoint's fault; unless the client only gave up waiting for
    /// an endpoint that had been silent for the whole of its time. Where connections are shared,
    /// that is how a frozen one is found out.
    pub fn abandoned(&mut self, clock: &Clock) {
        self.watchdog.end();
        let Some(sent) = self.sent.filter(|_| self.answered.is_none()) else { return };
        if clock.now().since(sent) >= self.timeouts.per_try {
            self.failed(Failure::Timeout);
        }
    }

    /// Whether the watchdog ended this try.
    #[must_use]
    pub fn watch_fired(&self) -> bool {
        self.watchdog.fired()
    }

    /// Whether the response had begun when the total timeout ended it.
    #[must_use]
    pub fn cut_short(&self) -> bool {
        self.answered.is_some() && self.watchdog.fired()
    }

    /// From the start of the last try to the response's head.
    #[must_use]
    pub fn upstream_duration(&self) -> Option<Duration> {
        self.answered.map(|answered| answered.since(self.try_began))
    }

    /// Counts once that the current try went wrong.
    fn blame(&mut self) {
        if !std::mem::replace(&mut self.blamed, true) {
            self.metrics.went_wrong();
        }
    }

    /// Waits for more of the body, where Pingora does not: the patience, and as much more as may pass
    /// before the watchdog is told of what came.
    fn watch_client(&mut self, now: Moment) {
        if self.sender.multiplexed && self.awaits_client() && !self.stream {
            self.awaited = now;
            self.watchdog.set(self.sender.patience + self.sender.patience / 8);
        }
    }

    fn watch_for_head(&mut self, now: Moment) {
        // A stream may take longer than the total to send what it has.
        let most = if self.flows { self.timeouts.per_try } else { self.deadline.since(now) };
        let left = self.timeouts.per_try.min(most);
        if self.stream || left < self.read_timeout {
            self.watchdog.set(left);
        }
    }
}

/// Whether a connection carries one request at a time.
fn carries_one(peer: &HttpPeer) -> bool {
    peer.options.alpn.get_max_http_version() < 2
}
