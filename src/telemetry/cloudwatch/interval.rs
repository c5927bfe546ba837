//! What one interval says, in the form that CloudWatch takes, and how much of it fits into one call.
//!
//! Must stay true: nothing here is refused by CloudWatch for its form: at most 150 values in a datum,
//! as many counts as values, at most 1 000 datums and 1 MB in a call, only finite numbers.

use super::Metric;
use std::sync::Arc;
use std::time::Duration;

/// Different values of one datum.
pub const MOST_VALUES: usize = 150;
/// Datums of one call.
pub const MOST_DATUMS: usize = 1_000;
/// Bytes of one call, before it is compressed; CloudWatch takes 1 MB.
const MOST_BYTES: usize = 900_000;
/// Names, dimensions, unit and time of a datum, with the longest words that a configuration may have.
const BYTES_OF_A_DATUM: usize = 1_100;
/// A value and its count, as CBOR at its longest.
const BYTES_OF_A_VALUE: usize = 18;

/// What is said of one metric, or of one value of its third dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    /// Which.
    pub metric: Metric,
    /// The value of its third dimension.
    pub third: Option<Arc<str>>,
    /// What.
    pub values: Values,
}

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// One number.
    One(f64),
    /// Numbers, and how often each came; at most [`MOST_VALUES`].
    Many {
        /// The numbers.
        values: Vec<f64>,
        /// How often each came.
        counts: Vec<f64>,
    },
}

impl Datum {
    /// One number.
    pub(super) const fn one(metric: Metric, value: f64) -> Self {
        Self { metric, third: None, values: Values::One(value) }
    }

    /// One number for a value of the third dimension.
    pub(super) const fn third(metric: Metric, third: Arc<str>, value: f64) -> Self {
        Self { metric, third: Some(third), values: Values::One(value) }
    }

    /// Numbers with how often they came, in as many datums as that takes; none where nothing came.
    pub(super) fn many(metric: Metric, all: &[(f64, u64)]) -> impl Iterator<Item = Self> + '_ {
        all.chunks(MOST_VALUES).map(move |some| {
            #[expect(clippy::cast_precision_loss, reason = "CloudWatch knows no other numbers")]
            let (values, counts) =
                some.iter().map(|(value, count)| (*value, *count as f64)).unzip();
            Self { metric, third: None, values: Values::Many { values, counts } }
        })
    }

    fn size(&self) -> usize {
        let values = match &self.values {
            Values::One(_) => 1,
            Values::Many { values, .. } => values.len(),
        };
        BYTES_OF_A_DATUM + values * BYTES_OF_A_VALUE
    }
}

/// All that is said of one interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// When it began, since 1970: a whole number of intervals.
    pub began: Duration,
    /// What is said.
    pub datums: Vec<Datum>,
}

impl Interval {
    fn size(&self) -> usize {
        self.datums.iter().map(Datum::size).sum()
    }
}

/// How many of the first `intervals` fit into one call; at least one.
#[must_use]
pub fn calls(intervals: &[Interval]) -> usize {
    let (mut datums, mut bytes) = (0, 0);
    let fit = intervals.iter().take_while(|interval| {
        datums += interval.datums.len();
        bytes += interval.size();
        datums <= MOST_DATUMS && bytes <= MOST_BYTES
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(different: u32) -> Vec<(f64, u64)> {
        (0..different).map(|value| (f64::from(value), 2)).collect()
    }

    #[test]
    fn more_values_than_a_datum_takes_become_several() {
        for (different, sizes) in [
            (0, vec![]),
            (1, vec![1]),
            (150, vec![150]),
            (151, vec![150, 1]),
            (896, vec![150, 150, 150, 150, 150, 146]),
        ] {
            let values = latency(different);
            let datums: Vec<_> = Datum::many(Metric::RequestLatency, &values).collect();
            let lengths: Vec<usize> = datums
                .iter()
                .map(|datum| match &datum.values {
                    Values::Many { values, counts } => {
                        assert_eq!(values.len(), counts.len());
                        values.len()
                    }
                    Values::One(_) => 0,
                })
                .collect();
            assert_eq!(lengths, sizes);
        }
    }

    fn worst(began: u64) -> Interval {
        let word: Arc<str> = "u".repeat(64).into();
        let mut datums: Vec<Datum> =
            (0..33).map(|_| Datum::third(Metric::UpstreamErrors, Arc::clone(&word), 1.0)).collect();
        for metric in [Metric::RequestLatency, Metric::RevocationDelay] {
            datums.extend(Datum::many(metric, &latency(896)));
        }
        Interval { began: Duration::from_secs(began), datums }
    }

    #[test]
    fn a_call_carries_whole_intervals_and_no_more_than_fits() {
        assert_eq!(calls(&[]), 1);
        let few: Vec<_> = (0..15).map(worst).collect();
        let bytes: usize = few.iter().take(calls(&few)).map(Interval::size).sum();
        assert!(calls(&few) >= 10 && bytes <= MOST_BYTES, "{} of 15", calls(&few));
        let small =
            Interval { began: Duration::ZERO, datums: vec![Datum::one(Metric::Heartbeat, 1.0)] };
        assert_eq!(calls(&vec![small; 2_000]), 805, "by size before number");
    }
}
