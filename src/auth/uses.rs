//! When keys were last used, to the hour, and which of them are to be digested anew.
//!
//! A request only compares a number that lies beside the key in the cache. The first one of an hour
//! leaves a note, and so does the first one after the pepper in use has changed; a task takes the notes
//! and writes them to the store ([`UseLog`]). A key under a previous pepper can only be digested anew
//! while its plain text is at hand, so that is done here too.
//!
//! Must stay true: noting neither waits nor allocates; what finds no room is noted by a later request.
//! No plain key gets here, only digests.

use super::api_key::{KeyDigest, KeyId, PepperVersion};
use super::identity::UnixTime;
use super::registry::RegistryError;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most notes between two visits of the task.
pub const MOST_USES: usize = 2048;
/// Seconds of an hour.
const HOUR: u64 = 3600;

/// A key was used.
#[derive(Clone, Debug)]
pub struct KeyUse {
    /// Which.
    pub id: KeyId,
    /// The beginning of the hour.
    pub at: UnixTime,
    /// How it is to be digested from now on, if its pepper is a previous one.
    pub redigest: Option<Redigest>,
}

/// Another digest of the same key.
#[derive(Clone, Copy, Debug)]
pub struct Redigest {
    /// What is stored until now. If that is something else meanwhile, it stays.
    pub old: KeyDigest,
    /// What is to be stored.
    pub new: KeyDigest,
    /// The pepper of `new`.
    pub pepper: PepperVersion,
}

/// The port to whoever keeps keys, for what is learned of them by the way.
#[async_trait]
pub trait UseLog: Send + Sync {
    /// Notes uses, and answers how many keys were digested anew. It is no change that anyone has to hear
    /// of: there is no revision of it and no line in the audit. Noting it again changes nothing.
    async fn note_uses(&self, uses: &[KeyUse]) -> Result<usize, RegistryError>;
}

/// Which hour, and which pepper, a key was last noted for; lies in the cache beside the key.
#[derive(Debug, Default)]
pub(super) struct LastUse(AtomicU64);

/// Notes that wait for the task.
pub(super) struct Uses(Mutex<Vec<KeyUse>>);

impl Default for Uses {
    fn default() -> Self {
        Self(Mutex::new(Vec::with_capacity(MOST_USES)))
    }
}

impl Uses {
    /// Notes that a key was used at `now` while the pepper in use is `pepper`; `redigest` is asked for
    /// only if it is the first time in this hour.
    pub(super) fn note(
        &self,
        last: &LastUse,
        (id, now, pepper): (KeyId, UnixTime, PepperVersion),
        redigest: impl FnOnce() -> Option<Redigest>,
    ) {
        let hour = now.as_secs() / HOUR;
        // With the pepper, so that a key is digested anew without waiting for the next hour.
        let stamp = (hour << 32) | u64::from(pepper.as_u32());
        let seen = last.0.load(Ordering::Relaxed);
        if seen == stamp {
            return;
        }
        // Whoever holds it leaves a note, and is gone before the next request of this key.
        let Some(mut notes) = self.0.try_lock() else { return };
        if notes.len() >= MOST_USES
            || last.0.compare_exchange(seen, stamp, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        notes.push(KeyUse { id, at: UnixTime::from_secs(hour * HOUR), redigest: redigest() });
    }

    /// Takes all notes.
    pub(super) fn drain(&self) -> Vec<KeyUse> {
        if self.0.lock().is_empty() {
            return Vec::new();
        }
        let empty = Vec::with_capacity(MOST_USES);
        std::mem::replace(&mut *self.0.lock(), empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEPPER: PepperVersion = PepperVersion::from_u32(7);

    fn id(number: usize) -> KeyId {
        format!("{number:016}").parse().unwrap()
    }

    fn note(uses: &Uses, last: &LastUse, secs: u64, pepper: PepperVersion) {
        uses.note(last, (id(1), UnixTime::from_secs(secs), pepper), || None);
    }

    #[test]
    fn a_key_is_noted_once_an_hour_and_once_more_when_the_pepper_changes() {
        let (uses, last) = (Uses::default(), LastUse::default());
        for secs in [7200, 7201, 10_799] {
            note(&uses, &last, secs, PEPPER);
        }
        note(&uses, &last, 10_799, PepperVersion::from_u32(8));
        for secs in [10_800, 10_801] {
            note(&uses, &last, secs, PepperVersion::from_u32(8));
        }
        let hours: Vec<_> = uses.drain().iter().map(|it| it.at.as_secs()).collect();
        assert_eq!(hours, [7200, 7200, 10_800]);
        assert!(uses.drain().is_empty());
    }

    #[test]
    fn notes_are_bounded_and_what_found_no_room_is_noted_later() {
        let uses = Uses::default();
        let keys: Vec<LastUse> = (0..3 * MOST_USES).map(|_| LastUse::default()).collect();
        let mut seen = Vec::new();
        for round in 1..=3 {
            for (number, last) in keys.iter().enumerate() {
                uses.note(last, (id(number), UnixTime::from_secs(3600), PEPPER), || None);
            }
            let noted = uses.drain();
            assert_eq!(noted.len(), MOST_USES, "round {round}");
            assert!(noted.capacity() <= MOST_USES, "nothing grew");
            seen.extend(noted.into_iter().map(|it| it.id));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3 * MOST_USES);
    }

    #[test]
    fn many_threads_note_each_key_once() {
        let uses = Uses::default();
        let keys: Vec<LastUse> = (0..500).map(|_| LastUse::default()).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (number, last) in keys.iter().enumerate() {
                        uses.note(last, (id(number), UnixTime::from_secs(3600), PEPPER), || None);
                    }
                });
            }
        });
        for (number, last) in keys.iter().enumerate() {
            uses.note(last, (id(number), UnixTime::from_secs(3600), PEPPER), || None);
        }
        let mut noted: Vec<_> = uses.drain().into_iter().map(|it| it.id).collect();
        noted.sort();
        assert_eq!(noted, (0..500).map(id).collect::<Vec<_>>());
    }
}
