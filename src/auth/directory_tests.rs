//! What the directory promises, against a store that answers on command.

use super::api_key::{KeyForm, KeyId};
use super::changes::{Change, ChangeFeed, ChangeKind, Changes, Reset};
use super::denials::{Denial, Denials, DeniedTokens, NewDenial};
use super::denied::Outage;
use super::directory::{
    Answer, Directory, KeyRecord, LOOKUP_DEADLINE, Lookup, STALE_FOR, Settings, Source, UNKNOWN_FOR,
};
use super::fake::{FakeSource, Mood, api_keys};
use super::follow::{FeedEvent, follow};
use super::identity::{Consumer, UnixTime};
use super::registry::{Actor, Page, RegistryError};
use crate::telemetry::Clock;
use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

fn setup() -> (Arc<FakeSource>, Directory, Clock) {
    let (source, clock) = (Arc::new(FakeSource::default()), Clock::manual());
    let directory = Directory::new(Arc::<FakeSource>::clone(&source), clock.clone());
    (source, directory, clock)
}

fn invented(number: u32) -> KeyId {
    format!("{number:016}").parse().unwrap()
}

fn change(revision: u64, kind: ChangeKind, id: &str) -> Change {
    Change { revision, kind, id: id.into(), committed_at: Duration::ZERO }
}

/// A key with another id and the checksum that fits: nobody can tell without asking that it is none.
fn well_formed() -> KeyId {
    let (plain, _) = KeyForm::new(&api_keys()).generate().unwrap();
    let form = KeyForm::new(&api_keys());
    form.parse(plain.reveal().as_bytes()).unwrap().id()
}

/// The feed says that nothing happened.
fn confirm(directory: &Directory, revision: u64, clock: &Clock) {
    directory.apply(revision, &[], clock.now());
}

async fn key_state(directory: &Directory, id: KeyId) -> Lookup<String> {
    match directory.find_key(id).await {
        Lookup::Known(entry) => Lookup::Known(entry.value.caller.consumer.username.to_string()),
        Lookup::Unknown => Lookup::Unknown,
        Lookup::Unavailable(outage) => Lookup::Unavailable(outage),
    }
}

fn known(username: &str) -> Lookup<String> {
    Lookup::Known(username.to_owned())
}

#[tokio::test]
async fn many_requests_for_one_key_cost_one_look_up() {
    let (source, directory, _) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    let gate = Arc::new(Semaphore::new(0));
    source.set_mood(Mood::Waits(Arc::clone(&gate)));

    let requests = join_all((0..100).map(|_| key_state(&directory, id)));
    let (found, ()) = tokio::join!(requests, async { gate.add_permits(1) });

    assert!(found.iter().all(|found| *found == known("alice")));
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn workers_on_other_threads_share_the_look_up() {
    let (source, directory, _) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    let gate = Arc::new(Semaphore::new(0));
    source.set_mood(Mood::Waits(Arc::clone(&gate)));
    let directory = &directory;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(key_state(directory, id))
                })
            })
            .collect();
        gate.add_permits(1);
        for worker in workers {
            assert_eq!(worker.join().unwrap(), known("alice"));
        }
    });
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn a_leader_that_hangs_up_hands_over() {
    let (source, directory, _) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    let gate = Arc::new(Semaphore::new(0));
    source.set_mood(Mood::Waits(Arc::clone(&gate)));

    let mut leader = Box::pin(key_state(&directory, id));
    assert!(futures_util::poll!(&mut leader).is_pending());
    let mut follower = Box::pin(key_state(&directory, id));
    assert!(futures_util::poll!(&mut follower).is_pending());
    drop(leader);
    gate.add_permits(1);

    assert_eq!(follower.await, known("alice"));
    assert_eq!(source.asked(), 2);
}

#[tokio::test]
async fn an_outage_is_never_remembered_as_unknown() {
    let (source, directory, _) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    source.set_mood(Mood::Fails);
    for _ in 0..3 {
        assert_eq!(key_state(&directory, id).await, Lookup::Unavailable(Outage::Failed));
        let consumer = directory.find_consumer(&"alice".into()).await;
        assert!(matches!(consumer, Lookup::Unavailable(Outage::Failed)));
    }
    source.set_mood(Mood::Answers);
    assert_eq!(key_state(&directory, id).await, known("alice"));
    assert!(matches!(directory.find_consumer(&"alice".into()).await, Lookup::Known(_)));
}

#[tokio::test]
async fn a_silent_store_is_unavailable_after_the_deadline() {
    let (source, directory, _) = setup();
    source.set_mood(Mood::Hangs);
    let clock = Clock::system();
    let begin = clock.now();
    assert_eq!(key_state(&directory, invented(1)).await, Lookup::Unavailable(Outage::Timeout));
    let took = clock.now().since(begin);
    assert!(took >= LOOKUP_DEADLINE && took < 10 * LOOKUP_DEADLINE, "{took:?}");
}

#[tokio::test]
async fn known_keys_outlive_an_outage_of_ten_minutes_and_not_more() {
    let (source, directory, clock) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    assert_eq!(key_state(&directory, id).await, known("alice"));
    confirm(&directory, 0, &clock);

    source.set_mood(Mood::Fails);
    for _ in 0..10 {
        clock.advance(STALE_FOR / 10);
        assert_eq!(key_state(&directory, id).await, known("alice"));
    }
    assert!(directory.vitals().served_stale > 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(key_state(&directory, id).await, Lookup::Unavailable(Outage::Failed));

    source.set_mood(Mood::Answers);
    assert_eq!(key_state(&directory, id).await, known("alice"));
}

#[tokio::test]
async fn a_revocation_that_was_seen_holds_through_an_outage() {
    let (source, directory, clock) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    assert_eq!(key_state(&directory, id).await, known("alice"));
    source.set_mood(Mood::Fails);
    directory.apply(1, &[change(1, ChangeKind::Key, id.as_str())], clock.now());
    assert_eq!(key_state(&directory, id).await, Lookup::Unavailable(Outage::Failed));
}

#[tokio::test]
async fn a_flood_of_invented_keys_cannot_push_out_good_ones() {
    let (source, directory, _) = setup();
    let good: Vec<_> = (0..200).map(|n| source.add_key(&format!("c{n}"), |_| {}).1).collect();
    for id in &good {
        assert!(matches!(directory.find_key(*id).await, Lookup::Known(_)));
    }
    for number in 0..100_000 {
        assert_eq!(key_state(&directory, invented(number)).await, Lookup::Unknown);
    }
    for id in &good {
        assert!(matches!(directory.glance_key(*id), Some(Lookup::Known(_))), "{id} is gone");
    }
    let shown = format!("{directory:?}");
    let unknown: usize = shown.split([',', ')']).nth(1).unwrap().trim().parse().unwrap();
    assert!(unknown <= 10_000, "{shown}");
}

#[tokio::test]
async fn more_well_formed_random_keys_than_fit_leave_every_good_one_cached() {
    let (source, clock) = (Arc::new(FakeSource::default()), Clock::manual());
    let settings = Settings { known: 10_000, unknown: 1000, ..Settings::default() };
    let directory =
        Directory::with_settings(Arc::<FakeSource>::clone(&source), settings, clock.clone());
    let good: Vec<_> = (0..200).map(|n| source.add_key(&format!("c{n}"), |_| {}).1).collect();
    for id in &good {
        assert!(matches!(directory.find_key(*id).await, Lookup::Known(_)));
    }
    for number in 0..20_000_u64 {
        assert_eq!(key_state(&directory, well_formed()).await, Lookup::Unknown);
        if number % 1000 == 0 {
            clock.advance(Duration::from_millis(10));
        }
    }
    let vitals = directory.vitals();
    assert!(vitals.keys == 200 && vitals.unknown_keys <= 2000, "{vitals:?}");
    for id in &good {
        assert!(matches!(directory.glance_key(*id), Some(Lookup::Known(_))), "{id} is gone");
    }
}

#[tokio::test]
async fn known_keys_are_bounded_and_the_last_ones_work() {
    let source = Arc::new(FakeSource::default());
    let settings = Settings { known: 300, ..Settings::default() };
    let directory =
        Directory::with_settings(Arc::<FakeSource>::clone(&source), settings, Clock::manual());
    for number in 0..3_000 {
        let (_, id) = source.add_key("alice", |_| {});
        assert_eq!(key_state(&directory, id).await, known("alice"), "{number}");
        // A cache is in pieces, and each has a little more than its share.
        assert!(directory.vitals().keys <= 1000);
    }
}

#[tokio::test]
async fn when_a_key_was_last_used_outlives_the_row_that_is_read_again() {
    let (source, directory, clock) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    let last_use = async || match directory.find_key(id).await {
        Lookup::Known(entry) => Arc::clone(&entry.value.last_use),
        other => panic!("{other:?}"),
    };
    let first = last_use().await;
    clock.advance(Duration::from_secs(31));
    assert!(Arc::ptr_eq(&first, &last_use().await));
    assert_eq!(source.asked(), 2);
}

#[tokio::test]
async fn a_new_key_works_at_once_though_it_was_asked_for_before() {
    let (source, directory, clock) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    let record = source.keys.lock().remove(&id).unwrap();
    assert_eq!(key_state(&directory, id).await, Lookup::Unknown);
    assert_eq!(key_state(&directory, id).await, Lookup::Unknown);
    assert_eq!(source.asked(), 1, "it is remembered");

    source.keys.lock().insert(id, record.clone());
    source.set_revision(1);
    directory.apply(1, &[change(1, ChangeKind::Key, id.as_str())], clock.now());
    assert_eq!(key_state(&directory, id).await, known("alice"));

    // And within two seconds if the change is never heard of.
    source.keys.lock().remove(&id);
    directory.reset(&Reset::at(1), clock.now());
    assert_eq!(key_state(&directory, id).await, Lookup::Unknown);
    source.keys.lock().insert(id, record);
    clock.advance(UNKNOWN_FOR);
    assert_eq!(key_state(&directory, id).await, known("alice"));
}

#[tokio::test]
async fn a_change_of_a_consumer_voids_its_keys_and_no_others() {
    let (source, directory, clock) = setup();
    let (_, alices) = source.add_key("alice", |_| {});
    let (_, bobs) = source.add_key("bob", |_| {});
    for id in [alices, bobs] {
        key_state(&directory, id).await;
    }
    for name in ["alice", "bob", "carol"] {
        directory.find_consumer(&name.into()).await;
    }
    directory.apply(1, &[change(1, ChangeKind::Consumer, "id-of-alice")], clock.now());
    assert!(directory.glance_key(alices).is_none());
    assert!(directory.glance_consumer("alice").is_none());
    assert!(directory.glance_consumer("carol").is_none(), "carol may be who was added");
    assert!(matches!(directory.glance_key(bobs), Some(Lookup::Known(_))));
    assert!(matches!(directory.glance_consumer("bob"), Some(Lookup::Known(_))));
}

#[tokio::test]
async fn an_answer_from_before_a_known_change_is_not_believed() {
    let (source, directory, clock) = setup();
    let (_, alices) = source.add_key("alice", |_| {});
    let (_, bobs) = source.add_key("bob", |_| {});
    source.set_revision(5);
    directory.reset(&Reset::at(4), clock.now());
    directory.apply(
        7,
        &[
            change(6, ChangeKind::Key, alices.as_str()),
            change(7, ChangeKind::Consumer, "id-of-carol"),
        ],
        clock.now(),
    );
    assert_eq!(key_state(&directory, alices).await, Lookup::Unavailable(Outage::Behind));
    assert_eq!(key_state(&directory, bobs).await, known("bob"), "no change names it");
    let unknown = directory.find_consumer(&"dave".into()).await;
    assert!(matches!(unknown, Lookup::Unavailable(Outage::Behind)), "he may have been added");
    source.set_revision(7);
    assert_eq!(key_state(&directory, alices).await, known("alice"));
}

#[tokio::test]
async fn a_change_that_overtakes_a_look_up_is_not_lost() {
    let (source, directory, clock) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    let gate = Arc::new(Semaphore::new(0));
    source.set_mood(Mood::Waits(Arc::clone(&gate)));
    let mut request = Box::pin(key_state(&directory, id));
    assert!(futures_util::poll!(&mut request).is_pending());

    // The store has read the row at revision 0 when the change arrives.
    directory.apply(1, &[change(1, ChangeKind::Key, id.as_str())], clock.now());
    gate.add_permits(3);
    assert_eq!(request.await, Lookup::Unavailable(Outage::Behind));
    assert!(directory.glance_key(id).is_none());
}

#[tokio::test]
async fn rows_are_asked_for_again_sooner_while_the_feed_is_silent() {
    let (source, directory, clock) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    key_state(&directory, id).await;
    for (step, watched, asked) in
        [(900, false, 1), (200, false, 2), (20_000, true, 2), (11_000, true, 3)]
    {
        clock.advance(Duration::from_millis(step));
        if watched {
            confirm(&directory, 0, &clock);
        }
        assert_eq!(key_state(&directory, id).await, known("alice"));
        assert_eq!(source.asked(), asked, "after {step} ms more");
    }
}

#[tokio::test]
async fn an_unchanged_row_keeps_its_caller() {
    let (source, directory, clock) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    let name = "alice".into();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let Lookup::Known(key) = directory.find_key(id).await else { panic!("known") };
        let Lookup::Known(owner) = directory.find_consumer(&name).await else { panic!("known") };
        seen.push((Arc::clone(&key.value.caller), Arc::clone(&owner.value)));
        clock.advance(Duration::from_secs(40));
    }
    assert!(Arc::ptr_eq(&seen[0].0, &seen[1].0) && Arc::ptr_eq(&seen[0].1, &seen[1].1));
    assert_eq!(source.asked(), 4);
}

#[tokio::test]
async fn too_many_look_ups_at_once_are_refused() {
    let (source, directory, _) = setup();
    source.set_mood(Mood::Hangs);
    let found = join_all((0..600).map(|n| key_state(&directory, invented(n)))).await;
    let count = |wanted| found.iter().filter(|found| **found == wanted).count();
    assert_eq!(count(Lookup::Unavailable(Outage::Busy)), 88);
    assert_eq!(count(Lookup::Unavailable(Outage::Timeout)), 512);
}

/// Tells what it was given, then nothing new for ever.
struct Script(Mutex<VecDeque<Result<Changes, Outage>>>);

#[async_trait]
impl ChangeFeed for Script {
    async fn changes_since(&self, revision: Option<u64>) -> Result<Changes, Outage> {
        let quiet =
            Changes::Since { revision: revision.unwrap_or(0), changes: vec![], more: false };
        self.0.lock().pop_front().unwrap_or(Ok(quiet))
    }
}

/// No deny list but this.
#[async_trait]
impl Denials for Script {
    async fn load_denials(&self) -> Result<(Vec<Denial>, u64), Outage> {
        let denial = Denial {
            id: "1".into(),
            issuer: "main".into(),
            tokens: DeniedTokens::Id("j1".into()),
            until: UnixTime::from_secs(u64::MAX),
            reason: None,
            created_at: UnixTime::default(),
        };
        Ok((vec![denial], 0))
    }

    async fn denials(&self, _: Page<'_>) -> Result<Vec<Denial>, RegistryError> {
        unreachable!("followers do not list")
    }

    async fn deny(&self, _: &Actor, _: NewDenial) -> Result<Denial, RegistryError> {
        unreachable!("followers do not write")
    }

    async fn allow(&self, _: &Actor, _: &str) -> Result<Denial, RegistryError> {
        unreachable!("followers do not write")
    }
}

#[tokio::test]
async fn following_tells_of_changes_gaps_and_outages() {
    let (_, directory, clock) = setup();
    let now = clock.unix_time();
    let changed = Change {
        committed_at: now.saturating_sub(Duration::from_millis(70)),
        ..change(3, ChangeKind::Key, "0000000000000001")
    };
    let script = Script(Mutex::new(VecDeque::from([
        Ok(Changes::Reset(Reset::at(2))),
        Ok(Changes::Since { revision: 3, changes: vec![changed], more: true }),
        Err(Outage::Failed),
        Err(Outage::Failed),
        Ok(Changes::Reset(Reset::at(9))),
    ])));
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let following =
        follow(&script, &script, &directory, &clock, |event| sender.send(event).unwrap());
    let expected = [
        FeedEvent::Applied { kind: ChangeKind::Key, delay: Duration::from_millis(70) },
        FeedEvent::Down(Outage::Failed),
        FeedEvent::Up,
        FeedEvent::Gap,
    ];
    let heard = async {
        for event in expected {
            assert_eq!(events.recv().await, Some(event));
        }
    };
    tokio::select! {
        () = following => unreachable!("it never ends"),
        () = heard => {}
    }
    assert_eq!(directory.confirmed_at(), Some(clock.now()));
    assert_eq!(directory.vitals().denied, 1, "a start loads the deny list");
}

/// One source behind another.
struct Copies(Vec<Arc<FakeSource>>);

#[async_trait]
impl Source for Copies {
    fn copies(&self) -> usize {
        self.0.len()
    }

    async fn look_up_key(&self, id: KeyId, copy: usize) -> Answer<KeyRecord> {
        self.0[copy].look_up_key(id, 0).await
    }

    async fn look_up_consumer(&self, username: &str, copy: usize) -> Answer<Consumer> {
        self.0[copy].look_up_consumer(username, 0).await
    }
}

/// A replica and the primary, with one key on both.
fn pair() -> (Arc<FakeSource>, Arc<FakeSource>, Directory, Clock, KeyId) {
    let (replica, primary) = (Arc::new(FakeSource::default()), Arc::new(FakeSource::default()));
    let (_, id) = primary.add_key("alice", |_| {});
    let row = primary.keys.lock().get(&id).cloned().unwrap();
    replica.keys.lock().insert(id, row);
    replica.add_consumer("alice", |_| {});
    let clock = Clock::manual();
    let source = Arc::new(Copies(vec![Arc::clone(&replica), Arc::clone(&primary)]));
    let directory = Directory::new(source, clock.clone());
    directory.reset(&Reset::at(0), clock.now());
    (replica, primary, directory, clock, id)
}

#[tokio::test]
async fn the_nearest_copy_answers_and_the_next_one_where_it_cannot() {
    let (replica, primary, directory, clock, id) = pair();
    assert_eq!(key_state(&directory, id).await, known("alice"));
    assert_eq!((replica.asked(), primary.asked()), (1, 0));
    for mood in [Mood::Fails, Mood::Lacks] {
        directory.reset(&Reset::at(0), clock.now());
        replica.set_mood(mood);
        let before = primary.asked();
        assert_eq!(key_state(&directory, id).await, known("alice"));
        assert_eq!(primary.asked(), before + 1);
    }
}

#[tokio::test]
async fn a_copy_from_before_a_change_is_not_believed() {
    let (replica, primary, directory, clock, id) = pair();
    primary.keys.lock().get_mut(&id).unwrap().revoked_at = Some(UnixTime::from_secs(1));
    primary.set_revision(1);
    directory.apply(1, &[change(1, ChangeKind::Key, id.as_str())], clock.now());
    let entry = directory.find_key(id).await;
    assert!(matches!(entry, Lookup::Known(entry) if entry.value.revoked_at.is_some()));
    assert_eq!((replica.asked(), primary.asked()), (1, 1));
    // The same for one that was created after it was asked for.
    let new = primary.add_key("alice", |_| {}).1;
    primary.set_revision(2);
    assert_eq!(key_state(&directory, new).await, Lookup::Unknown, "the replica is behind");
    directory.apply(2, &[change(2, ChangeKind::Key, new.as_str())], clock.now());
    assert_eq!(key_state(&directory, new).await, known("alice"));
    // And with the primary away nobody can say.
    primary.set_mood(Mood::Fails);
    directory.apply(3, &[change(3, ChangeKind::Key, new.as_str())], clock.now());
    assert_eq!(key_state(&directory, new).await, Lookup::Unavailable(Outage::Failed));
}

#[tokio::test]
async fn what_was_taken_back_stays_so_when_the_store_goes_on_from_an_older_history() {
    let (source, directory, clock) = setup();
    let [revoked, asked, created] = [0; 3].map(|_| source.add_key("alice", |_| {}).1);
    let consumer = source.add_consumer("bob", |_| {}).id;
    let (_, of_bob) = source.add_key("bob", |_| {});
    directory.reset(&Reset::at(0), clock.now());
    let lost = [
        change(1, ChangeKind::Key, revoked.as_str()),
        change(2, ChangeKind::Key, asked.as_str()),
        change(3, ChangeKind::Consumer, &consumer),
    ];
    source.set_revision(3);
    directory.apply(3, &lost, clock.now());
    // After its change this one was seen to be good, so the change took nothing back.
    assert_eq!(key_state(&directory, asked).await, known("alice"));

    source.set_revision(0);
    let told = directory.reset(&Reset { new_epoch: true, ..Reset::at(0) }, clock.now());
    assert_eq!(told, lost);
    let state = async |id| match directory.find_key(id).await {
        Lookup::Known(entry) => {
            (entry.value.revoked_at.is_some(), entry.value.caller.consumer.enabled)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(state(revoked).await, (true, true));
    assert_eq!(state(asked).await, (false, true));
    assert_eq!(state(created).await, (false, true));
    assert_eq!(state(of_bob).await, (false, false), "nobody knows what became of bob");
    source.set_revision(1);
    directory.apply(1, &[change(1, ChangeKind::Key, revoked.as_str())], clock.now());
    assert_eq!(state(revoked).await, (false, true), "it was written again");
}

#[tokio::test]
async fn a_replica_that_kept_the_lost_history_is_not_believed() {
    let (replica, primary, directory, clock, id) = pair();
    replica.set_revision(12);
    primary.set_revision(5);
    directory.reset(&Reset::at(10), clock.now());
    directory.reset(&Reset { new_epoch: true, ..Reset::at(5) }, clock.now());
    // In the new history the key is revoked, under a number that the replica has for something else.
    primary.keys.lock().get_mut(&id).unwrap().revoked_at = Some(UnixTime::from_secs(1));
    for revision in 6..20 {
        primary.set_revision(revision);
        let id = if revision == 6 { id.as_str() } else { "0000000000000001" };
        directory.apply(revision, &[change(revision, ChangeKind::Key, id)], clock.now());
    }
    let entry = directory.find_key(id).await;
    assert!(matches!(entry, Lookup::Known(entry) if entry.value.revoked_at.is_some()));
}

#[tokio::test]
async fn an_answer_from_the_history_that_was_lost_is_not_believed() {
    let (source, directory, clock) = setup();
    let (_, id) = source.add_key("alice", |_| {});
    directory.reset(&Reset::at(9), clock.now());
    source.set_revision(9);
    let gate = Arc::new(Semaphore::new(0));
    source.set_mood(Mood::Waits(Arc::clone(&gate)));
    let mut request = Box::pin(key_state(&directory, id));
    assert!(futures_util::poll!(&mut request).is_pending());
    directory.reset(&Reset { new_epoch: true, ..Reset::at(5) }, clock.now());
    source.set_mood(Mood::Fails);
    gate.add_permits(1);
    // Revision 9 of the one history is not above revision 5 of the other.
    assert_eq!(request.await, Lookup::Unavailable(Outage::Failed));
}

#[tokio::test]
async fn during_an_outage_one_request_in_a_while_finds_out_whether_it_is_over() {
    let (source, directory, clock) = setup();
    let ids = [0; 20].map(|_| source.add_key("alice", |_| {}).1);
    for id in ids {
        assert_eq!(key_state(&directory, id).await, known("alice"));
    }
    source.set_mood(Mood::Fails);
    clock.advance(Duration::from_secs(60));
    let before = source.asked();
    for id in ids {
        assert_eq!(key_state(&directory, id).await, known("alice"));
    }
    assert_eq!(source.asked(), before + 1);
    clock.advance(Duration::from_secs(2));
    for id in ids {
        assert_eq!(key_state(&directory, id).await, known("alice"));
    }
    assert_eq!(source.asked(), before + 2);
}
