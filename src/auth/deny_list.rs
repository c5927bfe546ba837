//! The deny list as the request path sees it: all of it, in memory.
//!
//! It is asked for every token, cached or not, so a denied token stops working as soon as its entry is
//! here. A task that has not loaded it answers no requests.
//!
//! Must stay true: asking neither allocates nor waits; a new history of the store takes no entry away.

use super::denials::{Denial, DeniedTokens, MAX_DENIALS, ended_by};
use super::identity::UnixTime;
use super::jwt::Verified;
use arc_swap::ArcSwap;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Entries that have not ended, in a form to be asked.
#[derive(Debug, Default)]
pub(super) struct DenyList {
    listed: ArcSwap<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    entries: Vec<Denial>,
    /// Those of a history that the store has lost.
    kept: Vec<Denial>,
    issuers: HashMap<Arc<str>, OfIssuer>,
}

#[derive(Debug, Default)]
struct OfIssuer {
    ids: HashSet<Arc<str>>,
    /// Tokens issued before this time are denied.
    subjects: HashMap<Arc<str>, UnixTime>,
}

impl DenyList {
    /// Whether this token is taken back.
    pub(super) fn denies(&self, token: &Verified) -> bool {
        self.names(&token.issuer, token.id.as_deref(), &token.subject, token.issued_at)
    }

    /// Whether what `issuer` gave `subject` is taken back.
    pub(super) fn names(
        &self,
        issuer: &str,
        id: Option<&str>,
        subject: &str,
        issued_at: Option<i64>,
    ) -> bool {
        let listed = self.listed.load();
        let Some(issuer) = listed.issuers.get(issuer) else { return false };
        if id.is_some_and(|id| issuer.ids.contains(id)) {
            return true;
        }
        issuer.subjects.get(subject).is_some_and(|before| {
            let before = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            issued_at.is_none_or(|at| at < before)
        })
    }

    /// Puts `entries` in the place of what there was at `now`. With `keep`, the store may have lost some:
    /// what there was stays, now and later, until it ends.
    pub(super) fn set(&self, entries: Vec<Denial>, keep: bool, now: UnixTime) {
        let old = self.listed.load();
        let lost = if keep { old.entries.as_slice() } else { &[] };
        let ended = ended_by(now);
        // Ids are given again in another history, so the whole entry is compared.
        let kept: Vec<Denial> = (old.kept.iter().chain(lost))
            .filter(|entry| entry.until > ended && !entries.contains(entry))
            .take(MAX_DENIALS)
            .cloned()
            .collect();
        let mut issuers: HashMap<Arc<str>, OfIssuer> = HashMap::new();
        for entry in entries.iter().chain(&kept) {
            let issuer = issuers.entry(Arc::clone(&entry.issuer)).or_default();
            match &entry.tokens {
                DeniedTokens::Id(id) => {
                    issuer.ids.insert(Arc::clone(id));
                }
                DeniedTokens::Subject { subject, issued_before } => {
                    let before = issuer.subjects.entry(Arc::clone(subject)).or_default();
                    *before = (*before).max(*issued_before);
                }
            }
        }
        self.listed.store(Arc::new(Listed { entries, kept, issuers }));
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        let listed = self.listed.load();
        listed.entries.len() + listed.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::KeyId;
    use super::*;

    fn token(id: Option<&str>, subject: &str, issued_at: Option<i64>) -> Verified {
        Verified {
            issuer: "main".into(),
            key: KeyId::NONE,
            default_plan: None,
            plan: None,
            consumer: subject.into(),
            subject: subject.into(),
            id: id.map(Arc::from),
            issued_at,
            scopes: Arc::default(),
            claims: Arc::default(),
            ends_at: i64::MAX,
        }
    }

    fn denial(id: &str, tokens: DeniedTokens) -> Denial {
        Denial {
            id: id.into(),
            issuer: "main".into(),
            tokens,
            until: UnixTime::from_secs(1000),
            reason: None,
            created_at: UnixTime::default(),
        }
    }

    fn subject(name: &str, before: u64) -> DeniedTokens {
        DeniedTokens::Subject { subject: name.into(), issued_before: UnixTime::from_secs(before) }
    }

    const NOW: UnixTime = UnixTime::from_secs(100);

    #[test]
    fn a_token_is_denied_by_its_id_or_by_when_its_subject_got_it() {
        let list = DenyList::default();
        list.set(
            vec![
                denial("1", DeniedTokens::Id("j1".into())),
                denial("2", subject("alice", 50)),
                denial("3", subject("alice", 40)),
            ],
            false,
            NOW,
        );
        let table = [
            (token(Some("j1"), "bob", Some(99)), true),
            (token(Some("j2"), "bob", Some(1)), false),
            (token(None, "alice", Some(49)), true),
            (token(None, "alice", Some(50)), false),
            (token(None, "alice", None), true),
            (token(None, "j1", None), false),
        ];
        for (token, denied) in table {
            assert_eq!(list.denies(&token), denied, "{token:?}");
        }
        let other = Verified { issuer: "other".into(), ..token(Some("j1"), "alice", None) };
        assert!(!list.denies(&other), "an issuer speaks for its own tokens only");
    }

    #[test]
    fn a_new_history_takes_nothing_away_that_has_not_ended() {
        let list = DenyList::default();
        let until = UnixTime::from_secs(NOW.as_secs() - 60);
        let ended = Denial { until, ..denial("2", DeniedTokens::Id("j2".into())) };
        list.set(vec![denial("1", DeniedTokens::Id("j1".into())), ended], false, NOW);
        list.set(vec![denial("3", DeniedTokens::Id("j3".into()))], true, NOW);
        assert_eq!(list.len(), 2);
        for (id, denied) in [("j1", true), ("j2", false), ("j3", true)] {
            assert_eq!(list.denies(&token(Some(id), "a", None)), denied, "{id}");
        }
        // Another one is denied later, under an id that the lost one had.
        list.set(vec![denial("1", DeniedTokens::Id("j4".into()))], false, NOW);
        for (id, denied) in [("j1", true), ("j3", false), ("j4", true)] {
            assert_eq!(list.denies(&token(Some(id), "a", None)), denied, "{id}");
        }
        list.set(Vec::new(), false, UnixTime::from_secs(1060));
        assert_eq!(list.len(), 0, "it has ended");
    }
}
