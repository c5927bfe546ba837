//! Quotas that several tasks share: neither exceeded nor lost, and not forgotten.

use crate::TURN;
use crate::calm::on_a_calm_machine;
use crate::fleet::{Task, consumer, quota};
use crate::redis_lab::RedisCluster;
use crate::redis_lab::fault::Mode;
use async_trait::async_trait;
use datahub_gateway::limits::usage::{
    Batch, QuotaCount, TaskId, UsageCount, UsageError, UsageLog, UsageQuery,
};
use datahub_gateway::limits::{Precision, QuotaPeriod, Rule, Stopped};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Totals by rule, subject and period.
type Totals = HashMap<(Arc<str>, u128, u64), u64>;

/// What lasts, in memory.
#[derive(Default)]
struct Log(Mutex<Totals>);

#[async_trait]
impl UsageLog for Log {
    async fn apply(&self, batch: &Batch) -> Result<Vec<u64>, UsageError> {
        let mut totals = self.0.lock().unwrap();
        let add = |count: &QuotaCount| {
            let key = (Arc::clone(&count.rule), count.subject, count.period);
            let total = totals.entry(key).or_default();
            *total += count.used;
            *total
        };
        Ok(batch.quotas.iter().map(add).collect())
    }

    async fn quota_used(&self, rule: &str, subject: u128, period: u64) -> Result<u64, UsageError> {
        let key = (Arc::from(rule), subject, period);
        Ok(self.0.lock().unwrap().get(&key).copied().unwrap_or(0))
    }

    async fn usage(&self, _: UsageQuery<'_>) -> Result<Vec<UsageCount>, UsageError> {
        Ok(Vec::new())
    }

    async fn heartbeat(&self, _: TaskId) -> Result<u32, UsageError> {
        Ok(0)
    }
}

/// Hands over to the log what a task has let through; how much that is.
async fn hand_over(task: &Task, log: &Log) -> u64 {
    let quotas = task.limiter.drain_quota_counts();
    let used = quotas.iter().map(|count| count.used).sum();
    let id = TaskId(uuid::Uuid::now_v7());
    let batch = Batch { task: id, number: 1, usage: Vec::new(), quotas };
    let totals = log.apply(&batch).await.unwrap();
    task.limiter.reconcile(&batch.quotas, &totals);
    used
}

async fn tasks(cluster: &RedisCluster, count: u32, log: &Arc<Log>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        let task = Task::unsettled(cluster, Some(Arc::clone(log) as _));
        assert!(task.redis.settled(Duration::from_secs(10)).await);
        task.limiter.expect_tasks(count);
        tasks.push(task);
    }
    tasks
}

/// Sends requests through the tasks, in turns, until each has refused `patience` times in a row.
async fn exhaust(tasks: &[Task], rule: &Rule, patience: u32) -> u64 {
    let mut requests = tokio::task::JoinSet::new();
    for task in tasks.iter().cloned() {
        let set = task.rules(std::slice::from_ref(rule));
        requests.spawn(async move {
            let (mut admitted, mut refusals) = (0, 0);
            while refusals < patience {
                match task.limiter.reserve(&[&set], &consumer("carol")).await {
                    Ok(_) => {
                        admitted += 1;
                        refusals = 0;
                        tokio::task::yield_now().await;
                    }
                    Err(Stopped::Refused(_)) => {
                        refusals += 1;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            admitted
        });
    }
    requests.join_all().await.iter().sum()
}

fn month(name: &str, permits: u32, precision: Precision) -> Rule {
    Rule { precision, ..quota(name, permits, QuotaPeriod::Month) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_neither_exceeded_nor_lost() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = RedisCluster::start();
        let log = Arc::new(Log::default());
        let tasks = tasks(&cluster, 5, &log).await;
        for precision in [Precision::Exact, Precision::Leased] {
            let rule = month(&format!("{precision:?}"), 20_000, precision);
            let before: u64 = tasks.iter().map(|task| task.redis.vitals().round_trips).sum();
            // What one task holds at the end is with the others within a second.
            assert_eq!(exhaust(&tasks, &rule, 25).await, 20_000, "{precision:?}");
            let trips =
                tasks.iter().map(|task| task.redis.vitals().round_trips).sum::<u64>() - before;
            println!("{precision:?}: {trips} round trips");
            if precision == Precision::Leased {
                assert!(trips < 5_000, "{trips}");
            }
            let mut handed_over = 0;
            for task in &tasks {
                handed_over += hand_over(task, &log).await;
            }
            assert_eq!(handed_over, 20_000);
        }
        assert!(tasks.iter().all(|task| task.limiter.vitals().fell_back_to_share == 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_remembered_when_redis_forgets_it() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = RedisCluster::start();
        let log = Arc::new(Log::default());
        let tasks = tasks(&cluster, 2, &log).await;
        let rule = month("r", 300, Precision::Exact);
        let set = tasks[0].rules(std::slice::from_ref(&rule));
        for _ in 0..100 {
            tasks[0].limiter.reserve(&[&set], &consumer("carol")).await.unwrap();
        }
        assert_eq!(hand_over(&tasks[0], &log).await, 100);
        for _ in 0..50 {
            tasks[0].limiter.reserve(&[&set], &consumer("carol")).await.unwrap();
        }
        cluster.flush();
        // The one that was there knows of the 50 too; the other would have learned of 100 from the log.
        tasks[0].limiter.reserve(&[&set], &consumer("carol")).await.unwrap();
        assert_eq!(exhaust(&tasks, &rule, 1).await, 149);

        // A counter that says too little is raised to what the log knows.
        cluster.flush();
        let other = tasks[1].rules(std::slice::from_ref(&rule));
        log.0.lock().unwrap().clear();
        let forgetful = Task::of(&cluster).await;
        let refreshed = forgetful.rules(std::slice::from_ref(&rule));
        forgetful.limiter.reserve(&[&refreshed], &consumer("carol")).await.unwrap();
        let counts = tasks[0].limiter.drain_quota_counts();
        tasks[0].limiter.reconcile(&counts, &[300]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let refused = tasks[1].limiter.reserve(&[&other], &consumer("carol")).await.unwrap_err();
        let Stopped::Refused(refused) = refused else { panic!("{refused}") };
        let limit = refused.rate_limit().unwrap();
        assert!(limit.to_str().unwrap().starts_with("\"r\";r=0;t="), "{limit:?}");
        assert_eq!(refused.rate_limit_policy().unwrap(), "\"r\";q=300;w=2678400");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_task_has_its_share_of_what_was_left() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = RedisCluster::start();
        let log = Arc::new(Log::default());
        let tasks = tasks(&cluster, 2, &log).await;
        for precision in [Precision::Exact, Precision::Leased] {
            let rule = month(&format!("{precision:?}"), 1_000, precision);
            for task in &tasks {
                let set = task.rules(std::slice::from_ref(&rule));
                for _ in 0..100 {
                    task.limiter.reserve(&[&set], &consumer("carol")).await.unwrap();
                }
            }
            cluster.fault_all(Mode::Blackhole);
            let rest = exhaust(&tasks, &rule, 2).await;
            // The first one saw only its own hundred.
            assert!((800..=900).contains(&rest), "{precision:?}: {rest}");
            cluster.fault_all(Mode::Pass);
            for task in &tasks {
                assert!(task.redis.settled(Duration::from_secs(2)).await);
                hand_over(task, &log).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            let more = exhaust(&tasks, &rule, 12).await;
            assert!(more <= 100, "{precision:?}: {more} more");
        }
    })
    .await;
}
