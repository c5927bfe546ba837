//! The time, given to whoever needs it, so that a test can move it.
//!
//! Must stay true: this is the only file of the request path that asks the system for the time.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point on a [`Clock`]'s monotonic time line: nanoseconds since an origin of the clock's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the clock's origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

/// Monotonic time and wall-clock time from one hand.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System { origin: Instant },
    Manual { nanos: Arc<AtomicU64>, unix_origin: Duration },
}

/// Far from zero, so that `moment - duration` in the first seconds does not saturate.
const ORIGIN_NANOS: u64 = 1 << 50;

impl Clock {
    /// The machine's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    pub fn system() -> Self {
        Self(Kind::System { origin: Instant::now() })
    }

    /// A clock that stands still until [`Clock::advance`] moves it; clones move together.
    #[must_use]
    pub fn manual() -> Self {
        Self(Kind::Manual {
            nanos: Arc::new(AtomicU64::new(0)),
            unix_origin: Duration::from_secs(1_800_000_000),
        })
    }

    /// Now, on the monotonic time line.
    #[must_use]
    pub fn now(&self) -> Moment {
        let nanos = match &self.0 {
            Kind::System { origin } => {
                u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }
            Kind::Manual { nanos, .. } => nanos.load(Ordering::SeqCst),
        };
        Moment(nanos.saturating_add(ORIGIN_NANOS))
    }

    /// Wall-clock time since 1970-01-01T00:00:00Z.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    pub fn unix_time(&self) -> Duration {
        match &self.0 {
            Kind::System { .. } => {
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
            }
            Kind::Manual { nanos, unix_origin } => {
                *unix_origin + Duration::from_nanos(nanos.load(Ordering::SeqCst))
            }
        }
    }

    /// Moves a manual clock forward; a system clock moves by itself and ignores this.
    pub fn advance(&self, span: Duration) {
        if let Kind::Manual { nanos, .. } = &self.0 {
            let step = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            nanos.fetch_add(step, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_its_clones_with_it() {
        let clock = Clock::manual();
        let twin = clock.clone();
        let (before, wall) = (clock.now(), clock.unix_time());
        twin.advance(Duration::from_millis(1500));
        assert_eq!(clock.now().since(before), Duration::from_millis(1500));
        assert_eq!(clock.unix_time() - wall, Duration::from_millis(1500));
    }
}
