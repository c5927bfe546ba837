//! A rule of the task beside the same rule leased from Redis.
//!
//! Rounds of both alternate, so that a slow moment of the machine hits both alike, and the middle one of
//! each counts.

use crate::redis_lab::RedisCluster;
use crate::rule;
use anyhow::{Context as _, Result, ensure};
use datahub_gateway::limits::{Limiter, NoFacts, Rule, RuleSet, Scope, Subject, Subjects};
use datahub_gateway::stores::redis::Settings;
use datahub_gateway::stores::{Reactor, Redis};
use datahub_gateway::telemetry::Clock;
use futures_util::FutureExt as _;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// What a leased rule may cost more.
pub(crate) const BAR: Duration = Duration::from_nanos(300);
/// Requests in a second under steady load.
const STEADY: u32 = 2_000;
/// How long a lease takes to learn what is used.
const WARM: Duration = Duration::from_millis(500);
const ROUNDS: usize = 21;
/// One request in so many may wait even so, when the machine gives Redis no time.
const SELDOM: u32 = 100;

/// A task, and one consumer of it.
struct Task {
    redis: Arc<Redis>,
    limiter: Arc<Limiter>,
    events: Runtime,
}

/// Reservations, and what they took.
#[derive(Default)]
struct Seen {
    number: u32,
    /// Could not be answered at once.
    waited: u32,
    /// Allocated something.
    allocated: u32,
}

impl Task {
    fn start(cluster: &RedisCluster) -> Result<Self> {
        let events = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let redis = Redis::connect(Settings::parse(&cluster.url(), None)?, Reactor::start()?);
        let found = events.block_on(redis.settled(Duration::from_secs(10)));
        ensure!(found, "the cluster was not found");
        let fleet = Some(Arc::clone(&redis) as _);
        let limiter = Limiter::with_stores(Clock::system(), &[7; 16], fleet, None);
        Ok(Self { redis, limiter, events })
    }

    /// Reserves once; whether it had to wait.
    fn reserve(&self, rules: &RuleSet) -> Result<bool> {
        let subjects = Subjects {
            address: [127, 0, 0, 1].into(),
            consumer: Some("0198c6d2-7d5e-7c1a-9d0e-2f5b8a3c4d6e"),
            key: None,
            facts: &NoFacts,
        };
        let sets = [rules];
        let mut reservation = pin!(self.limiter.reserve(black_box(&sets), black_box(&subjects)));
        let (result, waited) = match reservation.as_mut().now_or_never() {
            Some(result) => (result, false),
            None => (self.events.block_on(reservation), true),
        };
        black_box(result.context("nothing is to be refused")?);
        Ok(waited)
    }

    /// Reserves evenly for `span`.
    fn steady(&self, rules: &RuleSet, span: Duration) -> Result<Seen> {
        let (began, mut seen) = (Instant::now(), Seen::default());
        while began.elapsed() < span {
            let due = began + Duration::from_secs(1) * seen.number / STEADY;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut waited = Ok(false);
            // Of this thread only: Redis is asked by another.
            let allocations = allocation_counter::measure(|| waited = self.reserve(rules));
            seen.number += 1;
            seen.waited += u32::from(waited?);
            seen.allocated += u32::from(allocations.count_total > 0);
        }
        Ok(seen)
    }

    /// What one of `number` reservations takes, and how many waited.
    fn round(&self, rules: &RuleSet, number: u32) -> Result<(Duration, u32)> {
        let (began, mut waited) = (Instant::now(), 0);
        for _ in 0..number {
            waited += u32::from(self.reserve(rules)?);
        }
        Ok((began.elapsed() / number, waited))
    }
}

/// Measures, prints, and fails where what must hold does not.
pub(crate) fn compare(short: bool) -> Result<()> {
    let cluster = RedisCluster::start();
    let task = Task::start(&cluster)?;
    // A request that has to wait sets its deadline before it is awaited.
    let _inside = task.events.enter();
    let shared = rule("burst", Subject::Consumer);
    let local = task.limiter.prepare(&[Rule { scope: Scope::Task, ..shared.clone() }]);
    let leased = task.limiter.prepare(&[shared]);
    let enforce = std::env::var("LIMITS_ENFORCE").is_ok_and(|value| value == "1");
    let waited = steady(&task, &leased, Duration::from_secs(if short { 1 } else { 5 }))?;
    ensure!(!enforce || waited == 0, "a request waited for Redis");

    let number = if short { 1_000 } else { 200_000 };
    task.round(&leased, number)?;
    let (mut here, mut there, mut waited) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        here.push(task.round(&local, number)?.0);
        let (took, of_them_waited) = task.round(&leased, number)?;
        there.push(took);
        waited += of_them_waited;
    }
    let (here, there) = (middle(here)?, middle(there)?);
    let more = there.saturating_sub(here);
    println!(
        "a rule counted here costs {here:?}, leased {there:?}: {more:?} more; {waited} of {} waited",
        ROUNDS * usize::try_from(number)?,
    );
    ensure!(!enforce || more <= BAR, "more than {BAR:?}");
    Ok(())
}

/// Counts under steady load what a leased rule asks, keeps waiting and allocates; how many waited.
fn steady(task: &Task, leased: &RuleSet, span: Duration) -> Result<u32> {
    task.steady(leased, WARM)?;
    let (limits, redis) = (task.limiter.vitals(), task.redis.vitals());
    let Seen { number, waited, allocated } = task.steady(leased, span)?;
    let renewed = task.limiter.vitals().leases_asked - limits.leases_asked;
    let trips = task.redis.vitals().round_trips - redis.round_trips;
    println!(
        "leased, {STEADY}/s for {span:?}: {number} reservations, {waited} waited for Redis; {renewed} \
         renewals and {trips} commands beside them; {allocated} allocated"
    );
    ensure!(waited <= number / SELDOM, "requests waited for Redis");
    let excused = renewed + u64::from(waited);
    ensure!(u64::from(allocated) <= excused, "more allocated than renewed the lease or waited");
    Ok(waited)
}

fn middle(mut rounds: Vec<Duration>) -> Result<Duration> {
    rounds.sort_unstable();
    rounds.get(rounds.len() / 2).copied().context("no rounds")
}
