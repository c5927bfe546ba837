//! How many may be here at once: connections in all and of one address, requests in flight.
//!
//! Over its caps a process still has to say so, and the load balancer has to get its answer. So
//! some connections above the cap are let in as *spare*: each is answered once, for health or with
//! 503, and soon gone. Half of the spare places are for those who ask for health, which come from
//! the load balancer or from this machine.
//!
//! Must stay true: of an address nothing is kept but the number of its open connections.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether memory is short: then nobody new is let on, and who does not read has little time.
#[derive(Debug, Default)]
pub struct Pressure(AtomicBool);

impl Pressure {
    /// Says so; whether that is new.
    pub fn set(&self, on: bool) -> bool {
        self.0.swap(on, Ordering::Relaxed) != on
    }

    /// Whether it is so.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Connections above the cap that are heard once.
pub const SPARE: usize = 256;

/// Who wants to come in, and what the configuration says of it.
#[derive(Clone, Copy, Debug)]
pub struct Comer {
    /// The other end of the connection.
    pub address: IpAddr,
    /// Whether it is a trusted proxy: it speaks for many.
    pub trusted: bool,
    /// Connections in all.
    pub max: usize,
    /// Connections of one address.
    pub max_per_address: usize,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Its address has too many.
    Address,
    /// There are too many in all, and too many to tell them so.
    Process,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// Its connection is above `http.max_connections`.
    Connections,
    /// Memory is short of `http.max_memory`.
    Memory,
    /// As many are in flight as `http.max_requests` says.
    Requests,
}

impl Crowded {
    /// The setting that says so, for the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Memory => "max_memory",
            Self::Requests => "max_requests",
        }
    }
}

/// A place that was found for a connection.
#[derive(Debug)]
pub(super) struct Place {
    /// Above the cap: to be answered once.
    pub(super) spare: bool,
    counted: Option<Origin>,
}

/// What counts as one address: of IPv6 the /64, since a client has at least that many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Everyone who is here.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    connections: AtomicUsize,
    origins: Mutex<HashMap<Origin, usize>>,
    requests: AtomicUsize,
    pub(super) pressure: Arc<Pressure>,
}

impl Crowd {
    /// Lets a connection in, until [`Crowd::leave`].
    pub(super) fn enter(&self, comer: &Comer) -> Result<Place, Full> {
        let others = self.connections.fetch_add(1, Ordering::Relaxed);
        let near = comer.trusted || comer.address.to_canonical().is_loopback();
        let spare = if near { SPARE } else { SPARE / 2 };
        let entered = if others >= comer.max.saturating_add(spare) {
            Err(Full::Process)
        } else if comer.trusted {
            Ok(None)
        } else {
            let origin = Origin::from(comer.address);
            self.count(origin, comer.max_per_address).map(|()| Some(origin))
        };
        match entered {
            Ok(counted) => Ok(Place { spare: others >= comer.max, counted }),
            Err(full) => {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                Err(full)
            }
        }
    }

    fn count(&self, origin: Origin, max: usize) -> Result<(), Full> {
        let mut origins = self.origins.lock();
        let open = origins.entry(origin).or_default();
        if *open >= max {
            return Err(Full::Address);
        }
        *open += 1;
        Ok(())
    }

    pub(super) fn leave(&self, place: &Place) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(origin) = place.counted else { return };
        let mut origins = self.origins.lock();
        if let Some(open) = origins.get_mut(&origin) {
            *open -= 1;
            if *open == 0 {
                origins.remove(&origin);
            }
        }
    }

    /// Lets a request in, until [`Crowd::finish`]; or says why not.
    pub(super) fn begin(&self, max: usize) -> Result<(), Crowded> {
        let others = self.requests.fetch_add(1, Ordering::Relaxed);
        let crowded = if self.pressure.is_on() {
            Crowded::Memory
        } else if others >= max {
            Crowded::Requests
        } else {
            return Ok(());
        };
        self.finish();
        Err(crowded)
    }

    pub(super) fn finish(&self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    /// Open connections.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comer(address: &str, trusted: bool) -> Comer {
        Comer { address: address.parse().unwrap(), trusted, max: 3, max_per_address: 2 }
    }

    #[test]
    fn an_address_has_its_own_number_and_is_forgotten_with_its_last_connection() {
        let crowd = Crowd::default();
        let one = crowd.enter(&comer("192.0.2.1", false)).unwrap();
        let two = crowd.enter(&comer("::ffff:192.0.2.1", false)).unwrap();
        assert_eq!(crowd.enter(&comer("192.0.2.1", false)).unwrap_err(), Full::Address);
        let other = crowd.enter(&comer("192.0.2.2", false)).unwrap();
        assert_eq!(crowd.connections(), 3);
        crowd.leave(&one);
        let again = crowd.enter(&comer("192.0.2.1", false)).unwrap();
        assert!(!again.spare);
        for place in [two, other, again] {
            crowd.leave(&place);
        }
        assert_eq!(crowd.connections(), 0);
        assert!(crowd.origins.lock().is_empty());
    }

    #[test]
    fn of_ipv6_a_network_is_one_address() {
        let crowd = Crowd::default();
        for address in ["2001:db8::1", "2001:db8::ffff:1"] {
            crowd.enter(&comer(address, false)).unwrap();
        }
        assert_eq!(crowd.enter(&comer("2001:db8::2", false)).unwrap_err(), Full::Address);
        crowd.enter(&comer("2001:db8:0:1::1", false)).unwrap();
    }

    #[test]
    fn a_proxy_that_is_trusted_speaks_for_many() {
        let crowd = Crowd::default();
        let places: Vec<_> =
            (0..3).map(|_| crowd.enter(&comer("10.0.0.1", true)).unwrap()).collect();
        assert!(places.iter().all(|place| !place.spare));
        assert!(crowd.origins.lock().is_empty());
    }

    #[test]
    fn above_the_cap_some_are_heard_and_the_load_balancer_longest() {
        let crowd = Crowd::default();
        let stranger = |n: usize| IpAddr::from([192, 0, 2, u8::try_from(n % 250).unwrap()]);
        let enter = |n, trusted| {
            crowd.enter(&Comer { address: stranger(n), trusted, max: 3, max_per_address: 9 })
        };
        for n in 0..3 {
            assert!(!enter(n, false).unwrap().spare);
        }
        for n in 0..SPARE / 2 {
            assert!(enter(n, false).unwrap().spare);
        }
        assert_eq!(enter(0, false).unwrap_err(), Full::Process);
        for n in 0..SPARE / 2 {
            assert!(enter(n, true).unwrap().spare);
        }
        assert_eq!(enter(0, true).unwrap_err(), Full::Process);
    }

    #[test]
    fn who_is_refused_takes_no_place_of_a_request() {
        let crowd = Crowd::default();
        let begin = || crowd.begin(2);
        assert_eq!([begin(), begin()], [Ok(()); 2]);
        assert_eq!([begin(), begin()], [Err(Crowded::Requests); 2]);
        crowd.finish();
        assert_eq!([begin(), begin()], [Ok(()), Err(Crowded::Requests)]);
        crowd.finish();
        assert!(crowd.pressure.set(true) && !crowd.pressure.set(true));
        assert_eq!(begin(), Err(Crowded::Memory));
        crowd.pressure.set(false);
        assert_eq!(begin(), Ok(()));
    }
}
