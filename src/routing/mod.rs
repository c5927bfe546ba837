//! Which route answers a request.

pub mod matcher;
pub mod rewrite;

pub use matcher::{HostPattern, Matcher, PathPattern, Segment, ValueMatch};
pub use rewrite::{Cors, HeaderEdits, PathRewrite, Rewrite};
