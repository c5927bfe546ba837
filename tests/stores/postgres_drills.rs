//! What happens to PostgreSQL, and that the gateway gets over it by itself.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run beside real servers, and go by real time"
)]

use super::{migrated, open, patient};
use crate::lab::{Server, Setup, USER, shared};
use crate::{consumer, key, me};
use datahub_gateway::auth::Outage;
use datahub_gateway::auth::api_key::KeyId;
use datahub_gateway::auth::changes::{ChangeFeed as _, Changes};
use datahub_gateway::auth::directory::{Answer, Source as _};
use datahub_gateway::auth::registry::Registry as _;
use datahub_gateway::limits::usage::UsageLog as _;
use datahub_gateway::stores::Postgres;
use datahub_gateway::stores::postgres::Bounds;
use datahub_gateway::telemetry::Clock;
use std::time::{Duration, Instant};

fn unknown_key() -> KeyId {
    "0000000000000000".parse().unwrap()
}

/// A server of one's own with a migrated database, and a store with the usual deadlines.
fn alone() -> (Server, String, Postgres) {
    let server = Server::start(&Setup::default());
    let database = server.database();
    migrated(&server, &database);
    let store = open(&server.url(&database), None, Bounds::default(), Clock::system());
    (server, database, store)
}

/// How long it takes until a look-up is answered again.
async fn until_answered(store: &Postgres, copy: usize) -> Duration {
    let began = Instant::now();
    loop {
        match store.look_up_key(unknown_key(), copy).await {
            Answer::Unavailable(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            _ => return began.elapsed(),
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back");
    }
}

/// How long it takes until a write is done again.
async fn until_written(store: &Postgres, name: &str) -> Duration {
    let began = Instant::now();
    while let Err(error) = store.add_consumer(&me(), consumer(name)).await {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

/// Asks for unknown keys; all must be unavailable, and most within 100 ms. The machine may be busy with
/// other tests, so the middle one is measured.
async fn assert_unavailable_in_time(store: &Postgres) {
    let mut took = Vec::new();
    for _ in 0..15 {
        let began = Instant::now();
        let answer = store.look_up_key(unknown_key(), 0).await;
        took.push(began.elapsed());
        assert!(matches!(answer, Answer::Unavailable(_)), "{answer:?}");
    }
    took.sort_unstable();
    assert!(took[took.len() / 2] < Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn a_frozen_primary_is_unavailable_in_time_and_found_again() {
    let (server, _, store) = alone();
    until_answered(&store, 0).await;
    server.freeze();
    assert_unavailable_in_time(&store).await;
    let asked = store.changes_since(Some(0)).await;
    assert!(asked.is_err(), "{asked:?}");
    let vitals = store.vitals().primary;
    assert!(vitals.timeouts > 0 && vitals.lost > 0, "{vitals:?}");

    server.thaw();
    let back = until_answered(&store, 0).await;
    assert!(back < Duration::from_secs(2), "{back:?}");
    until_written(&store, "alice").await;
}

#[tokio::test]
async fn a_crowd_that_waits_is_bounded() {
    let (server, _, store) = alone();
    until_answered(&store, 0).await;
    server.freeze();
    let store = std::sync::Arc::new(store);
    let crowd: Vec<_> = (0..700)
        .map(|_| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move { store.look_up_key(unknown_key(), 0).await })
        })
        .collect();
    let mut busy = 0;
    for one in crowd {
        match one.await.unwrap() {
            Answer::Unavailable(Outage::Busy) => busy += 1,
            Answer::Unavailable(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // More, where the first have given up before the last have asked: then there is no connection left.
    assert!((100..700).contains(&busy), "{busy}");
    assert_eq!(store.vitals().primary.refused, busy);
    server.thaw();
}

#[tokio::test]
async fn a_primary_that_was_away_is_found_within_a_second() {
    let (mut server, _, store) = alone();
    until_answered(&store, 0).await;
    server.kill();
    assert_unavailable_in_time(&store).await;
    let error = store.consumer("alice").await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
    server.start_again();
    let back = until_answered(&store, 0).await;
    assert!(back < Duration::from_secs(1), "{back:?}");
    assert!(store.vitals().primary.connections > 0);
    // Nobody asks, and it is found all the same.
    server.kill();
    server.start_again();
    let began = Instant::now();
    while store.vitals().primary.idle == 0 {
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", store.vitals());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The old primary is frozen, so that its connections say nothing, and comes back in the end.
#[tokio::test]
async fn after_a_promotion_writes_work_again_and_a_new_epoch_begins() {
    let old = Server::start(&Setup::default());
    let database = old.database();
    migrated(&old, &database);
    let mut new = old.replica();
    let both = format!("postgres://{USER}@{},{}/{database}", old.address(), new.address());
    let store = open(&both, None, Bounds::default(), Clock::system());
    until_written(&store, "before").await;
    let begun = store.changes_since(None).await.unwrap();
    assert!(matches!(&begun, Changes::Reset(reset) if !reset.new_epoch), "{begun:?}");
    let caught_up = format!(
        "SELECT pg_last_wal_replay_lsn() >= '{}'",
        old.sql(&database, "SELECT pg_current_wal_lsn()")
    );
    while new.sql(&database, &caught_up) != "t" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    old.freeze();
    assert_unavailable_in_time(&store).await;
    new.promote();
    let back = until_written(&store, "after").await;
    assert!(back < Duration::from_secs(8), "{back:?}");
    let names = "SELECT string_agg(username, ',' ORDER BY username) FROM consumers";
    assert_eq!(new.sql(&database, names), "after,before");
    let told = store.changes_since(Some(1)).await.unwrap();
    let Changes::Reset(reset) = told else { panic!("another history goes on: {told:?}") };
    assert!(reset.new_epoch && reset.revision == 2, "{reset:?}");
    let quiet = store.changes_since(Some(2)).await.unwrap();
    assert!(matches!(quiet, Changes::Since { revision: 2, .. }), "{quiet:?}");

    // The one that was given up takes writes too, but its history is the older one.
    old.thaw();
    for number in 0..20 {
        until_written(&store, &format!("later{number}")).await;
    }
    assert_eq!(old.sql(&database, names), "before");
}

#[tokio::test]
async fn a_killed_primary_gives_way_to_the_promoted_one() {
    let old = Server::start(&Setup::default());
    let database = old.database();
    migrated(&old, &database);
    let mut new = old.replica();
    let both = format!("postgres://{USER}@{},{}/{database}", old.address(), new.address());
    let store = open(&both, None, Bounds::default(), Clock::system());
    until_written(&store, "before").await;
    old.kill();
    assert_unavailable_in_time(&store).await;
    let refused = store.add_consumer(&me(), consumer("x")).await.unwrap_err().to_string();
    assert!(refused.contains(&old.port().to_string()), "{refused}");
    new.promote();
    let back = until_written(&store, "after").await;
    assert!(back < Duration::from_secs(3), "{back:?}");
}

#[tokio::test]
async fn a_replica_that_is_held_behind_answers_from_the_past_and_says_so() {
    let primary = Server::start(&Setup::default());
    let database = primary.database();
    migrated(&primary, &database);
    let replica = primary.replica();
    let store =
        open(&primary.url(&database), Some(&replica.url(&database)), patient(), Clock::system());
    assert_eq!(store.copies(), 2);
    store.add_consumer(&me(), consumer("alice")).await.unwrap();
    let id = store.issue_key(&me(), key("alice").1).await.unwrap().id;
    let began = Instant::now();
    while !matches!(store.look_up_key(id, 0).await, Answer::Known { revision: 2, .. }) {
        assert!(began.elapsed() < Duration::from_secs(10), "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    replica.pause_replay();
    store.revoke_key(&me(), id).await.unwrap();
    let late = store.issue_key(&me(), key("alice").1).await.unwrap().id;
    for (copy, revision, revoked) in [(0, 2, false), (1, 4, true)] {
        let Answer::Known { row, revision: found } = store.look_up_key(id, copy).await else {
            panic!("copy {copy} has it");
        };
        assert_eq!((found, row.revoked_at.is_some()), (revision, revoked), "copy {copy}");
    }
    assert!(matches!(store.look_up_key(late, 0).await, Answer::Unknown { revision: 2 }));
    assert!(matches!(store.look_up_key(late, 1).await, Answer::Known { revision: 4, .. }));
    replica.resume_replay();

    drop(replica);
    let gone = store.look_up_key(id, 0).await;
    assert!(matches!(gone, Answer::Unavailable(_)), "{gone:?}");
    assert!(matches!(store.look_up_key(id, 1).await, Answer::Known { .. }), "the primary is there");
    assert!(store.vitals().replica.unwrap().connections == 0);
}

#[tokio::test]
async fn a_connection_that_turns_out_to_be_read_only_is_given_up() {
    let database = shared().database();
    migrated(shared(), &database);
    let read_only = |on: &str| {
        let sql = format!("ALTER DATABASE {database} SET default_transaction_read_only = {on}");
        shared().sql("postgres", &sql);
    };
    read_only("on");
    let store = open(&shared().url(&database), None, patient(), Clock::system());
    let refused = store.add_consumer(&me(), consumer("alice")).await.unwrap_err().to_string();
    assert!(refused.contains("takes no writes"), "{refused}");
    read_only("off");
    store.add_consumer(&me(), consumer("alice")).await.unwrap();
    assert!(store.vitals().primary.read_only > 0);
}

#[tokio::test]
async fn connections_that_the_server_ends_cost_no_answer() {
    let database = shared().database();
    migrated(shared(), &database);
    let store = open(&shared().url(&database), None, patient(), Clock::system());
    store.add_consumer(&me(), consumer("c0")).await.unwrap();
    for number in 1..6 {
        // As many connections as there may be, so that many are dead at once.
        let crowd = (0..32).map(|_| store.look_up_consumer("c0", 0));
        for answer in futures_util::future::join_all(crowd).await {
            assert!(matches!(answer, Answer::Known { .. }), "{answer:?}");
        }
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = '{database}' AND usename = '{USER}'"
        );
        assert_ne!(shared().sql("postgres", &end), "0");
        let answer = store.look_up_consumer("c0", 0).await;
        assert!(matches!(answer, Answer::Known { .. }), "{answer:?}: {:?}", store.vitals());
        store.add_consumer(&me(), consumer(&format!("c{number}"))).await.unwrap();
    }
}

#[tokio::test]
async fn connections_are_replaced_before_they_grow_old() {
    let database = shared().database();
    migrated(shared(), &database);
    let bounds = Bounds { oldest: Duration::from_millis(300), ..patient() };
    let store = open(&shared().url(&database), None, bounds, Clock::system());
    until_answered(&store, 0).await;
    let sql = format!("SELECT max(pid) FROM pg_stat_activity WHERE datname = '{database}'");
    let first = shared().sql("postgres", &sql);
    let began = Instant::now();
    while shared().sql("postgres", &sql) == first {
        assert!(began.elapsed() < Duration::from_secs(10), "it is never replaced");
        until_answered(&store, 0).await;
    }
}

/// What was not told to be final leaves nothing behind, and the message says which it was.
#[tokio::test]
async fn a_write_that_takes_too_long_is_not_done() {
    let database = shared().database();
    migrated(shared(), &database);
    let bounds = Bounds { administration: Duration::from_millis(400), ..patient() };
    let store = open(&shared().url(&database), None, bounds, Clock::system());
    until_written(&store, "alice").await;
    let lock = "BEGIN; SELECT n FROM revision FOR UPDATE; SELECT pg_sleep(2); ROLLBACK";
    let error = std::thread::scope(|scope| {
        scope.spawn(|| shared().sql(&database, lock));
        scope
            .spawn(|| {
                let held = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' \
                            AND wait_event = 'PgSleep'";
                while shared().sql(&database, held) == "0" {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let events = tokio::runtime::Builder::new_current_thread().enable_all().build();
                events.unwrap().block_on(store.add_consumer(&me(), consumer("bob"))).unwrap_err()
            })
            .join()
            .unwrap()
    });
    let message = error.to_string();
    assert!(message.contains("did not answer within 400 ms"), "{message}");
    assert_eq!(shared().sql(&database, "SELECT n FROM revision"), "1");
    until_written(&store, "bob").await;
}

#[tokio::test]
async fn a_write_stirs_those_who_follow_and_a_cut_line_is_mended() {
    let database = shared().database();
    migrated(shared(), &database);
    let store = open(&shared().url(&database), None, patient(), Clock::system());
    let writer = open(&shared().url(&database), None, patient(), Clock::system());
    let stirred = async || {
        let stirred = tokio::time::timeout(Duration::from_secs(10), store.stirred()).await;
        assert!(stirred.is_ok(), "nothing stirs");
    };
    store.changes_since(None).await.unwrap();
    // Once when the line stands, since there may have been writes before.
    stirred().await;
    for name in ["a", "b"] {
        writer.add_consumer(&me(), consumer(name)).await.unwrap();
        stirred().await;
    }
    let listeners = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = '{database}' AND query LIKE 'SELECT substr%' AND pid <> pg_backend_pid()"
    );
    assert_eq!(shared().sql("postgres", &listeners), "1");
    stirred().await;
    writer.add_consumer(&me(), consumer("c")).await.unwrap();
    stirred().await;
}

#[tokio::test]
async fn a_flood_of_look_ups_keeps_nobody_out() {
    let database = shared().database();
    migrated(shared(), &database);
    let bounds = Bounds { look_ups_per_second: 1_000_000, ..patient() };
    let store = std::sync::Arc::new(open(&shared().url(&database), None, bounds, Clock::system()));
    until_answered(&store, 0).await;
    let ends = Instant::now() + Duration::from_secs(1);
    let flood: Vec<_> = (0..200)
        .map(|_| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                while Instant::now() < ends {
                    store.look_up_key(unknown_key(), 0).await;
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    while Instant::now() < ends {
        let began = Instant::now();
        store.changes_since(Some(0)).await.unwrap();
        slowest = slowest.max(began.elapsed());
    }
    for one in flood {
        one.await.unwrap();
    }
    assert!(slowest < Duration::from_millis(700), "{slowest:?}");
    let vitals = store.vitals().primary;
    assert!(vitals.connections <= 6 && vitals.waiting == 0, "{vitals:?}");
}

#[tokio::test]
async fn new_subjects_of_a_quota_keep_nobody_out_and_wait_for_nobody_long() {
    let database = shared().database();
    migrated(shared(), &database);
    let bounds = Bounds { quotas: Duration::from_millis(100), ..patient() };
    let store = std::sync::Arc::new(open(&shared().url(&database), None, bounds, Clock::system()));
    until_written(&store, "alice").await;
    let name = database.clone();
    let lock = "BEGIN; LOCK TABLE quotas; SELECT pg_sleep(2); ROLLBACK";
    let locked = std::thread::spawn(move || shared().sql(&name, lock));
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 'quotas'::regclass AND granted \
                AND mode = 'AccessExclusiveLock'";
    while shared().sql(&database, held) == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let flood: Vec<_> = (0..200)
        .map(|subject| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                let began = Instant::now();
                assert!(store.quota_used("free", subject, 0).await.is_err());
                began.elapsed()
            })
        })
        .collect();
    let written = until_written(&store, "bob").await;
    assert!(written < Duration::from_secs(1), "{written:?}");
    for one in flood {
        let took = one.await.unwrap();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    let vitals = store.vitals().primary;
    assert!(vitals.refused >= 200 - 32 && vitals.timeouts > 0, "{vitals:?}");
    locked.join().unwrap();
    assert_eq!(store.quota_used("free", 1, 0).await.unwrap(), 0);
}
