//! What the limits cost a request that is let through: with none, one and two rules, and with rules
//! that a fleet shares and a task leases.
//!
//! The header fields are built too, as they are for every response. The fleet's counters here give all
//! that is asked for, at once, on the thread for drivers: a leased rule may cost 0.3 µs more than one
//! that is counted here.
#![expect(clippy::expect_used, reason = "a benchmark stops where it fails")]

use async_trait::async_trait;
use criterion::{Criterion, criterion_group, criterion_main};
use datahub_gateway::limits::fleet::{Answer, FleetCounters, FleetError, Take, Taken, Work};
use datahub_gateway::limits::{
    KeySubject, Limiter, Measure, Mode, OnStoreFailure, Period, Precision, Rate, Rule, RuleSet,
    Scope, Subject, Subjects,
};
use datahub_gateway::stores::Reactor;
use datahub_gateway::telemetry::Clock;
use futures_util::FutureExt as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

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
        let subjects = Subjects {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            consumer: Some("0198c6d2-7d5e-7c1a-9d0e-2f5b8a3c4d6e"),
            key: Some(KeySubject::ApiKey("4fGh7KlMnPq2RsTu")),
        };
        let cases: [(&str, &[&RuleSet]); 4] = [
            ("no rule", &[&none, &none]),
            ("one rule", &[&plan, &none]),
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
                limiter.reserve(&[&rules], &Subjects { address, consumer: None, key: None }),
            )
        });
    });
}

criterion_group!(benches, reserve, newcomers);
criterion_main!(benches);
