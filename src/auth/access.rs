//! What a policy asks of a request beside a good credential: who calls, on which plan, with which
//! scopes, from where.
//!
//! Must stay true: [`Access::check`] does not allocate, and what asks for a caller lets nobody
//! through who is unknown.

use super::identity::Caller;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Conditions; all of them must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Scopes that the credential must carry, all of them.
    pub scopes: Vec<Arc<str>>,
    /// Names of plans, one of which the caller must have; `None`: any will do.
    pub plans: Option<Names>,
    /// Names of consumers, one of which the caller must be; `None`: anyone will do.
    pub consumers: Option<Names>,
    /// Networks, in one of which the client's address must be; `None`: from anywhere.
    pub addresses: Option<Vec<IpNet>>,
    /// Networks that the client's address must not be in.
    pub deny_addresses: Vec<IpNet>,
}

/// A set of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Box<[Arc<str>]>);

impl FromIterator<Arc<str>> for Names {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(names: I) -> Self {
        let mut names: Vec<Arc<str>> = names.into_iter().collect();
        names.sort();
        names.dedup();
        Self(names.into())
    }
}

impl Names {
    /// Whether this name is one of them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }
}

/// A condition that is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The client's address is not among those let through, or among those that are not.
    Address,
    /// Another consumer, or nobody.
    Consumer,
    /// A consumer of another plan, or nobody.
    Plan,
    /// A credential without one of the scopes, or none.
    Scopes,
    /// The policy's own expression is not true.
    When,
}

impl Access {
    /// Whether a request without a caller can never meet it.
    #[must_use]
    pub fn asks_for_a_caller(&self) -> bool {
        !self.scopes.is_empty() || self.plans.is_some() || self.consumers.is_some()
    }

    /// Checks a request of `caller` from `address`.
    ///
    /// # Errors
    /// The first condition that is not met: where from, who, on which plan, with which scopes.
    pub fn check(&self, caller: Option<&Caller>, address: IpAddr) -> Result<(), Unmet> {
        let among = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        if among(&self.deny_addresses) || self.addresses.as_deref().is_some_and(|nets| !among(nets))
        {
            return Err(Unmet::Address);
        }
        let is = |names: &Option<Names>, name: fn(&Caller) -> &str| match names {
            Some(names) => caller.is_some_and(|caller| names.contains(name(caller))),
            None => true,
        };
        if !is(&self.consumers, |caller| &caller.consumer.username) {
            return Err(Unmet::Consumer);
        }
        if !is(&self.plans, |caller| &caller.plan) {
            return Err(Unmet::Plan);
        }
        let has = |scope: &Arc<str>| caller.is_some_and(|caller| caller.scopes.contains(scope));
        if self.scopes.iter().all(has) { Ok(()) } else { Err(Unmet::Scopes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Consumer, Credential, Fields};

    fn caller(username: &str, plan: &str, scopes: &[&str]) -> Caller {
        Caller {
            consumer: Arc::new(Consumer {
                id: "c1".into(),
                username: username.into(),
                custom_id: None,
                plan: "other".into(),
                policies: Arc::default(),
                enabled: true,
            }),
            credential: Credential::ApiKey("0123456789abcdef".into()),
            plan: plan.into(),
            scopes: scopes.iter().map(|scope| Arc::from(*scope)).collect(),
            claims: Arc::default(),
            fields: Fields::default(),
        }
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn names(list: &[&str]) -> Option<Names> {
        Some(list.iter().map(|name| Arc::from(*name)).collect())
    }

    #[test]
    fn every_condition_must_be_met_and_the_first_that_is_not_is_told() {
        let access = Access {
            scopes: vec!["read".into(), "write".into()],
            plans: names(&["pro", "gold"]),
            consumers: names(&["zoe", "acme"]),
            addresses: Some(nets(&["10.0.0.0/8", "2001:db8::/32"])),
            deny_addresses: nets(&["10.9.0.0/16"]),
        };
        let good = caller("acme", "gold", &["write", "more", "read"]);
        let table = [
            (Some(&good), "10.1.2.3", Ok(())),
            (Some(&good), "2001:db8::7", Ok(())),
            (Some(&good), "192.0.2.1", Err(Unmet::Address)),
            (Some(&good), "10.9.2.3", Err(Unmet::Address)),
            (Some(&caller("bob", "gold", &["read", "write"])), "10.1.2.3", Err(Unmet::Consumer)),
            (Some(&caller("zoe", "other", &["read", "write"])), "10.1.2.3", Err(Unmet::Plan)),
            (Some(&caller("zoe", "pro", &["read"])), "10.1.2.3", Err(Unmet::Scopes)),
            (None, "10.1.2.3", Err(Unmet::Consumer)),
        ];
        for (caller, address, expected) in table {
            assert_eq!(access.check(caller, address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn nobody_meets_a_condition_that_asks_for_a_caller() {
        let address = "192.0.2.1".parse().unwrap();
        let table = [
            (Access { scopes: vec!["read".into()], ..Access::default() }, Unmet::Scopes),
            (Access { plans: names(&["pro"]), ..Access::default() }, Unmet::Plan),
            (Access { consumers: names(&["acme"]), ..Access::default() }, Unmet::Consumer),
        ];
        for (access, unmet) in table {
            assert!(access.asks_for_a_caller());
            assert_eq!(access.check(None, address), Err(unmet));
        }
        let open = Access { deny_addresses: nets(&["198.51.100.0/24"]), ..Access::default() };
        assert!(!open.asks_for_a_caller() && open.check(None, address).is_ok());
    }
}
