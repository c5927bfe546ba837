//! What consumers have used, and what they may still use in a period: both add up over the fleet, and
//! outlive the processes and Redis.

use crate::fleet::{Caller, Fleet};
use crate::support::gateway::succeed;
use crate::support::{eventually_async, sized};
use futures_util::future::join_all;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Long enough for every task to have handed over what it counted.
const FLUSHED: Duration = Duration::from_secs(11);

/// Admitted and refused.
type Counts = (u64, u64);

fn counts_in(rows: &Value) -> BTreeMap<(String, String), Counts> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let mut all: BTreeMap<_, Counts> = BTreeMap::new();
    for row in rows.as_array().unwrap() {
        // It may be midnight.
        let sums = all.entry((text(row, "username"), text(row, "class"))).or_default();
        sums.0 += row["admitted"].as_u64().unwrap();
        sums.1 += row["refused"].as_u64().unwrap();
    }
    all
}

fn told_by_cli(fleet: &Fleet) -> BTreeMap<(String, String), Counts> {
    // The first of the month may have been while this ran.
    let told = succeed(&fleet.cli("usage --json --from 2000-01-01"));
    let told: Value = serde_json::from_str(&told).unwrap();
    counts_in(&told["usage"])
}

async fn told_by_api(fleet: &Fleet, task: usize) -> BTreeMap<(String, String), Counts> {
    counts_in(&fleet.api(task, "GET", "/v1/usage", None).await.json()["items"])
}

/// Sends so many requests to each task at once; counts what was admitted and what was refused.
async fn send(fleet: &Fleet, caller: &Caller, path: &str, each: u64) -> Counts {
    let asking = fleet.tasks.iter().map(|task| async move {
        let mut counts = (0, 0);
        while counts.0 + counts.1 < each {
            match caller.ask(task, path).send().await {
                answer if answer.status == 200 => counts.0 += 1,
                // A look-up was late on a busy machine: nobody is counted as long as nobody is known.
                answer if answer.status == 503 => {}
                answer => {
                    answer.expect_status(429);
                    counts.1 += 1;
                }
            }
        }
        counts
    });
    let all = join_all(asking).await;
    all.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_adds_up_exactly_over_tasks_that_end_in_order() {
    let described = Fleet::builder().tasks(3).redis().describe(|task| {
        let reports = crate::fleet::answering("/reports", "class = \"reports\"");
        task.route("reports", &reports)
            .plan_with("some", "[limits.all]\nrate = \"100/d\"\nprecision = \"exact\"")
    });
    let mut fleet = described.start().await;
    fleet.consumer(0, "acme", "free").await;
    fleet.consumer(0, "shop", "some").await;
    let (acme, shop) = (fleet.key(0, "acme").await, fleet.key(1, "shop").await);
    let token = Caller::token("acme", "any");
    let each = sized(150, 3000);
    let mut expected = BTreeMap::new();
    let mut add = |name: &str, class: &str, counts: Counts| {
        let sums: &mut Counts = expected.entry((name.to_owned(), class.to_owned())).or_default();
        *sums = (sums.0 + counts.0, sums.1 + counts.1);
    };
    let all = send(&fleet, &acme, "/", each).await;
    let class = "all";
    add("acme", class, all);
    add("acme", class, send(&fleet, &token, "/", each / 3).await);
    add("acme", "reports", send(&fleet, &token, "/reports", each / 3).await);
    let limited = send(&fleet, &shop, "/reports", each / 3).await;
    assert!(limited.1 > 0, "{limited:?}");
    add("shop", "reports", limited);
    // Who is not let in at all has used nothing.
    for task in &fleet.tasks {
        task.get("/").send().await.expect_status(401);
        task.get("/").key(&crate::support::credential::invented()).send().await.expect_status(401);
    }
    for task in &mut fleet.tasks {
        let (status, took) = task.stop(Duration::from_secs(15)).await;
        assert!(status.success() && took < Duration::from_secs(5), "{status} {took:?}");
    }
    let told = told_by_cli(&fleet);
    println!("usage of 3 tasks that were ended by SIGTERM: {told:?}");
    assert_eq!(told, expected);
    fleet.tasks.clear();
    fleet.open().await;
    assert_eq!(told_by_api(&fleet, 2).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_killed_loses_what_it_counted_since_the_last_flush_and_no_more() {
    let mut fleet = Fleet::builder().tasks(2).start().await;
    fleet.consumer(0, "acme", "free").await;
    let key = fleet.key(0, "acme").await;
    let kept = send(&fleet, &key, "/", 100).await;
    eventually_async("the first requests to be stored", async || {
        (told_by_cli(&fleet).values().next() == Some(&kept)).then_some(())
    })
    .await;
    let more = send(&fleet, &key, "/", 50).await;
    fleet.tasks[0].process().kill();
    let (status, _) = fleet.tasks[1].stop(Duration::from_secs(15)).await;
    assert!(status.success());
    let told = *told_by_cli(&fleet).values().next().unwrap();
    println!("of {} requests {} are stored after a SIGKILL", kept.0 + more.0, told.0);
    assert!(told.0 >= kept.0 + more.0 / 2 && told.0 <= kept.0 + more.0, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_over_the_fleet_through_a_flush_of_redis_and_a_restart_of_all_tasks() {
    let described = Fleet::builder()
        .redis()
        .describe(|task| task.plan_with("quota", "[limits.all]\nquota = \"300/month\""));
    let mut fleet = described.start().await;
    fleet.consumer(0, "acme", "quota").await;
    let key = fleet.key(0, "acme").await;
    let first = send(&fleet, &key, "/", 20).await;
    assert_eq!(first, (100, 0));
    tokio::time::sleep(FLUSHED).await;
    fleet.redis().flush();
    let second = send(&fleet, &key, "/", 20).await;
    assert_eq!(second, (100, 0));
    for task in &mut fleet.tasks {
        let (status, _) = task.stop(Duration::from_secs(15)).await;
        assert!(status.success());
    }
    // Nothing is left of it but what stands in PostgreSQL.
    fleet.redis().flush();
    fleet.tasks.clear();
    fleet.open().await;
    let third = send(&fleet, &key, "/", 40).await;
    println!(
        "a quota of 300: {} before a flush, {} after it, {} after a restart",
        100, 100, third.0
    );
    // A task that is done may still hold a few ahead of need; they go back within a second. On a busy
    // machine a task may hear too late what was used: it lets one through on its own account, and says so.
    let most = 100 + on_own_account(&fleet).await;
    assert!((90..=most).contains(&third.0), "300 in a month, whatever happened: {third:?}");
    tokio::time::sleep(FLUSHED).await;
    let rest = send(&fleet, &key, "/", 5).await;
    assert!(third.0 + rest.0 <= most, "{third:?} and then {rest:?}");
    tokio::time::sleep(FLUSHED).await;
    assert!(third.0 + rest.0 + send(&fleet, &key, "/", 3).await.0 <= most, "and none after that");
}

/// Requests that found no counters in time, and of which each task may let through one.
async fn on_own_account(fleet: &Fleet) -> u64 {
    let mut all = 0;
    for task in &fleet.tasks {
        let late = task.metrics().await.sum("limit_fallbacks_total", &[("kind", "share")]);
        all += u64::from(late > 0.0);
    }
    all
}
