//! The gateway beside nginx, on the same machine, doing the same proxying.
//!
//! One nginx is the upstream (1 KiB from memory), a second one is the peer: upstream keep-alive, a
//! request id, a buffered JSON access log, one worker. The gateway has one worker, metrics, and its
//! access log in a file. wrk asks with 32 connections as fast as it is answered. With two CPUs or
//! more the proxy has the first to itself; client and upstream share the second. Rounds alternate,
//! so that a slow minute of the machine hits all alike, and what counts is CPU time per request as
//! the kernel has charged it to the process, not the wall clock.
//!
//! `LOAD_ROUNDS` (5), `LOAD_SECONDS` (4) per measurement, and `LOAD_ENFORCE=1`, which fails above
//! [`JWT_BAR`]. Without `--bench`, as `cargo test` runs it, it is one short round.
//!
//! With `LOAD_URL` it is something else: a gateway that was just deployed is asked a little and evenly, to
//! see that it serves ([`remote`]). `LOAD_KEY` or `LOAD_TOKEN` is a credential for `LOAD_ROUTE`
//! (`/demo/orders`), whose plan must allow `LOAD_RATE` (20) a second; `LOAD_OPEN` (`/health`) is asked without.
//! `LOAD_REQUESTS` (200) to each, and a p99 up to `LOAD_P99_MS` (500). A table goes to stderr, JSON to stdout.
//!
//! Must stay true: nothing is measured before it was seen to work, a single answer that is not 2xx
//! fails the run, and so does a route that answers without its credential.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is a table")]
#![expect(clippy::disallowed_methods, reason = "settings of a bench come from the environment")]

#[path = "load/cpu.rs"]
mod cpu;
#[path = "load/peers.rs"]
mod peers;
#[path = "load/remote.rs"]
mod remote;
#[path = "load/report.rs"]
mod report;
#[path = "load/wrk.rs"]
mod wrk;

use anyhow::{Context as _, Result, bail};
use peers::Bench;
use report::{Measured, Report};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// CPU per request of the JWT route, as a multiple of nginx's, that must not be exceeded.
const JWT_BAR: f64 = 1.5;

struct Settings {
    rounds: usize,
    span: Duration,
    enforce: bool,
    /// Only to see that it runs.
    smoke: bool,
}

fn main() -> ExitCode {
    match remote::Wanted::from_environment() {
        Ok(None) => {}
        Ok(Some(wanted)) => {
            let checked = remote::check(&wanted);
            return checked.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS);
        }
        Err(error) => return failed(&error),
    }
    let settings = match settings() {
        Ok(settings) => settings,
        Err(error) => return failed(&error),
    };
    wrk::check_parser();
    let missing: Vec<_> = ["nginx", "wrk"].into_iter().filter(|tool| !found(tool)).collect();
    if !missing.is_empty() {
        eprintln!("load: not run, because {} is missing", missing.join(" and "));
        eprintln!("load: on Debian: apt-get install -y nginx-light wrk (`make bench` does it)");
        return if settings.smoke { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("load: {error:#}");
    ExitCode::FAILURE
}

fn settings() -> Result<Settings> {
    let smoke = !std::env::args().any(|arg| arg == "--bench");
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
        Err(_) => Ok(default),
    };
    let (rounds, seconds) = if smoke { (1, 1) } else { (5, 4) };
    let rounds = usize::try_from(number("LOAD_ROUNDS", rounds)?)?;
    let seconds = number("LOAD_SECONDS", seconds)?;
    if rounds == 0 || seconds == 0 {
        bail!("LOAD_ROUNDS and LOAD_SECONDS must be at least 1");
    }
    let enforce = std::env::var("LOAD_ENFORCE").is_ok_and(|value| value == "1");
    Ok(Settings { rounds, span: Duration::from_secs(seconds), enforce, smoke })
}

fn found(tool: &str) -> bool {
    peers::tool(tool).arg(if tool == "wrk" { "-v" } else { "-V" }).output().is_ok()
}

fn run(settings: &Settings) -> Result<()> {
    let bench = Bench::start()?;
    bench.check()?;
    let mut measured: Vec<Measured> =
        bench.peers.iter().map(|peer| Measured::of(peer.name)).collect();
    if !settings.smoke {
        for peer in &bench.peers {
            wrk::run(&bench.cpus, peer, Duration::from_secs(1))?;
        }
    }
    for round in 0..settings.rounds {
        let mut order: Vec<_> = bench.peers.iter().zip(&mut measured).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (peer, measured) in order {
            let before = cpu::spent(peer.pid)?;
            let load = wrk::run(&bench.cpus, peer, settings.span)?;
            measured.add(&load, cpu::spent(peer.pid)?.saturating_sub(before));
            measured.resident = cpu::resident(peer.pid)?;
        }
        eprintln!("load: round {} of {} done", round + 1, settings.rounds);
    }
    let report = Report::new(measured, &bench.nginx_version, settings.rounds, settings.span);
    println!("{report}");
    if !settings.smoke {
        let path = target_folder()?.join("load.json");
        std::fs::write(&path, report.to_json()?).with_context(|| path.display().to_string())?;
        println!("written to {}", path.display());
    }
    let ratio = report.ratio("gateway, JWT + plan").context("the JWT route was not measured")?;
    if settings.enforce && ratio > JWT_BAR {
        bail!("the JWT route costs {ratio:.2} times nginx's CPU, more than {JWT_BAR}");
    }
    Ok(())
}

/// The folder that holds `release/gateway`.
fn target_folder() -> Result<&'static Path> {
    let binary = Path::new(env!("CARGO_BIN_EXE_gateway"));
    binary.ancestors().nth(2).context("the gateway's binary is not in a target folder")
}

/// `command`, on one CPU where the machine has another for the rest.
fn pinned(cpu: Option<usize>, command: Command) -> Command {
    let Some(cpu) = cpu else { return command };
    let mut pinned = peers::tool("taskset");
    pinned.arg("-c").arg(cpu.to_string()).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            pinned.env(name, value);
        }
    }
    pinned
}
