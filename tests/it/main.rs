//! The gateway from outside: the real binary, real sockets, real origins.
//!
//! One file per promise to clients or operators; `support` is the harness that they share.

// The attribute lets clippy treat the harness as test code.
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests look at a process from outside, in real time and with tasks of their own"
)]
#[expect(dead_code, reason = "the harness offers more than the tests of the moment use")]
mod support;

#[cfg(test)]
mod command_line;
mod harness;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tokens;
