//! The request path: the only folder that speaks Pingora's hooks.
//!
//! A request meets the files in this order: `stream` and `connection` (bytes, deadlines, caps),
//! `wire` (is it one clear head), `hooks` (Pingora calls), `client` and `head` (who and what),
//! `pipeline` (may it), `passage`, `forward`, `hop` and `failure` (the upstream), `reply` (what we say
//! ourselves), `account` (what is recorded).

mod account;
pub mod client;
pub mod connection;
pub mod drain;
pub mod exchange;
mod failure;
mod forward;
pub mod head;
pub mod hooks;
mod hop;
pub mod passage;
pub mod pipeline;
pub mod rejection;
pub mod reply;
pub mod stream;
mod watchdog;
pub mod wire;

pub use connection::{ConnectionLimits, Connections};
pub use drain::{Drain, Phase};
pub use hooks::Gateway;
