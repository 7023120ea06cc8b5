//! What a server counts of itself: counters that never go back, gauges that agree with each other, and metrics
//! that show both.

use std::collections::BTreeMap;
use std::time::Duration;

use chatloop::relay::{Counters, Gauges};
use chatloop::server::{Server, System};

/// The metrics are read at the end, and after each so many turns: to write them takes longer than a turn.
const METRICS_INTERVAL: u64 = 64;

/// The counters as they were after the turn before.
#[derive(Default)]
pub struct CounterCheck {
    turns: u64,
    counters: BTreeMap<&'static str, u128>,
    metrics: BTreeMap<String, f64>,
}

impl CounterCheck {
    /// A turn is over, and it was the last one or not.
    pub fn end_turn<S: System>(&mut self, server: &Server<S>, gauges: &Gauges, is_last: bool) {
        self.turns += 1;
        let counters = server.relay().counters();
        let figures = figures(counters, gauges.paused);
        for (name, &before) in &self.counters {
            let now = figures[name];
            assert!(now >= before, "{name} went back from {before} to {now}");
        }
        self.counters = figures;
        check_gauges(counters, gauges);
        if is_last || self.turns.is_multiple_of(METRICS_INTERVAL) {
            self.check_metrics(&server.metrics(), counters, gauges);
        }
    }

    /// The metrics show what was counted.
    fn check_metrics(&mut self, text: &str, counters: &Counters, gauges: &Gauges) {
        let metrics = rising(text);
        for (name, &before) in &self.metrics {
            let now = metrics[name];
            assert!(now >= before, "{name} went back from {before} to {now}");
        }
        let closed = counters.closed.iter().map(|(reason, count)| {
            let key = reason.key;
            (
                format!("connections_closed_total{{reason=\"{key}\"}}"),
                count,
            )
        });
        let others = [
            ("connections_accepted_total", counters.accepted),
            ("joins_total", counters.joined),
            ("messages_total", counters.messages),
            ("turn_messages_sum", counters.messages),
            ("deliveries_total", counters.deliveries),
            ("received_bytes_total", counters.bytes_in),
            ("sent_bytes_total", counters.bytes_out),
            ("discarded_bytes_total", counters.bytes_discarded),
            ("reads_total", counters.reads),
            ("writes_total", counters.writes),
            ("pauses_total", counters.pauses),
            ("throttles_total", counters.throttles),
            ("turns_total", self.turns),
            ("turn_seconds_count", self.turns),
        ];
        let others = others.map(|(name, count)| (name.to_owned(), count));
        for (name, count) in closed.chain(others) {
            let shown = metrics[&format!("chatloop_{name}")] as u64;
            assert_eq!(shown, count, "{name}");
        }
        let reasons = ["relay_full", "address_full", "shortage", "proxy", "tls"];
        let refused =
            |reason| metrics[&format!("chatloop_connections_refused_total{{reason=\"{reason}\"}}")];
        let refused: f64 = reasons.map(refused).iter().sum();
        assert_eq!(refused as u64, counters.refused, "refused");
        let paused = metrics["chatloop_paused_seconds_total"];
        let difference = (paused - gauges.paused.as_secs_f64()).abs();
        assert!(difference < 1e-3, "paused for {paused} s");
        self.metrics = metrics;
    }
}

/// Every counter, and how long the room was paused in all.
fn figures(counters: &Counters, paused_so_far: Duration) -> BTreeMap<&'static str, u128> {
    // A new counter must be added here.
    let Counters {
        accepted,
        refused,
        joined,
        peak_members,
        messages,
        deliveries,
        reads,
        bytes_in,
        writes,
        bytes_out,
        bytes_discarded,
        pauses,
        paused,
        throttles,
        closed,
    } = counters;
    let others = [
        ("accepted", u128::from(*accepted)),
        ("refused", u128::from(*refused)),
        ("joined", u128::from(*joined)),
        ("peak members", *peak_members as u128),
        ("messages", u128::from(*messages)),
        ("deliveries", u128::from(*deliveries)),
        ("reads", u128::from(*reads)),
        ("bytes in", u128::from(*bytes_in)),
        ("writes", u128::from(*writes)),
        ("bytes out", u128::from(*bytes_out)),
        ("bytes discarded", u128::from(*bytes_discarded)),
        ("pauses", u128::from(*pauses)),
        ("paused", paused.as_nanos()),
        ("paused so far", paused_so_far.as_nanos()),
        ("throttles", u128::from(*throttles)),
    ];
    let closed = closed.iter();
    let closed = closed.map(|(reason, count)| (reason.key, u128::from(count)));
    closed.chain(others).collect()
}

/// The gauges agree with each other and with the counters.
fn check_gauges(counters: &Counters, gauges: &Gauges) {
    let members = gauges.members.total();
    let &Gauges {
        connections,
        pending,
        lagging,
        largest_lag,
        throttled,
        is_paused,
        ..
    } = gauges;
    for (is_so, what) in [
        (
            members + pending <= connections,
            "members and pending connections are connections",
        ),
        (lagging <= connections, "what lags is a connection"),
        (lagging > 0 || largest_lag == 0, "a lag has a connection"),
        (lagging > 0 || !is_paused, "a pause has a slow reader"),
        (
            throttled <= connections,
            "what is throttled is a connection",
        ),
        (
            counters.closed.total() + connections as u64 == counters.accepted,
            "a connection is there or has ended",
        ),
        (
            counters.peak_members >= members,
            "there were never more members",
        ),
        (
            counters.peak_members as u64 <= counters.joined,
            "each member has joined",
        ),
    ] {
        assert!(is_so, "{what}: {gauges:?}, {counters:?}");
    }
}

/// The samples of the metrics that never go back.
fn rising(text: &str) -> BTreeMap<String, f64> {
    let mut is_rising = false;
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with("# TYPE ") {
            is_rising = !line.ends_with(" gauge");
        } else if !line.starts_with('#') && is_rising {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            let value = value.parse().expect("a number");
            let before = samples.insert(name.to_owned(), value);
            assert_eq!(before, None, "{name} is there twice");
        }
    }
    samples
}
