//! DataHub Gateway: a programmable reverse proxy and API gateway on Pingora.
//!
//! ```text
//! conf/*.toml ─parse─▶ File ─compile─▶ Config ─▶ Snapshot ─publish─▶ Live (one ArcSwap)
//!                                                                     │ loaded once per request
//! socket ─▶ Connection ─▶ Head ─▶ decide ─▶ Forward │ Answer │ Reject ─▶ Record ─▶ log, metrics
//! ```
//!
//! The folders stand in the order a request meets them; `use crate::` goes only one way
//! (`tests/tidy.rs` keeps it so). `ARCHITECTURE.md` has the map and the invariants.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod expressions;
pub mod limits;
pub mod proxy;
pub mod routing;
pub mod runtime;
pub mod server;
pub mod snapshot;
pub mod stores;
pub mod tasks;
pub mod telemetry;
pub mod upstreams;
