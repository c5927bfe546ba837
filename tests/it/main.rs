//! The gateway from outside: the real binary, real sockets, real origins.
//!
//! One file per promise to clients or operators; `support` is the harness that they share.

#![expect(
    clippy::disallowed_methods,
    reason = "tests look at a process from outside, in real time and with tasks of their own"
)]

// The attribute lets clippy treat a file as test code.
#[cfg(test)]
#[expect(dead_code, reason = "the harness offers more than the tests of the moment use")]
mod support;

#[cfg(test)]
mod command_line;
#[cfg(test)]
mod bodies;
mod driven;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod problems;
#[cfg(test)]
mod rewriting;
mod driven;
mod harness;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod targets;
mod secrets;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tokens;
#[cfg(test)]
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "as in `support`")]
mod upstreams;
