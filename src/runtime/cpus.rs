//! How many CPUs the process was granted.
//!
//! The standard library rounds a cgroup's quota down; a container with one and a half CPUs is
//! better served by two workers than by one, so it is read here and rounded up.

use std::fs;
use std::num::NonZeroUsize;

/// The CPUs that this process may use: the affinity mask, capped by the cgroup's quota rounded up.
#[must_use]
pub fn granted_cpus() -> NonZeroUsize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = allowed_cpus(&status).or_else(|| std::thread::available_parallelism().ok());
    let quota = fs::read_to_string("/sys/fs/cgroup/cpu.max")
        .ok()
        .and_then(|text| quota_v2(&text))
        .or_else(quota_v1);
    match (allowed, quota) {
        (Some(allowed), Some(quota)) => allowed.min(quota),
        (Some(cpus), None) | (None, Some(cpus)) => cpus,
        (None, None) => NonZeroUsize::MIN,
    }
}

/// `Cpus_allowed:` of `/proc/self/status`: hexadecimal words with commas (proc(5)).
fn allowed_cpus(status: &str) -> Option<NonZeroUsize> {
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:"))?;
    let bits: u32 = mask.chars().filter_map(|c| c.to_digit(16)).map(u32::count_ones).sum();
    NonZeroUsize::new(bits as usize)
}

/// `cpu.max` of cgroup v2: quota and period in microseconds, or `max`.
fn quota_v2(text: &str) -> Option<NonZeroUsize> {
    let mut words = text.split_whitespace();
    let quota = words.next()?.parse().ok()?;
    let period = words.next()?.parse().ok()?;
    whole(quota, period)
}

fn quota_v1() -> Option<NonZeroUsize> {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/cpu/cpu.cfs_{name}_us")).ok()?;
        text.trim().parse::<usize>().ok()
    };
    whole(read("quota")?, read("period")?)
}

fn whole(quota: usize, period: usize) -> Option<NonZeroUsize> {
    NonZeroUsize::new(period).and_then(|period| NonZeroUsize::new(quota.div_ceil(period.get())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up() {
        let table = [
            ("50000 100000", Some(1)),
            ("100000 100000", Some(1)),
            ("150000 100000\n", Some(2)),
            ("max 100000", None),
            ("", None),
            ("1 0", None),
        ];
        for (text, expected) in table {
            assert_eq!(quota_v2(text).map(NonZeroUsize::get), expected, "{text:?}");
        }
    }

    #[test]
    fn the_affinity_mask_is_counted() {
        let status = "Name:\tgateway\nCpus_allowed:\tff,0000000f\nCpus_allowed_list:\t0-3\n";
        assert_eq!(allowed_cpus(status).map(NonZeroUsize::get), Some(12));
        assert_eq!(allowed_cpus("Name:\tx\n"), None);
    }
}
