//! What the kernel says of this process, read at a scrape. Without `/proc` there is nothing to say.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};
use std::collections::HashMap;
use std::fs;

/// Name, help, type, and how to find it.
type Spec = (&'static str, &'static str, MetricType, fn() -> Option<f64>);

/// The unit of times in `/proc`: `USER_HZ`, which is 100 on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

const ALL: [Spec; 5] = [
    (
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        MetricType::GAUGE,
        resident_memory,
    ),
    (
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        MetricType::COUNTER,
        cpu_time,
    ),
    ("process_open_fds", "Number of open file descriptors.", MetricType::GAUGE, open_fds),
    ("process_max_fds", "Maximum number of open file descriptors.", MetricType::GAUGE, max_fds),
    (
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        MetricType::GAUGE,
        start_time,
    ),
];

/// Collects `process_*`.
pub(super) struct Process(Vec<Desc>);

impl Process {
    #[expect(clippy::expect_used, reason = "names are constants, and a test builds every metric")]
    pub(super) fn new() -> Self {
        let describe = |(name, help, ..): Spec| {
            Desc::new(name.into(), help.into(), Vec::new(), HashMap::new())
                .expect("a valid constant name")
        };
        Self(ALL.map(describe).into())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        ALL.iter().filter_map(family).collect()
    }
}

fn family(&(name, help, kind, find): &Spec) -> Option<MetricFamily> {
    let value = find()?;
    let mut metric = Metric::default();
    if kind == MetricType::GAUGE {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    } else {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    }
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    Some(family)
}

fn resident_memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn cpu_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (user, system) = (stat_field(&stat, 14)?, stat_field(&stat, 15)?);
    Some((user + system) / TICKS_PER_SECOND)
}

fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let since_boot = stat_field(&stat, 22)? / TICKS_PER_SECOND;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 =
        system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + since_boot)
}

/// A field of `/proc/self/stat`, counted from 1 as in proc(5). The second one is the program's name
/// in parentheses and may contain anything, so counting starts behind it.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn open_fds() -> Option<f64> {
    // Reading the folder takes a descriptor of its own.
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(open).ok().map(f64::from)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 5 0 0 0 150 50 0 0 20 0 1 0 4242 9 8";
        assert_eq!(stat_field(stat, 14), Some(150.0));
        assert_eq!(stat_field(stat, 15), Some(50.0));
        assert_eq!(stat_field(stat, 22), Some(4242.0));
        assert_eq!(stat_field(stat, 99), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_everything() {
        for (name, _, _, find) in ALL {
            assert!(find().is_some_and(|value| value >= 0.0), "{name}");
        }
    }
}
