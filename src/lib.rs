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
//!
//! # Your own binary
//!
//! A program of your own can be the gateway, with [filters](filter::Filter) that look at requests and
//! responses where a configuration file cannot say what is meant:
//!
//! ```no_run
//! use datahub_gateway::Gateway;
//! use datahub_gateway::filter::{Admitted, Filter, Flow, Refusal, Response};
//! use datahub_gateway::http::{HeaderName, HeaderValue};
//! use std::process::ExitCode;
//!
//! /// Tells upstreams which plan pays, and clients who answered.
//! struct Billing;
//!
//! impl Filter for Billing {
//!     type State = ();
//!
//!     fn name(&self) -> &'static str {
//!         "billing"
//!     }
//!
//!     async fn on_admitted(
//!         &self,
//!         request: &mut Admitted<'_>,
//!         _: &mut (),
//!     ) -> Result<Flow, Refusal> {
//!         let gold = request.caller().is_some_and(|caller| caller.plan() == "gold");
//!         let account = HeaderValue::from_static(if gold { "prepaid" } else { "metered" });
//!         request.set_header(HeaderName::from_static("x-account"), account)?;
//!         Ok(Flow::Continue)
//!     }
//!
//!     async fn on_response(&self, response: &mut Response<'_>, _: &mut ()) -> Result<(), Refusal> {
//!         let here = HeaderValue::from_static("billing");
//!         response.set_header(HeaderName::from_static("x-served-by"), here)?;
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> anyhow::Result<ExitCode> {
//!     Gateway::builder().conf("conf").filter(Billing).run()
//! }
//! ```
//!
//! [`Gateway`], [`Builder`] and [`filter`] are what such a program may rely on; all other modules are
//! public for this project's own tests and benches, and change without notice. `examples/filter.rs`
//! is a whole program.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod expressions;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
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

pub use cli::embedding::{Builder, Gateway};
/// The types of statuses, methods and header fields.
pub use http;

/// What a program of one's own may do to requests: see [`Filter`](filter::Filter).
pub mod filter {
    pub use crate::proxy::filter::{
        Admitted, Answer, Caller, Filter, Flow, Protected, Refusal, Request, Response,
    };
}
