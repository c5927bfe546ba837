//! A million keys in PostgreSQL, asked for one as often as another.
//!
//! They are loaded by the bulk load that migrations/README.md describes, into a server of this bench's
//! own (tests/lab), and then identified by one thread through the same authenticator, directory and store
//! as in a gateway. Since the directory keeps a twentieth of them, nearly every request is a miss that
//! asks PostgreSQL. What counts is the CPU time of this process, that of the client included and that of
//! PostgreSQL not, and how long a miss takes. Then the same beside a flood of invented keys, and the
//! memory of a process that has met a twentieth of the keys, or all of them.
//!
//! `KEYS_NUMBER` (1 000 000), `KEYS_SECONDS` (10) for each measurement, and `KEYS_ENFORCE=1`, which fails
//! below the bars. Without `--bench`, as `cargo test` runs it, all of it is small.
//!
//! Must stay true: a key that is not recognised fails the run, and so does a flood that pushes out a good
//! key or reaches PostgreSQL more often than it may.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is a table")]
#![expect(clippy::disallowed_methods, reason = "settings of a bench come from the environment")]

#[path = "keys/access.rs"]
mod access;
#[path = "keys/flood.rs"]
mod flood;
#[path = "keys/gateway.rs"]
mod gateway;
#[path = "../tests/lab/postgres.rs"]
mod lab;
#[path = "keys/memory.rs"]
mod memory;
#[path = "keys/stock.rs"]
mod stock;

use access::Load;
use anyhow::{Context as _, Result, ensure};
use gateway::Gateway;
use std::process::ExitCode;
use std::time::Duration;
use stock::Stock;

/// As a gateway does it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Look-ups in a second of CPU time, at least.
const RATE_BAR: f64 = 5_000.0;
/// What 99 of 100 misses take at most, at that rate.
const MISS_BAR: Duration = Duration::from_millis(5);
/// The first is the rate of the bar; as many as possible say how far it is away.
const LOADS: [Load; 4] =
    [Load::Paced(5_000), Load::Saturating(16), Load::Saturating(32), Load::Saturating(64)];

struct Settings {
    keys: usize,
    span: Duration,
    /// Known keys that a directory keeps.
    known: usize,
    enforce: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [memory::COMMAND, rest @ ..] => memory::measure(rest),
        rest => settings(!rest.contains(&"--bench")).and_then(|settings| run(&settings)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keys: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn settings(short: bool) -> Result<Settings> {
    let number = |name: &str, default: usize| match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
        Err(_) => Ok(default),
    };
    let (keys, seconds) = if short { (2_000, 1) } else { (1_000_000, 10) };
    let keys = number("KEYS_NUMBER", keys)?;
    ensure!(keys >= 1_000, "KEYS_NUMBER must be at least 1000");
    let span = Duration::from_secs(u64::try_from(number("KEYS_SECONDS", seconds)?)?);
    let enforce = std::env::var("KEYS_ENFORCE").is_ok_and(|value| value == "1");
    Ok(Settings { keys, span, known: keys / 20, enforce })
}

fn run(settings: &Settings) -> Result<()> {
    let server = lab::Server::start(&lab::Setup::default());
    let database = server.database();
    let url = server.url(&database);
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    one.block_on(gateway::migrate(&url))?;

    let stock = Stock::load(&server, &database, settings.keys)?;
    println!("{}", stock.report());

    let mut missed = Vec::new();
    for load in LOADS {
        let gateway = Gateway::start(&url, settings.known, u32::MAX)?;
        let uniform = one.block_on(access::uniform(&gateway, &stock, load, settings.span))?;
        println!("{uniform}");
        let slow = matches!(load, Load::Paced(_)) && uniform.p99() > MISS_BAR;
        if slow || uniform.per_core() < RATE_BAR {
            missed.push(load);
        }
    }
    println!(
        "bars: {RATE_BAR:.0} look-ups/s per core, and 99 of 100 within {MISS_BAR:?} at that rate"
    );

    println!("{}", one.block_on(flood::run(&url, &stock, settings.span))?);
    for known in [settings.known, settings.keys] {
        println!("{}", memory::run(&url, &stock, known)?);
    }
    ensure!(!settings.enforce || missed.is_empty(), "bars missed with {missed:?}");
    Ok(())
}
