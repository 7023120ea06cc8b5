//! What a measurement tells, for people and for programs.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::chart::{Axis, Chart, Scale, Series};
use super::delays::Delays;
use super::outcome::{Figure, Figures, Outcome, Shown};
use super::plan::{Plan, Scenario, Server, Wait};
use super::trouble::Trouble;
use super::units::{Count, Unit};
use crate::clock;

/// The version of the JSON. It counts up when a key goes away or means something else.
const SCHEMA: u64 = 1;

/// All that came of a measurement. As text it is a table that is Markdown as well.
#[derive(Debug)]
pub struct Report {
    scenario: Scenario,
    /// What was done, in a sentence.
    done: String,
    /// The machine, the date, the command.
    machine: String,
    command: String,
    started: Timestamp,
    plan: Value,
    servers: Vec<Measured>,
    /// Whether it was ended early.
    is_cut_short: bool,
}

/// Which server was measured.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) server: Server,
    pub(super) pid: Option<u32>,
}

/// A server, and what came of measuring it.
#[derive(Debug)]
struct Measured {
    name: String,
    server: Server,
    pid: Option<u32>,
    figures: Figures,
    rounds: Vec<Outcome>,
    /// Whether it was ended early.
    is_cut_short: bool,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        started: SystemTime,
        servers: Vec<(Identity, Vec<Outcome>)>,
        is_cut_short: bool,
    ) -> Self {
        let rounds = servers.iter().map(|(_, rounds)| rounds.len()).min();
        let rounds = rounds.unwrap_or(0);
        let servers: Vec<_> = servers
            .into_iter()
            .map(|(identity, rounds)| {
                let figures: Vec<_> = rounds.iter().map(|round| &round.figures).collect();
                Measured {
                    name: identity.name,
                    server: identity.server,
                    pid: identity.pid,
                    figures: Figures::over(&figures),
                    rounds,
                    is_cut_short,
                }
            })
            .collect();
        Self {
            scenario: plan.scenario,
            done: done(plan, rounds),
            machine: machine(),
            command: plan.command.clone(),
            started: clock::timestamp(started),
            plan: json!({
                "members": plan.members,
                "senders": plan.senders,
                "size": plan.size,
                "in_flight": plan.in_flight,
                "rate": plan.rate,
                "churn": plan.churn,
                "faults": plan.faults,
                "for_seconds": plan.lasts.as_secs_f64(),
                "warmup_seconds": plan.warmup.as_secs_f64(),
                "rounds": if plan.against.is_some() { plan.rounds } else { 1 },
                "seed": plan.seed,
                "wait": match plan.wait {
                    Wait::Spin => "spin",
                    Wait::Sleep => "sleep",
                },
                "source_addresses": plan.sources.map(|sources| sources.count()),
            }),
            servers,
            is_cut_short,
        }
    }

    /// Whether anything was lost, cut or refused.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        let mut servers = self.servers.iter();
        servers
            .any(|server| server.figures.has_faults() || server.troubles().any(Trouble::is_failure))
    }

    /// The report for programs: see `report.schema.json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut report = self.servers[0].to_json();
        let more = json!({
            "schema": SCHEMA,
            "chatloop": env!("CARGO_PKG_VERSION"),
            "scenario": self.scenario.name(),
            "started": self.started.to_string(),
            "machine": self.machine,
            "command": self.command,
            "plan": self.plan,
        });
        if let Value::Object(more) = more {
            report.extend(more);
        }
        if let [target, other] = &self.servers[..] {
            report.insert("against".to_owned(), Value::Object(other.to_json()));
            let mut ratio = Map::new();
            for (figure, value) in target.figures.ratios(&other.figures) {
                insert(&mut ratio, &figure.path, value.into());
            }
            report.insert("ratio".to_owned(), Value::Object(ratio));
        }
        Value::Object(report)
    }
}

impl Measured {
    fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.rounds.iter().flat_map(|round| &round.troubles)
    }

    /// The delays of all rounds.
    fn delays(&self) -> Option<Delays> {
        let mut rounds = self.rounds.iter().filter_map(|round| round.delays.as_ref());
        let mut all = rounds.next()?.clone();
        rounds.for_each(|round| all.add(round));
        Some(all)
    }

    /// The round in the middle, by what was delivered.
    fn typical(&self) -> Option<&Outcome> {
        let rate = |round: &&Outcome| {
            let rate = round.figures.get("deliveries_per_second");
            rate.map_or(0.0, |figure| figure.value)
        };
        let mut rounds: Vec<_> = self.rounds.iter().collect();
        rounds.sort_by(|one, other| rate(one).total_cmp(&rate(other)));
        rounds.get(rounds.len() / 2).copied()
    }

    fn to_json(&self) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("name".to_owned(), self.name.clone().into());
        object.insert("protocol".to_owned(), self.server.protocol.name().into());
        object.insert("address".to_owned(), self.server.addr.to_string().into());
        object.insert("pid".to_owned(), self.pid.into());
        for figure in &self.figures.0 {
            insert(&mut object, &figure.path, number(figure));
        }
        let troubles: Vec<_> = self.troubles().map(ToString::to_string).collect();
        object.insert("troubles".to_owned(), troubles.into());
        object.insert("interrupted".to_owned(), self.is_cut_short.into());
        if self.rounds.len() > 1 {
            let rounds = self.rounds.iter().map(|round| {
                let mut object = Map::new();
                for figure in &round.figures.0 {
                    insert(&mut object, &figure.path, number(figure));
                }
                Value::Object(object)
            });
            object.insert("rounds".to_owned(), rounds.collect());
        }
        object
    }
}

/// Puts a value at a path of objects.
fn insert(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('/') {
        None => {
            object.insert(path.to_owned(), value);
        }
        Some((key, rest)) => {
            let inner = object.entry(key).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// A figure as a number, and what can only be whole as a whole one.
fn number(figure: &Figure) -> Value {
    match figure.unit {
        Unit::Count if figure.value.fract() == 0.0 => (figure.value as u64).into(),
        Unit::Bytes => (figure.value.round() as u64).into(),
        _ => figure.value.into(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.done)?;
        f.write_str(&self.table())?;
        let times = self.times();
        if !times.is_empty() {
            write!(f, "\n{times}")?;
        }
        let mut seen = BTreeSet::new();
        for server in &self.servers {
            for trouble in server.troubles() {
                let mut text = trouble.to_string();
                if self.servers.len() > 1 {
                    text = format!("{}: {text}", server.name);
                }
                if seen.insert(text.clone()) {
                    write!(f, "\n! {text}\n")?;
                }
            }
        }
        if self.is_cut_short {
            f.write_str("\n! ended before its time\n")?;
        }
        writeln!(f, "\n{}", self.machine)?;
        writeln!(f, "{}, `{}`", self.date(), self.command)
    }
}

impl Report {
    /// The figures that have rows of their own; with two servers, both and the ratio.
    fn table(&self) -> String {
        let mut rows = vec![vec![self.scenario.name().to_owned()]];
        rows[0].extend(self.servers.iter().map(|server| server.name.clone()));
        let ratios = self.ratios();
        if ratios.is_some() {
            rows[0].push("ratio".to_owned());
        }
        let mut faults: Vec<&str> = Vec::new();
        for figure in self.figures() {
            let values = || self.servers.iter().map(|one| one.figures.get(&figure.path));
            match figure.shown {
                Shown::Row => {}
                Shown::Fault if values().flatten().any(|one| one.value > 0.0) => {}
                Shown::Fault => {
                    faults.push(&figure.label);
                    continue;
                }
                Shown::Times(_) | Shown::Not => continue,
            }
            let mut row = vec![figure.label.clone()];
            row.extend(values().map(cell));
            if let Some(ratios) = &ratios {
                row.push(ratio_of(ratios, &figure.path));
            }
            rows.push(row);
        }
        if !faults.is_empty() {
            let mut row = vec![faults.join(", ")];
            row.extend(self.servers.iter().map(|_| "0".to_owned()));
            row.extend(ratios.map(|_| String::new()));
            rows.push(row);
        }
        markdown(&rows)
    }

    /// The times, a row each; with two servers, a row for each and one for the ratio.
    fn times(&self) -> String {
        let columns = ["samples", "p50", "p90", "p99", "p99.9", "max"];
        let mut rows = vec![vec!["times".to_owned()]];
        rows[0].extend(columns.map(str::to_owned));
        let ratios = self.ratios();
        let mut told: Vec<&str> = Vec::new();
        for figure in self.figures() {
            let Shown::Times(label) = figure.shown else {
                continue;
            };
            let Some((object, _)) = figure.path.split_once('/') else {
                continue;
            };
            if told.contains(&label) {
                continue;
            }
            told.push(label);
            let paths = columns.map(|column| format!("{object}/{column}"));
            for server in &self.servers {
                let name = match &ratios {
                    None => label.to_owned(),
                    Some(_) => format!("{label}, {}", server.name),
                };
                let cells = paths.iter().map(|path| cell(server.figures.get(path)));
                rows.push([name].into_iter().chain(cells).collect());
            }
            if let Some(ratios) = &ratios {
                let cells = paths.iter().map(|path| ratio_of(ratios, path));
                let name = format!("{label}, ratio");
                rows.push([name].into_iter().chain(cells).collect());
            }
        }
        if rows.len() == 1 {
            return String::new();
        }
        markdown(&rows)
    }

    /// All figures that any server has, in their order.
    fn figures(&self) -> Vec<&Figure> {
        let mut figures: Vec<&Figure> = Vec::new();
        for figure in self.servers.iter().flat_map(|server| &server.figures.0) {
            if figures.iter().all(|one| one.path != figure.path) {
                figures.push(figure);
            }
        }
        figures
    }

    fn ratios(&self) -> Option<Vec<(&Figure, f64)>> {
        match &self.servers[..] {
            [one, other] => Some(one.figures.ratios(&other.figures)),
            _ => None,
        }
    }

    /// A chart of what the scenario is about.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let (title, x, y) = match self.scenario {
            Scenario::Idle => (
                "Memory of the server",
                ("members", Scale::Linear, Unit::Count),
                ("resident memory", Scale::Linear, Unit::Bytes),
            ),
            Scenario::Soak => (
                "Memory of the server",
                ("time", Scale::Linear, Unit::Seconds),
                ("resident memory", Scale::Linear, Unit::Bytes),
            ),
            Scenario::Fanout | Scenario::Chat => (
                "Deliveries",
                ("time", Scale::Linear, Unit::Seconds),
                ("deliveries a second", Scale::Linear, Unit::Count),
            ),
            Scenario::Latency => (
                "Delay of a delivery",
                ("part of the deliveries", Scale::Percentile, Unit::Share),
                ("delay", Scale::Log, Unit::Nanoseconds),
            ),
            Scenario::Storm => (
                "After all have left at once",
                ("part of the members", Scale::Percentile, Unit::Share),
                (
                    "time until they hear again",
                    Scale::Linear,
                    Unit::Nanoseconds,
                ),
            ),
        };
        let axis = |(label, scale, unit)| Axis { label, scale, unit };
        let subtitle = format!("{}. {}; {}", self.done, self.machine, self.date());
        // Without its address, where that tells them apart.
        let short = |server: &Measured| server.name.split(", ").next().map(str::to_owned);
        let names: BTreeSet<_> = self.servers.iter().map(short).collect();
        let are_short = names.len() == self.servers.len();
        let series = self.servers.iter().map(|server| Series {
            name: match server.name.split_once(", ") {
                Some((name, _)) if are_short => name,
                _ => &server.name,
            },
            points: match self.scenario {
                Scenario::Idle | Scenario::Soak => {
                    server.rounds.first().map(|round| round.memory.clone())
                }
                Scenario::Fanout | Scenario::Chat => {
                    server.typical().map(|one| one.throughput.clone())
                }
                Scenario::Latency | Scenario::Storm => server.delays().map(|all| all.curve()),
            }
            .unwrap_or_default(),
        });
        Chart {
            title: &match &self.servers[..] {
                [only] => format!("{title}, {}", only.name),
                _ => title.to_owned(),
            },
            subtitle: &subtitle,
            x: axis(x),
            y: axis(y),
            series: series.collect(),
        }
        .to_string()
    }

    fn date(&self) -> String {
        self.started.strftime("%Y-%m-%d %H:%M UTC").to_string()
    }
}

fn cell(figure: Option<&Figure>) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| figure.unit.text(figure.value))
}

fn ratio_of(ratios: &[(&Figure, f64)], path: &str) -> String {
    let ratio = ratios.iter().find(|(one, _)| one.path == path);
    ratio.map_or_else(String::new, |(_, ratio)| format!("{ratio:.3}"))
}

/// A table of which the first column is text and the others are numbers.
fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = match column {
                0 => write!(text, "| {cell:<0$} ", widths[0]),
                _ => write!(text, "| {cell:>0$} ", widths[column]),
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let _ = match column {
                    0 => write!(text, "|:{:-<1$}", "", width + 1),
                    _ => write!(text, "|{:->1$}:", "", width + 1),
                };
            }
            text.push_str("|\n");
        }
    }
    text
}

/// What a plan does, in a sentence, with so many rounds done.
fn done(plan: &Plan, rounds: usize) -> String {
    let members = Count(plan.members as f64);
    let size = plan.size;
    let lasts = humantime::format_duration(plan.lasts);
    let mut text = match plan.scenario {
        Scenario::Idle => {
            format!("{members} members are silent for {lasts}; then one says {size} bytes to all")
        }
        Scenario::Fanout | Scenario::Chat => format!(
            "{} of {members} members {} messages of {size} bytes, {} under way at a time, for {lasts}",
            Count(plan.senders as f64),
            if plan.senders == 1 { "says" } else { "say" },
            Count(plan.in_flight as f64)
        ),
        Scenario::Latency => format!(
            "{} of {members} members say {} messages of {size} bytes a second, for {lasts}; delays \
             are counted from when a message was to be sent",
            Count(plan.senders as f64),
            Count(plan.rate.unwrap_or_default())
        ),
        Scenario::Storm => {
            format!("{members} members leave and come back at once, over and over for {lasts}")
        }
        Scenario::Soak => format!(
            "{members} members say {} messages a second, and {} a second leave and others come, beside \
             {} who misbehave, for {lasts}; seed {}",
            Count(plan.rate.unwrap_or_default()),
            Count(plan.churn),
            Count(plan.faults as f64),
            plan.seed
        ),
    };
    if plan.against.is_some() {
        let _ = match rounds {
            1 => write!(text, "; one after the other"),
            rounds => write!(text, "; medians of {rounds} rounds in turns"),
        };
    }
    text
}

/// The machine, in a line.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // The machine's, not those that this process may use.
    let cores =
        match info.matches("\nprocessor").count() + usize::from(info.starts_with("processor")) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            cores => cores,
        };
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("CPU", |(_, model)| model.trim());
    let read = |name| {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim().to_owned()
    };
    let plural = if cores == 1 { "" } else { "s" };
    format!(
        "{model}, {cores} core{plural}, {} {}",
        read("ostype"),
        read("osrelease")
    )
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;
    use std::time::Duration;

    fn plan() -> Plan {
        Plan {
            scenario: Scenario::Fanout,
            target: None,
            against: None,
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
        let mut delays = Delays::new();
        delays.record(1500, 10);
        let mut outcome = Outcome::default();
        let figures = &mut outcome.figures;
        figures.add(
            "deliveries_per_second",
            "deliveries, a second",
            Unit::Count,
            rate,
        );
        figures.note("server/sleeps_per_second", Unit::Count, 3.0);
        figures.percentiles("latency_us", "delay", delays.percentiles());
        figures.fault("lost", "lost", lost);
        figures.fault("cut", "cut", 0);
        outcome.delays = Some(delays);
        outcome
    }

    fn report(servers: &[(&str, &[f64], u64)]) -> Report {
        let servers = servers.iter().map(|&(name, rates, lost)| {
            let rounds = rates.iter().map(|&rate| round(rate, lost)).collect();
            let identity = Identity {
                name: name.to_owned(),
                server: Server {
                    protocol: Protocol::Chat10,
                    addr: "127.0.0.1:1".parse().unwrap(),
                },
                pid: None,
            };
            (identity, rounds)
        });
        Report::new(&plan(), SystemTime::UNIX_EPOCH, servers.collect(), false)
    }

    #[test]
    fn a_report_is_a_table_of_what_was_measured() {
        let report = report(&[("ours", &[1234.0], 0)]);
        let expected = "\
1 of 1,000 members says messages of 64 bytes, 2 under way at a time, for 1s 500ms

| fanout               |  ours |
|:---------------------|------:|
| deliveries, a second | 1,234 |
| lost, cut            |     0 |

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
    fn two_servers_have_a_ratio_and_a_fault_has_a_row() {
        let report = report(&[("ours", &[10.0, 30.0, 20.0], 0), ("theirs", &[40.0], 5)]);
        let text = report.to_string();
        for row in [
            "| fanout               | ours | theirs | ratio |\n",
            "| deliveries, a second |   20 |     40 | 0.500 |\n",
            "| lost                 |    0 |      5 |       |\n",
            "| cut                  |    0 |      0 |       |\n",
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
    fn a_chart_names_the_servers_without_what_they_share() {
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
