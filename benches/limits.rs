//! What the limits cost a request that is let through: with none, one and two rules, counted here or
//! leased from a real Redis Cluster.
//!
//! The header fields are built too, as they are for every response.
//!
//! `LIMITS_ENFORCE=1` fails when a leased rule costs more than [`leased::BAR`] beside a local one, or
//! keeps a single request waiting under steady load.
//!
//! Must stay true: under steady load a leased rule keeps no request waiting, unless the machine stalls,
//! and allocates only for the few that renew the lease; the run fails otherwise.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is a table")]
#![expect(clippy::expect_used, reason = "nothing in the first part waits")]
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

use criterion::Criterion;
use datahub_gateway::limits::{
    KeySubject, Limiter, Measure, Mode, OnStoreFailure, Period, Precision, Rate, Rule, RuleSet,
    Scope, Subject, Subjects,
};
use datahub_gateway::telemetry::Clock;
use futures_util::FutureExt as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::process::ExitCode;

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
        mode: Mode::Enforce,
        scope: Scope::Fleet,
        precision: Precision::Leased,
        on_store_failure: OnStoreFailure::Share,
    }
}

/// What a future says that has nothing to wait for.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing here waits")
}

fn reserve(c: &mut Criterion) {
    let limiter = Limiter::new(Clock::system(), &[7; 16]);
    let none = RuleSet::default();
    let plan = limiter.prepare(&[rule("burst", Subject::Consumer)]);
    let route = limiter.prepare(&[rule("total", Subject::Route)]);
    let both = limiter.prepare(&[rule("burst", Subject::Consumer), rule("key", Subject::Key)]);
    let subjects = Subjects {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        consumer: Some("0198c6d2-7d5e-7c1a-9d0e-2f5b8a3c4d6e"),
        key: Some(KeySubject::ApiKey("4fGh7KlMnPq2RsTu")),
    };
    let mut group = c.benchmark_group("reserve");
    let cases: [(&str, &[&RuleSet]); 4] = [
        ("no rule", &[&none, &none]),
        ("one rule", &[&plan, &none]),
        ("two rules", &[&both, &none]),
        ("two rules in two sets", &[&plan, &route]),
    ];
    for (name, sets) in cases {
        group.bench_function(name, |b| {
            b.iter(|| {
                let grant = now(limiter.reserve(black_box(sets), black_box(&subjects)));
                grant.map(|grant| (grant.rate_limit(), grant.rate_limit_policy()))
            });
        });
    }
    group.finish();
}

/// Subjects that were never seen before, in a table that fills up.
fn newcomers(c: &mut Criterion) {
    let limiter = Limiter::new(Clock::system(), &[7; 16]);
    let rate = Rate { permits: NonZeroU32::MIN, per: Period::Day };
    let measure = Measure::Rate { rate, burst: NonZeroU32::MAX };
    let rules = limiter.prepare(&[Rule { measure, ..rule("daily", Subject::Address) }]);
    let mut address = 0;
    c.bench_function("reserve/new subject", |b| {
        b.iter(|| {
            address += 1;
            let address = IpAddr::V4(Ipv4Addr::from_bits(address));
            now(limiter.reserve(&[&rules], &Subjects { address, consumer: None, key: None }))
        });
    });
}
