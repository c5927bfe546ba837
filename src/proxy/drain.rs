//! Where the process stands between start and end, and what is still in flight.
//!
//! Everything that must know of the shutdown asks here: the accept loops, waiting connections,
//! responses (`Connection: close`), `/health` and `/readyz`.

use super::crowd::{Comer, Crowd, Crowded, Full, Place, Pressure};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, watch};

/// The steps of a process's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Health answers 503 and every response closes its connection; still accepting.
    Announcing,
    /// Listeners are closed; idle connections are given up, requests finish.
    Closing,
}

/// The process's phase and its count of open connections and requests in flight.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    /// The same in Pingora's words: `true` once the shutdown began. Never marked as seen, so that
    /// each clone learns of a shutdown that began before it was made.
    shutdown: (watch::Sender<bool>, watch::Receiver<bool>),
    doors: AtomicUsize,
    crowd: Crowd,
    requests: AtomicUsize,
    changed: Notify,
}

impl Drain {
    /// A process that has just begun to serve.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: watch::Sender::new(Phase::Running),
            shutdown: watch::channel(false),
            doors: AtomicUsize::new(0),
            crowd: Crowd::default(),
            requests: AtomicUsize::new(0),
            changed: Notify::new(),
        })
    }

    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether the shutdown has begun.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.phase() > Phase::Running
    }

    /// Goes on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
        if phase > Phase::Running {
            self.shutdown.0.send_replace(true);
        }
    }

    /// Waits until `phase` is reached.
    pub async fn reached(&self, phase: Phase) {
        let mut watch = self.phase.subscribe();
        // An error would mean that the sender is gone, and it lives in `self`.
        drop(watch.wait_for(|current| *current >= phase).await);
    }

    /// Pingora's view of the shutdown.
    #[must_use]
    pub fn shutdown_watch(&self) -> watch::Receiver<bool> {
        self.shutdown.1.clone()
    }

    /// Counts an accept loop until the guard is dropped: what the kernel has accepted for it is
    /// still to be served.
    #[must_use]
    pub fn door(self: &Arc<Self>) -> DoorGuard {
        self.doors.fetch_add(1, Ordering::Relaxed);
        DoorGuard(Arc::clone(self))
    }

    /// Lets a connection in, until the guard is dropped.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn connection(self: &Arc<Self>, comer: &Comer) -> Result<ConnectionGuard, Full> {
        let place = self.crowd.enter(comer)?;
        Ok(ConnectionGuard { drain: Arc::clone(self), place })
    }

    /// Whether memory is short.
    #[must_use]
    pub fn pressure(&self) -> &Arc<Pressure> {
        &self.crowd.pressure
    }

    /// Lets a request go on to be decided, until the guard is dropped.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn admit(self: &Arc<Self>, max: usize) -> Result<AdmittedGuard, Crowded> {
        self.crowd.begin(max).map(|()| AdmittedGuard(Arc::clone(self)))
    }

    /// Counts a request until the guard is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.crowd.connections()
    }

    /// Requests in flight.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Waits until no accept loop runs, no request is in flight and no connection is open.
    pub async fn idle(&self) {
        loop {
            let changed = self.changed.notified();
            // What an accept loop has let in is counted before it is seen to be gone.
            let doors = self.doors.load(Ordering::Acquire);
            if doors == 0 && self.requests() == 0 && self.connections() == 0 {
                return;
            }
            changed.await;
        }
    }

    fn departed(&self) {
        if self.begun() {
            self.changed.notify_waiters();
        }
    }
}

/// One accept loop.
#[derive(Debug)]
pub struct DoorGuard(Arc<Drain>);

impl Drop for DoorGuard {
    fn drop(&mut self) {
        self.0.doors.fetch_sub(1, Ordering::Release);
        self.0.departed();
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionGuard {
    drain: Arc<Drain>,
    place: Place,
}

impl ConnectionGuard {
    /// Whether the connection is above the cap, and only let in to be told so.
    #[must_use]
    pub const fn is_spare(&self) -> bool {
        self.place.spare
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.drain.crowd.leave(&self.place);
        self.drain.departed();
    }
}

/// One request that takes up one of the places there are.
#[derive(Debug)]
pub struct AdmittedGuard(Arc<Drain>);

impl Drop for AdmittedGuard {
    fn drop(&mut self) {
        self.0.crowd.finish();
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct RequestGuard(Arc<Drain>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.departed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_is_reached_when_the_last_guard_goes() {
        let drain = Drain::new();
        let address = "192.0.2.1".parse().unwrap();
        let comer = Comer { address, trusted: false, max: 1, max_per_address: 1 };
        let connection = drain.connection(&comer).unwrap();
        assert_eq!(drain.connection(&comer).unwrap_err(), Full::Address, "the cap holds");
        let request = drain.request();
        drain.advance(Phase::Closing);
        drain.advance(Phase::Announcing);
        assert_eq!(drain.phase(), Phase::Closing, "phases never go back");
        let waiting = drain.idle();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(request);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(connection);
        waiting.await;
    }

    #[tokio::test]
    async fn who_comes_late_still_learns_of_the_shutdown() {
        let drain = Drain::new();
        drain.advance(Phase::Announcing);
        let mut late = drain.shutdown_watch();
        late.changed().await.unwrap();
        assert!(*late.borrow());
    }
}
