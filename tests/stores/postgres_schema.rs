//! Migrations, what goes into the tables past the gateway, and what is forgotten.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run beside real servers, and go by real time"
)]

use super::{migrated, open, patient};
use crate::lab::shared;
use crate::{ALL, consumer, key, me};
use datahub_gateway::auth::changes::{ChangeFeed as _, ChangeKind, Changes};
use datahub_gateway::auth::denials::{Denials as _, DeniedTokens, NewDenial};
use datahub_gateway::auth::directory::{Answer, Source as _};
use datahub_gateway::auth::documents::{DocumentKind, Documents as _};
use datahub_gateway::auth::registry::{NewConsumer, NewKey, Registry as _, RegistryError};
use datahub_gateway::auth::{Outage, UnixTime};
use datahub_gateway::limits::usage::{Batch, QuotaCount, TaskId, UsageLog as _};
use datahub_gateway::stores::postgres::{Bounds, migrate};
use datahub_gateway::stores::{Postgres, PostgresError};
use datahub_gateway::telemetry::Clock;
use serde_json::json;
use std::fmt::Write as _;
use uuid::Uuid;

/// A migrated database, and its name.
fn fresh(clock: Clock) -> (Postgres, String) {
    let database = shared().database();
    migrated(shared(), &database);
    (open(&shared().url(&database), None, patient(), clock), database)
}

#[tokio::test]
async fn of_ten_that_migrate_at_once_one_works() {
    let database = shared().database();
    let url = shared().url(&database);
    let runs: Vec<_> = (0..10)
        .map(|_| {
            let store = open(&url, None, patient(), Clock::system());
            tokio::spawn(async move {
                let applied = migrate::apply(&store).await.unwrap();
                store.check_schema().await.unwrap();
                applied.len()
            })
        })
        .collect();
    let mut applied = Vec::new();
    for run in runs {
        applied.push(run.await.unwrap());
    }
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
    assert_eq!(shared().sql(&database, "SELECT count(*) FROM schema_migrations"), "4");
    let store = open(&url, None, patient(), Clock::system());
    assert_eq!(migrate::plan(&store).await.unwrap(), []);
}

#[tokio::test]
async fn a_plan_changes_nothing_and_a_missing_schema_says_what_to_do() {
    let database = shared().database();
    let store = open(&shared().url(&database), None, patient(), Clock::system());
    let planned = migrate::plan(&store).await.unwrap();
    let planned: Vec<_> = planned.iter().map(|step| (step.version, step.name)).collect();
    let expected =
        [(1, "consumers_and_keys"), (2, "plans_policies_denials"), (3, "usage"), (4, "key_use")];
    assert_eq!(planned, expected);
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(shared().sql(&database, tables), "0");

    let message = store.check_schema().await.unwrap_err().to_string();
    assert!(message.contains("it has no schema, this gateway needs schema 4"), "{message}");
    assert!(message.contains("run `gateway migrate` once"), "{message}");
    let asked = store.consumer("alice").await.unwrap_err().to_string();
    assert!(asked.contains("run `gateway migrate` once"), "{asked}");
    let id = "0000000000000000".parse().unwrap();
    let looked_up = store.look_up_key(id, 0).await;
    assert!(matches!(looked_up, Answer::Unavailable(Outage::Failed)), "{looked_up:?}");
}

#[tokio::test]
async fn a_schema_that_is_not_ours_is_refused() {
    let (store, database) = fresh(Clock::system());
    store.check_schema().await.unwrap();
    let sql = |sql: &str| shared().sql(&database, sql);
    sql("DELETE FROM schema_migrations WHERE version >= 3");
    let older = store.check_schema().await.unwrap_err().to_string();
    assert!(older.contains("its schema is 2, this gateway needs schema 4"), "{older}");

    for serves in ["9", "5", "NULL"] {
        sql(&format!("INSERT INTO schema_migrations VALUES (9, 'later', 'x', now(), {serves})"));
        for newer in
            [store.check_schema().await.unwrap_err(), migrate::apply(&store).await.unwrap_err()]
        {
            let message = newer.to_string();
            assert!(matches!(newer, PostgresError::Newer { found: 9, known: 4, .. }), "{message}");
        }
        sql("DELETE FROM schema_migrations WHERE version = 9");
    }

    sql("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1");
    for changed in
        [store.check_schema().await.unwrap_err(), migrate::apply(&store).await.unwrap_err()]
    {
        let message = changed.to_string();
        assert!(message.contains("migration 1 of the database"), "{message}");
        assert!(message.contains("checksums differ"), "{message}");
    }
}

#[tokio::test]
async fn a_later_schema_that_still_serves_us_is_one_to_start_on() {
    let (store, database) = fresh(Clock::system());
    let sql = |sql: &str| shared().sql(&database, sql);
    sql(
        "INSERT INTO schema_migrations VALUES (5, 'wider', 'x', now(), 4), (6, 'more', 'x', now(), 2)",
    );
    store.check_schema().await.unwrap();
    assert_eq!(migrate::plan(&store).await.unwrap(), []);
    assert_eq!(migrate::apply(&store).await.unwrap(), []);

    sql("INSERT INTO schema_migrations VALUES (7, 'narrower', 'x', now(), 7)");
    let newer = store.check_schema().await.unwrap_err();
    assert!(matches!(newer, PostgresError::Newer { found: 7, known: 4, .. }), "{newer}");
}

#[tokio::test]
async fn a_list_of_migrations_from_before_they_said_whom_they_serve_is_brought_up_to_date() {
    let (store, database) = fresh(Clock::system());
    let sql = |sql: &str| shared().sql(&database, sql);
    sql("ALTER TABLE schema_migrations DROP COLUMN serves");
    store.check_schema().await.unwrap();
    assert_eq!(migrate::apply(&store).await.unwrap(), []);
    assert_eq!(sql("SELECT count(*) FROM schema_migrations WHERE serves IS NULL"), "4");
}

#[tokio::test]
async fn twenty_thousand_keys_are_loaded_by_copy() {
    let (store, database) = fresh(Clock::system());
    let owner = store.add_consumer(&me(), consumer("alice")).await.unwrap().consumer.id;
    let mut lines = String::new();
    for number in 0..20_000 {
        writeln!(lines, "bulk{number:012}\t{owner}\t\\\\x{number:064x}\t7\t{{read,write}}")
            .unwrap();
    }
    let id = |number: u32| format!("bulk{number:012}").parse().unwrap();
    let before = store.look_up_key(id(3), 0).await;
    assert!(matches!(before, Answer::Unknown { revision: 1 }), "{before:?}");

    let copy = "COPY keys (id, consumer, digest, pepper, scopes) FROM STDIN";
    shared().load(&database, copy, &lines);
    for number in [0, 3, 9_999, 19_999] {
        let Answer::Known { row, revision } = store.look_up_key(id(number), 0).await else {
            panic!("{number} was loaded");
        };
        assert_eq!((row.id, revision, row.pepper.as_u32()), (id(number), 1, 7));
        assert_eq!(row.digest.as_bytes()[28..], number.to_be_bytes());
        assert_eq!((&*row.consumer.id, row.scopes.len()), (&*owner, 2));
    }
    let plan = "EXPLAIN SELECT r.n, k.digest FROM revision r \
                LEFT JOIN keys k ON k.id = 'bulk000000000003'";
    assert!(shared().sql(&database, plan).contains("keys_pkey"));
}

#[tokio::test]
async fn hostile_names_stay_data() {
    let (store, database) = fresh(Clock::system());
    let hostile = "x');DROP/**/TABLE/**/keys;--";
    let new = NewConsumer {
        custom_id: Some("$1';--".to_owned()),
        policies: vec!["{a,b}\"\\".to_owned(), "NULL".to_owned()],
        ..consumer(hostile)
    };
    let added = store.add_consumer(&me(), new).await.unwrap();
    let new = NewKey {
        name: Some(hostile.to_owned()),
        scopes: vec!["{x},'y".to_owned(), "NULL".to_owned()],
        ..key(hostile).1
    };
    let issued = store.issue_key(&me(), new).await.unwrap();
    store
        .put_document(&me(), DocumentKind::Plan, hostile, &json!({ hostile: hostile }))
        .await
        .unwrap();
    let denial = NewDenial {
        issuer: hostile.to_owned(),
        tokens: DeniedTokens::Id("'; DROP TABLE denials; -- \u{1f980}".into()),
        until: UnixTime::from_secs(4_000_000_000),
        reason: Some("\\x00'; DELETE FROM revision".to_owned()),
    };
    let denied = store.deny(&me(), denial).await.unwrap();

    assert_eq!(store.consumer(hostile).await.unwrap(), added);
    assert_eq!(store.key(issued.id).await.unwrap(), issued);
    let Answer::Known { row, .. } = store.look_up_consumer(hostile, 0).await else {
        panic!("it was added");
    };
    assert_eq!(row, added.consumer);
    assert_eq!(row.policies.iter().map(|name| &**name).collect::<Vec<_>>(), ["{a,b}\"\\", "NULL"]);
    assert_eq!(store.denials(ALL).await.unwrap(), [denied]);
    for name in ["' OR '1'='1", "%", "_", "\\", "a\0b", "\0", "*"] {
        let found = store.look_up_consumer(name, 0).await;
        assert!(matches!(found, Answer::Unknown { revision: 4 }), "{name:?}: {found:?}");
        assert!(store.consumer(name).await.is_err(), "{name:?}");
        assert!(store.document(DocumentKind::Plan, name).await.is_err(), "{name:?}");
        assert!(store.allow(&me(), name).await.is_err(), "{name:?}");
    }
    let zero = json!({ "name": "a\0b" });
    let refused = store.put_document(&me(), DocumentKind::Plan, "p", &zero).await;
    assert!(matches!(refused, Err(RegistryError::Invalid { .. })), "{refused:?}");
    assert_eq!(shared().sql(&database, "SELECT n FROM revision"), "4");
}

#[tokio::test]
async fn a_start_is_told_what_changed_in_the_last_ten_minutes() {
    let (store, database) = fresh(Clock::system());
    let reset = async || match store.changes_since(None).await.unwrap() {
        Changes::Reset(reset) => reset,
        other => panic!("{other:?}"),
    };
    let empty = reset().await;
    assert_eq!((empty.revision, empty.remembered_from, empty.recent.len()), (0, 0, 0));
    for name in ["a", "b", "c", "d"] {
        store.add_consumer(&me(), consumer(name)).await.unwrap();
    }
    let all = reset().await;
    let numbers: Vec<_> = all.recent.iter().map(|change| change.revision).collect();
    assert_eq!((all.revision, all.remembered_from, numbers), (4, 0, vec![1, 2, 3, 4]));
    assert!(!all.new_epoch);

    let age = |minutes: u32, upto: u32| {
        let back = minutes * 60_000;
        shared().sql(&database, &format!("UPDATE changes SET at = at - {back} WHERE n <= {upto}"));
    };
    age(11, 2);
    let some = reset().await;
    let numbers: Vec<_> = some.recent.iter().map(|change| change.revision).collect();
    assert_eq!((some.revision, some.remembered_from, numbers), (4, 2, vec![3, 4]));
    assert!(some.recent.iter().all(|change| change.kind == ChangeKind::Consumer));

    age(24 * 60, 3);
    store.set_enabled(&me(), "a", false).await.unwrap();
    assert_eq!(shared().sql(&database, "SELECT string_agg(n::text, ',') FROM changes"), "4,5");
    let after = store.changes_since(Some(2)).await.unwrap();
    let Changes::Reset(gap) = after else { panic!("3 is forgotten: {after:?}") };
    assert_eq!((gap.revision, gap.remembered_from, gap.new_epoch), (5, 3, false));

    shared().sql(&database, "UPDATE changes SET kind = 'later' WHERE n = 4");
    let after = store.changes_since(Some(3)).await.unwrap();
    let Changes::Reset(foreign) = after else { panic!("a newer gateway's: {after:?}") };
    assert_eq!((foreign.remembered_from, foreign.recent.len()), (4, 1));

    shared().sql(&database, "UPDATE revision SET n = 1");
    let after = store.changes_since(Some(5)).await.unwrap();
    let Changes::Reset(back) = after else { panic!("a backup: {after:?}") };
    assert!(back.new_epoch, "it goes on from another history");
}

#[tokio::test]
async fn what_has_ended_is_forgotten() {
    let (store, database) = fresh(Clock::system());
    let now = Clock::system().unix_time().as_secs();
    let quota = |period, ends| QuotaCount { rule: "r".into(), subject: 1, period, ends, used: 5 };
    let task = |number| TaskId(Uuid::from_u128(number));
    let batch = |number, quotas| Batch { task: task(1), number, usage: Vec::new(), quotas };
    let quotas = vec![quota(1, now - 4 * 86_400), quota(2, now - 86_400), quota(3, now + 60)];
    store.apply(&batch(1, quotas)).await.unwrap();
    store.heartbeat(task(1)).await.unwrap();
    shared().sql(
        &database,
        "INSERT INTO usage VALUES (current_date - 401, 'c', 'x', 'c', 1, 1), \
         (current_date - 399, 'c', 'x', 'c', 1, 1); \
         INSERT INTO usage_batches VALUES (gen_random_uuid(), 1, now() - interval '8 days'); \
         INSERT INTO tasks VALUES (gen_random_uuid(), now() - interval '2 days'), \
         (gen_random_uuid(), now() - interval '16 s')",
    );
    store.apply(&batch(2, Vec::new())).await.unwrap();
    assert_eq!(store.heartbeat(task(2)).await.unwrap(), 2, "those of the last 15 s");
    let left = "SELECT (SELECT count(*) FROM quotas), (SELECT count(*) FROM usage), \
                (SELECT count(*) FROM usage_batches), (SELECT count(*) FROM tasks)";
    assert_eq!(shared().sql(&database, left), "2|1|1|3");
}

#[tokio::test]
async fn lists_that_every_gateway_holds_are_bounded() {
    let (store, database) = fresh(Clock::system());
    shared().sql(
        &database,
        "INSERT INTO denials (issuer, jti, until, created_at) \
         SELECT 'i', 'jti-' || g, 4000000000, 1 FROM generate_series(1, 100000) g; \
         INSERT INTO documents SELECT 'plan', 'p' || g, '{}', 1 FROM generate_series(1, 10000) g",
    );
    let denial = NewDenial {
        issuer: "i".to_owned(),
        tokens: DeniedTokens::Id("one more".into()),
        until: UnixTime::from_secs(4_000_000_000),
        reason: None,
    };
    let refused = store.deny(&me(), denial).await;
    assert!(matches!(refused, Err(RegistryError::TooMany { most: 100_000, .. })), "{refused:?}");
    let refused = store.put_document(&me(), DocumentKind::Plan, "more", &json!({})).await;
    assert!(matches!(refused, Err(RegistryError::TooMany { most: 10_000, .. })), "{refused:?}");
    store.put_document(&me(), DocumentKind::Plan, "p1", &json!({ "a": 1 })).await.unwrap();
    store.put_document(&me(), DocumentKind::Policy, "more", &json!({})).await.unwrap();
    assert_eq!(store.load_denials().await.unwrap().0.len(), 100_000);
    let (documents, revision) = store.load_documents().await.unwrap();
    assert_eq!((documents.len(), revision), (10_001, 2));
}

#[tokio::test]
async fn look_ups_beyond_the_limit_of_a_second_do_not_reach_it() {
    let (_, database) = fresh(Clock::system());
    let (clock, bounds) = (Clock::manual(), Bounds { look_ups_per_second: 100, ..patient() });
    let store = open(&shared().url(&database), None, bounds, clock.clone());
    let mut answers = (0, 0);
    for number in 0..200_u32 {
        match store.look_up_key(format!("{number:016}").parse().unwrap(), 0).await {
            Answer::Unknown { .. } => answers.0 += 1,
            Answer::Unavailable(Outage::Busy) => answers.1 += 1,
            other => panic!("{other:?}"),
        }
        clock.advance(std::time::Duration::from_millis(5));
    }
    assert_eq!(answers, (124, 76), "25 at once, and 99 in the rest of the second");
    assert_eq!(store.vitals().throttled, 76);
    assert_eq!(store.vitals().primary.acquired, 124);
}

/// The checks of the tables let a text be missing inside of a list.
#[tokio::test]
async fn a_row_that_cannot_be_read_is_counted_and_named_with_its_column() {
    let (store, database) = fresh(Clock::system());
    store.add_consumer(&me(), consumer("alice")).await.unwrap();
    let id = store.issue_key(&me(), key("alice").1).await.unwrap().id;
    shared().sql(&database, "UPDATE keys SET scopes = ARRAY[NULL]::text[]");
    let looked_up = store.look_up_key(id, 0).await;
    assert!(matches!(looked_up, Answer::Unavailable(Outage::Failed)), "{looked_up:?}");
    assert_eq!(store.vitals().primary.errors, 1);
    let one = store.key(id).await.unwrap_err();
    let all = store.keys(None, ALL).await.unwrap_err();
    for message in [one.to_string(), all.to_string()] {
        assert!(message.contains(&format!("`scopes` of the row `{id}`")), "{message}");
        assert!(message.contains("mend or remove that row"), "{message}");
        assert!(!message.contains("try again"), "{message}");
    }
}

#[tokio::test]
async fn a_write_that_nobody_would_be_told_of_is_refused() {
    let (store, database) = fresh(Clock::system());
    shared().sql(&database, "DELETE FROM revision");
    let message = store.add_consumer(&me(), consumer("alice")).await.unwrap_err().to_string();
    assert!(message.contains("the table `revision` has no row"), "{message}");
    assert_eq!(shared().sql(&database, "SELECT count(*) FROM consumers"), "0");
}

#[tokio::test]
async fn one_row_that_cannot_be_read_keeps_no_gateway_from_the_others() {
    let (store, database) = fresh(Clock::system());
    shared().sql(
        &database,
        "ALTER TABLE denials ALTER issuer DROP NOT NULL; \
         INSERT INTO denials (issuer, jti, until, created_at) VALUES \
         (NULL, 'one', 4000000000, 1), ('i', 'other', 4000000000, 1)",
    );
    let (loaded, _) = store.load_denials().await.unwrap();
    let tokens: Vec<_> = loaded.into_iter().map(|denial| denial.tokens).collect();
    assert_eq!(tokens, [DeniedTokens::Id("other".into())]);
    assert_eq!(store.vitals().primary.errors, 1);
    let message = store.denials(ALL).await.unwrap_err().to_string();
    assert!(message.contains("`issuer` of the row `1` cannot be read"), "{message}");
}
