//! What is particular to a file: permissions, damage, a full disk, another file in its place.

use super::*;
use crate::auth::ApiKeys;
use crate::auth::api_key::KeyForm;
use crate::auth::audit::Audit as _;
use crate::auth::changes::Reset;
use crate::auth::registry::{Actor, NewConsumer, NewKey, Registry, RegistryError};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").join("gateway.db");
    (folder, path)
}

fn open(path: &Path) -> Embedded {
    Embedded::open(path, Clock::manual()).unwrap()
}

fn refusal(path: &Path) -> String {
    Embedded::open(path, Clock::manual()).unwrap_err().to_string()
}

async fn add(store: &Embedded, username: &str) -> Result<(), RegistryError> {
    let new = NewConsumer {
        username: username.to_owned(),
        custom_id: None,
        plan: "free".to_owned(),
        policies: Vec::new(),
    };
    store.add_consumer(&me(), new).await.map(drop)
}

async fn issue(store: &Embedded, consumer: &str) -> KeyId {
    let keys = ApiKeys {
        environment: "test".into(),
        header: http::HeaderName::from_static("x-api-key"),
        pepper: vec![7; 32],
        previous_peppers: Vec::new(),
    };
    let (_, proof) = KeyForm::new(&keys).generate().unwrap();
    let new = NewKey {
        proof,
        consumer: consumer.to_owned(),
        name: None,
        plan: None,
        scopes: Vec::new(),
        addresses: Vec::new(),
        not_before: None,
        expires_at: None,
    };
    store.issue_key(&me(), new).await.unwrap().id
}

#[test]
fn who_only_looks_makes_no_store() {
    let (_folder, path) = folder();
    let missing = |path: &Path| {
        let error = Embedded::open_existing(path, Clock::manual()).unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
        error.to_string()
    };
    assert!(missing(&path).contains("`gateway consumers add` make one"));
    assert!(!path.parent().unwrap().exists());
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    missing(&path);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    drop(open(&path));
    drop(Embedded::open_existing(&path, Clock::manual()).unwrap());
}

#[tokio::test]
async fn file_and_folder_are_private() {
    let (_folder, path) = folder();
    let store = open(&path);
    add(&store, "alice").await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.clone().into_os_string();
        file.push(suffix);
        assert_eq!(mode(Path::new(&file)), 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let (_folder, path) = folder();
    let store = open(&path);
    add(&store, "alice").await.unwrap();
    let id = issue(&store, "alice").await;
    drop(store);
    let store = open(&path);
    assert!(matches!(store.look_up_key(id, 0).await, Answer::Known { revision: 2, .. }));
}

/// What version 1 of the schema left behind.
fn write_version_1(path: &Path) {
    fs::create_dir(path.parent().unwrap()).unwrap();
    let file = Connection::open(path).unwrap();
    file.execute_batch(schema::VERSIONS[0]).unwrap();
    file.execute_batch(
        "PRAGMA user_version = 1;
         INSERT INTO consumers VALUES ('id-1', 'alice', 'crm-7', 'pro', 1, 5);
         INSERT INTO keys VALUES ('0000000000000001', 'id-1', 'ci', zeroblob(32), 7, NULL,
             'read write', 6, NULL, NULL, NULL);
         UPDATE revision SET n = 2;
         INSERT INTO changes VALUES (1, 'consumer', 'id-1', 5000), (2, 'key', 'x', 6000);",
    )
    .unwrap();
    file.pragma_update(None, "application_id", file::APPLICATION).unwrap();
}

#[tokio::test]
async fn a_store_of_version_1_is_brought_up_to_date_and_keeps_what_it_has() {
    let (_folder, path) = folder();
    write_version_1(&path);
    for _ in 0..2 {
        let store = Embedded::open_existing(&path, Clock::manual()).unwrap();
        let version: i64 =
            store.writer.lock().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, file::SCHEMA_VERSION);
    }
    let store = open(&path);
    let alice = store.consumer("alice").await.unwrap().consumer;
    assert_eq!((&*alice.id, alice.custom_id.as_deref()), ("id-1", Some("crm-7")));
    assert_eq!((&*alice.plan, alice.policies.len(), alice.enabled), ("pro", 0, true));
    let id: KeyId = "0000000000000001".parse().unwrap();
    let Answer::Known { row, revision: 2 } = store.look_up_key(id, 0).await else {
        panic!("it is there")
    };
    assert_eq!((&*row.consumer, row.scopes.len()), (&alice, 2));
    let Ok(Changes::Since { revision: 2, changes, .. }) = store.changes_since(Some(0)).await else {
        panic!("nothing is missing")
    };
    assert_eq!(changes.len(), 2, "a gateway that followed goes on");
    store.set_policies(&me(), "alice", &["beta".to_owned()]).await.unwrap();
    assert_eq!(store.audit(None, 10).await.unwrap().len(), 1);
}

#[test]
fn two_processes_may_open_a_store_of_version_1_at_once() {
    let (_folder, path) = folder();
    write_version_1(&path);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| open(&path));
        }
    });
}

#[test]
fn two_processes_may_open_a_new_store_at_once() {
    let (_folder, path) = folder();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| open(&path));
        }
    });
}

#[test]
fn a_file_that_is_not_a_store_is_left_alone() {
    let (folder, _) = folder();
    let path = folder.path().join("notes.txt");
    let text = "These are my notes, and they are longer than the header of a database would be.\n";
    fs::write(&path, text.repeat(20)).unwrap();
    let message = refusal(&path);
    assert!(message.contains("notes.txt` is not a store of this gateway"), "{message}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text.repeat(20));

    let path = folder.path().join("other.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE notes (text)").unwrap();
    let message = refusal(&path);
    assert!(
        message.contains("not a store of this gateway (application id 0x0, 1 tables)"),
        "{message}"
    );
    assert!(message.contains("let `store.path` name another file"), "{message}");
}

#[test]
fn a_store_from_the_future_is_left_alone() {
    let (_folder, path) = folder();
    open(&path).writer.lock().pragma_update(None, "user_version", 9).unwrap();
    let message = refusal(&path);
    assert!(message.contains("its schema is 9, this gateway knows 3"), "{message}");
}

#[test]
fn a_damaged_store_says_how_to_rescue_it() {
    let (_folder, path) = folder();
    let store = open(&path);
    store.writer.lock().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let message = refusal(&path);
    assert!(message.contains("is damaged") && message.contains(".recover"), "{message}");
}

#[test]
fn a_place_where_no_file_can_be_says_so() {
    let (folder, _) = folder();
    let message = refusal(folder.path());
    assert!(message.contains("cannot be opened for writing"), "{message}");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let message = refusal(&file.join("gateway.db"));
    assert!(message.contains("the folder `") && message.contains("cannot be made"), "{message}");
}

#[tokio::test]
async fn a_full_disk_costs_a_write_and_nothing_else() {
    let (_folder, path) = folder();
    let store = open(&path);
    add(&store, "alice").await.unwrap();
    let id = issue(&store, "alice").await;
    let limit = |pages: i64| {
        let connection = store.writer.lock();
        connection.pragma_update(None, "max_page_count", pages).unwrap();
    };
    limit(1);
    let mut written = 0;
    let error = loop {
        match add(&store, &format!("consumer-with-a-rather-long-name-{written:040}")).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10_000, "the limit does not bite");
    };
    let message = error.to_string();
    assert!(message.starts_with("there is no space left for the store `"), "{message}");
    assert!(message.contains("free some space on its disk, then try again"), "{message}");
    assert!(matches!(store.look_up_key(id, 0).await, Answer::Known { .. }), "reading goes on");
    let Ok(Changes::Reset(Reset { revision, .. })) = store.changes_since(None).await else {
        panic!("it reads")
    };
    assert_eq!(revision, written + 2, "what failed left no trace");
    limit(100_000);
    add(&store, "bob").await.unwrap();
}

#[tokio::test]
async fn a_store_that_vanishes_is_an_outage_and_is_found_again() {
    let (_folder, path) = folder();
    let store = open(&path);
    add(&store, "alice").await.unwrap();
    let id = issue(&store, "alice").await;
    let since = store.changes_since(None).await.unwrap();
    assert_eq!(since, Changes::Reset(Reset::at(2)));

    let away = path.with_extension("away");
    fs::rename(&path, &away).unwrap();
    for _ in 0..2 {
        assert_eq!(store.changes_since(Some(2)).await, Err(Outage::Failed));
        assert!(matches!(store.look_up_key(id, 0).await, Answer::Unavailable(Outage::Failed)));
    }
    fs::rename(&away, &path).unwrap();
    assert!(matches!(store.look_up_key(id, 0).await, Answer::Known { .. }));
    let quiet = Changes::Since { revision: 2, changes: Vec::new(), more: false };
    assert_eq!(store.changes_since(Some(2)).await, Ok(quiet), "it is the same file");
}

#[tokio::test]
async fn another_file_in_its_place_voids_everything() {
    let (_folder, path) = folder();
    let store = open(&path);
    add(&store, "alice").await.unwrap();
    let id = issue(&store, "alice").await;
    assert_eq!(store.changes_since(None).await, Ok(Changes::Reset(Reset::at(2))));
    assert!(matches!(store.look_up_key(id, 0).await, Answer::Known { .. }));

    let spare = path.with_file_name("spare.db");
    let other = open(&spare);
    for name in ["a", "b", "c", "d"] {
        add(&other, name).await.unwrap();
    }
    drop(other);
    for suffix in ["-wal", "-shm"] {
        let mut file = path.clone().into_os_string();
        file.push(suffix);
        fs::remove_file(file).unwrap();
    }
    fs::rename(&spare, &path).unwrap();
    assert_eq!(store.changes_since(Some(2)).await, Err(Outage::Failed));
    // Its changes 3 and 4 are not what followed the other file's 2.
    assert_eq!(store.changes_since(Some(2)).await, Ok(Changes::Reset(Reset::at(4))));
    assert!(matches!(store.look_up_key(id, 0).await, Answer::Unknown { revision: 4 }));
}

#[tokio::test]
async fn changes_that_are_forgotten_void_everything() {
    let (_folder, path) = folder();
    let store = open(&path);
    for name in ["a", "b", "c"] {
        add(&store, name).await.unwrap();
    }
    store.writer.lock().execute("DELETE FROM changes WHERE n <= 2", ()).unwrap();
    assert_eq!(store.changes_since(Some(1)).await, Ok(Changes::Reset(Reset::at(3))));
    let Ok(Changes::Since { changes, .. }) = store.changes_since(Some(2)).await else {
        panic!("the third is there");
    };
    assert_eq!(changes.len(), 1);
}

#[tokio::test]
async fn old_changes_are_forgotten_a_few_at_a_time() {
    let (_folder, path) = folder();
    let clock = Clock::manual();
    let store = Embedded::open(&path, clock.clone()).unwrap();
    for number in 0..40 {
        add(&store, &format!("c{number}")).await.unwrap();
    }
    let count = || {
        let connection = store.writer.lock();
        connection
            .query_row("SELECT count(*) FROM changes", (), |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count(), 40);
    clock.advance(std::time::Duration::from_secs(25 * 3600));
    for (name, left) in [("x", 25), ("y", 10), ("z", 3), ("again", 4)] {
        add(&store, name).await.unwrap();
        assert_eq!(count(), left, "after {name}");
    }
}

#[tokio::test]
async fn a_change_of_an_unknown_kind_voids_everything() {
    let (_folder, path) = folder();
    let store = open(&path);
    add(&store, "alice").await.unwrap();
    let sql = "UPDATE changes SET kind = 'tenant'";
    store.writer.lock().execute(sql, ()).unwrap();
    assert_eq!(store.changes_since(Some(0)).await, Ok(Changes::Reset(Reset::at(1))));
}

#[tokio::test]
async fn a_long_queue_is_refused_and_given_up_questions_cost_nothing() {
    let (_folder, path) = folder();
    let store = open(&path);
    let (jobs, mut queue) = mpsc::channel(QUEUE);
    let store = Embedded { jobs, ..store };
    let id: KeyId = "0000000000000000".parse().unwrap();
    let mut waiting: Vec<_> = (0..QUEUE).map(|_| store.look_up_key(id, 0)).collect();
    for question in &mut waiting {
        assert!(futures_util::poll!(question).is_pending());
    }
    assert!(matches!(store.look_up_key(id, 0).await, Answer::Unavailable(Outage::Busy)));
    let mut feed = Box::pin(store.changes_since(None));
    assert!(futures_util::poll!(&mut feed).is_pending(), "changes wait for their turn");
    drop(waiting);
    let Some(Job::Key { reply, .. }) = queue.recv().await else { panic!("a question") };
    assert!(reply.is_closed(), "nobody waits for it");
}

fn me() -> Actor {
    Actor::named("test")
}
