//! The limits of a request, reserved as one step: all rules let it through, or none is charged.
//!
//! What can be said here is said without waiting. Rules of the task come first, while their counters
//! are held; then permits that were taken ahead of need; then, if a rule is left that only the fleet's
//! counters can speak for, the request waits, under one deadline.
//!
//! Must stay true: a request that is let through without waiting allocates nothing here unless it
//! meets more rules than [`Few`] holds, more than two sets of enforced rules, more than one rule of
//! requests in flight, a header with several values that a rule counts by, a rule in shadow mode
//! that would refuse, or a lease that it has renewed; the clock is read while the counters are held,
//! so no counter ever sees time go back.

use super::charge::{Charge, Outcome, Way, answer};
use super::few::Few;
use super::fleet::FleetCounters;
use super::gcra::Meter;
use super::grant::Grant;
use super::ledger::Ledger;
use super::refused::Stopped;
use super::rule::{OnStoreFailure, Rule};
use super::rule_set::{Gauge, RuleSet};
use super::subject::{Keyring, Named, Subjects};
use super::usage::{QuotaCount, UsageLog};
use super::vitals::Vitals;
use super::wire::Policies;
use crate::telemetry::Clock;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How many counters a process keeps unless told otherwise: 64 MB when all are in use.
const ENTRIES: usize = 1_000_000;

/// The counters of all rules. One for each process; it outlives every snapshot.
///
/// Counters are kept under the rule's id and the subject, so a reload changes nothing for rules
/// that keep their id. Where such a rule's rate or burst has changed, permits in use stay in use
/// and are regained at the new rate, with at most the new burst in use.
pub struct Limiter {
    ledger: Arc<Ledger>,
}

impl Limiter {
    /// A limiter with room for a million counters, all of them here. The secret hides who is counted.
    #[must_use]
    pub fn new(clock: Clock, secret: &[u8; 16]) -> Arc<Self> {
        Self::with_capacity(clock, secret, ENTRIES)
    }

    /// A limiter with room for about `entries` counters (each costs up to 64 bytes). Subjects
    /// that find none free share one for each rule.
    #[must_use]
    pub fn with_capacity(clock: Clock, secret: &[u8; 16], entries: usize) -> Arc<Self> {
        Self::build(clock, secret, entries, None, None)
    }

    /// A limiter that counts a fleet's rules in `fleet`, if there is one, under a secret that all tasks
    /// share; quotas last in `log`.
    #[must_use]
    pub fn with_stores(
        clock: Clock,
        secret: &[u8; 16],
        fleet: Option<Arc<dyn FleetCounters>>,
        log: Option<Arc<dyn UsageLog>>,
    ) -> Arc<Self> {
        Self::build(clock, secret, ENTRIES, fleet, log)
    }

    fn build(
        clock: Clock,
        secret: &[u8; 16],
        entries: usize,
        fleet: Option<Arc<dyn FleetCounters>>,
        log: Option<Arc<dyn UsageLog>>,
    ) -> Arc<Self> {
        let ledger = Ledger::new(clock, Keyring::new(secret), entries, fleet, log);
        Arc::new(Self { ledger: Arc::new(ledger) })
    }

    /// How often a request was counted by its rule's shared counter, because all others were in
    /// use. Above zero means: more subjects are active than the limiter has counters.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        let quotas = self.ledger.tally.overflowed.load(Ordering::Relaxed);
        self.ledger.counters.overflowed() + quotas
    }

    /// How the limits are doing.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        Vitals {
            degraded: self.ledger.fleet.as_ref().is_some_and(|fleet| fleet.is_degraded()),
            tasks: self.ledger.tasks(),
            overflowed: self.overflowed(),
            ..self.ledger.tally.read()
        }
    }

    /// Says how many tasks there are, as far as the heartbeats in PostgreSQL and the file know. Shares
    /// are divided by this, or by the number seen in Redis if that is larger.
    pub fn expect_tasks(&self, tasks: u32) {
        self.ledger.expected.store(tasks, Ordering::Relaxed);
    }

    /// What was let through of quotas since this was last called, for the next batch of the log.
    #[must_use]
    pub fn drain_quota_counts(&self) -> Vec<QuotaCount> {
        self.ledger.drain()
    }

    /// Raises quotas to the totals that [`UsageLog::apply`] answered to these counts.
    pub fn reconcile(&self, counts: &[QuotaCount], totals: &[u64]) {
        self.ledger.reconcile(counts, totals);
    }

    /// Makes rules ready to be reserved. Rules that are off are left out.
    #[must_use]
    pub fn prepare(&self, rules: &[Rule]) -> RuleSet {
        RuleSet::new(rules, &self.ledger.keyring)
    }

    /// Takes one request from every rule of `sets`, or from none: first those of requests in flight, then
    /// rates, quotas last. Its places among the requests in flight are in the grant.
    ///
    /// It waits only for rules that must ask the fleet's counters, and never longer than 20 ms. When
    /// several subjects have to be asked and one refuses, what the rates of the others gave is forfeited.
    ///
    /// # Errors
    /// Rules that have nothing left; the longest wait among them is the answer. Or a rule that cannot be
    /// counted and says `closed`.
    pub async fn reserve(
        &self,
        sets: &[&RuleSet],
        subjects: &Subjects<'_>,
    ) -> Result<Grant, Stopped> {
        if sets.iter().all(|set| set.rules().is_empty()) {
            return Ok(Grant::default());
        }
        match self.begin(sets, subjects) {
            Begun::Over(result) => result,
            Begun::Open(mut charges) => {
                self.ledger.settle(&mut charges).await;
                let stops = charges.iter().any(Charge::stops);
                if stops {
                    self.stop(&mut charges, sets)
                } else {
                    answer(&mut charges, policies(sets))
                }
            }
        }
    }

    /// All that can be said without waiting.
    fn begin<'r>(&self, sets: &[&'r RuleSet], subjects: &Subjects<'_>) -> Begun<'r> {
        let ledger = &self.ledger;
        let mut named = Named::new(&ledger.keyring, subjects);
        let mut charges = Few::new();
        for rule in sets.iter().flat_map(|set| set.rules()) {
            let counted = rule.counted(&mut named);
            let (cost, way) = (rule.cost_of(subjects), ledger.way(rule, counted.subject));
            charges.push(Charge::new(rule, counted, cost, way));
        }
        for charge in charges.iter_mut() {
            if let Gauge::Concurrency(most) = charge.rule.gauge {
                ledger.take_place(charge, most);
            }
        }
        if charges.iter().any(Charge::stops) {
            return Begun::Over(self.stop(&mut charges, sets));
        }
        let counted_here = charges.iter().filter(|charge| meter_here(charge, ledger).is_some());
        let mut held = ledger.counters.hold(counted_here.map(|charge| charge.counted.key));
        let now = ledger.clock.now();
        for charge in charges.iter_mut() {
            if let Some(meter) = meter_here(charge, ledger) {
                Ledger::take_counter(charge, meter, &mut held, now);
            }
        }
        if !charges.iter().any(Charge::stops) {
            charges.iter_mut().for_each(|charge| self.take_beside_counters(charge));
        }
        if charges.iter().any(Charge::stops) {
            Ledger::restore(&mut charges, &mut held);
            drop(held);
            return Begun::Over(self.stop(&mut charges, sets));
        }
        drop(held);
        if charges.iter().any(|charge| charge.outcome == Outcome::Open) {
            return Begun::Open(Box::new(charges));
        }
        Begun::Over(answer(&mut charges, policies(sets)))
    }

    /// Refuses, and gives back what can be.
    fn stop(&self, charges: &mut Few<Charge<'_>>, sets: &[&RuleSet]) -> Result<Grant, Stopped> {
        charges.iter_mut().for_each(|charge| self.ledger.give_back(charge));
        answer(charges, policies(sets))
    }

    /// What a rule says that has no counter here, as far as that is known without waiting.
    fn take_beside_counters(&self, charge: &mut Charge<'_>) {
        let ledger = &self.ledger;
        match (charge.way, charge.rule.gauge) {
            (_, Gauge::Concurrency(_)) | (Way::Here, Gauge::Rate(_)) => {}
            (Way::Here, Gauge::Quota(quota)) => ledger.take_quota_here(charge, quota),
            (Way::Fall, _) => ledger.fall_back_beside_counters(charge),
            (Way::Lease, Gauge::Rate(meter)) => ledger.take_leased(charge, meter),
            (Way::Lease, Gauge::Quota(quota)) => ledger.take_quota_held(charge, quota),
            (Way::Ask, _) => {}
        }
        if charge.outcome == Outcome::Open && charge.way == Way::Ask {
            ledger.recall(charge);
        }
    }
}

/// How far a request got without waiting.
enum Begun<'r> {
    /// Some rules have not spoken yet.
    Open(Box<Few<Charge<'r>>>),
    /// All the way.
    Over(Result<Grant, Stopped>),
}

fn policies(sets: &[&RuleSet]) -> Policies {
    Policies::of(sets.iter().filter_map(|set| set.policy()))
}

/// The meter of a rate that is counted here, in full or as a share.
fn meter_here(charge: &Charge<'_>, ledger: &Ledger) -> Option<Meter> {
    match (charge.way, charge.rule.gauge, charge.rule.on_failure) {
        (Way::Here, Gauge::Rate(meter), _) => Some(meter),
        (Way::Fall, Gauge::Rate(meter), OnStoreFailure::Share) => {
            Some(meter.share(ledger.tasks(), charge.rule.fixed_cost()))
        }
        _ => None,
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("overflowed", &self.overflowed()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::NoFacts;
    use super::super::fleet::{Answer, FleetError, Take, Work};
    use super::super::refused::Refused;
    use super::super::rule::{
        Cost, Measure, Mode, OnStoreFailure, Period, Precision, Quota, QuotaPeriod, Rate, Scope,
        Subject,
    };
    use super::super::subject::KeySubject;
    use super::*;
    use futures_util::FutureExt as _;
    use http::HeaderValue;
    use std::num::NonZeroU32;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);
    const SECRET: &[u8; 16] = &[7; 16];

    /// Without a fleet nothing is waited for.
    fn reserve(
        limiter: &Limiter,
        sets: &[&RuleSet],
        subjects: &Subjects<'_>,
    ) -> Result<Grant, Refused> {
        let result = limiter.reserve(sets, subjects).now_or_never().expect("an answer at once");
        result.map_err(|stopped| match stopped {
            Stopped::Refused(refused) => refused,
            Stopped::Unavailable(unavailable) => panic!("{unavailable}"),
        })
    }

    /// A rule of `permits` each minute.
    fn rule(name: &str, permits: u32, burst: u32, subject: Subject) -> Rule {
        let count = |n| NonZeroU32::new(n).unwrap();
        Rule {
            name: name.into(),
            id: format!("plan/test/{name}").into(),
            measure: Measure::Rate {
                rate: Rate { permits: count(permits), per: Period::Minute },
                burst: count(burst),
            },
            subject,
            cost: Cost::default(),
            mode: Mode::Enforce,
            scope: Scope::Fleet,
            precision: Precision::Leased,
            on_store_failure: OnStoreFailure::Share,
        }
    }

    fn shadow(name: &str, permits: u32, burst: u32) -> Rule {
        Rule { mode: Mode::Shadow, ..rule(name, permits, burst, Subject::Route) }
    }

    fn from(address: &str) -> Subjects<'static> {
        Subjects { address: address.parse().unwrap(), consumer: None, key: None, facts: &NoFacts }
    }

    fn anyone() -> Subjects<'static> {
        from("192.0.2.1")
    }

    fn admitted(limiter: &Limiter, sets: &[&RuleSet], subjects: &Subjects<'_>) -> usize {
        std::iter::from_fn(|| reserve(limiter, sets, subjects).ok()).count()
    }

    fn text(value: Option<HeaderValue>) -> String {
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn without_rules_everything_is_let_through_and_nothing_is_said() {
        let limiter = Limiter::new(Clock::manual(), SECRET);
        let off = Rule { mode: Mode::Off, ..rule("off", 1, 1, Subject::Route) };
        let off = limiter.prepare(&[off]);
        for sets in [&[][..], &[&RuleSet::default()], &[&off, &RuleSet::default()]] {
            for _ in 0..3 {
                let grant = reserve(&limiter, sets, &anyone()).unwrap();
                assert_eq!((grant.rate_limit(), grant.rate_limit_policy()), (None, None));
                assert!(grant.would_refuse().is_empty());
            }
        }
    }

    /// Counters of a fleet that never answer.
    struct Away;

    #[async_trait::async_trait]
    impl FleetCounters for Away {
        fn ready(&self, _: u128) -> bool {
            false
        }

        fn is_degraded(&self) -> bool {
            true
        }

        fn tasks(&self) -> u32 {
            1
        }

        async fn take(&self, _: u128, _: &[Take], _: Duration) -> Result<Answer, FleetError> {
            Err(FleetError::Open)
        }

        fn start(&self, _: Work) {}
    }

    #[test]
    fn a_flood_of_subjects_of_one_quota_does_not_lock_out_those_of_another() {
        let limiter = Limiter::with_stores(Clock::manual(), SECRET, Some(Arc::new(Away)), None);
        let quota = |name: &str| {
            let permits = NonZeroU32::new(3).unwrap();
            let measure = Measure::Quota(Quota { permits, per: QuotaPeriod::Month });
            limiter.prepare(&[Rule { measure, ..rule(name, 1, 1, Subject::Address) }])
        };
        let (flooded, other) = (quota("flooded"), quota("other"));
        let reserve = |set: &RuleSet, number: u32| {
            let address = std::net::Ipv4Addr::from_bits(number).into();
            let subjects = Subjects { address, consumer: None, key: None, facts: &NoFacts };
            limiter.reserve(&[set], &subjects).now_or_never().expect("an answer at once").is_ok()
        };
        let through = (0..260_000).filter(|n| reserve(&flooded, *n)).count();
        assert!((199_000..=200_064 + 3).contains(&through), "{through}");
        let before = limiter.overflowed();
        assert!(before > 50_000, "{before}");
        let outcomes: Vec<_> = (0..5).map(|n| reserve(&other, n)).collect();
        assert_eq!(outcomes, [true, true, true, false, false], "they share one account");
        assert_eq!(limiter.overflowed(), before + 5);
    }

    #[test]
    fn a_client_is_told_what_is_left_and_when_to_return() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone(), SECRET);
        let set = limiter.prepare(&[rule("burst", 2, 2, Subject::Address)]);
        let policy = "\"burst\";q=2;w=60";

        for expected in ["\"burst\";r=1;t=30", "\"burst\";r=0;t=30"] {
            let grant = reserve(&limiter, &[&set], &anyone()).unwrap();
            assert_eq!(text(grant.rate_limit()), expected);
            assert_eq!(text(grant.rate_limit_policy()), policy);
        }
        clock.advance(Duration::from_millis(500));
        let refused = reserve(&limiter, &[&set], &anyone()).unwrap_err();
        assert_eq!(refused.to_string(), "rate limit reached");
        assert_eq!(refused.retry_after, Duration::from_millis(29_500));
        assert_eq!(text(refused.rate_limit()), "\"burst\";r=0;t=30");
        assert_eq!(text(refused.rate_limit_policy()), policy);
        assert_eq!(&*refused.rule, "plan/test/burst");
        assert!(refused.violated().eq(["burst"]));

        clock.advance(refused.retry_after - Duration::from_nanos(1));
        let early = reserve(&limiter, &[&set], &anyone()).unwrap_err();
        assert_eq!(early.retry_after, Duration::from_nanos(1));
        assert_eq!(text(early.rate_limit()), "\"burst\";r=0;t=1");
        clock.advance(early.retry_after);
        assert!(reserve(&limiter, &[&set], &anyone()).is_ok());
    }

    #[test]
    fn the_policy_nearest_to_exhaustion_is_shown_and_every_policy_is_listed() {
        let limiter = Limiter::new(Clock::manual(), SECRET);
        let plan = limiter.prepare(&[
            rule("burst", 1200, 20, Subject::Consumer),
            rule("small", 60, 5, Subject::Consumer),
            shadow("shadow", 1, 1),
        ]);
        let route = limiter.prepare(&[rule("total", 30, 5, Subject::Route)]);
        let shadows = limiter.prepare(&[shadow("only", 1, 1)]);
        let third = limiter.prepare(&[rule("third", 1, 1, Subject::Route)]);
        let tail = limiter.prepare(&[rule("tail", 6000, 9, Subject::Route)]);
        let both = "\"burst\";q=20;w=1, \"small\";q=5;w=5";
        let table: [(&[&RuleSet], &str, &str); 5] = [
            (&[&plan], "\"small\";r=4;t=1", both),
            (&[&plan, &shadows], "\"small\";r=3;t=1", both),
            (
                &[&plan, &route],
                "\"small\";r=2;t=1",
                "\"burst\";q=20;w=1, \"small\";q=5;w=5, \"total\";q=5;w=10",
            ),
            (
                &[&third, &shadows, &tail, &plan],
                "\"third\";r=0;t=60",
                "\"third\";q=1;w=60, \"tail\";q=9;w=1, \"burst\";q=20;w=1, \"small\";q=5;w=5",
            ),
            (&[&shadows], "", ""),
        ];
        for (sets, limit, policy) in table {
            let grant = reserve(&limiter, sets, &anyone()).unwrap();
            assert_eq!(text(grant.rate_limit()), limit);
            assert_eq!(text(grant.rate_limit_policy()), policy);
        }
        // Two more each: of two with as few left, the one that takes longer to come back.
        let other = from("192.0.2.2");
        let grant = reserve(&limiter, &[&route, &plan], &other).unwrap();
        assert_eq!(text(grant.rate_limit()), "\"total\";r=3;t=2");
        reserve(&limiter, &[&plan], &other).unwrap();
        let grant = reserve(&limiter, &[&plan, &route], &other).unwrap();
        assert_eq!(text(grant.rate_limit()), "\"total\";r=2;t=2");
    }

    #[test]
    fn the_longest_wait_is_the_answer_and_then_all_let_through() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone(), SECRET);
        let sets = [
            limiter.prepare(&[rule("a", 60, 1, Subject::Route), rule("b", 6, 1, Subject::Route)]),
            limiter.prepare(&[rule("c", 20, 1, Subject::Route), rule("d", 60, 9, Subject::Route)]),
        ];
        let sets = [&sets[0], &sets[1]];
        reserve(&limiter, &sets, &anyone()).unwrap();
        let refused = reserve(&limiter, &sets, &anyone()).unwrap_err();
        assert!(refused.violated().eq(["a", "b", "c"]));
        assert_eq!((&*refused.rule, refused.retry_after), ("plan/test/b", SECOND * 10));
        assert_eq!(text(refused.rate_limit()), "\"b\";r=0;t=10");
        clock.advance(refused.retry_after);
        assert!(reserve(&limiter, &sets, &anyone()).is_ok());
    }

    #[test]
    fn a_refused_request_is_charged_to_no_rule() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone(), SECRET);
        let wide = limiter.prepare(&[rule("wide", 60, 10, Subject::Address), shadow("s", 60, 10)]);
        let narrow = limiter.prepare(&[rule("narrow", 1, 3, Subject::Route)]);
        assert_eq!(admitted(&limiter, &[&wide, &narrow], &anyone()), 3);
        for _ in 0..100 {
            // Between the requests time passes: what is given back is what was there.
            clock.advance(Duration::from_micros(1));
            assert!(reserve(&limiter, &[&wide, &narrow], &anyone()).is_err());
            assert!(reserve(&limiter, &[&narrow, &wide], &anyone()).is_err());
            // The same rule twice is charged twice, and given back twice.
            assert!(reserve(&limiter, &[&wide, &wide, &narrow], &anyone()).is_err());
        }
        let grant = reserve(&limiter, &[&wide], &anyone()).unwrap();
        assert_eq!(text(grant.rate_limit()), "\"wide\";r=6;t=1");
        assert_eq!(admitted(&limiter, &[&wide], &anyone()), 6);
    }

    #[test]
    fn a_shadow_rule_counts_and_never_refuses() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone(), SECRET);
        let set = limiter.prepare(&[
            rule("enforced", 60, 5, Subject::Route),
            shadow("one", 60, 1),
            shadow("two", 30, 2),
        ]);
        let expected: [&[&str]; 5] = [
            &[],
            &["plan/test/one"],
            &["plan/test/one", "plan/test/two"],
            &["plan/test/one", "plan/test/two"],
            &["plan/test/one", "plan/test/two"],
        ];
        for ids in expected {
            let grant = reserve(&limiter, &[&set], &anyone()).unwrap();
            assert!(grant.would_refuse().iter().map(|id| &**id).eq(ids.iter().copied()));
        }
        let refused = reserve(&limiter, &[&set], &anyone()).unwrap_err();
        assert!(refused.violated().eq(["enforced"]));
        // What it would have refused it has not charged, as if it were enforced.
        clock.advance(SECOND);
        let grant = reserve(&limiter, &[&set], &anyone()).unwrap();
        assert!(grant.would_refuse().iter().map(|id| &**id).eq(["plan/test/two"]));
    }

    #[test]
    fn each_subject_has_a_counter_of_its_own() {
        use KeySubject::{ApiKey, Jwt};
        let caller = |consumer, key| Subjects { consumer, key, ..anyone() };
        let (carol, dave) = (Some("carol"), Some("dave"));
        let token = |subject| Some(Jwt { issuer: "https://issuer.example", subject });
        let table = [
            // The rule's subject, who comes first, who comes next, whether they share.
            (Subject::Address, anyone(), from("192.0.2.2"), false),
            (Subject::Address, from("2001:db8::1"), from("2001:db8::2"), true),
            (Subject::Address, from("2001:db8::1"), from("2001:db8:0:1::1"), false),
            (Subject::Consumer, caller(carol, None), caller(dave, None), false),
            (
                Subject::Consumer,
                caller(carol, Some(ApiKey("k1"))),
                caller(carol, token("k1")),
                true,
            ),
            (Subject::Consumer, caller(None, None), from("192.0.2.2"), false),
            (
                Subject::Key,
                caller(carol, Some(ApiKey("k1"))),
                caller(carol, Some(ApiKey("k2"))),
                false,
            ),
            (Subject::Key, caller(carol, Some(ApiKey("k1"))), caller(carol, token("k1")), false),
            (Subject::Route, caller(carol, Some(ApiKey("k1"))), from("2001:db8::1"), true),
        ];
        for (subject, first, next, shared) in table {
            let limiter = Limiter::new(Clock::manual(), SECRET);
            let set = limiter.prepare(&[rule("r", 1, 1, subject)]);
            reserve(&limiter, &[&set], &first).unwrap();
            assert!(reserve(&limiter, &[&set], &first).is_err());
            assert_eq!(reserve(&limiter, &[&set], &next).is_err(), shared, "{first:?} {next:?}");
        }
    }

    #[test]
    fn counters_survive_a_reload_even_of_a_changed_rule() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone(), SECRET);
        let day = |permits| rule("r", permits, permits, Subject::Address);
        let before = limiter.prepare(&[day(10)]);
        assert_eq!(admitted(&limiter, &[&before], &anyone()), 10);

        let same = limiter.prepare(&[day(10)]);
        assert_eq!(admitted(&limiter, &[&same], &anyone()), 0);
        let raised = limiter.prepare(&[day(30)]);
        assert_eq!(admitted(&limiter, &[&raised], &anyone()), 20);
        // A smaller one is at most used up, and its wait holds although it was just changed.
        let lowered = limiter.prepare(&[day(2)]);
        let refused = reserve(&limiter, &[&lowered], &anyone()).unwrap_err();
        assert_eq!(refused.retry_after, SECOND * 30);
        clock.advance(refused.retry_after);
        assert_eq!(admitted(&limiter, &[&lowered], &anyone()), 1);
        // Another id is another rule.
        let renamed = limiter.prepare(&[rule("renamed", 10, 10, Subject::Address)]);
        assert_eq!(admitted(&limiter, &[&renamed], &anyone()), 10);
    }

    #[test]
    fn a_flood_of_subjects_shares_one_counter_and_opens_nothing() {
        let clock = Clock::manual();
        let limiter = Limiter::with_capacity(clock.clone(), SECRET, 100);
        let set = limiter.prepare(&[
            rule("address", 60, 5, Subject::Address),
            rule("total", 60, 60_000, Subject::Route),
        ]);
        let flood = |n: u32| Subjects {
            address: std::net::Ipv4Addr::from_bits(0x0A00_0000 + n).into(),
            ..anyone()
        };
        let through = |range: std::ops::Range<u32>| {
            range.filter(|n| reserve(&limiter, &[&set], &flood(*n)).is_ok()).count()
        };
        // One place is taken by the rule that counts all; then one burst for all the others.
        assert_eq!(through(0..10_000), 99 + 5);
        assert_eq!(limiter.overflowed(), 10_000 - 99);
        // Who has a counter keeps it.
        assert_eq!(admitted(&limiter, &[&set], &flood(0)), 4);
        assert_eq!(through(1..99), 98);
        // The shared one comes back at the rule's rate; what was refused was not charged to it.
        for (later, expected) in [(Duration::ZERO, 0), (SECOND / 2, 0), (SECOND / 2, 1)] {
            clock.advance(later);
            assert_eq!(through(200..300), expected);
        }
        clock.advance(SECOND * 60);
        assert_eq!(through(1_000..1_050), 50, "idle counters make room");
    }

    #[test]
    fn more_rules_than_fit_on_the_stack_are_one_step_too() {
        let limiter = Limiter::new(Clock::manual(), SECRET);
        let rules: Vec<_> =
            (1..=40).map(|n| rule(&format!("r{n}"), 60, 5 + n, Subject::Address)).collect();
        let set = limiter.prepare(&rules);
        assert_eq!(admitted(&limiter, &[&set], &anyone()), 6);
        let last = limiter.prepare(&rules[39..]);
        assert_eq!(admitted(&limiter, &[&last], &anyone()), 45 - 6);
    }

    #[test]
    fn threads_get_exactly_the_burst_between_them() {
        let limiter = Limiter::new(Clock::manual(), SECRET);
        let both = limiter.prepare(&[
            rule("address", 60, 1_000, Subject::Address),
            rule("total", 60, 700, Subject::Route),
        ]);
        let granted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (limiter, both, granted) = (&limiter, &both, &granted);
                let subjects = from(["192.0.2.1", "192.0.2.2"][thread % 2]);
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        if reserve(limiter, &[both], &subjects).is_ok() {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(granted.into_inner(), 700);
        // Nothing of what was refused stayed charged to the addresses.
        let address = limiter.prepare(&[rule("address", 60, 1_000, Subject::Address)]);
        let left = ["192.0.2.1", "192.0.2.2"].map(|ip| admitted(&limiter, &[&address], &from(ip)));
        assert_eq!(left.iter().sum::<usize>(), 2_000 - 700);
    }

    #[test]
    fn threads_in_real_time_stay_within_burst_and_rate() {
        const BURST: u32 = 10;
        const RATE: u128 = 100_000;
        let clock = Clock::system();
        let limiter = Limiter::new(clock.clone(), SECRET);
        let set =
            limiter.prepare(&[rule("r", u32::try_from(RATE * 60).unwrap(), BURST, Subject::Route)]);
        let granted = AtomicU32::new(0);
        let began = clock.now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if reserve(&limiter, &[&set], &anyone()).is_ok() {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let took = clock.now().since(began).as_nanos();
        let most = u128::from(BURST) + took * RATE / 1_000_000_000;
        assert!(u128::from(granted.into_inner()) <= most);
    }
}
