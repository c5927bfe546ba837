//! What reaches CloudWatch, from outside: the real gateway before a sink that refuses what CloudWatch
//! refuses.
//!
//! No emulator enforces the limits of `PutMetricData`, so the sink of these tests does, and `judge` has
//! a test for each refusal. Intervals are a second here, and tests wait for what arrives.

#![expect(
    clippy::disallowed_methods,
    reason = "tests look at a process from outside, in real time and with tasks of their own"
)]

// The attribute lets clippy treat a file as test code.
#[cfg(test)]
mod judge;
#[cfg(test)]
mod sink;
#[cfg(test)]
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "each crate of tests uses a part of it")]
mod support;

#[cfg(test)]
#[path = "../fleet/fleet.rs"]
#[expect(dead_code, reason = "each crate of tests uses a part of it")]
mod fleet;
#[path = "../lab/postgres.rs"]
mod postgres_lab;
#[cfg(test)]
#[path = "../lab/redis.rs"]
#[expect(dead_code, reason = "each crate of tests uses a part of it")]
mod redis_lab;

#[cfg(test)]
mod catalogue;
#[cfg(test)]
mod counts;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod refusals;
