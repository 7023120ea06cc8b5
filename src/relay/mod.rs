//! The relay: the members, the messages published in this turn, and the pending output.
//!
//! [`Relay`] is the whole chat over streams that are `Read + Write`, whatever they are: sockets in the
//! server, scripts in a test, a thousand sinks in a benchmark. It depends on no event loop, clock or
//! log: readiness is noted, time is an argument, and what happened comes out as events.
//!
//! ```text
//! note(id, ready)      record the readiness that an event reports; no I/O yet
//! serve_ready(now)     flush pending output, read input, publish messages
//! handle_timeout(now)  look at everything whose time has come
//! fan_out(now)         one write of everything published in this turn to each member, less its own span
//! remove_closed(now)   remove the connections that were closed in this turn
//! drain_events()       what happened, for the log
//! ```
//!
//! # Follow a message
//!
//! ```text
//! server/mod.rs        turn, poll, dispatch
//! relay/mod.rs         note
//! relay/ready.rs       note                              a readable connection is listed
//! relay/mod.rs         serve_ready, read_ready
//! relay/reading.rs     read_if_permitted
//! relay/flow/mod.rs    permit                            may it be read now, and how much?
//! relay/reading.rs     read
//! relay/connection.rs  read, the stream's read           into the loop's one scratch buffer
//! relay/reading.rs     on_bytes, on_frames
//! wire/decoder.rs      decode                            the next frame, where it lies
//! relay/reading.rs     on_name or on_message             what it means
//! relay/room.rs        publish
//! relay/channel/mod.rs publish, append
//! wire/dialect.rs      encode                            into each channel's turn buffer
//! relay/reading.rs     finish                            the sender's own span, its timers
//! relay/room.rs        on_input_end
//! relay/mod.rs         fan_out, deliver_turn
//! relay/delivery.rs    deliver_to_silent                 one write to each member
//! relay/connection.rs  write, the stream's write
//! ```
//!
//! (A member that sent something in the same turn is written to by `deliver_to_participant`; WebSocket frames
//! come by `on_web_socket` and `wire/websocket.rs`.) That is the whole way if the socket accepts everything.
//! If it does not:
//!
//! ```text
//! relay/delivery.rs    fall_behind, or defer             a cursor in the backlog
//! relay/room.rs        on_delivery, on_lag_event         after the walk; if the lag is over the threshold:
//! relay/flow/mod.rs    on_lag_event
//! relay/flow/lag.rs    on_event                          pause the room for it, or close it?
//! relay/flow/pause.rs  file                              members are read in rounds from now on:
//! relay/flow/mod.rs    permit                            until the next one, `Hold`
//! …                    its socket becomes writable: dispatch and note, as above
//! relay/mod.rs         serve_ready, flush
//! relay/connection.rs  flush
//! …/channel/cursor.rs  io_slices, advance                the pending output
//! relay/room.rs        on_written, on_lag_event          or on_caught_up, with the last of it
//! ```
//!
//! Who waits is decided in `flow/mod.rs`, `permit`; for whom, in `flow/lag.rs`, `on_event`.
//!
//! A connection's lifecycle state changes only in `lifecycle.rs`, which has the diagram; a member's lag state
//! only in `flow/lag.rs`, which has the policy as a table; its place on the ready lists only in `ready.rs`.
//!
//! **Why one write a turn.** A member's copy of a message costs a system call, and the call costs far
//! more than the bytes in it. So nothing is written while messages are read; at the end of the turn
//! each member receives all of them at once. The busier the room, the more there is in a turn and the
//! less a delivery costs. In a quiet room a turn has one message, which leaves in the turn in which it
//! came: nothing waits for a batch to fill.
//!
//! **Why no receiver fails a sender.** What a socket does not accept stays in the
//! [backlog](#the-backlog), and its member is written to again when its socket has room. To publish is to
//! append to a buffer. Nothing that a receiver does, not reading, resetting, filling its limit, can fail
//! in the sender's hands.
//!
//! **Why close late.** A connection that has to end is *closed* first and removed after the turn's
//! deliveries. So no walk over the connections has one removed under it, and the last messages of a
//! connection reach the others before it is gone.
//!
//! # The backlog
//!
//! Every published byte has a position in its channel's stream, counted from the relay's start. A member
//! that could not accept all of a turn gets a *cursor* in that stream: a position, and the spans ahead of
//! it that it published itself and will not receive. A hundred members that stopped reading are a hundred
//! cursors in one copy of the bytes, and to publish one message more costs one append.
//!
//! ```text
//!            base                                                     end
//!             │        ┌─ cursor          cursor ─┐                    │
//!             ▼        ▼                          ▼                    ▼
//!   freed    ░▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▓▓▓▓▓▓▓▓▓▓▓▓
//!                 chunk           chunk          chunk        last chunk
//!               1 reader        0 readers       1 reader
//! ```
//!
//! When the last cursor has passed a chunk, the chunk is freed. In a room that keeps up nothing is ever
//! stored here.
//!
//! # Channels
//!
//! Each [dialect](crate::wire::Dialect) writes the same message in its own way, so each has a *channel*: a
//! stream of its own, with its own backlog. A message is encoded once for each channel that has members,
//! and not for each member. Output for one member alone is spliced into its stream: where a `chat10`
//! member's own span is skipped, a `chat64` member receives an acknowledgement in its place. So an
//! acknowledgement always stands between what was published before the message and what was published
//! after it, and never inside another message, however little the socket accepts.
//!
//! # History
//!
//! History is the tail of the backlog, kept even after every member has received it. A new member starts
//! as a lagging member whose cursor stands at the oldest kept message. Replayed history and live messages
//! are therefore one stream, with no gap and no duplicate between them.

mod bus;
mod channel;
mod close_reason;
mod conn_id;
mod connection;
mod delivery;
mod events;
mod flow;
mod inspect;
mod invariants;
mod lifecycle;
mod limits;
mod memory;
mod names;
mod peer_addr;
mod per_address;
mod reading;
mod ready;
mod room;
mod table;
mod timers;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::wire::{Dialect, FrameError, TimeText, encode_frame};
use bus::BusMember;
use connection::Outcome;
use delivery::{Delivery, FanOut};
use flow::Mode;
use inspect::{channel_states, is_busy, state_of};
use lifecycle::DrainCause;
use reading::MAX_READS;
use ready::Marks;
use room::{NameFilter, Room};
use table::Connections;

pub use channel::ReplyTexts;
pub use close_reason::{CloseReason, CloseReasonInfo, ClosedCounters, EndedBy};
pub use conn_id::ConnId;
pub use connection::Connection;
pub use events::{Counters, Gauges, Identity, MemberCounts, MemberInfo, MemberState, RoomEvent};
pub(crate) use flow::Rate;
pub use inspect::{ChannelState, ConnectionState, CursorState};
pub use limits::{Limits, LimitsError, Slow};
pub(crate) use peer_addr::PeerAddr;
pub(crate) use per_address::PerAddress;
pub use ready::{Ready, ReadyList};
pub(crate) use timers::after;

/// A pending connection is not evicted before this: it is longer than any network needs to deliver the
/// name.
pub(crate) const SAFE_PENDING: Duration = Duration::from_secs(2);

/// The room and its connections.
#[derive(Debug)]
pub struct Relay<S> {
    connections: Connections<S>,
    room: Room,
    /// How much a stream holds of its own, in bytes.
    bytes_of_stream: fn(&S) -> usize,
}

/// What the event loop calls, in the order of a turn.
impl<S: Read + Write> Relay<S> {
    /// Serves the connections that are ready: flushes pending output, reads input, publishes messages.
    ///
    /// `scratch` is the loop's one read buffer, and is as long as the read budget. A connection that was
    /// not read when the turn's budget was used up, and one that has more to read or to write than a
    /// turn allows, stays on its ready list.
    pub fn serve_ready(&mut self, scratch: &mut [u8], now: Instant) {
        for _ in 0..self.room.ready.to_flush() {
            if let Some(id) = self.room.ready.next_to_flush() {
                self.flush(id, now);
            }
        }
        if let Some(is_paused) = self.room.pause_to_publish.take() {
            self.room.channels.publish_pause(is_paused);
        }
        if self.room.flow.may_read_members(now) {
            self.room.ready.release_held();
        }
        self.read_ready(scratch, now);
        self.room.flow.after_reading(now);
    }

    /// Reads the connections that are listed, as far as the turn's budget goes.
    fn read_ready(&mut self, scratch: &mut [u8], now: Instant) {
        let bytes_in = self.room.counters.bytes_in;
        for _ in 0..self.room.ready.to_read() {
            let read = self.room.counters.bytes_in - bytes_in;
            if self.is_turn_full() || read >= self.room.limits.turn_budget as u64 {
                return;
            }
            if let Some(id) = self.room.ready.next_to_read()
                && let Some(connection) = self.connections.get_mut(id)
                && !connection.life.is_closed()
            {
                reading::read_if_permitted(&mut self.room, connection, scratch, now);
            }
        }
    }

    /// Flushes one connection's pending output.
    fn flush(&mut self, id: ConnId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if !connection.life.is_writable() || !connection.readiness.is_writable() {
            return;
        }
        let room = &mut self.room;
        let dialect = connection.dialect();
        match connection.flush(&mut room.channels[dialect]) {
            Outcome::Done(sent) => room.on_written(connection, sent, now),
            Outcome::Blocked => {}
            Outcome::Failed(kind) => room.on_write_failed(connection, kind, now),
        }
    }

    /// Looks at everything whose time has come: see [`next_timeout`](Self::next_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, timer)) = self.room.timers.pop_due(now) {
            if let Some(connection) = self.connections.get_mut(id) {
                self.room.on_timer(connection, timer, now);
            }
        }
    }

    /// Delivers what was published in this turn: one write to each member.
    pub fn fan_out(&mut self, now: Instant) {
        let mut incomplete = Vec::new();
        let mut left = Vec::new();
        self.deliver_turn(&mut incomplete, &mut left, now);
        for (id, delivery) in incomplete {
            if let Some(connection) = self.connections.get_mut(id) {
                self.room.on_delivery(connection, delivery, now);
            }
        }
        for (id, cause) in left {
            if let Some(connection) = self.connections.get_mut(id)
                && connection.life.drain_cause() == Some(cause)
            {
                self.room.finish_drain(connection, cause, now);
            }
        }
        self.free_memory(now);
        self.room.channels.end_turn();
    }

    /// Counts what the streams hold of their own, such as incomplete records of TLS, towards the memory limit: so many
    /// bytes in all.
    pub fn charge_streams(&mut self, held: usize, now: Instant) {
        self.room.stream_bytes = held;
        self.free_memory(now);
    }

    /// Closes connections if more memory is held than may be.
    fn free_memory(&mut self, now: Instant) {
        if self.room.held_bytes() > self.room.limits.max_memory {
            let bytes_of_stream = self.bytes_of_stream;
            memory::free_memory(&mut self.connections, &mut self.room, bytes_of_stream, now);
        }
    }

    /// Writes the turn to each member. What was not delivered completely, and which members have left,
    /// is handled when the channels are no longer borrowed.
    fn deliver_turn(
        &mut self,
        incomplete: &mut Vec<(ConnId, Delivery)>,
        left: &mut Vec<(ConnId, DrainCause)>,
        now: Instant,
    ) {
        let room = &mut self.room;
        let flow = &room.flow;
        let channels = room.channels.each_mut().each_mut();
        let mut fan_outs = channels.map(|channel| {
            let limits = *flow.lag_limits(channel.dialect);
            FanOut::new(channel, limits, now)
        });
        // First the members that were silent: as a rule nearly all. That is one walk for each dialect in
        // which something was published.
        for (dialect, fan_out) in Dialect::ALL.into_iter().zip(&mut fan_outs) {
            if fan_out.is_due {
                fan_out.deliver_to_silent(&mut self.connections, dialect, incomplete);
            }
        }
        // A draining member receives nothing more, but what is published is kept for as long as its
        // cursor is where it is.
        for id in room.lifecycle.draining_ids() {
            if let Some(connection) = self.connections.get(id) {
                let fan_out = &fan_outs[connection.dialect().index()];
                let is_over_threshold = fan_out.is_over_threshold(connection);
                let is_participant = connection.readiness.marks.any(Marks::HAS_ADJUSTMENT);
                if is_over_threshold && !is_participant {
                    let has_room = false;
                    let delivery = Delivery::Pending {
                        is_over_threshold,
                        has_room,
                    };
                    incomplete.push((id, delivery));
                }
            }
        }
        // Then the connections that took part: their own span is skipped, a reply inserted.
        for (id, adjustment) in room.adjustments.drain(..) {
            if let Some(connection) = self.connections.get_mut(id) {
                let fan_out = &mut fan_outs[connection.dialect().index()];
                let delivery = fan_out.deliver_to_participant(connection, &adjustment);
                if delivery.needs_handling() {
                    incomplete.push((id, delivery));
                }
                left.extend(connection.life.drain_cause().map(|cause| (id, cause)));
            }
        }
        for fan_out in &fan_outs {
            let (writes, bytes) = fan_out.written();
            room.counters.writes += writes;
            room.counters.bytes_out += bytes;
        }
    }

    /// Removes the connections that were closed in this turn. Returns how many they were.
    ///
    /// The streams are dropped, which closes them. When the relay ends a connection that may have bytes
    /// unread, up to a mebibyte of them is read first, into `scratch`: a socket that is closed with
    /// unread bytes sends a reset, and the kernel drops what it has not delivered yet. A peer that had
    /// sent more than that, or goes on sending, is reset all the same.
    pub fn remove_closed(&mut self, scratch: &mut [u8], now: Instant) -> usize {
        let departures = self.room.lifecycle.take_departures();
        for departure in &departures {
            self.remove(departure, scratch, now);
        }
        if !departures.is_empty() {
            self.connections.shrink();
        }
        if cfg!(debug_assertions) {
            invariants::check(&self.connections, &self.room);
        }
        departures.len()
    }

    fn remove(&mut self, departure: &lifecycle::Departure, scratch: &mut [u8], now: Instant) {
        let Some(mut connection) = self.connections.remove(departure.id) else {
            return;
        };
        let room = &mut self.room;
        let reason = departure.reason.clone();
        room.free(&mut connection, now);
        room.flow.remove(departure.id);
        room.timers.cancel_all(departure.id);
        room.counters.closed.count(&reason);
        let (life, peer) = (&connection.life, connection.peer);
        if room.lifecycle.remove(departure, life, peer) {
            room.channels[life.dialect()].members -= 1;
        }
        let unread = if reason.is_ours() {
            connection.discard_input(scratch, MAX_READS)
        } else {
            0
        };
        room.counters.bytes_discarded += unread;
        if let Some(code) = reason.close_code()
            && !connection.readiness.marks.any(Marks::OUTPUT_LOST)
            && connection.dialect().rules().sends.is_web_socket()
        {
            let sent = connection.write_close(code, reason.info().label);
            room.counters.writes += u64::from(sent > 0);
            room.counters.bytes_out += sent;
        }
        let members = room.lifecycle.members();
        let peer = connection.identity();
        match departure.drain_cause {
            None | Some(DrainCause::Greeted) => {
                let age = room.age(&connection, now);
                room.events.push(RoomEvent::Left {
                    peer,
                    reason,
                    members,
                    age,
                    unread,
                });
            }
            Some(cause) if reason == cause.into() => {}
            Some(_) => room.events.push(RoomEvent::Closed {
                peer,
                reason,
                members,
            }),
        }
    }
}

/// What the event loop calls between turns.
impl<S: Read + Write> Relay<S> {
    /// Adds a connection that was accepted. A pending one receives nothing before its name has arrived.
    /// Must be called between turns, when nothing is published that was not delivered.
    pub fn insert(
        &mut self,
        stream: S,
        peer: SocketAddr,
        dialect: Dialect,
        now: Instant,
    ) -> ConnId {
        self.insert_as(stream, peer, dialect, None, now)
    }

    /// Adds a connection like [`insert`](Self::insert). If it has a name already, that is the member's name,
    /// whatever name it sends.
    pub fn insert_as(
        &mut self,
        stream: S,
        peer: SocketAddr,
        dialect: Dialect,
        name: Option<&[u8]>,
        now: Instant,
    ) -> ConnId {
        let id = self.next_id();
        let life = self.room.lifecycle.accept(id, peer.into(), dialect, name);
        if let Some(name) = name
            && life.is_pending()
        {
            self.room.known_names.insert(id, name.into());
        }
        let seconds = self.room.seconds(now);
        self.connections
            .insert(Connection::new(stream, peer.into(), seconds, life));
        if let Some(connection) = self.connections.get_mut(id) {
            self.room.on_accept(connection, now);
        }
        id
    }

    /// Evicts a connection because its place is needed: any one, or one of this address, if only that is
    /// at its limit. Returns whether there was one.
    ///
    /// First a connection whose peer is known to be gone is evicted, if what it had sent is not about to
    /// be read: it needs no place any more. Then a pending connection that has had time enough for its
    /// name, the oldest one.
    pub fn make_room(
        &mut self,
        address: Option<SocketAddr>,
        scratch: &mut [u8],
        now: Instant,
    ) -> bool {
        let is_held_back = |id| self.is_held_back(id);
        let is_late = |id| self.is_late_pending(id, now);
        let lifecycle = &self.room.lifecycle;
        let (candidate, reason) = match address {
            None => (
                lifecycle.eviction_candidate(is_held_back, is_late),
                CloseReason::Evicted,
            ),
            Some(peer) => (
                lifecycle.eviction_candidate_of(peer.into(), is_held_back, is_late),
                CloseReason::EvictedForAddress,
            ),
        };
        let Some(connection) = candidate.and_then(|id| self.connections.get_mut(id)) else {
            return false;
        };
        self.room.close(connection, reason);
        self.remove_closed(scratch, now) > 0
    }

    /// Whether a member's input is not read for now.
    fn is_held_back(&self, id: ConnId) -> bool {
        let connection = self.connections.get(id);
        connection.is_some_and(|connection| self.room.is_held_back(connection))
    }

    /// Whether a pending connection has had time enough for its name.
    fn is_late_pending(&self, id: ConnId, now: Instant) -> bool {
        self.connections.get(id).is_some_and(|connection| {
            // What it has sent and was not read yet may be its name.
            let is_silent = !connection.readiness.is_readable();
            is_silent && self.room.age(connection, now) > SAFE_PENDING
        })
    }

    /// Ends all throttles and the send quota: the relay stops, and what was received must be relayed
    /// before that.
    pub fn lift_quota(&mut self) {
        self.room.flow.lift_quota();
        for connection in self.connections.iter_mut() {
            let id = connection.id();
            if !self.room.flow.is_self_paused(id) {
                self.room.timers.cancel(id, timers::TimerKind::Throttle);
                self.room.ready.unpark(&mut connection.readiness, id);
            }
        }
    }

    /// Has a connection leave in this turn: what was received from it is relayed, and it is closed when
    /// the output published until then is delivered. One that is no member is closed at once.
    ///
    /// Must be called after [`serve_ready`](Self::serve_ready) and before [`fan_out`](Self::fan_out) of the
    /// same turn: a connection that the turn has read is not read again, and what is read here is
    /// delivered with the turn.
    pub fn dismiss(&mut self, id: ConnId, scratch: &mut [u8], now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.readiness.is_readable()
            && !connection.readiness.marks.any(Marks::HAS_ADJUSTMENT)
            && !connection.life.is_closed()
        {
            reading::read_last(&mut self.room, connection, scratch, now);
        }
        if connection.life.is_open() {
            self.room.on_end(connection, DrainCause::Shutdown, now);
        } else if connection.life.drain_cause().is_none() {
            self.room.close(connection, CloseReason::Shutdown);
        }
    }

    /// Closes every connection: the relay stops.
    pub fn close_all(&mut self, scratch: &mut [u8], now: Instant) {
        for connection in self.connections.iter_mut() {
            self.room.close(connection, CloseReason::Shutdown);
        }
        self.remove_closed(scratch, now);
    }
}

impl<S> Relay<S> {
    /// An empty room for connections of these dialects.
    #[must_use]
    pub fn new(limits: Limits, served: &[Dialect], texts: &ReplyTexts, now: Instant) -> Self {
        Self {
            connections: Connections::new(),
            room: Room::new(limits, served, texts, now),
            bytes_of_stream: |_| 0,
        }
    }

    /// Has this function tell how much a stream holds of its own, in bytes: see
    /// [`charge_streams`](Self::charge_streams).
    pub fn set_bytes_of_stream(&mut self, bytes_of_stream: fn(&S) -> usize) {
        self.bytes_of_stream = bytes_of_stream;
    }

    /// Records the readiness that an event reports. The next [`serve_ready`](Self::serve_ready) acts on it.
    ///
    /// An event for a connection that is gone is ignored: one batch may hold an event for a connection
    /// that an earlier event of the batch has ended.
    pub fn note(&mut self, id: ConnId, mut ready: Ready) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        // With edge triggering a socket that is not written to is always writable, so most events report
        // that it is. It matters only to a member with pending output.
        if connection.output.is_none() {
            ready.remove(Ready::WRITABLE);
        }
        let room = &mut self.room;
        room.ready.note(&mut connection.readiness, id, ready);
        if ready.any(Ready::READ_CLOSED | Ready::HUNG_UP) {
            room.lifecycle.note_gone(&connection.life);
        }
        if connection.is_hung_up() {
            // It is not throttled any more: see `flow::InputKind::LastMessages`.
            room.ready.unpark(&mut connection.readiness, id);
        }
    }

    /// Publishes a message under this name, as if a member had sent it that receives nothing. Must be called
    /// between turns; the next one delivers it.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if the name or the message exceeds its limit.
    pub fn publish(&mut self, name: &[u8], message: &[u8]) -> Result<(), FrameError> {
        let limits = &self.room.limits;
        for (bytes, max) in [(name, limits.max_name), (message, limits.max_message)] {
            if bytes.len() > max {
                let len = bytes.len() as u64;
                return Err(FrameError::TooLong { len, max });
            }
        }
        let mut name_frame = Vec::new();
        encode_frame(name, &mut name_frame);
        let published = self.room.publish(None, &name_frame, message);
        self.room.counters.messages += 1;
        self.room.counters.deliveries += published.receivers as u64;
        Ok(())
    }

    /// Has a bus receive what members say from now on, to publish it at other relays: see
    /// [`take_for_bus`](Self::take_for_bus). It may be this much behind, in bytes, which adds to the memory that
    /// may be held.
    pub fn join_bus(&mut self, max_lag: usize) {
        let limits = &mut self.room.limits;
        limits.max_memory = limits.max_memory.saturating_add(max_lag);
        let channel = self.room.channels.tap();
        self.room.bus = Some(BusMember::new(max_lag as u64, &mut channel.backlog));
    }

    /// How many bytes of what other relays' members said may be published now: not all of a turn, and none
    /// between the rounds of a pause.
    #[must_use]
    pub fn bus_budget(&self, now: Instant) -> usize {
        self.room
            .flow
            .bus_budget(self.room.channels.turn_len(), now)
    }

    /// When the budget of the bus is not empty any more; `None` if it is not empty.
    #[must_use]
    pub const fn bus_due(&self) -> Option<Instant> {
        self.room.flow.next_round()
    }

    /// Publishes a message that the bus has received, which it will not receive back. The time at which it was
    /// said is counted from the beginning of 1970. Must be called inside a turn, before
    /// [`serve_ready`](Self::serve_ready).
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if the name or the message exceeds its limit.
    pub fn publish_from_bus(
        &mut self,
        name: &[u8],
        message: &[u8],
        said_at: Duration,
    ) -> Result<(), FrameError> {
        let channels = &mut self.room.channels;
        let time = channels.replace_time(TimeText::new(said_at));
        let start = channels[Dialect::Chat10].end();
        let published = self.publish(name, message);
        let channels = &mut self.room.channels;
        channels.replace_time(time);
        if let Some(bus) = &mut self.room.bus {
            let end = channels[Dialect::Chat10].end();
            bus.skip(start..end);
        }
        if self.room.flow.is_restricting() {
            self.room.flow.count_round(message.len(), name.len());
        }
        published
    }

    /// Takes the next messages that the bus has to receive: as many as fit `max` bytes, or one that is longer.
    /// Appends them to `out` as frames of `chat10`, and returns how many they are. Must be called between turns.
    pub fn take_for_bus(&mut self, max: usize, out: &mut Vec<u8>) -> u64 {
        let backlog = &mut self.room.channels[Dialect::Chat10].backlog;
        let bus = self.room.bus.as_mut();
        bus.map_or(0, |bus| bus.take(max, backlog, out))
    }

    /// Has the bus give up its oldest messages if it is too far behind. Returns how many those are. Must be
    /// called between turns.
    pub fn give_up_for_bus(&mut self) -> u64 {
        let backlog = &mut self.room.channels[Dialect::Chat10].backlog;
        let bus = self.room.bus.as_mut();
        bus.map_or(0, |bus| bus.give_up(backlog))
    }

    /// How many bytes the bus has still to receive.
    #[must_use]
    pub fn bus_lag(&self) -> u64 {
        let backlog = &self.room.channels[Dialect::Chat10].backlog;
        self.room.bus.as_ref().map_or(0, |bus| bus.lag(backlog))
    }

    /// Whether published messages are among the [events](Self::drain_events), each with a copy of its
    /// bytes. At first they are not.
    pub const fn record_messages(&mut self, records: bool) {
        self.room.records_messages = records;
    }

    /// Has this function say for each name that a peer sends whether it may join. A connection whose name is
    /// refused is closed. In dialects without names each connection joins.
    pub fn set_name_filter(&mut self, may_join: impl FnMut(&[u8]) -> bool + Send + 'static) {
        self.room.name_filter = Some(NameFilter {
            may_join: Box::new(may_join),
        });
    }

    /// Closes a connection: it is removed at the end of the next turn, whatever is pending. Returns whether
    /// there is such a connection.
    pub fn close(&mut self, id: ConnId) -> bool {
        self.close_for(id, CloseReason::Removed)
    }

    /// Closes a connection like [`close`](Self::close), for this reason.
    pub(crate) fn close_for(&mut self, id: ConnId, reason: CloseReason) -> bool {
        let connection = self.connections.get_mut(id);
        connection
            .map(|connection| self.room.close(connection, reason))
            .is_some()
    }

    /// Sets the time of day, since the beginning of 1970, of what is published from now on. It matters as
    /// long as messages [carry their time](Self::is_timed).
    pub fn set_time_of_day(&mut self, since_1970: Duration) {
        self.room.channels.set_time(TimeText::new(since_1970));
    }

    /// Whether messages carry the time of day: there is a browser member or a history for one, or there may be
    /// before the turn is over.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        let channels = &self.room.channels;
        let may_be_joined = channels.serves_web_socket() && self.room.lifecycle.pending() > 0;
        may_be_joined || channels.is_timed()
    }

    /// Publishes a heartbeat to the WebSocket members to which nothing was published since the last call, no
    /// heartbeat either. Must be called inside a turn, before [`fan_out`](Self::fan_out).
    pub fn publish_heartbeat(&mut self) {
        self.room.channels.publish_heartbeat();
    }

    /// Whether there is a WebSocket member.
    #[must_use]
    pub fn has_web_socket_members(&self) -> bool {
        self.room.channels.has_web_socket_members()
    }

    /// Publishes a tick of the server's to the members that receive ticks.
    pub fn publish_tick(&mut self, tick: &[u8]) {
        self.room.channels.publish_tick(tick);
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest; `None` if nothing is
    /// due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let next_round = self.room.flow.next_round();
        let next_round = next_round.filter(|_| self.room.ready.has_held());
        let timer = self.room.timers.next();
        timer.into_iter().chain(next_round).min()
    }

    /// Takes the events since the last call, in the order in which they happened. They must be taken
    /// now and then, or they pile up.
    pub fn drain_events(&mut self) -> impl Iterator<Item = RoomEvent> {
        std::mem::take(&mut self.room.events).into_iter()
    }

    /// The identity that the next [`insert`](Self::insert) will return, so that a stream can be
    /// registered with an event loop before the relay has it.
    #[must_use]
    pub fn next_id(&self) -> ConnId {
        self.connections.next_id()
    }

    /// The limits it was given.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.room.limits
    }

    /// What it has counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.room.counters
    }

    /// Its state now.
    #[must_use]
    pub fn gauges(&self, now: Instant) -> Gauges {
        let lagging = self.lagging();
        let lags = self
            .connections
            .iter()
            .filter(|connection| connection.output.is_some());
        let lags = lags
            .map(|connection| connection.pending_bytes(&self.room.channels[connection.dialect()]));
        Gauges {
            connections: self.len(),
            pending: self.pending_connections(),
            members: self.members(),
            lagging,
            largest_lag: if lagging > 0 {
                lags.max().unwrap_or(0)
            } else {
                0
            },
            backlog_bytes: self.backlog_bytes(),
            held_bytes: self.held_bytes(),
            is_paused: self.is_paused(),
            paused: self.room.counters.paused + self.room.flow.pause_so_far(now),
            throttled: self.room.flow.throttled(),
        }
    }

    /// Counts connections that were refused before they became connections of the relay.
    pub const fn count_refused(&mut self, connections: u64) {
        self.room.counters.refused += connections;
    }

    /// How many connections there are, members or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many members there are of each dialect.
    #[must_use]
    pub const fn members(&self) -> MemberCounts {
        self.room.lifecycle.members()
    }

    /// How many connections have not sent their name yet.
    #[must_use]
    pub fn pending_connections(&self) -> usize {
        self.room.lifecycle.pending()
    }

    /// How many connections have output pending.
    #[must_use]
    pub fn lagging(&self) -> usize {
        let channels = self.room.channels.iter();
        let readers: usize = channels.map(|channel| channel.backlog.readers()).sum();
        readers - usize::from(self.room.bus.is_some())
    }

    /// How many bytes of output are pending for this connection; 0 if there is no such connection.
    #[must_use]
    pub fn pending_bytes(&self, id: ConnId) -> u64 {
        self.connections.get(id).map_or(0, |connection| {
            connection.pending_bytes(&self.room.channels[connection.dialect()])
        })
    }

    /// How many bytes the backlogs hold, for lagging members and as history: once, however many members
    /// lag.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        let channels = self.room.channels.iter();
        channels.map(|channel| channel.backlog.len()).sum()
    }

    /// How many of these bytes some member has still to receive. Counted in chunks of 64 KiB.
    #[must_use]
    pub fn unread_bytes(&self) -> u64 {
        let channels = self.room.channels.iter();
        channels.map(|channel| channel.backlog.unread_bytes()).sum()
    }

    /// How much memory is held for the connections, in bytes: published bytes that some member has not
    /// received, once however many members that are, history, the turn, incomplete messages, the
    /// cursors, and what the streams hold. The fixed size of an idle connection is not included.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.room.held_bytes()
    }

    /// Whether the room is paused: there is a slow reader, so members are read in rounds.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.room.flow.mode() != Mode::Full
    }

    /// Whether there is work that needs no event, so that the next poll must not wait.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        let ready = &self.room.ready;
        let is_listed = ready.to_read() > 0 || ready.to_flush() > 0;
        let is_released = ready.has_held() && self.room.flow.mode() != Mode::PacedRounds;
        let is_published =
            self.room.channels.turn_len() > 0 || self.room.pause_to_publish.is_some();
        is_listed || is_released || is_published || self.room.lifecycle.has_departures()
    }

    /// Whether a member has sent something that waits for the next round of a pause.
    #[must_use]
    pub fn has_held(&self) -> bool {
        self.room.ready.has_held()
    }

    /// Whether the turn's budget is used up.
    #[must_use]
    pub fn is_turn_full(&self) -> bool {
        self.room.flow.is_turn_full(self.room.channels.turn_len())
    }

    /// Whether the next connection is one too many.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.connections.len() >= self.room.limits.max_clients
    }

    /// Whether there are as many connections from this address as there may be, if so many `others` are counted that
    /// are not the relay's yet.
    #[must_use]
    pub fn is_address_full(&self, peer: SocketAddr, others: usize) -> bool {
        self.room.lifecycle.is_address_full(peer.into(), others)
    }

    /// Whether a member receives ticks.
    #[must_use]
    pub fn has_tick_members(&self) -> bool {
        self.room.channels.has_tick_members()
    }

    /// All connections.
    #[must_use]
    pub fn ids(&self) -> Vec<ConnId> {
        self.connections.iter().map(Connection::id).collect()
    }

    /// The address of each connection.
    pub fn peers(&self) -> impl Iterator<Item = (ConnId, SocketAddr)> {
        let connections = self.connections.iter();
        connections.map(|connection| (connection.id(), connection.peer.into()))
    }

    /// A connection's stream.
    #[must_use]
    pub fn stream(&self, id: ConnId) -> Option<&S> {
        self.connections
            .get(id)
            .map(|connection| &connection.stream)
    }

    /// The members, as a table can show them.
    pub fn member_infos(&self, now: Instant) -> impl Iterator<Item = MemberInfo<'_>> {
        let members = self.connections.iter();
        let members = members.filter(|connection| connection.life.is_heard());
        members.filter_map(move |connection| self.member_info(connection, now))
    }

    /// How many slots for connections there are, most of which may be empty.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.connections.slots()
    }

    /// The member in this slot, or the one that has left and still has output to receive. A connection keeps
    /// its slot, so a table of many members can be made in parts, with turns between them.
    #[must_use]
    pub fn member_in_slot(&self, slot: usize, now: Instant) -> Option<MemberInfo<'_>> {
        self.member_info(self.connections.in_slot(slot)?, now)
    }

    fn member_info<'a>(
        &'a self,
        connection: &'a Connection<S>,
        now: Instant,
    ) -> Option<MemberInfo<'a>> {
        let (life, dialect) = (&connection.life, connection.dialect());
        let name = life.name().filter(|_| !life.is_closed())?;
        let cause = life.drain_cause();
        if cause == Some(DrainCause::Greeted) {
            return None;
        }
        let channel = &self.room.channels[dialect];
        let published = channel.messages().wrapping_sub(connection.messages_before);
        let own = if dialect.rules().receives.is_room() {
            life.sent()
        } else {
            0
        };
        let lag = connection.output.as_deref().map(|output| &output.tracker);
        let state = match lag {
            Some(lag) if lag.is_stalled() => MemberState::Stalled,
            Some(lag) if lag.is_slow() => MemberState::Slow,
            _ if cause.is_some() => MemberState::Leaving,
            _ if self.room.flow.throttled_until(life.id()).is_some() => MemberState::Throttled,
            Some(_) => MemberState::Lagging,
            None => MemberState::KeepingUp,
        };
        Some(MemberInfo {
            id: life.id(),
            name,
            dialect,
            peer: connection.peer.into(),
            age: self.room.age(connection, now),
            sent: life.sent(),
            received: published.wrapping_sub(own),
            pending: connection.pending_bytes(channel),
            state,
        })
    }
}

/// What a trace shows. Nothing of it is kept for that: each is read when something asks.
impl<S> Relay<S> {
    /// The state of each connection.
    pub fn connection_states(&self) -> impl Iterator<Item = ConnectionState<'_>> {
        let connections = self.connections.iter();
        connections.map(|connection| state_of(connection, &self.room))
    }

    /// The state of each connection that has unused readiness or pending output.
    pub fn busy_connection_states(&self) -> impl Iterator<Item = ConnectionState<'_>> {
        let busy = self
            .connections
            .iter()
            .filter(|connection| is_busy(connection));
        busy.map(|connection| state_of(connection, &self.room))
    }

    /// The state of each channel that has members or holds bytes.
    pub fn channel_states(&self) -> impl Iterator<Item = ChannelState> {
        channel_states(&self.room)
    }

    /// The connections on this list, in the order in which they are served.
    pub fn listed(&self, list: ReadyList) -> impl Iterator<Item = ConnId> {
        self.room.ready.on(list)
    }

    /// The connections that took part in this turn, each with its own span of the turn buffer, which it does
    /// not receive. None between turns.
    pub fn own_spans(&self) -> impl Iterator<Item = (ConnId, Dialect, Range<usize>)> {
        self.room.adjustments.iter().filter_map(|(id, adjustment)| {
            let dialect = self.connections.get(*id)?.dialect();
            Some((*id, dialect, adjustment.skip.clone()))
        })
    }

    /// The timers that have fired by `now`, each with the word for its kind.
    pub fn due_timers(&self, now: Instant) -> impl Iterator<Item = (ConnId, &'static str)> {
        self.room.timers.due(now)
    }
}
