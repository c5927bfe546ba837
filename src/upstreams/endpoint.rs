//! One endpoint of one upstream, as one snapshot sees it.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora_core::upstreams::peer::HttpPeer;

use super::check::Check;
use super::condition::{Condition, State};
use super::definition::{Ejection, EndpointDef, UpstreamDef};
use super::outlier::Standing;
use super::peer::{self, Trust};
use super::registry::BuildError;
use super::vitals::Health;

/// Where requests go: an address, what Pingora is told about it, and its condition.
#[derive(Debug)]
pub struct Endpoint {
    upstream: Arc<str>,
    label: Arc<str>,
    address: SocketAddr,
    weight: u32,
    check: Option<Check>,
    pub(super) ejection: Ejection,
    pub(super) peer: HttpPeer,
    pub(super) condition: Arc<Condition>,
}

impl Endpoint {
    pub(super) fn build(
        upstream: &UpstreamDef,
        def: &EndpointDef,
        trust: Option<&Trust>,
        condition: Arc<Condition>,
    ) -> Result<Self, BuildError> {
        let peer = peer::build(upstream, def.address, trust);
        let check = upstream
            .health
            .as_ref()
            .map(|rules| Check::build(&upstream.name, rules, def.address, &peer))
            .transpose()?;
        Ok(Self {
            upstream: Arc::clone(&upstream.name),
            label: def.address.to_string().into(),
            address: def.address,
            weight: def.weight.get(),
            check,
            ejection: upstream.ejection.clone(),
            peer,
            condition,
        })
    }

    /// The name of its upstream.
    #[must_use]
    pub fn upstream(&self) -> &Arc<str> {
        &self.upstream
    }

    /// Its address as text.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it is probed, where it is.
    #[must_use]
    pub fn check(&self) -> Option<&Check> {
        self.check.as_ref()
    }

    /// How it is at this moment.
    #[must_use]
    pub fn state(&self) -> State {
        self.condition.state(self.check.is_some())
    }

    /// Takes a probe's answer; the new health if that changed it.
    pub fn observe(&self, good: bool) -> Option<Health> {
        self.condition.vitals.observe(good, self.check.as_ref()?.rules())
    }

    /// Forgets what probes found, when there are no more.
    pub fn forget_probes(&self) {
        self.condition.vitals.forget();
    }

    /// Its share against the others'.
    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    /// Whether its probes say that it must not be used. A snapshot without probes does not listen
    /// to what those of another one found.
    pub(super) fn is_down(&self) -> bool {
        self.check.is_some() && self.condition.vitals.health() == Health::Unhealthy
    }

    pub(super) fn standing(&self) -> Standing {
        self.condition.outlier.standing(&self.condition.clock)
    }
}
