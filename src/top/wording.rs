//! Figures in words, as the screen and the lines have them.

use std::time::{Duration, SystemTime};

use super::figures::Figures;
use super::histogram::Histogram;
use crate::units::Count;
use crate::units::Unit::Nanoseconds;

/// What stands where a figure is not known.
pub(super) fn none() -> String {
    "-".to_owned()
}

/// A rate. Rates of a few have one digit after the point.
pub(super) fn per_second(rate: f64) -> String {
    if rate < 9.95 && rate.fract() != 0.0 {
        format!("{rate:.1}/s")
    } else {
        format!("{}/s", Count(rate.round()))
    }
}

/// How long a relay has been running, in whole seconds, by the clock of this machine.
pub(super) fn uptime(figures: &Figures, time: SystemTime) -> Option<Duration> {
    let now = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let uptime = now.as_secs_f64() - figures.started?;
    (uptime >= 0.0).then(|| Duration::from_secs(uptime as u64))
}

/// The bound below which this share of the values lies.
pub(super) fn bound_text(histogram: &Histogram, share: f64) -> String {
    match histogram.quantile(share) {
        None => none(),
        Some(bound) if bound.is_infinite() => {
            let finite = histogram.counts().filter(|(bound, _)| bound.is_finite());
            let largest = finite.last().map_or(0.0, |(bound, _)| bound);
            format!("> {}", bound_with_unit(largest))
        }
        Some(bound) => format!("≤ {}", bound_with_unit(bound)),
    }
}

/// A bound, which is a round number of nanoseconds.
pub(super) fn bound_with_unit(seconds: f64) -> String {
    Nanoseconds.tick((seconds * 1e9).round())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_has_a_digit_after_the_point_where_it_is_small() {
        for (rate, text) in [
            (0.0, "0/s"),
            (1.04, "1.0/s"),
            (9.94, "9.9/s"),
            (9.96, "10/s"),
            (1203.6, "1,204/s"),
        ] {
            assert_eq!(per_second(rate), text);
        }
    }

    #[test]
    fn bound_is_in_the_unit_that_suits_it_and_the_last_one_has_none() {
        let bounds = [(0.000_25, 5.0), (0.01, 9.0), (f64::INFINITY, 10.0)];
        let histogram = Histogram::new(bounds.to_vec(), 0.0);
        for (share, text) in [(0.5, "≤ 250 µs"), (0.9, "≤ 10 ms"), (0.99, "> 10 ms")] {
            assert_eq!(bound_text(&histogram, share), text);
        }
        assert_eq!(bound_text(&Histogram::default(), 0.5), "-");
    }
}
