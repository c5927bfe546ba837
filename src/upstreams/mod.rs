//! To whom: endpoints, how one is picked, how it is probed, and when to try another.
//!
//! ```text
//! UpstreamDef ─build─▶ Upstream ─pick─▶ Pick ─peer─▶ HttpPeer
//!      Registry ─keeps─▶ condition of each endpoint (in flight, ejection, probes)
//! ```
//!
//! An [`Upstream`] belongs to one snapshot and never changes. What is learned about an endpoint
//! (its [`State`]) belongs to the [`Registry`] and outlives reloads. A [`Pick`] is one try of one
//! request; it counts as in flight for as long as it exists.

mod balance;
mod check;
mod condition;
pub mod definition;
mod endpoint;
#[cfg(test)]
pub(crate) mod fixture;
mod outlier;
mod peer;
mod pick;
mod registry;
pub mod retry;
mod upstream;
mod vitals;

pub use check::{Check, Get, Question};
pub use condition::State;
pub use definition::{
    Balance, Ejection, EndpointDef, HealthCheck, Probe, Protocol, Retry, Timeouts, UpstreamDef,
    UpstreamTls,
};
pub use endpoint::Endpoint;
pub use pick::{Connection, Failure, Pick, Tried};
pub use registry::{BuildError, Registry};
pub use retry::{Body, Progress, may_retry};
pub use upstream::{Unavailable, Upstream};
pub use vitals::Health;
