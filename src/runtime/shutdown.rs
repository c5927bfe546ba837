//! From SIGTERM to the end of the process.

use crate::config;
use crate::proxy::{Drain, Phase};
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

/// The signals that the process listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Splits the one that asks for a reload from those that ask for the end.
    pub fn split(self) -> (Signal, EndSignals) {
        (self.hangup, EndSignals { terminate: self.terminate, interrupt: self.interrupt })
    }
}

/// The signals that end the process.
pub struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How the drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing was in flight any more.
    Idle,
    /// The deadline passed; what was in flight is cut off.
    Deadline,
    /// A second signal came.
    Signal,
}

/// Drains the process after its first signal.
pub async fn drain(drain: &Arc<Drain>, times: config::Drain, signals: &mut EndSignals) -> Ending {
    let deadline = Instant::now() + times.deadline;
    drain.advance(Phase::Announcing);
    if !times.announce.is_zero() {
        tokio::select! {
            () = sleep(times.announce) => {}
            () = sleep_until(deadline) => {}
            () = signals.next() => return Ending::Signal,
        }
    }
    drain.advance(Phase::Closing);
    tokio::select! {
        biased;
        () = drain.idle() => Ending::Idle,
        () = sleep_until(deadline) => Ending::Deadline,
        () = signals.next() => Ending::Signal,
    }
}
