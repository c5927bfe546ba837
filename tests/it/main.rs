//! The gateway from outside: the real binary, real sockets, real origins.
//!
//! One file per promise to clients or operators; `support` is the harness that they share.

// The attribute lets clippy treat helpers as test code.
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests look at a process from outside, in real time and with tasks of their own"
)]
#[expect(dead_code, reason = "the harness offers more than the tests of the moment use")]
mod support;

#[cfg(test)]
mod draining;
mod driven;
mod harness;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod reloading;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod slow_clients;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod targets;
