//! One upstream of one snapshot: its endpoints, and which of them is next.
//!
//! An endpoint is out for everybody (its probes fail), ejected (requests failed), or used up (this
//! request was there). The best kind that exists is taken, in the order of [`Tier`]. The last tier
//! is the panic threshold: when no better endpoint is left, ejected ones are used after all, since a
//! try that may succeed is better than a certain refusal, and what ejected all of them may have been
//! the network. What probes call unhealthy is never used: then the answer is 503 at once.

use std::sync::Arc;

use super::balance::Balancer;
use super::condition::State;
use super::definition::UpstreamDef;
use super::endpoint::Endpoint;
use super::outlier::Standing;
use super::pick::{Mark, Pick, Tried};

/// Why there is no endpoint for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The request was sent to every endpoint that could be used.
    #[error("every endpoint was tried")]
    AllTried,
    /// The probes of all endpoints fail.
    #[error("no endpoint is healthy")]
    NoneHealthy,
}

/// Kinds of endpoints, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    /// In use and not tried yet; for a request's first try also one whose trial is due.
    Fresh,
    /// Not tried yet, and a trial is due. Only now for a second try: that one shall succeed.
    Trial,
    /// In use; tried over a connection that was closed for idleness.
    Stale,
    /// Ejected.
    Panic,
}

const TIERS: [Tier; 4] = [Tier::Fresh, Tier::Trial, Tier::Stale, Tier::Panic];

/// How often a choice is repeated when another request took the trial in between.
const CONTENDED: usize = 3;

/// Endpoints that can stand in for each other.
#[derive(Debug)]
pub struct Upstream {
    definition: UpstreamDef,
    endpoints: Box<[Arc<Endpoint>]>,
    balancer: Balancer,
}

impl Upstream {
    pub(super) fn new(
        definition: UpstreamDef,
        endpoints: Vec<Arc<Endpoint>>,
        balancer: Balancer,
    ) -> Self {
        Self { definition, endpoints: endpoints.into(), balancer }
    }

    /// Its name in the file.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.definition.name
    }

    /// What the file says.
    #[must_use]
    pub fn definition(&self) -> &UpstreamDef {
        &self.definition
    }

    /// Its endpoints, in the order of the file.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Each endpoint's address and state.
    pub fn states(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, State)> {
        self.endpoints.iter().map(|endpoint| (endpoint.label(), endpoint.state()))
    }

    /// An endpoint for one try of a request that was `tried` elsewhere before.
    ///
    /// # Errors
    ///
    /// If the probes of all endpoints fail, or all were tried.
    pub fn pick(&self, tried: &Tried) -> Result<Pick, Unavailable> {
        let mut rng = rand::rng();
        for tier in TIERS {
            for _ in 0..CONTENDED {
                let chosen = self.balancer.choose(
                    &mut rng,
                    |index| self.fits(tier, index, tried),
                    |index| self.load(index),
                );
                let Some(index) = chosen else { break };
                if let Some(pick) = self.enter(tier, index) {
                    return Ok(pick);
                }
            }
        }
        Err(if tried.is_empty() { Unavailable::NoneHealthy } else { Unavailable::AllTried })
    }

    pub(super) fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    fn fits(&self, tier: Tier, index: usize, tried: &Tried) -> bool {
        let Some(endpoint) = self.endpoints.get(index).filter(|endpoint| !endpoint.is_down())
        else {
            return false;
        };
        let mark = tried.mark(index);
        match (tier, endpoint.standing()) {
            (_, _) if mark == Some(Mark::Failed) => false,
            (Tier::Panic, _) => true,
            (_, Standing::Out) => false,
            (Tier::Stale, _) => true,
            (_, _) if mark.is_some() => false,
            (Tier::Fresh, Standing::Due) => tried.is_empty(),
            (Tier::Fresh, Standing::In) | (Tier::Trial, _) => true,
        }
    }

    fn enter(&self, tier: Tier, index: usize) -> Option<Pick> {
        let endpoint = self.endpoints.get(index)?;
        let condition = &endpoint.condition;
        let ticket = match tier {
            Tier::Panic => condition.outlier.force(),
            Tier::Fresh | Tier::Trial | Tier::Stale => condition.outlier.enter(&condition.clock)?,
        };
        Some(Pick::new(endpoint, index, ticket))
    }

    fn load(&self, index: usize) -> u32 {
        self.endpoints.get(index).map_or(0, |endpoint| endpoint.condition.in_flight())
    }
}
