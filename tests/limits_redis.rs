//! Limits over a real Redis Cluster: three masters, three replicas, and tasks that share them.
//!
//! The tests look at times, so they take turns.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test stops where it fails, in real time, and shows its figures"
)]

#[path = "limits_redis/calm.rs"]
mod calm;
#[path = "limits_redis/fleet.rs"]
mod fleet;
#[path = "limits_redis/outages.rs"]
mod outages;
#[path = "limits_redis/quotas.rs"]
mod quotas;
#[path = "lab/redis.rs"]
#[expect(dead_code, reason = "the lab offers more than the tests here use")]
mod redis_lab;
#[path = "limits_redis/resharding.rs"]
mod resharding;

use calm::on_a_calm_machine;
use datahub_gateway::limits::{Cost, Period, Rule, Stopped, Subject};
use fleet::{Task, assert_bound, consumer, count, fleet, leased, load, permille, rate};
use redis_lab::RedisCluster;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_counted_exactly_by_the_servers_clock() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = RedisCluster::start();
        let tasks = fleet(&cluster, 2).await;
        // Permits, period, burst: what one permit takes is seldom a whole number of microseconds.
        for (n, (permits, per, burst)) in
            [(3, Period::Second, 2), (333, Period::Second, 7), (70_001, Period::Minute, 13)]
                .into_iter()
                .enumerate()
        {
            let rule = rate(&format!("odd{n}"), permits, per, burst);
            let sets = [
                tasks[0].rules(std::slice::from_ref(&rule)),
                tasks[1].rules(std::slice::from_ref(&rule)),
            ];
            let (mut admitted, mut waits) = (0_u32, Vec::new());
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(2) {
                for (task, set) in tasks.iter().zip(&sets) {
                    match task.limiter.reserve(&[set], &consumer("carol")).await {
                        Ok(_) => admitted += 1,
                        Err(Stopped::Refused(refused)) => waits.push(refused.retry_after),
                        Err(error) => panic!("{error}"),
                    }
                }
                tokio::task::yield_now().await;
            }
            let regained =
                began.elapsed().as_secs_f64() * f64::from(permits) / per.span().as_secs_f64();
            let most = f64::from(burst) + regained;
            assert!(f64::from(admitted) <= most, "{permits}/{per:?}: {admitted} of {most}");
            assert!(
                f64::from(admitted) >= most * 0.9 - 1.0,
                "{permits}/{per:?}: {admitted} of {most}"
            );
            let interval = per.span() / permits;
            assert!(
                waits.iter().all(|wait| *wait <= interval + Duration::from_micros(1)),
                "{waits:?}"
            );
        }
        let vitals = tasks[0].limiter.vitals();
        assert!(vitals.exact_calls > 0 && vitals.denied_from_memory > 0, "{vitals:?}");
        assert_eq!((vitals.fell_back_to_share, vitals.degraded, vitals.tasks), (0, false, 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_tasks_share_one_rate() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
    let cluster = RedisCluster::start();
    let tasks = fleet(&cluster, 5).await;
    const LASTS: Duration = Duration::from_secs(5);
    for (rule, slack) in [
        (rate("exact", 500, Period::Second, 500), Duration::ZERO),
        (leased("leased", 500, 500), Duration::from_millis(100)),
    ] {
        for offered in [1_500, 3_000] {
            let rule = Rule { id: format!("{}/{offered}", rule.id).into(), ..rule.clone() };
            let rules = [rule];
            let origin = Instant::now();
            let fell = fell_back(&tasks);
            let before: Vec<_> = tasks.iter().map(|task| task.redis.vitals()).collect();
            let loads = tasks
                .iter()
                .map(|task| load(task.clone(), &rules, "carol", offered / 5, LASTS, origin));
            let seen: Vec<_> = futures_util::future::join_all(loads).await.concat();
            let admitted = count(&seen, fleet::End::Admitted);
            let allowed = 500.0 + 500.0 * LASTS.as_secs_f64();
            let trips: u64 = tasks
                .iter()
                .zip(before)
                .map(|(task, before)| task.redis.vitals().round_trips - before.round_trips)
                .sum();
            println!(
                "{}: {} offered, {admitted} admitted of {allowed}; {trips} round trips; p50 {:?} p99 {:?}",
                rules[0].id,
                seen.len(),
                permille(&seen, 500),
                permille(&seen, 990)
            );
            // On a busy machine an answer may be late, and then a task takes one of its share.
            assert_bound(&seen, 500 + fell_back(&tasks) - fell, 500, slack);
            assert_eq!(count(&seen, fleet::End::Unavailable), 0);
            assert!(admitted as f64 >= 0.95 * allowed, "{admitted} of {allowed}");
        }
    }
    for task in &tasks {
        println!("{:?}\n{:?}", task.limiter.vitals(), task.redis.vitals());
    }
    })
    .await;
}

/// How often a task of these has answered without Redis.
fn fell_back(tasks: &[Task]) -> u32 {
    let all: u64 = tasks.iter().map(|task| task.limiter.vitals().fell_back_to_share).sum();
    u32::try_from(all).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_that_belongs_to_no_cluster_will_do() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = RedisCluster::start_single();
        let task = Task::of(&cluster).await;
        let set = task.rules(&[rate("r", 1, Period::Day, 3)]);
        for _ in 0..3 {
            task.limiter.reserve(&[&set], &consumer("carol")).await.unwrap();
        }
        assert!(task.limiter.reserve(&[&set], &consumer("carol")).await.is_err());
        assert_eq!(cluster.cli(0, &["keys", "dh:*:rl:*"]).lines().count(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_tls_and_a_password_is_used_and_no_name_is_a_key() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = RedisCluster::start_secure();
        let task = Task::of(&cluster).await;
        let rules = [
            rate("r", 1, Period::Day, 2),
            Rule { subject: Subject::Route, ..rate("s", 1, Period::Day, 9) },
        ];
        let set = task.rules(&rules);
        for _ in 0..2 {
            task.limiter.reserve(&[&set], &consumer("carol-the-consumer")).await.unwrap();
        }
        assert!(task.limiter.reserve(&[&set], &consumer("carol-the-consumer")).await.is_err());
        let keys: String =
            (0..cluster.len()).map(|node| cluster.cli(node, &["keys", "*"])).collect();
        assert!(keys.contains(":rl:plan/test/r") && !keys.contains("carol"), "{keys}");
        let (key, ttl) = (b"0123456789abcdef", Duration::from_secs(60));
        // A cache may be late now and then: it has ten milliseconds only.
        let began = Instant::now();
        while task.redis.set(key, b"value", ttl).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", task.redis.vitals());
        }
        let value = loop {
            match task.redis.get(key).await {
                Ok(value) => break value,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error}"),
            }
        };
        assert_eq!(value.as_deref(), Some(&b"value"[..]));
        assert_eq!(task.limiter.vitals().fell_back_to_share, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_tasks_share_what_requests_cost() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = RedisCluster::start();
        let tasks = fleet(&cluster, 5).await;
        const LASTS: Duration = Duration::from_secs(3);
        for (rule, slack) in [
            (rate("exact", 500, Period::Second, 500), Duration::ZERO),
            (leased("leased", 500, 500), Duration::from_millis(100)),
        ] {
            // In requests: a hundred in a second, and a hundred at once.
            let rules = [Rule { cost: Cost::Fixed(NonZeroU32::new(5).unwrap()), ..rule }];
            let origin = Instant::now();
            let loads =
                tasks.iter().map(|task| load(task.clone(), &rules, "carol", 80, LASTS, origin));
            let seen: Vec<_> = futures_util::future::join_all(loads).await.concat();
            let admitted = count(&seen, fleet::End::Admitted);
            let allowed = 100.0 + 100.0 * LASTS.as_secs_f64();
            println!("{}: {} offered, {admitted} of {allowed} admitted", rules[0].id, seen.len());
            // A machine that stalls answers too late, and then tasks fall back.
            let late = |task: &Task| task.limiter.vitals().fell_back_to_share;
            let late = u32::try_from(tasks.iter().map(late).sum::<u64>()).unwrap();
            assert_bound(&seen, 100 + late, 100, slack);
            assert_eq!(count(&seen, fleet::End::Unavailable), 0);
            assert!(admitted as f64 >= 0.8 * allowed, "{admitted} of {allowed}");
        }
    })
    .await;
}
