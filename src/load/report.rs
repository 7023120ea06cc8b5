//! The report of a measurement: a table, JSON and a chart, all from the same figures.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::iter;
use std::time::SystemTime;

use jiff::Timestamp;
use rustix::system::uname;
use serde::Serialize;
use serde_json::{Value, json};

use super::chart::{Axis, Chart, Curve, Scale};
use super::delays::Delays;
use super::figures::{Failures, Figures, Kind, Merge, ROWS, Row, quotient};
use super::plan::{Plan, Scenario};
use super::trouble::Warning;
use crate::clock;
use crate::units::{Count, Unit, several};
use Kind::{Compared, Failure, Percentiles, Plain};
use Scenario::{Chat, Fanout, Idle, Latency, Soak, Storm};

/// The version of the JSON. It counts up when a key goes away or changes its meaning.
const SCHEMA: u64 = 1;

/// The keys of a figure: none of a single one; of times, those that are columns of their table.
const KEYS: [&str; 7] = ["", "samples", "p50", "p90", "p99", "p99.9", "max"];

/// What `chatloop load` measured of a server.
///
/// The figures at the top are the target's; with --against, those of the other server are under
/// `against`. A figure is left out where there is none, such as `server` where the server is not on
/// this machine or cannot be watched. New keys may come; when one goes away or changes its meaning,
/// `schema` counts up.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[cfg_attr(test, schemars(title = "chatloop load --json"))]
#[cfg_attr(test, schemars(extend("dependentRequired" = {"against": ["ratio"], "ratio": ["against"]})))]
pub struct Report {
    /// The version of this format.
    #[cfg_attr(test, schemars(range(min = 1, max = 1)))]
    schema: u64,
    /// The version of the load tool.
    chatloop: &'static str,
    /// What was done to the server: the subcommand.
    scenario: Scenario,
    /// When the measurement began, in UTC as in RFC 3339.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    started: Timestamp,
    /// The machine that measured: CPU, cores, kernel.
    machine: String,
    /// The command as it was given.
    command: String,
    /// What was asked for, with the defaults of the other flags.
    plan: Plan,
    #[serde(flatten)]
    target: Measured,
    /// With --against: the same of the other server.
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Measured>,
    /// With --against: figures of the target as multiples of the other server's, at the same paths.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[cfg_attr(test, schemars(with = "Option<tests::Tree>"))]
    ratio: Value,
    /// What was done, in a sentence.
    #[serde(skip)]
    done: String,
}

/// Which server was measured.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Identity {
    /// The server: its program and address, as far as they are known.
    pub(super) name: String,
    /// The protocol of the connections.
    pub(super) protocol: String,
    /// Where it listened.
    pub(super) address: String,
    /// Its process, if it was watched.
    #[cfg_attr(test, schemars(required, extend("type" = ["integer", "null"])))]
    pub(super) pid: Option<u32>,
}

/// The result of one round.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) figures: Figures,
    /// The times that the scenario is about.
    pub(super) delays: Option<Delays>,
    /// The curve of a chart that shows no delays: numbers of members, or seconds, and the server's
    /// resident memory in bytes; or seconds, and deliveries a second.
    pub(super) curve: Curve,
    pub(super) warnings: Vec<Warning>,
    /// Whether it was ended early.
    pub(super) interrupted: bool,
    /// All deliveries, and the connections at the end.
    pub(super) deliveries: u64,
    pub(super) connected: usize,
}

impl Outcome {
    /// Adds the failures of a round that was not finished. Its other figures would be those of less
    /// than a round.
    pub(super) fn add_failures(&mut self, unfinished: Self) {
        self.warnings.extend(unfinished.warnings);
        let failures = &mut self.figures.failures;
        *failures = Failures::merge(&[failures, &unfinished.figures.failures]);
    }
}

/// A server and the results of measuring it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct Measured {
    #[serde(flatten)]
    identity: Identity,
    #[serde(flatten)]
    figures: Figures,
    /// Warnings: what went wrong or casts doubt on the figures.
    #[serde(rename = "troubles")]
    warnings: Vec<String>,
    /// Whether the measurement was ended early.
    interrupted: bool,
    /// The figures of each round, if there were several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, schemars(with = "Option<Vec<Figures>>"))]
    rounds: Vec<Figures>,
    #[serde(skip)]
    outcomes: Vec<Outcome>,
    /// The figures as JSON, for lookups by path.
    #[serde(skip)]
    values: Value,
}

impl Measured {
    fn new((identity, outcomes): (Identity, Vec<Outcome>), interrupted: bool) -> Self {
        let rounds: Vec<_> = outcomes.iter().map(|round| &round.figures).collect();
        let figures = Figures::merge(&rounds);
        let warnings = outcomes.iter().flat_map(|round| &round.warnings);
        let several = rounds.iter().filter(|_| rounds.len() > 1);
        Self {
            identity,
            warnings: warnings.map(ToString::to_string).collect(),
            interrupted,
            rounds: several.map(|&figures| figures.clone()).collect(),
            values: serde_json::to_value(&figures).unwrap_or_default(),
            figures,
            outcomes,
        }
    }

    /// The figure of a row; with a key, one of its percentiles.
    fn get(&self, row: &Row, key: &str) -> Option<f64> {
        self.values.pointer(&row.path(key))?.as_f64()
    }

    /// The name without the address.
    fn short_name(&self) -> &str {
        let name = &self.identity.name;
        name.split_once(", ").map_or(name, |(name, _)| name)
    }

    fn is_failure(&self) -> bool {
        let mut warnings = self.outcomes.iter().flat_map(|round| &round.warnings);
        self.figures.failures.are_any() || warnings.any(Warning::is_failure)
    }

    /// The curve of the delays of all rounds.
    fn curve(&self) -> Curve {
        let mut all = Delays::default();
        let rounds = self.outcomes.iter().filter_map(|one| one.delays.as_ref());
        rounds.for_each(|delays| all.add(delays));
        all.curve()
    }

    /// The round in the middle, by its deliveries.
    fn typical(&self) -> &Outcome {
        let mut rounds: Vec<_> = self.outcomes.iter().collect();
        let rate = |round: &Outcome| round.figures.deliveries_per_second.unwrap_or_default();
        rounds.sort_by(|one, other| rate(one).total_cmp(&rate(other)));
        rounds[rounds.len() / 2]
    }
}

impl Report {
    /// Reports on the target and the server that it was compared with, if there is one.
    pub(super) fn new(
        plan: &Plan,
        started: SystemTime,
        servers: impl Iterator<Item = (Identity, Vec<Outcome>)>,
        interrupted: bool,
    ) -> Option<Self> {
        let mut servers = servers.map(|server| Measured::new(server, interrupted));
        let (target, against) = (servers.next()?, servers.next());
        let servers = [&target].into_iter().chain(&against);
        let rounds = servers.map(|server| server.outcomes.len()).min()?;
        let mut report = Self {
            schema: SCHEMA,
            chatloop: env!("CARGO_PKG_VERSION"),
            scenario: plan.scenario,
            started: clock::timestamp(started),
            machine: machine(),
            command: plan.command.clone(),
            plan: plan.clone(),
            target,
            against,
            ratio: Value::Null,
            done: done(plan, rounds),
        };
        report.ratio = report.ratios();
        Some(report)
    }

    /// Whether a delivery was lost, or a connection was cut or refused.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.servers().any(Measured::is_failure)
    }

    /// The report for programs: see `report.schema.json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn servers(&self) -> impl Iterator<Item = &Measured> {
        [&self.target].into_iter().chain(&self.against)
    }

    /// The rows of this scenario.
    fn rows(&self) -> impl Iterator<Item = &'static Row> {
        let rows = ROWS.iter();
        rows.filter(|row| row.scenarios.contains(&self.scenario))
    }

    /// All ratios, at the paths of their figures; nothing if there is one server.
    fn ratios(&self) -> Value {
        let mut ratios = self.against.as_ref().map_or(Value::Null, |_| json!({}));
        for (row, key) in self.rows().flat_map(|row| KEYS.map(|key| (row, key))) {
            if let Some(ratio) = self.ratio(row, key) {
                let path = row.path(key);
                let keys = path.split('/').skip(1);
                *keys.fold(&mut ratios, |object, key| &mut object[key]) = ratio.into();
            }
        }
        ratios
    }

    /// The ratio of a figure, or of one of its percentiles, if it is a measure of the target's quality.
    fn ratio(&self, row: &Row, key: &str) -> Option<f64> {
        let is_compared = match row.kind {
            Compared(_) => true,
            Percentiles => !["samples", "max"].contains(&key),
            Plain(_) | Failure(_) => false,
        };
        let against = self.against.as_ref().filter(|_| is_compared)?;
        quotient(self.target.get(row, key)?, against.get(row, key)?)
    }

    /// A line of cells: one for each server, and with two of them one for the ratio.
    fn line(&self, cell: impl Fn(&Measured) -> String, ratio: &str) -> Vec<String> {
        let ratio = self.against.iter().map(|_| ratio.to_owned());
        self.servers().map(cell).chain(ratio).collect()
    }

    /// The same of a figure.
    fn cells(&self, row: &Row, key: &str, unit: Unit) -> Vec<String> {
        let cell = |server: &Measured| {
            let text = server.get(row, key).map(|value| unit.text(value));
            text.unwrap_or_else(|| "–".to_owned())
        };
        let ratio = self.ratio(row, key).map(|ratio| format!("{ratio:.3}"));
        self.line(cell, &ratio.unwrap_or_default())
    }

    /// The table of figures; with two servers, both and the ratio.
    fn table(&self) -> String {
        let name = |server: &Measured| server.identity.name.clone();
        let head: &str = self.scenario.into();
        let mut rows = vec![[vec![head.to_owned()], self.line(name, "ratio")].concat()];
        let mut zeros = Vec::new();
        for row in self.rows() {
            let values = self.servers().map(|server| server.get(row, ""));
            let values: Vec<_> = values.flatten().collect();
            match row.kind {
                Failure(_) if values.iter().all(|&count| count <= 0.0) => zeros.push(row.label),
                Plain(unit) | Compared(unit) | Failure(unit) if !values.is_empty() => {
                    rows.push([vec![row.label.to_owned()], self.cells(row, "", unit)].concat());
                }
                _ => {}
            }
        }
        if !zeros.is_empty() {
            let cells = self.line(|_| "0".to_owned(), "");
            rows.push([vec![zeros.join(", ")], cells].concat());
        }
        markdown(&rows)
    }

    /// The table of times; with two servers, each has a row for both and one for the ratio.
    fn times(&self) -> String {
        let keys = &KEYS[1..];
        let heads = iter::once("times").chain(keys.iter().copied());
        let mut rows = vec![heads.map(str::to_owned).collect()];
        let is_shown = |row: &&Row| self.servers().any(|one| one.get(row, "samples").is_some());
        for row in self.rows().filter(is_shown) {
            let columns = keys.iter().map(|&key| match key {
                "samples" => self.cells(row, key, Unit::Count),
                _ => self.cells(row, key, Unit::Microseconds),
            });
            let columns: Vec<_> = columns.collect();
            let names = self.line(|server| server.identity.name.clone(), "ratio");
            for (index, name) in names.iter().enumerate() {
                let label = match self.against {
                    None => row.label.to_owned(),
                    Some(_) => format!("{}, {name}", row.label),
                };
                let cells = columns.iter().map(|column| column[index].clone());
                rows.push(iter::once(label).chain(cells).collect());
            }
        }
        let table = (rows.len() > 1).then(|| "\n".to_owned() + &markdown(&rows));
        table.unwrap_or_default()
    }

    /// A chart of what the scenario is about.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let members = Axis("members", Scale::Linear, Unit::Count);
        let time = Axis("time", Scale::Linear, Unit::Seconds);
        let memory = Axis("resident memory", Scale::Linear, Unit::Bytes);
        let rate = Axis("deliveries a second", Scale::Linear, Unit::Count);
        let delay = Axis("delay", Scale::Log, Unit::Nanoseconds);
        let deliveries = Axis("share of the deliveries", Scale::Percentile, Unit::Share);
        let absence = Axis(
            "time until they receive again",
            Scale::Linear,
            Unit::Nanoseconds,
        );
        let returned = Axis("share of the members", Scale::Percentile, Unit::Share);
        let (title, x, y) = match self.scenario {
            Idle => ("Memory of the server", members, memory),
            Soak => ("Memory of the server", time, memory),
            Fanout | Chat => ("Deliveries", time, rate),
            Latency => ("Delay of a delivery", deliveries, delay),
            Storm => ("After all have left at once", returned, absence),
        };
        // Names are shown without the address, if they differ without it.
        let names: BTreeSet<_> = self.servers().map(Measured::short_name).collect();
        let are_distinct = names.len() == self.servers().count();
        let series = self.servers().map(|server| {
            let name = Some(server.short_name()).filter(|_| are_distinct);
            let curve = match self.scenario {
                Idle | Soak => server.outcomes[0].curve.clone(),
                Fanout | Chat => server.typical().curve.clone(),
                Latency | Storm => server.curve(),
            };
            (name.unwrap_or(&server.identity.name), curve)
        });
        Chart {
            title: &match self.against {
                None => format!("{title}, {}", self.target.identity.name),
                Some(_) => title.to_owned(),
            },
            subtitle: &format!("{}. {}; {}", self.done, self.machine, self.date()),
            x,
            y,
            series: series.collect(),
        }
        .to_string()
    }

    fn date(&self) -> String {
        self.started.strftime("%Y-%m-%d %H:%M UTC").to_string()
    }
}

/// The report as a table that is Markdown as well.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.done)?;
        write!(f, "{}{}", self.table(), self.times())?;
        let mut seen = BTreeSet::new();
        for server in self.servers() {
            for warning in &server.warnings {
                let text = match &self.against {
                    None => warning.clone(),
                    Some(_) => format!("{}: {warning}", server.identity.name),
                };
                if seen.insert(text.clone()) {
                    write!(f, "\n! {text}\n")?;
                }
            }
        }
        if self.target.interrupted {
            f.write_str("\n! ended before its time\n")?;
        }
        writeln!(f, "\n{}", self.machine)?;
        writeln!(f, "{}, `{}`", self.date(), self.command)
    }
}

/// A table whose first column is text and whose other columns are numbers.
fn markdown(rows: &[Vec<String>]) -> String {
    let mut lines = vec!["|".to_owned(); rows.len() + 1];
    for column in 0..rows[0].len() {
        let cells = rows.iter().map(|row| &row[column]);
        let width = cells.clone().map(|cell| cell.chars().count()).max();
        let width = width.unwrap_or(0);
        let pad = |cell: &String| match column {
            0 => format!(" {cell:<width$} |"),
            _ => format!(" {cell:>width$} |"),
        };
        let rule = match column {
            0 => format!("{:-<1$}|", ":", width + 2),
            _ => format!("{:->1$}|", ":", width + 2),
        };
        let mut cells: Vec<_> = cells.map(pad).collect();
        cells.insert(1, rule);
        iter::zip(&mut lines, &cells).for_each(|(line, cell)| line.push_str(cell));
    }
    lines.join("\n") + "\n"
}

/// What was done, in a sentence: the plan, with the number of rounds that were measured.
fn done(plan: &Plan, rounds: usize) -> String {
    let count = |count: usize| Count(count as f64);
    let (members, senders) = (count(plan.members), count(plan.senders));
    let (size, in_flight) = (plan.size, count(plan.in_flight));
    let (rate, churn) = (Count(plan.rate.unwrap_or_default()), Count(plan.churn));
    let lasts = humantime::format_duration(plan.lasts);
    let sends = if plan.senders == 1 { "sends" } else { "send" };
    let done = match plan.scenario {
        Idle => {
            format!("{members} members are silent for {lasts}; then one sends {size} bytes to all")
        }
        Fanout | Chat => format!(
            "{senders} of {members} members {sends} messages of {size} bytes, {in_flight} under way at a \
             time, for {lasts}"
        ),
        Latency => format!(
            "{senders} of {members} members send {rate} messages of {size} bytes a second, for {lasts}; \
             delays are counted from the time for which a message was scheduled"
        ),
        Storm => {
            format!("{members} members leave and come back at once, over and over for {lasts}")
        }
        Soak => format!(
            "{members} members send {rate} messages a second, and {churn} a second leave and are \
             replaced, beside {} that misbehave, for {lasts}; seed {}",
            count(plan.faults),
            plan.seed
        ),
    };
    match (&plan.against, rounds) {
        (None, _) => done,
        (Some(_), 1) => done + "; one after the other",
        (Some(_), rounds) => format!("{done}; medians of {rounds} rounds in turns"),
    }
}

/// The machine, in a line.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name| info.lines().filter(move |line| line.starts_with(name));
    // The machine's, not those that this process may use.
    let cores = match field("processor").count() {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        cores => cores,
    };
    let model = field("model name").find_map(|line| line.split_once(": "));
    let model = model.map_or("CPU", |(_, model)| model.trim());
    let (cores, system) = (several(cores as u64, "core"), uname());
    let [name, release] = [system.sysname(), system.release()].map(|text| text.to_string_lossy());
    format!("{model}, {cores}, {name} {release}")
}

#[cfg(test)]
mod tests {
    use super::super::figures::ServerFigures;
    use super::super::plan::Wait;
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// Figures by their paths: `latency_us/p99.9` is the key `p99.9` of the object `latency_us`.
    #[derive(schemars::JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only its schema is used")]
    pub(super) enum Tree {
        /// A figure.
        Leaf(f64),
        /// Figures by their keys.
        Branch(BTreeMap<String, Self>),
    }

    fn plan() -> Plan {
        Plan {
            scenario: Scenario::Fanout,
            target: None,
            against: None,
            allow_company: false,
            rounds: 1,
            program: "chatloop".into(),
            pid: None,
            members: 1000,
            senders: 1,
            size: 64,
            in_flight: 2,
            rate: None,
            churn: 0.0,
            faults: 0,
            lasts: Duration::from_millis(1500),
            warmup: Duration::ZERO,
            steps: 1,
            sources: None,
            seed: 7,
            wait: Wait::Spin,
            command: "chatloop load fanout".to_owned(),
        }
    }

    fn round(rate: f64, lost: u64) -> Outcome {
        let mut delays = Delays::default();
        delays.record(1500, 10);
        let figures = Figures {
            deliveries_per_second: Some(rate),
            latency_us: delays.times(),
            server: Some(ServerFigures {
                sleeps_per_second: Some(3.0),
                ..ServerFigures::default()
            }),
            failures: Failures {
                lost,
                ..Failures::default()
            },
            ..Figures::default()
        };
        Outcome {
            figures,
            delays: Some(delays),
            ..Outcome::default()
        }
    }

    fn report(servers: &[(&str, &[f64], u64)]) -> Report {
        let servers = servers.iter().map(|&(name, rates, lost)| {
            let rounds = rates.iter().map(|&rate| round(rate, lost)).collect();
            let identity = Identity {
                name: name.to_owned(),
                protocol: "chat10".to_owned(),
                address: "127.0.0.1:1".to_owned(),
                pid: None,
            };
            (identity, rounds)
        });
        Report::new(&plan(), SystemTime::UNIX_EPOCH, servers, false).unwrap()
    }

    /// Every path of a schema at which a figure may stand.
    fn paths(root: &Value, schema: &Value, at: &str, paths: &mut BTreeSet<String>) {
        let mut schema = schema;
        if let Some(any) = schema.get("anyOf") {
            schema = &any[0];
        }
        if let Some(reference) = schema.get("$ref") {
            let pointer = reference.as_str().unwrap().trim_start_matches('#');
            schema = root.pointer(pointer).unwrap();
        }
        paths.insert(at.trim_start_matches('/').to_owned());
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            self::tests::paths(root, inner, &format!("{at}/{key}"), paths);
        }
    }

    #[test]
    fn schema_is_the_one_in_the_source_tree() {
        let schema = schemars::schema_for!(Report);
        let text = format!("{:#}\n", schema.as_value());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/load/report.schema.json");
        if std::env::var_os("WRITE_SCHEMA").is_some() {
            fs::write(path, &text).unwrap();
        }
        let committed = fs::read_to_string(path).unwrap();
        assert!(
            text == committed,
            "WRITE_SCHEMA=1 cargo test writes it: {text}"
        );
    }

    #[test]
    fn row_of_the_table_has_a_figure_in_the_schema() {
        let schema = schemars::schema_for!(Figures);
        let mut known = BTreeSet::new();
        paths(schema.as_value(), schema.as_value(), "", &mut known);
        for row in ROWS {
            // The keys of faults are in the schema as the variants of an enum.
            let path = row.path.trim_start_matches('/');
            let path = path.split_once("faults/").map_or(path, |_| "faults");
            assert!(known.contains(path), "{row:?} in {known:?}");
        }
    }

    #[test]
    fn report_is_a_table_of_figures_and_one_of_times() {
        let report = report(&[("ours", &[1234.0], 0)]);
        let expected = "\
1 of 1,000 members sends messages of 64 bytes, 2 under way at a time, for 1s 500ms

| fanout                                                |  ours |
|:------------------------------------------------------|------:|
| deliveries                                            |     0 |
| deliveries, a second                                  | 1,234 |
| lost, duplicated, out of order, altered, cut, refused |     0 |

| times | samples |     p50 |     p90 |     p99 |   p99.9 |     max |
|:------|--------:|--------:|--------:|--------:|--------:|--------:|
| delay |      10 | 1.50 µs | 1.50 µs | 1.50 µs | 1.50 µs | 1.50 µs |

";
        let text = report.to_string();
        assert_eq!(&text[..expected.len().min(text.len())], expected);
        assert!(text.ends_with("\n1970-01-01 00:00 UTC, `chatloop load fanout`\n"));
        assert!(!report.is_failure());
    }

    #[test]
    fn two_servers_have_a_ratio_and_a_failure_has_a_row() {
        let report = report(&[("ours", &[10.0, 30.0, 20.0], 0), ("theirs", &[40.0], 5)]);
        let text = report.to_string();
        for row in [
            "| fanout                                          | ours | theirs | ratio |\n",
            "| deliveries, a second                            |   20 |     40 | 0.500 |\n",
            "| lost                                            |    0 |      5 |       |\n",
            "| duplicated, out of order, altered, cut, refused |    0 |      0 |       |\n",
            "| delay, theirs |      10 | 1.50 µs |",
            "| delay, ratio  |         |   1.000 |",
        ] {
            assert!(text.contains(row), "{row}{text}");
        }
        assert!(report.is_failure());
        let json = report.to_json();
        assert_eq!(json["deliveries_per_second"], 20.0);
        assert_eq!(json["against"]["lost"], 5);
        assert_eq!(json["ratio"]["deliveries_per_second"], 0.5);
        assert_eq!(json["ratio"]["latency_us"]["p99.9"], 1.0);
        assert_eq!(json["rounds"][1]["deliveries_per_second"], 30.0);
        assert_eq!(json["server"]["sleeps_per_second"], 3.0);
    }

    #[test]
    fn chart_names_the_servers_without_their_addresses() {
        let mut report = report(&[
            ("chatloop serve, 127.0.0.1:1", &[1.0], 0),
            ("redis, x", &[1.0], 0),
        ]);
        report.scenario = Scenario::Latency;
        let svg = report.to_svg();
        assert!(svg.starts_with("<svg"));
        assert!(
            svg.contains("\nchatloop serve\n") && svg.contains("\nredis\n"),
            "{svg}"
        );
    }
}
