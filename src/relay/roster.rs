//! Who is here, for the log.

use std::fmt;
use std::time::{Duration, Instant};

use unicode_width::UnicodeWidthStr;

use super::Relay;
use super::connection::{Connection, State};
use crate::text::Quoted;
use crate::wire::{Called, Dialect, Hears, header};

const COLUMNS: usize = 7;

/// The table's head. `sent` and `heard` are messages, `queued` are bytes.
const HEAD: [&str; COLUMNS] = [
    "name", "address", "dialect", "here for", "sent", "heard", "queued",
];

/// How many members there are; where they may speak different dialects, how many speak which.
#[derive(Debug)]
pub struct Here {
    members: usize,
    of: Option<[usize; Dialect::COUNT]>,
}

impl fmt::Display for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} here", self.members)?;
        let Some(of) = &self.of else {
            return Ok(());
        };
        let mut sep = " (";
        for (dialect, count) in Dialect::ALL.iter().zip(of).filter(|(_, count)| **count > 0) {
            write!(f, "{sep}{count} {dialect}")?;
            sep = ", ";
        }
        if self.members > 0 {
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// The members as a table: see [`Relay::roster`].
#[derive(Debug)]
pub struct Roster<'a, S> {
    relay: &'a Relay<S>,
    now: Instant,
}

impl<S> Relay<S> {
    /// How many members there are, as the log says it.
    #[must_use]
    pub fn here(&self) -> Here {
        let of = self
            .is_mixed
            .then(|| Dialect::ALL.map(|one| self.members_of(one)));
        Here {
            members: self.members,
            of,
        }
    }

    /// How many connections have still to give their name.
    #[must_use]
    pub fn unnamed(&self) -> usize {
        let unnamed = |state: &State| matches!(state, State::AwaitingName);
        let connections = self.connections.iter();
        connections.filter(|(_, one)| unnamed(&one.state)).count()
    }

    /// Who is here at this time.
    #[must_use]
    pub const fn roster(&self, now: Instant) -> Roster<'_, S> {
        Roster { relay: self, now }
    }

    /// How many messages a member was sent, or is to be sent.
    fn heard(&self, connection: &Connection<S>, said: u32) -> u32 {
        let channel = &self.channels[connection.dialect];
        let since = channel.messages().wrapping_sub(connection.heard_before);
        match connection.dialect.rules().hears {
            Hears::Frames | Hears::Payloads => since.wrapping_sub(said),
            Hears::Time | Hears::Nothing => since,
        }
    }
}

impl<S> Roster<'_, S> {
    /// The table's lines: the head, and one for each member.
    ///
    /// Nothing of it is kept but the widths of the columns, however many members there are.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let mut widths = HEAD.map(str::len);
        for row in self.rows() {
            for (width, cell) in widths.iter_mut().zip(&row) {
                *width = cell.width().max(*width);
            }
        }
        let head = HEAD.map(str::to_owned);
        std::iter::once(head)
            .chain(self.rows())
            .map(move |row| line(&row, &widths))
    }

    fn rows(&self) -> impl Iterator<Item = [String; COLUMNS]> {
        let members = self.relay.connections.iter();
        members.filter_map(|(_, connection)| self.row(connection))
    }

    fn row(&self, connection: &Connection<S>) -> Option<[String; COLUMNS]> {
        let State::Registered { name, said, .. } = &connection.state else {
            return None;
        };
        if connection.dialect.only_greets() {
            return None;
        }
        let rules = connection.dialect.rules();
        let age = self.now.saturating_duration_since(self.relay.started);
        let age = age
            .as_secs()
            .saturating_sub(u64::from(connection.accepted_at));
        Some([
            match rules.called {
                Called::ByName => Quoted(&name[header::WIDTH..]).to_string(),
                Called::ByAddress => "-".to_owned(),
            },
            connection.peer().to_string(),
            rules.name.to_owned(),
            humantime::format_duration(Duration::from_secs(age)).to_string(),
            match rules.header_width {
                Some(_) => said.to_string(),
                None => "-".to_owned(),
            },
            self.relay.heard(connection, *said).to_string(),
            self.relay.pending(connection).to_string(),
        ])
    }
}

/// A line of the table: texts are aligned on the left, numbers on the right.
fn line(row: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width - cell.width());
        if column > 0 {
            line.push_str("  ");
        }
        if column < 3 {
            line.push_str(cell);
            line.push_str(&padding);
        } else {
            line.push_str(&padding);
            line.push_str(cell);
        }
    }
    line
}
