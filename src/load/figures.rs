//! The figures of a measurement: their keys and meaning in the JSON report, and how those of several
//! rounds are merged.

use std::collections::BTreeMap;
use std::iter;

use serde::Serialize;

use super::connect::Causes;
use super::delays::Times;
use super::plan::{Fault, Leave, Scenario};
use crate::units::Unit::{self, Bytes, Count, Microseconds, Nanoseconds, Seconds, Share};
use Kind::{Compared, Failure, Percentiles, Plain};
use Scenario::{Chat, Fanout, Idle, Latency, Soak, Storm};

/// Merges the figures of several rounds: counts are summed, and of measures the median is taken.
pub(super) trait Merge: Sized {
    fn merge(rounds: &[&Self]) -> Self;

    /// Whether there is nothing to report.
    fn is_absent(&self) -> bool {
        false
    }
}

/// A count of events.
impl Merge for u64 {
    fn merge(rounds: &[&Self]) -> Self {
        rounds.iter().copied().sum()
    }
}

/// A rate, a time or a share.
impl Merge for f64 {
    fn merge(rounds: &[&Self]) -> Self {
        median(rounds.iter().map(|&&value| value))
    }
}

/// A measure in whole units, such as bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(inline))]
pub(super) struct Gauge(pub(super) u64);

impl Merge for Gauge {
    fn merge(rounds: &[&Self]) -> Self {
        Self(median(rounds.iter().map(|value| value.0 as f64)).round() as u64)
    }
}

impl<T: Merge> Merge for Option<T> {
    fn merge(rounds: &[&Self]) -> Self {
        let present: Vec<&T> = rounds.iter().filter_map(|round| round.as_ref()).collect();
        (!present.is_empty()).then(|| T::merge(&present))
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<K: Clone + Ord> Merge for BTreeMap<K, u64> {
    fn merge(rounds: &[&Self]) -> Self {
        let mut sums = Self::new();
        for (key, count) in rounds.iter().copied().flatten() {
            *sums.entry(key.clone()).or_default() += count;
        }
        sums
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// The value in the middle, or halfway between the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

/// A row of the table: how one figure is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The path of the figure in the JSON: `/server/cpu_share`.
    pub(super) path: &'static str,
    pub(super) label: &'static str,
    pub(super) kind: Kind,
    pub(super) scenarios: &'static [Scenario],
}

/// How the figure of a row is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With the ratio of two servers.
    Compared(Unit),
    /// Without it: the figure is no measure of a server's quality.
    Plain(Unit),
    /// In a row of its own only if it is not 0.
    Failure(Unit),
    /// Percentiles, in a table of their own.
    Percentiles,
}

const ALL: &[Scenario] = &[Idle, Fanout, Chat, Latency, Storm, Soak];
const NOT_STORM: &[Scenario] = &[Idle, Fanout, Chat, Latency, Soak];

const fn row(label: &'static str, kind: Kind) -> Row {
    Row {
        path: "",
        label,
        kind,
        scenarios: ALL,
    }
}

impl Row {
    const fn only(self, scenarios: &'static [Scenario]) -> Self {
        Self { scenarios, ..self }
    }

    /// The path of the figure; with a key, of one of its percentiles.
    pub(super) fn path(&self, key: &str) -> String {
        let slash = if key.is_empty() { "" } else { "/" };
        format!("{}{slash}{key}", self.path)
    }
}

/// Declares structs of figures, which are merged field by field; where in the JSON they are; and the
/// rows of the tables.
macro_rules! figures {
    ($($(#[$about:meta])* $name:ident at $path:literal {
        $($(#[$meta:meta])* $field:ident: $type:ty $(=> $($(@$key:literal)? $row:expr);+)?,)*
    })*) => {
        $($(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
        pub(super) struct $name {$(
            $(#[$meta])*
            #[serde(skip_serializing_if = "Merge::is_absent")]
            pub(super) $field: $type,
        )*}

        impl Merge for $name {
            fn merge(rounds: &[&Self]) -> Self {
                Self {$(
                    $field: Merge::merge(&rounds.iter().map(|one| &one.$field).collect::<Vec<_>>()),
                )*}
            }
        })*

        /// The rows of the tables, in their order.
        pub(super) const ROWS: &[Row] = &[$($($($(
            Row { path: concat!("/", $path, stringify!($field) $(, "/", $key)?), ..$row },
        )+)?)*)*];
    };
}

figures! {
    /// The figures of one server.
    Figures at "" {
        /// How many connections there were at the end: of a broker, the senders' among them; in `soak`, the members' that behave.
        members: Option<Gauge> => row("members", Plain(Count)),
        /// `idle`: connections made, a second.
        connects_per_second: Option<f64> => row("connections, a second", Compared(Count)),
        /// `soak`: how long it went on, in seconds.
        lasted_seconds: Option<f64> => row("lasted", Plain(Seconds)),
        /// `storm`: how often all members left and all came back.
        storms: Option<u64> => row("storms", Plain(Count)),
        /// `soak`: how many clients sent a name, among them those that misbehave.
        joins: Option<u64> => row("joined", Plain(Count)),
        /// `soak`: how many members left as planned, in one of the ways under `leaves`.
        left: Option<u64> => row("left as planned", Plain(Count)),
        /// `soak`: how many members left in which way: closing (`fin`) or resetting (`reset`) the connection just after a message, closing the sending side (`half_close`), or resetting after the last message was delivered (`quiet`).
        leaves: Option<BTreeMap<Leave, u64>>,
        /// `soak`: how many clients misbehaved in which way: `stop` and `pause` reading, read a byte at a time (`drip`), send a byte at a time (`trickle`), `flood`, end inside a message (`reset_inside`, `fin_inside`), send no name (`nameless`), no frame (`no_frame`) or a header over the limit (`too_long`).
        faults: Option<BTreeMap<Fault, u64>> =>
            @"stop" row("stopped reading", Plain(Count));
            @"pause" row("paused reading", Plain(Count));
            @"drip" row("read a byte at a time", Plain(Count));
            @"trickle" row("sent a byte at a time", Plain(Count));
            @"flood" row("flooded the room", Plain(Count));
            @"reset_inside" row("reset inside a message", Plain(Count));
            @"fin_inside" row("closed inside a message", Plain(Count));
            @"nameless" row("sent no name", Plain(Count));
            @"no_frame" row("sent what is no frame", Plain(Count));
            @"too_long" row("sent a header over the limit", Plain(Count)),
        /// `soak`: how many of them the server closed, as it may if they stop or pause reading, read a byte at a time, send no name, or send what is no message.
        closed: Option<BTreeMap<Fault, u64>>,
        /// `soak`: the sum of `closed`.
        closed_for_it: Option<u64> => row("closed by the server for a fault", Plain(Count)),
        /// Messages that were sent during the measurement.
        messages: Option<u64> => row("messages", Plain(Count)).only(NOT_STORM),
        /// Messages that were received during the measurement, counted once for each receiver.
        deliveries: u64 => row("deliveries", Plain(Count)),
        /// The same, a second.
        messages_per_second: Option<f64> =>
            row("messages, a second", Compared(Count)).only(NOT_STORM),
        /// The same, a second.
        deliveries_per_second: Option<f64> =>
            row("deliveries, a second", Compared(Count)).only(NOT_STORM);
            row("deliveries, a second", Plain(Count)).only(&[Storm]),
        /// `soak`: how many bytes were received and checked.
        heard_bytes: Option<Gauge> => row("received and checked", Plain(Bytes)),
        /// `idle`: what the kernel's memory for sockets and files grew by, for both ends of a connection, in bytes. It is the whole machine's, so anything else that runs is in it.
        kernel_bytes_per_connection: Option<Gauge> =>
            row("kernel, memory for both ends of a connection", Plain(Bytes)),
        /// What the buffers of all TCP sockets of the machine held at the end of the measurement, before the last messages had arrived, in bytes; in `idle` while no member sent anything.
        socket_buffer_bytes: Option<Gauge>,
        /// `idle`: how long a connection took to be made, in microseconds.
        connect_us: Option<Times> => row("time to connect", Percentiles),
        /// `storm`: how long it took from when all left until all received messages again, in microseconds.
        all_back_us: Option<Times> => row("until all receive again", Percentiles),
        /// How long deliveries took from when the message was scheduled, in microseconds; in `storm`, how long it took from when all left until one received messages again.
        latency_us: Option<Times> =>
            row("delay", Percentiles).only(NOT_STORM);
            row("until one receives again", Percentiles).only(&[Storm]),
        /// What the server used, as /proc shows it.
        server: Option<ServerFigures>,
        /// What the load tool itself used.
        load_tool: Option<ToolFigures>,
        #[serde(flatten)]
        failures: Failures,
    }

    /// What a server used.
    ServerFigures at "server/" {
        /// Resident memory before there were any members, in bytes.
        rss_at_start_bytes: Option<Gauge> =>
            row("server, memory at start", Compared(Bytes)).only(&[Idle, Soak]),
        /// `soak`: resident memory after the first tenth of the time, in bytes.
        rss_warm_bytes: Option<Gauge> => row("server, memory after a tenth", Plain(Bytes)),
        /// `soak`: the median of resident memory in the second quarter of the time, in bytes.
        rss_second_quarter_bytes: Option<Gauge> =>
            row("server, memory in the second quarter", Plain(Bytes)),
        /// `soak`: the same in the last quarter. If it is more than 2 % and more than 1 MiB over that of the second, in twenty minutes or more, the server leaks.
        rss_last_quarter_bytes: Option<Gauge> =>
            row("server, memory in the last quarter", Plain(Bytes)),
        /// `soak`: the highest resident memory that was seen, in bytes.
        rss_highest_bytes: Option<Gauge> => row("server, highest memory", Plain(Bytes)),
        /// Resident memory with all members, in bytes.
        rss_bytes: Option<Gauge> => row("server, memory with all members", Compared(Bytes)),
        /// What resident memory grew by, divided by the members, in bytes. In a small room it is not meaningful.
        bytes_per_member: Option<Gauge> =>
            row("server, memory for a member", Compared(Bytes)).only(&[Idle]),
        /// `idle`: CPU time for a connection, in microseconds.
        cpu_us_per_connect: Option<f64> =>
            row("server, CPU to accept a member", Compared(Microseconds)),
        /// `idle`: how often the server woke up while all members were silent.
        idle_wakeups: Option<Gauge> => row("server, wake-ups while silent", Compared(Count)),
        /// `idle`: CPU time a second while all members were silent, in microseconds.
        idle_cpu_us_per_second: Option<f64> =>
            row("server, CPU a second of silence", Compared(Microseconds)),
        /// CPU time for a delivery, in nanoseconds. In `storm` and `soak`, which are about something else, it is all the CPU time that the server used, divided by the deliveries.
        cpu_ns_per_delivery: Option<f64> =>
            row("server, CPU for a delivery", Compared(Nanoseconds))
                .only(&[Idle, Fanout, Chat, Latency]),
        /// `storm`: CPU time for a member that returns, in microseconds.
        cpu_us_per_return: Option<f64> =>
            row("server, CPU for a returning member", Compared(Microseconds)),
        /// CPU time as a share of the time that passed: 1 is one core.
        cpu_share: Option<f64> => row("server, CPU used", Plain(Share)),
        /// How often a thread of the server went to sleep, a second.
        sleeps_per_second: Option<f64>,
        /// How often a thread of the server was taken off its CPU, a second.
        preemptions_per_second: Option<f64>,
        /// Calls of read(2) and its like, a second; recv(2) is not among them.
        reads_per_second: Option<f64>,
        /// Calls of write(2) and its like, a second; send(2) is not among them.
        writes_per_second: Option<f64>,
        /// `soak`: open descriptors.
        descriptors: Option<Descriptors>,
    }

    /// A server's open descriptors.
    Descriptors at "server/descriptors/" {
        /// Before the first member.
        at_start: Option<Gauge> => row("server, descriptors at start", Plain(Count)),
        /// The most that were seen.
        highest: Option<Gauge> => row("server, most descriptors", Plain(Count)),
        /// After all had left.
        at_end: Option<Gauge> => row("server, descriptors after all left", Plain(Count)),
        /// The usual number in the last quarter of the time, beyond those at the start and one for each connection.
        excess: Option<Gauge>,
    }

    /// What the load tool used.
    ToolFigures at "load_tool/" {
        /// The share of the time in which it did not wait: near 1, it may have been the bottleneck.
        busy_share: Option<f64> => row("load tool, busy", Plain(Share)),
        /// CPU time as a share of the time that passed: 1 is one core.
        cpu_share: Option<f64> => row("load tool, CPU used", Plain(Share)).only(&[Soak]),
        /// `latency`: the 99th percentile of how late messages were sent, in microseconds.
        late_us: Option<f64> => row("load tool, late by (p99)", Plain(Microseconds)),
    }

    /// What should not happen.
    Failures at "" {
        /// Deliveries that should have arrived and did not.
        lost: u64 => row("lost", Failure(Count)),
        /// Deliveries that arrived twice.
        duplicated: u64 => row("duplicated", Failure(Count)),
        /// Deliveries that arrived after a later message of the same sender.
        out_of_order: u64 => row("out of order", Failure(Count)),
        /// Deliveries that were not what was sent.
        corrupt: u64 => row("altered", Failure(Count)),
        /// Connections that ended unexpectedly.
        cut: u64 => row("cut", Failure(Count)),
        /// Connections that were not made.
        refused: u64 => row("refused", Failure(Count)),
        /// `cut` by cause: `closed` or `reset` by the server, `garbled` if it sent what its protocol does not have, or `errno_N`, see errno(3).
        #[cfg_attr(test, schemars(with = "Option<BTreeMap<String, u64>>"))]
        cuts: Causes,
        /// `refused` by cause: also `refused` or `timed_out` by the server; `no_descriptor`, `no_port` or `no_source` address on this side.
        #[cfg_attr(test, schemars(with = "Option<BTreeMap<String, u64>>"))]
        refusals: Causes,
        /// Members that were connected to the end and never received anything.
        deaf: u64,
        /// Messages of clients that are not this measurement's.
        foreign: u64,
    }
}

impl Merge for Times {
    fn merge(rounds: &[&Self]) -> Self {
        let of = |percentile: fn(&Self) -> f64| median(rounds.iter().map(|one| percentile(one)));
        Self {
            samples: rounds.iter().map(|one| one.samples).sum(),
            p50: of(|one| one.p50),
            p90: of(|one| one.p90),
            p99: of(|one| one.p99),
            p99_9: of(|one| one.p99_9),
            max: rounds.iter().map(|one| one.max).fold(0.0, f64::max),
        }
    }
}

impl Failures {
    /// Whether the measurement has failed.
    pub(super) const fn are_any(&self) -> bool {
        self.lost + self.duplicated + self.out_of_order + self.corrupt + self.cut + self.refused > 0
    }
}

/// A quotient, unless nothing was counted that could be divided by.
pub(super) fn quotient(of: f64, by: f64) -> Option<f64> {
    Some(of / by).filter(|quotient| quotient.is_finite())
}

/// A map with every key, so that a report has those with 0 too.
pub(super) fn with_all<K: Copy + Ord>(keys: &[K], counts: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let zeros = keys.iter().copied().zip(iter::repeat(0)).collect();
    Merge::merge(&[&zeros, counts])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(max: f64) -> Times {
        Times {
            samples: 10,
            p50: max / 10.0,
            p90: 2.0,
            p99: 3.0,
            p99_9: 4.0,
            max,
        }
    }

    #[test]
    fn rounds_have_medians_of_measures_and_sums_of_counts() {
        let round = |rate, lost, gauge| Figures {
            deliveries_per_second: Some(rate),
            latency_us: Some(times(rate)),
            members: Some(Gauge(gauge)),
            failures: Failures {
                lost,
                cuts: Causes::from([(super::super::connect::Cause::Closed, lost)]),
                ..Failures::default()
            },
            ..Figures::default()
        };
        let rounds = [round(30.0, 1, 5), round(10.0, 2, 6), round(20.0, 4, 8)];
        let merged = Figures::merge(&rounds.each_ref());
        let json = serde_json::to_value(&merged).unwrap();
        assert_eq!(json["deliveries_per_second"], 20.0);
        assert_eq!(json["members"], 6);
        assert_eq!(json["lost"], 7);
        assert_eq!(json["cuts"]["closed"], 7);
        assert_eq!(json["latency_us"]["samples"], 30);
        assert_eq!(json["latency_us"]["p50"], 2.0);
        assert_eq!(json["latency_us"]["max"], 30.0);
        let two = Figures::merge(&[&rounds[0], &rounds[2]]);
        assert_eq!(
            two.deliveries_per_second.map(|rate| rate.to_string()),
            Some("25".into())
        );
    }

    #[test]
    fn round_without_a_figure_does_not_count_for_it() {
        let one = Figures {
            deliveries_per_second: Some(3.0),
            ..Figures::default()
        };
        let merged = Figures::merge(&[&one, &Figures::default()]);
        assert_eq!(merged, one);
    }
}
