//! The axes of a chart: where a value goes, which values get a tick, and how they are written.

/// How an axis spaces its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Scale {
    /// Evenly, from 0.
    Linear,
    /// Each power of ten as far from the last, of two for bytes. What is not above zero has no
    /// place there, and is drawn at the lower end.
    Log,
    /// For fractions from 0 to 1: each nine as far from the last, as 90 %, 99 %, 99.9 %. The whole,
    /// 1, would be infinitely far away; it gets a place after the last nine, marked "max".
    Percentile,
}

/// What an axis counts, which decides where its ticks are and how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Unit {
    /// Things: 500, 20k, 1.5M.
    Count,
    /// Seconds, for the time of a run: 30 s, 2 min 30 s.
    Seconds,
    /// Nanoseconds, for delays: 250 ns, 10 µs, 1.5 ms.
    Duration,
    /// Bytes: 512 KiB, 1.5 MiB.
    Bytes,
    /// Fractions of 1: 0.5 is 50 %.
    Percent,
}

/// Nothing smaller than this is told from zero, and nothing larger than its opposite has a place.
const TINY: f64 = 1e-9;
const HUGE: f64 = 1e100;

const KIB: f64 = 1024.0;
/// Nines beyond this are lost in the rounding of `1 - p`.
const MOST_NINES: f64 = 9.0;

impl Scale {
    /// Whether a value can be shown at all.
    pub(super) fn has(self, value: f64) -> bool {
        value.abs() <= HUGE && (self != Self::Percentile || (0.0..=1.0).contains(&value))
    }

    /// Where a value is, in a measure in which this scale is even. May be infinite.
    fn height(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(0.0).log10(),
            Self::Percentile => -(1.0 - value).max(0.0).log10(),
        }
    }
}

impl Unit {
    /// A value as a person would write it.
    pub(super) fn text(self, value: f64) -> String {
        if value < 0.0 {
            return format!("\u{2212}{}", self.text(-value));
        }
        match self {
            Self::Count => prefixed(value, &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")]),
            Self::Seconds if (60.0..1e9).contains(&value) => clock(value.round() as i64),
            Self::Seconds => prefixed(value, &[(1.0, " s")]),
            Self::Duration => prefixed(
                value,
                &[(1.0, " ns"), (1e3, " µs"), (1e6, " ms"), (1e9, " s")],
            ),
            Self::Bytes => prefixed(
                value,
                &[
                    (1.0, " B"),
                    (KIB, " KiB"),
                    (KIB * KIB, " MiB"),
                    (KIB * KIB * KIB, " GiB"),
                ],
            ),
            // As many places as the last nine needs.
            Self::Percent if value < 1e4 => format!("{} %", trimmed(value * 100.0, 9)),
            Self::Percent => prefixed(value, &[(0.01, " %")]),
        }
    }

    /// The smallest step between ticks that is easy to count in and not below `size`.
    fn step(self, size: f64) -> f64 {
        const MINUTE: f64 = 60.0;
        const HOUR: f64 = 3600.0;
        let of = |unit: f64, counts: &[f64]| {
            let mut steps = counts.iter().map(|count| count * unit);
            steps.find(|&step| step >= size)
        };
        let decimal = || {
            let power = 10_f64.powf(size.log10().floor());
            of(power, &[1.0, 2.0, 5.0]).unwrap_or(10.0 * power)
        };
        match self {
            Self::Bytes => size.log2().ceil().exp2(),
            Self::Seconds if size > 10.0 => of(1.0, &[20.0, 30.0])
                .or_else(|| of(MINUTE, &[1.0, 2.0, 5.0, 10.0, 20.0, 30.0]))
                .or_else(|| of(HOUR, &[1.0, 2.0, 3.0, 6.0, 12.0, 24.0]))
                .unwrap_or_else(decimal),
            _ => decimal(),
        }
    }

    /// The values that a logarithmic axis may have ticks at, numbered in order: 1, 2, 5, 10, ...
    /// and down to 0.5, 0.2, ..., or the powers of two.
    fn rung(self, number: i32) -> f64 {
        if self == Self::Bytes {
            return f64::from(number).exp2();
        }
        let digit = [1.0, 2.0, 5.0][number.rem_euclid(3) as usize];
        digit * 10_f64.powi(number.div_euclid(3))
    }

    /// A decade of seconds is no round time, and stays in seconds.
    fn rung_text(self, number: i32) -> String {
        match self {
            Self::Seconds => prefixed(self.rung(number), &[(1.0, " s")]),
            _ => self.text(self.rung(number)),
        }
    }

    /// The number of the last rung that is not above a value. Its logarithm alone would tell that
    /// only up to a rounding error.
    fn rung_below(self, value: f64) -> i32 {
        let per_unit = if self == Self::Bytes {
            value.log2()
        } else {
            3.0 * value.log10()
        };
        let mut number = per_unit.floor() as i32 - 3;
        while self.rung(number + 1) <= value * (1.0 + TINY) {
            number += 1;
        }
        number
    }

    /// Every how many rungs a logarithmic axis may have ticks: each, or one a decade and fewer; for
    /// bytes, steps that come by 1 KiB, 1 MiB and 1 GiB as long as there is room for these.
    const fn strides(self) -> &'static [i32] {
        match self {
            Self::Bytes => &[1, 2, 5, 10, 20, 50, 100],
            _ => &[1, 3, 6, 9, 15, 30, 60, 90],
        }
    }
}

/// A value in the largest of some units that it has at least one of.
fn prefixed(value: f64, units: &[(f64, &str)]) -> String {
    let mut fitting = units.iter().rev();
    let (size, name) = match fitting.find(|(size, _)| value >= *size) {
        _ if value < TINY => return "0".to_owned(),
        Some(&unit) => unit,
        None => units[0],
    };
    let count = value / size;
    // What is less than one keeps about as many digits as what is more.
    let places = match count {
        ..0.001 => 12,
        ..1.0 => 6,
        _ => 3,
    };
    if count < 1e6 {
        format!("{}{name}", trimmed(count, places))
    } else {
        let (size, name) = units[0];
        format!("{:.2e}{name}", value / size)
    }
}

/// A time of a minute or more.
fn clock(seconds: i64) -> String {
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = parts
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    parts.join(" ")
}

/// A number with so many decimal places, without the zeros at the end.
fn trimmed(number: f64, places: usize) -> String {
    let text = format!("{number:.places$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A place on an axis that has a name.
#[derive(Debug)]
pub(super) struct Tick {
    /// From 0, the lower end of the axis, to 1.
    pub(super) position: f64,
    pub(super) text: String,
}

/// An axis laid out for the values that it has to show.
#[derive(Debug)]
pub(super) struct Ruler {
    scale: Scale,
    /// The heights of the ends, see [`Scale::height`]: finite, and `low` below `high`.
    low: f64,
    high: f64,
    /// In order, with room between them.
    pub(super) ticks: Vec<Tick>,
}

impl Ruler {
    /// Lays an axis out for values that its scale [has](Scale::has).
    ///
    /// `whole_steps` makes a linear axis end at a tick rather than at the last value. `apart` says
    /// whether two neighbours leave enough room between them.
    pub(super) fn new(
        scale: Scale,
        unit: Unit,
        values: &[f64],
        whole_steps: bool,
        apart: impl Fn(&Tick, &Tick) -> bool,
    ) -> Self {
        match scale {
            Scale::Linear => Self::linear(unit, values, whole_steps, apart),
            Scale::Log => Self::log(unit, values, apart),
            Scale::Percentile => Self::percentile(values, apart),
        }
    }

    /// Where a value goes, from 0 to 1; what is beyond an end, to the end.
    pub(super) fn position(&self, value: f64) -> f64 {
        ((self.scale.height(value) - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn between(scale: Scale, low: f64, high: f64) -> Self {
        Self {
            scale,
            low,
            high,
            ticks: Vec::new(),
        }
    }

    fn push(&mut self, height: f64, text: String) {
        self.ticks.push(Tick {
            position: (height - self.low) / (self.high - self.low),
            text,
        });
    }

    fn are_apart(&self, apart: impl Fn(&Tick, &Tick) -> bool) -> bool {
        // Two or three always are, whatever is asked for: the ends of the axis, and its zero.
        self.ticks.len() <= 3 || self.ticks.windows(2).all(|pair| apart(&pair[0], &pair[1]))
    }

    fn linear(
        unit: Unit,
        values: &[f64],
        whole_steps: bool,
        apart: impl Fn(&Tick, &Tick) -> bool,
    ) -> Self {
        let low = values.iter().copied().fold(0.0, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        let high = if high - low < TINY { low + 1.0 } else { high };
        let mut step = unit.step((high - low) / 100.0);
        loop {
            // A step missed by a rounding error is not missed.
            let (first, last) = if whole_steps {
                ((low / step + TINY).floor(), (high / step - TINY).ceil())
            } else {
                ((low / step - TINY).ceil(), (high / step + TINY).floor())
            };
            let mut ruler = if whole_steps {
                Self::between(Scale::Linear, first * step, last * step)
            } else {
                Self::between(Scale::Linear, low, high)
            };
            for number in first as i32..=last as i32 {
                let value = f64::from(number) * step;
                ruler.push(value, unit.text(value));
            }
            if ruler.are_apart(&apart) {
                return ruler;
            }
            step = unit.step(step * 1.01);
        }
    }

    fn log(unit: Unit, values: &[f64], apart: impl Fn(&Tick, &Tick) -> bool) -> Self {
        let positive = || values.iter().copied().filter(|&value| value >= TINY);
        let low = positive().min_by(f64::total_cmp).unwrap_or(1.0);
        let high = positive().max_by(f64::total_cmp).unwrap_or(10.0);
        let mut first = unit.rung_below(low);
        let mut last = first;
        while unit.rung(last) < high * (1.0 - TINY) {
            last += 1;
        }
        if first == last {
            (first, last) = (first - 1, last + 1);
        }
        let height = |number| Scale::Log.height(unit.rung(number));
        let mut ruler = Self::between(Scale::Log, height(first), height(last));
        for stride in unit.strides() {
            ruler.ticks.clear();
            for number in (first..=last).filter(|number| number % stride == 0) {
                ruler.push(height(number), unit.rung_text(number));
            }
            if ruler.are_apart(&apart) {
                break;
            }
        }
        ruler
    }

    fn percentile(values: &[f64], apart: impl Fn(&Tick, &Tick) -> bool) -> Self {
        let height = |value: &f64| Scale::Percentile.height(*value);
        let heights = values.iter().map(height);
        let finite = heights.filter(|height| height.is_finite());
        // At least as far as 90 %.
        let nines = finite.fold(1.0, f64::max).min(MOST_NINES);
        let has_whole = values.iter().any(|value| height(value).is_infinite());
        let high = if has_whole { nines + 1.0 } else { nines };
        let mut ruler = Self::between(Scale::Percentile, 0.0, high);
        ruler.push(0.0, Unit::Percent.text(0.0));
        ruler.push(height(&0.5), Unit::Percent.text(0.5));
        for nine in 1..=(nines + TINY) as i32 {
            let text = Unit::Percent.text(1.0 - 0.1_f64.powi(nine));
            ruler.push(f64::from(nine), text);
        }
        if has_whole {
            ruler.push(high, "max".to_owned());
        }
        // These are where they are: what has no room is left out, 0 % before 50 %.
        let mut kept: Vec<Tick> = Vec::new();
        for tick in ruler.ticks.drain(..).rev() {
            if kept.last().is_none_or(|next| apart(&tick, next)) {
                kept.push(tick);
            }
        }
        kept.reverse();
        ruler.ticks = kept;
        ruler
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPSILON: f64 = 1e-9;

    /// Room for ten ticks.
    fn apart(one: &Tick, next: &Tick) -> bool {
        next.position - one.position >= 0.1 - EPSILON
    }

    fn texts(ruler: &Ruler) -> Vec<&str> {
        ruler.ticks.iter().map(|tick| &tick.text[..]).collect()
    }

    fn ticks(scale: Scale, unit: Unit, values: &[f64]) -> String {
        texts(&Ruler::new(scale, unit, values, true, apart)).join(", ")
    }

    #[test]
    fn values_are_written_as_people_write_them() {
        for (unit, value, text) in [
            (Unit::Count, 0.0, "0"),
            (Unit::Count, 0.25, "0.25"),
            (Unit::Count, 0.000_02, "0.00002"),
            (Unit::Count, 500.0, "500"),
            (Unit::Count, 1000.0, "1k"),
            (Unit::Count, 1_250_000.0, "1.25M"),
            (Unit::Count, -1500.0, "−1.5k"),
            (Unit::Count, 2e15, "2.00e15"),
            (Unit::Seconds, 0.0, "0"),
            (Unit::Seconds, 0.5, "0.5 s"),
            (Unit::Seconds, 59.0, "59 s"),
            (Unit::Seconds, 80.0, "1 min 20 s"),
            (Unit::Seconds, 7200.0, "2 h"),
            (Unit::Seconds, 5400.0, "1 h 30 min"),
            (Unit::Duration, 250.0, "250 ns"),
            (Unit::Duration, 10_000.0, "10 µs"),
            (Unit::Duration, 1_500_000.0, "1.5 ms"),
            (Unit::Duration, 120e9, "120 s"),
            (Unit::Bytes, 512.0, "512 B"),
            (Unit::Bytes, 524_288.0, "512 KiB"),
            (Unit::Bytes, 1_572_864.0, "1.5 MiB"),
            (Unit::Bytes, 4_294_967_296.0, "4 GiB"),
            (Unit::Percent, 0.0, "0 %"),
            (Unit::Percent, 0.5, "50 %"),
            (Unit::Percent, 0.9999, "99.99 %"),
        ] {
            assert_eq!(unit.text(value), text);
        }
    }

    #[test]
    fn linear_ticks_count_in_steps_that_are_easy_to_count_in() {
        let linear = |unit, most| ticks(Scale::Linear, unit, &[most]);
        assert_eq!(linear(Unit::Count, 7.3), "0, 1, 2, 3, 4, 5, 6, 7, 8");
        assert_eq!(
            linear(Unit::Count, 1.9e6),
            "0, 200k, 400k, 600k, 800k, 1M, 1.2M, 1.4M, 1.6M, 1.8M, 2M"
        );
        assert_eq!(
            linear(Unit::Count, 40.0),
            "0, 5, 10, 15, 20, 25, 30, 35, 40"
        );
        assert_eq!(
            linear(Unit::Duration, 2.1e6),
            "0, 500 µs, 1 ms, 1.5 ms, 2 ms, 2.5 ms"
        );
        assert_eq!(
            linear(Unit::Bytes, 2e6),
            "0, 256 KiB, 512 KiB, 768 KiB, 1 MiB, 1.25 MiB, 1.5 MiB, 1.75 MiB, 2 MiB"
        );
        assert_eq!(
            linear(Unit::Seconds, 150.0),
            "0, 20 s, 40 s, 1 min, 1 min 20 s, 1 min 40 s, 2 min, 2 min 20 s, 2 min 40 s"
        );
        assert_eq!(
            linear(Unit::Seconds, 3600.0),
            "0, 10 min, 20 min, 30 min, 40 min, 50 min, 1 h"
        );
        assert_eq!(
            linear(Unit::Percent, 0.45),
            "0 %, 5 %, 10 %, 15 %, 20 %, 25 %, 30 %, 35 %, 40 %, 45 %"
        );
    }

    #[test]
    fn a_linear_axis_starts_at_zero_and_ends_at_a_tick_or_at_the_last_value() {
        let axis = |whole_steps| {
            Ruler::new(
                Scale::Linear,
                Unit::Count,
                &[83.0, 97.0],
                whole_steps,
                apart,
            )
        };
        for (whole_steps, last) in [(true, 100.0), (false, 97.0)] {
            let ruler = axis(whole_steps);
            assert!(ruler.position(0.0).abs() < EPSILON);
            assert!((ruler.position(last) - 1.0).abs() < EPSILON);
        }
        assert_eq!(texts(&axis(true)).last(), Some(&"100"));
        assert_eq!(texts(&axis(false)).last(), Some(&"90"));
    }

    #[test]
    fn below_zero_an_axis_goes_on() {
        assert_eq!(
            ticks(Scale::Linear, Unit::Count, &[-18.0, 9.0]),
            "−20, −15, −10, −5, 0, 5, 10"
        );
    }

    #[test]
    fn logarithmic_ticks_are_decades_or_a_few_in_each() {
        let log = |unit, values: &[f64]| ticks(Scale::Log, unit, values);
        assert_eq!(
            log(Unit::Duration, &[60e3, 3e6]),
            "50 µs, 100 µs, 200 µs, 500 µs, 1 ms, 2 ms, 5 ms"
        );
        assert_eq!(log(Unit::Count, &[3.0, 40_000.0]), "10, 100, 1k, 10k");
        assert_eq!(log(Unit::Count, &[1000.0]), "500, 1k, 2k");
        assert_eq!(log(Unit::Seconds, &[100.0]), "50 s, 100 s, 200 s");
        assert_eq!(
            log(Unit::Bytes, &[1000.0, 2e9]),
            "1 KiB, 32 KiB, 1 MiB, 32 MiB, 1 GiB"
        );
    }

    #[test]
    fn a_logarithmic_axis_ends_at_the_values_if_they_are_ticks() {
        for power in -6..15 {
            let [low, high] = [power, power + 2].map(|power| format!("1e{power}").parse().unwrap());
            let ruler = Ruler::new(Scale::Log, Unit::Count, &[low, high], true, apart);
            assert!(ruler.position(low).abs() < EPSILON, "{low}");
            assert!((ruler.position(high) - 1.0).abs() < EPSILON, "{high}");
            assert!((ruler.position(low * 10.0) - 0.5).abs() < EPSILON);
        }
    }

    #[test]
    fn what_has_no_logarithm_is_at_the_lower_end() {
        let ruler = Ruler::new(
            Scale::Log,
            Unit::Count,
            &[0.0, 100.0, -5.0, 1000.0],
            true,
            apart,
        );
        assert_eq!(ruler.ticks[0].text, "100");
        assert!(ruler.position(0.0).abs() < EPSILON);
        assert!(ruler.position(-5.0).abs() < EPSILON);
        assert_eq!(ticks(Scale::Log, Unit::Count, &[0.0]), "1, 2, 5, 10");
    }

    #[test]
    fn each_nine_of_a_percentile_is_as_far_as_the_last() {
        let values = [0.0, 0.5, 0.99, 0.9999];
        let ruler = Ruler::new(Scale::Percentile, Unit::Percent, &values, false, |_, _| {
            true
        });
        assert_eq!(
            texts(&ruler),
            ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
        for (value, position) in [
            (0.0, 0.0),
            (0.9, 0.25),
            (0.99, 0.5),
            (0.999, 0.75),
            (0.9999, 1.0),
        ] {
            assert!(
                (ruler.position(value) - position).abs() < EPSILON,
                "{value}"
            );
        }
        assert!((ruler.position(0.5) - 2_f64.log10() / 4.0).abs() < EPSILON);
        for tick in &ruler.ticks {
            let value: f64 = tick.text.trim_end_matches(" %").parse().unwrap();
            assert!((ruler.position(value / 100.0) - tick.position).abs() < 1e-6);
        }
    }

    #[test]
    fn the_highest_of_all_has_its_place_after_the_last_nine() {
        let values = [0.5, 0.999, 1.0];
        let ruler = Ruler::new(Scale::Percentile, Unit::Percent, &values, false, apart);
        assert_eq!(texts(&ruler), ["50 %", "90 %", "99 %", "99.9 %", "max"]);
        assert!((ruler.position(1.0) - 1.0).abs() < EPSILON);
        assert!((ruler.position(0.999) - 0.75).abs() < EPSILON);
    }

    #[test]
    fn nines_that_a_number_cannot_tell_are_not_told() {
        let most = 1.0 - f64::EPSILON / 2.0;
        let ruler = Ruler::new(Scale::Percentile, Unit::Percent, &[most], false, |_, _| {
            true
        });
        assert_eq!(texts(&ruler).last(), Some(&"99.9999999 %"));
        assert!((ruler.position(most) - 1.0).abs() < EPSILON);
    }

    #[test]
    fn an_axis_without_room_keeps_two_or_three_ticks() {
        for values in [[0.0, 10.0], [-10.0, 10.0]] {
            let ruler = Ruler::new(Scale::Linear, Unit::Count, &values, true, |_, _| false);
            assert!([2, 3].contains(&ruler.ticks.len()), "{:?}", ruler.ticks);
        }
    }

    #[test]
    fn what_is_no_fraction_has_no_percentile() {
        assert!(Scale::Percentile.has(0.0) && Scale::Percentile.has(1.0));
        assert!(!Scale::Percentile.has(-0.1) && !Scale::Percentile.has(99.9));
        assert!(Scale::Linear.has(99.9) && !Scale::Linear.has(f64::NAN));
        assert!(!Scale::Log.has(f64::INFINITY) && !Scale::Log.has(1e200));
    }
}
