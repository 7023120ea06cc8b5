//! How long things took: a histogram, and what is told of it.

use hdrhistogram::Histogram;

/// How many significant digits are kept of a time.
const DIGITS: u8 = 3;

/// Times in nanoseconds, to three digits, however many there are.
#[derive(Clone, Debug)]
pub(super) struct Delays {
    histogram: Histogram<u64>,
}

/// The percentiles that are told, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Percentiles {
    pub(super) samples: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p99_9: u64,
    pub(super) max: u64,
}

impl Delays {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new(DIGITS).expect("one to five digits can be kept");
        Self { histogram }
    }

    /// Counts a time `times` times.
    pub(super) fn record(&mut self, nanoseconds: u64, times: u64) {
        // The histogram grows as it needs to, so that every time has a place.
        let _ = self.histogram.record_n(nanoseconds, times);
    }

    pub(super) fn add(&mut self, other: &Self) {
        let _ = self.histogram.add(&other.histogram);
    }

    /// The percentiles, if there are any times.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        (!self.histogram.is_empty()).then(|| Percentiles {
            samples: self.histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.histogram.max(),
        })
    }

    /// The time within which this part of them was done.
    pub(super) fn quantile(&self, quantile: f64) -> Option<u64> {
        (!self.histogram.is_empty()).then(|| self.histogram.value_at_quantile(quantile))
    }

    /// Points of the curve of percentiles, from the least to the most: the part of all, from 0 to 1,
    /// and the nanoseconds within which it was done. The part that is over halves in ten steps.
    pub(super) fn curve(&self) -> Vec<(f64, f64)> {
        let most = self.histogram.max();
        self.histogram
            .iter_quantiles(10)
            .map(|value| (value.quantile(), value.value_iterated_to().min(most) as f64))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_that_was_counted() {
        let mut delays = Delays::new();
        assert_eq!(delays.percentiles(), None);
        for time in 1..=1000 {
            delays.record(time, 3);
        }
        let expected = Percentiles {
            samples: 3000,
            p50: 500,
            p90: 900,
            p99: 990,
            p99_9: 999,
            max: 1000,
        };
        assert_eq!(delays.percentiles(), Some(expected));
        let mut others = Delays::new();
        others.record(2_000_000_000, 1);
        delays.add(&others);
        let both = delays.percentiles().unwrap();
        assert_eq!((both.samples, both.p50), (3001, 501));
        assert!((1_999_000_000..=2_001_000_000).contains(&both.max));
    }

    #[test]
    fn the_curve_goes_from_the_least_to_the_most() {
        let mut delays = Delays::new();
        delays.record(7, 5);
        delays.record(9, 5);
        let curve = delays.curve();
        assert!(curve.is_sorted_by(|one, next| one.0 <= next.0 && one.1 <= next.1));
        assert_eq!(curve.first().map(|point| point.1 as u64), Some(7));
        let last = curve.last().map(|&(part, time)| (part as u64, time as u64));
        assert_eq!(last, Some((1, 9)));
    }
}
