//! A sample as a line of output, for people and for programs.

use std::fmt::{self, Display, Write};
use std::time::SystemTime;

use super::figures::Figures;
use super::histogram::Histogram;
use super::members::{Member, MembersTable};
use super::model::{Rates, RelayModel};
use super::wording::{bound_text, per_second, uptime};
use crate::clock::timestamp;
use crate::text::Json;
use crate::units::Unit::{Bytes, Share};
use crate::units::{Count, several};

/// The line for people. Without rates there is one only if the relay cannot be reached.
pub(super) fn plain(relay: &RelayModel) -> Option<String> {
    if let Some(failure) = &relay.failure {
        return Some(format!("{}: unreachable: {failure}\n", relay.name));
    }
    let (figures, rates) = (relay.figures()?, relay.rates.as_ref()?);
    let mut line = format!(
        "{}: {}, {} published, {} delivered, {}/s received, {}/s sent, {} busy, delays p50 {} p99 {}",
        relay.name,
        several(figures.members() as u64, "member"),
        per_second(rates.messages),
        per_second(rates.deliveries),
        Bytes.text(rates.received_bytes),
        Bytes.text(rates.sent_bytes),
        Share.text(rates.busy),
        bound_text(&rates.delays, 0.5),
        bound_text(&rates.delays, 0.99),
    );
    let mut add = |text: String| line.push_str(&text);
    if figures.lagging > 0.0 {
        let (lagging, lag) = (Count(figures.lagging), Bytes.text(figures.largest_lag));
        add(format!(", {lagging} lagging by up to {lag}"));
    }
    if figures.throttled > 0.0 {
        add(format!(", {} throttled", Count(figures.throttled)));
    }
    if figures.is_paused || rates.paused > 0.0 {
        add(format!(", paused {} of the time", Share.text(rates.paused)));
    }
    if figures.is_stopping {
        add(", stopping".to_owned());
    }
    line.push('\n');
    Some(line)
}

/// The line for programs, an object in JSON.
pub(super) fn json(relay: &RelayModel, time: SystemTime) -> String {
    let mut object = Object::new();
    object.text("time", &format!("{:.3}", timestamp(time)));
    object.text("relay", &relay.name);
    object.text("health", relay.health().word());
    if let Some(failure) = &relay.failure {
        object.text("failure", failure);
    }
    if let Some(figures) = relay.figures() {
        push_figures(&mut object, figures, time);
    }
    if let Some(rates) = &relay.rates {
        push_rates(&mut object, rates);
    }
    if let Some(table) = relay.table() {
        object.raw("members_table", members(table, relay));
    }
    object.end() + "\n"
}

fn push_figures(object: &mut Object, figures: &Figures, time: SystemTime) {
    object.text("version", &figures.version);
    object.number(
        "uptime_seconds",
        uptime(figures, time).map(|time| time.as_secs()),
    );
    for (key, value) in [
        ("members", figures.members()),
        ("connections", figures.connections),
        ("pending_connections", figures.pending_connections),
        ("messages_total", figures.messages),
        ("deliveries_total", figures.deliveries),
        ("received_bytes_total", figures.received_bytes),
        ("sent_bytes_total", figures.sent_bytes),
        ("lagging_members", figures.lagging),
        ("largest_lag_bytes", figures.largest_lag),
        ("backlog_bytes", figures.backlog_bytes),
        ("held_bytes", figures.held_bytes),
        ("throttled_members", figures.throttled),
        ("pauses_total", figures.pauses),
        ("paused_seconds_total", figures.paused_seconds),
    ] {
        object.number(key, Some(value));
    }
    object.raw("paused", figures.is_paused);
    object.number("resident_bytes", figures.resident_bytes);
}

fn push_rates(object: &mut Object, rates: &Rates) {
    for (key, value) in [
        ("messages_per_second", Some(rates.messages)),
        ("deliveries_per_second", Some(rates.deliveries)),
        ("received_bytes_per_second", Some(rates.received_bytes)),
        ("sent_bytes_per_second", Some(rates.sent_bytes)),
        ("turns_per_second", Some(rates.turns)),
        ("wakeups_per_second", Some(rates.wakeups)),
        ("busy", Some(rates.busy)),
        ("paused_share", Some(rates.paused)),
        ("cpu", rates.cpu),
    ] {
        object.number(key, value);
    }
    for (keys, histogram) in [
        (["turn_seconds_p50", "turn_seconds_p99"], &rates.turn_times),
        (
            ["delivery_delay_seconds_p50", "delivery_delay_seconds_p99"],
            &rates.delays,
        ),
    ] {
        for (key, share) in keys.into_iter().zip([0.5, 0.99]) {
            object.number(key, finite_bound(histogram, share));
        }
    }
}

/// The bound below which this share of the values lies, if it is a number in JSON.
fn finite_bound(histogram: &Histogram, share: f64) -> Option<f64> {
    histogram.quantile(share).filter(|bound| bound.is_finite())
}

fn members(table: &MembersTable, relay: &RelayModel) -> String {
    let members = table.members.iter();
    let objects: Vec<_> = members
        .map(|one| member(one, relay.rates_of(one)))
        .collect();
    format!("[{}]", objects.join(","))
}

fn member(member: &Member, rates: Option<(f64, f64)>) -> String {
    let mut object = Object::new();
    match &member.name {
        Some(name) => object.text("name", name),
        None => object.raw("name", "null"),
    }
    object.text("address", &member.address);
    object.text("dialect", &member.dialect);
    for (key, value) in [
        ("age", member.age),
        ("sent", member.sent),
        ("received", member.received),
        ("pending", member.pending),
    ] {
        object.raw(key, value);
    }
    object.number("sent_per_second", rates.map(|rates| rates.0));
    object.number("received_per_second", rates.map(|rates| rates.1));
    object.text("state", &member.state);
    object.end()
}

/// An `Object` is an object in JSON that is being written. Writing to a string does not fail.
struct Object(String);

impl Object {
    const fn new() -> Self {
        Self(String::new())
    }

    fn text(&mut self, key: &str, value: &str) {
        self.raw(key, Json(value));
    }

    /// A number, or null if it is not known.
    fn number(&mut self, key: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.raw(key, value),
            None => self.raw(key, "null"),
        }
    }

    fn raw(&mut self, key: &str, value: impl Display) {
        let separator = if self.0.is_empty() { "{" } else { "," };
        let _: fmt::Result = write!(self.0, "{separator}\"{key}\":{value}");
    }

    fn end(self) -> String {
        self.0 + "}"
    }
}
