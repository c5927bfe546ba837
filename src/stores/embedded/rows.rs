//! Rows to values and back.

use crate::auth::api_key::{KeyDigest, KeyId, PepperVersion};
use crate::auth::directory::KeyRecord;
use crate::auth::registry::{ConsumerInfo, KeyInfo};
use crate::auth::{Consumer, UnixTime, parse_network};
use ipnet::IpNet;
use rusqlite::Row;
use rusqlite::types::{FromSqlError, Type};
use serde_json::Value;
use std::sync::Arc;

/// Columns of [`consumer_info`].
pub(super) const CONSUMER: &str =
    "c.id, c.username, c.custom_id, c.plan, c.enabled, c.created_at, c.policies";
/// Columns of [`key_info`].
pub(super) const KEY: &str = "k.id, c.username, k.name, k.plan, k.scopes, k.created_at, \
                              k.not_before, k.expires_at, k.revoked_at, k.pepper, \
                              k.addresses, k.last_used_at";
/// Columns of [`key_record`], behind those of [`CONSUMER`].
pub(super) const RECORD: &str = "k.id, k.digest, k.pepper, k.plan, k.scopes, k.not_before, k.expires_at, \
                                 k.revoked_at, k.addresses";

/// A consumer whose columns begin at `first`.
pub(super) fn consumer(row: &Row<'_>, first: usize) -> rusqlite::Result<Consumer> {
    Ok(Consumer {
        id: row.get(first)?,
        username: row.get(first + 1)?,
        custom_id: row.get(first + 2)?,
        plan: row.get(first + 3)?,
        policies: names(&row.get::<_, String>(first + 6)?),
        enabled: row.get(first + 4)?,
    })
}

pub(super) fn consumer_info(row: &Row<'_>) -> rusqlite::Result<ConsumerInfo> {
    Ok(ConsumerInfo { consumer: consumer(row, 0)?, created_at: unix_time(row.get(5)?) })
}

/// A key with its consumer; the consumer's columns begin at `first`.
pub(super) fn key_record(row: &Row<'_>, first: usize) -> rusqlite::Result<KeyRecord> {
    let key = first + 7;
    Ok(KeyRecord {
        consumer: Arc::new(consumer(row, first)?),
        id: key_id(row, key)?,
        digest: KeyDigest::from_bytes(row.get(key + 1)?),
        pepper: PepperVersion::from_u32(row.get(key + 2)?),
        plan: row.get(key + 3)?,
        scopes: names(&row.get::<_, String>(key + 4)?),
        not_before: row.get::<_, Option<i64>>(key + 5)?.map(unix_time),
        expires_at: row.get::<_, Option<i64>>(key + 6)?.map(unix_time),
        revoked_at: row.get::<_, Option<i64>>(key + 7)?.map(unix_time),
        addresses: networks(row, key + 8)?,
    })
}

pub(super) fn key_info(row: &Row<'_>) -> rusqlite::Result<KeyInfo> {
    Ok(KeyInfo {
        id: key_id(row, 0)?,
        consumer: row.get(1)?,
        name: row.get(2)?,
        plan: row.get(3)?,
        scopes: names(&row.get::<_, String>(4)?),
        created_at: unix_time(row.get(5)?),
        not_before: row.get::<_, Option<i64>>(6)?.map(unix_time),
        expires_at: row.get::<_, Option<i64>>(7)?.map(unix_time),
        revoked_at: row.get::<_, Option<i64>>(8)?.map(unix_time),
        pepper: PepperVersion::from_u32(row.get(9)?),
        addresses: networks(row, 10)?,
        last_used_at: row.get::<_, Option<i64>>(11)?.map(unix_time),
    })
}

fn key_id(row: &Row<'_>, column: usize) -> rusqlite::Result<KeyId> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        let error = FromSqlError::other(error);
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// Networks stand in one column with spaces between them. One that cannot be read is an error: without
/// it the key would work from elsewhere.
fn networks(row: &Row<'_>, column: usize) -> rusqlite::Result<Arc<[IpNet]>> {
    let text: String = row.get(column)?;
    let networks: Result<_, _> = text.split_ascii_whitespace().map(parse_network).collect();
    networks.map_err(|error| {
        let error = FromSqlError::other(error);
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// Names stand in one column with spaces between them; no name has one.
fn names(text: &str) -> Arc<[Arc<str>]> {
    text.split_ascii_whitespace().map(Arc::from).collect()
}

/// A time before 1970 counts as 1970.
pub(super) fn unix_time(secs: i64) -> UnixTime {
    UnixTime::from_secs(u64::try_from(secs).unwrap_or_default())
}

/// A time as it is stored.
pub(super) fn stored(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// A count or a revision as it was stored.
pub(super) fn unsigned(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or_default()
}

/// A count or a revision as it is stored.
pub(super) fn amount(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A number of rows as a parameter.
pub(super) fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// JSON that stands in a column as text.
pub(super) fn json(row: &Row<'_>, column: usize) -> rusqlite::Result<Value> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}
