//! What one client address may do before anybody knows who calls: how fast, how much at once, and how
//! often with a credential that is not good.
//!
//! ```text
//! GuardDef ─new─▶ Guard ─┬─ enter ─▶ Permit (in flight until it is dropped) │ Limited
//!                        └─ may_try, tried_in_vain                          │ Limited
//!                 Addresses: the sketches, which outlive every snapshot
//! ```
//!
//! Addresses are without number, so they are counted in sketches of a fixed size (see `sketch`).
//!
//! Must stay true: memory does not grow with the number of addresses; what is refused is not counted,
//! so that whoever goes on asking gets what its limit allows; nothing is allocated unless a guard in
//! shadow mode would refuse.

mod addresses;
mod sketch;
#[cfg(test)]
mod tests;

pub use addresses::Addresses;
pub use sketch::LEAST;

use super::rule::{Mode, Rate};
use crate::telemetry::Clock;
use crate::telemetry::metrics::{Metrics, RuleMetrics};
use ipnet::IpNet;
use pingora_limits::estimator::Estimator;
use sketch::Recent;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// `[address_guard]`, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardDef {
    /// Requests of one address.
    pub rate: Option<Rate>,
    /// Requests of one address that are under way at once.
    pub in_flight: Option<u32>,
    /// Credentials of one address that are refused.
    pub failed_tries: Option<Rate>,
    /// Whether it refuses.
    pub mode: Mode,
    /// Networks that are not counted.
    pub exempt: Vec<IpNet>,
}

/// What of an address was too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Credentials that were refused.
    FailedTries,
    /// Requests at once.
    InFlight,
    /// Requests in a time.
    Rate,
}

impl Check {
    /// As metrics and the access log name it.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::FailedTries => "guard/address/failed_tries",
            Self::InFlight => "guard/address/in_flight",
            Self::Rate => "guard/address/rate",
        }
    }
}

/// An address must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much comes from one address")]
pub struct Limited {
    /// Of what.
    pub check: Check,
    /// When there is room again, if nothing else comes from there.
    pub retry_after: Duration,
}

/// The guard of one configuration.
pub struct Guard {
    addresses: Arc<Addresses>,
    exempt: Vec<IpNet>,
    shadow: bool,
    rate: Option<Flow>,
    failed_tries: Option<Flow>,
    in_flight: Option<(u32, Arc<Estimator>)>,
    checks: [(Check, Arc<str>, RuleMetrics); 3],
}

/// So many in a time.
struct Flow {
    most: u32,
    recent: Arc<Recent>,
}

impl Guard {
    /// Guards as `definition` says; what was counted before goes on to count.
    #[must_use]
    pub fn new(definition: &GuardDef, addresses: &Arc<Addresses>, metrics: &Metrics) -> Self {
        let is_on = definition.mode != Mode::Off;
        let flow = |rate: &Rate, recent| Flow { most: rate.permits.get(), recent };
        let rate = definition.rate.as_ref().filter(|_| is_on);
        let tries = definition.failed_tries.as_ref().filter(|_| is_on);
        let in_flight = definition.in_flight.filter(|_| is_on);
        Self {
            exempt: definition.exempt.clone(),
            shadow: definition.mode == Mode::Shadow,
            rate: rate.map(|rate| flow(rate, addresses.requests(rate.per))),
            failed_tries: tries.map(|rate| flow(rate, addresses.failed_tries(rate.per))),
            in_flight: in_flight.map(|most| (most, addresses.in_flight())),
            checks: [Check::FailedTries, Check::InFlight, Check::Rate]
                .map(|check| (check, check.id().into(), metrics.rule(check.id()))),
            addresses: Arc::clone(addresses),
        }
    }

    /// Lets a request of `address` in, or adds to `would_refuse` what would have kept it out.
    ///
    /// # Errors
    /// Too many of its requests are under way, or came of late.
    pub fn enter(
        &self,
        address: IpAddr,
        would_refuse: &mut Vec<Arc<str>>,
    ) -> Result<Option<Permit>, Limited> {
        if (self.rate.is_none() && self.in_flight.is_none()) || self.is_exempt(address) {
            return Ok(None);
        }
        let key = self.addresses.key(address);
        let permit = match &self.in_flight {
            Some((most, in_flight)) => {
                let permit = Permit::take(in_flight, key, *most);
                if permit.is_none() {
                    self.refuse(Check::InFlight, Duration::ZERO, would_refuse)?;
                }
                permit
            }
            None => None,
        };
        if let Some(Flow { most, recent }) = &self.rate {
            match recent.take(key, *most, self.clock().now()) {
                Ok(()) => {}
                Err(wait) => self.refuse(Check::Rate, wait, would_refuse)?,
            }
        }
        Ok(permit)
    }

    /// Whether `address` may have a credential looked up or verified that is not known to be good.
    ///
    /// # Errors
    /// Too many of its credentials were refused of late.
    pub fn may_try(
        &self,
        address: IpAddr,
        would_refuse: &mut Vec<Arc<str>>,
    ) -> Result<(), Limited> {
        let Some(Flow { most, recent }) = &self.failed_tries else { return Ok(()) };
        if self.is_exempt(address) {
            return Ok(());
        }
        match recent.wait(self.addresses.key(address), *most, self.clock().now()) {
            None => Ok(()),
            Some(wait) => self.refuse(Check::FailedTries, wait, would_refuse),
        }
    }

    /// A credential of `address` was refused. Those that were under way together when there was room
    /// for one count all, so that what was too much is too much for later.
    pub fn tried_in_vain(&self, address: IpAddr) {
        let Some(Flow { most, recent }) = &self.failed_tries else { return };
        if self.is_exempt(address) {
            return;
        }
        let (key, now) = (self.addresses.key(address), self.clock().now());
        // In the shadow most of what is above the limit would have been refused unheard.
        if !self.shadow || recent.wait(key, *most, now).is_none() {
            recent.add(key, now);
        }
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(&address))
    }

    fn clock(&self) -> &Clock {
        self.addresses.clock()
    }

    fn refuse(
        &self,
        check: Check,
        retry_after: Duration,
        would_refuse: &mut Vec<Arc<str>>,
    ) -> Result<(), Limited> {
        let counted = self.checks.iter().find(|(one, ..)| *one == check);
        if !self.shadow {
            counted.into_iter().for_each(|(_, _, metrics)| metrics.refused());
            return Err(Limited { check, retry_after });
        }
        if let Some((_, id, metrics)) = counted {
            metrics.shadow();
            would_refuse.push(Arc::clone(id));
        }
        Ok(())
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("shadow", &self.shadow).finish_non_exhaustive()
    }
}

/// A place of an address, which is free again when this is dropped.
#[must_use]
pub struct Permit {
    in_flight: Arc<Estimator>,
    key: u64,
}

impl Permit {
    /// Takes one of `most` places.
    fn take(in_flight: &Arc<Estimator>, key: u64, most: u32) -> Option<Self> {
        let taken = in_flight.incr(key, 1);
        let permit = Self { in_flight: Arc::clone(in_flight), key };
        (taken <= isize::try_from(most).unwrap_or(isize::MAX)).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.decr(self.key, 1);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}
