//! What becomes of limits while Redis is away, and how soon they are whole again.

use crate::TURN;
use crate::calm::on_a_calm_machine;
use crate::fleet::{
    End, Seen, Task, assert_bound, consumer, count, fleet, leased, load, permille, rate,
};
use crate::redis_lab::RedisCluster;
use crate::redis_lab::fault::Mode;
use datahub_gateway::limits::{OnStoreFailure, Period, Rule, RuleSet, Stopped};
use std::time::{Duration, Instant};

const TASKS: u32 = 5;
const RATE: u32 = 500;
/// What is offered to each task in a second: three times the rate in all.
const OFFERED: u32 = 3 * RATE / TASKS;
const SECOND: Duration = Duration::from_secs(1);
/// How long Redis is well before, and away.
const BEFORE: Duration = Duration::from_secs(2);
const AWAY: Duration = Duration::from_secs(3);
/// How soon it must be in use again.
const BACK: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(2);

/// Rules that are counted in both ways.
fn rules(name: &str) -> [Rule; 2] {
    [rate("exact", RATE, Period::Second, RATE), leased("leased", RATE, RATE)]
        .map(|rule| Rule { id: format!("{}/{name}", rule.id).into(), ..rule })
}

/// Sends load through five tasks, for each rule alone, while Redis goes away and comes back. Checks what
/// each rule saw.
async fn outage(
    cluster: &mut RedisCluster,
    tasks: &[Task],
    name: &str,
    go_away: impl Fn(&mut RedisCluster),
    come_back: impl Fn(&mut RedisCluster),
) {
    let (origin, rules) = (Instant::now(), rules(name));
    let lasts = BEFORE + AWAY + BACK + AFTER;
    let loads: Vec<Vec<_>> = rules
        .iter()
        .map(|rule| {
            let start = |task: &Task| {
                let (task, rules) = (task.clone(), [rule.clone()]);
                tokio::spawn(
                    async move { load(task, &rules, "carol", OFFERED, lasts, origin).await },
                )
            };
            tasks.iter().map(start).collect()
        })
        .collect();
    tokio::time::sleep_until((origin + BEFORE).into()).await;
    tokio::task::block_in_place(|| go_away(cluster));
    tokio::time::sleep_until((origin + BEFORE + AWAY).into()).await;
    tokio::task::block_in_place(|| come_back(cluster));
    let healed = Instant::now();
    for task in tasks {
        assert!(task.redis.settled(BACK).await, "{:?}", task.redis.vitals());
    }
    println!("{name}: in use again after {:?}", healed.elapsed());
    for (rule, loads) in rules.iter().zip(loads) {
        let mut seen = Vec::new();
        for load in loads {
            seen.push(load.await.unwrap());
        }
        println!("  {}", rule.id);
        let all = seen.concat();
        assert_eq!(count(&all, End::Unavailable), 0);
        check_waits(&all);
        check_shares(&seen);
        // One further burst when Redis goes, and one when it comes back. Tasks notice within a probe of
        // each other, and while some have their shares others have the whole.
        assert_bound(&all, 3 * RATE, RATE, Duration::from_millis(100 + 2 * 250));
    }
}

fn between(seen: &[Seen], from: Duration, to: Duration) -> Vec<Seen> {
    seen.iter().copied().filter(|seen| (from..to).contains(&seen.sent)).collect()
}

fn check_waits(seen: &[Seen]) {
    let all = |from, to| {
        let part = between(seen, from, to);
        [500, 990, 1000].map(|part_of| permille(&part, part_of))
    };
    let well = all(BEFORE / 2, BEFORE);
    let first = all(BEFORE, BEFORE + SECOND);
    let then = all(BEFORE + SECOND, BEFORE + AWAY);
    println!("  p50, p99, most: well {well:?}, first {first:?}, then {then:?}");
    assert!(first[1] <= well[1] + Duration::from_millis(25), "{first:?}");
    assert!(then[1] <= well[1] + Duration::from_millis(1), "{then:?}");
}

/// Each task lets its share through while Redis is away, and the fleet its rate after.
fn check_shares(seen: &[Vec<Seen>]) {
    let away = AWAY - SECOND;
    let share = f64::from(RATE / TASKS) * away.as_secs_f64();
    for task in seen {
        let part = between(task, BEFORE + SECOND, BEFORE + AWAY);
        let admitted = count(&part, End::Admitted) as f64;
        assert!((admitted - share).abs() <= share / 10.0, "{admitted}, its share is {share}");
    }
    let back = BEFORE + AWAY + BACK;
    let part = between(&seen.concat(), back, back + AFTER);
    let admitted = count(&part, End::Admitted) as f64;
    let whole = f64::from(RATE) * AFTER.as_secs_f64();
    assert!(admitted >= whole * 0.95, "{admitted}, {whole} are allowed");
}

/// Each way: an answer takes longer than a request waits.
const LATE: Duration = Duration::from_millis(15);

type Act = fn(&mut RedisCluster);

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nobody_fails_and_each_task_has_its_share() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let mut cluster = RedisCluster::start();
        let faults: [(&str, Act, Act); 5] = [
            ("late", |c| c.fault_all(Mode::Late(LATE)), |c| c.fault_all(Mode::Pass)),
            ("black hole", |c| c.fault_all(Mode::Blackhole), |c| c.fault_all(Mode::Pass)),
            ("reset", |c| c.fault_all(Mode::Reset), |c| c.fault_all(Mode::Pass)),
            (
                "refused",
                |c| {
                    c.fault_all(Mode::Reset);
                    std::thread::sleep(Duration::from_millis(20));
                    c.fault_all(Mode::Refuse);
                },
                |c| c.fault_all(Mode::Pass),
            ),
            (
                "frozen",
                |c| (0..c.len()).for_each(|node| c.freeze(node)),
                |c| {
                    (0..c.len()).for_each(|node| c.thaw(node));
                    c.wait_until_whole();
                },
            ),
        ];
        // All the time the same ones: who has left is counted for some seconds more.
        let tasks = fleet(&cluster, TASKS).await;
        for (name, go_away, come_back) in faults {
            outage(&mut cluster, &tasks, name, go_away, come_back).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_masters_may_die_and_come_back_empty() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let mut cluster = RedisCluster::start();
        let tasks = fleet(&cluster, TASKS).await;
        let go_away =
            |cluster: &mut RedisCluster| (0..cluster.len()).for_each(|node| cluster.kill(node));
        let come_back = |cluster: &mut RedisCluster| {
            (0..cluster.len()).for_each(|node| cluster.restart(node));
            cluster.wait_until_whole();
        };
        outage(&mut cluster, &tasks, "killed", go_away, come_back).await;
    })
    .await;
}

/// A consumer for each master, found by the counters that they leave.
async fn consumers_of(cluster: &RedisCluster, task: &Task, set: &RuleSet) -> Vec<String> {
    let counters = |master: usize| cluster.cli(master, &["keys", "dh:*:rl:*"]).lines().count();
    let mut found = Vec::new();
    for master in cluster.masters() {
        let before = counters(master);
        for n in 0..64 {
            let name = format!("consumer{master}-{n}");
            task.limiter.reserve(&[set], &consumer(&name)).await.unwrap();
            if counters(master) > before {
                found.push(name);
                break;
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replica_of_a_dead_master_is_found_and_the_other_masters_never_missed() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
    for freeze in [false, true] {
        let mut cluster = RedisCluster::start();
        let task = Task::of(&cluster).await;
        task.limiter.expect_tasks(4);
        let rules = [rate("exact", RATE, Period::Second, RATE), leased("leased", RATE, RATE)];
        let set = task.rules(&rules);
        let masters = cluster.masters();
        let of_master = consumers_of(&cluster, &task, &set).await;
        assert_eq!(of_master.len(), 3);
        let victim = masters[0];
        let before = task.limiter.vitals();
        if freeze {
            cluster.freeze(victim)
        } else {
            cluster.kill(victim)
        }
        let died = Instant::now();
        let mut longest = Duration::ZERO;
        let mut recovered = None;
        while died.elapsed() < Duration::from_secs(5) {
            for name in &of_master {
                let sent = Instant::now();
                match task.limiter.reserve(&[&set], &consumer(name)).await {
                    Ok(_) | Err(Stopped::Refused(_)) => longest = longest.max(sent.elapsed()),
                    Err(error) => panic!("{error}"),
                }
            }
            if task.redis.vitals().up && died.elapsed() > SECOND / 2 && recovered.is_none() {
                recovered = Some(died.elapsed());
                assert_eq!(task.redis.vitals().open_breakers, 0);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let vitals = task.redis.vitals();
        println!(
            "frozen {freeze}: recovered after {recovered:?}, longest wait {longest:?}, {vitals:?}"
        );
        // A node timeout of one second, an election, and two seconds for us.
        assert!(recovered.unwrap() < Duration::from_secs(4));
        assert!(longest <= Duration::from_millis(45), "two rules, one deadline: {longest:?}");
        let after = task.limiter.vitals();
        assert!(after.fell_back_to_share > before.fell_back_to_share, "{after:?}");
        // The others were asked all the time.
        let set = task.rules(&[rate("once", RATE, Period::Second, RATE)]);
        for name in &of_master {
            task.limiter.reserve(&[&set], &consumer(name)).await.unwrap();
        }
        assert_eq!(task.limiter.vitals().fell_back_to_share, after.fell_back_to_share);
        if freeze {
            cluster.thaw(victim);
        }
    }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_says_so_as_fast_and_open_lets_through() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = RedisCluster::start();
        let task = Task::of(&cluster).await;
        let rule =
            |name, on_store_failure| Rule { on_store_failure, ..rate(name, 10, Period::Second, 1) };
        let closed = task.rules(&[rule("closed", OnStoreFailure::Closed)]);
        let open = task.rules(&[rule("open", OnStoreFailure::Open)]);
        task.limiter.reserve(&[&closed], &consumer("carol")).await.unwrap();
        cluster.fault_all(Mode::Blackhole);
        let began = Instant::now();
        let (mut waits, mut answers) = (Vec::new(), 0);
        while began.elapsed() < SECOND {
            let sent = Instant::now();
            let name = format!("consumer{answers}");
            match task.limiter.reserve(&[&closed], &consumer(&name)).await {
                Err(Stopped::Unavailable(unavailable)) => {
                    assert_eq!(&*unavailable.rule, "plan/test/closed");
                }
                other => panic!("{other:?}"),
            }
            waits.push(sent.elapsed());
            answers += 1;
            task.limiter.reserve(&[&open], &consumer("carol")).await.unwrap();
        }
        println!("{answers} answers, longest wait {:?}", waits.iter().max());
        assert!(answers > 1_000, "{answers}");
        assert!(
            waits.iter().all(|wait| *wait <= Duration::from_millis(25)),
            "{:?}",
            waits.iter().max()
        );
        cluster.fault_all(Mode::Pass);
        assert!(task.redis.settled(BACK).await);
        task.limiter.reserve(&[&closed], &consumer("carol")).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_costs_one_burst_and_nothing_else() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = RedisCluster::start();
        let tasks = fleet(&cluster, TASKS).await;
        for rule in [rate("exact", RATE, Period::Second, RATE), leased("leased", RATE, RATE)] {
            let origin = Instant::now();
            let loads: Vec<_> = tasks
                .iter()
                .cloned()
                .map(|task| {
                    let rules = [rule.clone()];
                    tokio::spawn(async move {
                        load(task, &rules, "carol", OFFERED, 4 * SECOND, origin).await
                    })
                })
                .collect();
            tokio::time::sleep(2 * SECOND).await;
            tokio::task::block_in_place(|| cluster.flush());
            let mut all = Vec::new();
            for load in loads {
                all.extend(load.await.unwrap());
            }
            assert_eq!(count(&all, End::Unavailable), 0);
            assert_bound(&all, 2 * RATE, RATE, Duration::from_millis(100));
            assert!(permille(&all, 990) < Duration::from_millis(25));
        }
        // The scripts were forgotten too, and nobody noticed.
        assert!(tasks.iter().all(|task| task.limiter.vitals().fell_back_to_share == 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_without_redis_and_finds_it_later() {
    let _turn = TURN.lock().await;
    let cluster = RedisCluster::start();
    cluster.fault_all(Mode::Refuse);
    let task = Task::unsettled(&cluster, None);
    task.limiter.expect_tasks(2);
    let set = task.rules(&[rate("r", 1, Period::Day, 4)]);
    let admitted = |task: Task| {
        let set = set.clone();
        async move {
            let mut admitted = 0;
            while task.limiter.reserve(&[&set], &consumer("carol")).await.is_ok() {
                admitted += 1;
            }
            admitted
        }
    };
    assert_eq!(admitted(task.clone()).await, 2, "half of the burst");
    assert!(!task.redis.settled(SECOND).await && task.limiter.vitals().degraded);
    cluster.fault_all(Mode::Pass);
    assert!(task.redis.settled(BACK).await);
    assert_eq!(admitted(task.clone()).await, 4, "one further burst");
    assert!(!task.limiter.vitals().degraded);
}
