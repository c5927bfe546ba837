//! Leases and exact rules over simulated tasks, delays and clocks.
//!
//! Time is a number, and the server is a counter by its own clock; tasks read clocks that started at
//! other times and run a little fast or slow, as those of real machines do. Questions and answers are
//! late by random delays, some get lost. What is judged is every admission, by true time.

use super::super::fleet::{Flow, Taken};
use super::super::gcra::Meter;
use super::super::rule::{Period, Rate};
use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;

const ONE: NonZeroU32 = NonZeroU32::MIN;

/// What the script does, in whole numbers.
struct Server {
    flow: Flow,
    since: u64,
    debt: u64,
}

impl Server {
    fn take(&mut self, micros: u64, want: u32, least: u32) -> Taken {
        let Flow { cost, regain, full, .. } = self.flow;
        self.debt = self.debt.saturating_sub((micros - self.since) * regain);
        self.since = micros;
        let mut granted = u64::from(want).min((full - self.debt) / cost);
        if granted < u64::from(least) {
            granted = 0;
        }
        let short = |debt: u64, least: u64| (debt + least * cost).saturating_sub(full);
        self.debt += granted * cost;
        let remaining = (full - self.debt) / cost;
        let more = if granted > 0 { remaining + 1 } else { least.into() };
        let wait = short(self.debt, more).div_ceil(regain);
        let granted = i64::try_from(granted).unwrap();
        Taken { granted, remaining, wait: Duration::from_micros(wait) }
    }
}

/// A task's clock: when it started, and how many millionths it runs fast.
#[derive(Clone, Copy, Debug)]
struct Skew {
    started: u64,
    fast: i64,
}

impl Skew {
    fn read(self, micros: u64) -> Moment {
        let drift = i64::try_from(micros).unwrap() * self.fast / 1_000_000;
        let micros = (self.started + micros).checked_add_signed(drift).unwrap();
        Moment::from_nanos((1 << 50) + micros * 1_000)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request {
        task: usize,
        back: bool,
        first: bool,
    },
    /// A question of an exact rule reaches the server.
    Exact,
    /// A question for a batch reaches the server.
    Question {
        task: usize,
        asked: Moment,
        want: u32,
        lost: bool,
    },
    Answer {
        task: usize,
        asked: Moment,
        granted: i64,
        remaining: u64,
        wait: u64,
    },
    Lost {
        task: usize,
    },
    Poll {
        task: usize,
    },
}

struct Fleet {
    server: Server,
    tasks: Vec<(Lease, Skew)>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    delays: std::iter::Cycle<std::vec::IntoIter<u64>>,
    /// Every so many tasks asks for each request; none does if this is zero.
    exact: usize,
    /// True times, in microseconds.
    admitted: Vec<u64>,
    offered: u64,
    /// What each request takes.
    cost: NonZeroU32,
}

impl Fleet {
    fn after(&mut self, now: u64, delay: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((now + delay, self.order, event)));
    }

    fn delay(&mut self) -> u64 {
        self.delays.next().unwrap()
    }

    fn ask(&mut self, now: u64, task: usize, want: u32) {
        let asked = self.tasks[task].1.read(now);
        let delay = self.delay();
        // Beyond its deadline an answer is worth nothing, though the server may have counted it.
        let lost = delay > 9_000;
        self.after(now, delay.min(9_000), Event::Question { task, asked, want, lost });
    }

    fn run(&mut self, until: u64) {
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > until {
                return;
            }
            match event {
                Event::Request { task, back, first } => self.request(now, task, back, first),
                Event::Exact => {
                    let cost = self.cost.get();
                    if self.server.take(now, cost, cost).granted > 0 {
                        self.admit(now);
                    }
                }
                Event::Question { task, asked, want, lost } => {
                    let taken = self.server.take(now, want.max(self.cost.get()), self.cost.get());
                    let wait = u64::try_from(taken.wait.as_micros()).unwrap();
                    let (granted, remaining) = (taken.granted, taken.remaining);
                    let answer = Event::Answer { task, asked, granted, remaining, wait };
                    let delay = self.delay();
                    self.after(now, delay, if lost { Event::Lost { task } } else { answer });
                }
                Event::Answer { task, asked, granted, remaining, wait } => {
                    let (lease, clock) = &mut self.tasks[task];
                    let wait = Duration::from_micros(wait);
                    let taken = Taken { granted, remaining, wait };
                    if let Next::Poll(pause) =
                        lease.answered(self.cost, asked, clock.read(now), taken)
                    {
                        let pause = u64::try_from(pause.as_micros()).unwrap();
                        self.after(now, pause, Event::Poll { task });
                    }
                }
                Event::Lost { task } => self.tasks[task].0.failed(),
                Event::Poll { task } => {
                    let (lease, clock) = &mut self.tasks[task];
                    if let Some(want) = lease.poll(clock.read(now)) {
                        self.ask(now, task, want);
                    }
                }
            }
        }
    }

    /// One entry for each permit.
    fn admit(&mut self, now: u64) {
        self.admitted.extend((0..self.cost.get()).map(|_| now));
    }

    fn request(&mut self, now: u64, task: usize, back: bool, first: bool) {
        self.offered += u64::from(first);
        if self.exact > 0 && task.is_multiple_of(self.exact) {
            let delay = self.delay();
            return self.after(now, delay, Event::Exact);
        }
        let (lease, clock) = &mut self.tasks[task];
        let here = clock.read(now);
        let step = lease.take(self.cost, here, first);
        let want = lease.wants(self.cost, here);
        match step {
            // Another rule refused it.
            Step::Granted { dies, .. } if back => lease.give_back(self.cost, dies, here),
            Step::Granted { .. } => self.admit(now),
            Step::Empty(_) => {}
            // It comes again in a millisecond, as one that waits does when it is told.
            Step::Unknown => {
                self.after(now, 1_000, Event::Request { task, back, first: false });
            }
        }
        if let Some(want) = want {
            self.ask(now, task, want);
        }
    }
}

/// The most that any window admitted beyond `rate` × its length, in permits, rounded down.
fn excess(admitted: &[u64], meter: Meter) -> u64 {
    let Flow { cost, regain, .. } = Flow::of(meter);
    let (mut level, mut last, mut most) = (0_u64, 0, 0);
    for now in admitted {
        level = level.saturating_sub((now - last) * regain) + cost;
        last = *now;
        most = most.max(level);
    }
    most / cost
}

#[derive(Clone, Debug)]
struct Scenario {
    rate: u32,
    burst: u32,
    clocks: Vec<Skew>,
    /// For each task, requests in a second, in turns of [`TURN`].
    loads: Vec<Vec<u32>>,
    /// Requests that come all at once: when, in milliseconds, where, how many, and whether another rule
    /// refuses them. What such ones leave behind is the most that can be hoarded.
    spikes: Vec<(u64, usize, u32, bool)>,
    delays: Vec<u64>,
    given_back: u64,
    exact: usize,
    cost: u32,
}

fn scenario(most_load: u32) -> impl Strategy<Value = Scenario> {
    let clock = (0..1_u64 << 40, -200_i64..200).prop_map(|(started, fast)| Skew { started, fast });
    let delay = prop_oneof![8 => 50_u64..2_000, 2 => 2_000_u64..9_000, 1 => 9_000_u64..20_000];
    (50_u32..2_000, 10_u32..200, prop::collection::vec(clock, 1..6)).prop_flat_map(
        move |(rate, burst, clocks)| {
            // Pauses in the middle of a batch, after which all comes at once.
            let load = prop_oneof![6 => Just(0), 1 => 0..most_load, 2 => most_load / 2..most_load];
            let load = prop::collection::vec(load, 24);
            let loads = prop::collection::vec(load, clocks.len());
            let delays = prop::collection::vec(delay.clone(), 50..100);
            let spike = (0..1_700_u64, 0..clocks.len(), 1..300_u32, any::<bool>());
            let spikes = prop::collection::vec(spike, 0..40);
            let cost = prop_oneof![Just(1_u32), 2..10_u32];
            let rest = (loads, spikes, delays, 2_u64..20, 0_usize..4, cost);
            (Just((rate, burst, clocks)), rest).prop_map(
                |((rate, burst, clocks), (loads, spikes, delays, given_back, exact, cost))| {
                    Scenario {
                        rate,
                        burst: burst.max(rate.div_ceil(10)),
                        clocks,
                        loads,
                        spikes,
                        delays,
                        given_back,
                        exact,
                        cost,
                    }
                },
            )
        },
    )
}

const TURN: u64 = 70_000;

fn simulate(scenario: &Scenario) -> (Fleet, Meter) {
    let count = |n| NonZeroU32::new(n).unwrap();
    let rate = Rate { permits: count(scenario.rate), per: Period::Second };
    let meter = Meter::new(rate, count(scenario.burst));
    let mut fleet = Fleet {
        server: Server { flow: Flow::of(meter), since: 0, debt: 0 },
        tasks: scenario.clocks.iter().map(|clock| (Lease::default(), *clock)).collect(),
        events: BinaryHeap::new(),
        order: 0,
        exact: scenario.exact,
        delays: scenario.delays.clone().into_iter().cycle(),
        admitted: Vec::new(),
        offered: 0,
        cost: count(scenario.cost),
    };
    for (task, loads) in scenario.loads.iter().enumerate() {
        for (turn, load) in loads.iter().enumerate() {
            // Evenly, over the borders of turns.
            let due = |turn: usize| u64::from(*load) * turn as u64 * TURN / 1_000_000;
            let requests = due(turn + 1) - due(turn);
            for n in 0..requests {
                let at = turn as u64 * TURN + n * TURN / requests + task as u64;
                let back = (n + task as u64 + 1).is_multiple_of(scenario.given_back);
                fleet.after(at, 0, Event::Request { task, back, first: true });
            }
        }
    }
    for (at, task, size, back) in scenario.spikes.iter().copied() {
        for _ in 0..size {
            fleet.after(at * 1_000, 0, Event::Request { task, back, first: true });
        }
    }
    let turns = scenario.loads.iter().map(Vec::len).max().unwrap_or(0) as u64;
    fleet.run(turns * TURN);
    (fleet, meter)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_window_admits_more_than_burst_and_the_rate_of_it_and_a_life(scenario in scenario(3_000)) {
        let (fleet, meter) = simulate(&scenario);
        // A clock that runs slow makes a life longer: here by at most 200 millionths.
        let life = u64::from(scenario.rate) * 100_020 / 1_000_000 + 1;
        // Who asks for each request is judged by the server's time, and has none.
        let life = if scenario.exact == 1 { 0 } else { life };
        let most = u64::from(scenario.burst) + life;
        let excess = excess(&fleet.admitted, meter);
        prop_assert!(excess <= most, "{excess} of {most}");
    }
}

/// Each task offers `load`; the part of what is allowed that the fleet admitted after its burst.
fn yield_of(rate: u32, tasks: usize, load: u32, cost: u32) -> f64 {
    let clocks =
        (0..tasks as u64).map(|n| Skew { started: n * 1_000_003, fast: 100 - n as i64 * 50 });
    let scenario = Scenario {
        rate,
        burst: rate,
        clocks: clocks.collect(),
        loads: vec![vec![load; 150]; tasks],
        spikes: Vec::new(),
        delays: vec![300, 700, 1_900, 450, 3_100],
        given_back: u64::MAX,
        exact: 0,
        cost,
    };
    let (fleet, _) = simulate(&scenario);
    let seconds = 150.0 * TURN as f64 / 1e6;
    let offered = fleet.offered as f64 * f64::from(cost);
    let allowed = (f64::from(rate) * (seconds + 1.0)).min(offered);
    fleet.admitted.len() as f64 / allowed
}

#[test]
fn a_fleet_admits_what_its_rule_allows_when_more_is_offered_and_when_less_is() {
    // Rate, tasks, requests in a second at each task, what each takes.
    for (rate, tasks, load, cost) in [
        (500, 5, 300, 1),
        (500, 5, 600, 1),
        (500, 5, 101, 1),
        (500, 5, 90, 1),
        (500, 5, 60, 1),
        (500, 1, 2_000, 1),
        (50, 5, 100, 1),
        (50, 5, 9, 1),
        (5_000, 4, 5_000, 1),
        (100, 1, 30, 1),
        (5_000, 4, 1_000, 5),
        (5_000, 4, 300, 5),
        (5_000, 5, 180, 5),
    ] {
        let part = yield_of(rate, tasks, load, cost);
        assert!(part >= 0.95, "{rate}/s, {tasks} tasks, {load}/s each, {cost} each: {part}");
    }
}

#[test]
fn a_steady_flow_is_asked_for_ahead_and_little_of_it_dies() {
    let mut lease = Lease::default();
    let at = |micros: u64| Moment::from_nanos((1 << 50) + micros * 1_000);
    let (mut waited, mut leased, mut answer) = (0, 0, None);
    // 400 requests in a second, each answer 2 ms late.
    for n in 0..4_000_u64 {
        let now = n * 2_500;
        if let Some((at_micros, asked, want)) = answer
            && at_micros <= now
        {
            let taken = Taken {
                granted: i64::from(want),
                remaining: 1_000,
                wait: Duration::from_millis(2),
            };
            lease.answered(ONE, asked, at(now), taken);
            answer = None;
        }
        let step = lease.take(ONE, at(now), true);
        waited += u32::from(n > 40 && step == Step::Unknown);
        if let Some(want) = lease.wants(ONE, at(now)) {
            leased += u64::from(want);
            answer = Some((now + 2_000, at(now), want));
        }
    }
    assert_eq!(waited, 0);
    assert!(lease.take_died() * 50 < leased, "of {leased}");
}

#[test]
fn a_permit_is_dead_a_life_after_it_was_asked_for() {
    let at = |millis| Moment::from_nanos(1 << 50) + Duration::from_millis(millis);
    let taken = |granted| Taken { granted, remaining: 9, wait: Duration::ZERO };
    let mut lease = Lease::default();
    assert_eq!(lease.take(ONE, at(0), true), Step::Unknown);
    assert_eq!(lease.wants(ONE, at(0)), Some(1));
    lease.answered(ONE, at(0), at(15), taken(2));
    let Step::Granted { dies, .. } = lease.take(ONE, at(99), true) else { panic!("one is there") };
    assert_eq!(dies, at(100));
    assert_eq!(lease.take(ONE, at(100), true), Step::Unknown);
    // Given back too late, it is not there either.
    lease.give_back(ONE, dies, at(100));
    assert_eq!((lease.take(ONE, at(100), false), lease.take_died()), (Step::Unknown, 2));
    // An answer that took a life brings nothing.
    lease.answered(ONE, at(100), at(200), taken(5));
    assert_eq!((lease.take(ONE, at(200), true), lease.take_died()), (Step::Unknown, 5));
}
