//! What the limits cost a request that is let through: with none, one and two rules, and with rules
//! that a fleet shares and a task leases.
//!
//! The header fields are built too, as they are for every response. In the first part the fleet's counters
//! give all that is asked for, at once, on the thread for drivers. The second (`limits/leased.rs`) leases
//! from a real Redis Cluster, and puts that beside a rule that is counted here.
//!
//! `LIMITS_ENFORCE=1` fails when a leased rule costs more than [`leased::BAR`] beside a local one, or
//! keeps a single request waiting under steady load.
//!
//! Must stay true: under steady load a leased rule keeps no request waiting, unless the machine stalls,
//! and allocates only for the few that renew the lease; the run fails otherwise.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is a table")]
#![expect(clippy::expect_used, reason = "a benchmark stops where it fails")]
#![expect(clippy::disallowed_methods, reason = "a bench goes by real time and the environment")]

#[path = "limits/leased.rs"]
mod leased;
#[expect(
    dead_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a lab for tests, of which a bench uses a part"
)]
#[path = "../tests/lab/redis.rs"]
mod redis_lab;

use async_trait::async_trait;
use criterion::Criterion;
use datahub_gateway::limits::fleet::{Answer, FleetCounters, FleetError, Take, Taken, Work};
use datahub_gateway::limits::{
    Cost, KeySubject, Limiter, Measure, Mode, NoFacts, OnStoreFailure, Period, Precision, Rate,
    Rule, RuleSet, Scope, Subject, Subjects,
};
use datahub_gateway::stores::Reactor;
use datahub_gateway::telemetry::Clock;
use futures_util::FutureExt as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    reserve(&mut criterion);
    newcomers(&mut criterion);
    criterion.final_summary();
    match leased::compare(!std::env::args().any(|argument| argument == "--bench")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("limits: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// So high that no round of the benchmark is refused.
fn rule(name: &str, subject: Subject) -> Rule {
    Rule {
        name: name.into(),
        id: format!("plan/bench/{name}").into(),
        measure: Measure::Rate {
            rate: Rate { permits: NonZeroU32::MAX, per: Period::Second },
            burst: NonZeroU32::MAX,
        },
        subject,
        cost: Cost::default(),
        mode: Mode::Enforce,
        scope: Scope::Fleet,
        precision: Precision::Leased,
        on_store_failure: OnStoreFailure::Share,
    }
}

/// What a future says that seldom has anything to wait for: the first ones wait for a lease.
fn answer<T>(events: &Runtime, future: impl Future<Output = T>) -> T {
    let inside = events.enter();
    let mut future = std::pin::pin!(future);
    match future.as_mut().now_or_never() {
        Some(answer) => answer,
        None => {
            drop(inside);
            events.block_on(future)
        }
    }
}

fn events() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("an event loop")
}

/// Gives whatever is wanted.
struct Generous(Arc<Reactor>);

#[async_trait]
impl FleetCounters for Generous {
    fn ready(&self, _: u128) -> bool {
        true
    }

    fn is_degraded(&self) -> bool {
        false
    }

    fn tasks(&self) -> u32 {
        5
    }

    async fn take(&self, _: u128, takes: &[Take], _: Duration) -> Result<Answer, FleetError> {
        let given = |take: &Take| Taken { granted: take.want, remaining: 9, wait: Duration::ZERO };
        Ok(Answer::Charged(takes.iter().map(given).collect()))
    }

    fn start(&self, work: Work) {
        self.0.start_work(work);
    }
}

fn reserve(c: &mut Criterion) {
    let events = events();
    let here = Limiter::new(Clock::system(), &[7; 16]);
    let fleet = Arc::new(Generous(Reactor::start().expect("a thread")));
    let leased = Limiter::with_stores(Clock::system(), &[7; 16], Some(fleet), None);
    let mut group = c.benchmark_group("reserve");
    for (limiter, kind) in [(here, ""), (leased, ", leased")] {
        let none = RuleSet::default();
        let plan = limiter.prepare(&[rule("burst", Subject::Consumer)]);
        let route = limiter.prepare(&[rule("total", Subject::Route)]);
        let both = limiter.prepare(&[rule("burst", Subject::Consumer), rule("key", Subject::Key)]);
        let most = NonZeroU32::MAX;
        let in_flight =
            Rule { measure: Measure::Concurrency(most), ..rule("parallel", Subject::Consumer) };
        let parallel = limiter.prepare(&[in_flight]);
        let subjects = Subjects {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            consumer: Some("0198c6d2-7d5e-7c1a-9d0e-2f5b8a3c4d6e"),
            key: Some(KeySubject::ApiKey("4fGh7KlMnPq2RsTu")),
            facts: &NoFacts,
        };
        let cases: [(&str, &[&RuleSet]); 5] = [
            ("no rule", &[&none, &none]),
            ("one rule", &[&plan, &none]),
            ("requests in flight", &[&parallel, &none]),
            ("two rules", &[&both, &none]),
            ("two rules in two sets", &[&plan, &route]),
        ];
        for (name, sets) in cases {
            group.bench_function(format!("{name}{kind}"), |b| {
                b.iter(|| {
                    let grant =
                        answer(&events, limiter.reserve(black_box(sets), black_box(&subjects)));
                    grant.map(|grant| (grant.rate_limit(), grant.rate_limit_policy()))
                });
            });
        }
    }
    group.finish();
}

/// Subjects that were never seen before, in a table that fills up.
fn newcomers(c: &mut Criterion) {
    let events = events();
    let limiter = Limiter::new(Clock::system(), &[7; 16]);
    let rate = Rate { permits: NonZeroU32::MIN, per: Period::Day };
    let measure = Measure::Rate { rate, burst: NonZeroU32::MAX };
    let rules = limiter.prepare(&[Rule { measure, ..rule("daily", Subject::Address) }]);
    let mut address = 0;
    c.bench_function("reserve/new subject", |b| {
        b.iter(|| {
            address += 1;
            let address = IpAddr::V4(Ipv4Addr::from_bits(address));
            answer(
                &events,
                limiter.reserve(
                    &[&rules],
                    &Subjects { address, consumer: None, key: None, facts: &NoFacts },
                ),
            )
        });
    });
}
