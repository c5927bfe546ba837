//! Passive health: an endpoint that fails requests is left out for a while.
//!
//! After `failures` in a row an endpoint is *ejected* for `base`, the next time for twice as long,
//! up to `max`; each `max` spent in use takes one doubling back. When the time is over, exactly one
//! request goes there as a *trial*: it brings the endpoint back, or ejects it again at once. So
//! a dead endpoint costs `failures` tries, and after that one try per ejection.
//!
//! Requests that were on their way when the endpoint was ejected say nothing new: their outcome
//! carries an old generation and is ignored.
//!
//! Must stay true: the usual case (in use, no failures) reads two atomics, and takes no lock and no
//! time; a trial that ends without an outcome (a client that left) gives its place to the next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::definition::Ejection;
use crate::telemetry::{Clock, Moment};

/// In use.
const IN: u64 = 0;
/// A trial may begin, whatever the time.
const DUE: u64 = 1;
/// A trial is running.
const TRIAL: u64 = u64::MAX;

/// Whether requests may go to an endpoint, as far as their outcomes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// In use.
    In,
    /// Ejected, but one request may try it.
    Due,
    /// Ejected.
    Out,
}

/// The right to report an outcome, and how much it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    kind: Kind,
    generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The endpoint was in use.
    Regular,
    /// The one request that finds out whether the endpoint is back.
    Trial,
    /// There was no better endpoint than an ejected one.
    Forced,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Left out for this long.
    Ejected(Duration),
    /// In use again.
    Readmitted,
}

/// The passive health of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Outlier {
    /// [`IN`], [`DUE`], [`TRIAL`], or the moment at which the ejection ends.
    gate: AtomicU64,
    /// Generation (one more with each ejection) and failures in a row.
    streak: AtomicU64,
    /// Held for every change of `streak`, and of `gate` except the claim of a trial.
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// How often the next ejection's time is doubled.
    doublings: u32,
    /// When the endpoint came back the last time.
    readmitted: Moment,
}

impl Outlier {
    /// Where the endpoint stands.
    pub(super) fn standing(&self, clock: &Clock) -> Standing {
        match self.gate.load(Ordering::Acquire) {
            IN => Standing::In,
            TRIAL => Standing::Out,
            until if until <= clock.now().as_nanos() => Standing::Due,
            _ => Standing::Out,
        }
    }

    /// Starts a request, as a trial if one is due; `None` if another was faster.
    pub(super) fn enter(&self, clock: &Clock) -> Option<Ticket> {
        let gate = self.gate.load(Ordering::Acquire);
        if gate == IN {
            return Some(self.ticket(Kind::Regular));
        }
        if gate == TRIAL || gate > clock.now().as_nanos() {
            return None;
        }
        self.gate
            .compare_exchange(gate, TRIAL, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            .then(|| self.ticket(Kind::Trial))
    }

    /// Starts a request although the endpoint may be ejected.
    pub(super) fn force(&self) -> Ticket {
        self.ticket(Kind::Forced)
    }

    /// The endpoint began to answer: if it was ejected, it is back.
    pub(super) fn responded(&self, ticket: Ticket, clock: &Clock) -> Option<Change> {
        if ticket.kind == Kind::Regular {
            return None;
        }
        let mut record = self.record.lock();
        if self.generation() != ticket.generation || self.gate.load(Ordering::Acquire) == IN {
            return None;
        }
        record.readmitted = clock.now();
        self.gate.store(IN, Ordering::Release);
        Some(Change::Readmitted)
    }

    /// The endpoint did all that it should: its failures so far are forgotten.
    pub(super) fn succeeded(&self, ticket: Ticket, clock: &Clock) -> Option<Change> {
        let change = self.responded(ticket, clock);
        let (generation, failures) = unpack(self.streak.load(Ordering::Acquire));
        if generation == ticket.generation && failures > 0 {
            let _record = self.record.lock();
            if self.generation() == ticket.generation {
                self.streak.store(pack(ticket.generation, 0), Ordering::Release);
            }
        }
        change
    }

    /// The endpoint failed a request.
    pub(super) fn failed(&self, ticket: Ticket, rules: &Ejection, clock: &Clock) -> Option<Change> {
        let mut record = self.record.lock();
        let (generation, failures) = unpack(self.streak.load(Ordering::Acquire));
        if generation != ticket.generation {
            return None;
        }
        let in_use = self.gate.load(Ordering::Acquire) == IN;
        let now = clock.now();
        if in_use {
            let failures = failures.saturating_add(1);
            if failures < rules.failures.get() {
                self.streak.store(pack(generation, failures), Ordering::Release);
                return None;
            }
            record.decay(rules, now);
        } else if ticket.kind != Kind::Trial {
            return None;
        }
        self.streak.store(pack(generation.wrapping_add(1), 0), Ordering::Release);
        let span = record.eject(rules);
        self.gate.store((now + span).as_nanos().clamp(DUE, TRIAL - 1), Ordering::Release);
        Some(Change::Ejected(span))
    }

    /// The request ended and says nothing about the endpoint.
    pub(super) fn abandon(&self, ticket: Ticket) {
        if ticket.kind != Kind::Trial {
            return;
        }
        let _record = self.record.lock();
        if self.generation() == ticket.generation && self.gate.load(Ordering::Acquire) == TRIAL {
            self.gate.store(DUE, Ordering::Release);
        }
    }

    fn generation(&self) -> u32 {
        unpack(self.streak.load(Ordering::Acquire)).0
    }

    fn ticket(&self, kind: Kind) -> Ticket {
        Ticket { kind, generation: self.generation() }
    }
}

impl Record {
    /// Takes a doubling back for each `max` in use.
    fn decay(&mut self, rules: &Ejection, now: Moment) {
        let good = now.since(self.readmitted).as_nanos() / rules.max.as_nanos().max(1);
        self.doublings = self.doublings.saturating_sub(u32::try_from(good).unwrap_or(u32::MAX));
    }

    /// How long this ejection lasts; the next one is longer.
    fn eject(&mut self, rules: &Ejection) -> Duration {
        let factor = 1_u32.checked_shl(self.doublings).unwrap_or(u32::MAX);
        let span = rules.base.saturating_mul(factor).min(rules.max);
        if span < rules.max {
            self.doublings = self.doublings.saturating_add(1);
        }
        span
    }
}

const fn pack(generation: u32, failures: u32) -> u64 {
    ((generation as u64) << 32) | failures as u64
}

const fn unpack(streak: u64) -> (u32, u32) {
    ((streak >> 32) as u32, (streak & 0xffff_ffff) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstreams::fixture::ejection;

    const SECOND: Duration = Duration::from_secs(1);

    struct Bench {
        outlier: Outlier,
        clock: Clock,
    }

    impl Bench {
        fn new() -> Self {
            Self { outlier: Outlier::default(), clock: Clock::manual() }
        }

        fn enter(&self) -> Ticket {
            self.outlier.enter(&self.clock).expect("the endpoint may be used")
        }

        fn fail(&self, ticket: Ticket) -> Option<Change> {
            self.outlier.failed(ticket, &ejection(), &self.clock)
        }

        fn succeed(&self, ticket: Ticket) -> Option<Change> {
            self.outlier.succeeded(ticket, &self.clock)
        }

        fn standing(&self) -> Standing {
            self.outlier.standing(&self.clock)
        }

        /// Ejects an endpoint that is in use; how long for.
        fn eject(&self) -> Duration {
            for _ in 0..2 {
                assert_eq!(self.fail(self.enter()), None);
            }
            self.ejected(self.fail(self.enter()))
        }

        fn ejected(&self, change: Option<Change>) -> Duration {
            assert_eq!(self.standing(), Standing::Out);
            match change {
                Some(Change::Ejected(span)) => span,
                other => panic!("not ejected: {other:?}"),
            }
        }
    }

    #[test]
    fn failures_eject_only_when_they_are_in_a_row() {
        let bench = Bench::new();
        for _ in 0..5 {
            for _ in 0..2 {
                assert_eq!(bench.fail(bench.enter()), None);
            }
            assert_eq!(bench.succeed(bench.enter()), None);
        }
        assert_eq!(bench.eject(), SECOND);
    }

    #[test]
    fn each_repetition_lasts_twice_as_long_up_to_the_longest() {
        let bench = Bench::new();
        let mut span = bench.eject();
        let mut spans = vec![span.as_secs()];
        for _ in 0..6 {
            bench.clock.advance(span);
            span = bench.ejected(bench.fail(bench.enter()));
            spans.push(span.as_secs());
        }
        assert_eq!(spans, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_good_time_takes_doublings_back() {
        for (good, next) in [(0, 8), (29, 8), (30, 4), (60, 2), (90, 1), (900, 1)] {
            let bench = Bench::new();
            let mut span = bench.eject();
            for _ in 0..2 {
                bench.clock.advance(span);
                span = bench.ejected(bench.fail(bench.enter()));
            }
            bench.clock.advance(span);
            assert_eq!(bench.succeed(bench.enter()), Some(Change::Readmitted));
            bench.clock.advance(Duration::from_secs(good));
            assert_eq!(bench.eject().as_secs(), next, "after {good} s");
        }
    }

    #[test]
    fn one_request_at_a_time_tries_an_ejected_endpoint() {
        let bench = Bench::new();
        let span = bench.eject();
        bench.clock.advance(span - Duration::from_nanos(1));
        assert_eq!(bench.outlier.enter(&bench.clock), None);
        bench.clock.advance(Duration::from_nanos(1));
        assert_eq!(bench.standing(), Standing::Due);
        let trial = bench.enter();
        assert_eq!(bench.outlier.enter(&bench.clock), None);
        assert_eq!(bench.standing(), Standing::Out);
        assert_eq!(bench.succeed(trial), Some(Change::Readmitted));
        assert_eq!(bench.standing(), Standing::In);
    }

    #[test]
    fn a_trial_that_is_given_up_leaves_its_place() {
        let bench = Bench::new();
        bench.clock.advance(bench.eject());
        let trial = bench.enter();
        bench.outlier.abandon(trial);
        assert_eq!(bench.standing(), Standing::Due);
        let next = bench.enter();
        assert_eq!(bench.succeed(next), Some(Change::Readmitted));
    }

    #[test]
    fn requests_from_before_an_ejection_say_nothing() {
        let bench = Bench::new();
        let late = [bench.enter(), bench.enter()];
        bench.clock.advance(bench.eject());
        assert_eq!(bench.fail(late[0]), None);
        assert_eq!(bench.succeed(late[1]), None);
        assert_eq!(bench.standing(), Standing::Due);
        assert_eq!(bench.succeed(bench.enter()), Some(Change::Readmitted));
        for _ in 0..5 {
            assert_eq!(bench.fail(late[0]), None);
        }
        assert_eq!(bench.standing(), Standing::In);
    }

    #[test]
    fn a_forced_request_may_readmit_but_never_lengthens_an_ejection() {
        let bench = Bench::new();
        let span = bench.eject();
        assert_eq!(bench.fail(bench.outlier.force()), None);
        bench.clock.advance(span);
        assert_eq!(bench.standing(), Standing::Due);
        assert_eq!(bench.succeed(bench.outlier.force()), Some(Change::Readmitted));
        assert_eq!(bench.standing(), Standing::In);
    }

    #[test]
    fn an_endpoint_that_breaks_off_every_response_is_ejected_again() {
        let bench = Bench::new();
        bench.clock.advance(bench.eject());
        let trial = bench.enter();
        assert_eq!(bench.outlier.responded(trial, &bench.clock), Some(Change::Readmitted));
        assert_eq!(bench.fail(trial), None);
        assert_eq!(bench.fail(bench.enter()), None);
        assert_eq!(bench.ejected(bench.fail(bench.enter())), SECOND * 2);
    }
}
