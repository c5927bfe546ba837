//! Somebody guesses keys, as many as they can send.

use crate::fleet::Fleet;
use crate::support::client::Client;
use crate::support::credential::invented;
use crate::support::load::Load;
use crate::support::sized;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Look-ups that may reach PostgreSQL in a second.
const RATE: u32 = 100;
const UNKNOWN_KEYS: u32 = 500;
const GUESSERS: usize = 16;

/// How often PostgreSQL has looked into the table of keys.
fn looked_up(fleet: &Fleet) -> u64 {
    let sql = "SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_user_tables \
               WHERE relname = 'keys'";
    fleet.primary.sql(&fleet.database, sql).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_guessed_keys_costs_good_ones_nothing_and_postgres_little() {
    let described = Fleet::builder().tasks(1).redis().describe(|task| {
        task.toml(&format!(
            "[address_guard]\nfailed_tries = \"off\"\n[store.postgres]\nlookups_per_second = {RATE}\n[cache]\nunknown_keys = {UNKNOWN_KEYS}"
        ))
    });
    let mut fleet = described.start().await;
    fleet.consumer(0, "acme", "free").await;
    let good = fleet.key(0, "acme").await;
    fleet.until_all(Instant::now(), 200, &good, "/").await;
    let (field, value) = good.field();
    let address = fleet.tasks[0].address();
    // What backends count shows up to a second later.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let (before, memory) = (looked_up(&fleet), fleet.tasks[0].process().resident());
    let load = Load::on(address).header(field, &value).rate(50).start();
    let stop = Arc::new(AtomicBool::new(false));
    let statuses: Arc<Mutex<BTreeMap<u16, u64>>> = Arc::default();
    let began = Instant::now();
    let guessers: Vec<_> = (0..GUESSERS)
        .map(|_| {
            let (stop, statuses) = (Arc::clone(&stop), Arc::clone(&statuses));
            tokio::spawn(async move {
                let client = Client::new(address);
                while !stop.load(Ordering::SeqCst) {
                    let status = client.get("/").key(&invented()).send().await.status;
                    *statuses.lock().unwrap().entry(status).or_default() += 1;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(sized(6, 60))).await;
    let memory_after = fleet.tasks[0].process().resident();
    stop.store(true, Ordering::SeqCst);
    for guesser in guessers {
        guesser.await.unwrap();
    }
    let lasted = began.elapsed();
    let seen = load.stop().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let reached = looked_up(&fleet) - before;
    let statuses = statuses.lock().unwrap().clone();
    let guesses: u64 = statuses.values().sum();
    println!(
        "{guesses} guesses in {lasted:?}: {statuses:?}; {reached} look-ups reached PostgreSQL, \
         {RATE} a second may; memory {} MiB more; good key: {seen:?}",
        memory_after.saturating_sub(memory) / (1024 * 1024)
    );
    seen.expect_only(200);
    assert!(statuses.keys().all(|status| matches!(status, 401 | 503)), "{statuses:?}");
    assert!(guesses > u64::from(RATE) * lasted.as_secs() * 2, "that is no flood: {guesses}");
    // A second's worth may be saved up, and a second's more is what the measuring takes.
    let most = u64::from(RATE) * (lasted.as_secs() + 3);
    assert!(reached <= most, "{reached} of {most}");
    assert!(memory_after < memory + 64 * 1024 * 1024, "{memory} {memory_after}");
    let metrics = fleet.tasks[0].metrics().await;
    let kept = metrics.sum("gateway_cache_entries", &[("kind", "unknown_keys")]);
    // A cache in several parts is a little larger than it is told to be.
    assert!(kept <= f64::from(UNKNOWN_KEYS) * 1.1, "{kept}");
    assert!(metrics.sum("gateway_lookups_total", &[("result", "throttled")]) > 0.0);
    // It is over: a key that nobody has asked for before is known at once.
    let new = fleet.key(0, "acme").await;
    let took = fleet.until_all(Instant::now(), 200, &new, "/").await;
    assert!(took[0] < Duration::from_secs(2), "{took:?}");
}
