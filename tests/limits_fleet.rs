//! What a limiter makes of a fleet's counters, with counters that do what a test wants of them.
//!
//! Time is tokio's, and stands still unless everybody waits.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where it fails"
)]

use async_trait::async_trait;
use datahub_gateway::limits::fleet::{
    Account, Answer, FleetCounters, FleetError, Take, Taken, Work,
};
use datahub_gateway::limits::usage::{
    Batch, QuotaCount, TaskId, UsageCount, UsageError, UsageLog, UsageQuery,
};
use datahub_gateway::limits::{
    Cost, Grant, Limiter, Measure, Mode, NoFacts, OnStoreFailure, Period, Precision, Quota,
    QuotaPeriod, Rate, Refused, Rule, RuleSet, Scope, Stopped, Subject, Subjects,
};
use datahub_gateway::telemetry::Clock;
use futures_util::FutureExt as _;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

const SECRET: &[u8; 16] = &[7; 16];
const DEADLINE: Duration = Duration::from_millis(20);

/// Counters that regain nothing.
#[derive(Default)]
struct Counters {
    used: Mutex<HashMap<Arc<str>, i64>>,
    questions: Mutex<Vec<Vec<Take>>>,
    silent: AtomicBool,
    away: AtomicBool,
    /// Milliseconds.
    late: AtomicU64,
}

impl Counters {
    fn questions(&self) -> usize {
        self.questions.lock().unwrap().len()
    }

    fn used(&self, rule: &str) -> i64 {
        self.used.lock().unwrap().get(format!("plan/test/{rule}").as_str()).copied().unwrap_or(0)
    }

    fn answer(&self, takes: &[Take]) -> Answer {
        let mut used = self.used.lock().unwrap();
        let mut charged = true;
        let mut next = used.clone();
        let mut taken = Vec::new();
        for take in takes {
            let (most, known) = match take.account {
                Account::Flow(flow) => (flow.full / flow.cost, Some(0)),
                Account::Quota { permits, known, .. } => (permits, known),
            };
            let known = known.map(|known| i64::try_from(known).unwrap());
            let before = used.get(&take.rule).copied();
            let Some(before) = before.or(known) else { return Answer::Missing };
            let before = before.max(known.unwrap_or(0));
            let most = i64::try_from(most).unwrap();
            let granted = take.want.min(most - before);
            let gives = granted >= take.least;
            if gives {
                next.insert(Arc::clone(&take.rule), before + granted);
            }
            charged &= gives || take.shadow;
            let granted = if gives { granted } else { 0 };
            let remaining = u64::try_from(most - before - granted).unwrap();
            taken.push(Taken { granted, remaining, wait: Duration::from_millis(70) });
        }
        if !charged {
            return Answer::Refused(taken);
        }
        *used = next;
        Answer::Charged(taken)
    }
}

#[async_trait]
impl FleetCounters for Counters {
    fn ready(&self, _: u128) -> bool {
        !self.away.load(Ordering::Relaxed)
    }

    fn is_degraded(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    fn tasks(&self) -> u32 {
        1
    }

    async fn take(&self, _: u128, takes: &[Take], within: Duration) -> Result<Answer, FleetError> {
        self.questions.lock().unwrap().push(takes.to_vec());
        let late = Duration::from_millis(self.late.load(Ordering::Relaxed));
        let late = if self.silent.load(Ordering::Relaxed) { Duration::MAX } else { late };
        let answer = tokio::time::timeout(within, tokio::time::sleep(late)).await;
        answer.map(|()| self.answer(takes)).map_err(|_| FleetError::Timeout)
    }

    fn start(&self, work: Work) {
        drop(tokio::spawn(work));
    }
}

/// A log that knows one number, and takes its time.
#[derive(Default)]
struct Log {
    used: u64,
    late: Duration,
    asked: AtomicU64,
}

#[async_trait]
impl UsageLog for Log {
    async fn apply(&self, batch: &Batch) -> Result<Vec<u64>, UsageError> {
        Ok(batch.quotas.iter().map(|count| self.used + count.used).collect())
    }

    async fn quota_used(&self, _: &str, _: u128, _: u64) -> Result<u64, UsageError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.late).await;
        Ok(self.used)
    }

    async fn usage(&self, _: UsageQuery<'_>) -> Result<Vec<UsageCount>, UsageError> {
        Ok(Vec::new())
    }

    async fn heartbeat(&self, _: TaskId) -> Result<u32, UsageError> {
        Ok(0)
    }
}

struct Lab {
    clock: Clock,
    counters: Arc<Counters>,
    limiter: Arc<Limiter>,
}

impl Lab {
    fn new() -> Self {
        Self::with_log(None)
    }

    fn with_log(log: Option<Log>) -> Self {
        let (clock, counters) = (Clock::manual(), Arc::new(Counters::default()));
        let fleet = Some(Arc::clone(&counters) as _);
        let log = log.map(|log| Arc::new(log) as Arc<dyn UsageLog>);
        Self { limiter: Limiter::with_stores(clock.clone(), SECRET, fleet, log), clock, counters }
    }

    async fn reserve(&self, rules: &[Rule]) -> Result<Grant, Stopped> {
        let set = self.limiter.prepare(rules);
        self.limiter.reserve(&[&set], &carol()).await
    }
}

fn carol() -> Subjects<'static> {
    Subjects { address: [192, 0, 2, 1].into(), consumer: Some("carol"), key: None, facts: &NoFacts }
}

fn rate(name: &str, permits: u32, burst: u32) -> Rule {
    let count = |n| NonZeroU32::new(n).unwrap();
    Rule {
        name: name.into(),
        id: format!("plan/test/{name}").into(),
        measure: Measure::Rate {
            rate: Rate { permits: count(permits), per: Period::Second },
            burst: count(burst),
        },
        subject: Subject::Consumer,
        cost: Cost::default(),
        mode: Mode::Enforce,
        scope: Scope::Fleet,
        precision: Precision::Exact,
        on_store_failure: OnStoreFailure::Share,
    }
}

fn quota(name: &str, permits: u32, per: QuotaPeriod) -> Rule {
    let quota = Quota { permits: NonZeroU32::new(permits).unwrap(), per };
    Rule { measure: Measure::Quota(quota), ..rate(name, 1, 1) }
}

fn refused(result: Result<Grant, Stopped>) -> Refused {
    match result {
        Err(Stopped::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

fn text(value: Option<http::HeaderValue>) -> String {
    value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn rules_of_one_subject_are_one_question_and_it_charges_all_or_none() {
    let lab = Lab::new();
    let rules = [rate("a", 9, 5), rate("b", 9, 2), quota("q", 4, QuotaPeriod::Day)];
    // The quota has no counter yet, which takes a second question.
    lab.reserve(&rules).await.unwrap();
    assert_eq!(lab.counters.questions(), 2);
    lab.reserve(&rules).await.unwrap();
    assert_eq!(lab.counters.questions(), 3);
    let no = refused(lab.reserve(&rules).await);
    assert_eq!((&*no.rule, no.retry_after), ("plan/test/b", Duration::from_millis(70)));
    assert_eq!(["a", "b", "q"].map(|rule| lab.counters.used(rule)), [2, 2, 2]);
    // What was refused is refused again without asking, until the moment that was named.
    assert_eq!(refused(lab.reserve(&rules).await).retry_after, Duration::from_millis(70));
    assert_eq!(lab.counters.questions(), 4);
    lab.clock.advance(Duration::from_millis(70));
    refused(lab.reserve(&rules).await);
    assert_eq!(lab.counters.questions(), 5);
    let vitals = lab.limiter.vitals();
    assert_eq!((vitals.exact_calls, vitals.denied_from_memory), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn several_subjects_are_asked_side_by_side_and_quotas_last() {
    let lab = Lab::new();
    lab.counters.late.store(8, Ordering::Relaxed);
    let route = |rule| Rule { subject: Subject::Route, ..rule };
    let address = |rule| Rule { subject: Subject::Address, ..rule };
    let rules = [
        rate("a", 9, 5),
        quota("q", 9, QuotaPeriod::Day),
        route(rate("b", 9, 2)),
        address(rate("c", 9, 1)),
    ];
    let began = Instant::now();
    let grant = lab.reserve(&rules).await;
    // Three questions, then that for the quota, which the deadline leaves just enough time for; the
    // second one after the log was asked has none left.
    assert!(began.elapsed() <= DEADLINE, "{:?}", began.elapsed());
    grant.unwrap();
    lab.counters.late.store(0, Ordering::Relaxed);
    let used = || ["a", "b", "c", "q"].map(|rule| lab.counters.used(rule));
    let before = used();
    refused(lab.reserve(&rules).await);
    // What rates gave is forfeited; the quota was not asked.
    assert_eq!(used(), [before[0] + 1, before[1] + 1, before[2], before[3]]);
}

#[tokio::test(start_paused = true)]
async fn rules_of_the_task_come_first_and_get_back_what_a_fleet_refuses() {
    let lab = Lab::new();
    let task = Rule { scope: Scope::Task, ..rate("task", 1, 3) };
    let day = Rule { scope: Scope::Task, ..quota("day", 5, QuotaPeriod::Day) };
    let rules = [task.clone(), day.clone(), rate("fleet", 1, 1)];
    lab.reserve(&rules).await.unwrap();
    for _ in 0..5 {
        refused(lab.reserve(&rules).await);
    }
    let questions = lab.counters.questions();
    let alone = [task, day];
    for left in ["\"task\";r=1;t=1", "\"task\";r=0;t=1"] {
        assert_eq!(text(lab.reserve(&alone).await.unwrap().rate_limit()), left);
    }
    assert_eq!(&*refused(lab.reserve(&alone).await).rule, "plan/test/task");
    lab.reserve(&alone[1..]).await.unwrap();
    lab.reserve(&alone[1..]).await.unwrap();
    assert_eq!(&*refused(lab.reserve(&alone[1..]).await).rule, "plan/test/day");
    assert_eq!(lab.counters.questions(), questions);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_deadline_whatever_the_rules() {
    let lab = Lab::new();
    lab.counters.silent.store(true, Ordering::Relaxed);
    let rules = [
        rate("a", 9, 5),
        Rule { precision: Precision::Leased, ..rate("b", 100, 100) },
        Rule { subject: Subject::Route, ..quota("q", 9, QuotaPeriod::Month) },
        Rule {
            subject: Subject::Address,
            on_store_failure: OnStoreFailure::Open,
            ..rate("c", 9, 1)
        },
        Rule { mode: Mode::Shadow, on_store_failure: OnStoreFailure::Closed, ..rate("d", 9, 1) },
    ];
    for _ in 0..3 {
        let began = Instant::now();
        let grant = lab.reserve(&rules).await.unwrap();
        assert!(began.elapsed() <= DEADLINE + Duration::from_millis(1), "{:?}", began.elapsed());
        assert_eq!(grant.would_refuse(), [Arc::<str>::from("plan/test/d")]);
    }
    let closed = [Rule { on_store_failure: OnStoreFailure::Closed, ..rate("e", 9, 1) }];
    let result = lab.reserve(&closed).await;
    assert!(matches!(&result, Err(Stopped::Unavailable(no)) if &*no.rule == "plan/test/e"));

    // Once it is known that they are away, nobody waits at all.
    lab.counters.away.store(true, Ordering::Relaxed);
    let questions = lab.counters.questions();
    let set = lab.limiter.prepare(&rules);
    lab.limiter.reserve(&[&set], &carol()).now_or_never().unwrap().unwrap();
    let set = lab.limiter.prepare(&closed);
    let result = lab.limiter.reserve(&[&set], &carol()).now_or_never().unwrap();
    assert!(matches!(result, Err(Stopped::Unavailable(_))));
    assert_eq!(lab.counters.questions(), questions);
    let vitals = lab.limiter.vitals();
    assert!(vitals.degraded && vitals.fell_back_to_share > 0, "{vitals:?}");
    assert!(vitals.fell_back_to_open > 0 && vitals.fell_back_to_closed > 0, "{vitals:?}");
}

#[tokio::test(start_paused = true)]
async fn a_share_is_the_limit_divided_by_the_tasks_and_at_least_one() {
    let lab = Lab::new();
    lab.counters.away.store(true, Ordering::Relaxed);
    lab.limiter.expect_tasks(4);
    for (n, (permits, burst, at_once, wait)) in
        [(10, 10, 2, 400), (1, 3, 1, 4_000), (8, 12, 3, 500)].into_iter().enumerate()
    {
        let rules = [rate(&format!("r{n}"), permits, burst)];
        for _ in 0..at_once {
            lab.reserve(&rules).await.unwrap();
        }
        let no = refused(lab.reserve(&rules).await);
        assert_eq!(no.retry_after, Duration::from_millis(wait), "{permits}/s burst {burst}");
        lab.clock.advance(no.retry_after);
        lab.reserve(&rules).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_leased_rule_asks_beside_requests_once_it_knows_the_flow() {
    let lab = Lab::new();
    let rules = [Rule { precision: Precision::Leased, ..rate("r", 1_000, 100_000) }];
    let set = lab.limiter.prepare(&rules);
    let mut waited = 0;
    // 500 requests in a second.
    for n in 0..1_000 {
        let now = lab.limiter.reserve(&[&set], &carol()).now_or_never();
        match now {
            Some(granted) => drop(granted.unwrap()),
            None => {
                lab.limiter.reserve(&[&set], &carol()).await.unwrap();
                waited += u32::from(n > 50);
            }
        }
        lab.clock.advance(Duration::from_millis(2));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(waited, 0);
    let (questions, vitals) = (lab.counters.questions(), lab.limiter.vitals());
    assert!((20..=120).contains(&questions), "{questions} questions in two seconds");
    assert_eq!((vitals.exact_calls, vitals.leases_asked), (0, questions as u64));
    assert!(vitals.permits_died * 20 < vitals.permits_leased, "{vitals:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rule_too_slow_to_be_leased_is_counted_exactly() {
    let leased =
        |permits, burst| Rule { precision: Precision::Leased, ..rate("r", permits, burst) };
    for (permits, burst, tasks, exact) in [
        (50, 50, 5, false),
        (49, 50, 5, true),
        (10, 1, 1, false),
        (9, 10, 1, true),
        (1_000, 100, 1, false),
        (1_000, 99, 1, true),
    ] {
        let lab = Lab::new();
        lab.limiter.expect_tasks(tasks);
        lab.reserve(&[leased(permits, burst)]).await.unwrap();
        let calls = lab.limiter.vitals().exact_calls;
        assert_eq!(calls, u64::from(exact), "{permits}/s, burst {burst}, {tasks} tasks");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_begins_with_what_the_log_knows_and_does_not_wait_for_a_slow_one() {
    let day = [quota("q", 10, QuotaPeriod::Day)];
    let lab = Lab::with_log(Some(Log { used: 8, ..Log::default() }));
    assert_eq!(text(lab.reserve(&day).await.unwrap().rate_limit()), "\"q\";r=1;t=57600");
    lab.reserve(&day).await.unwrap();
    assert_eq!(&*refused(lab.reserve(&day).await).rule, "plan/test/q");

    let late = Duration::from_millis(200);
    let lab = Lab::with_log(Some(Log { used: 8, late, ..Log::default() }));
    lab.limiter.expect_tasks(5);
    // Nobody knows yet what is left: one goes on, and no more.
    for goes_on in [true, false] {
        let began = Instant::now();
        match lab.reserve(&day).await {
            Ok(_) => assert!(goes_on),
            Err(stopped) => assert!(!goes_on && matches!(stopped, Stopped::Unavailable(_))),
        }
        assert!(began.elapsed() <= DEADLINE + Duration::from_millis(1));
    }
    assert_eq!(lab.limiter.vitals().fell_back_to_share, 2);
    tokio::time::sleep(late).await;
    // Two of ten were left, one of which went already.
    lab.reserve(&day).await.unwrap();
    refused(lab.reserve(&day).await);
    assert_eq!(lab.limiter.drain_quota_counts().iter().map(|count| count.used).sum::<u64>(), 2);
}

fn here(clock: &Clock, log: Option<Log>) -> (Arc<Limiter>, RuleSet) {
    let log = log.map(|log| Arc::new(log) as Arc<dyn UsageLog>);
    let limiter = Limiter::with_stores(clock.clone(), SECRET, None, log);
    let set = limiter.prepare(&[
        quota("hour", 3, QuotaPeriod::Hour),
        Rule { mode: Mode::Shadow, ..quota("shadow", 1, QuotaPeriod::Hour) },
    ]);
    (limiter, set)
}

#[tokio::test(start_paused = true)]
async fn a_quota_in_process_ends_with_its_hour_and_is_told_to_clients() {
    let clock = Clock::manual();
    let (limiter, set) = here(&clock, None);
    // The manual clock begins at a full hour.
    clock.advance(Duration::from_secs(600));
    for left in ["\"hour\";r=2;t=3000", "\"hour\";r=1;t=3000", "\"hour\";r=0;t=3000"] {
        let grant = limiter.reserve(&[&set], &carol()).now_or_never().unwrap().unwrap();
        assert_eq!(text(grant.rate_limit()), left);
        assert_eq!(text(grant.rate_limit_policy()), "\"hour\";q=3;w=3600");
        assert_eq!(grant.would_refuse().len(), usize::from(!left.contains("r=2")));
    }
    let no = refused(limiter.reserve(&[&set], &carol()).await);
    assert_eq!(no.retry_after, Duration::from_secs(3_000));
    assert_eq!(text(no.rate_limit()), "\"hour\";r=0;t=3000");
    clock.advance(no.retry_after - Duration::from_nanos(1));
    refused(limiter.reserve(&[&set], &carol()).await);
    clock.advance(Duration::from_nanos(1));
    limiter.reserve(&[&set], &carol()).await.unwrap();
    let mut counts = limiter.drain_quota_counts();
    counts.retain(|count| &*count.rule == "plan/test/hour");
    counts.sort_by_key(|count| count.period);
    let of = |count: &QuotaCount| (count.ends - count.period, count.used);
    assert_eq!(counts.iter().map(of).collect::<Vec<_>>(), [(3_600, 3), (3_600, 1)]);
    assert_eq!(counts[1].period, counts[0].ends);
    assert!(limiter.drain_quota_counts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_quota_in_process_outlives_the_process() {
    let clock = Clock::manual();
    let (limiter, set) = here(&clock, Some(Log { used: 2, ..Log::default() }));
    limiter.reserve(&[&set], &carol()).await.unwrap();
    refused(limiter.reserve(&[&set], &carol()).now_or_never().expect("the log was asked before"));
    // Somebody else has counted too, as the log's answer shows.
    let (limiter, set) = here(&clock, None);
    limiter.reserve(&[&set], &carol()).await.unwrap();
    let counts = limiter.drain_quota_counts();
    limiter.reconcile(&counts, &counts.iter().map(|_| 3).collect::<Vec<_>>());
    refused(limiter.reserve(&[&set], &carol()).await);
}

fn costs(cost: u32, rule: Rule) -> Rule {
    Rule { cost: Cost::Fixed(NonZeroU32::new(cost).unwrap()), ..rule }
}

#[tokio::test(start_paused = true)]
async fn what_a_request_costs_is_asked_for_as_a_whole() {
    let lab = Lab::new();
    let rules = [costs(5, rate("a", 9, 12)), costs(4, quota("q", 30, QuotaPeriod::Day))];
    for left in ["\"a\";r=7", "\"a\";r=2"] {
        let grant = lab.reserve(&rules).await.unwrap();
        assert!(text(grant.rate_limit()).starts_with(left), "{grant:?}");
    }
    let no = refused(lab.reserve(&rules).await);
    assert_eq!((&*no.rule, no.violated().count()), ("plan/test/a", 1));
    assert_eq!(["a", "q"].map(|rule| lab.counters.used(rule)), [10, 8], "two left are too few");
    // Of another rule, that asks for less, what was refused says nothing.
    let cheap = [costs(2, rate("a", 9, 12))];
    lab.reserve(&cheap).await.unwrap();
    refused(lab.reserve(&cheap).await);
    assert_eq!(lab.counters.used("a"), 12);
    // The log is told what was taken, not how often.
    let taken: u64 = lab.limiter.drain_quota_counts().iter().map(|count| count.used).sum();
    assert_eq!(taken, 8);
}

#[tokio::test(start_paused = true)]
async fn quotas_that_are_taken_ahead_are_used_up_to_the_last_whole_request() {
    let lab = Lab::new();
    let quota = quota("q", 1_000, QuotaPeriod::Month);
    let rules = [Rule { precision: Precision::Leased, ..costs(7, quota) }];
    let mut through = 0;
    for _ in 0..400 {
        through += u32::from(lab.reserve(&rules).await.is_ok());
        lab.clock.advance(Duration::from_millis(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(through, 142, "142 times 7 are 994");
    assert!((994..=1_000).contains(&lab.counters.used("q")), "{}", lab.counters.used("q"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_gives_requests_all_that_they_cost() {
    let lab = Lab::new();
    // The counters regain nothing.
    let rules = [Rule { precision: Precision::Leased, ..costs(10, rate("r", 1_000, 1_000)) }];
    let mut through = 0;
    for _ in 0..400 {
        through += i64::from(lab.reserve(&rules).await.is_ok());
        lab.clock.advance(Duration::from_millis(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let used = lab.counters.used("r");
    assert!(through * 10 <= used && used <= 1_000, "{through} {used}");
    assert!(through >= 60, "{through}: most of what is leased is used");
    assert!(lab.limiter.vitals().leases_asked > 0);
    // So many a second in permits are too few in requests: each asks.
    let slow = [Rule { precision: Precision::Leased, ..costs(10, rate("s", 90, 90)) }];
    let before = lab.limiter.vitals().exact_calls;
    lab.reserve(&slow).await.unwrap();
    assert_eq!(lab.limiter.vitals().exact_calls, before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_share_lets_a_whole_request_through() {
    let lab = Lab::new();
    lab.limiter.expect_tasks(8);
    lab.counters.away.store(true, Ordering::Relaxed);
    let of_rate = [costs(5, rate("r", 8, 16))];
    lab.reserve(&of_rate).await.unwrap();
    // It is paid for at the share of the rate: one permit in a second.
    assert_eq!(refused(lab.reserve(&of_rate).await).retry_after, Duration::from_secs(5));
    lab.clock.advance(Duration::from_secs(5));
    lab.reserve(&of_rate).await.unwrap();
    let of_quota = [costs(5, quota("q", 100, QuotaPeriod::Minute))];
    // The period began before this did; nothing of it is known. Then the next one.
    lab.clock.advance(Duration::from_secs(60));
    let mut through = 0;
    while lab.reserve(&of_quota).await.is_ok() {
        through += 1;
    }
    // Twenty requests for eight tasks.
    assert_eq!(through, 3);
}

fn in_flight(name: &str, most: u32) -> Rule {
    let most = NonZeroU32::new(most).unwrap();
    Rule { measure: Measure::Concurrency(most), scope: Scope::Task, ..rate(name, 1, 1) }
}

#[tokio::test(start_paused = true)]
async fn a_place_among_those_in_flight_is_free_with_its_grant_and_taken_by_no_refusal() {
    let lab = Lab::new();
    let rules = [rate("flow", 9, 3), in_flight("parallel", 2)];
    let one = lab.reserve(&rules).await.unwrap();
    assert_eq!(text(one.rate_limit()), "\"parallel\";r=1");
    let policies = "\"flow\";q=3;w=1, \"parallel\";q=2;qu=\"concurrent-requests\"";
    assert_eq!(text(one.rate_limit_policy()), policies);
    let two = lab.reserve(&rules).await.unwrap();
    for _ in 0..5 {
        let no = refused(lab.reserve(&rules).await);
        assert_eq!((text(no.rate_limit()).as_str(), no.is_timed()), ("\"parallel\";r=0", false));
        assert!(no.violated().eq(["parallel"]) && no.retry_after == Duration::from_secs(1));
    }
    assert_eq!(lab.counters.used("flow"), 2, "a rate is not asked in vain");
    drop((one, two));
    let last = lab.reserve(&rules).await.unwrap();
    drop(last);
    // The rate refuses, which takes no place.
    for _ in 0..5 {
        assert!(refused(lab.reserve(&rules).await).violated().eq(["flow"]));
    }
    let free = [in_flight("parallel", 2)];
    let held = [lab.reserve(&free).await.unwrap(), lab.reserve(&free).await.unwrap()];
    // Another rule under the same id, as after a reload.
    refused(lab.reserve(&[in_flight("parallel", 1)]).await);
    let more = lab.reserve(&[in_flight("parallel", 3)]).await.unwrap();
    let shadow = [Rule { mode: Mode::Shadow, ..in_flight("parallel", 3) }];
    let watched = lab.reserve(&shadow).await.unwrap();
    assert_eq!(&*watched.would_refuse()[0], "plan/test/parallel");
    assert!(watched.rate_limit().is_none() && watched.rate_limit_policy().is_none());
    drop((held, more, watched));
    lab.reserve(&[in_flight("parallel", 1)]).await.unwrap();
    // Nobody asks Redis for it, whether it is there or not.
    lab.counters.away.store(true, Ordering::Relaxed);
    let _held = lab.reserve(&free).await.unwrap();
    refused(lab.reserve(&[in_flight("parallel", 1)]).await);
}
