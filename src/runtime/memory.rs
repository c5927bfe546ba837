//! What the process does before its memory is gone: it takes on nothing more.
//!
//! A client that does not read ties down nearly 1 MiB in Pingora's buffers, so neither a cap on
//! connections nor one on requests bounds the memory without being too low for everyone else. The
//! memory itself is watched instead.
//!
//! Must stay true: without a limit to go by, nobody is ever refused.

use crate::proxy::Drain;
use crate::snapshot::Live;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Watches the memory for as long as the process lives.
pub async fn watch_memory(live: Arc<Live>, drain: Arc<Drain>) {
    let granted = granted_memory();
    loop {
        let most = live.load().http.max_memory.or_else(|| granted.map(|bytes| bytes / 10 * 9));
        if let (Some(most), Some(used)) = (most, used_memory(granted.is_some())) {
            // Not to and fro with every request.
            let end = if drain.pressure().is_on() { most / 20 * 19 } else { most };
            let on = used >= end;
            if drain.pressure().set(on) {
                tell(on, used, most);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn tell(short: bool, used: u64, most: u64) {
    if short {
        log::error!(used = used, max_memory = most;
            "memory is short: new requests get 503, and clients that do not read are cut off soon");
    } else {
        log::warn!(used = used, max_memory = most; "memory is not short any more");
    }
}

/// Resident memory and, in a cgroup, what the kernel holds for sockets: both count there.
fn used_memory(in_cgroup: bool) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let stat = in_cgroup.then(|| fs::read_to_string("/sys/fs/cgroup/memory.stat").ok()).flatten();
    Some(resident(&status)? + stat.and_then(|stat| sockets(&stat)).unwrap_or(0))
}

/// `VmRSS:` of `/proc/self/status` (proc(5)).
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// `sock` of a cgroup's `memory.stat`.
fn sockets(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("sock "))?.trim().parse().ok()
}

/// The memory that the cgroup grants, if it says so.
fn granted_memory() -> Option<u64> {
    let places = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    places.iter().find_map(|place| limit(&fs::read_to_string(place).ok()?))
}

/// A number of bytes; `max`, or what no machine has, is no limit.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
        assert_eq!(sockets("anon 1\nsock 4096\nshmem 0\n"), Some(4096));
        assert_eq!(sockets("anon 1\n"), None);
        let table =
            [("1073741824\n", Some(1 << 30)), ("max\n", None), ("9223372036854771712", None)];
        for (text, expected) in table {
            assert_eq!(limit(text), expected, "{text}");
        }
        assert!(used_memory(false).is_some_and(|bytes| bytes > 1 << 20));
    }
}
