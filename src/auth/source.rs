//! The port to whoever keeps keys and consumers.
//!
//! Must stay true: an answer says at which revision of the store it was read, in one statement with the
//! row; an outage, and a copy that lacks a row, are not the same as "unknown".

use super::api_key::{KeyDigest, KeyId, PepperVersion};
use super::denied::Outage;
use super::identity::{Consumer, UnixTime};
use async_trait::async_trait;
use ipnet::IpNet;
use std::sync::Arc;

/// A key's row, with its consumer's.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// By which it was found.
    pub id: KeyId,
    /// By which it is proved.
    pub digest: KeyDigest,
    /// The pepper of `digest`.
    pub pepper: PepperVersion,
    /// Whose it is.
    pub consumer: Arc<Consumer>,
    /// Its own plan, instead of the consumer's.
    pub plan: Option<Arc<str>>,
    /// What it may do.
    pub scopes: Arc<[Arc<str>]>,
    /// Networks, in one of which the client's address must be; from anywhere if there are none.
    pub addresses: Arc<[IpNet]>,
    /// When it begins.
    pub not_before: Option<UnixTime>,
    /// When it ends.
    pub expires_at: Option<UnixTime>,
    /// When it was taken back.
    pub revoked_at: Option<UnixTime>,
}

/// A row, and the revision of the store that it was read at, in one statement.
#[derive(Clone, Debug)]
pub enum Answer<T> {
    /// This is it.
    Known {
        /// The row.
        row: T,
        /// Where the store stood.
        revision: u64,
    },
    /// Nobody can say.
    Unavailable(Outage),
    /// This copy does not have the row; that says nothing about the others.
    Absent,
    /// There is no such row.
    Unknown {
        /// Where the store stood.
        revision: u64,
    },
}

/// The port to whoever keeps keys and consumers, in one copy or in several.
///
/// Each copy answers within a deadline of its own, so that all of them together stay within
/// [`LOOKUP_DEADLINE`](super::directory::LOOKUP_DEADLINE).
#[async_trait]
pub trait Source: Send + Sync {
    /// How many copies there are. The first is the nearest, and may be behind; the last is the
    /// authority. What a copy does not know, or no longer knows, the next one is asked.
    fn copies(&self) -> usize {
        1
    }

    /// From now on the revisions of the store are those of this history. What a copy has kept from
    /// another one is not an answer any more.
    fn begin_history(&self, _history: u64) {}

    /// The key of this id, as this copy has it.
    async fn look_up_key(&self, id: KeyId, copy: usize) -> Answer<KeyRecord>;

    /// The consumer of this name, as this copy has it.
    async fn look_up_consumer(&self, username: &str, copy: usize) -> Answer<Consumer>;
}
