//! The thread that reads.
//!
//! One connection, one query at a time, a few microseconds each. After an error the connection is
//! given up and the next question opens a new one, so that a store that was away or was put back
//! from a backup is found again.

use super::error::StoreError;
use super::rows::{amount, unsigned};
use super::{file, rows};
use crate::auth::api_key::KeyId;
use crate::auth::changes::{Change, ChangeKind, Changes, Reset};
use crate::auth::directory::KeyRecord;
use crate::auth::{Consumer, Outage};
use crate::telemetry::{Clock, Moment};
use rusqlite::Connection;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What a question comes back with.
pub(super) type Read<T> = Result<T, Outage>;

/// Revisions that are told at once.
const BATCH: u64 = 500;

/// How often the log hears of errors.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A question. Nobody waits any more when its `reply` is closed.
pub(super) enum Job {
    Changes { since: Option<u64>, reply: oneshot::Sender<Read<Changes>> },
    Consumer { username: Box<str>, reply: oneshot::Sender<Read<(Option<Consumer>, u64)>> },
    Key { id: KeyId, reply: oneshot::Sender<Read<(Option<KeyRecord>, u64)>> },
}

/// Starts the thread; it ends with the last sender of `jobs`.
pub(super) fn start(
    path: &Arc<Path>,
    clock: Clock,
    mut jobs: mpsc::Receiver<Job>,
) -> Result<(), StoreError> {
    let mut reader =
        Reader { path: Arc::clone(path), clock, open: None, file: None, told_at: None };
    std::thread::Builder::new()
        .name("store-reader".to_owned())
        .spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                reader.answer(job);
            }
        })
        .map(drop)
        .map_err(|source| StoreError::Thread { path: path.to_path_buf(), source })
}

struct Reader {
    path: Arc<Path>,
    clock: Clock,
    open: Option<Open>,
    /// The file that was open last.
    file: Option<File>,
    /// When the log was last told of an error.
    told_at: Option<Moment>,
}

/// Device and inode, to notice that another file was put in the store's place.
type File = (u64, u64);

struct Open {
    connection: Connection,
    file: File,
    /// Its changes do not go on where those of the file before ended.
    is_another: bool,
    /// `data_version` and revision when changes were last read.
    seen: Option<(i64, u64)>,
}

impl Reader {
    fn answer(&mut self, job: Job) {
        match job {
            Job::Changes { since, reply } => self.reply(reply, |open| open.changes(since)),
            Job::Consumer { username, reply } => self.reply(reply, |open| open.consumer(&username)),
            Job::Key { id, reply } => self.reply(reply, |open| open.key(id)),
        }
    }

    fn reply<T>(
        &mut self,
        reply: oneshot::Sender<Read<T>>,
        query: impl FnOnce(&mut Open) -> rusqlite::Result<T>,
    ) {
        // Who gave up waiting is not worth a query: this is what empties the queue after a stall.
        if reply.is_closed() {
            return;
        }
        let read = self.open().and_then(query).map_err(|error| {
            self.open = None;
            self.tell(error);
            Outage::Failed
        });
        // An error says that nobody waits any more.
        drop(reply.send(read));
    }

    /// Logs an error, but not each of a thousand.
    fn tell(&mut self, error: rusqlite::Error) {
        let now = self.clock.now();
        if self.told_at.is_none_or(|told| now.since(told) >= TOLD_EVERY) {
            self.told_at = Some(now);
            log::error!(error:% = StoreError::of(&self.path, error); "the store cannot be read");
        }
    }

    fn open(&mut self) -> rusqlite::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let file = identity(&self.path)?;
                let connection = file::open_for_reading(&self.path)?;
                let before = self.file.replace(file);
                let is_another = before.is_some_and(|before| before != file);
                Open { connection, file, is_another, seen: None }
            }
        };
        Ok(self.open.insert(open))
    }
}

impl Open {
    fn key(&mut self, id: KeyId) -> rusqlite::Result<(Option<KeyRecord>, u64)> {
        let sql = format!(
            "SELECT r.n, {}, {} FROM revision r LEFT JOIN keys k ON k.id = ?1 \
             LEFT JOIN consumers c ON c.id = k.consumer",
            rows::CONSUMER,
            rows::RECORD
        );
        self.connection.prepare_cached(&sql)?.query_row([id.as_str()], |row| {
            let known = row.get_ref(1)? != rusqlite::types::ValueRef::Null;
            let record = if known { Some(rows::key_record(row, 1)?) } else { None };
            Ok((record, unsigned(row.get(0)?)))
        })
    }

    fn consumer(&mut self, username: &str) -> rusqlite::Result<(Option<Consumer>, u64)> {
        let sql = format!(
            "SELECT r.n, {} FROM revision r LEFT JOIN consumers c ON c.username = ?1",
            rows::CONSUMER
        );
        self.connection.prepare_cached(&sql)?.query_row([username], |row| {
            let known = row.get_ref(1)? != rusqlite::types::ValueRef::Null;
            let consumer = if known { Some(rows::consumer(row, 1)?) } else { None };
            Ok((consumer, unsigned(row.get(0)?)))
        })
    }

    fn changes(&mut self, since: Option<u64>) -> rusqlite::Result<Changes> {
        let path = self.connection.path().unwrap_or_default().to_owned();
        if identity(Path::new(&path))? != self.file {
            return Err(rusqlite::Error::InvalidPath(path.into()));
        }
        let version: i64 = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row((), |row| row.get(0))?;
        if let (Some((seen, revision)), Some(since)) = (self.seen, since)
            && seen == version
            && revision == since
        {
            return Ok(Changes::Since { revision, changes: Vec::new(), more: false });
        }
        let tx = self.connection.transaction()?;
        let now: i64 = tx.query_row("SELECT n FROM revision", (), |row| row.get(0))?;
        let now = unsigned(now);
        let changes = match since {
            Some(since) if since <= now && !self.is_another => changes_between(&tx, since, now)?,
            _ => None,
        };
        tx.finish()?;
        self.seen = Some((version, now));
        self.is_another = false;
        Ok(changes.unwrap_or(Changes::Reset(Reset::at(now))))
    }
}

/// What happened after `since`; `None` if it is not all there any more.
fn changes_between(
    connection: &Connection,
    since: u64,
    now: u64,
) -> rusqlite::Result<Option<Changes>> {
    let upto = now.min(since.saturating_add(BATCH));
    let mut statement = connection.prepare_cached(
        "SELECT n, kind, id, at FROM changes WHERE n > ?1 AND n <= ?2 ORDER BY n",
    )?;
    let mut rows = statement.query([amount(since), amount(upto)])?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next()? {
        // A newer gateway writes to the same store: what it changed is not ours to guess.
        let Some(kind) = ChangeKind::parse(row.get_ref(1)?.as_str()?) else {
            return Ok(None);
        };
        changes.push(Change {
            revision: unsigned(row.get(0)?),
            kind,
            id: row.get(2)?,
            committed_at: Duration::from_millis(u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0)),
        });
    }
    let complete = match changes.first() {
        Some(first) => first.revision == since + 1,
        None => upto == since,
    };
    Ok(complete.then_some(Changes::Since { revision: upto, changes, more: upto < now }))
}

fn identity(path: &Path) -> rusqlite::Result<File> {
    let metadata =
        std::fs::metadata(path).map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))?;
    Ok((metadata.dev(), metadata.ino()))
}
