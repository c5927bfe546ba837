//! What happened: the clock, the record of a request, and all that is fed from it.
//!
//! The bottom layer. Everything may use it, it uses nothing of the gateway.

pub mod access_log;
pub mod clock;
pub mod cloudwatch;
mod json;
pub mod log;
pub mod metrics;
pub mod record;
pub mod request_id;
mod sink;
pub mod trace;

pub use self::log::ProcessLog;
pub use access_log::AccessLog;
pub use clock::{Clock, Moment};
pub use metrics::Metrics;
pub use record::Record;
pub use sink::{StartError, Unflushed};
pub use trace::TraceContext;
