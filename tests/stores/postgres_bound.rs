//! However PostgreSQL hangs, a gateway has no more connections on it than it was told to have.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run beside real servers, and go by real time"
)]

use super::{migrated, open};
use crate::fault::{Faults, Mode};
use crate::lab::{Authority, Server, Setup, USER};
use crate::{consumer, me};
use datahub_gateway::auth::Outage;
use datahub_gateway::auth::api_key::KeyId;
use datahub_gateway::auth::changes::ChangeFeed as _;
use datahub_gateway::auth::directory::{Answer, Source as _};
use datahub_gateway::auth::registry::Registry as _;
use datahub_gateway::stores::postgres::{Bounds, Settings, migrate};
use datahub_gateway::stores::{Postgres, Reactor};
use datahub_gateway::telemetry::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const POOL: u64 = 10;
/// Beside the pool: one that listens, one of those that it gave up, one for the question for the schema.
const OTHERS: u64 = 3;
const STRANGERS: usize = 40;

fn unknown_key() -> KeyId {
    "0000000000000000".parse().unwrap()
}

fn store_at(address: &str, database: &str) -> Arc<Postgres> {
    let url = format!("postgres://{USER}@{address}/{database}");
    Arc::new(open(&url, None, Bounds::default(), Clock::system()))
}

/// Counts, from outside, the connections of the gateway's user to a database.
struct Count {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Count {
    fn start(server: &Arc<Server>, database: &str) -> Self {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (server, sql) = (Arc::clone(server), count_sql(database));
        let (ends, seen) = (Arc::clone(&stop), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                let now = server.sql("postgres", &sql).parse().unwrap();
                seen.fetch_max(now, Ordering::SeqCst);
            }
        });
        Self { stop, most, thread }
    }

    /// The most at once.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        self.most.load(Ordering::SeqCst)
    }
}

fn count_sql(database: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND usename = '{USER}'"
    )
}

/// Sessions that there ever were.
fn sessions(server: &Server, database: &str) -> u64 {
    let sql = format!("SELECT sessions FROM pg_stat_database WHERE datname = '{database}'");
    server.sql("postgres", &sql).parse().unwrap()
}

/// Asks for keys that nobody has, all the time; all of them are answered, and most at once. Returns how
/// many were told that there is no connection, and how many there were.
async fn knock(store: &Arc<Postgres>, ends: Instant) -> (u64, u64) {
    let crowd: Vec<_> = (0..STRANGERS)
        .map(|_| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let (mut busy, mut all) = (0, 0);
                while Instant::now() < ends {
                    let answer = store.look_up_key(unknown_key(), 0).await;
                    all += 1;
                    match answer {
                        Answer::Unavailable(Outage::Busy) => busy += 1,
                        Answer::Unavailable(_) | Answer::Unknown { .. } => {}
                        other => panic!("{other:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                (busy, all)
            })
        })
        .collect();
    let (mut busy, mut all) = (0, 0);
    for one in crowd {
        let (refused, asked) = one.await.unwrap();
        (busy, all) = (busy + refused, all + asked);
    }
    (busy, all)
}

async fn until_answered(store: &Postgres) -> Duration {
    let began = Instant::now();
    while matches!(store.look_up_key(unknown_key(), 0).await, Answer::Unavailable(_)) {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// Holds the table of keys, so that nobody reads it.
fn lock_keys(server: &Arc<Server>, database: &str, seconds: u64) -> JoinHandle<()> {
    let (holder, name) = (Arc::clone(server), database.to_owned());
    let sql = format!(
        "BEGIN; LOCK TABLE keys IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({seconds}); ROLLBACK"
    );
    let thread = std::thread::spawn(move || drop(holder.sql(&name, &sql)));
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 'keys'::regclass AND granted \
                AND mode = 'AccessExclusiveLock'";
    while server.sql(database, held) == "0" {
        std::thread::sleep(Duration::from_millis(5));
    }
    thread
}

/// What must go on while look-ups hang: following changes, and writing.
async fn follow_and_write(store: &Postgres, ends: Instant) -> Duration {
    let (mut slowest, mut number) = (Duration::ZERO, 0);
    while Instant::now() < ends {
        let began = Instant::now();
        store.changes_since(Some(0)).await.unwrap();
        store.add_consumer(&me(), consumer(&format!("c{number}"))).await.unwrap();
        slowest = slowest.max(began.elapsed());
        number += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_costs_no_connection_more_and_holds_up_nobody_else() {
    let server = Arc::new(Server::start(&Setup::default()));
    let database = server.database();
    migrated(&server, &database);
    let store = store_at(&server.address(), &database);
    until_answered(&store).await;
    store.changes_since(None).await.unwrap();

    let before = sessions(&server, &database);
    let locked = lock_keys(&server, &database, 4);
    let count = Count::start(&server, &database);
    let ends = Instant::now() + Duration::from_millis(3300);
    let ((busy, all), slowest) = tokio::join!(knock(&store, ends), follow_and_write(&store, ends));
    let most = count.stop();
    let dialled = sessions(&server, &database) - before;
    locked.join().unwrap();
    let back = until_answered(&store).await;
    println!(
        "{most} connections, {dialled} made; {busy} of {all} look-ups refused at once; slowest \
         write {slowest:?}; back after {back:?}"
    );
    assert!(most <= POOL + OTHERS, "{most} connections");
    assert!(dialled <= POOL + 4 * 20, "{dialled} were made");
    assert!(busy > all / 2, "{busy} of {all} were told at once");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(back < Duration::from_secs(1), "{back:?}");
    store.changes_since(Some(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_that_goes_on_meets_no_crowd() {
    let server = Arc::new(Server::start(&Setup::default()));
    let database = server.database();
    migrated(&server, &database);
    let store = store_at(&server.address(), &database);
    until_answered(&store).await;
    store.changes_since(None).await.unwrap();

    server.freeze();
    let ends = Instant::now() + Duration::from_secs(4);
    let asked = tokio::join!(knock(&store, ends), async {
        while Instant::now() < ends {
            assert!(store.changes_since(Some(0)).await.is_err());
        }
    });
    // What waits at the door is let in one after the other.
    server.thaw();
    let count = Count::start(&server, &database);
    let back = until_answered(&store).await;
    knock(&store, Instant::now() + Duration::from_secs(1)).await;
    let most = count.stop();
    println!("{most} connections, back after {back:?}, {:?} look-ups", asked.0);
    assert!(most <= POOL + OTHERS, "{most} connections");
    assert!(back < Duration::from_secs(2), "{back:?}");
    store.add_consumer(&me(), consumer("alice")).await.unwrap();
}

/// Connections are taken and nothing comes back, open ones too; then all goes through.
#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_that_closes_lets_no_crowd_out() {
    let server = Arc::new(Server::start(&Setup::default()));
    let database = server.database();
    migrated(&server, &database);
    let faults = Faults::before(&[server.port()]);
    let store = store_at(&format!("127.0.0.1:{}", faults.ports()[0]), &database);
    until_answered(&store).await;
    store.changes_since(None).await.unwrap();

    faults.set_all(Mode::Blackhole);
    let ends = Instant::now() + Duration::from_secs(4);
    let count = Count::start(&server, &database);
    tokio::join!(knock(&store, ends), async {
        while Instant::now() < ends {
            assert!(store.changes_since(Some(0)).await.is_err());
        }
    });
    faults.set_all(Mode::Pass);
    let back = until_answered(&store).await;
    knock(&store, Instant::now() + Duration::from_secs(1)).await;
    let most = count.stop();
    println!("{most} connections, back after {back:?}");
    assert!(most <= POOL + OTHERS, "{most} connections");
    assert!(back < Duration::from_secs(2), "{back:?}");
    store.add_consumer(&me(), consumer("alice")).await.unwrap();
}

/// The server would go on with it for seconds; over TLS, as everything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_was_given_up_is_cancelled() {
    let setup = Setup { tls: Some(Authority::new()), password: None };
    let server = Arc::new(Server::start(&setup));
    let (database, authority) = (server.database(), setup.tls.unwrap().pem());
    let bounds = Bounds { quotas: Duration::from_secs(3), ..Bounds::default() };
    let url = server.url(&database);
    let settings = Settings::parse(&url, None, Some(authority.as_bytes()), bounds).unwrap();
    let store = Postgres::connect(settings, Reactor::start().unwrap(), Clock::system());
    migrate::apply(&store).await.unwrap();
    until_answered(&store).await;

    let locked = lock_keys(&server, &database, 4);
    let waiting = format!("{} AND wait_event_type = 'Lock'", count_sql(&database));
    let given_up = store.look_up_key(unknown_key(), 0).await;
    assert!(matches!(given_up, Answer::Unavailable(_)), "{given_up:?}");
    let began = Instant::now();
    while server.sql("postgres", &waiting) != "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    locked.join().unwrap();
}
