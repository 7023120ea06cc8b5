//! The screen: each relay in a row if there are several, the figures of one, its members, and the keys.
//!
//! What is drawn depends on the arguments alone.

use std::time::SystemTime;

use ratatui_core::buffer::Buffer;
use ratatui_core::style::Style;

use super::controls::Controls;
use super::figures::Figures;
use super::histogram::Histogram;
use super::members_view;
use super::model::{Health, Rates, RelayModel};
use super::pen::{BAD, FAINT, GOOD, NOTABLE, PLAIN, Pen, STRONG};
use super::wording::{bound_text, bound_with_unit, none, per_second, uptime};
use crate::units::Unit::{Bytes, Seconds, Share};
use crate::units::{Count, several};

/// The columns of the labels on the left.
const LABEL_COLUMNS: u16 = 10;
/// Where the histograms begin, and how many columns each bucket takes.
const HISTOGRAM_AT: u16 = 38;
const BUCKET_COLUMNS: u16 = 3;
const BUSY_BAR_COLUMNS: u16 = 20;

/// Draws the screen. Returns how many members stand above the first that is shown.
pub(super) fn draw(
    buffer: &mut Buffer,
    relays: &[RelayModel],
    controls: &Controls,
    time: SystemTime,
) -> usize {
    let mut y = 0;
    if relays.len() > 1 {
        y = draw_relays(buffer, relays, controls.relay);
    }
    let Some(relay) = relays.get(controls.relay) else {
        return 0;
    };
    y = draw_title(buffer, y, relay, time);
    if let Some(figures) = relay.figures() {
        y = draw_figures(buffer, y, figures, relay.rates.as_ref());
    } else if let Some(failure) = &relay.failure {
        Pen::new(buffer, y).text(failure, BAD);
        y += 1;
    }
    members_view::draw(buffer, y + 1, relay, relays.len() > 1, controls)
}

const fn health_style(health: Health) -> Style {
    match health {
        Health::Unknown => PLAIN,
        Health::Healthy => GOOD,
        Health::Stopping => NOTABLE,
        Health::Unreachable => BAD,
    }
}

/// Draws a row for each relay; returns the row below.
fn draw_relays(buffer: &mut Buffer, relays: &[RelayModel], selected: usize) -> u16 {
    let heads = ["members", "messages/s", "busy", "largest lag", "paused"];
    let widths = [9, 12, 9, 13, 9];
    let head = &mut Pen::new(buffer, 0);
    head.cell("  relay", 28, STRONG);
    for (text, width) in heads.into_iter().zip(widths) {
        head.number(text, width, STRONG);
    }
    let mut y = 1;
    for (index, relay) in relays.iter().enumerate() {
        let mark = if index == selected { "> " } else { "  " };
        let style = if index == selected { STRONG } else { PLAIN };
        let pen = &mut Pen::new(buffer, y);
        pen.text(mark, style).cell(&relay.name, 25, style).skip(1);
        if let Some(figures) = relay.figures() {
            let rates = relay.rates.as_ref();
            let rate = |text: &dyn Fn(&Rates) -> String| rates.map_or_else(none, text);
            pen.number(&Count(figures.members()).to_string(), widths[0], PLAIN)
                .number(&rate(&|rates| per_second(rates.messages)), widths[1], PLAIN)
                .number(&rate(&|rates| Share.text(rates.busy)), widths[2], PLAIN)
                .number(&Bytes.text(figures.largest_lag), widths[3], PLAIN);
            let is_paused = if figures.is_paused { "PAUSED" } else { "-" };
            pen.number(is_paused, widths[4], BAD);
        } else {
            let health = relay.health();
            pen.text(health.word(), health_style(health));
        }
        y += 1;
    }
    y + 1
}

/// Draws which relay it is; returns the row below.
fn draw_title(buffer: &mut Buffer, y: u16, relay: &RelayModel, time: SystemTime) -> u16 {
    let pen = &mut Pen::new(buffer, y);
    pen.text(&relay.name, STRONG);
    if let Some(figures) = relay.figures() {
        let text = match uptime(figures, time) {
            Some(uptime) => format!(
                "  chatloop {}, up {}",
                figures.version,
                humantime::format_duration(uptime)
            ),
            None => format!("  chatloop {}", figures.version),
        };
        pen.text(&text, PLAIN);
    }
    let health = relay.health();
    pen.at_end(health.word(), health_style(health));
    y + 1
}

/// Draws the figures of one relay; returns the row below.
fn draw_figures(buffer: &mut Buffer, top: u16, figures: &Figures, rates: Option<&Rates>) -> u16 {
    let mut y = top;
    let mut row = |label: &str, write: &mut dyn FnMut(&mut Pen<'_>)| {
        let mut pen = Pen::new(buffer, y);
        pen.cell(label, LABEL_COLUMNS, FAINT);
        write(&mut pen);
        y += 1;
    };
    row("members", &mut |pen| {
        pen.text(&members_text(figures), PLAIN);
    });
    row("pauses", &mut |pen| draw_pauses(pen, figures, rates));
    row("lag", &mut |pen| draw_lag(pen, figures));
    row("loop", &mut |pen| draw_loop(pen, rates));
    let empty = Histogram::default();
    let turns = rates.map_or(&empty, |rates| &rates.turn_times);
    let delays = rates.map_or(&empty, |rates| &rates.delays);
    row("turns", &mut |pen| draw_histogram(pen, turns));
    row("delays", &mut |pen| draw_histogram(pen, delays));
    row("", &mut |pen| draw_axis(pen, turns));
    row("messages", &mut |pen| {
        let text = rates.map_or_else(none, |rates| {
            format!(
                "{} published, {} delivered",
                per_second(rates.messages),
                per_second(rates.deliveries)
            )
        });
        pen.text(&text, PLAIN);
    });
    row("bytes", &mut |pen| {
        let text = rates.map_or_else(none, |rates| {
            format!(
                "{}/s received, {}/s sent",
                Bytes.text(rates.received_bytes),
                Bytes.text(rates.sent_bytes)
            )
        });
        pen.text(&text, PLAIN);
    });
    row("memory", &mut |pen| {
        let resident = figures.resident_bytes.map(|bytes| Bytes.text(bytes));
        let text = format!(
            "{} resident, {} held for connections",
            resident.unwrap_or_else(none),
            Bytes.text(figures.held_bytes)
        );
        pen.text(&text, PLAIN);
    });
    y
}

fn members_text(figures: &Figures) -> String {
    let dialects: Vec<_> = figures
        .dialects
        .iter()
        .map(|(dialect, members)| format!("{} {dialect}", Count(*members)))
        .collect();
    let dialects = match &*dialects {
        [] => String::new(),
        dialects => format!(" ({})", dialects.join(", ")),
    };
    format!(
        "{}{dialects}, {}, {} without a name",
        several(figures.members() as u64, "member"),
        several(figures.connections as u64, "connection"),
        Count(figures.pending_connections)
    )
}

fn draw_pauses(pen: &mut Pen<'_>, figures: &Figures, rates: Option<&Rates>) {
    if figures.is_paused {
        pen.text("PAUSED now", BAD);
    } else {
        pen.text("not paused now", PLAIN);
    }
    if let Some(rates) = rates {
        let style = if rates.paused > 0.0 { NOTABLE } else { PLAIN };
        pen.text(", ", PLAIN)
            .text(&format!("{} of the time", Share.text(rates.paused)), style);
    }
    let total = if figures.pauses > 0.0 {
        let (pauses, time) = (figures.pauses as u64, Seconds.text(figures.paused_seconds));
        format!("; {} since the start ({time})", several(pauses, "pause"))
    } else {
        "; no pause since the start".to_owned()
    };
    pen.text(&total, PLAIN);
}

fn draw_lag(pen: &mut Pen<'_>, figures: &Figures) {
    let style = if figures.lagging > 0.0 {
        NOTABLE
    } else {
        PLAIN
    };
    pen.text(&format!("{} lagging", Count(figures.lagging)), style);
    if figures.lagging > 0.0 {
        let largest = format!(" by up to {}", Bytes.text(figures.largest_lag));
        pen.text(&largest, NOTABLE);
    }
    let style = if figures.throttled > 0.0 {
        NOTABLE
    } else {
        PLAIN
    };
    pen.text(", ", PLAIN)
        .text(&format!("{} throttled", Count(figures.throttled)), style)
        .text(
            &format!(", backlog {}", Bytes.text(figures.backlog_bytes)),
            PLAIN,
        );
}

fn draw_loop(pen: &mut Pen<'_>, rates: Option<&Rates>) {
    let Some(rates) = rates else {
        pen.text("-", PLAIN);
        return;
    };
    let style = match rates.busy {
        ..0.7 => STRONG,
        ..0.95 => NOTABLE,
        _ => BAD,
    };
    pen.number(&Share.text(rates.busy), 7, style)
        .text(" busy ", style)
        .bar(rates.busy, BUSY_BAR_COLUMNS, style);
    let cpu = rates.cpu.map_or_else(none, |cpu| Share.text(cpu));
    let text = format!("  {} turns, CPU {cpu}", per_second(rates.turns));
    pen.text(&text, PLAIN);
}

fn draw_histogram(pen: &mut Pen<'_>, histogram: &Histogram) {
    let text = format!(
        "p50 {}, p99 {}",
        bound_text(histogram, 0.5),
        bound_text(histogram, 0.99)
    );
    pen.text(&text, PLAIN).move_to(HISTOGRAM_AT);
    let largest = histogram
        .counts()
        .fold(0.0, |max, (_, count)| count.max(max));
    for (_, count) in histogram.counts() {
        let height = if largest > 0.0 { count / largest } else { 0.0 };
        pen.column(height, BUCKET_COLUMNS - 1, PLAIN).skip(1);
    }
}

/// Draws the upper bound of every second bucket.
fn draw_axis(pen: &mut Pen<'_>, histogram: &Histogram) {
    pen.move_to(HISTOGRAM_AT);
    for (bound, _) in histogram.counts().step_by(2) {
        let bound = if bound.is_finite() {
            bound_with_unit(bound).replace(' ', "")
        } else {
            ">".to_owned()
        };
        pen.cell(&bound, 2 * BUCKET_COLUMNS, FAINT);
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Exposition;
    use super::super::members::MembersTable;
    use super::super::model::Answer;
    use super::*;
    use ratatui_core::layout::Rect;
    use std::time::{Duration, Instant};

    /// When the relay of the tests is looked at, in seconds since its start at 1000.
    const UPTIME: u64 = 3720;

    fn figures(messages: u64) -> Figures {
        let text = format!(
            "chatloop_build_info{{version=\"1.2.3\"}} 1
process_start_time_seconds 1000
chatloop_members{{dialect=\"chat10\"}} 2
chatloop_members{{dialect=\"ws\"}} 1
chatloop_connections 4
chatloop_pending_connections 1
chatloop_messages_total {messages}
chatloop_deliveries_total {}
chatloop_lagging_members 1
chatloop_largest_lag_bytes 1048576
chatloop_paused 1
chatloop_turns_total {messages}
chatloop_turn_seconds_bucket{{le=\"0.0001\"}} {}
chatloop_turn_seconds_bucket{{le=\"0.001\"}} {messages}
chatloop_turn_seconds_bucket{{le=\"+Inf\"}} {messages}
chatloop_turn_seconds_sum {}
",
            messages * 2,
            messages / 2,
            messages as f64 / 2000.0,
        );
        Figures::of(&Exposition::parse(&text).unwrap()).unwrap()
    }

    fn table(count: usize) -> MembersTable {
        let member = |index: usize| {
            let (name, pending, state) = match index {
                0 => (r#""\u001b[2Jslow\r\n""#, 1_048_576, "slow"),
                1 => (r#""日本語""#, 512 * 1024, "lagging"),
                _ => ("null", 0, "ok"),
            };
            format!(
                r#"{{"id":"{index:x}","name":{name},"address":"192.0.2.{index}:4000","dialect":"chat10",
                "age":59,"sent":0,"received":0,"pending":{pending},"state":"{state}"}}"#
            )
        };
        let members: Vec<_> = (0..count).map(member).collect();
        let text = format!(
            r#"{{"slow":"pace","soft_limit":1048576,"queue_limit":8388608,"members":[{}]}}"#,
            members.join(",")
        );
        MembersTable::parse(text.as_bytes()).unwrap()
    }

    /// A relay that has published a thousand messages in a second, and has so many members in its table.
    fn relay(name: &str, members: Option<usize>) -> RelayModel {
        let mut relay = RelayModel::new(name.to_owned());
        let now = Instant::now();
        for (seconds, messages) in [(0, 5000), (1, 6000)] {
            let figures = figures(messages);
            let table = members.map(table);
            relay.update(
                Ok(Answer { figures, table }),
                now + Duration::from_secs(seconds),
            );
        }
        relay
    }

    fn screen(cols: u16, rows: u16, relays: &[RelayModel], controls: &Controls) -> Vec<String> {
        let mut buffer = Buffer::empty(Rect::new(0, 0, cols, rows));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + UPTIME);
        draw(&mut buffer, relays, controls, time);
        let row = |y| {
            let mut row = String::new();
            let mut x = 0;
            while x < cols {
                let symbol = buffer[(x, y)].symbol();
                row.push_str(symbol);
                x += unicode_width::UnicodeWidthStr::width(symbol).max(1) as u16;
            }
            row.trim_end().to_owned()
        };
        (0..rows).map(row).collect()
    }

    #[test]
    fn screen_of_80_by_24_has_figures_slow_members_and_keys() {
        let rows = screen(
            80,
            24,
            &[relay("127.0.0.1:9150", Some(40))],
            &Controls::new(),
        );
        let expected = "\
127.0.0.1:9150  chatloop 1.2.3, up 1h 2m                                 healthy
members   3 members (2 chat10, 1 ws), 4 connections, 1 without a name
pauses    PAUSED now, 0.0 % of the time; no pause since the start
lag       1 lagging by up to 1.00 MiB, 0 throttled, backlog 0 B
loop       50.0 % busy ██████████            1,000/s turns, CPU -
turns     p50 ≤ 100 µs, p99 ≤ 1 ms    ██ ██
delays    p50 -, p99 -
                                      100µs >
messages  1,000/s published, 2,000/s delivered
bytes     0 B/s received, 0 B/s sent
memory    - resident, 0 B held for connections

name             address              sent  received  pending lag      state
\\u{1b}[2Jslow\\r… 192.0.2.0:4000          -         - 1.00 MiB ████████ slow
日本語           192.0.2.1:4000          -         -  512 KiB ████     lagging
-                192.0.2.2:4000          -         -      0 B          ok";
        let expected: Vec<_> = expected.lines().collect();
        assert_eq!(rows[..expected.len()], expected, "\n{}", rows.join("\n"));
        let last =
            "q quit  / filter  < > sorted by pending  r reverse                    1-10 of 40";
        assert_eq!(rows[23], last);
    }

    #[test]
    fn wide_screen_has_all_columns_and_more_members() {
        let rows = screen(200, 50, &[relay("/run/a.sock", Some(40))], &Controls::new());
        let head = rows.iter().find(|row| row.starts_with("name ")).unwrap();
        let heads: Vec<_> = head.split_whitespace().collect();
        let all = [
            "name", "address", "dialect", "age", "sent", "received", "pending", "lag", "state",
        ];
        assert_eq!(heads, all);
        assert!(rows[49].ends_with("1-36 of 40"), "{}", rows[49]);
        assert!(
            rows[13].contains("chat10") && rows[13].contains("59s"),
            "{}",
            rows[13]
        );
    }

    #[test]
    fn offset_ends_where_the_last_member_is_shown() {
        let relays = [relay("one", Some(40))];
        let mut controls = Controls::new();
        controls.offset = usize::MAX;
        let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
        let offset = draw(&mut buffer, &relays, &controls, SystemTime::UNIX_EPOCH);
        assert_eq!(offset, 30);
        assert!(screen(80, 24, &relays, &controls)[22].contains("192.0.2.39:4000"));
    }

    #[test]
    fn several_relays_have_a_row_each_and_the_selected_one_its_figures() {
        let mut gone = RelayModel::new("gone".to_owned());
        gone.update(Err("connection refused".to_owned()), Instant::now());
        let relays = [relay("one", None), gone];
        let mut controls = Controls::new();
        let rows = screen(80, 24, &relays, &controls);
        assert!(
            rows[1].starts_with("> one  ") && rows[1].ends_with(" PAUSED"),
            "{}",
            rows[1]
        );
        assert!(rows[2].ends_with(" unreachable"), "{}", rows[2]);
        assert!(rows[4].starts_with("one  chatloop 1.2.3"), "{}", rows[4]);
        assert!(rows.iter().any(|row| row.starts_with("For the members: ")));
        assert_eq!(rows[23], "q quit  Tab next relay");
        controls.relay = 1;
        let rows = screen(80, 24, &relays, &controls);
        assert_eq!(rows[5], "connection refused");
    }

    #[test]
    fn screen_of_any_size_is_drawn() {
        let relays = [relay("one", Some(9)), relay("two", None)];
        for cols in (0..130).step_by(3) {
            for rows in 0..30 {
                screen(cols, rows, &relays, &Controls::new());
            }
        }
    }
}
