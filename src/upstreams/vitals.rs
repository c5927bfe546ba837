//! Active health: what the probes of one endpoint found.
//!
//! A new endpoint is *unknown*, and used: waiting for the first probes would turn every start and
//! every added endpoint into an outage. It takes `unhealthy_after` bad answers in a row to leave it
//! out, and `healthy_after` good ones to bring it back.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use super::definition::HealthCheck;

/// What the probes say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Not enough probes yet, or none at all; used.
    #[default]
    Unknown = 0,
    /// Used.
    Healthy = 1,
    /// Left out.
    Unhealthy = 2,
}

/// The active health of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    health: AtomicU8,
    streak: Mutex<Streak>,
}

/// Answers of one kind in a row.
#[derive(Debug, Default)]
struct Streak {
    good: bool,
    length: u32,
}

impl Vitals {
    /// What the probes say.
    pub(super) fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            1 => Health::Healthy,
            2 => Health::Unhealthy,
            _ => Health::Unknown,
        }
    }

    /// Takes a probe's answer; the new health if it changed.
    pub(super) fn observe(&self, good: bool, rules: &HealthCheck) -> Option<Health> {
        let mut streak = self.streak.lock();
        if streak.good != good {
            *streak = Streak { good, length: 0 };
        }
        streak.length = streak.length.saturating_add(1);
        let (needed, next) = if good {
            (rules.healthy_after, Health::Healthy)
        } else {
            (rules.unhealthy_after, Health::Unhealthy)
        };
        if streak.length < needed.get() || self.health() == next {
            return None;
        }
        self.health.store(next as u8, Ordering::Release);
        Some(next)
    }

    /// Back to unknown, when nobody probes any more.
    pub(super) fn forget(&self) {
        let mut streak = self.streak.lock();
        *streak = Streak::default();
        self.health.store(Health::Unknown as u8, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstreams::definition::Probe;
    use crate::upstreams::fixture::health;

    #[test]
    fn answers_change_health_only_when_enough_are_alike_in_a_row() {
        // `+` is a good answer, `-` a bad one; two and three are needed.
        for (answers, expected) in [
            ("", Health::Unknown),
            ("+", Health::Unknown),
            ("++", Health::Healthy),
            ("--", Health::Unknown),
            ("---", Health::Unhealthy),
            ("--+--+--", Health::Unknown),
            ("++--", Health::Healthy),
            ("++---", Health::Unhealthy),
            ("---+", Health::Unhealthy),
            ("---+-+", Health::Unhealthy),
            ("---++", Health::Healthy),
        ] {
            let vitals = Vitals::default();
            for answer in answers.chars() {
                vitals.observe(answer == '+', &health(Probe::Tcp));
            }
            assert_eq!(vitals.health(), expected, "{answers}");
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let vitals = Vitals::default();
        let told: Vec<_> =
            (0..6).filter_map(|_| vitals.observe(false, &health(Probe::Tcp))).collect();
        assert_eq!(told, [Health::Unhealthy]);
    }
}
