//! The figures of a relay, out of one scrape.

use super::exposition::Exposition;
use super::histogram::Histogram;
use crate::text::Shown;

/// A relay works out from the time of day when it was started, so that it differs a little each time. In seconds.
const START_TOLERANCE: f64 = 0.5;

/// The `Figures` are a relay's metrics at one time. Totals are since its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) version: String,
    /// When the relay was started, in seconds since the beginning of 1970, if its system reports it.
    pub(super) started: Option<f64>,
    pub(super) is_stopping: bool,
    /// The members of each dialect that has any.
    pub(super) dialects: Vec<(String, f64)>,
    pub(super) connections: f64,
    pub(super) pending_connections: f64,
    pub(super) messages: f64,
    pub(super) deliveries: f64,
    pub(super) received_bytes: f64,
    pub(super) sent_bytes: f64,
    pub(super) lagging: f64,
    pub(super) largest_lag: f64,
    pub(super) backlog_bytes: f64,
    pub(super) held_bytes: f64,
    pub(super) is_paused: bool,
    pub(super) pauses: f64,
    pub(super) paused_seconds: f64,
    pub(super) throttled: f64,
    pub(super) turns: f64,
    pub(super) wakeups: f64,
    pub(super) turn_times: Histogram,
    pub(super) delays: Histogram,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
}

impl Figures {
    /// The figures of a scrape, if it is one of a relay.
    pub(super) fn of(scrape: &Exposition) -> Option<Self> {
        let (version, _) = scrape.by_label("chatloop_build_info", "version").next()?;
        let value = |name| scrape.value(name).unwrap_or_default();
        let dialects = scrape.by_label("chatloop_members", "dialect");
        Some(Self {
            version: Shown::plain(version.as_bytes()).to_string(),
            started: scrape.value("process_start_time_seconds"),
            is_stopping: value("chatloop_stopping") > 0.0,
            dialects: dialects
                .filter(|(_, members)| *members > 0.0)
                .map(|(dialect, members)| (Shown::plain(dialect.as_bytes()).to_string(), members))
                .collect(),
            connections: value("chatloop_connections"),
            pending_connections: value("chatloop_pending_connections"),
            messages: value("chatloop_messages_total"),
            deliveries: value("chatloop_deliveries_total"),
            received_bytes: value("chatloop_received_bytes_total"),
            sent_bytes: value("chatloop_sent_bytes_total"),
            lagging: value("chatloop_lagging_members"),
            largest_lag: value("chatloop_largest_lag_bytes"),
            backlog_bytes: value("chatloop_backlog_bytes"),
            held_bytes: value("chatloop_held_bytes"),
            is_paused: value("chatloop_paused") > 0.0,
            pauses: value("chatloop_pauses_total"),
            paused_seconds: value("chatloop_paused_seconds_total"),
            throttled: value("chatloop_throttled_members"),
            turns: value("chatloop_turns_total"),
            wakeups: value("chatloop_wakeups_total"),
            turn_times: scrape.histogram("chatloop_turn_seconds"),
            delays: scrape.histogram("chatloop_delivery_delay_seconds"),
            cpu_seconds: scrape.value("process_cpu_seconds_total"),
            resident_bytes: scrape.value("process_resident_memory_bytes"),
        })
    }

    pub(super) fn members(&self) -> f64 {
        self.dialects.iter().map(|(_, members)| members).sum()
    }

    /// Whether these are figures of the same process as `earlier` ones.
    pub(super) fn continues(&self, earlier: &Self) -> bool {
        let has_restarted = |(one, other): (f64, f64)| (one - other).abs() > START_TOLERANCE;
        !self.started.zip(earlier.started).is_some_and(has_restarted)
            && self.turns >= earlier.turns
            && self.messages >= earlier.messages
    }
}
