//! The gateway under clients that are too many, or take too long: the real binary from outside.
//!
//! The tests look at times and take thousands of connections, so they take turns. Figures are
//! printed.

#![expect(
    clippy::disallowed_methods,
    reason = "tests look at a process from outside, in real time and with tasks of their own"
)]

// The attribute lets clippy treat a file as test code.
#[cfg(test)]
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "each crate of tests uses a part of it")]
mod support;

#[cfg(test)]
mod kinds;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod overload;

#[cfg(test)]
mod turn {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use tokio::sync::{Mutex, MutexGuard};

    static TURN: Mutex<()> = Mutex::const_new(());

    /// Waits for this test's turn, with as many open files as there may be.
    pub(crate) async fn mine() -> MutexGuard<'static, ()> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        TURN.lock().await
    }
}
