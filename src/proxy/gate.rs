//! Where one message of an HTTP/1 connection ends, for who reads the bytes.
//!
//! Pingora reads on behind a message while it waits for an upstream, and takes whatever it finds for
//! a fault of the client. The gate is shared between the connection, which knows where the message
//! ends, and its byte stream, which Pingora reads.

use super::stream::Transport;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes may be read until the current message is complete.
#[derive(Debug)]
pub struct Gate {
    bytes: AtomicU64,
    left: Mutex<Option<Box<dyn Transport>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { bytes: AtomicU64::new(Self::OPEN), left: Mutex::new(None) }
    }
}

impl Gate {
    pub(super) const OPEN: u64 = u64::MAX;

    /// Lets everything through.
    pub fn open(&self) {
        self.limit(Self::OPEN);
    }

    /// Lets so many bytes through; at none, a read only notices that the client is gone.
    pub fn limit(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// The connection, if it was dropped before the message had been read.
    #[must_use]
    pub fn left(&self) -> Option<Box<dyn Transport>> {
        self.left.lock().take()
    }

    /// Keeps a connection that was dropped.
    pub(super) fn leave(&self, io: Box<dyn Transport>) {
        *self.left.lock() = Some(io);
    }

    /// What may still be read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// So many were read.
    pub(super) fn passed(&self, bytes: usize) {
        let left = self.bytes();
        if left != Self::OPEN {
            self.limit(left.saturating_sub(bytes as u64));
        }
    }
}
