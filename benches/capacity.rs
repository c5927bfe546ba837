//! What one task of half a CPU and 1 GiB holds.
//!
//! One gateway, in a cgroup of its own with that quota (v1 or v2, whichever the machine has), on a real
//! PostgreSQL and a Redis Cluster (tests/lab). Clients send tokens (HS256) of fifty consumers that the
//! store knows, each under a plan whose limit the fleet shares by leases, and get a kilobyte from an origin
//! in this process. They send by the clock, whatever is answered: what a request took is counted from when
//! it was due, so a gateway that stalls cannot hide the requests it kept from being sent.
//!
//! `hold` sends [`RATE`] requests a second for `CAPACITY_SECONDS` (30) and judges latency, errors and
//! memory; `search` looks for the highest rate that keeps the latency, in steps of 20 s. `cargo bench --bench
//! capacity` does both, or what is named after `--`; `make soak` holds for ten minutes with
//! `CAPACITY_ENFORCE=1`, which fails when a bar is missed, or when there is no cgroup to be had. Without
//! `--bench`, as `cargo test` runs it, it is two seconds of a small load, in a cgroup if there can be one.
//!
//! Must stay true: whatever is not 200 with all of its body is an error, a connection that breaks too; a
//! run without the quota says so in its first line.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is a table")]
#![expect(clippy::disallowed_methods, reason = "a bench goes by real time and the environment")]

#[path = "capacity/cgroup.rs"]
mod cgroup;
#[path = "capacity/client.rs"]
mod client;
#[path = "capacity/gateway.rs"]
mod gateway;
#[path = "capacity/origin.rs"]
mod origin;
#[path = "../tests/lab/postgres.rs"]
mod postgres_lab;
#[expect(
    dead_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a lab for tests, of which a bench uses a part"
)]
#[path = "../tests/lab/redis.rs"]
mod redis_lab;
#[path = "capacity/verdict.rs"]
mod verdict;

use anyhow::{Context as _, Result, bail, ensure};
use cgroup::Cgroup;
use gateway::Gateway;
use origin::Origin;
use postgres_lab::{Server, Setup};
use redis_lab::RedisCluster;
use std::process::ExitCode;
use std::time::Duration;
use verdict::Verdict;

/// Requests in a second that a task must hold.
const RATE: u32 = 1_000;
/// How long a rate is tried in a search.
const STEP: Duration = Duration::from_secs(20);
/// By how much the next rate is higher, until one is too high.
const RISE: f64 = 1.25;
/// How often the span between the last that held and the first that did not is halved.
const HALVINGS: u32 = 3;
/// Where a search gives up: no half CPU does this.
const CEILING: u32 = 50_000;

struct Settings {
    hold: bool,
    search: bool,
    rate: u32,
    span: Duration,
    enforce: bool,
}

fn main() -> ExitCode {
    match settings().and_then(|settings| run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("capacity: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn settings() -> Result<Settings> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let named = |name: &str| arguments.iter().any(|argument| argument == name);
    let number = |name: &str, default: u32| match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
        Err(_) => Ok(default),
    };
    let long = named("--bench");
    let both = long && !named("hold") && !named("search");
    let (rate, seconds) = if long { (RATE, 30) } else { (100, 2) };
    Ok(Settings {
        hold: !long || both || named("hold"),
        search: both || named("search"),
        rate: number("CAPACITY_RATE", rate)?,
        span: Duration::from_secs(number("CAPACITY_SECONDS", seconds)?.into()),
        enforce: std::env::var("CAPACITY_ENFORCE").is_ok_and(|value| value == "1"),
    })
}

fn run(settings: &Settings) -> Result<()> {
    let group = match Cgroup::new() {
        Ok(group) => Some(group),
        Err(error) if settings.enforce => return Err(error),
        Err(error) => {
            println!("WITHOUT A QUOTA, so this says nothing of a task: {error:#}");
            None
        }
    };
    let origin = Origin::start()?;
    let (postgres, redis) = (Server::start(&Setup::default()), RedisCluster::start());
    let gateway = Gateway::start(group.as_ref(), &postgres, &redis.url(), origin.address())?;
    println!("{}", group.as_ref().map_or_else(String::new, Cgroup::describe));
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    one.block_on(gateway.wait_for_redis())?;
    let measure = |rate: u32, span: Duration| {
        let before = group.as_ref().map(Cgroup::throttled).transpose()?;
        let load = client::load(gateway.public(), rate, span, || gateway.usage());
        let seen = one.block_on(load)?;
        let after = group.as_ref().map(Cgroup::throttled).transpose()?;
        let throttled = before.zip(after).map(|(before, after)| after.since(before));
        let verdict = Verdict::of(&seen, rate, throttled)?;
        println!("{verdict}");
        Ok::<_, anyhow::Error>(verdict)
    };
    // Caches, connections and leases are there when it counts.
    measure(settings.rate.min(200), Duration::from_secs(2))?;
    if settings.hold {
        let verdict = measure(settings.rate, settings.span)?;
        println!("{}; {}", one.block_on(gateway.asked())?, connections(&postgres, &redis)?);
        let missed = verdict.missed();
        println!("bars: {}", verdict::bars());
        ensure!(!settings.enforce || missed.is_empty(), "missed: {}", missed.join("; "));
    }
    if settings.search {
        let best = search(|rate| Ok(measure(rate, STEP)?.missed().is_empty()))?;
        println!("holds {best} requests a second");
    }
    Ok(())
}

/// How many connections the task has.
fn connections(postgres: &Server, redis: &RedisCluster) -> Result<String> {
    let sql =
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", postgres_lab::USER);
    let to_postgres = postgres.sql("postgres", &sql);
    let mut to_redis = Vec::new();
    for node in 0..redis.len() {
        let about = redis.cli(node, &["info", "clients"]);
        let line = about.lines().find_map(|line| line.strip_prefix("connected_clients:"));
        // One of them asks.
        to_redis.push(line.context("connected_clients")?.trim().parse::<usize>()? - 1);
    }
    Ok(format!("connections: {to_postgres} to PostgreSQL, {to_redis:?} to the nodes of Redis"))
}

/// The highest rate that held, within the last halving.
fn search(mut holds: impl FnMut(u32) -> Result<bool>) -> Result<u32> {
    let (mut held, mut next) = (0, RATE);
    while next < CEILING && holds(next)? {
        held = next;
        next = (f64::from(next) * RISE) as u32;
    }
    if next >= CEILING {
        bail!("{held} requests a second held; that is not the gateway that was meant");
    }
    let mut lost = next;
    for _ in 0..HALVINGS {
        let middle = held + (lost - held) / 2;
        if holds(middle)? {
            held = middle;
        } else {
            lost = middle;
        }
    }
    Ok(held)
}
