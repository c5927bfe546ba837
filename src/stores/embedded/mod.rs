//! The store of a single machine: one SQLite file, used by the gateway and by the command line at
//! the same time.
//!
//! Look-ups run on one thread of their own, behind a bounded queue, so that no worker waits for a
//! disk; writes are rare and run on the blocking pool. Both see each other through the write-ahead
//! log, and a write by another process is noticed by polling.
//!
//! Must stay true: a write ends with a revision, the names of what it touched and a line in the audit,
//! in its own transaction; no plain key gets here.

mod audit;
mod denials;
mod documents;
mod error;
mod file;
mod reader;
mod registry;
mod rows;
mod schema;
mod transaction;
mod usage;
mod uses;

pub use error::StoreError;

use crate::auth::api_key::KeyId;
use crate::auth::changes::{ChangeFeed, Changes};
use crate::auth::directory::{Answer, KeyRecord, Source};
use crate::auth::{Consumer, Outage};
use crate::telemetry::Clock;
use async_trait::async_trait;
use parking_lot::Mutex;
use reader::{Job, Read};
use rusqlite::Connection;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Look-ups that may wait for the reading thread.
const QUEUE: usize = 256;

/// Everything that is kept, in one file.
pub struct Embedded {
    path: Arc<Path>,
    clock: Clock,
    writer: Arc<Mutex<Connection>>,
    jobs: mpsc::Sender<Job>,
}

impl Embedded {
    /// Opens the store at `path`; makes file (0600) and folder (0700) where they are missing.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do about it.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        Self::around(file::open(path)?, path, clock)
    }

    /// Opens the store at `path` where there is one. Whoever only looks must not make one: a gateway
    /// whose file is gone for a while would find it, and know nobody any more.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do about it.
    pub fn open_existing(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        Self::around(file::open_existing(path)?, path, clock)
    }

    fn around(writer: Connection, path: &Path, clock: Clock) -> Result<Self, StoreError> {
        let path: Arc<Path> = Arc::from(path);
        let (jobs, queue) = mpsc::channel(QUEUE);
        reader::start(&path, clock.clone(), queue)?;
        Ok(Self { path, clock, writer: Arc::new(Mutex::new(writer)), jobs })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the reading thread; refuses rather than waits when too many do.
    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Read<T>>) -> Job) -> Result<T, Outage> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(job(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Outage::Busy,
            mpsc::error::TrySendError::Closed(_) => Outage::Failed,
        })?;
        answer.await.unwrap_or(Err(Outage::Failed))
    }
}

#[async_trait]
impl Source for Embedded {
    async fn look_up_key(&self, id: KeyId, _copy: usize) -> Answer<KeyRecord> {
        answer(self.ask(|reply| Job::Key { id, reply }).await)
    }

    async fn look_up_consumer(&self, username: &str, _copy: usize) -> Answer<Consumer> {
        answer(self.ask(|reply| Job::Consumer { username: username.into(), reply }).await)
    }
}

#[async_trait]
impl ChangeFeed for Embedded {
    async fn changes_since(&self, revision: Option<u64>) -> Result<Changes, Outage> {
        let (reply, answer) = oneshot::channel();
        // It takes its turn in the queue: a flood of look-ups must not keep changes out.
        let job = Job::Changes { since: revision, reply };
        self.jobs.send(job).await.map_err(|_| Outage::Failed)?;
        answer.await.unwrap_or(Err(Outage::Failed))
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("path", &self.path).finish_non_exhaustive()
    }
}

fn answer<T>(read: Read<(Option<T>, u64)>) -> Answer<T> {
    match read {
        Ok((Some(row), revision)) => Answer::Known { row, revision },
        Ok((None, revision)) => Answer::Unknown { revision },
        Err(outage) => Answer::Unavailable(outage),
    }
}

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod tests;
