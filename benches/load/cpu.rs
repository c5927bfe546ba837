//! What the kernel has charged to a process.

use anyhow::{Context as _, Result};
use std::process::Command;
use std::time::Duration;

/// CPU time of a process, in user and kernel mode, with the threads that have ended.
pub(crate) fn spent(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} has ended"))?;
    // The name, in parentheses, may contain spaces; what follows it are numbers.
    let (_, fields) = stat.rsplit_once(')').context("/proc/*/stat")?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut field = || fields.next().context("/proc/*/stat is short")?.context("/proc/*/stat");
    let ticks = field()? + field()?;
    Ok(Duration::from_secs(ticks) / ticks_per_second()?)
}

/// Its resident memory in KiB.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    let number = line.split_whitespace().nth(1).context("VmRSS")?;
    Ok(number.parse()?)
}

/// CPUs of this machine that we may use.
pub(crate) fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn ticks_per_second() -> Result<u32> {
    let output = Command::new("getconf").arg("CLK_TCK").output().context("getconf")?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
