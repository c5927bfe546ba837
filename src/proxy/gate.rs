//! Where one message of an HTTP/1 connection ends, for who reads the bytes.
//!
//! Pingora reads on behind a message while it waits for an upstream, and takes whatever it finds for
//! a fault of the client. The gate is shared between the connection, which knows where the message
//! ends, and its byte stream, which Pingora reads.

use super::chunks::{Chunks, Step};
use super::stream::Transport;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes may be read until the current message is complete.
#[derive(Debug)]
pub struct Gate {
    bytes: AtomicU64,
    /// The body that is being read, if it is in chunks.
    chunks: Mutex<Option<Chunks>>,
    left: Mutex<Option<Box<dyn Transport>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { bytes: AtomicU64::new(Self::OPEN), chunks: Mutex::new(None), left: Mutex::new(None) }
    }
}

impl Gate {
    pub(super) const OPEN: u64 = u64::MAX;

    /// Lets everything through.
    pub fn open(&self) {
        *self.chunks.lock() = None;
        self.limit(Self::OPEN);
    }

    /// Reads along with a body in chunks that begins so; whether it can be one.
    #[must_use]
    pub fn follow(&self, begin: &[u8]) -> bool {
        *self.chunks.lock() = Some(Chunks::default());
        self.misplaced(begin).is_none()
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

    /// These were read. Where one of them cannot stand in a body of chunks, its place is given; none
    /// that comes after can.
    pub(super) fn passed(&self, bytes: &[u8]) -> Option<usize> {
        let left = self.bytes();
        if left == Self::OPEN {
            return self.misplaced(bytes);
        }
        self.limit(left.saturating_sub(bytes.len() as u64));
        None
    }

    fn misplaced(&self, bytes: &[u8]) -> Option<usize> {
        let mut following = self.chunks.lock();
        match following.as_mut()?.read(bytes) {
            Step::More => None,
            Step::Bad(at) => Some(at),
            Step::End(_) => {
                *following = None;
                None
            }
        }
    }
}
