//! Workers, listeners, signals: what Pingora's own `Server` would do, done so that nothing is lost.
//!
//! A worker is one thread with one event loop, its own listening sockets (`SO_REUSEPORT` shares the
//! port between workers) and its own pool of upstream connections.

mod bind;
mod cpus;
mod files;
mod handshake;
mod memory;
mod shutdown;
mod worker;

pub use bind::{BindError, Bound, bind, bind_admin};
pub use cpus::granted_cpus;
pub use files::{open_files_for, raise_open_files};
pub use memory::watch_memory;
pub use shutdown::{EndSignals, Ending, Signals, drain};
pub use worker::{Serving, Worker, deal};
