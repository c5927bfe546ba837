//! The request path: the only folder that speaks Pingora's hooks.
//!
//! A request meets the files in this order: `stream` with `gate` and `stall`, `waits`, `connection`
//! and `http2` (bytes, deadlines, caps), `wire` (is it one clear head), `hooks` (Pingora calls),
//! `crowd` (is there room), `client` and `head` (who and what), `pipeline` with `policies` and `filter` (may it),
//! `passage`, `forward`, `edits`, `hop`, `watchdog`
//! and `failure` (the upstream), `reply` (what we say ourselves), `account` (what is recorded).

mod account;
pub mod chunks;
pub mod client;
pub mod complaint;
pub mod connection;
pub mod crowd;
pub mod drain;
mod edits;
pub mod exchange;
mod facts;
mod failure;
pub mod filter;
mod forward;
pub mod gate;
pub mod head;
pub mod hooks;
mod hop;
mod http2;
pub mod passage;
pub mod pipeline;
pub mod policies;
pub mod rejection;
pub mod reply;
mod stall;
pub mod stream;
mod verdict;
pub mod waits;
mod watchdog;
pub mod wire;

pub use connection::{ConnectionLimits, Connections};
pub use drain::{Drain, Phase};
pub use hooks::Gateway;
pub use waits::Waits;
