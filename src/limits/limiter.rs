//! The limits of a request, reserved as one step: all rules let it through, or none is charged.
//!
//! Must stay true: a request that is let through allocates nothing here unless it meets more rules
//! than [`Few`] holds, more than two sets of enforced rules, or a rule in shadow mode that would
//! refuse; the clock is read once, while the counters are held, so no counter ever sees time go back.

use super::counters::{Counters, Held};
use super::few::Few;
use super::gcra::{Counter, Standing};
use super::grant::{Grant, Nearest};
use super::refused::Refused;
use super::rule::Rule;
use super::rule_set::{Prepared, RuleSet};
use super::subject::{Keyring, Subjects};
use super::wire::Policies;
use crate::telemetry::{Clock, Moment};
use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How many counters a process keeps unless told otherwise: 64 MB when all are in use.
const ENTRIES: usize = 1_000_000;

/// The counters of all rules. One for each process; it outlives every snapshot.
///
/// Counters are kept under the rule's id and the subject, so a reload changes nothing for rules
/// that keep their id. Where such a rule's rate or burst has changed, permits in use stay in use
/// and are regained at the new rate, with at most the new burst in use.
pub struct Limiter {
    clock: Clock,
    keyring: Keyring,
    counters: Counters,
}

impl Limiter {
    /// A limiter with room for a million counters.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Self::with_capacity(clock, ENTRIES)
    }

    /// A limiter with room for about `entries` counters (each costs up to 64 bytes). Subjects
    /// that find none free share one for each rule.
    #[must_use]
    pub fn with_capacity(clock: Clock, entries: usize) -> Arc<Self> {
        Arc::new(Self { clock, keyring: Keyring::new(), counters: Counters::new(entries) })
    }

    /// How often a request was counted by its rule's shared counter, because all others were in
    /// use. Above zero means: more subjects are active than the limiter has counters.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.counters.overflowed()
    }

    /// Makes rules ready to be reserved. Rules that are off are left out.
    #[must_use]
    pub fn prepare(&self, rules: &[Rule]) -> RuleSet {
        RuleSet::new(rules, &self.keyring)
    }

    /// Takes one request from every rule of `sets`, or from none.
    ///
    /// # Errors
    /// Rules that have nothing left; the longest wait among them is the answer.
    pub fn reserve(&self, sets: &[&RuleSet], subjects: &Subjects<'_>) -> Result<Grant, Refused> {
        if sets.iter().all(|set| set.rules().is_empty()) {
            return Ok(Grant::default());
        }
        let mut charges = Few::new();
        for rule in sets.iter().flat_map(|set| set.rules()) {
            charges.push(Charge::new(rule, subjects));
        }
        let mut held = self.counters.hold(charges.iter().map(|charge| charge.key));
        let now = self.clock.now();
        for charge in charges.iter_mut() {
            charge.take(&mut held, now);
        }
        let refused = charges.iter().any(|charge| charge.wait().is_some());
        if refused {
            // Backwards, so that a counter met twice ends as it began.
            charges.iter().rev().for_each(|charge| charge.give_back(&mut held));
        }
        drop(held);
        let policies = Policies::of(sets.iter().filter_map(|set| set.policy()));
        if refused { Err(refuse(&charges, &policies)) } else { Ok(grant(&charges, policies)) }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("overflowed", &self.overflowed()).finish_non_exhaustive()
    }
}

/// What one rule says to one request.
struct Charge<'r> {
    rule: &'r Prepared,
    key: u128,
    overflowed: bool,
    /// The counter before anything was taken.
    before: Counter,
    outcome: Result<Standing, Duration>,
}

impl<'r> Charge<'r> {
    fn new(rule: &'r Prepared, subjects: &Subjects<'_>) -> Self {
        let before = Counter::idle(rule.meter);
        let outcome = Err(Duration::ZERO);
        Self { rule, key: rule.key(subjects), overflowed: false, before, outcome }
    }

    fn take(&mut self, held: &mut Held<'_>, now: Moment) {
        let meter = self.rule.meter;
        let counter = match held.counter(self.key, meter, now) {
            Some(counter) => Some(counter),
            None => {
                self.key = self.rule.overflow_key();
                self.overflowed = true;
                held.overflow(self.key, meter, now)
            }
        };
        // There is always room for an overflow counter; if there were none, nothing gets through.
        self.outcome = counter.map_or(Err(meter.window()), |counter| {
            counter.adopt(meter, now);
            self.before = *counter;
            counter.take(now)
        });
    }

    fn give_back(&self, held: &mut Held<'_>) {
        match (&self.outcome, self.overflowed) {
            (Err(_), _) => {}
            (Ok(_), true) => held.restore_overflow(self.key, self.before),
            (Ok(_), false) => held.restore(self.key, self.before),
        }
    }

    /// How long the request must wait for this rule, if the rule can say so.
    fn wait(&self) -> Option<Duration> {
        self.outcome.err().filter(|_| !self.rule.shadow)
    }
}

fn grant(charges: &Few<Charge<'_>>, policies: Policies) -> Grant {
    let mut grant = Grant { policies, ..Grant::default() };
    let mut nearest: Option<(&Prepared, Standing)> = None;
    for charge in charges.iter() {
        match charge.outcome {
            Err(_) => grant.would_refuse.push(Arc::clone(&charge.rule.id)),
            Ok(_) if charge.rule.shadow => {}
            Ok(standing) => {
                if nearest.is_none_or(|(_, other)| nearness(standing) < nearness(other)) {
                    nearest = Some((charge.rule, standing));
                }
            }
        }
    }
    grant.nearest =
        nearest.map(|(rule, standing)| Nearest { quoted: Arc::clone(&rule.quoted), standing });
    grant
}

fn nearness(standing: Standing) -> (u32, Reverse<Duration>) {
    (standing.remaining(), Reverse(standing.next()))
}

fn refuse(charges: &Few<Charge<'_>>, policies: &Policies) -> Refused {
    let refusing = || charges.iter().filter_map(|charge| Some((charge.rule, charge.wait()?)));
    let mut refused = Refused {
        rule: Arc::default(),
        retry_after: Duration::ZERO,
        quoted: Arc::default(),
        policy: policies.value(),
        violated: refusing().map(|(rule, _)| Arc::clone(&rule.name)).collect(),
    };
    if let Some((rule, wait)) = refusing().max_by_key(|(_, wait)| *wait) {
        refused.rule = Arc::clone(&rule.id);
        refused.quoted = Arc::clone(&rule.quoted);
        refused.retry_after = wait;
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::super::rule::{
        Measure, Mode, OnStoreFailure, Period, Precision, Rate, Scope, Subject,
    };
    use super::super::subject::KeySubject;
    use super::*;
    use http::HeaderValue;
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

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
        Subjects { address: address.parse().unwrap(), consumer: None, key: None }
    }

    fn anyone() -> Subjects<'static> {
        from("192.0.2.1")
    }

    fn admitted(limiter: &Limiter, sets: &[&RuleSet], subjects: &Subjects<'_>) -> usize {
        std::iter::from_fn(|| limiter.reserve(sets, subjects).ok()).count()
    }

    fn text(value: Option<HeaderValue>) -> String {
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn without_rules_everything_is_let_through_and_nothing_is_said() {
        let limiter = Limiter::new(Clock::manual());
        let off = Rule { mode: Mode::Off, ..rule("off", 1, 1, Subject::Route) };
        let off = limiter.prepare(&[off]);
        for sets in [&[][..], &[&RuleSet::default()], &[&off, &RuleSet::default()]] {
            for _ in 0..3 {
                let grant = limiter.reserve(sets, &anyone()).unwrap();
                assert_eq!((grant.rate_limit(), grant.rate_limit_policy()), (None, None));
                assert!(grant.would_refuse().is_empty());
            }
        }
    }

    #[test]
    fn a_client_is_told_what_is_left_and_when_to_return() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone());
        let set = limiter.prepare(&[rule("burst", 2, 2, Subject::Address)]);
        let policy = "\"burst\";q=2;w=60";

        for expected in ["\"burst\";r=1;t=30", "\"burst\";r=0;t=30"] {
            let grant = limiter.reserve(&[&set], &anyone()).unwrap();
            assert_eq!(text(grant.rate_limit()), expected);
            assert_eq!(text(grant.rate_limit_policy()), policy);
        }
        clock.advance(Duration::from_millis(500));
        let refused = limiter.reserve(&[&set], &anyone()).unwrap_err();
        assert_eq!(refused.to_string(), "rate limit reached");
        assert_eq!(refused.retry_after, Duration::from_millis(29_500));
        assert_eq!(text(refused.rate_limit()), "\"burst\";r=0;t=30");
        assert_eq!(text(refused.rate_limit_policy()), policy);
        assert_eq!(&*refused.rule, "plan/test/burst");
        assert!(refused.violated().eq(["burst"]));

        clock.advance(refused.retry_after - Duration::from_nanos(1));
        let early = limiter.reserve(&[&set], &anyone()).unwrap_err();
        assert_eq!(early.retry_after, Duration::from_nanos(1));
        assert_eq!(text(early.rate_limit()), "\"burst\";r=0;t=1");
        clock.advance(early.retry_after);
        assert!(limiter.reserve(&[&set], &anyone()).is_ok());
    }

    #[test]
    fn the_policy_nearest_to_exhaustion_is_shown_and_every_policy_is_listed() {
        let limiter = Limiter::new(Clock::manual());
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
            let grant = limiter.reserve(sets, &anyone()).unwrap();
            assert_eq!(text(grant.rate_limit()), limit);
            assert_eq!(text(grant.rate_limit_policy()), policy);
        }
        // Two more each: of two with as few left, the one that takes longer to come back.
        let other = from("192.0.2.2");
        let grant = limiter.reserve(&[&route, &plan], &other).unwrap();
        assert_eq!(text(grant.rate_limit()), "\"total\";r=3;t=2");
        limiter.reserve(&[&plan], &other).unwrap();
        let grant = limiter.reserve(&[&plan, &route], &other).unwrap();
        assert_eq!(text(grant.rate_limit()), "\"total\";r=2;t=2");
    }

    #[test]
    fn the_longest_wait_is_the_answer_and_then_all_let_through() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone());
        let sets = [
            limiter.prepare(&[rule("a", 60, 1, Subject::Route), rule("b", 6, 1, Subject::Route)]),
            limiter.prepare(&[rule("c", 20, 1, Subject::Route), rule("d", 60, 9, Subject::Route)]),
        ];
        let sets = [&sets[0], &sets[1]];
        limiter.reserve(&sets, &anyone()).unwrap();
        let refused = limiter.reserve(&sets, &anyone()).unwrap_err();
        assert!(refused.violated().eq(["a", "b", "c"]));
        assert_eq!((&*refused.rule, refused.retry_after), ("plan/test/b", SECOND * 10));
        assert_eq!(text(refused.rate_limit()), "\"b\";r=0;t=10");
        clock.advance(refused.retry_after);
        assert!(limiter.reserve(&sets, &anyone()).is_ok());
    }

    #[test]
    fn a_refused_request_is_charged_to_no_rule() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone());
        let wide = limiter.prepare(&[rule("wide", 60, 10, Subject::Address), shadow("s", 60, 10)]);
        let narrow = limiter.prepare(&[rule("narrow", 1, 3, Subject::Route)]);
        assert_eq!(admitted(&limiter, &[&wide, &narrow], &anyone()), 3);
        for _ in 0..100 {
            // Between the requests time passes: what is given back is what was there.
            clock.advance(Duration::from_micros(1));
            assert!(limiter.reserve(&[&wide, &narrow], &anyone()).is_err());
            assert!(limiter.reserve(&[&narrow, &wide], &anyone()).is_err());
            // The same rule twice is charged twice, and given back twice.
            assert!(limiter.reserve(&[&wide, &wide, &narrow], &anyone()).is_err());
        }
        let grant = limiter.reserve(&[&wide], &anyone()).unwrap();
        assert_eq!(text(grant.rate_limit()), "\"wide\";r=6;t=1");
        assert_eq!(admitted(&limiter, &[&wide], &anyone()), 6);
    }

    #[test]
    fn a_shadow_rule_counts_and_never_refuses() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone());
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
            let grant = limiter.reserve(&[&set], &anyone()).unwrap();
            assert!(grant.would_refuse().iter().map(|id| &**id).eq(ids.iter().copied()));
        }
        let refused = limiter.reserve(&[&set], &anyone()).unwrap_err();
        assert!(refused.violated().eq(["enforced"]));
        // What it would have refused it has not charged, as if it were enforced.
        clock.advance(SECOND);
        let grant = limiter.reserve(&[&set], &anyone()).unwrap();
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
            let limiter = Limiter::new(Clock::manual());
            let set = limiter.prepare(&[rule("r", 1, 1, subject)]);
            limiter.reserve(&[&set], &first).unwrap();
            assert!(limiter.reserve(&[&set], &first).is_err());
            assert_eq!(limiter.reserve(&[&set], &next).is_err(), shared, "{first:?} {next:?}");
        }
    }

    #[test]
    fn counters_survive_a_reload_even_of_a_changed_rule() {
        let clock = Clock::manual();
        let limiter = Limiter::new(clock.clone());
        let day = |permits| rule("r", permits, permits, Subject::Address);
        let before = limiter.prepare(&[day(10)]);
        assert_eq!(admitted(&limiter, &[&before], &anyone()), 10);

        let same = limiter.prepare(&[day(10)]);
        assert_eq!(admitted(&limiter, &[&same], &anyone()), 0);
        let raised = limiter.prepare(&[day(30)]);
        assert_eq!(admitted(&limiter, &[&raised], &anyone()), 20);
        // A smaller one is at most used up, and its wait holds although it was just changed.
        let lowered = limiter.prepare(&[day(2)]);
        let refused = limiter.reserve(&[&lowered], &anyone()).unwrap_err();
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
        let limiter = Limiter::with_capacity(clock.clone(), 100);
        let set = limiter.prepare(&[
            rule("address", 60, 5, Subject::Address),
            rule("total", 60, 60_000, Subject::Route),
        ]);
        let flood = |n: u32| Subjects {
            address: std::net::Ipv4Addr::from_bits(0x0A00_0000 + n).into(),
            ..anyone()
        };
        let through = |range: std::ops::Range<u32>| {
            range.filter(|n| limiter.reserve(&[&set], &flood(*n)).is_ok()).count()
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
        let limiter = Limiter::new(Clock::manual());
        let rules: Vec<_> =
            (1..=40).map(|n| rule(&format!("r{n}"), 60, 5 + n, Subject::Address)).collect();
        let set = limiter.prepare(&rules);
        assert_eq!(admitted(&limiter, &[&set], &anyone()), 6);
        let last = limiter.prepare(&rules[39..]);
        assert_eq!(admitted(&limiter, &[&last], &anyone()), 45 - 6);
    }

    #[test]
    fn threads_get_exactly_the_burst_between_them() {
        let limiter = Limiter::new(Clock::manual());
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
                        if limiter.reserve(&[both], &subjects).is_ok() {
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
        let limiter = Limiter::new(clock.clone());
        let set =
            limiter.prepare(&[rule("r", u32::try_from(RATE * 60).unwrap(), BURST, Subject::Route)]);
        let granted = AtomicU32::new(0);
        let began = clock.now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if limiter.reserve(&[&set], &anyone()).is_ok() {
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
