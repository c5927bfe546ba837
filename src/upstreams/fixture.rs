//! Definitions for tests, in few words.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::definition::{
    Balance, Ejection, EndpointDef, HealthCheck, Probe, Protocol, Retry, Timeouts, UpstreamDef,
};
use super::registry::Registry;
use super::upstream::Upstream;
use crate::telemetry::Clock;

/// An upstream called `orders` with these endpoints, all of weight 1.
pub(crate) fn orders(endpoints: &[SocketAddr]) -> UpstreamDef {
    let endpoint =
        |address: &SocketAddr| EndpointDef { address: *address, weight: NonZeroU32::MIN };
    UpstreamDef {
        name: "orders".into(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        balance: Balance::RoundRobin,
        protocol: Protocol::Http1,
        tls: None,
        health: None,
        ejection: ejection(),
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            per_try: Duration::from_secs(15),
            total: Duration::from_secs(30),
        },
        retry: Retry { retries: 1 },
        idle_timeout: Duration::from_secs(50),
    }
}

/// Three failures in a row; one second, at most thirty.
pub(crate) fn ejection() -> Ejection {
    Ejection { failures: number(3), base: Duration::from_secs(1), max: Duration::from_secs(30) }
}

/// Two good answers, three bad ones, as fast as a test can be.
pub(crate) fn health(probe: Probe) -> HealthCheck {
    HealthCheck {
        probe,
        interval: Duration::from_millis(2),
        timeout: Duration::from_secs(5),
        healthy_after: number(2),
        unhealthy_after: number(3),
    }
}

/// An address that nothing is sent to.
pub(crate) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 8080))
}

pub(crate) fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

/// One upstream, built by a registry of its own.
pub(crate) fn build(def: &UpstreamDef, clock: &Clock) -> Arc<Upstream> {
    let upstreams = Registry::new(clock.clone()).build(std::slice::from_ref(def));
    upstreams.expect("a good definition").remove(0)
}
