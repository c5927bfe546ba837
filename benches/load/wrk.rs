//! wrk, and what it prints.

use crate::peers::{Cpus, Peer, tool};
use anyhow::{Context as _, Result, bail};
use std::time::Duration;

/// One run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Asks `peer` for `span` with 32 connections; an answer that is not 2xx, or none, is an error.
pub(crate) fn run(cpus: &Cpus, peer: &Peer, span: Duration) -> Result<Load> {
    let mut command = tool("wrk");
    command.args(["-t1", "-c32", "--latency"]).arg(format!("-d{}s", span.as_secs()));
    for (name, value) in &peer.headers {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    command.arg(&peer.url);
    let output = crate::pinned(cpus.others, command).output().context("wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    parse(&text).with_context(|| format!("{}: wrk said:\n{text}", peer.name))
}

fn parse(text: &str) -> Result<Load> {
    for line in text.lines().map(str::trim) {
        if line.starts_with("Non-2xx") || line.starts_with("Socket errors") {
            bail!("not every request was answered well: {line}");
        }
    }
    let line = |part: &str| {
        text.lines().map(str::trim).find(|line| line.contains(part)).context(part.to_owned())
    };
    // The lines above the distribution have percentages too, at their end.
    let share = |part: &str| {
        text.lines().map(str::trim).find(|line| line.starts_with(part)).context(part.to_owned())
    };
    let word = |line: &str, index: usize| -> Result<String> {
        Ok(line.split_whitespace().nth(index).context(line.to_owned())?.to_owned())
    };
    Ok(Load {
        requests: word(line(" requests in ")?, 0)?.parse()?,
        per_second: word(line("Requests/sec:")?, 1)?.parse()?,
        p50: span(&word(share("50%")?, 1)?)?,
        p99: span(&word(share("99%")?, 1)?)?,
    })
}

/// `1.50ms`, `730.00us`, `2.00s`, `1.00m`.
fn span(text: &str) -> Result<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).context(text.to_owned())?;
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => bail!("`{text}` is no duration of wrk's"),
    };
    Ok(Duration::try_from_secs_f64(number.parse::<f64>()? * seconds)?)
}

const SAMPLE: &str = "\
Running 2s test @ http://127.0.0.1:8080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   730.00us    1.10ms  20.00ms   95.00%
    Req/Sec    50.50k     3.00k   55.00k    87.50%
  Latency Distribution
     50%  600.00us
     75%  800.00us
     90%    1.10ms
     99%    5.25ms
  101000 requests in 2.00s, 120.00MB read
Requests/sec:  50499.50
Transfer/sec:     60.00MB
";

/// A wrk that prints something else would be measured wrongly without anyone noticing.
#[expect(clippy::panic, reason = "a defect of the bench itself")]
pub(crate) fn check_parser() {
    let expected = Load {
        requests: 101_000,
        per_second: 50_499.5,
        p50: Duration::from_micros(600),
        p99: Duration::from_micros(5250),
    };
    let refused = parse(&SAMPLE.replace("Transfer", "Non-2xx or 3xx responses: 7\nTransfer"));
    match parse(SAMPLE) {
        Ok(load) if load == expected && refused.is_err() => {}
        other => panic!("wrk's output is read wrongly: {other:?}, {refused:?}"),
    }
}
