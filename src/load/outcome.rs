//! What came of a measurement: figures, each defined once for the table, the JSON and the ratios.

use super::connect::Causes;
use super::delays::{Delays, Percentiles};
use super::trouble::Trouble;
use super::units::Unit;

/// What a figure is over several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounds {
    Median,
    Sum,
    Max,
}

/// Where people are shown a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// In a row of its own.
    Row,
    /// In a column of the row for these times.
    Times(&'static str),
    /// In a row of its own, if it is not 0.
    Fault,
    /// In the JSON only.
    Not,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    /// Where it stands in the JSON: `latency_us/p99.9` is the key `p99.9` of the object `latency_us`.
    pub(super) path: String,
    /// What the table calls it.
    pub(super) label: String,
    pub(super) shown: Shown,
    pub(super) unit: Unit,
    pub(super) value: f64,
    pub(super) rounds: Rounds,
    /// Whether it is worth a ratio.
    pub(super) compared: bool,
}

/// The figures of a measurement.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures(pub(super) Vec<Figure>);

/// All that came of a measurement.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) figures: Figures,
    /// How long what the scenario is about took.
    pub(super) delays: Option<Delays>,
    /// Seconds since the measuring began, and deliveries a second at that time.
    pub(super) throughput: Vec<(f64, f64)>,
    /// Numbers of members, or seconds, and the server's resident memory in bytes.
    pub(super) memory: Vec<(f64, f64)>,
    pub(super) troubles: Vec<Trouble>,
    /// Whether it was ended early.
    pub(super) interrupted: bool,
}

/// What a measurement tells of whether there was a chat at all.
#[derive(Debug)]
pub(super) struct Contact {
    pub(super) deliveries: u64,
    /// How many were connected in the end.
    pub(super) connected: usize,
    pub(super) cuts: Causes,
    pub(super) refusals: Causes,
}

impl Outcome {
    /// Adds what went wrong in a round that did not come to its end. Its other figures would be those
    /// of less than a round.
    pub(super) fn add_faults(&mut self, unfinished: Self) {
        self.troubles.extend(unfinished.troubles);
        for figure in unfinished.figures.0 {
            let is_fault = figure.shown == Shown::Fault
                || (figure.shown == Shown::Not && figure.rounds == Rounds::Sum);
            if !is_fault {
                continue;
            }
            let mut known = self.figures.0.iter_mut();
            match known.find(|known| known.path == figure.path) {
                Some(known) => known.value += figure.value,
                None => self.figures.0.push(figure),
            }
        }
    }
}

impl Figures {
    /// Whether anything happened that should not have.
    pub(super) fn has_faults(&self) -> bool {
        let mut faults = self.0.iter().filter(|figure| figure.shown == Shown::Fault);
        faults.any(|fault| fault.value > 0.0)
    }

    /// A figure that is worth comparing, and of which several rounds have a median.
    pub(super) fn add(&mut self, path: &str, label: &str, unit: Unit, value: f64) {
        self.push(path, label, Shown::Row, unit, value, Rounds::Median, true);
    }

    /// A figure that is told, but says nothing of how good a server is.
    pub(super) fn mention(&mut self, path: &str, label: &str, unit: Unit, value: f64) {
        self.push(path, label, Shown::Row, unit, value, Rounds::Median, false);
    }

    /// A figure for programs only.
    pub(super) fn note(&mut self, path: &str, unit: Unit, value: f64) {
        self.push(path, "", Shown::Not, unit, value, Rounds::Median, false);
    }

    /// A count of what happened, which adds up over rounds.
    pub(super) fn count(&mut self, path: &str, label: &str, value: u64) {
        let value = value as f64;
        self.push(
            path,
            label,
            Shown::Row,
            Unit::Count,
            value,
            Rounds::Sum,
            false,
        );
    }

    /// A count of what should not have happened.
    pub(super) fn fault(&mut self, path: &str, label: &str, value: u64) {
        let value = value as f64;
        self.push(
            path,
            label,
            Shown::Fault,
            Unit::Count,
            value,
            Rounds::Sum,
            false,
        );
    }

    /// The same by its cause, for programs only.
    pub(super) fn tally(&mut self, path: &str, value: u64) {
        let value = value as f64;
        self.push(path, "", Shown::Not, Unit::Count, value, Rounds::Sum, false);
    }

    /// The percentiles of times in nanoseconds, as an object of microseconds.
    pub(super) fn percentiles(
        &mut self,
        object: &str,
        label: &'static str,
        times: Option<Percentiles>,
    ) {
        let Some(times) = times else {
            return;
        };
        let shown = Shown::Times(label);
        let samples = times.samples as f64;
        let path = format!("{object}/samples");
        self.push(
            &path,
            "samples",
            shown,
            Unit::Count,
            samples,
            Rounds::Sum,
            false,
        );
        for (key, value) in [
            ("p50", times.p50),
            ("p90", times.p90),
            ("p99", times.p99),
            ("p99.9", times.p99_9),
            ("max", times.max),
        ] {
            let (rounds, compared) = match key {
                "max" => (Rounds::Max, false),
                _ => (Rounds::Median, true),
            };
            let path = format!("{object}/{key}");
            let value = value as f64 / 1000.0;
            self.push(
                &path,
                key,
                shown,
                Unit::Microseconds,
                value,
                rounds,
                compared,
            );
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all that a figure is, for the functions above"
    )]
    fn push(
        &mut self,
        path: &str,
        label: &str,
        shown: Shown,
        unit: Unit,
        value: f64,
        rounds: Rounds,
        compared: bool,
    ) {
        // Where nothing was counted, there is nothing to divide by, and no figure.
        if value.is_finite() {
            self.0.push(Figure {
                path: path.to_owned(),
                label: label.to_owned(),
                shown,
                unit,
                value,
                rounds,
                compared,
            });
        }
    }

    pub(super) fn get(&self, path: &str) -> Option<&Figure> {
        self.0.iter().find(|figure| figure.path == path)
    }

    /// The figures of several rounds as one: each as its kind says, over the rounds that have it.
    pub(super) fn over(rounds: &[&Self]) -> Self {
        let mut combined = Self::default();
        for figure in rounds.iter().flat_map(|round| &round.0) {
            if combined.get(&figure.path).is_some() {
                continue;
            }
            let mut values: Vec<f64> = rounds
                .iter()
                .filter_map(|round| Some(round.get(&figure.path)?.value))
                .collect();
            let value = match figure.rounds {
                Rounds::Median => median(&mut values),
                Rounds::Sum => values.iter().sum(),
                Rounds::Max => values.iter().copied().fold(f64::MIN, f64::max),
            };
            combined.0.push(Figure {
                value,
                ..figure.clone()
            });
        }
        combined
    }

    /// Each figure that is worth it, as a multiple of the other's.
    pub(super) fn ratios(&self, other: &Self) -> Vec<(&Figure, f64)> {
        let ratio = |figure: &Figure| {
            let ratio = figure.value / other.get(&figure.path)?.value;
            (figure.compared && ratio.is_finite()).then_some(ratio)
        };
        self.0
            .iter()
            .filter_map(|figure| Some((figure, ratio(figure)?)))
            .collect()
    }
}

/// The one in the middle, or halfway between the two that are.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(rate: f64, lost: u64) -> Figures {
        let mut figures = Figures::default();
        figures.add("rate", "rate", Unit::Count, rate);
        figures.count("lost", "lost", lost);
        let most = 1000 * rate as u64;
        figures.percentiles(
            "latency_us",
            "delay",
            Some(Percentiles {
                samples: 10,
                p50: 1,
                p90: 2,
                p99: 3,
                p99_9: 4,
                max: most,
            }),
        );
        figures
    }

    fn value(figures: &Figures, path: &str) -> String {
        figures.get(path).unwrap().value.to_string()
    }

    #[test]
    fn rounds_have_medians_and_what_happened_adds_up() {
        let rounds = [round(30.0, 1), round(10.0, 2), round(20.0, 4)];
        let all = Figures::over(&rounds.each_ref());
        assert_eq!(value(&all, "rate"), "20");
        assert_eq!(value(&all, "lost"), "7");
        assert_eq!(value(&all, "latency_us/max"), "30");
        assert_eq!(value(&all, "latency_us/samples"), "30");
        assert_eq!(
            value(&Figures::over(&[&rounds[0], &rounds[2]]), "rate"),
            "25"
        );
    }

    #[test]
    fn of_an_unfinished_round_only_the_faults_count() {
        let unfinished = |lost: u64, more: u64| {
            let mut figures = Figures::default();
            figures.add("rate", "rate", Unit::Count, 1.0);
            figures.count("deliveries", "deliveries", 5);
            figures.fault("lost", "lost", lost);
            if more > 0 {
                figures.tally("cuts/reset", more);
            }
            Outcome {
                figures,
                ..Outcome::default()
            }
        };
        let mut last = unfinished(0, 0);
        assert!(!last.figures.has_faults());
        last.add_faults(unfinished(2, 3));
        last.add_faults(unfinished(1, 4));
        assert!(last.figures.has_faults());
        for (path, expected) in [
            ("rate", "1"),
            ("deliveries", "5"),
            ("lost", "3"),
            ("cuts/reset", "7"),
        ] {
            assert_eq!(value(&last.figures, path), expected, "{path}");
        }
    }

    #[test]
    fn a_round_without_a_figure_does_not_count_for_it() {
        let rounds = [round(30.0, 1), Figures::default()];
        let all = Figures::over(&rounds.each_ref());
        assert_eq!(value(&all, "rate"), "30");
    }

    #[test]
    fn only_what_is_worth_it_has_a_ratio() {
        let (one, other) = (round(30.0, 1), round(10.0, 1));
        let ratios = one.ratios(&other);
        let paths: Vec<_> = ratios.iter().map(|(one, _)| &one.path[..]).collect();
        let expected = [
            "rate",
            "latency_us/p50",
            "latency_us/p90",
            "latency_us/p99",
            "latency_us/p99.9",
        ];
        assert_eq!(paths, expected);
        assert_eq!(ratios[0].1.to_string(), "3");
        assert_eq!(round(1.0, 0).ratios(&round(0.0, 0)).len(), 4);
    }
}
