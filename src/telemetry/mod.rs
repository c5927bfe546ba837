//! What happened: the clock, the record of a request, and all that is fed from it.
//!
//! The bottom layer. Everything may use it, it uses nothing of the gateway.

pub mod clock;

pub use clock::{Clock, Moment};
