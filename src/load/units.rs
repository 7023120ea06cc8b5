//! Figures as people read them.

use std::fmt;

/// A number with its thousands apart, or, where it is small, with digits after the point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(pub(super) f64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = *self;
        if number < 100.0 && number.fract() != 0.0 {
            return f.write_str(&three_digits(number));
        }
        let digits = format!("{number:.0}");
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// Nanoseconds, in the unit that suits them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) f64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(
            self.0,
            &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")],
            f,
        )
    }
}

/// Bytes, in the unit that suits them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes(pub(super) f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(f64, &str); 4] = [
            (1.0, "B"),
            (1024.0, "KiB"),
            (1_048_576.0, "MiB"),
            (1_073_741_824.0, "GiB"),
        ];
        // What a member costs is compared to the byte.
        if self.0 < 10_000.0 {
            return write!(f, "{} B", Count(self.0.round()));
        }
        scaled(self.0, &UNITS, f)
    }
}

fn scaled(value: f64, units: &[(f64, &str)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = |&&(unit, _): &&(f64, &str)| value.abs() >= unit;
    let (unit, name) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    write!(f, "{} {name}", three_digits(value / unit))
}

/// A number to three digits, as far as they are before the point to the last of them.
fn three_digits(number: f64) -> String {
    let decimals = match number.abs() {
        0.0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_thousands_apart() {
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
    fn times_and_sizes_have_the_unit_that_suits_them() {
        for (nanoseconds, text) in [
            (0.0, "0 ns"),
            (7.0, "7.00 ns"),
            (114.2, "114 ns"),
            (3_512.0, "3.51 µs"),
            (99_960.0, "100 µs"),
            (41_200_000.0, "41.2 ms"),
            (1_500_000_000.0, "1.50 s"),
        ] {
            assert_eq!(Time(nanoseconds).to_string(), text);
        }
        for (bytes, text) in [
            (0.0, "0 B"),
            (111.4, "111 B"),
            (9_929.0, "9,929 B"),
            (524_288.0, "512 KiB"),
            (3_145_728.0, "3.00 MiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
