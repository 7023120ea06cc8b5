//! The report of a measurement: a table, JSON and a chart, all from the same figures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::chart::{Axis, Chart, Scale, Series};
use super::delays::Delays;
use super::figures::{Failures, Figures, Merge, Tree};
use super::plan::{Plan, Scenario, Server, Wait};
use super::trouble::Warning;
use super::units::{Count, Unit};
use crate::clock;

/// The version of the JSON. It counts up when a key goes away or changes its meaning.
const SCHEMA: u64 = 1;

/// How a row of the table is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// With the ratio of two servers.
    Compared(Unit),
    /// Without it: the figure says nothing about how good a server is.
    Plain(Unit),
    /// In a row of its own only if it is not 0.
    Failure,
    /// Percentiles, in a table of their own.
    Times,
}
use Kind::{Compared, Failure, Plain, Times};
use Scenario::{Chat, Fanout, Idle, Latency, Soak, Storm};

/// A row of the table: the path of its figure, its label, and the scenarios that have it.
type Row = (&'static str, &'static str, Kind, &'static [Scenario]);

const ALL: &[Scenario] = &[Idle, Fanout, Chat, Latency, Storm, Soak];
const NOT_STORM: &[Scenario] = &[Idle, Fanout, Chat, Latency, Soak];
const NOT_IDLE: &[Scenario] = &[Fanout, Chat, Latency, Storm, Soak];
const ASIDE: &[Scenario] = &[Fanout, Chat, Latency, Storm];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("members", "members", Plain(Unit::Count), ALL),
    ("connects_per_second", "connected, a second", Compared(Unit::Count), ALL),
    ("lasted_seconds", "lasted", Plain(Unit::Seconds), ALL),
    ("storms", "storms", Plain(Unit::Count), ALL),
    ("joins", "joined", Plain(Unit::Count), ALL),
    ("left", "left as planned", Plain(Unit::Count), ALL),
    ("faults/stop", "stopped reading", Plain(Unit::Count), ALL),
    ("faults/pause", "paused reading", Plain(Unit::Count), ALL),
    ("faults/drip", "read a byte at a time", Plain(Unit::Count), ALL),
    ("faults/trickle", "sent a byte at a time", Plain(Unit::Count), ALL),
    ("faults/flood", "flooded the room", Plain(Unit::Count), ALL),
    ("faults/reset_inside", "reset inside a message", Plain(Unit::Count), ALL),
    ("faults/fin_inside", "closed inside a message", Plain(Unit::Count), ALL),
    ("faults/nameless", "sent no name", Plain(Unit::Count), ALL),
    ("faults/no_frame", "sent what is no frame", Plain(Unit::Count), ALL),
    ("faults/too_long", "sent a header over the limit", Plain(Unit::Count), ALL),
    ("closed_for_it", "closed by the server for that", Plain(Unit::Count), ALL),
    ("messages", "messages", Plain(Unit::Count), ALL),
    ("server/rss_at_start_bytes", "server, memory at start", Compared(Unit::Bytes), &[Idle]),
    ("server/rss_bytes", "server, memory with all members", Compared(Unit::Bytes), &[Idle]),
    ("server/bytes_per_member", "server, memory for a member", Compared(Unit::Bytes), &[Idle]),
    ("kernel_bytes_per_connection", "kernel, memory for both ends of a connection", Plain(Unit::Bytes), ALL),
    ("server/cpu_us_per_connect", "server, CPU to accept a member", Compared(Unit::Microseconds), ALL),
    ("server/idle_wakeups", "server, wake-ups while silent", Compared(Unit::Count), ALL),
    ("server/idle_cpu_us_per_second", "server, CPU a second of silence", Compared(Unit::Microseconds), ALL),
    ("deliveries", "received one message", Plain(Unit::Count), &[Idle]),
    ("deliveries", "deliveries", Plain(Unit::Count), NOT_IDLE),
    ("messages_per_second", "messages, a second", Compared(Unit::Count), ALL),
    ("deliveries_per_second", "deliveries, a second", Compared(Unit::Count), NOT_STORM),
    ("deliveries_per_second", "deliveries, a second", Plain(Unit::Count), &[Storm]),
    ("heard_bytes", "received and checked", Plain(Unit::Bytes), ALL),
    ("server/cpu_ns_per_delivery", "server, CPU for a delivery", Compared(Unit::Nanoseconds), NOT_STORM),
    ("server/cpu_us_per_return", "server, CPU for a returning member", Compared(Unit::Microseconds), ALL),
    ("server/cpu_share", "server, CPU used", Plain(Unit::Share), ALL),
    ("server/rss_bytes", "server, memory", Compared(Unit::Bytes), ASIDE),
    ("load_tool/busy_share", "load tool, busy", Plain(Unit::Share), ALL),
    ("load_tool/cpu_share", "load tool, CPU used", Plain(Unit::Share), &[Soak]),
    ("load_tool/late_us", "load tool, late by (p99)", Plain(Unit::Microseconds), ALL),
    ("server/rss_at_start_bytes", "server, memory, at start", Plain(Unit::Bytes), &[Soak]),
    ("server/rss_warm_bytes", "server, memory, after a tenth", Plain(Unit::Bytes), ALL),
    ("server/rss_second_quarter_bytes", "server, memory, second quarter", Plain(Unit::Bytes), ALL),
    ("server/rss_last_quarter_bytes", "server, memory, last quarter", Plain(Unit::Bytes), ALL),
    ("server/rss_highest_bytes", "server, memory, highest", Plain(Unit::Bytes), ALL),
    ("server/rss_bytes", "server, memory, at the end", Plain(Unit::Bytes), &[Soak]),
    ("server/descriptors/at_start", "server, descriptors, at start", Plain(Unit::Count), ALL),
    ("server/descriptors/highest", "server, descriptors, highest", Plain(Unit::Count), ALL),
    ("server/descriptors/at_end", "server, descriptors, after all have left", Plain(Unit::Count), ALL),
    ("lost", "lost", Failure, ALL),
    ("duplicated", "duplicated", Failure, ALL),
    ("out_of_order", "out of order", Failure, ALL),
    ("corrupt", "altered", Failure, ALL),
    ("cut", "cut", Failure, ALL),
    ("refused", "refused", Failure, ALL),
    ("connect_us", "time to connect", Times, ALL),
    ("all_back_us", "until all receive again", Times, ALL),
    ("latency_us", "delay", Times, NOT_STORM),
    ("latency_us", "until one receives again", Times, &[Storm]),
];

/// The columns of the table of times, which are keys as well; the percentiles are compared.
const TIMES: [&str; 6] = ["samples", "p50", "p90", "p99", "p99.9", "max"];

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
    plan: Asked,
    #[serde(flatten)]
    target: Measured,
    /// With --against: the same of the other server.
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Measured>,
    /// With --against: figures of the target as multiples of the other server's, at the same paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Tree>,
    /// What was done, in a sentence.
    #[serde(skip)]
    done: String,
}

/// What was asked for.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct Asked {
    /// --members: how many receive a message, and its sender.
    members: usize,
    /// --senders: how many of them send.
    senders: usize,
    /// --size: how long a message is, in bytes; in `soak` the longest.
    size: usize,
    /// --in-flight: how many messages are under way at a time, in `fanout` and `chat`.
    in_flight: usize,
    /// --rate: connections a second in `idle`, messages a second in `latency` and `soak`; null for as fast as possible.
    #[cfg_attr(test, schemars(required, extend("type" = ["number", "null"])))]
    rate: Option<f64>,
    /// --churn: how many members leave a second in `soak`, and are replaced by others.
    churn: f64,
    /// --faults: how many clients misbehave at a time in `soak`, beside the members.
    faults: usize,
    /// --for: how long it is measured, in seconds.
    for_seconds: f64,
    /// --warmup: how long it runs before that, in seconds.
    warmup_seconds: f64,
    /// --rounds: how often each server is measured; once without --against.
    rounds: usize,
    /// --seed: the start of the random numbers.
    seed: u64,
    /// --wait: how the load tool waits for messages.
    wait: Wait,
    /// --bind: how many source addresses connections came from; null if the system chose.
    #[cfg_attr(test, schemars(required, extend("type" = ["integer", "null"])))]
    source_addresses: Option<usize>,
}

/// Which server was measured.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) server: Server,
    pub(super) pid: Option<u32>,
}

/// The result of one round.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) figures: Figures,
    /// The times that the scenario is about.
    pub(super) delays: Option<Delays>,
    /// Seconds since the measurement began, and deliveries a second at that time.
    pub(super) throughput: Vec<(f64, f64)>,
    /// Numbers of members, or seconds, and the server's resident memory in bytes.
    pub(super) memory: Vec<(f64, f64)>,
    pub(super) warnings: Vec<Warning>,
    /// Whether it was ended early.
    pub(super) interrupted: bool,
    /// All deliveries, and the connections at the end.
    pub(super) deliveries: u64,
    pub(super) connected: usize,
}

impl Outcome {
    /// Takes the failures, and warns of them and of the time in which this program did not run.
    pub(super) fn warn(&mut self, failures: Failures, connected: usize, paused: Duration) {
        let warnings = &mut self.warnings;
        if !failures.refusals.is_empty() {
            let causes = failures.refusals.clone();
            warnings.push(Warning::Refused { causes, connected });
        }
        if !failures.cuts.is_empty() {
            warnings.push(Warning::Cut(failures.cuts.clone()));
        }
        warnings.extend((failures.deaf > 0).then_some(Warning::Deaf(failures.deaf)));
        warnings.extend((failures.foreign > 0).then_some(Warning::Company(failures.foreign)));
        warnings.extend((!paused.is_zero()).then_some(Warning::Paused(paused)));
        self.figures.failures = failures;
    }

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
    /// The server: its program and address, as far as they are known.
    name: String,
    /// The protocol that it was spoken to.
    protocol: &'static str,
    /// Where it listened.
    address: String,
    /// Its process, if it was watched.
    #[cfg_attr(test, schemars(required, extend("type" = ["integer", "null"])))]
    pid: Option<u32>,
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
    fn new(identity: Identity, outcomes: Vec<Outcome>, interrupted: bool) -> Self {
        let rounds: Vec<_> = outcomes.iter().map(|round| &round.figures).collect();
        let figures = Figures::merge(&rounds);
        let warnings = outcomes.iter().flat_map(|round| &round.warnings);
        Self {
            name: identity.name,
            protocol: identity.server.protocol.name(),
            address: identity.server.addr.to_string(),
            pid: identity.pid,
            warnings: warnings.map(ToString::to_string).collect(),
            interrupted,
            rounds: match &rounds[..] {
                [_] => Vec::new(),
                several => several.iter().copied().cloned().collect(),
            },
            values: serde_json::to_value(&figures).unwrap_or_default(),
            figures,
            outcomes,
        }
    }

    fn get(&self, path: &str) -> Option<f64> {
        self.values.pointer(&format!("/{path}"))?.as_f64()
    }

    fn is_failure(&self) -> bool {
        let mut warnings = self.outcomes.iter().flat_map(|round| &round.warnings);
        self.figures.failures.are_any() || warnings.any(Warning::is_failure)
    }

    /// The delays of all rounds.
    fn delays(&self) -> Option<Delays> {
        let mut rounds = self
            .outcomes
            .iter()
            .filter_map(|round| round.delays.as_ref());
        let mut all = rounds.next()?.clone();
        rounds.for_each(|round| all.add(round));
        Some(all)
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
    /// `servers` is the target, and the one to compare it with if there is one.
    pub(super) fn new(
        plan: &Plan,
        started: SystemTime,
        servers: Vec<(Identity, Vec<Outcome>)>,
        interrupted: bool,
    ) -> Option<Self> {
        let rounds = servers.iter().map(|(_, rounds)| rounds.len()).min();
        let servers = servers.into_iter();
        let mut servers =
            servers.map(|(identity, rounds)| Measured::new(identity, rounds, interrupted));
        let mut report = Self {
            schema: SCHEMA,
            chatloop: env!("CARGO_PKG_VERSION"),
            scenario: plan.scenario,
            started: clock::timestamp(started),
            machine: machine(),
            command: plan.command.clone(),
            plan: Asked {
                members: plan.members,
                senders: plan.senders,
                size: plan.size,
                in_flight: plan.in_flight,
                rate: plan.rate,
                churn: plan.churn,
                faults: plan.faults,
                for_seconds: plan.lasts.as_secs_f64(),
                warmup_seconds: plan.warmup.as_secs_f64(),
                rounds: if plan.against.is_some() {
                    plan.rounds
                } else {
                    1
                },
                seed: plan.seed,
                wait: plan.wait,
                source_addresses: plan.sources.map(|sources| sources.count()),
            },
            target: servers.next()?,
            against: servers.next(),
            ratio: None,
            done: done(plan, rounds.unwrap_or(0)),
        };
        if report.against.is_some() {
            let mut ratios = Tree::Branch(BTreeMap::new());
            for (path, _, kind, _) in report.rows() {
                let paths = match kind {
                    Compared(_) => vec![path.to_owned()],
                    Times => TIMES[1..5]
                        .iter()
                        .map(|key| format!("{path}/{key}"))
                        .collect(),
                    Plain(_) | Failure => Vec::new(),
                };
                for path in paths {
                    if let Some(ratio) = report.ratio(&path) {
                        ratios.insert(&path, ratio);
                    }
                }
            }
            report.ratio = Some(ratios);
        }
        Some(report)
    }

    /// Whether anything was lost, cut or refused.
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
    fn rows(&self) -> impl Iterator<Item = Row> {
        let scenario = self.scenario;
        ROWS.iter()
            .copied()
            .filter(move |row| row.3.contains(&scenario))
    }

    fn ratio(&self, path: &str) -> Option<f64> {
        let ratio = self.target.get(path)? / self.against.as_ref()?.get(path)?;
        Some(ratio).filter(|ratio| ratio.is_finite())
    }

    /// The table of figures; with two servers, both and the ratio.
    fn table(&self) -> String {
        let mut rows = vec![vec![self.scenario.name().to_owned()]];
        rows[0].extend(self.servers().map(|server| server.name.clone()));
        rows[0].extend(self.against.as_ref().map(|_| "ratio".to_owned()));
        let mut zeros: Vec<&str> = Vec::new();
        for (path, label, kind, _) in self.rows() {
            let values: Vec<_> = self.servers().map(|server| server.get(path)).collect();
            let unit = match kind {
                Times => continue,
                Failure if values.iter().flatten().all(|&count| count <= 0.0) => {
                    zeros.push(label);
                    continue;
                }
                Failure => Unit::Count,
                Plain(unit) | Compared(unit) => unit,
            };
            if values.iter().all(Option::is_none) {
                continue;
            }
            let ratio = Some(path).filter(|_| matches!(kind, Compared(_)));
            rows.push(self.row(label, values.iter().map(|&value| cell(unit, value)), ratio));
        }
        if !zeros.is_empty() {
            let cells = self.servers().map(|_| "0".to_owned());
            rows.push(self.row(&zeros.join(", "), cells, None));
        }
        markdown(&rows)
    }

    /// A row of the table, with the ratio at a path if that is worth one.
    fn row(
        &self,
        label: &str,
        cells: impl Iterator<Item = String>,
        ratio: Option<&str>,
    ) -> Vec<String> {
        let ratio = self
            .against
            .as_ref()
            .map(|_| ratio.and_then(|path| self.ratio(path)));
        let cells = [label.to_owned()].into_iter().chain(cells);
        cells.chain(ratio.map(ratio_cell)).collect()
    }

    /// The table of times; with two servers, each has a row for both and one for the ratio.
    fn times(&self) -> String {
        let header = ["times"].into_iter().chain(TIMES);
        let mut rows = vec![header.map(str::to_owned).collect::<Vec<_>>()];
        for (object, label, kind, _) in self.rows() {
            if kind != Times || self.servers().all(|one| one.values.get(object).is_none()) {
                continue;
            }
            let paths = TIMES.map(|key| format!("{object}/{key}"));
            for server in self.servers() {
                let name = match &self.against {
                    None => label.to_owned(),
                    Some(_) => format!("{label}, {}", server.name),
                };
                let cells = paths.iter().zip(TIMES).map(|(path, key)| {
                    let unit = if key == "samples" {
                        Unit::Count
                    } else {
                        Unit::Microseconds
                    };
                    cell(unit, server.get(path))
                });
                rows.push([name].into_iter().chain(cells).collect());
            }
            if self.against.is_some() {
                let cells = paths.iter().zip(TIMES).map(|(path, key)| {
                    let is_compared = key != "samples" && key != "max";
                    ratio_cell(self.ratio(path).filter(|_| is_compared))
                });
                rows.push(
                    [format!("{label}, ratio")]
                        .into_iter()
                        .chain(cells)
                        .collect(),
                );
            }
        }
        if rows.len() == 1 {
            String::new()
        } else {
            format!("\n{}", markdown(&rows))
        }
    }

    /// A chart of what the scenario is about.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let members = ("members", Scale::Linear, Unit::Count);
        let time = ("time", Scale::Linear, Unit::Seconds);
        let memory = ("resident memory", Scale::Linear, Unit::Bytes);
        let share = |label| (label, Scale::Percentile, Unit::Share);
        let (title, x, y) = match self.scenario {
            Idle => ("Memory of the server", members, memory),
            Soak => ("Memory of the server", time, memory),
            Fanout | Chat => {
                let rate = ("deliveries a second", Scale::Linear, Unit::Count);
                ("Deliveries", time, rate)
            }
            Latency => {
                let delay = ("delay", Scale::Log, Unit::Nanoseconds);
                (
                    "Delay of a delivery",
                    share("share of the deliveries"),
                    delay,
                )
            }
            Storm => {
                let delay = (
                    "time until they receive again",
                    Scale::Linear,
                    Unit::Nanoseconds,
                );
                let share = share("share of the members");
                ("After all have left at once", share, delay)
            }
        };
        let axis = |(label, scale, unit)| Axis { label, scale, unit };
        // Without the address, where the names differ without it.
        let short = |server: &Measured| server.name.split(", ").next().map(str::to_owned);
        let names: BTreeSet<_> = self.servers().map(short).collect();
        let are_short = names.len() == self.servers().count();
        let series = self.servers().map(|server| Series {
            name: match server.name.split_once(", ") {
                Some((name, _)) if are_short => name,
                _ => &server.name,
            },
            points: match self.scenario {
                Idle | Soak => server.outcomes[0].memory.clone(),
                Fanout | Chat => server.typical().throughput.clone(),
                Latency | Storm => server.delays().map(|all| all.curve()).unwrap_or_default(),
            },
        });
        Chart {
            title: &match self.against {
                None => format!("{title}, {}", self.target.name),
                Some(_) => title.to_owned(),
            },
            subtitle: &format!("{}. {}; {}", self.done, self.machine, self.date()),
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
                    Some(_) => format!("{}: {warning}", server.name),
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

fn cell(unit: Unit, value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| unit.text(value))
}

fn ratio_cell(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"))
}

/// A table of which the first column is text and the others are numbers.
fn markdown(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len()).filter_map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = match column {
                0 => write!(text, "| {cell:<width$} "),
                _ => write!(text, "| {cell:>width$} "),
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                let [left, right] = if column == 0 { [":", ""] } else { ["", ":"] };
                // Writing to a string does not fail.
                let _ = write!(text, "|{left}{dashes}{right}");
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
            format!("{members} members are silent for {lasts}; then one sends {size} bytes to all")
        }
        Scenario::Fanout | Scenario::Chat => format!(
            "{} of {members} members {} messages of {size} bytes, {} under way at a time, for {lasts}",
            Count(plan.senders as f64),
            if plan.senders == 1 { "sends" } else { "send" },
            Count(plan.in_flight as f64)
        ),
        Scenario::Latency => format!(
            "{} of {members} members send {} messages of {size} bytes a second, for {lasts}; delays \
             are counted from the time for which a message was scheduled",
            Count(plan.senders as f64),
            Count(plan.rate.unwrap_or_default())
        ),
        Scenario::Storm => {
            format!("{members} members leave and come back at once, over and over for {lasts}")
        }
        Scenario::Soak => format!(
            "{members} members send {} messages a second, and {} a second leave and are replaced, beside \
             {} that misbehave, for {lasts}; seed {}",
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
    use super::super::figures::ServerFigures;
    use super::*;
    use std::time::Duration;

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
        let mut delays = Delays::new();
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
                server: Server {
                    protocol: Protocol::Chat10,
                    addr: "127.0.0.1:1".parse().unwrap(),
                },
                pid: None,
            };
            (identity, rounds)
        });
        Report::new(&plan(), SystemTime::UNIX_EPOCH, servers.collect(), false).unwrap()
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
        for (path, ..) in ROWS {
            // The keys of these are in the schema as the variants of an enum.
            let path = if path.starts_with("faults/") {
                "faults"
            } else {
                path
            };
            assert!(known.contains(path), "{path} in {known:?}");
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
