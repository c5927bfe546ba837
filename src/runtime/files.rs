//! The limit on open files.
//!
//! A connection is an open file, and a request that is passed on needs two. Many systems start a
//! process with 1024 of them although it may have far more.

use crate::proxy::crowd::SPARE;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files beside connections, and beside requests that are passed on: spare connections, the store, logs, listeners, the event loops.
const OTHERS: u64 = 200 + SPARE as u64;

/// Raises the limit as far as the process may; the limit then.
#[must_use]
pub fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// The open files that so many client connections can need.
#[must_use]
pub const fn open_files_for(connections: usize) -> u64 {
    (connections as u64).saturating_mul(2).saturating_add(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_can_be_raised_to_what_the_system_allows() {
        let limit = raise_open_files();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
        assert_eq!(open_files_for(100), 656);
    }
}
