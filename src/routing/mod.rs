//! Which route answers a request, and what it changes on the way.
//!
//! A target and a host are read once into one form; routes are asked about those, and the most
//! specific one that accepts answers. Nothing here knows of auth, limits or upstreams.

mod candidate;
mod canonical;
mod cors;
mod host;
pub mod matcher;
#[cfg(test)]
mod model;
#[cfg(test)]
mod notation;
pub mod rewrite;
mod table;
mod target;
mod tree;

pub use candidate::{conflict, only_conditions_decide};
pub use cors::{CORS_FIELDS, CorsPolicy, Preflight};
pub use host::{BadHost, parse_host};
pub use matcher::{HostPattern, Matcher, PathPattern, Segment, ValueMatch};
pub use rewrite::{Cors, FieldValue, HeaderEdits, PathRewrite, Rewrite, location};
pub use table::{Asked, NoMatch, Origin, Routes};
pub use target::{BadTarget, Target};
