//! The request path: the only folder that speaks Pingora's hooks.
//!
//! A request meets the files in this order: `stream` with `gate` and `stall`, `waits`, `connection`
//! and `http2` (bytes, deadlines, caps), `wire` (is it one clear head), `hooks` (Pingora calls),
//! `client` and `head` (who and what), `pipeline` with `policies` and `filter` (may it), `passage`, `forward`, `hop`, `watchdog`
//! and `failure` (the upstream), `reply` (what we say ourselves), `account` (what is recorded).

mod account;
pub mod client;
pub mod connection;
pub mod drain;
pub mod exchange;
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
pub mod waits;
mod watchdog;
pub mod wire;

pub use connection::{ConnectionLimits, Connections};
pub use drain::{Drain, Phase};
pub use hooks::Gateway;
pub use waits::Waits;
