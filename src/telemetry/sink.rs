//! Lines on their way out of the process, which never make anybody wait.
//!
//! Whoever has a line appends it to a buffer in memory; a thread of its own writes the buffers out.
//! When the reader at the other end is stuck, the buffers fill up, and further lines are dropped
//! and counted. There are several buffers, so that worker threads do not meet in one lock.
//!
//! Must stay true: `append` never waits for I/O; what was appended before a close is written, what
//! comes after it is counted as dropped.

use parking_lot::{Condvar, Mutex, MutexGuard};
use prometheus::IntCounter;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Lines that nobody took so far may grow to this many bytes, all buffers together.
pub(super) const BOUND: usize = 1024 * 1024;
/// As soon as a buffer has this many bytes, it is written.
const BATCH: usize = 32 * 1024;
/// A line waits this long for others to be written with it.
const GATHER: Duration = Duration::from_millis(100);
/// Between two attempts to write to an output that was set to non-blocking by someone else.
const RETRY: Duration = Duration::from_millis(10);
/// Buffers.
const SHARDS: usize = 4;
/// Memory that a buffer keeps when it is empty.
const KEPT: usize = 4 * BATCH;

/// A log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread that writes {name}: {source}; is the limit of threads reached?")]
pub struct StartError {
    name: &'static str,
    source: io::Error,
}

impl StartError {
    pub(super) const fn new(name: &'static str, source: io::Error) -> Self {
        Self { name, source }
    }
}

/// A log was closed before all of it was written.
#[derive(Debug, thiserror::Error)]
#[error("{name} was not written to its end within {within:?}: nobody reads it, and lines are lost")]
pub struct Unflushed {
    name: &'static str,
    within: Duration,
}

/// A way out for lines.
#[derive(Debug)]
pub(super) struct Sink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: &'static str,
    shards: [Mutex<Shard>; SHARDS],
    /// Some line is waiting.
    waiting: AtomicBool,
    /// Some buffer is full enough to be written at once.
    urgent: AtomicBool,
    life: Mutex<Life>,
    wake: Condvar,
    ended: Condvar,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct Shard {
    lines: Vec<u8>,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    Closing,
    Ended,
}

impl Sink {
    /// Starts the thread that writes to `out`. What is lost is counted in `dropped`, and `failed`
    /// is told when writing begins to fail.
    pub(super) fn start<W: Write + Send + 'static>(
        name: &'static str,
        out: W,
        dropped: IntCounter,
        failed: fn(&io::Error),
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new(name, dropped));
        let mut writer = Writer::new(&shared, out, failed);
        thread::Builder::new()
            .name(name.into())
            .spawn(move || writer.run())
            .map_err(|source| StartError::new(name, source))?;
        Ok(Self(shared))
    }

    /// Appends what `write` writes, whole lines, unless there is no room.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(mut shard) = self.0.find_room() else {
            self.0.dropped.inc();
            return;
        };
        write(&mut shard.lines);
        let length = shard.lines.len();
        drop(shard);
        self.0.appended(length);
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }

    /// Writes everything out and ends; gives up after `within`.
    pub(super) fn flush_and_close(&self, within: Duration) -> Result<(), Unflushed> {
        let mut life = self.0.life.lock();
        self.0.close(&mut life);
        let result = self.0.ended.wait_while_for(&mut life, |life| *life != Life::Ended, within);
        if result.timed_out() {
            return Err(Unflushed { name: self.0.name, within });
        }
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.0.close(&mut self.0.life.lock());
    }
}

impl Shared {
    fn new(name: &'static str, dropped: IntCounter) -> Self {
        Self {
            name,
            shards: Default::default(),
            waiting: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            life: Mutex::new(Life::Open),
            wake: Condvar::new(),
            ended: Condvar::new(),
            dropped,
        }
    }

    /// A buffer with room, the first that nobody else is writing to; none if all are full.
    fn find_room(&self) -> Option<MutexGuard<'_, Shard>> {
        let mut busy = None;
        for shard in &self.shards {
            match shard.try_lock() {
                Some(guard) if guard.has_room() => return Some(guard),
                Some(_) => {}
                None => busy = Some(shard),
            }
        }
        // Held for the time that one line takes, or a swap of buffers.
        let guard = busy?.lock();
        guard.has_room().then_some(guard)
    }

    fn appended(&self, length: usize) {
        // The writer clears these before it takes the buffers, so whoever appends later sees them
        // cleared and wakes it again.
        let raise =
            |flag: &AtomicBool| !flag.load(Ordering::Relaxed) && !flag.swap(true, Ordering::AcqRel);
        let first = raise(&self.waiting);
        let full = length >= BATCH && raise(&self.urgent);
        if first || full {
            // With the lock, or the writer could miss it between its look and its wait.
            let _life = self.life.lock();
            self.wake.notify_one();
        }
    }

    fn close(&self, life: &mut Life) {
        if *life == Life::Open {
            *life = Life::Closing;
            self.wake.notify_one();
        }
    }
}

impl Shard {
    fn has_room(&self) -> bool {
        !self.closed && self.lines.len() < BOUND / SHARDS
    }
}

/// The other side of a sink.
struct Writer<W> {
    shared: Arc<Shared>,
    out: W,
    failed: fn(&io::Error),
    failing: bool,
    torn: bool,
}

impl<W: Write> Writer<W> {
    fn new(shared: &Arc<Shared>, out: W, failed: fn(&io::Error)) -> Self {
        Self { shared: Arc::clone(shared), out, failed, failing: false, torn: false }
    }

    fn run(&mut self) {
        let mut spare = Vec::new();
        while self.wait() == Life::Open {
            self.take(&mut spare, false);
        }
        self.take(&mut spare, true);
        let shared = &self.shared;
        *shared.life.lock() = Life::Ended;
        shared.ended.notify_all();
    }

    /// Waits until there is a batch, or a line that has waited long enough, or the end.
    fn wait(&self) -> Life {
        let shared = &self.shared;
        let mut life = shared.life.lock();
        shared.wake.wait_while(&mut life, |life| {
            *life == Life::Open && !shared.waiting.load(Ordering::Acquire)
        });
        shared.wake.wait_while_for(
            &mut life,
            |life| *life == Life::Open && !shared.urgent.load(Ordering::Acquire),
            GATHER,
        );
        *life
    }

    fn take(&mut self, spare: &mut Vec<u8>, last: bool) {
        let shared = Arc::clone(&self.shared);
        shared.waiting.store(false, Ordering::Release);
        shared.urgent.store(false, Ordering::Release);
        for shard in &shared.shards {
            let mut guard = shard.lock();
            guard.closed |= last;
            std::mem::swap(&mut guard.lines, spare);
            drop(guard);
            self.write(spare);
            spare.clear();
            spare.shrink_to(KEPT);
        }
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        // A line that broke off is ended, so that the next one stands alone.
        let mut written = if self.torn { self.write_all(b"\n") } else { Ok(()) };
        if written.is_ok() {
            self.torn = false;
            written = self.write_all(lines);
        } else {
            written = written.map_err(|(error, _)| (error, lines.len()));
        }
        match written {
            Ok(()) => self.failing = false,
            Err((error, left)) => {
                let (sent, lost) = lines.split_at(lines.len() - left.min(lines.len()));
                self.torn |= sent.last().is_some_and(|byte| *byte != b'\n');
                let lost = memchr::memchr_iter(b'\n', lost).count();
                self.shared.dropped.inc_by(u64::try_from(lost).unwrap_or(0));
                if !std::mem::replace(&mut self.failing, true) {
                    (self.failed)(&error);
                }
            }
        }
    }

    /// Writes `lines`, or says how many bytes are left of them.
    fn write_all(&mut self, mut lines: &[u8]) -> Result<(), (io::Error, usize)> {
        while !lines.is_empty() {
            match self.out.write(lines) {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), lines.len())),
                Ok(written) => lines = lines.get(written..).unwrap_or_default(),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => thread::sleep(RETRY),
                    _ => return Err((error, lines.len())),
                },
            }
        }
        self.out.flush().map_err(|error| (error, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// What an output does with a write: takes so many bytes, or fails.
    type Step = Result<usize, io::ErrorKind>;

    /// Does as it is told, then takes everything, and keeps what it took.
    struct Scripted(VecDeque<Step>, Vec<u8>);

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let take = self.0.pop_front().unwrap_or(Ok(bytes.len()))?;
            let taken = &bytes[..take.min(bytes.len())];
            self.1.extend_from_slice(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_an_output_does_not_take_is_counted_and_leaves_whole_lines_behind_it() {
        use io::ErrorKind::{Interrupted, StorageFull, WouldBlock};
        let batches: [&[u8]; 3] = [b"one\ntwo\n", b"three\n", b"four\n"];
        let table: &[(&str, &[Step], &str, u64)] = &[
            ("takes all", &[], "one\ntwo\nthree\nfour\n", 0),
            ("takes little", &[Ok(1), Ok(4), Ok(1)], "one\ntwo\nthree\nfour\n", 0),
            (
                "is interrupted, or not ready",
                &[Err(Interrupted), Ok(2), Err(WouldBlock), Err(WouldBlock)],
                "one\ntwo\nthree\nfour\n",
                0,
            ),
            ("is full for a batch", &[Err(StorageFull)], "three\nfour\n", 2),
            ("is full after a line", &[Ok(4), Err(StorageFull)], "one\nthree\nfour\n", 1),
            ("is full inside a line", &[Ok(5), Err(StorageFull)], "one\nt\nthree\nfour\n", 1),
            (
                "is full for longer, inside a line",
                &[Ok(5), Err(StorageFull), Err(StorageFull)],
                "one\nt\nfour\n",
                2,
            ),
            ("is closed", &[Ok(0), Ok(0), Ok(0)], "", 4),
        ];
        for (name, steps, expected, expected_lost) in table {
            let lost = IntCounter::new("lost", "Lines.").unwrap();
            let shared = Arc::new(Shared::new("test", lost.clone()));
            let out = Scripted(steps.iter().copied().collect(), Vec::new());
            let mut writer = Writer::new(&shared, out, |_| {});
            batches.iter().for_each(|batch| writer.write(batch));
            assert_eq!(String::from_utf8_lossy(&writer.out.1), *expected, "{name}");
            assert_eq!(lost.get(), *expected_lost, "{name}");
        }
    }
}
