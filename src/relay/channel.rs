//! What the members of one dialect hear: the turn's words, encoded once for all of them.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

use super::ConnId;
use super::backlog::Backlog;
use super::history::History;
use super::limits::Limits;
use super::lines::{Lines, Wording};
use super::pace::PaceLimits;
use crate::wire::{Dialect, Hears, encode_frame};

/// A dialect's stream: what is said in this turn, and what of the turns before somebody has still to
/// be sent.
///
/// Each message is appended once, whatever the number of members. In one turn a connection is
/// served once, so all that it says in the turn is one contiguous span, and "everything but my own
/// words" is at most two slices of the same bytes: one `write` for a member that was silent, one
/// `writev` for one that spoke.
#[derive(Debug)]
pub(super) struct Channel {
    hears: Hears,
    /// How many members speak this dialect.
    pub(super) members: usize,
    /// What was said in this turn, as it goes on the wire.
    pub(super) said: Vec<u8>,
    pub(super) backlog: Backlog,
    history: History,
    pub(super) lines: Lines,
    pub(super) pace_limits: PaceLimits,
    /// How many messages there were for its members, whether there were members or not.
    messages: u32,
    /// The members that have closed their sending side and have not been written to since, so that
    /// nothing shows whether they are still there; the longest connected first.
    pub(super) silent_half_closed: BTreeSet<ConnId>,
}

/// A moment in a turn: what a newcomer hears depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// How much had been said in the turn, in bytes.
    pub(super) said: usize,
    /// How many messages there had been, less those of the history.
    pub(super) heard_before: u32,
    /// Where in the stream the history for a newcomer begins, if there is any.
    pub(super) history: Option<u64>,
}

/// The buffer's capacity is let go when a turn was larger than this, in bytes, so that one huge
/// message does not hold its memory for as long as the relay runs.
const KEPT_CAPACITY: usize = 512 * 1024;

impl Channel {
    fn new(dialect: Dialect, history: History, limits: &Limits, wording: &Wording) -> Self {
        let hears = dialect.rules().hears;
        Self {
            hears,
            members: 0,
            said: Vec::new(),
            backlog: Backlog::default(),
            history,
            lines: Lines::new(dialect, wording),
            pace_limits: PaceLimits::new(limits, hears),
            messages: 0,
            silent_half_closed: BTreeSet::new(),
        }
    }

    /// How many messages there were so far for whoever hears this.
    pub(super) const fn messages(&self) -> u32 {
        self.messages
    }

    /// What it is for a newcomer to join now.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            said: self.said.len(),
            heard_before: self.messages.wrapping_sub(self.history.len() as u32),
            history: self.history.start(),
        }
    }

    /// The stream's position after all that was said. What was said in this turn goes into the backlog
    /// when the turn ends, if it does.
    const fn end(&self) -> u64 {
        self.backlog.end() + self.said.len() as u64
    }

    /// Appends a message, if there is anybody to hear it, or may be.
    fn append(&mut self, name_frame: &[u8], message: &[u8]) {
        self.messages = self.messages.wrapping_add(1);
        if self.members == 0 && !self.history.is_on() {
            return;
        }
        let start = self.end();
        self.hears.encode(name_frame, message, &mut self.said);
        if self.history.is_on() {
            self.history.push(start, self.end());
        }
    }

    /// Whether what was said in this turn has to be in the backlog, whatever becomes of its deliveries:
    /// somebody is behind, or it is history.
    pub(super) const fn must_store(&self) -> bool {
        self.backlog.readers() > 0 || self.history.is_on()
    }

    /// Forgets the turn and keeps the memory for the next one, unless it was out of the ordinary.
    pub(super) fn end_turn(&mut self) {
        if self.said.is_empty() {
            return;
        }
        self.said.clear();
        self.said.shrink_to(KEPT_CAPACITY);
        if self.history.is_on() {
            let end = self.backlog.end();
            let start = self.history.start().unwrap_or(end);
            self.backlog.keep_from(start);
        }
    }
}

/// A channel for each dialect.
#[derive(Debug)]
pub(super) struct Channels([Channel; Dialect::COUNT]);

impl Channels {
    /// Silent ones. Of the dialects that are `served`, those that hear the room keep its history.
    pub(super) fn new(limits: &Limits, served: &[Dialect], wording: &Wording) -> Self {
        let keeps = |dialect: &Dialect| dialect.rules().hears.is_room() && served.contains(dialect);
        let keepers = Dialect::ALL
            .iter()
            .filter(|&dialect| keeps(dialect))
            .count();
        Self(Dialect::ALL.map(|dialect| {
            let history = if keeps(&dialect) {
                History::new(limits, keepers)
            } else {
                History::off()
            };
            Channel::new(dialect, history, limits, wording)
        }))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.0.iter()
    }

    pub(super) const fn each_mut(&mut self) -> &mut [Channel; Dialect::COUNT] {
        &mut self.0
    }

    /// Says something to all who hear the room. The sender's name is a ready-made frame.
    pub(super) fn say(&mut self, name_frame: &[u8], message: &[u8]) {
        for channel in &mut self.0 {
            if channel.hears.is_room() {
                channel.append(name_frame, message);
            }
        }
    }

    /// Tells the time to all who hear that.
    pub(super) fn tell_time(&mut self, time: &str) {
        for channel in &mut self.0 {
            if channel.hears == Hears::Time {
                channel.messages = channel.messages.wrapping_add(1);
                encode_frame(time.as_bytes(), &mut channel.said);
            }
        }
    }

    /// Whether there is anybody to tell the time to.
    pub(super) fn has_audience(&self) -> bool {
        let is_audience = |channel: &Channel| channel.hears == Hears::Time && channel.members > 0;
        self.0.iter().any(is_audience)
    }

    /// How much was said in this turn to those who were told most, in bytes.
    pub(super) fn most_said(&self) -> usize {
        let said = self.0.iter().map(|channel| channel.said.len());
        said.max().unwrap_or(0)
    }

    /// How many bytes it takes to tell all that was said in this turn to all who hear it.
    pub(super) fn cost(&self) -> u64 {
        let cost = |channel: &Channel| (channel.said.len() * channel.members) as u64;
        self.0.iter().map(cost).sum()
    }

    /// How much was said in this turn, as it goes on the wire, in bytes.
    pub(super) fn said_len(&self) -> usize {
        self.0.iter().map(|channel| channel.said.len()).sum()
    }
}

impl Index<Dialect> for Channels {
    type Output = Channel;

    fn index(&self, dialect: Dialect) -> &Channel {
        &self.0[dialect.index()]
    }
}

impl IndexMut<Dialect> for Channels {
    fn index_mut(&mut self, dialect: Dialect) -> &mut Channel {
        &mut self.0[dialect.index()]
    }
}
