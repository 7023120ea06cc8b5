//! Figures with their units, as people read them.

use std::fmt;
use std::time::Duration;

use indicatif::HumanCount;

/// What a figure is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    Nanoseconds,
    Microseconds,
    Seconds,
    Bytes,
    /// A part of a whole, from 0 to 1; more, if it may be several.
    Share,
}

type Scale = [(f64, &'static str)];

const TIMES: &Scale = &[(1.0, " ns"), (1e3, " µs"), (1e6, " ms"), (1e9, " s")];
const COUNTS: &Scale = &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")];
const SIZES: &Scale = &[
    (1.0, " B"),
    (1024.0, " KiB"),
    (1_048_576.0, " MiB"),
    (1_073_741_824.0, " GiB"),
];

impl Unit {
    /// A figure to three digits, a count to the last.
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Count => Count(value).to_string(),
            // The cost of a member is compared to the byte.
            Self::Bytes if value < 10_000.0 => format!("{} B", Count(value.round())),
            Self::Bytes => scaled(value, SIZES, three_digits),
            Self::Share => format!("{:.1} %", value * 100.0),
            Self::Nanoseconds => scaled(value, TIMES, three_digits),
            Self::Microseconds => scaled(value * 1e3, TIMES, three_digits),
            Self::Seconds => scaled(value * 1e9, TIMES, three_digits),
        }
    }

    /// A round figure in few characters, for the ticks of a chart: `20k`, `1.5 ms`, `1m 30s`.
    pub(crate) fn tick(self, value: f64) -> String {
        match self {
            _ if value <= 0.0 => "0".to_owned(),
            Self::Count => scaled(value, COUNTS, trimmed),
            Self::Bytes => scaled(value, SIZES, trimmed),
            Self::Share => format!("{} %", trimmed(value * 100.0)),
            Self::Nanoseconds => scaled(value, TIMES, trimmed),
            Self::Microseconds => scaled(value * 1e3, TIMES, trimmed),
            Self::Seconds if value >= 1e7 => scaled(value * 1e9, TIMES, trimmed),
            Self::Seconds => {
                let milliseconds = Duration::from_millis((value * 1e3).round() as u64);
                humantime::format_duration(milliseconds).to_string()
            }
        }
    }

    /// The smallest step between ticks that is easy to count in and not below `least`.
    pub(crate) fn step(self, least: f64) -> f64 {
        const TIMES: [f64; 14] = [
            20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 10_800.0,
            21_600.0, 43_200.0, 86_400.0,
        ];
        let power = 10_f64.powf(least.log10().floor());
        let decimal = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
        let steps = match self {
            Self::Bytes => &[least.log2().ceil().exp2()],
            Self::Seconds if least > 10.0 => &TIMES[..],
            _ => &decimal[..],
        };
        let step = steps.iter().copied().find(|&step| step >= least);
        step.unwrap_or(10.0 * power)
    }
}

/// A number with its thousands apart or, where it is small, with digits after the point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(pub(super) f64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = *self;
        if number < 100.0 && number.fract() != 0.0 {
            return f.write_str(&three_digits(number));
        }
        HumanCount(number.round() as u64).fmt(f)
    }
}

/// A count and its noun.
pub(crate) fn several(count: u64, noun: &str) -> String {
    let plural = match noun {
        _ if count == 1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {noun}{plural}", Count(count as f64))
}

/// A time to three digits.
pub(crate) fn time(time: Duration) -> String {
    Unit::Nanoseconds.text(time.as_nanos() as f64)
}

fn scaled(value: f64, scale: &Scale, digits: fn(f64) -> String) -> String {
    let fits = |&&(unit, _): &&(f64, &str)| value >= unit;
    let (unit, name) = scale.iter().rev().find(fits).unwrap_or(&scale[0]);
    digits(value / unit) + name
}

/// A number to three digits, as far as they are before the point to the last of them.
fn three_digits(number: f64) -> String {
    let decimals = match number {
        0.0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// A number without zeros at its end. No tick needs more decimal places than a percentile with nine
/// nines.
fn trimmed(number: f64) -> String {
    let text = format!("{number:.7}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_has_its_thousands_apart() {
        for (number, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.25, "0.25"),
            (12.5, "12.5"),
            (999.4, "999"),
            (1000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(Count(number).to_string(), text);
        }
    }

    #[test]
    fn figure_is_written_in_the_unit_that_suits_it() {
        for (unit, value, text) in [
            (Unit::Nanoseconds, 0.0, "0 ns"),
            (Unit::Nanoseconds, 7.0, "7.00 ns"),
            (Unit::Nanoseconds, 114.2, "114 ns"),
            (Unit::Microseconds, 3.512, "3.51 µs"),
            (Unit::Microseconds, 99.96, "100 µs"),
            (Unit::Seconds, 0.0412, "41.2 ms"),
            (Unit::Seconds, 1.5, "1.50 s"),
            (Unit::Bytes, 0.0, "0 B"),
            (Unit::Bytes, 111.4, "111 B"),
            (Unit::Bytes, 9929.0, "9,929 B"),
            (Unit::Bytes, 524_288.0, "512 KiB"),
            (Unit::Bytes, 3_145_728.0, "3.00 MiB"),
            (Unit::Share, 0.1234, "12.3 %"),
        ] {
            assert_eq!(unit.text(value), text);
        }
    }

    #[test]
    fn tick_has_no_zeros_at_its_end() {
        for (unit, value, text) in [
            (Unit::Count, 0.0, "0"),
            (Unit::Count, 0.25, "0.25"),
            (Unit::Count, 1000.0, "1k"),
            (Unit::Count, 1_250_000.0, "1.25M"),
            (Unit::Seconds, 0.0, "0"),
            (Unit::Seconds, 0.6, "600ms"),
            (Unit::Seconds, 80.0, "1m 20s"),
            (Unit::Seconds, 5400.0, "1h 30m"),
            (Unit::Nanoseconds, 10_000.0, "10 µs"),
            (Unit::Nanoseconds, 1_500_000.0, "1.5 ms"),
            (Unit::Bytes, 1_572_864.0, "1.5 MiB"),
            (Unit::Share, 0.5, "50 %"),
            (Unit::Share, 0.999_999_999, "99.9999999 %"),
        ] {
            assert_eq!(unit.tick(value), text);
        }
    }

    #[test]
    fn step_is_easy_to_count_in() {
        for (unit, least, step) in [
            (Unit::Count, 1.1, "2"),
            (Unit::Count, 230.0, "500"),
            (Unit::Count, 0.6, "1"),
            (Unit::Bytes, 250_000.0, "262144"),
            (Unit::Seconds, 0.13, "0.2"),
            (Unit::Seconds, 45.0, "60"),
            (Unit::Seconds, 450.0, "600"),
        ] {
            assert_eq!(unit.step(least).to_string(), step);
        }
    }
}
