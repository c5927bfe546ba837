//! A fleet from outside: several gateways that share one PostgreSQL and one Redis Cluster, all of them
//! real processes, and what is promised of them together.
//!
//! Each test has servers of its own, because most of them harm those. The tests look at times, so they
//! take turns: a [`fleet::Fleet`] is also the turn. Figures are printed, for the README.

#![expect(
    clippy::disallowed_methods,
    reason = "tests look at processes from outside, in real time and with tasks of their own"
)]

// The attribute lets clippy treat a file as test code.
#[cfg(test)]
mod fleet;
#[path = "../lab/postgres.rs"]
mod postgres_lab;
#[cfg(test)]
#[path = "../lab/redis.rs"]
#[expect(dead_code, reason = "each crate of tests uses a part of it")]
mod redis_lab;
#[cfg(test)]
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "each crate of tests uses a part of it")]
mod support;

#[cfg(test)]
mod drills;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod names;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod usage;
