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
                let fits = |index| self.fits(tier, index, tried);
                let load = |index| self.load(index);
                let chosen = if tried.is_empty() {
                    self.balancer.choose(&mut rng, fits, load)
                } else {
                    self.balancer.choose_another(&mut rng, fits, load)
                };
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Clock;
    use crate::upstreams::definition::{Balance, Probe};
    use crate::upstreams::fixture::{address, build, health, orders};
    use crate::upstreams::pick::Failure;

    const TICK: Duration = Duration::from_millis(1);

    fn of(endpoints: u8, clock: &Clock) -> Arc<Upstream> {
        let addresses: Vec<_> = (1..=endpoints).map(address).collect();
        build(&orders(&addresses), clock)
    }

    fn in_flight(upstream: &Upstream) -> Vec<u32> {
        upstream.states().map(|(_, state)| state.in_flight).collect()
    }

    fn eject(upstream: &Upstream, index: usize) {
        let condition = &upstream.endpoints[index].condition;
        for _ in 0..3 {
            let ticket = condition.outlier.force();
            condition.outlier.failed(ticket, &upstream.definition.ejection, &condition.clock);
        }
        assert!(upstream.endpoints[index].state().ejected);
    }

    fn make_unhealthy(upstream: &Upstream, index: usize) {
        for _ in 0..3 {
            upstream.endpoints[index].observe(false);
        }
    }

    #[test]
    fn a_pick_counts_as_in_flight_until_it_is_dropped() {
        let upstream = of(2, &Clock::manual());
        let first = upstream.pick(&Tried::default()).expect("an endpoint");
        let mut second = upstream.pick(&Tried::default()).expect("an endpoint");
        assert_eq!(in_flight(&upstream), [1, 1]);
        second.failed(Failure::Broken);
        assert_eq!(in_flight(&upstream), [1, 1]);
        drop(second);
        assert_eq!(in_flight(&upstream), [1, 0]);
        drop(first);
        assert_eq!(in_flight(&upstream), [0, 0]);
    }

    #[test]
    fn in_flight_is_exact_however_many_threads_pick() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests] {
            let mut def = orders(&[address(1), address(2), address(3)]);
            def.balance = balance;
            let upstream = build(&def, &Clock::system());
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let upstream = &upstream;
                    scope.spawn(move || {
                        for turn in 0..2_000 {
                            let mut pick = upstream.pick(&Tried::default()).expect("an endpoint");
                            match (thread + turn) % 3 {
                                0 => pick.succeeded(),
                                1 => pick.failed(Failure::Connect),
                                _ => drop(pick),
                            }
                        }
                    });
                }
            });
            assert_eq!(in_flight(&upstream), [0, 0, 0]);
            let tries: u64 = upstream.states().map(|(_, state)| state.tries).sum();
            assert_eq!(tries, 8_000);
        }
    }

    #[test]
    fn a_tried_endpoint_is_not_picked_again() {
        let upstream = of(2, &Clock::manual());
        let mut tried = Tried::default();
        let first = upstream.pick(&tried).expect("an endpoint");
        tried.add(&first);
        let second = upstream.pick(&tried).expect("the other endpoint");
        assert_ne!(first.address(), second.address());
        tried.add(&second);
        assert_eq!(upstream.pick(&tried).err(), Some(Unavailable::AllTried));
    }

    #[test]
    fn one_that_closed_an_idle_connection_is_picked_again_if_it_is_the_only_one() {
        for (endpoints, same) in [(1, true), (2, false)] {
            let upstream = of(endpoints, &Clock::manual());
            let mut tried = Tried::default();
            let first = upstream.pick(&tried).expect("an endpoint");
            tried.add_stale(&first);
            let second = upstream.pick(&tried).expect("an endpoint");
            assert_eq!(first.address() == second.address(), same);
        }
    }

    #[test]
    fn no_endpoint_is_used_against_the_word_of_its_probes() {
        let mut def = orders(&[address(1), address(2)]);
        def.health = Some(health(Probe::Tcp));
        let upstream = build(&def, &Clock::manual());
        make_unhealthy(&upstream, 0);
        for _ in 0..4 {
            let pick = upstream.pick(&Tried::default()).expect("the healthy endpoint");
            assert_eq!(pick.address(), address(2));
        }
        make_unhealthy(&upstream, 1);
        assert_eq!(upstream.pick(&Tried::default()).err(), Some(Unavailable::NoneHealthy));
    }

    #[test]
    fn ejected_endpoints_are_used_when_nothing_better_is_left() {
        let mut def = orders(&[address(1), address(2), address(3)]);
        def.health = Some(health(Probe::Tcp));
        let upstream = build(&def, &Clock::manual());
        make_unhealthy(&upstream, 2);
        eject(&upstream, 0);
        for _ in 0..4 {
            let pick = upstream.pick(&Tried::default()).expect("the endpoint in use");
            assert_eq!(pick.address(), address(2));
        }
        eject(&upstream, 1);
        let mut seen: Vec<_> = (0..4)
            .map(|_| upstream.pick(&Tried::default()).expect("an ejected endpoint").address())
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, [address(1), address(2)]);
    }

    #[test]
    fn second_tries_take_no_turn_from_first_ones() {
        let upstream = of(2, &Clock::manual());
        let mut first = Vec::new();
        for _ in 0..4 {
            let mut tried = Tried::default();
            let pick = upstream.pick(&tried).expect("an endpoint");
            first.push(pick.address());
            tried.add(&pick);
            assert_ne!(upstream.pick(&tried).expect("the other").address(), pick.address());
        }
        assert_eq!(first, [1, 2, 1, 2].map(address));
    }

    #[test]
    fn a_second_try_goes_to_an_endpoint_in_use_rather_than_on_trial() {
        let clock = Clock::manual();
        let upstream = of(3, &clock);
        eject(&upstream, 0);
        eject(&upstream, 1);
        clock.advance(Duration::from_secs(1));
        let mut tried = Tried::default();
        let trial = upstream.pick(&tried).expect("an endpoint");
        assert_ne!(trial.address(), address(3));
        tried.add(&trial);
        assert_eq!(upstream.pick(&tried).expect("an endpoint").address(), address(3));
    }

    /// Sends `requests`, one each millisecond, each with one further try; endpoint 1 fails them all.
    fn with_a_dead_endpoint(balance: Balance, requests: u64) -> (Arc<Upstream>, u64) {
        let clock = Clock::manual();
        let mut def = orders(&[address(1), address(2), address(3)]);
        def.balance = balance;
        let upstream = build(&def, &clock);
        let mut lost = 0;
        for _ in 0..requests {
            clock.advance(TICK);
            let mut tried = Tried::default();
            let answered = (0..2).any(|_| {
                let Ok(mut pick) = upstream.pick(&tried) else { return false };
                let dead = pick.address() == address(1);
                if dead {
                    pick.failed(Failure::Connect);
                    tried.add(&pick);
                } else {
                    pick.succeeded();
                }
                !dead
            });
            lost += u64::from(!answered);
        }
        (upstream, lost)
    }

    #[test]
    fn a_dead_endpoint_costs_no_request_and_few_tries() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests] {
            let (upstream, lost) = with_a_dead_endpoint(balance, 60_000);
            let (_, dead) = upstream.states().next().expect("the dead endpoint");
            assert_eq!(lost, 0);
            // Three failures, then one trial after 1, 2, 4, 8, 16 and 30 seconds at the earliest.
            assert!((8..=9).contains(&dead.tries), "{balance:?}: {dead:?}");
            assert_eq!(dead.failures, dead.tries);
            assert!(dead.ejected && !dead.up());
        }
    }

    #[test]
    fn an_endpoint_that_is_back_gets_its_share_again() {
        let clock = Clock::manual();
        let upstream = of(3, &clock);
        eject(&upstream, 0);
        clock.advance(Duration::from_secs(1));
        for _ in 0..300 {
            upstream.pick(&Tried::default()).expect("an endpoint").succeeded();
        }
        let tries: Vec<_> = upstream.states().map(|(_, state)| state.tries).collect();
        assert_eq!(tries, [100, 100, 100]);
    }

    #[test]
    fn a_client_that_leaves_counts_against_nobody() {
        let upstream = of(1, &Clock::manual());
        for _ in 0..10 {
            drop(upstream.pick(&Tried::default()).expect("an endpoint"));
        }
        let (_, state) = upstream.states().next().expect("the endpoint");
        assert_eq!((state.failures, state.ejected, state.in_flight), (0, false, 0));
    }
}
