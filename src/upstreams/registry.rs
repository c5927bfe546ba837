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
