//! The contract suite: what every store of consumers and keys promises, whatever it is made of.
//!
//! A store joins by a [`Place`] and one line at the end.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the promises are test code, though generic and so not tests by themselves"
)]

use datahub_gateway::auth::api_key::{KeyForm, KeyId, PlainKey};
use datahub_gateway::auth::changes::{Change, ChangeFeed, ChangeKind, Changes, Reset};
use datahub_gateway::auth::directory::{Answer, Source};
use datahub_gateway::auth::registry::{
    Actor, KeyInfo, NewConsumer, NewKey, Page, Registry, RegistryError, Rotation,
};
use datahub_gateway::auth::{
    ApiKeys, Authenticator, Directory, FeedEvent, Method, Requirement, TokenCache, UnixTime, follow,
};
use datahub_gateway::stores::{Embedded, Store};
use datahub_gateway::telemetry::Clock;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

/// An empty store that several processes can open.
trait Place: Sized {
    type Store: Store;

    fn empty() -> Self;

    /// Another connection to the same data.
    fn open(&self, clock: Clock) -> Self::Store;
}

/// A store, and the time it goes by.
struct Lab<P: Place> {
    place: P,
    store: P::Store,
    clock: Clock,
}

impl<P: Place> Lab<P> {
    fn new(clock: Clock) -> Self {
        let place = P::empty();
        Self { store: place.open(clock.clone()), place, clock }
    }

    fn now(&self) -> u64 {
        self.clock.unix_time().as_secs()
    }

    async fn add(&self, username: &str) {
        self.store.add_consumer(&me(), consumer(username)).await.unwrap();
    }

    async fn issue(&self, consumer: &str) -> KeyInfo {
        self.store.issue_key(&me(), key(consumer).1).await.unwrap()
    }

    async fn revision(&self) -> u64 {
        match self.store.changes_since(None).await.unwrap() {
            Changes::Reset(reset) => reset.revision,
            Changes::Since { .. } => panic!("the start was asked for"),
        }
    }

    async fn changes_since(&self, revision: u64) -> Vec<Change> {
        match self.store.changes_since(Some(revision)).await.unwrap() {
            Changes::Since { changes, more: false, .. } => changes,
            other => panic!("{other:?}"),
        }
    }
}

fn me() -> Actor {
    Actor::named("test")
}

fn consumer(username: &str) -> NewConsumer {
    NewConsumer {
        username: username.to_owned(),
        custom_id: None,
        plan: "free".to_owned(),
        policies: Vec::new(),
    }
}

fn api_keys() -> ApiKeys {
    ApiKeys {
        environment: "test".into(),
        header: HeaderName::from_static("x-api-key"),
        pepper: b"a pepper that only tests have seen".to_vec(),
    }
}

fn key(consumer: &str) -> (PlainKey, NewKey) {
    let (plain, proof) = KeyForm::new(&api_keys()).generate().unwrap();
    let new = NewKey {
        proof,
        consumer: consumer.to_owned(),
        name: None,
        plan: None,
        scopes: Vec::new(),
        not_before: None,
        expires_at: None,
    };
    (plain, new)
}

const fn secs(secs: u64) -> Option<UnixTime> {
    Some(UnixTime::from_secs(secs))
}

const ALL: Page<'static> = Page { after: None, limit: 1000 };

async fn a_consumer_is_found_by_its_name_and_its_id<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    let new = NewConsumer { custom_id: Some("crm-7".to_owned()), ..consumer("alice") };
    let added = lab.store.add_consumer(&me(), new).await.unwrap();
    assert_eq!(added.consumer.custom_id.as_deref(), Some("crm-7"));
    assert!(added.consumer.enabled);
    assert_eq!(added.created_at.as_secs(), lab.now());
    for name in ["alice", &added.consumer.id] {
        assert_eq!(lab.store.consumer(name).await.unwrap(), added);
    }
    match lab.store.look_up_consumer("alice", 0).await {
        Answer::Known { row, revision: 1 } => assert_eq!(row, added.consumer),
        other => panic!("{other:?}"),
    }
    for name in ["Alice", "alic", "", "alice ", &added.consumer.id] {
        let found = lab.store.look_up_consumer(name, 0).await;
        assert!(matches!(found, Answer::Unknown { revision: 1 }), "{name:?}: {found:?}");
    }
    assert!(matches!(
        lab.store.consumer("bob").await,
        Err(RegistryError::UnknownConsumer(name)) if name == "bob"
    ));
}

async fn names_and_references_are_unique<P: Place>() {
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

async fn values_that_cannot_go_into_headers_are_refused<P: Place>() {
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
    let many = NewKey { scopes: vec!["s".to_owned(); 65], ..key("alice").1 };
    assert!(lab.store.issue_key(&me(), many).await.is_err());
    let past = NewKey { expires_at: secs(lab.now()), ..key("alice").1 };
    assert!(lab.store.issue_key(&me(), past).await.is_err());
    assert_eq!(lab.revision().await, 1);
}

async fn a_key_comes_back_as_it_was_issued<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let new = NewKey {
        name: Some("ci".to_owned()),
        plan: Some("pro".to_owned()),
        scopes: vec!["orders:read".to_owned(), "orders:write".to_owned()],
        not_before: secs(lab.now() + 5),
        expires_at: secs(lab.now() + 50),
        ..key("alice").1
    };
    let proof = new.proof;
    let issued = lab.store.issue_key(&me(), new).await.unwrap();
    assert_eq!((&*issued.consumer, issued.name.as_deref()), ("alice", Some("ci")));
    assert_eq!(lab.store.key(issued.id).await.unwrap(), issued);
    let Answer::Known { row, revision } = lab.store.look_up_key(proof.id, 0).await else {
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

    let unknown: KeyId = "0000000000000000".parse().unwrap();
    assert!(matches!(lab.store.look_up_key(unknown, 0).await, Answer::Unknown { revision: 2 }));
    assert!(matches!(lab.store.key(unknown).await, Err(RegistryError::UnknownKey(_))));
    let orphan = lab.store.issue_key(&me(), key("nobody").1).await;
    assert!(matches!(orphan, Err(RegistryError::UnknownConsumer(_))), "{orphan:?}");
}

async fn lists_come_in_pages<P: Place>() {
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

async fn a_rotated_key_lives_through_the_overlap<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let new = NewKey {
        name: Some("ci".to_owned()),
        plan: Some("pro".to_owned()),
        scopes: vec!["read".to_owned()],
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

async fn a_revoked_key_stays_revoked<P: Place>() {
    let lab = Lab::<P>::new(Clock::manual());
    lab.add("alice").await;
    let id = lab.issue("alice").await.id;
    let revoked = lab.store.revoke_key(&me(), id).await.unwrap();
    assert_eq!(revoked.revoked_at, secs(lab.now()));
    lab.clock.advance(Duration::from_secs(9));
    assert_eq!(lab.store.revoke_key(&me(), id).await.unwrap(), revoked, "again changes nothing");
    let Answer::Known { row, .. } = lab.store.look_up_key(id, 0).await else {
        panic!("it is there")
    };
    assert_eq!(row.revoked_at, revoked.revoked_at);
    let unknown = lab.store.revoke_key(&me(), "0000000000000000".parse().unwrap()).await;
    assert!(matches!(unknown, Err(RegistryError::UnknownKey(_))));
}

async fn every_write_is_a_revision_that_names_what_it_touched<P: Place>() {
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
    assert!(matches!(lab.store.look_up_key(new.id, 0).await, Answer::Unknown { revision: 8 }));

    let changes = lab.changes_since(0).await;
    for (index, expected) in expected.iter().enumerate() {
        let revision = u64::try_from(index).unwrap() + 1;
        let found: Vec<_> = changes.iter().filter(|c| c.revision == revision).collect();
        let names: Vec<_> = found.iter().map(|c| (c.kind, c.id.to_string())).collect();
        assert_eq!(names, *expected, "revision {revision}");
    }
    assert_eq!(lab.revision().await, 8);
    assert_eq!(changes.last().unwrap().committed_at, lab.clock.unix_time());
    assert_eq!(lab.changes_since(8).await, []);
    let future = lab.store.changes_since(Some(9)).await.unwrap();
    assert_eq!(future, Changes::Reset(Reset::at(8)), "a store that was put back");
}

async fn many_changes_come_complete_and_in_order<P: Place>() {
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

async fn writers_in_several_processes_do_not_lose_each_other<P: Place>() {
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

/// The gateway follows one connection, the command line writes through another.
async fn a_running_gateway_hears_of_everything_within_a_second<P: Place>() {
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
        clock.clone(),
    );
    command_line.add_consumer(&me(), consumer("alice")).await.unwrap();
    let (plain, new) = key("alice");
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_str(plain.reveal()).unwrap());
    let requirement = Requirement::Required { methods: vec![Method::ApiKey], scopes: Vec::new() };
    let reason = async || match gateway.identify(&requirement, &headers).await {
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

macro_rules! contract {
    ($place:ty: $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                super::$promise::<$place>().await;
            }
        )*
    };
}

macro_rules! store {
    ($name:ident, $place:ty) => {
        mod $name {
            contract! { $place:
                a_consumer_is_found_by_its_name_and_its_id,
                a_key_comes_back_as_it_was_issued,
                a_revoked_key_stays_revoked,
                a_rotated_key_lives_through_the_overlap,
                a_running_gateway_hears_of_everything_within_a_second,
                every_write_is_a_revision_that_names_what_it_touched,
                lists_come_in_pages,
                many_changes_come_complete_and_in_order,
                names_and_references_are_unique,
                values_that_cannot_go_into_headers_are_refused,
                writers_in_several_processes_do_not_lose_each_other,
            }
        }
    };
}

struct File(tempfile::TempDir);

impl Place for File {
    type Store = Embedded;

    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, clock: Clock) -> Embedded {
        Embedded::open(&self.0.path().join("gateway.db"), clock).unwrap()
    }
}

store!(embedded, super::File);
