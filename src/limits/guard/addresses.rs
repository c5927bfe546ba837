//! What is known of addresses: it outlives every snapshot.
//!
//! Must stay true: nobody outside can look for two addresses that are counted together, since what
//! is counted is a hash under a secret of the process; a sketch is made only for a check that is on,
//! and never on the request path.

use super::super::rule::Period;
use super::sketch::{self, Recent};
use crate::telemetry::Clock;
use pingora_limits::estimator::Estimator;
use siphasher::sip::SipHasher13;
use std::fmt;
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// Counts of addresses. One for each process.
pub struct Addresses {
    clock: Clock,
    hasher: SipHasher13,
    requests: BySpan,
    failed_tries: BySpan,
    in_flight: OnceLock<Arc<Estimator>>,
}

/// A sketch for each period that a rate can have.
#[derive(Default)]
struct BySpan {
    second: OnceLock<Arc<Recent>>,
    longer: OnceLock<Arc<Recent>>,
}

impl BySpan {
    fn of(&self, per: Period) -> Arc<Recent> {
        let (place, per) = match per {
            Period::Second => (&self.second, Period::Second),
            Period::Day | Period::Hour | Period::Minute => (&self.longer, Period::Minute),
        };
        Arc::clone(place.get_or_init(|| Arc::new(Recent::new(per.span()))))
    }
}

impl Addresses {
    /// Nothing is counted yet. The secret hides which addresses are counted together.
    #[must_use]
    pub fn new(clock: Clock, secret: &[u8; 16]) -> Arc<Self> {
        Arc::new(Self {
            clock,
            hasher: SipHasher13::new_with_key(secret),
            requests: BySpan::default(),
            failed_tries: BySpan::default(),
            in_flight: OnceLock::new(),
        })
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn requests(&self, per: Period) -> Arc<Recent> {
        self.requests.of(per)
    }

    pub(super) fn failed_tries(&self, per: Period) -> Arc<Recent> {
        self.failed_tries.of(per)
    }

    pub(super) fn in_flight(&self) -> Arc<Estimator> {
        Arc::clone(self.in_flight.get_or_init(|| Arc::new(sketch::estimator())))
    }

    /// What an address is counted under. IPv6 counts by /64, since a client has at least that many.
    pub(super) fn key(&self, address: IpAddr) -> u64 {
        let mut hasher = self.hasher;
        match address.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&(address.to_bits() >> 64).to_be_bytes()),
        }
        hasher.finish()
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").finish_non_exhaustive()
    }
}
