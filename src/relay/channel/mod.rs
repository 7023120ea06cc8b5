//! A channel for each dialect: one encoded stream, its backlog, its history.
//!
//! Each dialect writes the same message in its own way. So a message is encoded once for each dialect
//! that has members, into that channel's *turn buffer*, and each member of the dialect receives the
//! same bytes. What a socket does not accept moves to the channel's *backlog*, in one copy for all
//! lagging members; each of them has a *cursor* in it. Output for one member alone, such as an
//! acknowledgement, is spliced into its stream without being in it.

mod backlog;
mod cursor;
mod history;
mod replies;

use std::ops::{Index, IndexMut};

use super::limits::Limits;
use crate::wire::websocket::{self, Opcode};
use crate::wire::{Dialect, Receives, TimeText, encode_frame};
pub(super) use backlog::Backlog;
pub(super) use cursor::{Cursor, MAX_SLICES, Splice};
use history::History;
pub use replies::ReplyTexts;
pub(super) use replies::{Reply, ReplyBytes};

/// The turn buffer's capacity is returned after a turn that was larger than this, in bytes, so that
/// one huge message does not hold its memory for as long as the relay runs.
const KEPT_CAPACITY: usize = 512 * 1024;

/// One dialect's stream: the bytes published in this turn, and those of former turns that some member
/// has not received.
///
/// In one turn a connection is read once, so all that it publishes is one contiguous span, and
/// "everything but my own span" is at most two slices of the same bytes: one `write` for a member that
/// was silent, one `writev` for one that sent.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) dialect: Dialect,
    receives: Receives,
    /// The number of members of this dialect.
    pub(super) members: usize,
    /// Whether the bus receives what is published.
    has_bus: bool,
    /// How many members left in this turn. They still receive all of it.
    leaving: usize,
    /// The turn buffer: the bytes published in this turn, as they go on the wire.
    pub(super) turn: Vec<u8>,
    pub(super) backlog: Backlog,
    history: History,
    pub(super) replies: ReplyBytes,
    /// How many messages were published, whether there were members or not.
    messages: u32,
    /// Whether nothing was published since the last call of [`Channels::publish_heartbeat`], no heartbeat either.
    is_silent: bool,
}

/// What one message came to, once it was encoded.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::relay) struct Published {
    /// How many bytes it is.
    pub(super) len: usize,
    /// How many bytes it takes to deliver it to all members.
    pub(super) cost: u64,
    /// How many members it is for.
    pub(super) receivers: usize,
}

/// The point of a turn at which a member joins: its output depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct JoinPoint {
    /// How long the turn buffer was, in bytes.
    pub(super) turn_len: usize,
    /// How many messages had been published, less those of the history.
    pub(super) messages_before: u32,
    /// Where in the stream the history for the new member begins, if there is any.
    pub(super) history: Option<u64>,
}

impl Channel {
    fn new(dialect: Dialect, history: History, texts: &ReplyTexts, limits: &Limits) -> Self {
        let mut backlog = Backlog::default();
        if history.is_on() {
            backlog.begin_history();
        }
        Self {
            dialect,
            receives: dialect.rules().receives,
            members: 0,
            has_bus: false,
            leaving: 0,
            turn: Vec::new(),
            backlog,
            history,
            replies: ReplyBytes::new(dialect, texts, limits),
            messages: 0,
            is_silent: false,
        }
    }

    /// How many messages were published so far.
    pub(super) const fn messages(&self) -> u32 {
        self.messages
    }

    /// The point of the turn that is reached now.
    pub(super) fn join_point(&self) -> JoinPoint {
        JoinPoint {
            turn_len: self.turn.len(),
            messages_before: self.messages.wrapping_sub(self.history.len() as u32),
            history: self.history.start(),
        }
    }

    /// The stream's position after everything that was published. The bytes of this turn enter the
    /// backlog when the turn ends, if they have to.
    pub(super) const fn end(&self) -> u64 {
        self.backlog.end() + self.turn.len() as u64
    }

    /// A member joins.
    pub(super) const fn on_join(&mut self) {
        self.members += 1;
        self.history.begin();
        if self.history.is_on() {
            self.backlog.begin_history();
        }
    }

    /// A member leaves: this turn is the last that it receives.
    pub(super) const fn on_leave(&mut self) {
        self.members -= 1;
        self.leaving += 1;
    }

    /// Appends a message, if a member receives it, or will.
    fn append(&mut self, name_frame: &[u8], message: &[u8], time: &TimeText) -> Published {
        self.messages = self.messages.wrapping_add(1);
        if !self.is_in_use() {
            return Published::default();
        }
        self.is_silent = false;
        let start = self.turn.len();
        self.receives
            .encode(name_frame, message, time, &mut self.turn);
        let len = self.turn.len() - start;
        if self.history.is_on() {
            let end = self.end();
            self.history.push(end - len as u64, end);
        }
        Published {
            len,
            cost: (len * self.members) as u64,
            receivers: self.members + self.leaving,
        }
    }

    /// Whether what is published is for a member, for the history, or for the bus.
    const fn is_in_use(&self) -> bool {
        self.members + self.leaving > 0 || self.history.is_on() || self.has_bus
    }

    /// Whether there is something to deliver, and a member to deliver it to.
    pub(super) const fn is_due(&self) -> bool {
        !self.turn.is_empty() && self.members > 0
    }

    /// Whether this turn's bytes must enter the backlog, whatever becomes of their deliveries: a member
    /// lags, or they are history.
    pub(super) const fn must_store(&self) -> bool {
        self.backlog.readers() > 0 || self.history.is_on()
    }

    /// Forgets the turn and keeps the buffer for the next one, unless it was out of the ordinary.
    fn end_turn(&mut self) {
        self.leaving = 0;
        if self.turn.is_empty() {
            return;
        }
        self.turn.clear();
        self.turn.shrink_to(KEPT_CAPACITY);
        if self.history.is_on() {
            let end = self.backlog.end();
            let start = self.history.start().unwrap_or(end);
            self.backlog.keep_from(start);
        }
    }
}

/// A channel for each dialect.
#[derive(Debug)]
pub(super) struct Channels {
    each: [Channel; Dialect::COUNT],
    /// How many bytes were published in this turn, in all channels.
    turn_len: usize,
    /// The time of day, for messages that carry it.
    time: TimeText,
    /// Whether there may be WebSocket members.
    serves_web_socket: bool,
}

impl Channels {
    /// Empty channels. Of the dialects that are `served`, those that receive messages keep the history.
    pub(super) fn new(limits: &Limits, served: &[Dialect], texts: &ReplyTexts) -> Self {
        let keeps =
            |dialect: &Dialect| dialect.rules().receives.is_room() && served.contains(dialect);
        let keepers = Dialect::ALL
            .iter()
            .filter(|&dialect| keeps(dialect))
            .count();
        let each = Dialect::ALL.map(|dialect| {
            let history = if keeps(&dialect) {
                History::new(limits, dialect, keepers)
            } else {
                History::off()
            };
            Channel::new(dialect, history, texts, limits)
        });
        Self {
            each,
            turn_len: 0,
            time: TimeText::default(),
            serves_web_socket: served
                .iter()
                .any(|dialect| dialect.rules().receives.is_web_socket()),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.each.iter()
    }

    pub(super) const fn each_mut(&mut self) -> &mut [Channel; Dialect::COUNT] {
        &mut self.each
    }

    /// Publishes a message to every channel that receives messages. The sender's name is a frame
    /// already.
    pub(super) fn publish(&mut self, name_frame: &[u8], message: &[u8]) -> Published {
        let mut published = Published::default();
        for channel in &mut self.each {
            if channel.receives.is_room() {
                let in_channel = channel.append(name_frame, message, &self.time);
                published.len += in_channel.len;
                published.cost += in_channel.cost;
                published.receivers += in_channel.receivers;
            }
        }
        self.turn_len += published.len;
        published
    }

    /// Publishes a tick of the server's to the channels that receive ticks.
    pub(super) fn publish_tick(&mut self, tick: &[u8]) {
        for channel in &mut self.each {
            if channel.receives == Receives::Ticks {
                channel.messages = channel.messages.wrapping_add(1);
                let before = channel.turn.len();
                encode_frame(tick, &mut channel.turn);
                self.turn_len += channel.turn.len() - before;
            }
        }
    }

    /// Sets the time of day of the messages that are published from now on.
    pub(super) fn set_time(&mut self, time: TimeText) {
        self.time = time;
    }

    /// Sets the time like [`set_time`](Self::set_time), and returns the former one.
    pub(super) const fn replace_time(&mut self, time: TimeText) -> TimeText {
        std::mem::replace(&mut self.time, time)
    }

    /// From now on the bus receives what is published in the channel of `chat10`, whether it has members or not.
    pub(super) fn tap(&mut self) -> &mut Channel {
        let channel = &mut self[Dialect::Chat10];
        channel.has_bus = true;
        channel
    }

    /// Whether there may be WebSocket members.
    pub(super) const fn serves_web_socket(&self) -> bool {
        self.serves_web_socket
    }

    /// Whether messages carry the time of day.
    pub(super) fn is_timed(&self) -> bool {
        self.each
            .iter()
            .any(|channel| channel.receives.is_timed() && channel.is_in_use())
    }

    /// Publishes to the browser members whether senders are paused.
    pub(super) fn publish_pause(&mut self, is_paused: bool) {
        let text = format!("{{\"paused\":{is_paused}}}");
        for channel in &mut self.each {
            if channel.receives == Receives::Json && channel.members > 0 {
                let before = channel.turn.len();
                websocket::encode(Opcode::Text, text.as_bytes(), &mut channel.turn);
                self.turn_len += channel.turn.len() - before;
            }
        }
    }

    /// Publishes a heartbeat to the WebSocket members to which nothing was published since the last call, no
    /// heartbeat either. It is a Pong frame that answers no ping (RFC 6455, 5.5.3): a ping would be answered by
    /// each member, and each answer could wake an idle relay.
    pub(super) fn publish_heartbeat(&mut self) {
        for channel in &mut self.each {
            let was_silent = channel.is_silent;
            channel.is_silent = !was_silent;
            if channel.receives.is_web_socket() && channel.members > 0 && was_silent {
                let before = channel.turn.len();
                websocket::encode(Opcode::Pong, &[], &mut channel.turn);
                self.turn_len += channel.turn.len() - before;
            }
        }
    }

    /// Whether there is a WebSocket member.
    pub(super) fn has_web_socket_members(&self) -> bool {
        let has_members =
            |channel: &Channel| channel.receives.is_web_socket() && channel.members > 0;
        self.each.iter().any(has_members)
    }

    /// What messages take in all channels for WebSocket members, under a name of this length, at the most:
    /// an empty one, and each byte of a text.
    #[inline]
    pub(super) fn web_socket_cost(&self, name_len: usize) -> (usize, usize) {
        if self.serves_web_socket {
            self.cost(name_len)
        } else {
            (0, 0)
        }
    }

    fn cost(&self, name_len: usize) -> (usize, usize) {
        let in_use = self
            .each
            .iter()
            .filter(|channel| channel.receives.is_web_socket() && channel.is_in_use());
        in_use.fold((0, 0), |(overhead, growth), channel| {
            let receives = channel.receives;
            (
                overhead + receives.overhead(name_len),
                growth + receives.growth(),
            )
        })
    }

    /// Whether a member receives ticks.
    pub(super) fn has_tick_members(&self) -> bool {
        let has_members =
            |channel: &Channel| channel.receives == Receives::Ticks && channel.members > 0;
        self.each.iter().any(has_members)
    }

    /// How many bytes were published in this turn, in all channels.
    pub(super) const fn turn_len(&self) -> usize {
        self.turn_len
    }

    /// Forgets the turn: it was delivered.
    pub(super) fn end_turn(&mut self) {
        debug_assert_eq!(
            self.turn_len,
            self.each
                .iter()
                .map(|channel| channel.turn.len())
                .sum::<usize>(),
            "the turn is the sum of the channels'"
        );
        self.turn_len = 0;
        for channel in &mut self.each {
            channel.end_turn();
        }
    }

    /// How much memory the channels hold, in bytes: backlogs, cursors, and the turn.
    pub(super) fn held_bytes(&self) -> usize {
        let held = |channel: &Channel| channel.backlog.held_bytes() + channel.turn.len();
        self.each.iter().map(held).sum()
    }

    /// How much of that is bytes that all lagging members share.
    pub(super) fn shared_bytes(&self) -> usize {
        let shared = |channel: &Channel| channel.backlog.shared_bytes() + channel.turn.len();
        self.each.iter().map(shared).sum()
    }
}

impl Index<Dialect> for Channels {
    type Output = Channel;

    fn index(&self, dialect: Dialect) -> &Channel {
        &self.each[dialect.index()]
    }
}

impl IndexMut<Dialect> for Channels {
    fn index_mut(&mut self, dialect: Dialect) -> &mut Channel {
        &mut self.each[dialect.index()]
    }
}
