//! The gateway as an attacker sees it: requests that no honest client sends, over raw sockets.
//!
//! Every row says what the attacker is answered, whether the connection stays, and exactly what the
//! upstream saw of it. What it must never see is something else than the gateway judged.

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
mod canaries;
#[cfg(test)]
mod case;
#[cfg(test)]
mod chunks;
#[cfg(test)]
mod closed;
#[cfg(test)]
mod costs;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod h2_frames;
#[cfg(test)]
mod h2_heads;
#[cfg(test)]
mod h2_table;
#[cfg(test)]
mod h2_wire;
#[cfg(test)]
mod head;
#[cfg(test)]
mod hops;
#[cfg(test)]
mod host;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod series;
#[cfg(test)]
mod table;
#[cfg(test)]
mod targets;
