//! To whom: endpoints, how one is picked, how it is probed, and when to try another.

pub mod definition;

pub use definition::{
    Balance, Ejection, EndpointDef, HealthCheck, Probe, Protocol, Retry, Timeouts, UpstreamDef,
    UpstreamTls,
};
