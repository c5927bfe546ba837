//! Revisions, and how others hear of them.

use crate::{ALL, Lab, Place, api_keys, consumer, key, me};
use datahub_gateway::auth::changes::{ChangeFeed as _, ChangeKind, Changes};
use datahub_gateway::auth::directory::Answer;
use datahub_gateway::auth::registry::{KeyInfo, Registry as _, Rotation};
use datahub_gateway::auth::{
    Authenticator, Directory, FeedEvent, Method, RemoteKeySets, Requirement, TokenCache, follow,
};
use datahub_gateway::telemetry::Clock;
use http::{HeaderMap, HeaderValue};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn every_write_is_a_revision_that_names_what_it_touched<P: Place>() {
    use ChangeKind::{Consumer, Key};
    let lab = Lab::<P>::new(Clock::manual());
    assert_eq!(lab.revision().await, 0);
    let added = lab.store.add_consumer(&me(), consumer("alice")).await.unwrap().consumer;
    let owner = (Consumer, added.id.to_string());
    let named = |info: &KeyInfo| (Key, info.id.to_string());
    let mut expected = vec![vec![owner.clone()]];
    lab.store.set_enabled(&me(), "alice", false).await.unwrap();
    lab.store.set_enabled(&me(), "alice", false).await.unwrap();
    lab.store.set_enabled(&me(), "alice", true).await.unwrap();
    lab.store.set_plan(&me(), "alice", "pro").await.unwrap();
    lab.store.set_plan(&me(), "alice", "pro").await.unwrap();
    expected.extend([vec![owner.clone()], vec![owner.clone()], vec![owner.clone()]]);
    let first = lab.issue("alice").await;
    expected.push(vec![named(&first)]);
    lab.clock.advance(Duration::from_millis(1500));
    let rotation =
        Rotation { proof: key("").1.proof, expires_at: None, overlap: Duration::from_secs(9) };
    let (old, new) = lab.store.rotate_key(&me(), first.id, rotation).await.unwrap();
    let mut pair = vec![named(&old), named(&new)];
    pair.sort_by(|one, other| one.1.cmp(&other.1));
    expected.push(pair);
    lab.store.revoke_key(&me(), old.id).await.unwrap();
    lab.store.revoke_key(&me(), old.id).await.unwrap();
    expected.push(vec![named(&old)]);
    let (removed, keys) = lab.store.remove_consumer(&me(), "alice").await.unwrap();
    assert_eq!((removed.consumer.id, keys), (added.id, 2));
    expected.push(vec![owner]);
    assert!(matches!(lab.look_up_key(new.id).await, Answer::Unknown { revision: 8 }));

    let changes = lab.changes_since(0).await;
    for (index, expected) in expected.iter().enumerate() {
        let revision = u64::try_from(index).unwrap() + 1;
        let found: Vec<_> = changes.iter().filter(|c| c.revision == revision).collect();
        let names: Vec<_> = found.iter().map(|c| (c.kind, c.id.to_string())).collect();
        assert_eq!(names, *expected, "revision {revision}");
    }
    assert_eq!(lab.revision().await, 8);
    if P::DATES_CHANGES {
        assert_eq!(changes.last().unwrap().committed_at, lab.clock.unix_time());
    }
    assert_eq!(lab.changes_since(8).await, []);
    let future = lab.store.changes_since(Some(9)).await.unwrap();
    let Changes::Reset(reset) = future else { panic!("a store that was put back: {future:?}") };
    assert_eq!(reset.revision, 8);
}

pub(super) async fn many_changes_come_complete_and_in_order<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    for number in 0..600 {
        lab.store.set_plan(&me(), "alice", &format!("plan-{number}")).await.unwrap();
    }
    let (mut since, mut seen) = (0, Vec::new());
    loop {
        match lab.store.changes_since(Some(since)).await.unwrap() {
            Changes::Since { revision, changes, more } => {
                seen.extend(changes.iter().map(|change| change.revision));
                since = revision;
                if !more {
                    break;
                }
            }
            Changes::Reset(_) => panic!("nothing is missing"),
        }
    }
    assert_eq!(seen, (1..=601).collect::<Vec<_>>());
}

pub(super) async fn writers_in_several_processes_do_not_lose_each_other<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let (one, other) = (lab.place.open(lab.clock.clone()), lab.place.open(lab.clock.clone()));
    let add = |store, prefix: &'static str| async move {
        let store: &P::Store = store;
        for number in 0..25 {
            store.add_consumer(&me(), consumer(&format!("{prefix}{number}"))).await.unwrap();
        }
    };
    tokio::join!(add(&lab.store, "a"), add(&one, "b"), add(&other, "c"));
    assert_eq!(lab.store.consumers(ALL).await.unwrap().len(), 75);
    let revisions: Vec<_> = lab.changes_since(0).await.iter().map(|c| c.revision).collect();
    assert_eq!(revisions, (1..=75).collect::<Vec<_>>());
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The gateway follows one connection, the command line writes through another.
pub(super) async fn a_running_gateway_hears_of_everything_within_a_second<P: Place>() {
    let lab = Lab::<P>::new(Clock::system());
    let command_line = lab.place.open(lab.clock.clone());
    let Lab { store, clock, .. } = lab;
    let store = Arc::new(store);
    let directory = Arc::new(Directory::new(Arc::<P::Store>::clone(&store), clock.clone()));
    let gateway = Authenticator::new(
        api_keys(),
        Vec::new(),
        Arc::clone(&directory),
        Arc::new(TokenCache::new(10)),
        &RemoteKeySets::new(clock.clone()),
        clock.clone(),
    );
    command_line.add_consumer(&me(), consumer("alice")).await.unwrap();
    let (plain, new) = key("alice");
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_str(plain.reveal()).unwrap());
    let requirement = Requirement::Required { methods: vec![Method::ApiKey], scopes: Vec::new() };
    let reason = async || match gateway.identify(&requirement, &headers, CLIENT).await {
        Ok(_) => "welcome",
        Err(denied) => denied.reason(),
    };

    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let following =
        follow(&*store, &*store, &directory, &clock, |event| sender.send(event).unwrap());
    let mut applied = async || match events.recv().await {
        Some(FeedEvent::Applied { delay, .. }) => {
            assert!(delay < Duration::from_secs(1), "{delay:?}");
        }
        other => panic!("{other:?}"),
    };
    let story = async {
        // The first question is answered once the feed has begun.
        while directory.confirmed_at().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(reason().await, "unknown");
        let id = command_line.issue_key(&me(), new).await.unwrap().id;
        applied().await;
        assert_eq!(reason().await, "welcome");
        command_line.set_enabled(&me(), "alice", false).await.unwrap();
        applied().await;
        assert_eq!(reason().await, "consumer_disabled");
        command_line.set_enabled(&me(), "alice", true).await.unwrap();
        applied().await;
        assert_eq!(reason().await, "welcome");
        command_line.revoke_key(&me(), id).await.unwrap();
        applied().await;
        assert_eq!(reason().await, "revoked");
        command_line.remove_consumer(&me(), "alice").await.unwrap();
        applied().await;
        assert_eq!(reason().await, "unknown");
    };
    tokio::select! {
        () = following => unreachable!("it never ends"),
        () = story => {}
    }
}
