//! The tables of the file, as they became from version to version.
//!
//! Must stay true: a version that was shipped is never changed; what is new comes as a version of its
//! own, and brings a file of any version before it up to date.

/// What brings a file from the version before to this one; the first makes an empty file a store.
/// A change that older gateways cannot live with is a new version.
///
/// Times are seconds since 1970, except for `changes.at`, which is milliseconds; days are days since
/// 1970. Lists of names stand in one column with spaces between them.
pub(super) const VERSIONS: [&str; 3] = [
    "
CREATE TABLE consumers (
    id         TEXT PRIMARY KEY,
    username   TEXT NOT NULL UNIQUE,
    custom_id  TEXT UNIQUE,
    plan       TEXT NOT NULL,
    enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE keys (
    id         TEXT PRIMARY KEY CHECK (length(id) = 16),
    consumer   TEXT NOT NULL REFERENCES consumers (id) ON DELETE CASCADE,
    name       TEXT,
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    pepper     INTEGER NOT NULL,
    plan       TEXT,
    scopes     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    not_before INTEGER,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE INDEX keys_by_consumer ON keys (consumer, id);
CREATE TABLE revision (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    n   INTEGER NOT NULL
) STRICT;
INSERT INTO revision VALUES (1, 0);
CREATE TABLE changes (
    n    INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id   TEXT NOT NULL,
    at   INTEGER NOT NULL,
    PRIMARY KEY (n, kind, id)
) STRICT, WITHOUT ROWID;
",
    "
ALTER TABLE consumers ADD COLUMN policies TEXT NOT NULL DEFAULT '';
CREATE TABLE documents (
    kind       TEXT NOT NULL CHECK (kind IN ('plan', 'policy')),
    name       TEXT NOT NULL,
    body       TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE denials (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    issuer        TEXT NOT NULL,
    jti           TEXT,
    subject       TEXT,
    issued_before INTEGER,
    until         INTEGER NOT NULL,
    reason        TEXT,
    created_at    INTEGER NOT NULL,
    CHECK ((jti IS NULL) = (subject IS NOT NULL)),
    CHECK ((subject IS NULL) = (issued_before IS NULL))
) STRICT;
CREATE INDEX denials_by_end ON denials (until);
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;
CREATE TABLE usage (
    day      INTEGER NOT NULL,
    consumer TEXT NOT NULL,
    class    TEXT NOT NULL,
    username TEXT NOT NULL,
    admitted INTEGER NOT NULL,
    refused  INTEGER NOT NULL,
    PRIMARY KEY (day, consumer, class)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage_batches (
    task   BLOB PRIMARY KEY CHECK (length(task) = 16),
    number INTEGER NOT NULL,
    at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE quotas (
    rule    TEXT NOT NULL,
    subject BLOB NOT NULL CHECK (length(subject) = 16),
    period  INTEGER NOT NULL,
    ends    INTEGER NOT NULL,
    used    INTEGER NOT NULL,
    PRIMARY KEY (rule, subject, period)
) STRICT, WITHOUT ROWID;
CREATE INDEX quotas_by_end ON quotas (ends);
CREATE TABLE tasks (
    task    BLOB PRIMARY KEY CHECK (length(task) = 16),
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
    "
ALTER TABLE keys ADD COLUMN addresses TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN last_used_at INTEGER;
",
];
