//! Consumers and their keys.

use crate::{ALL, Lab, Place, consumer, key, me, networks, secs};
use datahub_gateway::auth::api_key::KeyId;
use datahub_gateway::auth::changes::ChangeKind;
use datahub_gateway::auth::directory::{Answer, Source as _};
use datahub_gateway::auth::registry::{
    NewConsumer, NewKey, Page, Registry as _, RegistryError, Rotation,
};
use datahub_gateway::telemetry::Clock;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn a_consumer_is_found_by_its_name_and_its_id<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let new = NewConsumer { custom_id: Some("crm-7".to_owned()), ..consumer("alice") };
    let added = lab.store.add_consumer(&me(), new).await.unwrap();
    assert_eq!(added.consumer.custom_id.as_deref(), Some("crm-7"));
    assert!(added.consumer.enabled);
    assert_eq!(added.created_at.as_secs(), lab.now());
    for name in ["alice", &added.consumer.id] {
        assert_eq!(lab.store.consumer(name).await.unwrap(), added);
    }
    match lab.look_up_consumer("alice").await {
        Answer::Known { row, revision: 1 } => assert_eq!(row, added.consumer),
        other => panic!("{other:?}"),
    }
    for name in ["Alice", "alic", "", "alice ", &added.consumer.id] {
        let found = lab.look_up_consumer(name).await;
        assert!(matches!(found, Answer::Unknown { revision: 1 }), "{name:?}: {found:?}");
    }
    assert!(matches!(
        lab.store.consumer("bob").await,
        Err(RegistryError::UnknownConsumer(name)) if name == "bob"
    ));
}

pub(super) async fn names_and_references_are_unique<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let with_id = |name: &str| NewConsumer { custom_id: Some("crm-7".into()), ..consumer(name) };
    lab.store.add_consumer(&me(), with_id("alice")).await.unwrap();
    lab.add("bob").await;
    for (new, taken) in [(consumer("alice"), "username"), (with_id("carol"), "custom id")] {
        match lab.store.add_consumer(&me(), new).await {
            Err(RegistryError::Taken { what, .. }) => assert_eq!(what, taken),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lab.store.consumers(ALL).await.unwrap().len(), 2);
    assert_eq!(lab.revision().await, 2, "what is refused changes nothing");
}

pub(super) async fn values_that_cannot_go_into_headers_are_refused<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let long = "x".repeat(129);
    for bad in ["", " ", "a b", "a\n", "a\0", "\u{e4}", &long] {
        let new = consumer("bob");
        let consumers = [
            NewConsumer { username: bad.to_owned(), ..new.clone() },
            NewConsumer { plan: bad.to_owned(), ..new.clone() },
            NewConsumer { custom_id: Some(bad.to_owned()), ..new },
        ];
        for new in consumers {
            let added = lab.store.add_consumer(&me(), new).await;
            assert!(matches!(added, Err(RegistryError::Invalid { .. })), "{bad:?}: {added:?}");
        }
        let new = key("alice").1;
        let keys = [
            NewKey { name: Some(bad.to_owned()), ..new.clone() },
            NewKey { plan: Some(bad.to_owned()), ..new.clone() },
            NewKey { scopes: vec![bad.to_owned()], ..new },
        ];
        for new in keys {
            let issued = lab.store.issue_key(&me(), new).await;
            assert!(matches!(issued, Err(RegistryError::Invalid { .. })), "{bad:?}: {issued:?}");
        }
        assert!(lab.store.set_plan(&me(), "alice", bad).await.is_err(), "{bad:?}");
    }
    let as_an_id = consumer("0198c6d2-7d5e-7c1a-9d0e-2f5b8a3c4d6e");
    let added = lab.store.add_consumer(&me(), as_an_id).await;
    assert!(matches!(added, Err(RegistryError::Invalid { .. })), "{added:?}");
    let many = NewKey { scopes: vec!["s".to_owned(); 65], ..key("alice").1 };
    assert!(lab.store.issue_key(&me(), many).await.is_err());
    let nets: Vec<_> = (0..17).map(|n| format!("10.0.{n}.0/24")).collect();
    let nets: Vec<_> = nets.iter().map(|net| &**net).collect();
    let scattered = NewKey { addresses: networks(&nets), ..key("alice").1 };
    assert!(lab.store.issue_key(&me(), scattered).await.is_err());
    let past = NewKey { expires_at: secs(lab.now()), ..key("alice").1 };
    assert!(lab.store.issue_key(&me(), past).await.is_err());
    assert_eq!(lab.revision().await, 1);
}

pub(super) async fn a_key_comes_back_as_it_was_issued<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let new = NewKey {
        name: Some("ci".to_owned()),
        plan: Some("pro".to_owned()),
        scopes: vec!["orders:read".to_owned(), "orders:write".to_owned()],
        addresses: networks(&["10.0.0.0/8", "2001:db8::7/128"]),
        not_before: secs(lab.now() + 5),
        expires_at: secs(lab.now() + 50),
        ..key("alice").1
    };
    let proof = new.proof;
    let issued = lab.store.issue_key(&me(), new).await.unwrap();
    assert_eq!((&*issued.consumer, issued.name.as_deref()), ("alice", Some("ci")));
    assert_eq!(lab.store.key(issued.id).await.unwrap(), issued);
    assert_eq!(lab.store.keys(None, ALL).await.unwrap(), std::slice::from_ref(&issued));
    assert_eq!(*issued.addresses, networks(&["10.0.0.0/8", "2001:db8::7/128"]));
    assert_eq!(issued.last_used_at, None);
    let Answer::Known { row, revision } = lab.look_up_key(proof.id).await else {
        panic!("it was issued");
    };
    assert_eq!(revision, 2);
    assert!(row.digest.matches(&proof.digest));
    assert_eq!(row.pepper, proof.pepper);
    assert_eq!(row.plan.as_deref(), Some("pro"));
    assert_eq!((&*row.consumer.username, &*row.consumer.plan), ("alice", "free"));
    assert_eq!(
        row.scopes.iter().map(|s| &**s).collect::<Vec<_>>(),
        ["orders:read", "orders:write"]
    );
    assert_eq!((row.not_before, row.expires_at), (secs(lab.now() + 5), secs(lab.now() + 50)));
    assert_eq!(row.revoked_at, None);
    assert_eq!(row.addresses, issued.addresses);

    let unknown: KeyId = "0000000000000000".parse().unwrap();
    assert!(matches!(lab.look_up_key(unknown).await, Answer::Unknown { revision: 2 }));
    assert!(matches!(lab.store.key(unknown).await, Err(RegistryError::UnknownKey(_))));
    let orphan = lab.store.issue_key(&me(), key("nobody").1).await;
    assert!(matches!(orphan, Err(RegistryError::UnknownConsumer(_))), "{orphan:?}");
}

pub(super) async fn lists_come_in_pages<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    for name in ["dave", "alice", "carol", "bob"] {
        lab.add(name).await;
        lab.issue(name).await;
    }
    lab.issue("bob").await;
    let mut names = Vec::new();
    let mut after: Option<Arc<str>> = None;
    for expected in [3, 1, 0] {
        let page = Page { after: after.as_deref(), limit: 3 };
        let consumers = lab.store.consumers(page).await.unwrap();
        assert_eq!(consumers.len(), expected);
        names.extend(consumers.into_iter().map(|info| info.consumer.username));
        after = names.last().cloned();
    }
    assert_eq!(names.iter().map(|n| &**n).collect::<Vec<_>>(), ["alice", "bob", "carol", "dave"]);

    let all = lab.store.keys(None, ALL).await.unwrap();
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted_by_key(|info| info.id));
    let first = lab.store.keys(None, Page { after: None, limit: 2 }).await.unwrap();
    let rest = Page { after: Some(first[1].id.as_str()), limit: 10 };
    assert_eq!(lab.store.keys(None, rest).await.unwrap(), all[2..]);
    assert_eq!(lab.store.keys(Some("bob"), ALL).await.unwrap().len(), 2);
    assert!(lab.store.keys(Some("nobody"), ALL).await.is_err());
}

pub(super) async fn a_rotated_key_lives_through_the_overlap<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let new = NewKey {
        name: Some("ci".to_owned()),
        plan: Some("pro".to_owned()),
        scopes: vec!["read".to_owned()],
        addresses: networks(&["192.0.2.0/24"]),
        expires_at: secs(lab.now() + 100),
        ..key("alice").1
    };
    let id = lab.store.issue_key(&me(), new).await.unwrap().id;
    let rotation = |overlap, end| Rotation {
        proof: key("alice").1.proof,
        expires_at: end,
        overlap: Duration::from_secs(overlap),
    };
    let (old, new) = lab.store.rotate_key(&me(), id, rotation(60, None)).await.unwrap();
    assert_eq!(old.expires_at, secs(lab.now() + 60));
    assert_eq!((&new.name, &new.plan, &new.scopes), (&old.name, &old.plan, &old.scopes));
    assert_eq!(*new.addresses, networks(&["192.0.2.0/24"]));
    assert_eq!(new.expires_at, None);

    lab.clock.advance(Duration::from_secs(1));
    let (old, _) =
        lab.store.rotate_key(&me(), id, rotation(600, secs(lab.now() + 9))).await.unwrap();
    assert_eq!(old.expires_at, secs(lab.now() + 59), "an overlap never lengthens a life");
    lab.store.rotate_key(&me(), id, rotation(0, None)).await.unwrap();
    let again = lab.store.rotate_key(&me(), id, rotation(0, None)).await;
    assert!(matches!(again, Err(RegistryError::NotLive(_))), "{again:?}");
    assert_eq!(lab.store.keys(Some("alice"), ALL).await.unwrap().len(), 4);
}

pub(super) async fn a_key_that_takes_over_begins_no_sooner<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let begins = secs(lab.now() + 100);
    let new = NewKey { not_before: begins, ..key("alice").1 };
    let id = lab.store.issue_key(&me(), new).await.unwrap().id;
    let rotation = || Rotation {
        proof: key("alice").1.proof,
        expires_at: None,
        overlap: Duration::from_secs(600),
    };
    let (_, early) = lab.store.rotate_key(&me(), id, rotation()).await.unwrap();
    assert_eq!(early.not_before, begins);
    lab.clock.advance(Duration::from_secs(100));
    let (_, late) = lab.store.rotate_key(&me(), id, rotation()).await.unwrap();
    assert_eq!(late.not_before, None, "what has begun has begun");
}

pub(super) async fn a_revoked_key_stays_revoked<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let id = lab.issue("alice").await.id;
    let revoked = lab.store.revoke_key(&me(), id).await.unwrap();
    assert_eq!(revoked.revoked_at, secs(lab.now()));
    lab.clock.advance(Duration::from_secs(9));
    assert_eq!(lab.store.revoke_key(&me(), id).await.unwrap(), revoked, "again changes nothing");
    let Answer::Known { row, .. } = lab.look_up_key(id).await else { panic!("it is there") };
    assert_eq!(row.revoked_at, revoked.revoked_at);
    let unknown = lab.store.revoke_key(&me(), "0000000000000000".parse().unwrap()).await;
    assert!(matches!(unknown, Err(RegistryError::UnknownKey(_))));
}

pub(super) async fn policies_of_a_consumer_come_back_in_their_order<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let new = NewConsumer { policies: names(&["zoned", "beta"]), ..consumer("alice") };
    let added = lab.store.add_consumer(&me(), new).await.unwrap();
    let has = async |policies: &[&str], revision| {
        let alice = lab.store.consumer("alice").await.unwrap().consumer;
        assert_eq!(alice.policies.iter().map(|name| &**name).collect::<Vec<_>>(), policies);
        assert_eq!(lab.store.consumers(ALL).await.unwrap()[0].consumer, alice);
        match lab.look_up_consumer("alice").await {
            Answer::Known { row, .. } => assert_eq!(row, alice),
            other => panic!("{other:?}"),
        }
        assert_eq!(lab.revision().await, revision);
    };
    has(&["zoned", "beta"], 1).await;
    let id = lab.issue("alice").await.id;
    let set = async |policies: &[&str]| {
        lab.store.set_policies(&me(), "alice", &names(policies)).await.map(|info| info.consumer)
    };
    set(&["beta", "audited"]).await.unwrap();
    has(&["beta", "audited"], 3).await;
    assert_eq!(lab.touched_since(2).await, [(ChangeKind::Consumer, added.consumer.id.to_string())]);
    set(&["beta", "audited"]).await.unwrap();
    has(&["beta", "audited"], 3).await;
    match lab.look_up_key(id).await {
        Answer::Known { row, .. } => assert_eq!(row.consumer.policies.len(), 2),
        other => panic!("{other:?}"),
    }
    set(&[]).await.unwrap();
    has(&[], 4).await;

    let many: Vec<_> = (0..9).map(|number| format!("p{number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for bad in [&["a", "a"][..], &[""], &["a b"], &["\u{e4}"], &many] {
        let refused = set(bad).await;
        assert!(matches!(refused, Err(RegistryError::Invalid { .. })), "{bad:?}: {refused:?}");
        let new = NewConsumer { policies: names(bad), ..consumer("bob") };
        let refused = lab.store.add_consumer(&me(), new).await;
        assert!(matches!(refused, Err(RegistryError::Invalid { .. })), "{bad:?}: {refused:?}");
    }
    let nobody = lab.store.set_policies(&me(), "nobody", &[]).await;
    assert!(matches!(nobody, Err(RegistryError::UnknownConsumer(_))), "{nobody:?}");
    has(&[], 4).await;
}

/// A copy may be behind for a moment, but never for long, and never the last.
pub(super) async fn all_copies_come_to_agree<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let id = lab.issue("alice").await.id;
    let copies = lab.store.copies();
    assert!(copies > 0);
    let is = async |copy, revoked: bool| match lab.store.look_up_key(id, copy).await {
        Answer::Known { row, .. } => row.revoked_at.is_some() == revoked,
        Answer::Absent | Answer::Unknown { .. } => false,
        Answer::Unavailable(outage) => panic!("copy {copy}: {outage:?}"),
    };
    let come_to_be = async |revoked| {
        assert!(is(copies - 1, revoked).await, "the last copy is the authority");
        for copy in 0..copies {
            let agree = async {
                while !is(copy, revoked).await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let within = Duration::from_secs(10);
            let agreed = tokio::time::timeout(within, agree).await;
            assert!(agreed.is_ok(), "copy {copy} stays behind");
        }
    };
    come_to_be(false).await;
    lab.store.revoke_key(&me(), id).await.unwrap();
    come_to_be(true).await;
    for copy in 0..copies {
        let alice = lab.store.look_up_consumer("alice", copy).await;
        assert!(matches!(alice, Answer::Known { .. }), "{copy}: {alice:?}");
    }
}
