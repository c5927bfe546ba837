//! What can be wrong with the store's file, for those who can mend it.
//!
//! Must stay true: each message says what, where, and what to do.

use rusqlite::{ErrorCode, ffi};
use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds it.
    #[error(
        "the store `{path}` is locked by another process; `fuser {path}` shows which: \
         let it finish, then try again"
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Its pages do not fit together.
    #[error(
        "the store `{path}` is damaged ({detail}); stop the gateway, keep a copy of the file, and \
         restore a backup, or rescue what is readable with `sqlite3 {path} .recover`"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// In SQLite's words.
        detail: String,
    },
    /// Anything else.
    #[error("the store `{path}` failed ({source}); nothing was changed: try again, and report it")]
    Failed {
        /// The file.
        path: PathBuf,
        /// In SQLite's words.
        source: rusqlite::Error,
    },
    /// The folder is missing and cannot be made.
    #[error(
        "the folder `{path}` for the store cannot be made ({source}); \
         make it for the gateway's user, or let `store.path` name another place"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// In the system's words.
        source: io::Error,
    },
    /// No space left.
    #[error(
        "there is no space left for the store `{path}`; nothing was changed: \
         free some space on its disk, then try again"
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error(
        "the disk under the store `{path}` failed ({detail}); nothing was changed: \
         look at the disk and its mount (`dmesg`), then try again"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// In SQLite's words.
        detail: String,
    },
    /// Nowhere to be found, where none is to be made.
    #[error(
        "there is no store at `{path}`; `gateway run` and `gateway consumers add` make one, but if \
         there was one, put its file back first: gateways that run would take the new one for it"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// From the future.
    #[error(
        "the store `{path}` was written by a newer gateway (its schema is {found}, this gateway \
         knows {known}); run the newer version, or restore a backup from before the update"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Something else's file.
    #[error(
        "the file `{path}` is not a store of this gateway ({detail}); \
         let `store.path` name another file"
    )]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// How one can tell.
        detail: String,
    },
    /// The process ends.
    #[error("the store `{path}` is closed, because the process ends; try again once it runs")]
    Stopped {
        /// The file.
        path: PathBuf,
    },
    /// No thread for look-ups.
    #[error(
        "no thread could be started to read the store `{path}` ({source}); \
         raise the limit on processes or threads"
    )]
    Thread {
        /// The file.
        path: PathBuf,
        /// In the system's words.
        source: io::Error,
    },
    /// No permission, a folder in its place, or a read-only disk.
    #[error(
        "the store `{path}` cannot be opened for writing ({detail}); it must be a file that the \
         gateway's user may write, in a folder that this user may write: change that, or \
         `store.path`"
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// In the system's words.
        detail: String,
    },
}

impl StoreError {
    /// What an error of SQLite means for the store at `path`.
    pub(super) fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let detail = source.to_string();
        // The file that readers and writers share in memory could not grow.
        if source.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE) {
            return Self::Full { path };
        }
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt { path, detail },
            Some(ErrorCode::NotADatabase) => Self::NotAStore { path, detail },
            Some(ErrorCode::SystemIoFailure) => Self::Io { path, detail },
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::Unwritable { path, detail }
            }
            _ => Self::Failed { path, source },
        }
    }
}
