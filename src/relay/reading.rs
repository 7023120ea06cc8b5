//! Reading: one connection's turn to be read, from the permit to what its input ends in.
//!
//! A [`Reading`] takes what one connection sent in one turn: each frame as soon as it is complete, where
//! it lies in the read buffer. What the frames mean is said here; what becomes of the connection
//! afterwards is the room's.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use super::channel::{JoinPoint, Reply};
use super::close_reason::CloseReason;
use super::connection::{Connection, InputEnd, ReadStep};
use super::delivery::Adjustment;
use super::events::RoomEvent;
use super::flow::{InputKind, InputState, Permit, ReadBudget};
use super::lifecycle::{DrainCause, Life};
use super::ready::{Marks, Ready, ReadyLists};
use super::room::Room;
use super::timers::{Timer, TimerKind};
use crate::wire::websocket::{self, Item, MIN_CLIENT_FRAME, Opcode, WebSocketDecoder};
use crate::wire::{Sends, header};

/// How many reads one connection may take in one turn. More than one is needed only where a read may be
/// short though there is more, and to complete one long message.
pub(super) const MAX_READS: usize = 16;

/// The longest WebSocket message of a tunnel, at the least, in bytes: programs at its other end send what
/// one of their reads returned.
const MIN_TUNNEL_MESSAGE: usize = 1024 * 1024;

/// Reads a connection that was listed, if flow control permits it. If not, it is put where it will be
/// found again.
pub(super) fn read_if_permitted<S: Read + Write>(
    room: &mut Room,
    connection: &mut Connection<S>,
    scratch: &mut [u8],
    now: Instant,
) {
    let state = input_state(room, connection);
    match room.flow.permit(&state, room.channels.turn_len(), now) {
        Permit::Read(budget) => read(room, connection, budget, scratch, now),
        Permit::Hold => room.ready.hold(connection.id()),
        Permit::Park => ReadyLists::park(&mut connection.readiness),
        Permit::Throttle(until) => {
            ReadyLists::park(&mut connection.readiness);
            room.timers.set(connection.id(), Timer::Throttle, until);
            room.counters.throttles += 1;
            room.events.push(RoomEvent::Throttled {
                member: connection.identity(),
                wait: until.saturating_duration_since(now),
            });
        }
    }
}

/// Reads what a connection that must leave has sent, whatever holds its input back. A longer read would
/// publish too much in one turn, and another one will not come.
pub(super) fn read_last<S: Read + Write>(
    room: &mut Room,
    connection: &mut Connection<S>,
    scratch: &mut [u8],
    now: Instant,
) {
    let budget = room.flow.final_read(&input_state(room, connection));
    let id = connection.id();
    room.ready.unlist(&mut connection.readiness, id);
    read(room, connection, budget, scratch, now);
}

fn read<S: Read + Write>(
    room: &mut Room,
    connection: &mut Connection<S>,
    budget: ReadBudget,
    scratch: &mut [u8],
    now: Instant,
) {
    let mut reading = Reading::new(room, connection);
    let end = reading.read(connection, budget, scratch, now);
    reading.finish(connection, now);
    room.on_input_end(connection, end, now);
}

/// The state of a connection's input, for flow control.
fn input_state<S>(room: &Room, connection: &Connection<S>) -> InputState {
    let life = &connection.life;
    let sends = life.dialect().rules().sends;
    let kind = if matches!(sends, Sends::Requests | Sends::Nothing)
        || !(life.is_heard() || life.is_pending())
    {
        InputKind::Ignored
    } else if life.is_pending() {
        InputKind::Name
    } else if connection.is_hung_up() || life.write_error().is_some() {
        InputKind::LastMessages
    } else {
        InputKind::Messages
    };
    let (header_width, missing) = match sends {
        Sends::Frames(width) => (width, connection.decoder.missing(width)),
        Sends::Messages | Sends::Tunnel | Sends::EchoMessages => {
            let partial = room.partial_messages.get(&life.id());
            let missing = partial.map_or(MIN_CLIENT_FRAME, WebSocketDecoder::missing);
            (MIN_CLIENT_FRAME, missing)
        }
        Sends::Echo | Sends::Requests | Sends::Nothing => (1, 1),
    };
    let name_len = life.name().map_or(room.limits.max_name, <[u8]>::len);
    let (overhead, growth) = room.channels.web_socket_cost(name_len);
    InputState {
        id: life.id(),
        kind,
        missing,
        header_width,
        name_frame_len: life.name_frame().len(),
        overhead,
        growth,
    }
}

/// What one connection sent in one turn, while it is being read.
struct Reading<'a> {
    room: &'a mut Room,
    /// Where in the turn buffer of its channel the connection's own span begins.
    start: usize,
    /// The point of the turn at which it became a member, if it did.
    joined: Option<JoinPoint>,
    /// How many bytes were read.
    bytes: u64,
    /// How many frames were completed.
    frames: u32,
    /// Whether the input stood between two messages, after something of it: what is incomplete at its end
    /// began in this turn.
    was_between_messages: bool,
    /// How many bytes were published.
    published: usize,
    /// How many messages were relayed.
    messages: u32,
    /// How many bytes it takes to deliver the messages to all members.
    cost: u64,
    /// How many members they are for, all of them together.
    receivers: u64,
    /// What the connection is answered, beside greeting and acknowledgements: pongs, echoes, a Close frame.
    own: Vec<u8>,
    /// Nothing may be sent to the connection behind these answers.
    is_last: bool,
}

impl<'a> Reading<'a> {
    fn new<S>(room: &'a mut Room, connection: &Connection<S>) -> Self {
        debug_assert!(
            !connection.readiness.marks.any(Marks::HAS_ADJUSTMENT),
            "a connection is read once a turn, so that its own span is contiguous"
        );
        room.flow.refund_partial(room.partial_bytes(connection));
        Self {
            start: room.channels[connection.dialect()].turn.len(),
            room,
            joined: None,
            bytes: 0,
            frames: 0,
            was_between_messages: false,
            published: 0,
            messages: 0,
            cost: 0,
            receivers: 0,
            own: Vec::new(),
            is_last: false,
        }
    }

    /// Reads as far as the budget goes.
    fn read<S: Read + Write>(
        &mut self,
        connection: &mut Connection<S>,
        budget: ReadBudget,
        scratch: &mut [u8],
        now: Instant,
    ) -> InputEnd {
        let mut size = budget.bytes.min(scratch.len());
        for _ in 0..MAX_READS {
            let (read, is_exhausted) = match connection.read(&mut scratch[..size]) {
                ReadStep::More(read) => (read, false),
                ReadStep::Exhausted(read) => (read, true),
                ReadStep::Ended => return on_end_of_input(connection),
                ReadStep::Failed(kind) => return InputEnd::Over(CloseReason::Io(kind)),
            };
            self.bytes += read as u64;
            self.room.counters.reads += u64::from(read > 0);
            if let Err(end) = self.on_bytes(connection, &mut scratch[..read], now) {
                return end;
            }
            if is_exhausted {
                return on_would_block(connection);
            }
            // A short read that is not the last, as at urgent data, leaves a part of the budget.
            size = match size - read {
                0 => self.rest_of_round(connection, budget).min(scratch.len()),
                rest => rest,
            };
            if size == 0 {
                break;
            }
        }
        InputEnd::Open
    }

    /// How much more of a connection may be read in a round, in bytes; nothing if this is no round.
    fn rest_of_round<S>(&self, connection: &Connection<S>, budget: ReadBudget) -> usize {
        if budget.message_bytes == 0 {
            return 0;
        }
        let so_far = (self.frames, self.published);
        input_state(self.room, connection).rest_of_round(budget, self.bytes as usize, so_far)
    }

    /// These bytes were read.
    fn on_bytes<S>(
        &mut self,
        connection: &mut Connection<S>,
        bytes: &mut [u8],
        now: Instant,
    ) -> Result<(), InputEnd> {
        match connection.dialect().rules().sends {
            Sends::Frames(width) => self.on_frames(connection, bytes, width, now),
            Sends::Messages | Sends::Tunnel | Sends::EchoMessages => {
                self.on_web_socket(connection, bytes, now)
            }
            Sends::Echo => {
                // What a draining connection sends has no meaning.
                if connection.life.is_heard() {
                    self.own.extend_from_slice(bytes);
                }
                Ok(())
            }
            Sends::Requests | Sends::Nothing => self.on_ignored(&mut connection.life, bytes.len()),
        }
    }

    /// Bytes of WebSocket frames were read. The decoder of an incomplete message is kept by the room.
    fn on_web_socket<S>(
        &mut self,
        connection: &mut Connection<S>,
        mut bytes: &mut [u8],
        now: Instant,
    ) -> Result<(), InputEnd> {
        let id = connection.id();
        let mut decoder = self.room.partial_messages.remove(&id).unwrap_or_default();
        let result = self.on_web_socket_items(connection, &mut decoder, &mut bytes, now);
        let marks = &mut connection.readiness.marks;
        if decoder.is_at_rest() || result.is_err() {
            marks.remove(Marks::PARTIAL_MESSAGE);
        } else {
            marks.insert(Marks::PARTIAL_MESSAGE);
            self.room.partial_messages.insert(id, decoder);
        }
        result
    }

    #[allow(clippy::mut_mut, reason = "the slice is moved forward")]
    fn on_web_socket_items<S>(
        &mut self,
        connection: &mut Connection<S>,
        decoder: &mut WebSocketDecoder,
        bytes: &mut &mut [u8],
        now: Instant,
    ) -> Result<(), InputEnd> {
        let sends = connection.dialect().rules().sends;
        // What a draining connection sends has no meaning.
        while connection.life.is_heard() || connection.life.is_pending() {
            let limits = &self.room.limits;
            let max = match sends {
                Sends::Messages if connection.life.is_pending() => limits.max_name,
                // Where a message ends means nothing in a tunnel.
                Sends::Tunnel => limits.max_message.max(MIN_TUNNEL_MESSAGE),
                _ => limits.max_message,
            };
            let item = decoder.decode(bytes, max);
            match item.map_err(|error| InputEnd::Over(CloseReason::Protocol(error)))? {
                None => break,
                Some(Item::Ping(payload)) => {
                    // A member that does not read its pongs has only the last of a turn (RFC 6455, 5.5.3), or
                    // its pings alone would pause the room.
                    let channel = &self.room.channels[connection.dialect()];
                    if connection.pending_bytes(channel) > 0 && sends != Sends::EchoMessages {
                        self.own.clear();
                    }
                    websocket::encode(Opcode::Pong, payload, &mut self.own);
                }
                Some(Item::Pong) => {}
                Some(Item::Close(code, _)) => {
                    websocket::encode(Opcode::Close, code, &mut self.own);
                    self.is_last = true;
                    return Err(InputEnd::Leaves(DrainCause::Farewell));
                }
                Some(Item::Message { is_text, payload }) => match sends {
                    Sends::Tunnel => self.on_frames(connection, payload, header::WIDTH, now)?,
                    Sends::EchoMessages => {
                        let opcode = if is_text {
                            Opcode::Text
                        } else {
                            Opcode::Binary
                        };
                        websocket::encode(opcode, payload, &mut self.own);
                    }
                    _ if connection.life.is_pending() => self.on_name(connection, payload, now)?,
                    _ => self.on_message(&connection.life, payload)?,
                },
            }
            // A control frame may stand inside a message, which is not complete then.
            let is_between = decoder.is_at_rest() && !connection.decoder.is_inside_frame();
            self.was_between_messages |= is_between;
        }
        Ok(())
    }

    /// Bytes of frames were read. An incomplete frame is kept by the connection's decoder.
    fn on_frames<S>(
        &mut self,
        connection: &mut Connection<S>,
        mut bytes: &[u8],
        header_width: usize,
        now: Instant,
    ) -> Result<(), InputEnd> {
        // What a draining connection sends has no meaning.
        while connection.life.is_heard() || connection.life.is_pending() {
            let (life, decoder) = (&connection.life, &mut connection.decoder);
            let limits = &self.room.limits;
            let max_payload = if life.is_pending() {
                limits.max_name
            } else {
                limits.max_message
            };
            let payload = decoder.decode(&mut bytes, header_width, max_payload);
            match payload.map_err(|error| InputEnd::Over(CloseReason::Protocol(error)))? {
                None => break,
                Some(name) if life.is_pending() => {
                    let name: Box<[u8]> = name.into();
                    self.on_name(connection, &name, now)?;
                }
                Some(message) => self.on_message(life, message)?,
            }
        }
        Ok(())
    }

    /// A pending connection sent its name: it is a member now.
    fn on_name<S>(
        &mut self,
        connection: &mut Connection<S>,
        name: &[u8],
        now: Instant,
    ) -> Result<(), InputEnd> {
        let known = self.room.known_names.remove(&connection.id());
        let name = known.as_deref().unwrap_or(name);
        if let Some(filter) = &mut self.room.name_filter
            && !(filter.may_join)(name)
        {
            return Err(InputEnd::Over(CloseReason::NameRefused));
        }
        let max = self.room.limits.max_name;
        let free = self.room.lifecycle.free_name(&connection.life, name, max);
        let name = free.ok_or(InputEnd::Over(CloseReason::NameTaken))?;
        self.frames += 1;
        let point = self.room.channels[connection.dialect()].join_point();
        connection.messages_before = point.messages_before;
        self.joined = Some(point);
        self.room.timers.cancel(connection.id(), TimerKind::Name);
        self.room.lifecycle.join(&mut connection.life, &name);
        self.room.on_join(connection, now);
        Ok(())
    }

    /// A member sent a message: it is published. The farewell of its dialect is the last one.
    #[inline]
    fn on_message(&mut self, life: &Life, message: &[u8]) -> Result<(), InputEnd> {
        self.frames += 1;
        let replies = &self.room.channels[life.dialect()].replies;
        let is_farewell = replies.farewell() == Some(message);
        let rule = life.dialect().rules().farewell;
        if !is_farewell || rule.is_none_or(|farewell| farewell.is_relayed) {
            self.messages += 1;
            let sender = Some(life.id());
            let published = self.room.publish(sender, life.name_frame(), message);
            self.published += published.len;
            self.cost += published.cost;
            self.receivers += published.receivers as u64;
        }
        if is_farewell {
            return Err(InputEnd::Leaves(DrainCause::Farewell));
        }
        Ok(())
    }

    /// A peer sent bytes where input has no meaning. They are counted, and bounded.
    fn on_ignored(&self, life: &mut Life, len: usize) -> Result<(), InputEnd> {
        life.count_sent(u32::try_from(len).unwrap_or(u32::MAX));
        let max = self.room.limits.max_message;
        if life.is_open() && (life.sent() as usize > max || life.sent() == u32::MAX) {
            return Err(InputEnd::Over(CloseReason::InputIgnored { max }));
        }
        Ok(())
    }

    /// The connection was read as far as it may be in this turn: counts what it sent, and notes how its
    /// delivery differs.
    fn finish<S>(self, connection: &mut Connection<S>, now: Instant) {
        let adjustment = self.adjustment(connection);
        let room = self.room;
        room.flow.charge_partial(room.partial_bytes(connection));
        room.counters.bytes_in += self.bytes;
        room.counters.messages += u64::from(self.messages);
        // A member is among the receivers of its own messages, which it is not sent.
        let own = u64::from(connection.dialect().rules().receives.is_room());
        room.counters.deliveries += self.receivers - own * u64::from(self.messages);
        connection.life.count_sent(self.messages);
        if room.flow.is_restricting() {
            let names = self.frames as usize * connection.life.name_frame().len();
            room.flow.count_round(self.bytes as usize, names);
        }
        if room.flow.has_quota() {
            // A member does not pay for its own span, which it is not sent.
            let own = room.channels[connection.dialect()].turn.len() - self.start;
            let cost = self.cost.saturating_sub(own as u64);
            room.flow.charge_delivery(connection.id(), cost, now);
        }
        let is_participant = self.joined.is_some()
            || !adjustment.skip.is_empty()
            || !matches!(adjustment.reply, Reply::Nothing);
        if is_participant {
            room.adjust_delivery(connection, adjustment);
        }
        if self.bytes > 0 {
            room.start_idle_timer(connection, now);
        }
        let has_completed = self.frames > 0 || self.was_between_messages;
        room.keep_message_timer(connection, has_completed, now);
    }

    /// How the delivery of this turn differs from that of the others: the connection's own span is left
    /// out, its messages are acknowledged, and a new member receives a greeting and the history.
    fn adjustment<S>(&self, connection: &Connection<S>) -> Adjustment {
        let rules = connection.dialect().rules();
        let end = self.room.channels[connection.dialect()].turn.len();
        let names = u32::from(self.joined.is_some());
        let acks = rules.ack.map_or(0, |_| u64::from(self.frames - names));
        let replies = &self.room.channels[connection.dialect()].replies;
        let reply = replies.joined(self.joined.is_some(), acks, &self.own);
        let (start, history) = match self.joined {
            None => (self.start, None),
            // Bytes published in this turn before the member joined are not delivered to it, unless they
            // are history.
            Some(point) => (point.history.map_or(0, |_| point.turn_len), point.history),
        };
        Adjustment {
            skip: start..if self.is_last { usize::MAX } else { end },
            reply,
            history,
        }
    }
}

/// What it means that the socket has nothing more to read just now.
fn on_would_block<S>(connection: &mut Connection<S>) -> InputEnd {
    connection.readiness.kernel.remove(Ready::READABLE);
    match connection.life.write_error() {
        Some(kind) => InputEnd::Over(CloseReason::Io(kind)),
        None if connection.is_hung_up() => InputEnd::Over(CloseReason::Eof),
        None => InputEnd::Open,
    }
}

/// What it means that the peer's input has ended.
fn on_end_of_input<S>(connection: &mut Connection<S>) -> InputEnd {
    connection.readiness.kernel.remove(Ready::READABLE);
    let cause = if connection.is_inside_message() {
        DrainCause::TruncatedFrame
    } else {
        DrainCause::Eof
    };
    match connection.life.write_error() {
        // Writing to a peer that has closed both sides fails like this: it just left.
        Some(ErrorKind::BrokenPipe) => InputEnd::Over(cause.into()),
        Some(kind) => InputEnd::Over(CloseReason::Io(kind)),
        None if connection.is_hung_up() => InputEnd::Over(cause.into()),
        None if connection.life.is_open() => InputEnd::Leaves(cause),
        // It drains already, and later events repeat the end.
        None if connection.life.drain_cause().is_some() => InputEnd::Open,
        None => InputEnd::Over(cause.into()),
    }
}
