//! When keys were last used, and other digests of the same keys.

use crate::{ALL, Lab, Place, api_keys, key, me, secs};
use datahub_gateway::auth::api_key::{KeyDigest, KeyForm, KeyId, PepperVersion};
use datahub_gateway::auth::audit::Audit as _;
use datahub_gateway::auth::directory::Answer;
use datahub_gateway::auth::registry::{NewKey, Registry as _};
use datahub_gateway::auth::uses::{KeyUse, Redigest, UseLog as _};
use datahub_gateway::auth::{ApiKeys, UnixTime};
use datahub_gateway::telemetry::Clock;
use futures_util::future::join_all;
use std::time::Duration;

const HOUR: u64 = 3600;

fn used(id: KeyId, hour: u64, redigest: Option<Redigest>) -> KeyUse {
    KeyUse { id, at: UnixTime::from_secs(hour * HOUR), redigest }
}

fn unknown() -> KeyId {
    "0000000000000000".parse().unwrap()
}

pub(super) async fn a_use_is_shown_and_is_no_revision<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let (one, other) = (lab.issue("alice").await, lab.issue("alice").await);
    let (revision, lines) = (lab.revision().await, lab.store.audit(None, 100).await.unwrap());
    assert_eq!(lab.store.note_uses(&[]).await.unwrap(), 0);
    for (hour, shown) in [(500, 500), (499, 500), (501, 501), (501, 501)] {
        let uses = [used(unknown(), hour, None), used(one.id, hour, None)];
        assert_eq!(lab.store.note_uses(&uses).await.unwrap(), 0);
        let last = lab.store.key(one.id).await.unwrap().last_used_at;
        assert_eq!(last, secs(shown * HOUR), "{hour}");
    }
    assert_eq!(lab.store.key(other.id).await.unwrap(), other);
    assert_eq!(lab.revision().await, revision);
    assert_eq!(lab.changes_since(revision).await, []);
    assert_eq!(lab.store.audit(None, 100).await.unwrap(), lines);
}

pub(super) async fn a_digest_takes_the_place_of_its_own_only<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let (mut uses, mut digests) = (Vec::new(), Vec::new());
    let (new, pepper) = (KeyDigest::from_bytes([9; 32]), PepperVersion::from_u32(u32::MAX));
    for _ in 0..3 {
        let (_, issued) = key("alice");
        let (id, old) = (issued.proof.id, issued.proof.digest);
        lab.store.issue_key(&me(), issued).await.unwrap();
        uses.push(used(id, 500, Some(Redigest { old, new, pepper })));
        digests.push((id, old));
    }
    let revoked = lab.store.revoke_key(&me(), digests[1].0).await.unwrap();
    uses[2].redigest = Some(Redigest { old: KeyDigest::from_bytes([8; 32]), new, pepper });
    let revision = lab.revision().await;
    assert_eq!(lab.store.note_uses(&uses).await.unwrap(), 1);
    assert_eq!(lab.store.note_uses(&uses).await.unwrap(), 0, "it is done");
    for (number, (id, old)) in digests.iter().enumerate() {
        let Answer::Known { row, .. } = lab.look_up_key(*id).await else { panic!("it is there") };
        let (stands, is_new) = (row.digest, number == 0);
        assert!(stands.matches(if is_new { &new } else { old }), "{number}");
        assert_eq!(row.pepper == pepper, is_new, "{number}");
    }
    let after = lab.store.key(revoked.id).await.unwrap();
    assert_eq!((after.revoked_at, after.pepper), (revoked.revoked_at, revoked.pepper));
    assert_eq!(lab.revision().await, revision);
}

pub(super) async fn peppers_are_counted_by_the_keys_that_need_them<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    assert_eq!(lab.store.peppers().await.unwrap(), []);
    let other = KeyForm::new(&ApiKeys { pepper: vec![3; 32], ..api_keys() });
    for _ in 0..3 {
        let new = NewKey { proof: other.generate().unwrap().1, ..key("alice").1 };
        lab.store.issue_key(&me(), new).await.unwrap();
    }
    let later = NewKey { not_before: secs(lab.now() + 99), ..key("alice").1 };
    lab.store.issue_key(&me(), later).await.unwrap();
    let brief = NewKey { expires_at: secs(lab.now() + 9), ..key("alice").1 };
    lab.store.issue_key(&me(), brief).await.unwrap();
    let revoked = lab.issue("alice").await;
    lab.store.revoke_key(&me(), revoked.id).await.unwrap();
    for (seconds, own) in [(0, 2), (9, 1)] {
        lab.clock.advance(Duration::from_secs(seconds));
        let mut expected = vec![(other.pepper(), 3), (revoked.pepper, own)];
        expected.sort_unstable_by_key(|(version, _)| version.as_u32());
        assert_eq!(lab.store.peppers().await.unwrap(), expected);
    }
}

/// Several tasks note the same keys at once, in different orders, while an operator revokes them.
pub(super) async fn uses_and_operators_do_not_stand_in_each_others_way<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(lab.issue("alice").await.id);
    }
    let tasks: Vec<_> = (0..3).map(|_| lab.place.open(lab.clock.clone())).collect();
    let noting = join_all(tasks.iter().enumerate().map(async |(number, task)| {
        for hour in 1..=10 {
            let mut uses: Vec<_> = ids.iter().map(|id| used(*id, hour, None)).collect();
            uses.rotate_left(number * 13);
            if number == 1 {
                uses.reverse();
            }
            task.note_uses(&uses).await.unwrap();
        }
    }));
    let revoking = async {
        for id in ids.iter().step_by(2) {
            lab.store.revoke_key(&me(), *id).await.unwrap();
        }
    };
    tokio::join!(noting, revoking);
    // What was left out while another wrote is noted the next time.
    let uses: Vec<_> = ids.iter().map(|id| used(*id, 11, None)).collect();
    lab.store.note_uses(&uses).await.unwrap();
    let keys = lab.store.keys(None, ALL).await.unwrap();
    assert!(keys.iter().all(|key| key.last_used_at == secs(11 * HOUR)), "{keys:?}");
    assert_eq!(keys.iter().filter(|key| key.revoked_at.is_some()).count(), 20);
}
