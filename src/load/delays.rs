//! Durations: a histogram, and the figures of it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// How many significant digits are kept of a time.
const DIGITS: u8 = 3;

/// Times in nanoseconds, to three digits, however many there are.
#[derive(Clone, Debug)]
pub(super) struct Delays {
    histogram: Histogram<u64>,
}

/// How long something took, in microseconds: over several rounds, medians of the percentiles and the
/// longest of all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub(super) struct Times {
    /// How many were measured.
    pub(super) samples: u64,
    /// Half of them took this long or less.
    pub(super) p50: f64,
    /// 90 of 100 took this long or less.
    pub(super) p90: f64,
    /// 99 of 100 took this long or less.
    pub(super) p99: f64,
    /// 999 of 1,000 took this long or less.
    #[serde(rename = "p99.9")]
    pub(super) p99_9: f64,
    /// The longest.
    pub(super) max: f64,
}

impl Default for Delays {
    fn default() -> Self {
        let histogram = Histogram::new(DIGITS).expect("one to five digits can be kept");
        Self { histogram }
    }
}

impl Delays {
    /// Counts a time `times` times.
    pub(super) fn record(&mut self, nanoseconds: u64, times: u64) {
        // The histogram grows as it needs to, so that every time has a place.
        let _ = self.histogram.record_n(nanoseconds, times);
    }

    pub(super) fn add(&mut self, other: &Self) {
        let _ = self.histogram.add(&other.histogram);
    }

    /// The percentiles, if there are any times.
    pub(super) fn times(&self) -> Option<Times> {
        let microseconds = |quantile| Some(self.quantile(quantile)?.as_nanos() as f64 / 1e3);
        Some(Times {
            samples: self.histogram.len(),
            p50: microseconds(0.5)?,
            p90: microseconds(0.9)?,
            p99: microseconds(0.99)?,
            p99_9: microseconds(0.999)?,
            max: self.histogram.max() as f64 / 1e3,
        })
    }

    /// The time within which this part of them was done.
    pub(super) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let value = || Duration::from_nanos(self.histogram.value_at_quantile(quantile));
        (!self.histogram.is_empty()).then(value)
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
    fn percentiles_are_of_all_recorded_times() {
        let mut delays = Delays::default();
        assert_eq!(delays.times(), None);
        for time in 1..=1000 {
            delays.record(time, 3);
        }
        let expected = Times {
            samples: 3000,
            p50: 0.5,
            p90: 0.9,
            p99: 0.99,
            p99_9: 0.999,
            max: 1.0,
        };
        assert_eq!(delays.times(), Some(expected));
        let mut others = Delays::default();
        others.record(2_000_000_000, 1);
        delays.add(&others);
        let both = delays.times().unwrap();
        assert_eq!(both.samples, 3001);
        assert!((both.p50 - 0.501).abs() < 1e-9);
        assert!((1.999e6..=2.001e6).contains(&both.max));
    }

    #[test]
    fn curve_rises_from_the_shortest_to_the_longest_time() {
        let mut delays = Delays::default();
        delays.record(7, 5);
        delays.record(9, 5);
        let curve = delays.curve();
        assert!(curve.is_sorted_by(|one, next| one.0 <= next.0 && one.1 <= next.1));
        assert_eq!(curve.first().map(|point| point.1 as u64), Some(7));
        let last = curve.last().map(|&(part, time)| (part as u64, time as u64));
        assert_eq!(last, Some((1, 9)));
    }
}
