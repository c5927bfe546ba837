//! Which of the usable endpoints is next.
//!
//! Round robin is nginx's smooth weighted one: each turn every endpoint gains its weight, the one
//! with most is chosen and pays the sum of all. Its sequence has the length of that sum and then
//! repeats, so it is computed once and walked with one atomic counter. An endpoint that cannot be
//! used is stepped over and its turn consumed, which leaves the others in proportion and order.
//!
//! Least requests draws two by weight and takes the one with fewer requests in flight per weight.
//!
//! Must stay true: `choose` neither locks nor allocates, and its work is bounded however many
//! endpoints are out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::Rng;

use super::definition::Balance;

/// The longest sequence; weights whose sum is larger are scaled to it.
const LONGEST: u64 = 16_384;
/// Turns that are stepped over, or drawn in vain, before the usable endpoints are counted through.
const PATIENCE: usize = 32;

/// Picks indices of endpoints.
#[derive(Debug)]
pub(super) struct Balancer {
    balance: Balance,
    weights: Box<[u32]>,
    sequence: Box<[u32]>,
    cursor: Arc<AtomicUsize>,
}

impl Balancer {
    /// `cursor` is where the sequence stands; shared with the snapshot before, so that a reload does
    /// not begin again with the first endpoint.
    pub(super) fn build(balance: Balance, weights: &[u32], cursor: Arc<AtomicUsize>) -> Self {
        Self { balance, weights: weights.into(), sequence: sequence(weights), cursor }
    }

    /// The next endpoint that is `usable`; `load` tells the requests in flight.
    pub(super) fn choose(
        &self,
        rng: &mut impl Rng,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        match self.balance {
            Balance::RoundRobin => self.next_in_turn(rng, usable),
            Balance::LeastRequests => self.better_of_two(rng, usable, load),
        }
    }

    /// Where the sequence stands, for the next snapshot.
    pub(super) fn cursor(&self) -> &Arc<AtomicUsize> {
        &self.cursor
    }

    fn next_in_turn(&self, rng: &mut impl Rng, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.cursor.fetch_add(1, Ordering::Relaxed);
        for stepped_over in 0..PATIENCE {
            let index = self.at(start.wrapping_add(stepped_over))?;
            if usable(index) {
                if stepped_over > 0 {
                    self.cursor.fetch_add(stepped_over, Ordering::Relaxed);
                }
                return Some(index);
            }
        }
        self.draw_through(rng, usable)
    }

    fn better_of_two(
        &self,
        rng: &mut impl Rng,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let first = self.draw(rng, &usable)?;
        let Some(second) = self.draw(rng, |index| index != first && usable(index)) else {
            return Some(first);
        };
        let per_weight = |of: usize, other: usize| u64::from(load(of)) * self.weight(other);
        Some(if per_weight(second, first) < per_weight(first, second) { second } else { first })
    }

    /// One by weight, at random.
    fn draw(&self, rng: &mut impl Rng, usable: impl Fn(usize) -> bool) -> Option<usize> {
        // With one endpoint there is no second to look for.
        let tries = if self.weights.len() > 1 { PATIENCE } else { 1 };
        for _ in 0..tries {
            let index = self.at(rng.random_range(0..self.sequence.len().max(1)))?;
            if usable(index) {
                return Some(index);
            }
        }
        self.draw_through(rng, usable)
    }

    /// As [`Self::draw`], in one pass over all endpoints; `None` only if none is usable.
    fn draw_through(&self, rng: &mut impl Rng, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut chosen, mut sum) = (None, 0_u64);
        for (index, weight) in self.weights.iter().enumerate() {
            if !usable(index) {
                continue;
            }
            sum += u64::from(*weight);
            if rng.random_range(0..sum) < u64::from(*weight) {
                chosen = Some(index);
            }
        }
        chosen
    }

    fn at(&self, turn: usize) -> Option<usize> {
        let slot = self.sequence.get(turn.checked_rem(self.sequence.len())?)?;
        usize::try_from(*slot).ok()
    }

    fn weight(&self, index: usize) -> u64 {
        self.weights.get(index).map_or(1, |weight| u64::from(*weight))
    }
}

/// The order in which endpoints take turns, until it repeats.
fn sequence(weights: &[u32]) -> Box<[u32]> {
    let weights = reduce(weights);
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let mut order = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
    for _ in 0..total {
        let (mut best, mut most) = (0, i64::MIN);
        for (index, (credit, weight)) in (0_u32..).zip(credit.iter_mut().zip(&weights)) {
            *credit += weight;
            if *credit > most {
                (best, most) = (index, *credit);
            }
        }
        if let Some(credit) = credit.get_mut(best as usize) {
            *credit -= total;
        }
        order.push(best);
    }
    order.into()
}

/// The same proportions in the smallest numbers; approximate, and never zero, where those would
/// still sum up to more than [`LONGEST`].
fn reduce(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    let sum: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let scaled = |weight: u32| {
        let weight = u64::from(weight / divisor);
        let fitting = if sum <= LONGEST { weight } else { (weight * LONGEST + sum / 2) / sum };
        i64::try_from(fitting.max(1)).unwrap_or(1)
    };
    weights.iter().map(|weight| scaled(*weight)).collect()
}

const fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
