//! The members' table on the screen, and the keys below it.

use ratatui_core::buffer::Buffer;
use ratatui_core::style::Style;

use super::controls::{Column, Controls};
use super::members::Member;
use super::model::RelayModel;
use super::pen::{BAD, FAINT, NOTABLE, PLAIN, Pen, STRONG};
use super::wording::per_second;
use crate::units::Unit;

/// The widths of the columns, without the space after each. The name takes what is left.
const ADDRESS_COLUMNS: usize = 7;
const DIALECT_COLUMNS: u16 = 9;
const AGE_COLUMNS: u16 = 8;
const RATE_COLUMNS: u16 = 9;
const PENDING_COLUMNS: u16 = 8;
const STATE_COLUMNS: u16 = 9;
const MIN_BAR_COLUMNS: u16 = 8;
const MAX_NAME_COLUMNS: u16 = 40;

/// From this width on, all columns are shown.
const ALL_COLUMNS_FROM: u16 = 120;

/// An address takes at most this share of the width: those of IPv6 are long.
const MAX_ADDRESS_SHARE: u16 = 4;

/// What to do for a table.
const NO_TABLE: &str = "For the members: chatloop serve --admin PATH, and chatloop top PATH";

/// Where each column is.
struct Widths {
    name: u16,
    address: u16,
    bar: u16,
    has_all: bool,
}

impl Widths {
    fn of(width: u16, members: &[&Member]) -> Self {
        let longest = members.iter().map(|member| member.address.len()).max();
        let longest = longest.unwrap_or_default().max(ADDRESS_COLUMNS);
        let address = (width / MAX_ADDRESS_SHARE).min(longest.try_into().unwrap_or(u16::MAX));
        let has_all = width >= ALL_COLUMNS_FROM;
        let others = if has_all {
            DIALECT_COLUMNS + AGE_COLUMNS + 2
        } else {
            0
        };
        let fixed = address + 2 * RATE_COLUMNS + PENDING_COLUMNS + STATE_COLUMNS + 6;
        let rest = width.saturating_sub(fixed + others);
        let name = rest.saturating_sub(MIN_BAR_COLUMNS).min(MAX_NAME_COLUMNS);
        Self {
            name,
            address,
            bar: rest.saturating_sub(name).min(MAX_NAME_COLUMNS),
            has_all,
        }
    }
}

/// Draws the table from this row on, and the keys in the last row. Returns how many members stand above the
/// first that is shown.
pub(super) fn draw(
    buffer: &mut Buffer,
    y: u16,
    relay: &RelayModel,
    has_others: bool,
    controls: &Controls,
) -> usize {
    let other_relays = if has_others { "  Tab next relay" } else { "" };
    let last = buffer.area.bottom().saturating_sub(1);
    let Some(table) = relay.table() else {
        if relay.figures().is_some() && y < last {
            Pen::new(buffer, y).text(NO_TABLE, FAINT);
        }
        Pen::new(buffer, last).text(&format!("q quit{other_relays}"), FAINT);
        return 0;
    };
    let members = controls.arrange(relay);
    let widths = Widths::of(buffer.area.width, &members);
    let rows = usize::from(last.saturating_sub(y + 1));
    let offset = controls.offset.min(members.len().saturating_sub(rows));
    if y < last {
        draw_head(&mut Pen::new(buffer, y), &widths, controls.sorted_by);
    }
    let shown = members.iter().skip(offset).take(rows);
    for (row, member) in (y + 1..last).zip(shown) {
        let lag = member.pending as f64 / table.lag_limit().max(1) as f64;
        let pen = &mut Pen::new(buffer, row);
        draw_member(pen, &widths, member, relay.rates_of(member), lag);
    }
    let range = format!(
        "{}-{} of {}",
        offset + usize::from(!members.is_empty()),
        members.len().min(offset + rows),
        members.len()
    );
    draw_keys(&mut Pen::new(buffer, last), controls, other_relays, &range);
    offset
}

fn draw_head(pen: &mut Pen<'_>, widths: &Widths, sorted_by: Column) {
    for column in Column::ALL {
        let (text, width) = match column {
            Column::Name => ("name", widths.name),
            Column::Address => ("address", widths.address),
            Column::Dialect if widths.has_all => ("dialect", DIALECT_COLUMNS),
            Column::Age if widths.has_all => ("age", AGE_COLUMNS),
            Column::Dialect | Column::Age => continue,
            Column::Sent => ("sent", RATE_COLUMNS),
            Column::Received => ("received", RATE_COLUMNS),
            Column::Pending => ("pending", PENDING_COLUMNS),
            Column::State => ("state", STATE_COLUMNS),
        };
        let style = if column == sorted_by {
            STRONG.reversed()
        } else {
            STRONG
        };
        if column == Column::State {
            pen.cell("lag", widths.bar, STRONG).skip(1);
        }
        match column {
            Column::Age | Column::Sent | Column::Received | Column::Pending => {
                pen.number(text, width, style)
            }
            _ => pen.cell(text, width, style),
        }
        .skip(1);
    }
}

fn draw_member(
    pen: &mut Pen<'_>,
    widths: &Widths,
    member: &Member,
    rates: Option<(f64, f64)>,
    lag: f64,
) {
    let name = member.name.as_deref().unwrap_or("-");
    pen.cell(name, widths.name, PLAIN).skip(1);
    pen.cell(&member.address, widths.address, PLAIN).skip(1);
    if widths.has_all {
        let age = std::time::Duration::from_secs(member.age);
        pen.cell(&member.dialect, DIALECT_COLUMNS, PLAIN).skip(1);
        pen.number(&age_text(age), AGE_COLUMNS, PLAIN).skip(1);
    }
    let rate = |rate: f64| {
        if rate > 0.0 {
            per_second(rate)
        } else {
            "-".to_owned()
        }
    };
    let (sent, received) = rates.unwrap_or_default();
    pen.number(&rate(sent), RATE_COLUMNS, PLAIN).skip(1);
    pen.number(&rate(received), RATE_COLUMNS, PLAIN).skip(1);
    let style = state_style(&member.state);
    let pending = Unit::Bytes.text(member.pending as f64);
    pen.number(&pending, PENDING_COLUMNS, style).skip(1);
    pen.bar(lag, widths.bar, style).skip(1);
    pen.cell(&member.state, STATE_COLUMNS, style);
}

fn state_style(state: &str) -> Style {
    match state {
        "stalled" => BAD,
        "slow" | "throttled" => NOTABLE,
        _ => PLAIN,
    }
}

/// An age by its two largest units.
fn age_text(age: std::time::Duration) -> String {
    let text = humantime::format_duration(age).to_string();
    let parts: Vec<_> = text.split(' ').take(2).collect();
    parts.join(" ")
}

fn draw_keys(pen: &mut Pen<'_>, controls: &Controls, other_relays: &str, range: &str) {
    if controls.is_typing {
        pen.text("filter: ", STRONG)
            .text(&controls.filter, PLAIN)
            .text("_", FAINT)
            .text("  Enter keeps it, Esc removes it", FAINT);
        return;
    }
    let reversed = if controls.is_reversed {
        ", reversed"
    } else {
        ""
    };
    let sorted_by = format!("{:?}", controls.sorted_by).to_lowercase();
    let keys =
        format!("q quit  / filter  < > sorted by {sorted_by}{reversed}  r reverse{other_relays}");
    if controls.filter.is_empty() {
        pen.text(&keys, FAINT);
    } else {
        pen.text("filter: ", STRONG)
            .text(&controls.filter, PLAIN)
            .text("  / changes it, Esc removes it", FAINT);
    }
    pen.at_end(range, FAINT);
}
