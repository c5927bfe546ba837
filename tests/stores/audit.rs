//! Who changed what.

use crate::{Lab, Place, consumer, key, me};
use datahub_gateway::auth::UnixTime;
use datahub_gateway::auth::api_key::KeyId;
use datahub_gateway::auth::audit::{Audit as _, AuditEntry};
use datahub_gateway::auth::denials::{Denials as _, DeniedTokens, NewDenial};
use datahub_gateway::auth::documents::DocumentKind::{Plan, Policy};
use datahub_gateway::auth::documents::Documents as _;
use datahub_gateway::auth::registry::{Actor, NewKey, Page, Registry as _, Rotation};
use datahub_gateway::telemetry::Clock;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

impl<P: Place> Lab<P> {
    /// All of it, from the oldest to the newest.
    async fn audited(&self) -> Vec<AuditEntry> {
        let mut entries = self.store.audit(None, 1000).await.unwrap();
        entries.reverse();
        entries
    }

    fn any_denial(&self) -> NewDenial {
        NewDenial {
            issuer: "corporate".to_owned(),
            tokens: DeniedTokens::Id("t-1".into()),
            until: UnixTime::from_secs(self.now() + 60),
            reason: None,
        }
    }
}

fn rotation() -> (String, Rotation) {
    let (plain, new) = key("");
    let rotation = Rotation { proof: new.proof, expires_at: None, overlap: Duration::from_secs(9) };
    (plain.reveal().to_owned(), rotation)
}

/// Every kind of write, those that can be repeated twice. Returns the consumer's id, that of its first
/// key, and that of the entry of the deny list.
async fn write_everything<P: Place>(lab: &Lab<P>, by: &Actor) -> (Arc<str>, KeyId, Arc<str>) {
    let store = &lab.store;
    let alice = store.add_consumer(by, consumer("alice")).await.unwrap().consumer;
    for _ in 0..2 {
        store.set_enabled(by, "alice", false).await.unwrap();
    }
    for _ in 0..2 {
        store.set_enabled(by, "alice", true).await.unwrap();
    }
    for _ in 0..2 {
        store.set_plan(by, "alice", "pro").await.unwrap();
    }
    for _ in 0..2 {
        store.set_policies(by, "alice", &["beta".to_owned()]).await.unwrap();
    }
    let issued = store.issue_key(by, key("alice").1).await.unwrap().id;
    store.rotate_key(by, issued, rotation().1).await.unwrap();
    for _ in 0..2 {
        store.revoke_key(by, issued).await.unwrap();
    }
    for kind in [Plan, Policy] {
        for _ in 0..2 {
            store.put_document(by, kind, "gold", &json!({})).await.unwrap();
        }
        store.remove_document(by, kind, "gold").await.unwrap();
    }
    let denied = store.deny(by, lab.any_denial()).await.unwrap().id;
    store.allow(by, &denied).await.unwrap();
    store.remove_consumer(by, &alice.id).await.unwrap();
    (alice.id, issued, denied)
}

pub(super) async fn every_kind_of_write_stands_in_it_once<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let by = Actor::named("cli:ann@desk");
    let (alice, issued, denied) = write_everything(&lab, &by).await;
    let (owner, issued) = (&*alice, issued.as_str());
    let expected = [
        ("consumer.add", owner),
        ("consumer.disable", owner),
        ("consumer.enable", owner),
        ("consumer.set_plan", owner),
        ("consumer.set_policies", owner),
        ("key.issue", issued),
        ("key.rotate", issued),
        ("key.revoke", issued),
        ("plan.put", "gold"),
        ("plan.remove", "gold"),
        ("policy.put", "gold"),
        ("policy.remove", "gold"),
        ("token.deny", &denied),
        ("token.allow", &denied),
        ("consumer.remove", owner),
    ];
    let audited = lab.audited().await;
    let told: Vec<_> = audited
        .iter()
        .map(|entry| {
            // A consumer is its id or its name: either tells who it was.
            let named = entry.action.starts_with("consumer.") && &*entry.subject == "alice";
            (&*entry.action, if named { owner } else { &*entry.subject })
        })
        .collect();
    assert_eq!(told, expected);
    assert_eq!(lab.revision().await, u64::try_from(expected.len()).unwrap(), "one for each");
    for entry in &audited {
        assert_eq!((&*entry.actor, entry.at.as_secs()), ("cli:ann@desk", lab.now()), "{entry:?}");
        assert!(entry.detail.is_object() && entry.detail.to_string().len() < 2048, "{entry:?}");
    }
}

pub(super) async fn what_was_refused_or_changed_nothing_is_not_in_it<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let store = &lab.store;
    lab.add("alice").await;
    assert!(store.add_consumer(&me(), consumer("alice")).await.is_err());
    assert!(store.add_consumer(&me(), consumer("a b")).await.is_err());
    assert!(store.set_plan(&me(), "nobody", "pro").await.is_err());
    assert!(store.set_plan(&me(), "alice", "").await.is_err());
    assert!(store.set_policies(&me(), "alice", &[String::new()]).await.is_err());
    let past = NewKey { expires_at: Some(UnixTime::from_secs(1)), ..key("alice").1 };
    assert!(store.issue_key(&me(), past).await.is_err());
    assert!(store.issue_key(&me(), key("nobody").1).await.is_err());
    let unknown = "0000000000000000".parse().unwrap();
    assert!(store.revoke_key(&me(), unknown).await.is_err());
    assert!(store.rotate_key(&me(), unknown, rotation().1).await.is_err());
    assert!(store.put_document(&me(), Plan, "", &json!({})).await.is_err());
    assert!(store.remove_document(&me(), Plan, "gold").await.is_err());
    let ended = NewDenial { until: UnixTime::from_secs(lab.now()), ..lab.any_denial() };
    assert!(store.deny(&me(), ended).await.is_err());
    assert!(store.allow(&me(), "x").await.is_err());
    store.set_enabled(&me(), "alice", true).await.unwrap();
    store.set_plan(&me(), "alice", "free").await.unwrap();
    store.set_policies(&me(), "alice", &[]).await.unwrap();
    store.consumers(Page { after: None, limit: 9 }).await.unwrap();
    let audited = lab.audited().await;
    assert_eq!(audited.len(), 1, "{audited:?}");
}

pub(super) async fn it_comes_in_pages_from_the_newest_to_the_oldest<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    assert_eq!(lab.store.audit(None, 5).await.unwrap(), []);
    for number in 0..12 {
        let by = Actor::named(&format!("admin:{number}"));
        lab.store.add_consumer(&by, consumer(&format!("c{number}"))).await.unwrap();
        lab.clock.advance(Duration::from_secs(1));
    }
    let mut seen: Vec<AuditEntry> = Vec::new();
    for expected in [5, 5, 2, 0] {
        let before = seen.last().map(|entry| entry.id);
        let entries = lab.store.audit(before, 5).await.unwrap();
        assert_eq!(entries.len(), expected);
        seen.extend(entries);
    }
    assert!(seen.is_sorted_by(|newer, older| newer.id > older.id && newer.at > older.at));
    let actors: Vec<_> = seen.iter().map(|entry| entry.actor.to_string()).collect();
    let expected: Vec<_> = (0..12).rev().map(|number| format!("admin:{number}")).collect();
    assert_eq!(actors, expected);
}

pub(super) async fn no_secret_gets_into_it<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let (plain, new) = key("alice");
    let id = lab.store.issue_key(&me(), new).await.unwrap().id;
    let (rotated, rotation) = rotation();
    lab.store.rotate_key(&me(), id, rotation).await.unwrap();
    let text = format!("{:?}", lab.audited().await);
    assert!(text.contains(id.as_str()), "{text}");
    for key in [plain.reveal(), &rotated] {
        let secret = key.rsplit('_').next().unwrap();
        assert!(!text.contains(secret), "{text}");
    }
    for member in ["digest", "pepper", "proof"] {
        assert!(!text.contains(member), "{text}");
    }
}

pub(super) async fn what_a_document_says_and_said_stands_in_it<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let (one, other) = (json!({ "rate": "1/s" }), json!({ "rate": "2/s", "burst": 9 }));
    for body in [&one, &other] {
        lab.store.put_document(&me(), Plan, "gold", body).await.unwrap();
    }
    lab.store.remove_document(&me(), Plan, "gold").await.unwrap();
    let details: Vec<_> = lab.audited().await.into_iter().map(|entry| entry.detail).collect();
    let expected = [
        json!({ "new": true, "body": one, "before": null }),
        json!({ "new": false, "body": other, "before": one }),
        json!({ "before": other }),
    ];
    assert_eq!(details, expected);
}
