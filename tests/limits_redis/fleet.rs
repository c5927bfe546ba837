//! Gateways' limiters over one cluster, and load on them.

use crate::redis_lab::RedisCluster;
use datahub_gateway::limits::usage::UsageLog;
use datahub_gateway::limits::{
    Cost, Limiter, Measure, Mode, NoFacts, OnStoreFailure, Period, Precision, Quota, QuotaPeriod,
    Rate, Rule, RuleSet, Scope, Stopped, Subject, Subjects,
};
use datahub_gateway::stores::redis::Settings;
use datahub_gateway::stores::{Reactor, Redis};
use datahub_gateway::telemetry::Clock;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const SECRET: &[u8; 16] = b"all tasks' secre";

/// One gateway, as far as limits go.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) redis: Arc<Redis>,
    pub(crate) limiter: Arc<Limiter>,
}

impl Task {
    /// A task that has found the whole cluster.
    pub(crate) async fn of(cluster: &RedisCluster) -> Self {
        let task = Self::unsettled(cluster, None);
        assert!(task.redis.settled(Duration::from_secs(10)).await, "the cluster was not found");
        task
    }

    /// A task that has only just started.
    pub(crate) fn unsettled(cluster: &RedisCluster, log: Option<Arc<dyn UsageLog>>) -> Self {
        let settings = Settings::parse(&cluster.url(), cluster.ca().as_deref()).unwrap();
        let redis = Redis::connect(settings, Reactor::start().unwrap());
        let fleet = Some(Arc::clone(&redis) as _);
        Self { limiter: Limiter::with_stores(Clock::system(), SECRET, fleet, log), redis }
    }

    pub(crate) fn rules(&self, rules: &[Rule]) -> RuleSet {
        self.limiter.prepare(rules)
    }
}

/// So many tasks, each of which knows of the others.
pub(crate) async fn fleet(cluster: &RedisCluster, tasks: u32) -> Vec<Task> {
    let mut fleet = Vec::new();
    for _ in 0..tasks {
        let task = Task::of(cluster).await;
        task.limiter.expect_tasks(tasks);
        fleet.push(task);
    }
    fleet
}

pub(crate) fn rate(name: &str, permits: u32, per: Period, burst: u32) -> Rule {
    let count = |n| NonZeroU32::new(n).unwrap();
    Rule {
        name: name.into(),
        id: format!("plan/test/{name}").into(),
        measure: Measure::Rate { rate: Rate { permits: count(permits), per }, burst: count(burst) },
        subject: Subject::Consumer,
        cost: Cost::default(),
        mode: Mode::Enforce,
        scope: Scope::Fleet,
        precision: Precision::Exact,
        on_store_failure: OnStoreFailure::Share,
    }
}

pub(crate) fn leased(name: &str, permits: u32, burst: u32) -> Rule {
    Rule { precision: Precision::Leased, ..rate(name, permits, Period::Second, burst) }
}

pub(crate) fn quota(name: &str, permits: u32, per: QuotaPeriod) -> Rule {
    let quota = Quota { permits: NonZeroU32::new(permits).unwrap(), per };
    Rule { measure: Measure::Quota(quota), ..rate(name, 1, Period::Second, 1) }
}

pub(crate) fn consumer(name: &str) -> Subjects<'_> {
    Subjects { address: [192, 0, 2, 1].into(), consumer: Some(name), key: None, facts: &NoFacts }
}

/// One request, when it was sent and answered, and how it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) sent: Duration,
    pub(crate) answered: Duration,
    pub(crate) end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Admitted,
    Refused,
    Unavailable,
}

impl Seen {
    pub(crate) fn took(&self) -> Duration {
        self.answered - self.sent
    }
}

/// Sends `per_second` requests of one consumer through a task, evenly, for so long.
pub(crate) async fn load(
    task: Task,
    rules: &[Rule],
    name: &'static str,
    per_second: u32,
    lasts: Duration,
    origin: Instant,
) -> Vec<Seen> {
    let set = Arc::new(task.rules(rules));
    let began = Instant::now();
    let mut requests = tokio::task::JoinSet::new();
    let mut sent = 0_u32;
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    while began.elapsed() < lasts {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * f64::from(per_second)) as u32;
        for _ in sent..due {
            let (limiter, set) = (Arc::clone(&task.limiter), Arc::clone(&set));
            requests.spawn(async move {
                let sent = origin.elapsed();
                let result = limiter.reserve(&[&set], &consumer(name)).await;
                let end = match result {
                    Ok(_) => End::Admitted,
                    Err(Stopped::Refused(_)) => End::Refused,
                    Err(Stopped::Unavailable(_)) => End::Unavailable,
                };
                Seen { sent, answered: origin.elapsed(), end }
            });
        }
        sent = due.max(sent);
    }
    requests.join_all().await
}

/// Fails if any window certainly admitted more than `burst` and what `rate` in a second gives in the
/// window and `slack` more. Certain are the requests that were sent and answered within it.
pub(crate) fn assert_bound(seen: &[Seen], burst: u32, rate: u32, slack: Duration) {
    let mut admitted: Vec<_> = seen.iter().filter(|seen| seen.end == End::Admitted).collect();
    admitted.sort_by_key(|seen| seen.answered);
    for first in &admitted {
        let within = admitted.iter().filter(|seen| seen.sent >= first.sent);
        for (n, last) in within.enumerate() {
            let window = (last.answered - first.sent + slack).as_secs_f64();
            let most = f64::from(burst) + f64::from(rate) * window;
            assert!((n + 1) as f64 <= most, "{} admitted in {window} s, {most} allowed", n + 1);
        }
    }
}

pub(crate) fn count(seen: &[Seen], end: End) -> usize {
    seen.iter().filter(|seen| seen.end == end).count()
}

/// The value below which so many of 1000 lie.
pub(crate) fn permille(seen: &[Seen], part: usize) -> Duration {
    let mut took: Vec<_> = seen.iter().map(Seen::took).collect();
    took.sort();
    took[(took.len() * part / 1000).min(took.len() - 1)]
}
