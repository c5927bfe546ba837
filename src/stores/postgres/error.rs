//! What can be wrong with PostgreSQL, for those who can mend it, and what it means for the connection
//! that it was met on.
//!
//! Must stay true: each message says what, where, and what to do; none holds a password.

use crate::auth::Outage;
use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Error;

/// What a connection is told that somebody ends (`pg_terminate_backend`), or that the server ends as it
/// stops.
const ADMIN_SHUTDOWN: &str = "57P01";

/// Why PostgreSQL cannot do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PostgresError {
    /// Too many wait for it already.
    #[error(
        "too many requests wait for PostgreSQL at `{at}` already; try again, and if that lasts, give \
         it more connections or a faster machine"
    )]
    Busy {
        /// Where.
        at: Arc<str>,
    },
    /// A migration that was applied is not the one that this gateway knows.
    #[error(
        "migration {version} of the database `{at}` (`{name}`) is not the one that this gateway has: \
         their checksums differ; run the gateway that made the schema, or restore a backup"
    )]
    Changed {
        /// Where.
        at: Arc<str>,
        /// Which.
        version: i32,
        /// Its name.
        name: String,
    },
    /// Another transaction was in the way.
    #[error("PostgreSQL at `{at}` gave way to another write ({detail}); try again")]
    Conflict {
        /// Where.
        at: Arc<str>,
        /// In its words.
        detail: String,
    },
    /// It has no connection left.
    #[error(
        "PostgreSQL at `{at}` takes no more connections ({detail}); raise `max_connections`, or lower \
         the number of gateways or the connections of each"
    )]
    Crowded {
        /// Where.
        at: Arc<str>,
        /// In its words.
        detail: String,
    },
    /// User, password, or database.
    #[error(
        "PostgreSQL at `{at}` does not let the gateway in ({detail}); check user, password and \
         database in its URL, and the server's `pg_hba.conf`"
    )]
    Denied {
        /// Where.
        at: Arc<str>,
        /// In its words.
        detail: String,
    },
    /// Anything else.
    #[error(
        "PostgreSQL at `{at}` failed ({detail}); nothing was changed: try again, and report it"
    )]
    Failed {
        /// Where.
        at: Arc<str>,
        /// The SQLSTATE, if it gave one.
        code: Option<String>,
        /// In its words.
        detail: String,
    },
    /// Rights are missing.
    #[error(
        "the gateway's user may not do this in the database `{at}` ({detail}); grant it SELECT, \
         INSERT, UPDATE and DELETE on the gateway's tables, and for `gateway migrate` CREATE"
    )]
    Forbidden {
        /// Where.
        at: Arc<str>,
        /// In its words.
        detail: String,
    },
    /// No space left.
    #[error(
        "there is no space left for PostgreSQL at `{at}` ({detail}); nothing was changed: give it \
         some, then try again"
    )]
    Full {
        /// Where.
        at: Arc<str>,
        /// In its words.
        detail: String,
    },
    /// Another process migrates, and does not end.
    #[error(
        "another `gateway migrate` holds the database `{at}` for longer than {} s; `SELECT * FROM \
         pg_locks WHERE locktype = 'advisory'` shows which: let it finish, then try again",
        within.as_secs()
    )]
    Locked {
        /// Where.
        at: Arc<str>,
        /// How long it was waited for.
        within: Duration,
    },
    /// The connection broke.
    #[error("PostgreSQL at `{at}` went away ({detail}); nothing was changed: try again")]
    Lost {
        /// Where.
        at: Arc<str>,
        /// In the words of the system or the server.
        detail: String,
    },
    /// A schema that a later version made.
    #[error(
        "the database `{at}` belongs to a newer gateway (its schema is {found}, which does not serve \
         this one any more, that knows {known}); run the newer version, or restore a backup from before \
         the update"
    )]
    Newer {
        /// Where.
        at: Arc<str>,
        /// Its schema.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// A schema that an earlier version made, or none.
    #[error(
        "the database `{at}` is not ready for this gateway ({found}, this gateway needs schema \
         {known}); run `gateway migrate` once, with the same settings"
    )]
    Older {
        /// Where.
        at: Arc<str>,
        /// What was found.
        found: String,
        /// Ours.
        known: i32,
    },
    /// Read-only, or a replica where the primary should be.
    #[error(
        "PostgreSQL at `{at}` takes no writes ({detail}); if a replica was promoted, let the URL name \
         it, or all servers of the cluster"
    )]
    ReadOnly {
        /// Where.
        at: Arc<str>,
        /// How one can tell.
        detail: String,
    },
    /// The process ends.
    #[error("PostgreSQL at `{at}` is not asked any more, because the process ends")]
    Stopped {
        /// Where.
        at: Arc<str>,
    },
    /// More look-ups than are allowed.
    #[error(
        "more look-ups in a second than PostgreSQL at `{at}` is to be asked; if they are wanted, raise \
         the limit"
    )]
    Throttled {
        /// Where.
        at: Arc<str>,
    },
    /// No answer.
    #[error(
        "PostgreSQL at `{at}` did not answer within {} ms; check its load and what lies between",
        within.as_millis()
    )]
    Timeout {
        /// Where.
        at: Arc<str>,
        /// How long it was waited for.
        within: Duration,
    },
    /// No trust.
    #[error(
        "PostgreSQL at `{at}` cannot be reached over TLS ({detail}); give the certificate of its \
         authority (`sslrootcert=PATH`), use the name that is in its certificate, or, only where the \
         way to it is private, write `sslmode=disable` into its URL"
    )]
    Tls {
        /// Where.
        at: Arc<str>,
        /// In the words of TLS.
        detail: String,
    },
    /// No connection.
    #[error(
        "PostgreSQL at `{at}` cannot be reached ({detail}); check that it runs, its address, and what \
         lies between"
    )]
    Unreachable {
        /// Where.
        at: Arc<str>,
        /// In the system's words.
        detail: String,
    },
    /// A row that no gateway writes, or none where there must be one.
    #[error(
        "the database `{at}` holds what no gateway wrote ({detail}); mend or remove that row, or \
         restore a backup"
    )]
    Unreadable {
        /// Where.
        at: Arc<str>,
        /// Which row and column, and why; never the value.
        detail: String,
    },
    /// The connection broke while a change was made final.
    #[error(
        "PostgreSQL at `{at}` went away ({detail}) and whether the change was made is not known: look, \
         then try again"
    )]
    Unsure {
        /// Where.
        at: Arc<str>,
        /// In the words of the system or the server.
        detail: String,
    },
}

/// What a failure says of the connection, or of the server behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This connection is of no use any more.
    Gone,
    /// It works.
    Kept,
    /// It works, but its server is not what it should be, nor is it for the others.
    Wrong,
}

impl PostgresError {
    /// Whether it may be over by itself soon: the server is on its way up, or fails over.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. }
                | Self::Crowded { .. }
                | Self::Lost { .. }
                | Self::ReadOnly { .. }
                | Self::Timeout { .. }
                | Self::Unreachable { .. }
        )
    }

    /// What an error of a connection that stood means.
    pub(super) fn of(at: &Arc<str>, error: &Error) -> Self {
        let at = Arc::clone(at);
        match error.as_db_error() {
            Some(answer) => Self::of_state(at, answer.code().code(), answer.message()),
            None if error.is_closed() || has_io(error) => Self::Lost { at, detail: words(error) },
            None => Self::Failed { at, code: None, detail: words(error) },
        }
    }

    /// What an error on the way to a connection means.
    pub(super) fn of_dial(at: &Arc<str>, error: &Error) -> Self {
        if let Some(answer) = error.as_db_error() {
            // Somebody ended this one connection; the server is there, and takes another.
            let is_ended = answer.code().code() == ADMIN_SHUTDOWN;
            return match Self::of(at, error) {
                Self::Lost { at, detail } if !is_ended => Self::Unreachable { at, detail },
                other => other,
            };
        }
        let (at, detail) = (Arc::clone(at), words(error));
        if detail.starts_with("error performing TLS handshake") {
            Self::Tls { at, detail }
        } else if detail.starts_with("authentication error")
            || detail.starts_with("invalid configuration")
        {
            Self::Denied { at, detail }
        } else {
            Self::Unreachable { at, detail }
        }
    }

    fn of_state(at: Arc<str>, code: &str, message: &str) -> Self {
        let detail = message.to_owned();
        match code {
            "25006" | "25007" => Self::ReadOnly { at, detail },
            // What a server in recovery says when it is asked where it writes.
            "55000" => Self::ReadOnly { at, detail },
            "28000" | "28P01" | "3D000" => Self::Denied { at, detail },
            "40001" | "40P01" | "23505" | "55P03" => Self::Conflict { at, detail },
            "42501" => Self::Forbidden { at, detail },
            "53100" => Self::Full { at, detail },
            "53300" => Self::Crowded { at, detail },
            "42P01" | "42703" | "3F000" => {
                Self::Older { at, found: detail, known: super::migrate::KNOWN }
            }
            // Statements that were prepared before the schema changed, or that somebody dropped.
            "0A000" | "26000" | ADMIN_SHUTDOWN | "57P02" | "57P03" | "57P05" | "25P03" => {
                Self::Lost { at, detail }
            }
            _ if code.starts_with("08") => Self::Lost { at, detail },
            _ => Self::Failed { at, code: Some(code.to_owned()), detail },
        }
    }

    /// What it says of the connection.
    pub(super) const fn verdict(&self) -> Verdict {
        match self {
            Self::ReadOnly { .. } => Verdict::Wrong,
            Self::Lost { .. } | Self::Unsure { .. } | Self::Timeout { .. } => Verdict::Gone,
            _ => Verdict::Kept,
        }
    }

    /// Whether the same again may do, on another connection, as nothing was changed.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Lost { .. } | Self::ReadOnly { .. })
    }

    /// Whether the server as a whole cannot be used, and not only what it was asked for.
    pub(super) const fn is_of_server(&self) -> bool {
        matches!(
            self,
            Self::Crowded { .. }
                | Self::Denied { .. }
                | Self::Lost { .. }
                | Self::ReadOnly { .. }
                | Self::Timeout { .. }
                | Self::Tls { .. }
                | Self::Unreachable { .. }
        )
    }

    /// The SQLSTATE, where none of ours fits.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Failed { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// As the request path hears it.
    pub(super) const fn outage(&self) -> Outage {
        match self {
            Self::Busy { .. } | Self::Throttled { .. } => Outage::Busy,
            Self::Timeout { .. } => Outage::Timeout,
            _ => Outage::Failed,
        }
    }

    /// A row that does not hold what it should.
    pub(super) fn odd_row(at: &Arc<str>, detail: String) -> Self {
        Self::Unreadable { at: Arc::clone(at), detail }
    }
}

/// The error and all that it came from.
fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a `String` cannot fail.
        if write!(text, ": {cause}").is_err() {
            break;
        }
        source = cause.source();
    }
    text
}

fn has_io(error: &Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<std::io::Error>() {
            return true;
        }
        source = cause.source();
    }
    false
}
