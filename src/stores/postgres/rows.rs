//! Rows to values and back.

use super::error::PostgresError;
use crate::auth::api_key::{KeyDigest, KeyId, PepperVersion};
use crate::auth::directory::KeyRecord;
use crate::auth::registry::{ConsumerInfo, KeyInfo, Page};
use crate::auth::{Consumer, UnixTime, parse_network};
use ipnet::IpNet;
use std::error::Error as _;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

/// Columns of [`consumer`], and behind them that of [`consumer_info`].
pub(super) const CONSUMER: &str =
    "c.id, c.username, c.custom_id, c.plan, c.policies, c.enabled, c.created_at";
/// How many they are.
pub(super) const CONSUMER_COLUMNS: usize = 7;
/// Columns of [`key_info`].
pub(super) const KEY: &str = "k.id, c.username, k.name, k.plan, k.scopes, k.created_at, \
                              k.not_before, k.expires_at, k.revoked_at, k.pepper, \
                              k.addresses, k.last_used_at";
/// Columns of [`key_record`], behind those of [`CONSUMER`].
pub(super) const RECORD: &str = "k.id, k.digest, k.pepper, k.plan, k.scopes, k.not_before, k.expires_at, \
                                 k.revoked_at, k.addresses";

/// Rows of a server, so that an error says where it was met.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    pub(super) at: &'r Arc<str>,
    pub(super) row: &'r Row,
}

impl<'r> Reader<'r> {
    pub(super) fn new(at: &'r Arc<str>, row: &'r Row) -> Self {
        Self { at, row }
    }

    /// The value of a column.
    pub(super) fn get<T: FromSql<'r>>(self, column: usize) -> Result<T, PostgresError> {
        self.row.try_get(column).map_err(|error| {
            let cause = error.source().map(ToString::to_string);
            self.unreadable(column, &cause.unwrap_or_else(|| "it has another type".to_owned()))
        })
    }

    pub(super) fn text(self, column: usize) -> Result<Arc<str>, PostgresError> {
        self.get::<&str>(column).map(Arc::from)
    }

    pub(super) fn text_or_none(self, column: usize) -> Result<Option<Arc<str>>, PostgresError> {
        Ok(self.get::<Option<&str>>(column)?.map(Arc::from))
    }

    fn texts(self, column: usize) -> Result<Arc<[Arc<str>]>, PostgresError> {
        Ok(self.get::<Vec<&str>>(column)?.into_iter().map(Arc::from).collect())
    }

    /// A number that is never below zero.
    pub(super) fn number(self, column: usize) -> Result<u64, PostgresError> {
        self.get(column).map(unsigned)
    }

    /// A time before 1970 counts as 1970.
    pub(super) fn time(self, column: usize) -> Result<UnixTime, PostgresError> {
        self.number(column).map(UnixTime::from_secs)
    }

    pub(super) fn time_or_none(self, column: usize) -> Result<Option<UnixTime>, PostgresError> {
        Ok(self.get::<Option<i64>>(column)?.map(|secs| UnixTime::from_secs(unsigned(secs))))
    }

    fn key_id(self, column: usize) -> Result<KeyId, PostgresError> {
        self.get::<&str>(column)?.parse().map_err(|_| self.odd(column))
    }

    /// One that cannot be read is an error: without it the key would work from elsewhere.
    fn networks(self, column: usize) -> Result<Arc<[IpNet]>, PostgresError> {
        let texts = self.get::<Vec<&str>>(column)?;
        texts.into_iter().map(parse_network).collect::<Result<_, _>>().map_err(|_| self.odd(column))
    }

    pub(super) fn pepper(self, column: usize) -> Result<PepperVersion, PostgresError> {
        let stored = u32::try_from(self.get::<i64>(column)?).map_err(|_| self.odd(column))?;
        Ok(PepperVersion::from_u32(stored))
    }

    fn digest(self, column: usize) -> Result<KeyDigest, PostgresError> {
        let stored = self.get::<&[u8]>(column)?.try_into().map_err(|_| self.odd(column))?;
        Ok(KeyDigest::from_bytes(stored))
    }

    /// A value that cannot stand there; it is not shown.
    pub(super) fn odd(self, column: usize) -> PostgresError {
        self.unreadable(column, "it has a value that cannot be")
    }

    fn unreadable(self, column: usize, problem: &str) -> PostgresError {
        let name = self.row.columns().get(column).map_or("?", |column| column.name());
        let row = self.name().map_or_else(|| "a row".to_owned(), |row| format!("the row `{row}`"));
        PostgresError::odd_row(self.at, format!("`{name}` of {row} cannot be read: {problem}"))
    }

    /// What the row is called: by the last of its ids, since a key stands behind its consumer.
    fn name(self) -> Option<String> {
        let columns = self.row.columns();
        let named = |name: &str| columns.iter().rposition(|column| column.name() == name);
        let column = named("id").or_else(|| named("name"))?;
        let number = || self.row.try_get(column).ok().map(|number: i64| number.to_string());
        self.row.try_get(column).ok().or_else(number)
    }
}

/// A consumer whose columns begin at `first`.
pub(super) fn consumer(row: Reader<'_>, first: usize) -> Result<Consumer, PostgresError> {
    Ok(Consumer {
        id: row.text(first)?,
        username: row.text(first + 1)?,
        custom_id: row.text_or_none(first + 2)?,
        plan: row.text(first + 3)?,
        policies: row.texts(first + 4)?,
        enabled: row.get(first + 5)?,
    })
}

pub(super) fn consumer_info(row: Reader<'_>) -> Result<ConsumerInfo, PostgresError> {
    Ok(ConsumerInfo { consumer: consumer(row, 0)?, created_at: row.time(6)? })
}

/// A key with its consumer; the consumer's columns begin at `first`.
pub(super) fn key_record(row: Reader<'_>, first: usize) -> Result<KeyRecord, PostgresError> {
    let key = first + CONSUMER_COLUMNS;
    Ok(KeyRecord {
        consumer: Arc::new(consumer(row, first)?),
        id: row.key_id(key)?,
        digest: row.digest(key + 1)?,
        pepper: row.pepper(key + 2)?,
        plan: row.text_or_none(key + 3)?,
        scopes: row.texts(key + 4)?,
        not_before: row.time_or_none(key + 5)?,
        expires_at: row.time_or_none(key + 6)?,
        revoked_at: row.time_or_none(key + 7)?,
        addresses: row.networks(key + 8)?,
    })
}

pub(super) fn key_info(row: Reader<'_>) -> Result<KeyInfo, PostgresError> {
    Ok(KeyInfo {
        id: row.key_id(0)?,
        consumer: row.text(1)?,
        name: row.text_or_none(2)?,
        plan: row.text_or_none(3)?,
        scopes: row.texts(4)?,
        created_at: row.time(5)?,
        not_before: row.time_or_none(6)?,
        expires_at: row.time_or_none(7)?,
        revoked_at: row.time_or_none(8)?,
        pepper: row.pepper(9)?,
        addresses: row.networks(10)?,
        last_used_at: row.time_or_none(11)?,
    })
}

/// A time as it is stored.
pub(super) fn stored(time: UnixTime) -> i64 {
    amount(time.as_secs())
}

/// A number as it is stored.
pub(super) fn amount(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A length as it is stored.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that is never below zero.
pub(super) fn unsigned(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or_default()
}

/// A name as PostgreSQL can be asked for it. No text in it has a zero, so nothing is called by a name
/// that has one, nor is anything called by none.
pub(super) fn askable(name: &str) -> &str {
    if name.contains('\0') { "" } else { name }
}

/// Where a page begins, and its length. Since no name has a zero, those behind one that had are those
/// behind what stands before it.
pub(super) fn bounds(page: Page<'_>) -> (String, i64) {
    let after = page.after.unwrap_or_default();
    (after.split('\0').next().unwrap_or_default().to_owned(), count(page.limit))
}
