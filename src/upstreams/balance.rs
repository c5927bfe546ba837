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

    /// One for a further try, by weight. It takes nobody's turn: if it did, second tries would use up
    /// the turns of the good endpoints, and first tries fall on the failing one alone.
    pub(super) fn choose_another(
        &self,
        rng: &mut impl Rng,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        match self.balance {
            Balance::RoundRobin => self.draw(rng, usable),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn balancer(balance: Balance, weights: &[u32]) -> Balancer {
        Balancer::build(balance, weights, Arc::default())
    }

    /// How often each of `weights` is chosen in `turns`.
    fn shares(
        balancer: &Balancer,
        turns: usize,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
    ) -> Vec<usize> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut shares = vec![0; balancer.weights.len()];
        for _ in 0..turns {
            let index = balancer.choose(&mut rng, &usable, &load).expect("one is usable");
            shares[index] += 1;
        }
        shares
    }

    #[test]
    fn turns_are_taken_in_the_order_of_nginx() {
        for (weights, order) in [
            (&[5, 1, 1][..], "aabacaa"),
            (&[1], "a"),
            (&[7], "a"),
            (&[1, 1, 1], "abc"),
            (&[10, 20], "bab"),
            (&[4, 2, 3], "acbacabca"),
        ] {
            let letters: String =
                sequence(weights).iter().map(|index| char::from(b'a' + *index as u8)).collect();
            assert_eq!(letters, order, "{weights:?}");
        }
    }

    #[test]
    fn round_robin_walks_the_sequence_and_starts_again() {
        let balancer = balancer(Balance::RoundRobin, &[5, 1, 1]);
        let mut rng = StdRng::seed_from_u64(7);
        let walked: Vec<_> =
            (0..14).filter_map(|_| balancer.choose(&mut rng, |_| true, |_| 0)).collect();
        assert_eq!(walked, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_share_of_one_that_is_out_goes_to_the_others_by_weight() {
        for (weights, out, expected) in [
            (&[1, 1, 1][..], 0, &[0, 300, 300][..]),
            (&[1, 1, 1], 2, &[300, 300, 0]),
            (&[1, 1, 2], 1, &[200, 0, 400]),
        ] {
            let balancer = balancer(Balance::RoundRobin, weights);
            assert_eq!(shares(&balancer, 600, |index| index != out, |_| 0), expected);
        }
    }

    #[test]
    fn an_endpoint_with_most_of_the_weight_may_be_out() {
        let balancer = balancer(Balance::RoundRobin, &[10_000, 1, 1]);
        let shares = shares(&balancer, 2_000, |index| index != 0, |_| 0);
        assert!(shares[1].abs_diff(shares[2]) < 200, "{shares:?}");
    }

    #[test]
    fn large_weights_are_scaled_to_a_bounded_sequence() {
        let sequence = sequence(&[3_000_000_001, 1_000_000_000, 1]);
        let count = |wanted| sequence.iter().filter(|index| **index == wanted).count();
        assert!(sequence.len() as u64 <= LONGEST + 3);
        assert!(count(0).abs_diff(12_288) <= 1);
        assert!(count(1).abs_diff(4_096) <= 1);
        assert_eq!(count(2), 1);
    }

    #[test]
    fn of_two_the_one_with_fewer_requests_per_weight_is_taken() {
        for (weights, loads, better) in [
            (&[1, 1][..], [5, 0], 1),
            (&[1, 1], [0, 5], 0),
            (&[2, 1], [3, 2], 0),
            (&[2, 1], [5, 2], 1),
            (&[1, 100], [1, 99], 1),
        ] {
            let balancer = balancer(Balance::LeastRequests, weights);
            let shares = shares(&balancer, 200, |_| true, |index| loads[index]);
            assert_eq!(shares[better], 200, "{weights:?} {loads:?}");
        }
    }

    #[test]
    fn idle_endpoints_are_drawn_by_weight() {
        let balancer = balancer(Balance::LeastRequests, &[3, 1]);
        let shares = shares(&balancer, 4_000, |_| true, |_| 0);
        assert!(shares[0].abs_diff(3_000) < 150, "{shares:?}");
    }

    #[test]
    fn the_busiest_of_many_is_never_taken() {
        let balancer = balancer(Balance::LeastRequests, &[1; 10]);
        let shares = shares(&balancer, 1_000, |_| true, |index| u32::from(index == 4));
        assert_eq!(shares[4], 0);
    }

    proptest! {
        #[test]
        fn each_takes_exactly_its_share_and_never_runs_a_turn_ahead(
            weights in prop::collection::vec(1_u32..60, 1..9),
        ) {
            let reduced = reduce(&weights);
            let total: i64 = reduced.iter().sum();
            let sequence = sequence(&weights);
            let mut counts = vec![0_i64; weights.len()];
            for (turn, index) in (1_i64..).zip(sequence.iter()) {
                let index = *index as usize;
                counts[index] += 1;
                prop_assert!(counts[index] * total < turn * reduced[index] + total);
            }
            prop_assert_eq!(counts, reduced);
        }

        #[test]
        fn what_is_chosen_is_usable_and_something_is_chosen_if_it_can_be(
            endpoints in prop::collection::vec((1_u32..1_000_000, any::<bool>(), 0_u32..9), 1..12),
            balance in prop_oneof![Just(Balance::RoundRobin), Just(Balance::LeastRequests)],
            seed in any::<u64>(),
        ) {
            let weights: Vec<_> = endpoints.iter().map(|endpoint| endpoint.0).collect();
            let balancer = balancer(balance, &weights);
            let mut rng = StdRng::seed_from_u64(seed);
            for _ in 0..20 {
                let chosen =
                    balancer.choose(&mut rng, |index| endpoints[index].1, |index| endpoints[index].2);
                prop_assert_eq!(chosen.is_some(), endpoints.iter().any(|endpoint| endpoint.1));
                prop_assert!(chosen.is_none_or(|index| endpoints[index].1));
            }
        }
    }
}
