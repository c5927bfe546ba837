//! The file: making it, opening it, and bringing it up to date.

use super::error::StoreError;
use super::schema::VERSIONS;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// In the file's header, tells our stores from other SQLite files ("DHGW").
pub(super) const APPLICATION: i64 = 0x4448_4757;
/// The version of the schema that this gateway writes.
pub(super) const SCHEMA_VERSION: i64 = VERSIONS.len() as i64;
/// How long a write waits for another process's write.
const WRITE_WAIT: Duration = Duration::from_secs(5);
/// How long a read waits; in a write-ahead log it hardly ever has to.
const READ_WAIT: Duration = Duration::from_millis(50);
/// The first switch to the write-ahead log does not wait by itself.
const SWITCH_TRIES: u32 = 100;
const SWITCH_PAUSE: Duration = Duration::from_millis(20);

/// Opens the file for writing, and makes it if need be.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    create(path)?;
    open_for_writing(path)
}

/// Opens the file for writing where there is one.
pub(super) fn open_existing(path: &Path) -> Result<Connection, StoreError> {
    let found = std::fs::metadata(path);
    // An empty file is what is left of a store, or what one is made of: no store either way.
    if found.as_ref().is_ok_and(|file| file.is_file() && file.len() == 0)
        || found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        return Err(StoreError::Missing { path: path.to_owned() });
    }
    open_for_writing(path)
}

fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| StoreError::of(path, error);
    let mut connection = connect(path).map_err(failed)?;
    connection.busy_timeout(WRITE_WAIT).map_err(failed)?;
    if connection.is_readonly("main").map_err(failed)? {
        let detail = "no permission to write".to_owned();
        return Err(StoreError::Unwritable { path: path.to_owned(), detail });
    }
    check_kind(path, &connection)?;
    set_up(&connection).map_err(failed)?;
    migrate(path, &mut connection)?;
    Ok(connection)
}

/// Opens the file for reading.
pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    connection.busy_timeout(READ_WAIT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Never made by SQLite: it would not make it private.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// Makes folder and file, readable by nobody else. An existing file is not even opened: closing it
/// would drop the locks that SQLite may hold on it in this process.
fn create(path: &Path) -> Result<(), StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            Err(StoreError::Full { path: path.to_owned() })
        }
        Err(error) => {
            Err(StoreError::Unwritable { path: path.to_owned(), detail: error.to_string() })
        }
    }
}

/// Refuses a file that is not ours, before anything is written to it.
fn check_kind(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let failed = |error| StoreError::of(path, error);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .map_err(failed)?;
    let application = number("application_id").map_err(failed)?;
    let found = number("user_version").map_err(failed)?;
    let path = path.to_owned();
    match application {
        APPLICATION if found > SCHEMA_VERSION => {
            Err(StoreError::Newer { path, found, known: SCHEMA_VERSION })
        }
        APPLICATION => Ok(()),
        0 if tables == 0 => Ok(()),
        _ => {
            let detail = format!("application id {application:#x}, {tables} tables");
            Err(StoreError::NotAStore { path, detail })
        }
    }
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    let mut tries = 0;
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(error) if is_busy(&error) && tries < SWITCH_TRIES => tries += 1,
            Err(error) => return Err(error),
            Ok(()) => break,
        }
        std::thread::sleep(SWITCH_PAUSE);
    }
    // A power failure must not bring a revoked key back.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Brings the schema up to date; of two processes that try, one finds it done.
fn migrate(path: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    let failed = |error| StoreError::of(path, error);
    let tx =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    check_kind(path, &tx)?;
    let found: i64 =
        tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found < SCHEMA_VERSION {
        let done = usize::try_from(found).unwrap_or_default();
        for version in VERSIONS.iter().skip(done) {
            tx.execute_batch(version).map_err(failed)?;
        }
        tx.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
    }
    tx.commit().map_err(failed)
}
