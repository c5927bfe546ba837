//! What is known about endpoints, kept while snapshots come and go.
//!
//! An endpoint is known by its upstream's name and its address. A rebuild that names it again finds
//! its condition (requests in flight, ejection, probes) as it was; one that no snapshot and no
//! request refers to any more is forgotten.
//!
//! Must stay true: building changes nothing that the running snapshot sees, since the new one may
//! yet be refused; and the tables hold no more than what live snapshots name.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::balance::Balancer;
use super::condition::Condition;
use super::definition::UpstreamDef;
use super::endpoint::Endpoint;
use super::peer::Trust;
use super::upstream::Upstream;
use crate::telemetry::Clock;

/// Why an upstream cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A certificate to trust is not one.
    #[error(
        "certificate {number} in `ca` of upstream `{upstream}` cannot be used ({reason}); give a \
         PEM file of certificate authorities"
    )]
    Authority {
        /// The upstream.
        upstream: Arc<str>,
        /// Which of the certificates, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Two endpoints with one address.
    #[error(
        "upstream `{upstream}` names endpoint `{address}` twice; name it once, with the sum of the \
         weights"
    )]
    EndpointTwice {
        /// The upstream.
        upstream: Arc<str>,
        /// The address.
        address: SocketAddr,
    },
    /// No certificates where some shall be trusted.
    #[error(
        "`ca` of upstream `{upstream}` holds no certificate; give a PEM file with one, or leave \
         `ca` out to trust the system's"
    )]
    NoAuthority {
        /// The upstream.
        upstream: Arc<str>,
    },
    /// An upstream without endpoints.
    #[error("upstream `{upstream}` has no endpoints; give it at least one")]
    NoEndpoints {
        /// The upstream.
        upstream: Arc<str>,
    },
    /// A probe that cannot be sent.
    #[error(
        "the health check of upstream `{upstream}` cannot ask `{host}` for `{path}` ({reason}); \
         `path` begins with `/`, and `host` is a name or an address"
    )]
    Probe {
        /// The upstream.
        upstream: Arc<str>,
        /// The path as given.
        path: String,
        /// The host as given, or the endpoint's address.
        host: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A name no certificate can have.
    #[error(
        "`server_name` of upstream `{upstream}` is `{name}`; give the name in the endpoints' \
         certificate"
    )]
    ServerName {
        /// The upstream.
        upstream: Arc<str>,
        /// The name as given.
        name: String,
    },
    /// Two upstreams with one name.
    #[error("two upstreams are called `{upstream}`; rename one")]
    Twice {
        /// The upstream.
        upstream: Arc<str>,
    },
    /// A route to an upstream that is not there.
    #[error("no upstream is called `{upstream}`; a route names it")]
    Unknown {
        /// The upstream.
        upstream: Arc<str>,
    },
}

type Key = (Arc<str>, SocketAddr);

/// Remembers endpoints across reloads.
#[derive(Debug)]
pub struct Registry {
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    conditions: HashMap<Key, Weak<Condition>>,
    cursors: HashMap<Arc<str>, Weak<AtomicUsize>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, known: Mutex::default() })
    }

    /// The upstreams of a new snapshot, in the order of `defs`.
    ///
    /// # Errors
    ///
    /// If a definition says something that can never work; nothing has changed then.
    pub fn build(&self, defs: &[UpstreamDef]) -> Result<Vec<Arc<Upstream>>, BuildError> {
        let mut names = HashSet::with_capacity(defs.len());
        let mut known = self.known.lock();
        let mut upstreams = Vec::with_capacity(defs.len());
        for def in defs {
            if !names.insert(&*def.name) {
                return Err(BuildError::Twice { upstream: Arc::clone(&def.name) });
            }
            upstreams.push(Arc::new(known.build(&self.clock, def)?));
        }
        known.remember(&upstreams);
        Ok(upstreams)
    }
}

impl Known {
    fn build(&self, clock: &Clock, def: &UpstreamDef) -> Result<Upstream, BuildError> {
        if def.endpoints.is_empty() {
            return Err(BuildError::NoEndpoints { upstream: Arc::clone(&def.name) });
        }
        let trust = def.tls.as_ref().map(|tls| Trust::build(&def.name, tls)).transpose()?;
        let mut addresses = HashSet::with_capacity(def.endpoints.len());
        let mut endpoints = Vec::with_capacity(def.endpoints.len());
        for endpoint in &def.endpoints {
            let address = endpoint.address;
            if !addresses.insert(address) {
                return Err(BuildError::EndpointTwice { upstream: Arc::clone(&def.name), address });
            }
            let condition = self.condition(&(Arc::clone(&def.name), address), clock);
            endpoints.push(Arc::new(Endpoint::build(def, endpoint, trust.as_ref(), condition)?));
        }
        let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.weight()).collect();
        let balancer = Balancer::build(def.balance, &weights, self.cursor(&def.name));
        Ok(Upstream::new(def.clone(), endpoints, balancer))
    }

    fn condition(&self, key: &Key, clock: &Clock) -> Arc<Condition> {
        self.conditions
            .get(key)
            .and_then(Weak::upgrade)
            .unwrap_or_else(|| Arc::new(Condition::new(clock.clone())))
    }

    fn cursor(&self, upstream: &Arc<str>) -> Arc<AtomicUsize> {
        self.cursors.get(upstream).and_then(Weak::upgrade).unwrap_or_default()
    }

    fn remember(&mut self, upstreams: &[Arc<Upstream>]) {
        self.conditions.retain(|_, condition| condition.strong_count() > 0);
        self.cursors.retain(|_, cursor| cursor.strong_count() > 0);
        for upstream in upstreams {
            let name = upstream.name();
            self.cursors.insert(Arc::clone(name), Arc::downgrade(upstream.balancer().cursor()));
            for endpoint in upstream.endpoints() {
                let key = (Arc::clone(name), endpoint.address());
                self.conditions.insert(key, Arc::downgrade(&endpoint.condition));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstreams::definition::{HealthCheck, Probe, UpstreamTls};
    use crate::upstreams::fixture::{address, health, number, orders};
    use crate::upstreams::pick::{Failure, Tried};
    use crate::upstreams::vitals::Health;

    fn probed(endpoints: &[SocketAddr]) -> UpstreamDef {
        UpstreamDef { health: Some(health(Probe::Tcp)), ..orders(endpoints) }
    }

    fn one(registry: &Registry, def: &UpstreamDef) -> Arc<Upstream> {
        registry.build(std::slice::from_ref(def)).expect("a good definition").remove(0)
    }

    #[test]
    fn what_is_known_of_an_endpoint_survives_a_rebuild() {
        let registry = Registry::new(Clock::manual());
        let before = one(&registry, &probed(&[address(1), address(2)]));
        for _ in 0..3 {
            before.endpoints()[0].observe(false);
        }
        let mut held = before.pick(&Tried::default()).expect("an endpoint");
        held.failed(Failure::Connect);

        let mut def = probed(&[address(3), address(2), address(1)]);
        def.endpoints[2].weight = number(9);
        let after = one(&registry, &def);
        drop(before);

        let states: Vec<_> = after.states().map(|(_, state)| state).collect();
        assert_eq!((states[0].health, states[0].tries), (Health::Unknown, 0));
        assert_eq!((states[1].in_flight, states[1].failures), (1, 1));
        assert_eq!(states[2].health, Health::Unhealthy);
        drop(held);
        assert_eq!(after.states().nth(1).expect("an endpoint").1.in_flight, 0);
    }

    #[test]
    fn an_endpoint_that_nobody_names_is_forgotten() {
        let registry = Registry::new(Clock::manual());
        let first = one(&registry, &orders(&[address(1), address(2)]));
        for _ in 0..3 {
            first.endpoints()[0].condition.count_failure();
        }
        drop(first);
        drop(one(&registry, &orders(&[address(2)])));
        let again = one(&registry, &orders(&[address(1), address(2)]));
        assert_eq!(again.states().next().expect("an endpoint").1.failures, 0);
        assert_eq!(registry.known.lock().conditions.len(), 2);
    }

    #[test]
    fn the_same_address_in_two_upstreams_is_two_endpoints() {
        let registry = Registry::new(Clock::manual());
        let bills = UpstreamDef { name: "bills".into(), ..orders(&[address(1)]) };
        let both = registry.build(&[orders(&[address(1)]), bills]).expect("good definitions");
        let pick = both[0].pick(&Tried::default()).expect("an endpoint");
        assert_eq!(both[1].states().next().expect("an endpoint").1.in_flight, 0);
        drop(pick);
    }

    #[test]
    fn a_rebuild_goes_on_where_round_robin_stood() {
        let registry = Registry::new(Clock::manual());
        let def = orders(&[address(1), address(2), address(3)]);
        let mut upstream = one(&registry, &def);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(upstream.pick(&Tried::default()).expect("an endpoint").address());
            upstream = one(&registry, &def);
        }
        assert_eq!(seen, [address(1), address(2), address(3), address(1)]);
    }

    #[test]
    fn probes_of_an_older_snapshot_do_not_bind_one_without_probes() {
        let registry = Registry::new(Clock::manual());
        let before = one(&registry, &probed(&[address(1)]));
        for _ in 0..3 {
            before.endpoints()[0].observe(false);
        }
        let after = one(&registry, &orders(&[address(1)]));
        assert!(before.pick(&Tried::default()).is_err());
        assert!(after.pick(&Tried::default()).is_ok());
        assert!(after.states().all(|(_, state)| state.up()));
    }

    #[test]
    fn a_refused_build_says_what_where_and_what_to_do() {
        let tls = |server_name: &str, ca: Option<&[u8]>| {
            let ca = ca.map(|der| Arc::from([der.to_vec().into()]));
            Some(UpstreamTls { server_name: server_name.to_owned(), ca, verify: true })
        };
        let good = || orders(&[address(1)]);
        let probe = Probe::Http { path: "health".to_owned(), host: Some("a b".to_owned()) };
        let cases = [
            (orders(&[]), "upstream `orders` has no endpoints"),
            (orders(&[address(1), address(1)]), "endpoint `10.0.0.1:8080` twice"),
            (
                UpstreamDef { tls: tls("", None), ..good() },
                "`server_name` of upstream `orders` is ``",
            ),
            (UpstreamDef { tls: tls("a b", None), ..good() }, "is `a b`; give the name"),
            (
                UpstreamDef { tls: tls("a.test", Some(b"no certificate")), ..good() },
                "certificate 1 in `ca` of upstream `orders` cannot be used",
            ),
            (
                UpstreamDef {
                    tls: Some(UpstreamTls {
                        server_name: "a.test".to_owned(),
                        ca: Some(Arc::from([])),
                        verify: true,
                    }),
                    ..good()
                },
                "`ca` of upstream `orders` holds no certificate",
            ),
            (
                UpstreamDef { health: Some(HealthCheck { ..health(probe) }), ..good() },
                "cannot ask `a b` for `health`",
            ),
        ];
        let registry = Registry::new(Clock::manual());
        for (def, expected) in cases {
            let message = registry.build(&[def]).expect_err(expected).to_string();
            assert!(message.contains(expected), "{message}");
        }
        let twice = registry.build(&[good(), good()]).expect_err("a name twice").to_string();
        assert_eq!(twice, "two upstreams are called `orders`; rename one");
        assert!(registry.known.lock().conditions.is_empty());
    }
}
