//! Parses a relay's metrics: Prometheus' text format 0.0.4.

use super::histogram::Histogram;

/// An `Exposition` is the samples of one scrape.
#[derive(Debug, PartialEq)]
pub(super) struct Exposition(Vec<Sample>);

/// A value with its name and labels.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// The number of the first line that is no sample and no comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadLine(pub(super) usize);

impl Exposition {
    /// Parses a text of samples, each on a line of its own. Comments are skipped.
    pub(super) fn parse(text: &str) -> Result<Self, BadLine> {
        let lines = text.lines().map(str::trim).enumerate();
        let samples = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let samples: Result<_, _> = samples
            .map(|(index, line)| Sample::parse(line).ok_or(BadLine(index + 1)))
            .collect();
        samples.map(Self)
    }

    /// The value of this name, without regard to its labels.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.named(name).next().map(|sample| sample.value)
    }

    /// The values of this name, each with its value of this label.
    pub(super) fn by_label<'a>(
        &'a self,
        name: &'a str,
        label: &'a str,
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.named(name)
            .filter_map(move |sample| Some((sample.label(label)?, sample.value)))
    }

    /// The histogram of this name; without buckets if there is none.
    pub(super) fn histogram(&self, name: &str) -> Histogram {
        let bucket = format!("{name}_bucket");
        let buckets = self.by_label(&bucket, "le");
        let buckets = buckets.filter_map(|(bound, count)| Some((number(bound)?, count)));
        let sum = self.value(&format!("{name}_sum"));
        Histogram::new(buckets.collect(), sum.unwrap_or_default())
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }
}

impl Sample {
    /// Parses `name value`, `name{label="value",…} value`, and either of these with a time stamp after it.
    fn parse(line: &str) -> Option<Self> {
        let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let (name, mut rest) = line.split_at(line.find(|c| !is_in_name(c))?);
        if name.is_empty() {
            return None;
        }
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = parse_labels(inside, &mut labels)?;
        }
        let mut words = rest.split_ascii_whitespace();
        let value = number(words.next()?)?;
        let is_end = words.next().is_none_or(|time| time.parse::<i64>().is_ok());
        (is_end && words.next().is_none()).then(|| Self {
            name: name.to_owned(),
            labels,
            value,
        })
    }

    fn label(&self, wanted: &str) -> Option<&str> {
        let mut labels = self.labels.iter();
        let (_, value) = labels.find(|(name, _)| name == wanted)?;
        Some(value)
    }
}

/// Parses labels up to their brace, and returns what follows it.
fn parse_labels<'a>(mut rest: &'a str, labels: &mut Vec<(String, String)>) -> Option<&'a str> {
    loop {
        rest = rest.trim_start().trim_start_matches(',').trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (name, value) = rest.split_once('=')?;
        let mut text = String::new();
        let mut chars = value.trim_start().strip_prefix('"')?.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => text.push(match chars.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => text.push(other),
            }
        }
        labels.push((name.trim().to_owned(), text));
        rest = chars.as_str();
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\
# HELP chatloop_members Members, by dialect.
# TYPE chatloop_members gauge
chatloop_members{dialect=\"chat10\"} 3
chatloop_members{dialect=\"ws\",} 2

chatloop_messages_total 12345
chatloop_turn_seconds_bucket{le=\"1e-05\"} 4
chatloop_turn_seconds_bucket{le=\"+Inf\"} 6
chatloop_turn_seconds_sum 0.25
chatloop_turn_seconds_count 6
odd{a=\"x\\\"y\\\\z\\n}\", b = \"2\"} -1.5e3 1700000000000
";

    #[test]
    fn samples_have_their_labels_and_values() {
        let exposition = Exposition::parse(TEXT).unwrap();
        assert_eq!(exposition.value("chatloop_messages_total"), Some(12345.0));
        let members: Vec<_> = exposition.by_label("chatloop_members", "dialect").collect();
        assert_eq!(members, [("chat10", 3.0), ("ws", 2.0)]);
        let odd: Vec<_> = exposition.by_label("odd", "a").collect();
        assert_eq!(odd, [("x\"y\\z\n}", -1500.0)]);
        assert_eq!(exposition.by_label("odd", "b").next(), Some(("2", -1500.0)));
        assert_eq!(exposition.value("chatloop"), None);
        let expected = Histogram::new(vec![(1e-5, 4.0), (f64::INFINITY, 6.0)], 0.25);
        assert_eq!(exposition.histogram("chatloop_turn_seconds"), expected);
    }

    #[test]
    fn line_that_is_no_sample_is_refused_with_its_number() {
        for line in [
            "name",
            "name x",
            "name 1 2 3",
            "name 1 now",
            "{a=\"b\"} 1",
            "name{a=\"b\" 1",
            "name{a=\"b} 1",
            "name{a=b} 1",
            "name{a} 1",
            "<html>",
        ] {
            let text = format!("ok 1\n{line}\n");
            assert_eq!(Exposition::parse(&text), Err(BadLine(2)), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(name|[{}\"=,\\\\ \n#0-9a]|\\PC){0,40}") {
            let _ = Exposition::parse(&text);
        }
    }
}
