//! A key as the directory keeps it: what proves it, and whom it is for.

use super::api_key::{KeyDigest, PepperVersion};
use super::identity::{Caller, UnixTime};
use super::shelf::Entry;
use super::uses::LastUse;
use ipnet::IpNet;
use std::sync::Arc;

/// A key, ready to be compared.
#[derive(Debug)]
pub(super) struct KnownKey {
    pub(super) digest: KeyDigest,
    pub(super) pepper: PepperVersion,
    pub(super) not_before: Option<UnixTime>,
    pub(super) expires_at: Option<UnixTime>,
    pub(super) revoked_at: Option<UnixTime>,
    pub(super) addresses: Arc<[IpNet]>,
    pub(super) caller: Arc<Caller>,
    /// Stays when the row is read again.
    pub(super) last_use: Arc<LastUse>,
}

/// A key as it is cached.
pub(super) type KeyEntry = Arc<Entry<KnownKey>>;
