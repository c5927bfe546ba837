//! From the text of a key to its caller.
//!
//! The digest is made once it is known under which pepper the key was stored: the one in use, or one
//! before it. A key under a previous one is noted to be digested anew ([`super::uses`]).
//!
//! Must stay true: neither allocates nor waits for a key that is known; an unknown key, a wrong secret
//! and an unknown pepper cost the same work.

use super::api_key::{KeyDigest, KeyForm, ParsedKey, Standing};
use super::denied::{Denied, InvalidReason};
use super::directory::{Directory, Lookup};
use super::identity::{Caller, Method, UnixTime};
use super::known_key::{KeyEntry, KnownKey};
use super::uses::Redigest;
use crate::telemetry::{Clock, Moment};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often the log hears of keys of another pepper.
const TOLD_EVERY: Duration = Duration::from_secs(60);

type Identified = Result<Arc<Caller>, Denied>;

/// Proves keys under one configuration.
pub(super) struct KeyProver {
    form: KeyForm,
    directory: Arc<Directory>,
    clock: Clock,
    /// When the log was told of a key of another pepper, in nanoseconds; zero before that.
    pepper_told_at: AtomicU64,
}

impl KeyProver {
    pub(super) const fn new(form: KeyForm, directory: Arc<Directory>, clock: Clock) -> Self {
        Self { form, directory, clock, pepper_told_at: AtomicU64::new(0) }
    }

    /// The caller with this key, if the key is at hand.
    pub(super) fn by_cached_key(&self, text: &[u8], client: IpAddr) -> Option<Identified> {
        let key = match self.form.parse(text) {
            Ok(key) => key,
            Err(reason) => return Some(Err(invalid(reason))),
        };
        self.directory.glance_key(key.id()).map(|found| self.prove(key, &found, client))
    }

    /// The caller with this key.
    pub(super) async fn by_key(&self, text: &[u8], client: IpAddr) -> Identified {
        let key = self.form.parse(text).map_err(invalid)?;
        self.prove(key, &self.directory.find_key(key.id()).await, client)
    }

    /// Whether this key was good when it was last looked up, not long ago.
    pub(super) fn remembers(&self, text: &[u8], client: IpAddr) -> bool {
        let Ok(key) = self.form.parse(text) else { return false };
        let Some(entry) = self.directory.remembered_key(key.id()) else { return false };
        let digest = self.form.digest_under(key, entry.value.pepper);
        digest.is_some_and(|digest| entry.value.digest.matches(&digest))
            && check(&entry.value, UnixTime::now(&self.clock), client).is_ok()
    }

    fn prove(&self, key: ParsedKey<'_>, found: &Lookup<KeyEntry>, client: IpAddr) -> Identified {
        let known = match found {
            Lookup::Known(entry) => &entry.value,
            Lookup::Unavailable(outage) => return Err(Denied::Unavailable(*outage)),
            Lookup::Unknown => {
                self.waste(key);
                return Err(invalid(InvalidReason::Unknown));
            }
        };
        let Some(digest) = self.form.digest_under(key, known.pepper) else {
            self.waste(key);
            self.tell_of_pepper();
            return Err(invalid(InvalidReason::Pepper));
        };
        if !known.digest.matches(&digest) {
            return Err(invalid(InvalidReason::Secret));
        }
        let now = UnixTime::now(&self.clock);
        check(known, now, client).map_err(invalid)?;
        self.note(key, known, now);
        Ok(Arc::clone(&known.caller))
    }

    /// The same work as for a wrong secret.
    fn waste(&self, key: ParsedKey<'_>) {
        let digest = self.form.digest(key);
        std::hint::black_box(KeyDigest::from_bytes([0; 32]).matches(&digest));
    }

    fn note(&self, key: ParsedKey<'_>, known: &KnownKey, now: UnixTime) {
        let pepper = self.form.pepper();
        self.directory.uses.note(&known.last_use, (key.id(), now, pepper), || {
            (self.form.standing(known.pepper) == Standing::Previous).then(|| Redigest {
                old: known.digest,
                new: self.form.digest(key),
                pepper,
            })
        });
    }

    /// Says that a key was made under another pepper, but not for each of a thousand.
    fn tell_of_pepper(&self) {
        let (now, told) = (self.clock.now(), self.pepper_told_at.load(Ordering::Relaxed));
        let is_due = told == 0 || now.since(Moment::from_nanos(told)) >= TOLD_EVERY;
        if is_due && self.pepper_told_at.swap(now.as_nanos(), Ordering::Relaxed) == told {
            log::error!(
                "a key is refused that was made under another pepper than this gateway's: \
                compare API_KEY_PEPPER with that of whoever issues keys"
            );
        }
    }
}

impl fmt::Debug for KeyProver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyProver").field("form", &self.form).finish_non_exhaustive()
    }
}

/// What a key with the right secret may still lack.
fn check(known: &KnownKey, now: UnixTime, client: IpAddr) -> Result<(), InvalidReason> {
    if known.revoked_at.is_some() {
        return Err(InvalidReason::Revoked);
    }
    if known.expires_at.is_some_and(|end| now >= end) {
        return Err(InvalidReason::Expired);
    }
    if known.not_before.is_some_and(|begin| now < begin) {
        return Err(InvalidReason::NotYet);
    }
    if !known.caller.consumer.enabled {
        return Err(InvalidReason::Disabled);
    }
    let networks = &known.addresses;
    if !networks.is_empty() && !networks.iter().any(|net| net.contains(&client)) {
        return Err(InvalidReason::Address);
    }
    Ok(())
}

const fn invalid(reason: InvalidReason) -> Denied {
    Denied::Invalid { method: Method::ApiKey, reason }
}
