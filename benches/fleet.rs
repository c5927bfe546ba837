//! Five gateways that share one rule over a Redis Cluster, and clients that want three to six times as
//! much as it gives.
//!
//! The gateways are processes of the binary, each with one worker; the cluster (tests/lab) has three
//! masters with a replica each, met through proxies in this process. Clients keep forty connections and
//! send more and more, evenly, whatever is answered. The routes answer by themselves, so what is measured
//! is the gateways and the limit.
//!
//! What a window admitted is judged from outside: a request was admitted at some moment between its
//! sending and its answer, so it counts for a window only when both lie in it. That never accuses wrongly,
//! and on loopback the two are a millisecond apart.
//!
//! `FLEET_SECONDS` (20) for each precision, and `FLEET_ENFORCE=1`, which fails when less is admitted than
//! [`SHARE_BAR`], or Redis was too slow. Without `--bench`, as `cargo test` runs it, it is one second of each.
//!
//! Must stay true: a window that admitted more than the rule's bound fails the run, and so does an answer
//! that is neither 200 nor a 429 that says when to come back. Requests that a busy machine has decided
//! without Redis, by share, are counted and may stand above the bound; with `FLEET_ENFORCE=1` there must be
//! none.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is a table")]
#![expect(clippy::disallowed_methods, reason = "a bench goes by real time and the environment")]

#[path = "fleet/client.rs"]
mod client;
#[path = "fleet/gateways.rs"]
mod gateways;
#[expect(
    dead_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a lab for tests, of which a bench uses a part"
)]
#[path = "../tests/lab/redis.rs"]
mod redis_lab;
#[path = "fleet/verdict.rs"]
mod verdict;

use anyhow::{Context as _, Result, ensure};
use gateways::Gateways;
use redis_lab::RedisCluster;
use std::process::ExitCode;
use std::time::Duration;
use verdict::Verdict;

/// What the rule gives in a second, and at once after a rest.
const RATE: u32 = 500;
const BURST: u32 = 500;
/// How much of what the rule gives is to be admitted while more is wanted.
const SHARE_BAR: f64 = 0.95;
/// Leased permits live so long.
const LEASED: Duration = Duration::from_millis(100);

/// A way of counting.
struct Way {
    path: &'static str,
    /// By how much a window may be longer; `None` where nothing is refused.
    slack: Option<Duration>,
}

const WAYS: [Way; 3] = [
    Way { path: "/unshared", slack: None },
    Way { path: "/exact", slack: Some(Duration::ZERO) },
    Way { path: "/leased", slack: Some(LEASED) },
];

fn main() -> ExitCode {
    match run(!std::env::args().any(|argument| argument == "--bench")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(short: bool) -> Result<()> {
    let span = match std::env::var("FLEET_SECONDS") {
        Ok(text) => text.parse().with_context(|| format!("FLEET_SECONDS={text} is no number"))?,
        Err(_) => {
            if short {
                1
            } else {
                20
            }
        }
    };
    let span = Duration::from_secs(span);
    let enforce = std::env::var("FLEET_ENFORCE").is_ok_and(|value| value == "1");
    let cluster = RedisCluster::start();
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let gateways = Gateways::start(&cluster.url())?;
    one.block_on(gateways.wait_for_redis())?;
    println!(
        "{} gateways, {RATE}/s with a burst of {BURST}, offered {} to {} times that for {span:?}",
        gateways.len(),
        client::LEAST,
        client::MOST,
    );
    for way in WAYS {
        let before = one.block_on(gateways.questions())?;
        let seen = one.block_on(client::load(&gateways, way.path, span))?;
        let asked = one.block_on(gateways.questions())?.since(&before);
        let verdict = Verdict::of(&seen, way.slack)?;
        println!("{}: {verdict}\n    {asked}", way.path);
        ensure!(verdict.keeps_bound(asked.alone()), "{} admitted more than its bound", way.path);
        ensure!(!enforce || asked.alone() == 0.0, "{} went on without Redis", way.path);
        let share = verdict.share().unwrap_or(1.0);
        ensure!(!enforce || share >= SHARE_BAR, "{} admitted too little", way.path);
    }
    Ok(())
}
