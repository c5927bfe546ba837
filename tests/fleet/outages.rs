//! PostgreSQL goes away, in every way: whoever is known notices nothing, nobody is called unknown, and
//! everything comes back by itself.

use crate::fleet::{Caller, Figures, Fleet, api};
use crate::support::credential::invented;
use crate::support::gateway::Gateway;
use crate::support::load::{Load, Running, Summary};
use crate::support::{eventually_async, sized};
use serde_json::json;
use std::time::{Duration, Instant};

/// A look-up has 100 ms; the rest is the way there and back, on a busy machine.
const TOLD_WITHIN: Duration = Duration::from_millis(100);
const ALLOWANCE: Duration = Duration::from_millis(50);

/// A load with a key and one with a token on every task.
fn loads(fleet: &Fleet, key: &Caller, token: &Caller) -> Vec<Running> {
    let on = |task: &Gateway, caller: &Caller| {
        let (name, value) = caller.field();
        Load::on(task.address()).header(name, &value).connections(2).rate(40).start()
    };
    fleet.tasks.iter().flat_map(|task| [on(task, key), on(task, token)]).collect()
}

async fn stop(loads: Vec<Running>) -> Summary {
    let mut all = Summary { outcomes: Vec::new() };
    for load in loads {
        all.outcomes.extend(load.stop().await.outcomes);
    }
    all
}

/// Asks every task for keys that it does not know, and for a consumer: 503 in time, never 401.
async fn expect_unavailable(fleet: &Fleet, rounds: usize) -> Figures {
    let mut took = Vec::new();
    for round in 0..rounds {
        for task in &fleet.tasks {
            let stranger = match round % 4 {
                3 => Caller::token(&format!("stranger{round}"), "any"),
                _ => Caller::Key(invented()),
            };
            let began = Instant::now();
            let answer = stranger.ask(task, "/").send().await;
            took.push(began.elapsed());
            answer.expect_status(503);
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
        }
    }
    Figures::of(took)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_primary_and_a_promotion_are_not_noticed_by_those_who_are_known() {
    let mut fleet = Fleet::builder().tasks(3).standby().redis().start().await;
    fleet.consumer(0, "acme", "free").await;
    let (key, bearer) = (fleet.key(1, "acme").await, Caller::token("acme", "any"));
    fleet.until_all(Instant::now(), 200, &key, "/").await;
    fleet.until_all(Instant::now(), 200, &bearer, "/").await;
    fleet.caught_up().await;

    let running = loads(&fleet, &key, &bearer);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let frozen_at = running[0].elapsed();
    fleet.primary.freeze();
    let figures = expect_unavailable(&fleet, sized(12, 40)).await;
    figures.tell("an unknown key while the primary is frozen, 503");
    assert!(figures.percentile(90) <= TOLD_WITHIN + ALLOWANCE, "p90 {:?}", figures.percentile(90));
    let span = Duration::from_secs(sized(8, 60));
    tokio::time::sleep(span.saturating_sub(running[0].elapsed() - frozen_at)).await;
    expect_unavailable(&fleet, 4).await;
    fleet.follower_mut().promote();
    let promoted = Instant::now();
    for (number, task) in fleet.tasks.iter().enumerate() {
        let body = json!({ "username": format!("after{number}"), "plan": "free" });
        eventually_async("a write", async || {
            let answer = api(task, "POST", "/v1/consumers", Some(&body)).await;
            (answer.status == 201 || answer.status == 409).then_some(())
        })
        .await;
    }
    let issued = fleet.key(0, "after1").await;
    fleet.until_all(promoted, 200, &issued, "/").await;
    println!("writes and new keys work {} ms after the promotion", promoted.elapsed().as_millis());
    let thawed_at = running[0].elapsed();
    for task in &fleet.tasks {
        task.metric_is("gateway_store_new_epochs_total", &[], 1.0).await;
        task.metric_is("gateway_store_up", &[], 1.0).await;
    }
    // The old one comes back and believes that it is the primary.
    fleet.primary.thaw();
    let late = fleet.key(2, "after2").await;
    fleet.until_all(Instant::now(), 200, &late, "/").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    fleet.revoke(0, &late).await;
    fleet.until_all(Instant::now(), 401, &late, "/").await;
    let all = stop(running).await;
    let before = all.between(Duration::ZERO, frozen_at);
    let during = all.between(frozen_at, thawed_at);
    println!("before: {before:?}\nduring: {during:?}");
    all.expect_only(200);
    let (was, is) = (before.percentile(0.99), during.percentile(0.99));
    assert!(is <= was * 2 + Duration::from_millis(25), "p99 {was:?} before, {is:?} during");
    let strangers = fleet.primary.sql(&fleet.database, "SELECT count(*) FROM consumers");
    assert_eq!(strangers, "1", "nothing was written to the one that was given up");
    for task in &fleet.tasks {
        task.metric_is("gateway_store_new_epochs_total", &[], 1.0).await;
    }
}

/// Cuts the replica off, so that what is written from now on never gets there.
async fn cut_off(fleet: &Fleet) {
    fleet.caught_up().await;
    fleet.follower().sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
    fleet.follower().sql("postgres", "SELECT pg_reload_conf()");
    eventually_async("the replica to be alone", async || {
        let streams = fleet.primary.sql("postgres", "SELECT count(*) FROM pg_stat_replication");
        (streams == "0").then_some(())
    })
    .await;
}

async fn promote(fleet: &mut Fleet) {
    fleet.primary.kill();
    fleet.follower_mut().promote();
    for task in &fleet.tasks {
        task.metric_is("gateway_store_new_epochs_total", &[], 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_a_promotion_loses_holds_where_it_was_seen() {
    let mut fleet = Fleet::builder().tasks(3).standby().redis().start().await;
    for name in ["acme", "off", "good"] {
        fleet.consumer(0, name, "free").await;
    }
    let (lost, good) = (fleet.key(0, "acme").await, fleet.key(0, "good").await);
    let disabled = fleet.key(0, "off").await;
    let denied = Caller::token("acme", "any");
    for key in [&lost, &good, &disabled] {
        fleet.until_all(Instant::now(), 200, key, "/").await;
    }
    cut_off(&fleet).await;
    fleet.revoke(1, &lost).await;
    fleet.write(1, "PATCH", "/v1/consumers/off", &json!({ "enabled": false })).await;
    let body = json!({ "issuer": "default", "subject": "acme", "until": "2999-01-01T00:00:00Z" });
    fleet.write(2, "POST", "/v1/denials", &body).await;
    for key in [&lost, &disabled] {
        fleet.until_all(Instant::now(), 401, key, "/").await;
    }
    fleet.until_all(Instant::now(), 401, &denied, "/").await;

    promote(&mut fleet).await;
    let refused = async |fleet: &Fleet| {
        for key in [&lost, &disabled] {
            fleet.expect_all(401, key, "/").await;
        }
        fleet.expect_all(401, &denied, "/").await;
        fleet.expect_all(200, &good, "/").await;
    };
    refused(&fleet).await;
    // Longer than anything here is believed without asking again.
    let ends = Instant::now() + Duration::from_secs(sized(5, 45));
    while Instant::now() < ends {
        refused(&fleet).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let late = fleet.folder().start().await;
    let said = lost.ask(&late, "/").send().await.status;
    println!(
        "a task that starts after the promotion says {said} to the key that was revoked before"
    );
    // Revoked once more, it is refused by that one too.
    fleet.revoke(0, &lost).await;
    eventually_async("the late one to refuse", async || {
        let answer = lost.ask(&late, "/").send().await;
        (answer.status == 401).then_some(())
    })
    .await;
    refused(&fleet).await;
}

/// The numbers of the history that was lost are given again, and Redis remembers rows under them.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_revoked_after_a_promotion_is_not_brought_back_by_what_redis_remembers() {
    let mut fleet = Fleet::builder().tasks(3).standby().redis().start().await;
    fleet.consumer(0, "acme", "free").await;
    let key = fleet.key(0, "acme").await;
    cut_off(&fleet).await;
    for number in 0..10 {
        fleet.consumer(0, &format!("lost{number}"), "free").await;
    }
    // Read, and so remembered, at the last revision.
    tokio::time::sleep(Duration::from_millis(200)).await;
    fleet.until_all(Instant::now(), 200, &key, "/").await;
    promote(&mut fleet).await;
    let began = Instant::now();
    eventually_async("the key to be revoked", async || {
        let path = format!("/v1/keys/{}/revoke", crate::support::credential::id_of(key.plain()));
        (api(&fleet.tasks[0], "POST", &path, Some(&json!({}))).await.status == 200).then_some(())
    })
    .await;
    fleet.until_all(began, 401, &key, "/").await;
    let ends = Instant::now() + Duration::from_secs(3);
    while Instant::now() < ends {
        fleet.expect_all(401, &key, "/").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let late = fleet.folder().start().await;
    key.ask(&late, "/").send().await.expect_status(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_replica_known_keys_work_for_as_long_as_they_may_and_all_comes_back() {
    let stale_for = Duration::from_secs(sized(6, 30));
    let described = Fleet::builder().tasks(2).describe(move |task| {
        task.toml(&format!("[cache]\nstale_for = \"{}s\"", stale_for.as_secs()))
    });
    let mut fleet = described.start().await;
    fleet.consumer(0, "acme", "free").await;
    let (key, unseen) = (fleet.key(0, "acme").await, fleet.key(0, "acme").await);
    fleet.until_all(Instant::now(), 200, &key, "/").await;
    fleet.primary.kill();
    let killed = Instant::now();
    while killed.elapsed() < stale_for - Duration::from_millis(1500) {
        fleet.expect_all(200, &key, "/").await;
        fleet.expect_all(503, &unseen, "/").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let told = expect_unavailable(&fleet, 8).await;
    told.tell("an unknown key while the primary is away, 503");
    let ended = fleet.until_all(killed, 503, &key, "/").await;
    println!("a known key was believed for {ended:?} after the kill; it may be for {stale_for:?}");
    for span in ended {
        assert!(span <= stale_for + Duration::from_secs(1), "{span:?}");
    }
    fleet.primary.start_again();
    let back = Instant::now();
    for key in [&key, &unseen] {
        fleet.until_all(back, 200, key, "/").await;
    }
    println!("all keys work {} ms after PostgreSQL is back", back.elapsed().as_millis());
    assert!(back.elapsed() < Duration::from_secs(3));
    fleet.consumer(0, "after", "free").await;
}
