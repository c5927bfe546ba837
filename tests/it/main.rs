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
mod administration;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod cors;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod driven;
#[cfg(test)]
mod embedding;
#[cfg(test)]
mod endurance;
#[cfg(test)]
mod expressions;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod flows;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod in_flight;
#[cfg(test)]
mod issuer_keys;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod multiplexed;
#[cfg(test)]
mod observing;
#[cfg(test)]
mod own_names;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod problems;
#[cfg(test)]
mod reloading;
#[cfg(test)]
mod rewriting;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod slow_clients;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod store;
#[cfg(test)]
mod subjects;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod upstreams;
