//! Half a CPU and 1 GiB, as a container runtime grants them.
//!
//! Version 2 is one folder with all controllers, version 1 a folder in each. Either wants the right to
//! write there, which root has. The folders are removed when the process in them has ended.

use anyhow::{Context as _, Result, bail};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";
/// Of each period, in microseconds, so much may be run.
const PERIOD: u64 = 100_000;
const QUOTA: u64 = 50_000;
const MEMORY: u64 = 1 << 30;
/// How long an ended process may be in a group.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cgroup.
pub(crate) struct Cgroup {
    version: Version,
    /// The one of CPU time first, then that of memory; in version 2 it is the same.
    folders: Vec<PathBuf>,
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    One,
    Two,
}

/// How often and how long it was kept from running.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throttled {
    pub(crate) periods: u64,
    pub(crate) throttled: u64,
    pub(crate) time: Duration,
}

impl Cgroup {
    /// Makes one.
    pub(crate) fn new() -> Result<Self> {
        let root = Path::new(ROOT);
        let name = format!("gateway-capacity-{}", std::process::id());
        let group = if root.join("cgroup.controllers").exists() {
            Self { version: Version::Two, folders: vec![root.join(name)] }
        } else if root.join("cpu/cpu.cfs_quota_us").exists() {
            let folders = ["cpu", "memory"].map(|controller| root.join(controller).join(&name));
            Self { version: Version::One, folders: folders.into() }
        } else {
            bail!("{ROOT} has cgroups of neither version");
        };
        group.prepare().context("no cgroup with a quota can be made; root can")?;
        Ok(group)
    }

    fn prepare(&self) -> Result<()> {
        if self.version == Version::Two {
            write(&Path::new(ROOT).join("cgroup.subtree_control"), "+cpu +memory")?;
        }
        for folder in &self.folders {
            fs::create_dir(folder).with_context(|| folder.display().to_string())?;
        }
        let (cpu, memory) = (self.cpu()?, self.memory()?);
        if self.version == Version::Two {
            write(&cpu.join("cpu.max"), &format!("{QUOTA} {PERIOD}"))?;
            return write(&memory.join("memory.max"), &MEMORY.to_string());
        }
        write(&cpu.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
        write(&cpu.join("cpu.cfs_quota_us"), &QUOTA.to_string())?;
        write(&memory.join("memory.limit_in_bytes"), &MEMORY.to_string())
    }

    fn cpu(&self) -> Result<&PathBuf> {
        self.folders.first().context("no folder")
    }

    fn memory(&self) -> Result<&PathBuf> {
        self.folders.last().context("no folder")
    }

    /// Where a process writes its id to become a member.
    pub(crate) fn doors(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().map(|folder| folder.join("cgroup.procs"))
    }

    /// What it is.
    pub(crate) fn describe(&self) -> String {
        let version = if self.version == Version::One { 1 } else { 2 };
        let cpu = QUOTA as f64 / PERIOD as f64;
        format!("one task in a cgroup (v{version}) of {cpu} CPU and {} MiB", MEMORY >> 20)
    }

    /// What it was kept from, since it was made.
    pub(crate) fn throttled(&self) -> Result<Throttled> {
        let text = fs::read_to_string(self.cpu()?.join("cpu.stat"))?;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok())
                .with_context(|| format!("no {name} in {text}"))
        };
        let time = match self.version {
            Version::One => Duration::from_nanos(number("throttled_time")?),
            Version::Two => Duration::from_micros(number("throttled_usec")?),
        };
        Ok(Throttled { periods: number("nr_periods")?, throttled: number("nr_throttled")?, time })
    }
}

impl Throttled {
    /// What came after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            periods: self.periods - before.periods,
            throttled: self.throttled - before.throttled,
            time: self.time.saturating_sub(before.time),
        }
    }
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { periods, throttled, time } = self;
        write!(f, "throttled in {throttled} of {periods} periods, {time:.1?} together")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let began = Instant::now();
        for folder in &self.folders {
            while fs::remove_dir(folder).is_err() && began.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}
