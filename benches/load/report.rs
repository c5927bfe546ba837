//! From rounds to a table and to JSON.

use crate::wrk::Load;
use anyhow::Result;
use std::fmt;
use std::time::Duration;

/// The rounds of one peer.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    /// KiB, after the last round.
    pub(crate) resident: u64,
    cpu_micros: Vec<f64>,
    per_second: Vec<f64>,
    p50_micros: Vec<f64>,
    p99_micros: Vec<f64>,
}

impl Measured {
    pub(crate) fn of(name: &'static str) -> Self {
        Self {
            name,
            resident: 0,
            cpu_micros: Vec::new(),
            per_second: Vec::new(),
            p50_micros: Vec::new(),
            p99_micros: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, load: &Load, cpu: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
        let requests = load.requests as f64;
        self.cpu_micros.push(cpu.as_secs_f64() * 1e6 / requests);
        self.per_second.push(load.per_second);
        self.p50_micros.push(load.p50.as_secs_f64() * 1e6);
        self.p99_micros.push(load.p99.as_secs_f64() * 1e6);
    }
}

/// All peers; the first one is what the others are compared with.
pub(crate) struct Report {
    measured: Vec<Measured>,
    nginx_version: String,
    rounds: usize,
    span: Duration,
}

impl Report {
    pub(crate) fn new(
        measured: Vec<Measured>,
        nginx_version: &str,
        rounds: usize,
        span: Duration,
    ) -> Self {
        Self { measured, nginx_version: nginx_version.to_owned(), rounds, span }
    }

    /// CPU per request of a peer, as a multiple of the first one's; medians.
    pub(crate) fn ratio(&self, name: &str) -> Option<f64> {
        let base = median(&self.measured.first()?.cpu_micros);
        let peer = self.measured.iter().find(|measured| measured.name == name)?;
        Some(median(&peer.cpu_micros) / base)
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        let peers: Vec<_> = self
            .measured
            .iter()
            .map(|peer| {
                serde_json::json!({
                    "name": peer.name,
                    "ratio": self.ratio(peer.name),
                    "cpu_micros_per_request": peer.cpu_micros,
                    "requests_per_second": peer.per_second,
                    "p50_micros": peer.p50_micros,
                    "p99_micros": peer.p99_micros,
                    "resident_kib": peer.resident,
                })
            })
            .collect();
        let report = serde_json::json!({
            "nginx": self.nginx_version,
            "rounds": self.rounds,
            "seconds_per_round": self.span.as_secs(),
            "cpus": crate::cpu::available(),
            "peers": peers,
        });
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}; {} rounds of {} s; 1 KiB bodies, 32 connections, {} CPUs",
            self.nginx_version,
            self.rounds,
            self.span.as_secs(),
            crate::cpu::available(),
        )?;
        writeln!(
            f,
            "{:<22} {:>11} {:>8} {:>7} {:>9} {:>8} {:>8} {:>8}",
            "", "CPU µs/req", "min", "ratio", "req/s", "p50 µs", "p99 µs", "RSS MiB"
        )?;
        for peer in &self.measured {
            writeln!(
                f,
                "{:<22} {:>11.2} {:>8.2} {:>7.2} {:>9.0} {:>8.0} {:>8.0} {:>8.1}",
                peer.name,
                median(&peer.cpu_micros),
                peer.cpu_micros.iter().copied().fold(f64::INFINITY, f64::min),
                self.ratio(peer.name).unwrap_or(f64::NAN),
                median(&peer.per_second),
                median(&peer.p50_micros),
                median(&peer.p99_micros),
                f64::from(u32::try_from(peer.resident).unwrap_or(u32::MAX)) / 1024.0,
            )?;
        }
        Ok(())
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(middle) } else { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 }
}
