//! The metrics: one table, which is the text that Prometheus reads and the documentation.
//!
//! The text is Prometheus' format 0.0.4. No label has a member's name or address: a time series for each
//! of them would be more than any Prometheus can hold, and others may read it.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::bus::BusFigures;
use super::log::Refusal;
use super::process::Process;
use super::stats::{Histogram, Stats};
use crate::relay::{Counters, Gauges};
use crate::wire::Dialect;

/// The `Content-Type` of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the metrics are read from.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    pub(super) counters: &'a Counters,
    pub(super) gauges: Gauges,
    pub(super) stats: &'a Stats,
    pub(super) refusals: &'a Refusals,
    pub(super) tls: Tls,
    pub(super) bus: Option<BusFigures>,
    pub(super) process: Process,
    pub(super) is_stopping: bool,
    /// Log lines that were dropped.
    pub(super) dropped_log_lines: u64,
}

/// The listeners with TLS.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tls {
    pub(super) handshaking: usize,
    pub(super) handshakes: u64,
    /// When the certificate expires, since the beginning of 1970.
    pub(super) expires: Option<Duration>,
}

/// How many connections were refused for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    /// The relay has as many as it may have.
    pub(super) relay_full: u64,
    /// Their address has as many as it may have.
    pub(super) address_full: u64,
    /// The system has no descriptor or no memory for them.
    pub(super) shortage: u64,
    /// They are at a listener for proxies and from no trusted one, or without its header.
    pub(super) proxy: u64,
    /// Their TLS handshake failed, or did not come to its end in time.
    pub(super) tls: u64,
    /// Their address may not connect.
    pub(super) denied: u64,
    /// Their request is none that is answered, or comes from a page that may not connect.
    pub(super) request: u64,
}

impl Refusals {
    /// Counts a connection that has no place.
    pub(super) const fn count(&mut self, refusal: &Refusal) {
        *match refusal {
            Refusal::RelayFull(_) => &mut self.relay_full,
            Refusal::AddressFull(_) => &mut self.address_full,
            Refusal::Unwatchable(_) => &mut self.shortage,
            Refusal::NoProxy => &mut self.proxy,
            Refusal::CertificateName(_) => &mut self.tls,
            Refusal::Denied(_) => &mut self.denied,
        } += 1;
    }
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only rises, until the relay is started again. Its name ends in `_total`.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Counts of values by upper bounds, their number and their sum.
    Histogram,
}

/// A row of the table.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What it is, in one sentence.
    pub(super) help: &'static str,
    samples: fn(&Snapshot<'_>, &mut Samples<'_>) -> fmt::Result,
}

/// The table has a row for each metric, in the order of the text.
#[rustfmt::skip]
pub(super) const METRICS: &[Metric] = &[
    gauge("chatloop_build_info", "1, with the version as a label.",
        |_, to| to.labelled("version", env!("CARGO_PKG_VERSION"), 1)),
    gauge("chatloop_members", "Members, by dialect.", |from, to| {
        let of_members = Dialect::ALL.iter().filter(|&&dialect| dialect != Dialect::Metrics);
        of_members.copied().try_for_each(|dialect| to.labelled("dialect", dialect, from.gauges.members.of(dialect)))
    }),
    gauge("chatloop_connections", "Connections, members or not.", |from, to| to.plain(from.gauges.connections)),
    gauge("chatloop_pending_connections", "Connections that have not sent their name yet.",
        |from, to| to.plain(from.gauges.pending)),
    counter("chatloop_connections_accepted_total", "Connections accepted, members or not.",
        |from, to| to.plain(from.counters.accepted)),
    counter("chatloop_connections_refused_total", "Connections refused, by reason.", |from, to| {
        let Refusals { relay_full, address_full, shortage, proxy, tls, denied, request } = *from.refusals;
        to.labelled("reason", "relay_full", relay_full)?;
        to.labelled("reason", "address_full", address_full)?;
        to.labelled("reason", "shortage", shortage)?;
        to.labelled("reason", "proxy", proxy)?;
        to.labelled("reason", "tls", tls)?;
        to.labelled("reason", "denied", denied)?;
        to.labelled("reason", "request", request)
    }),
    counter("chatloop_connections_closed_total", "Connections that ended, by reason.", |from, to| {
        from.counters.closed.iter().try_for_each(|(reason, count)| to.labelled("reason", reason.key, count))
    }),
    gauge("chatloop_tls_handshaking", "Connections whose TLS handshake is not complete.",
        |from, to| to.plain(from.tls.handshaking)),
    counter("chatloop_tls_handshakes_total", "TLS handshakes that were completed.",
        |from, to| to.plain(from.tls.handshakes)),
    gauge("chatloop_tls_certificate_expiry_seconds", "When the certificate expires, since the beginning of 1970.",
        |from, to| to.known(from.tls.expires.map(|at| at.as_secs()))),
    counter("chatloop_joins_total", "Connections that became members.", |from, to| to.plain(from.counters.joined)),
    counter("chatloop_messages_total", "Messages published, however many members received them.",
        |from, to| to.plain(from.counters.messages)),
    counter("chatloop_deliveries_total", "Deliveries: messages times the members that received them.",
        |from, to| to.plain(from.counters.deliveries)),
    counter("chatloop_received_bytes_total", "Bytes read from connections.", |from, to| to.plain(from.counters.bytes_in)),
    counter("chatloop_sent_bytes_total", "Bytes written to connections.", |from, to| to.plain(from.counters.bytes_out)),
    counter("chatloop_discarded_bytes_total", "Bytes that were received and discarded unread.",
        |from, to| to.plain(from.counters.bytes_discarded)),
    counter("chatloop_reads_total", "Reads that returned bytes.", |from, to| to.plain(from.counters.reads)),
    counter("chatloop_writes_total", "Writes that a socket accepted at least in part.",
        |from, to| to.plain(from.counters.writes)),
    gauge("chatloop_lagging_members", "Members with pending output.", |from, to| to.plain(from.gauges.lagging)),
    gauge("chatloop_largest_lag_bytes", "The pending output of the slowest member.",
        |from, to| to.plain(from.gauges.largest_lag)),
    gauge("chatloop_backlog_bytes", "Published bytes kept for lagging members and as history.",
        |from, to| to.plain(from.gauges.backlog_bytes)),
    gauge("chatloop_held_bytes", "Memory held for connections, without the fixed size of each.",
        |from, to| to.plain(from.gauges.held_bytes)),
    gauge("chatloop_paused", "1 while senders are paused for a slow reader.",
        |from, to| to.plain(u8::from(from.gauges.is_paused))),
    counter("chatloop_pauses_total", "Pauses of the senders.", |from, to| to.plain(from.counters.pauses)),
    counter("chatloop_paused_seconds_total", "How long senders were paused.",
        |from, to| to.plain(from.gauges.paused.as_secs_f64())),
    gauge("chatloop_throttled_members", "Members that are not read from because they exceeded their send quota.",
        |from, to| to.plain(from.gauges.throttled)),
    counter("chatloop_throttles_total", "How often a member exceeded its send quota.",
        |from, to| to.plain(from.counters.throttles)),
    gauge("chatloop_bus_up", "1 while the engine of the bus can be used. Without --bus there is no value, here and below.",
        |from, to| to.of_bus(from, |bus| u64::from(bus.is_up))),
    gauge("chatloop_bus_lag_bytes", "Bytes that wait to be sent to the bus.",
        |from, to| to.of_bus(from, |bus| bus.lag)),
    gauge("chatloop_bus_in_flight_entries", "Entries that the engine has not acknowledged.",
        |from, to| to.of_bus(from, |bus| bus.in_flight as u64)),
    counter("chatloop_bus_sent_entries_total", "Entries sent to the bus, each counted once.",
        |from, to| to.of_bus(from, |bus| bus.sent)),
    counter("chatloop_bus_received_messages_total", "Messages of other relays that were published here.",
        |from, to| to.of_bus(from, |bus| bus.received)),
    counter("chatloop_bus_given_up_total", "Messages that other relays will miss: more waited than --bus-queue.",
        |from, to| to.of_bus(from, |bus| bus.given_up)),
    counter("chatloop_bus_missing_total", "Messages of other relays that never came, by relay.", |from, to| {
        let missing = from.bus.iter().flat_map(|bus| &bus.missing);
        missing.into_iter().try_for_each(|(node, count)| to.labelled("node", label_of(node), count))
    }),
    counter("chatloop_bus_unreadable_total", "Entries and messages of the bus that were skipped.",
        |from, to| to.of_bus(from, |bus| bus.unreadable)),
    counter("chatloop_bus_replaced_total", "How often the stream was another one than before.",
        |from, to| to.of_bus(from, |bus| bus.replaced)),
    counter("chatloop_bus_under_replicated_total", "Entries that fewer than --bus-replicas have confirmed in time.",
        |from, to| to.of_bus(from, |bus| bus.under_replicated)),
    gauge("chatloop_bus_members", "Members of other relays, by relay.", |from, to| {
        let members = from.bus.iter().flat_map(|bus| &bus.members);
        members.into_iter().try_for_each(|(node, members)| to.labelled("node", label_of(node), members))
    }),
    counter("chatloop_turns_total", "Turns of the event loop.", |from, to| to.plain(from.stats.turns)),
    counter("chatloop_wakeups_total", "Polls that waited and returned: an idle relay has none.",
        |from, to| to.plain(from.stats.wakeups)),
    histogram("chatloop_turn_seconds", "How long turns took, without the poll.",
        |from, to| to.histogram(&from.stats.turn_times, SECONDS)),
    histogram("chatloop_turn_messages", "Messages published in a turn, of turns with any.",
        |from, to| to.histogram(&from.stats.turn_messages, 1.0)),
    histogram("chatloop_delivery_delay_seconds", "From the poll of a turn to its last write, of turns with messages.",
        |from, to| to.histogram(&from.stats.delivery_delays, SECONDS)),
    gauge("chatloop_stopping", "1 while the relay stops.", |from, to| to.plain(u8::from(from.is_stopping))),
    counter("chatloop_log_lines_dropped_total", "Log lines that standard error did not accept.",
        |from, to| to.plain(from.dropped_log_lines)),
    counter("process_cpu_seconds_total", "Time on a CPU, in user and system mode.",
        |from, to| to.known(from.process.cpu)),
    gauge("process_resident_memory_bytes", "Memory in RAM.", |from, to| to.known(from.process.resident)),
    gauge("process_virtual_memory_bytes", "Memory that is mapped.", |from, to| to.known(from.process.mapped)),
    gauge("process_open_fds", "Open descriptors.", |from, to| to.known(from.process.open_descriptors)),
    gauge("process_max_fds", "How many descriptors may be open.", |from, to| to.known(from.process.max_descriptors)),
    gauge("process_start_time_seconds", "When the process began, since the beginning of 1970.",
        |from, to| to.known(from.process.started)),
];

/// The name of a relay as a label that needs no escapes, whatever bytes it is.
fn label_of(node: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:_-".contains(&byte);
    let chars = node
        .iter()
        .map(|&byte| if plain(byte) { byte as char } else { '_' });
    chars.collect()
}

type SampleFn = fn(&Snapshot<'_>, &mut Samples<'_>) -> fmt::Result;

/// Nanoseconds as seconds.
const SECONDS: f64 = 1e-9;

const fn counter(name: &'static str, help: &'static str, samples: SampleFn) -> Metric {
    let kind = Kind::Counter;
    Metric {
        name,
        kind,
        help,
        samples,
    }
}

const fn gauge(name: &'static str, help: &'static str, samples: SampleFn) -> Metric {
    let kind = Kind::Gauge;
    Metric {
        name,
        kind,
        help,
        samples,
    }
}

const fn histogram(name: &'static str, help: &'static str, samples: SampleFn) -> Metric {
    let kind = Kind::Histogram;
    Metric {
        name,
        kind,
        help,
        samples,
    }
}

/// The samples of one metric, as lines of the text.
struct Samples<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Samples<'_> {
    fn plain(&mut self, value: impl Display) -> fmt::Result {
        writeln!(self.text, "{} {value}", self.name)
    }

    /// A value, unless the system does not report it.
    fn known(&mut self, value: Option<impl Display>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.plain(value))
    }

    /// A value of the bus, if there is one.
    fn of_bus(&mut self, from: &Snapshot<'_>, value: fn(&BusFigures) -> u64) -> fmt::Result {
        self.known(from.bus.as_ref().map(value))
    }

    /// A value with a label, whose own value needs no escapes.
    fn labelled(
        &mut self,
        label: &str,
        label_value: impl Display,
        value: impl Display,
    ) -> fmt::Result {
        writeln!(
            self.text,
            "{}{{{label}=\"{label_value}\"}} {value}",
            self.name
        )
    }

    /// A histogram, whose values are multiplied by `unit`.
    fn histogram(&mut self, histogram: &Histogram, unit: f64) -> fmt::Result {
        let name = self.name;
        for (bound, count) in histogram.buckets() {
            writeln!(
                self.text,
                "{name}_bucket{{le=\"{}\"}} {count}",
                bound as f64 * unit
            )?;
        }
        let count = histogram.count();
        writeln!(self.text, "{name}_bucket{{le=\"+Inf\"}} {count}")?;
        writeln!(self.text, "{name}_sum {}", histogram.sum() as f64 * unit)?;
        writeln!(self.text, "{name}_count {count}")
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// The text of all metrics.
pub(super) fn text(snapshot: &Snapshot<'_>) -> String {
    let mut text = String::with_capacity(16 * 1024);
    for metric in METRICS {
        let before = text.len();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "# HELP {0} {1}\n# TYPE {0} {2}\n",
            metric.name, metric.help, metric.kind
        );
        let head = text.len();
        let mut samples = Samples {
            name: metric.name,
            text: &mut text,
        };
        let _ = (metric.samples)(snapshot, &mut samples);
        if text.len() == head {
            text.truncate(before);
        }
    }
    text
}
