//! The handlers: what happens when a connection joins, sends, leaves, lags or ends.
//!
//! [`Room`] is all of the relay but the connections themselves. Its handlers are given the connection
//! that they are about, so each of them can change that connection and everything shared, and no other
//! connection.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::bus::BusMember;
use super::channel::{Channels, Published, Reply, ReplyTexts};
use super::close_reason::CloseReason;
use super::conn_id::ConnId;
use super::connection::{Connection, InputEnd, PendingOutput};
use super::delivery::{Adjustment, Delivery, greet};
use super::events::{Counters, RoomEvent};
use super::flow::{FlowControl, LagEvent, Mode, PauseChange};
use super::lifecycle::{DrainCause, Lifecycle};
use super::limits::Limits;
use super::ready::{Marks, Ready, ReadyLists};
use super::timers::{Timer, TimerKind, Timers, after};
use crate::wire::websocket::WebSocketDecoder;
use crate::wire::{Decoder, Dialect, header};

/// Extra time for a connection whose timer fired while it had unread input.
const GRACE: Duration = Duration::from_millis(100);

type MayJoin = dyn FnMut(&[u8]) -> bool + Send;

/// Says which names may join.
pub(super) struct NameFilter {
    pub(super) may_join: Box<MayJoin>,
}

impl fmt::Debug for NameFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameFilter")
    }
}

/// Everything that connections share.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) limits: Limits,
    /// What the ages of connections are counted from.
    started: Instant,
    pub(super) channels: Channels,
    /// The bus to other relays, if there is one.
    pub(super) bus: Option<BusMember>,
    pub(super) lifecycle: Lifecycle,
    pub(super) flow: FlowControl,
    pub(super) ready: ReadyLists,
    pub(super) timers: Timers,
    /// The connections that took part in this turn, and how their deliveries differ.
    pub(super) adjustments: Vec<(ConnId, Adjustment)>,
    /// What happened since the events were drained last.
    pub(super) events: Vec<RoomEvent>,
    /// Whether the published messages are among the events.
    pub(super) records_messages: bool,
    pub(super) name_filter: Option<NameFilter>,
    /// The names of those pending connections whose names are known, whatever they send.
    pub(super) known_names: BTreeMap<ConnId, Box<[u8]>>,
    /// The decoders of those WebSocket connections that stand inside a message.
    pub(super) partial_messages: BTreeMap<ConnId, WebSocketDecoder>,
    /// Whether senders are paused, if that is still to be published to the browser members.
    pub(super) pause_to_publish: Option<bool>,
    /// How much the streams hold of their own, in bytes.
    pub(super) stream_bytes: usize,
    pub(super) counters: Counters,
}

impl Room {
    pub(super) fn new(
        limits: Limits,
        served: &[Dialect],
        texts: &ReplyTexts,
        now: Instant,
    ) -> Self {
        let mut lifecycle = Lifecycle::new(limits.max_per_ip);
        if limits.unique_names {
            lifecycle.require_unique_names();
        }
        Self {
            channels: Channels::new(&limits, served, texts),
            bus: None,
            lifecycle,
            flow: FlowControl::new(&limits),
            limits,
            started: now,
            ready: ReadyLists::default(),
            timers: Timers::default(),
            adjustments: Vec::new(),
            events: Vec::new(),
            records_messages: false,
            name_filter: None,
            known_names: BTreeMap::new(),
            partial_messages: BTreeMap::new(),
            pause_to_publish: None,
            stream_bytes: 0,
            counters: Counters::default(),
        }
    }

    /// How long the relay has run, in whole seconds.
    pub(super) fn seconds(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.started).as_secs() as u32
    }

    /// How long a connection has been there, in whole seconds.
    pub(super) fn age<S>(&self, connection: &Connection<S>, now: Instant) -> Duration {
        let seconds = self.seconds(now).saturating_sub(connection.accepted_at);
        Duration::from_secs(u64::from(seconds))
    }

    // ---- A connection comes.

    /// A connection was accepted.
    pub(super) fn on_accept<S>(&mut self, connection: &mut Connection<S>, now: Instant) {
        self.counters.accepted += 1;
        self.events.push(RoomEvent::Accepted(connection.identity()));
        if connection.life.is_pending() {
            let due = after(now, self.limits.handshake_timeout);
            self.timers.set(connection.id(), Timer::Name, due);
            return;
        }
        let start = self.channels[connection.dialect()].join_point();
        connection.messages_before = start.messages_before;
        let reply = Reply::Greeting;
        let limits = *self.flow.lag_limits(connection.dialect());
        let channel = &mut self.channels[connection.dialect()];
        let has_output = greet(connection, channel, (reply, start.history), limits, now);
        if has_output {
            let readiness = &mut connection.readiness;
            self.ready
                .note(readiness, connection.life.id(), Ready::WRITABLE);
        }
        match connection.life.drain_cause() {
            None => self.on_join(connection, now),
            Some(cause) if has_output => self.finish_drain(connection, cause, now),
            Some(cause) => self.close(connection, cause.into()),
        }
    }

    /// A connection has become a member.
    pub(super) fn on_join<S>(&mut self, connection: &Connection<S>, now: Instant) {
        debug_assert!(connection.life.is_open(), "a new member is open");
        self.channels[connection.dialect()].on_join();
        let members = self.lifecycle.members();
        self.counters.joined += 1;
        self.counters.peak_members = self.counters.peak_members.max(members.total());
        self.start_idle_timer(connection, now);
        if connection.is_hung_up() || connection.readiness.kernel.any(Ready::READ_CLOSED) {
            self.lifecycle.note_gone(&connection.life);
        }
        let member = connection.identity();
        self.events.push(RoomEvent::Joined { member, members });
    }

    // ---- A message is published.

    /// Publishes a message under this name, which is a frame already.
    #[inline]
    pub(super) fn publish(
        &mut self,
        sender: Option<ConnId>,
        name_frame: &[u8],
        message: &[u8],
    ) -> Published {
        if self.records_messages {
            self.events.push(RoomEvent::Published {
                sender,
                name: name_frame[header::WIDTH..].into(),
                message: message.into(),
            });
        }
        self.channels.publish(name_frame, message)
    }

    // ---- A connection is read.

    /// Whether a member's input is not read for now: the room is paused for a slow reader, or the member
    /// is throttled or paused itself. Otherwise its turn comes within a few turns.
    pub(super) fn is_held_back<S>(&self, connection: &Connection<S>) -> bool {
        self.flow.mode() != Mode::Full || connection.readiness.marks.any(Marks::PARKED)
    }

    /// A connection was read as far as it may be in this turn.
    pub(super) fn on_input_end<S>(
        &mut self,
        connection: &mut Connection<S>,
        end: InputEnd,
        now: Instant,
    ) {
        match end {
            InputEnd::Open => {}
            // Nothing can be delivered to it any more, or it was no member and nothing is due to it.
            InputEnd::Leaves(cause) if !connection.life.is_open() => {
                self.close(connection, cause.into());
            }
            InputEnd::Leaves(cause) => self.on_end(connection, cause, now),
            InputEnd::Over(reason) => self.close(connection, reason),
        }
        if connection.readiness.is_readable() {
            self.ready.read_again(connection.id());
        }
    }

    /// The connection's delivery of this turn differs from the others'.
    pub(super) fn adjust_delivery<S>(
        &mut self,
        connection: &mut Connection<S>,
        adjustment: Adjustment,
    ) {
        connection.readiness.marks.insert(Marks::HAS_ADJUSTMENT);
        self.adjustments.push((connection.id(), adjustment));
    }

    /// A message timer runs while a member is inside a message, from its first byte on.
    #[inline]
    pub(super) fn keep_message_timer<S>(
        &mut self,
        connection: &mut Connection<S>,
        has_completed: bool,
        now: Instant,
    ) {
        let is_running = connection.readiness.marks.any(Marks::MESSAGE_TIMER);
        if connection.is_inside_message() && connection.life.is_heard() {
            if has_completed || !is_running {
                self.start_message_timer(connection, self.limits.message_timeout, now);
            }
        } else if is_running {
            connection.readiness.marks.remove(Marks::MESSAGE_TIMER);
            self.timers.cancel(connection.id(), TimerKind::Message);
        }
    }

    fn start_message_timer<S>(
        &mut self,
        connection: &mut Connection<S>,
        wait: Duration,
        now: Instant,
    ) {
        let paused_before = self.flow.paused_time(connection.id(), now);
        connection.readiness.marks.insert(Marks::MESSAGE_TIMER);
        self.timers.set(
            connection.id(),
            Timer::Message { paused_before },
            after(now, wait),
        );
    }

    pub(super) fn start_idle_timer<S>(&mut self, connection: &Connection<S>, now: Instant) {
        if let Some(timeout) = self.limits.idle_timeout
            && connection.life.is_open()
            && connection.dialect().rules().sends.is_chat()
        {
            self.timers
                .set(connection.id(), Timer::Idle, after(now, timeout));
        }
    }

    // ---- A connection is written to.

    /// A lagging member's socket accepted `sent` bytes.
    pub(super) fn on_written<S>(
        &mut self,
        connection: &mut Connection<S>,
        sent: usize,
        now: Instant,
    ) {
        self.counters.writes += u64::from(sent > 0);
        self.counters.bytes_out += sent as u64;
        if connection.readiness.is_writable() {
            self.ready.flush_again(connection.id());
        }
        if connection.output.is_none() {
            self.on_caught_up(connection, now);
        } else if sent > 0 {
            self.on_lag_event(connection, LagEvent::Accepted(sent as u64), now);
        }
    }

    /// A member has no output pending any more.
    fn on_caught_up<S>(&mut self, connection: &mut Connection<S>, now: Instant) {
        let change = self.flow.on_no_lag(&connection.life, now);
        self.after_lag_change(connection, change, 0);
        if let Some(cause) = connection.life.drain_cause() {
            self.close(connection, cause.into());
        }
    }

    /// What a delivery came to, if it was not complete.
    pub(super) fn on_delivery<S>(
        &mut self,
        connection: &mut Connection<S>,
        delivery: Delivery,
        now: Instant,
    ) {
        match delivery {
            Delivery::Complete => {}
            Delivery::Failed(kind) if connection.life.is_pending() => {
                self.close(connection, CloseReason::Io(kind));
            }
            Delivery::Failed(kind) => self.on_write_failed(connection, kind, now),
            Delivery::Pending {
                is_over_threshold,
                has_room,
            } => {
                if has_room {
                    let readiness = &mut connection.readiness;
                    self.ready
                        .note(readiness, connection.life.id(), Ready::WRITABLE);
                }
                if is_over_threshold {
                    self.on_lag_event(connection, LagEvent::OverThreshold, now);
                }
            }
        }
    }

    /// Something happened to a lagging member: flow control decides what that means for the room and for
    /// the member.
    fn on_lag_event<S>(&mut self, connection: &mut Connection<S>, event: LagEvent, now: Instant) {
        let Some(output) = connection.output.as_deref_mut() else {
            return;
        };
        let (life, tracker) = (&connection.life, &mut output.tracker);
        let lag = output.cursor.lag(&self.channels[life.dialect()].backlog);
        let verdict = self.flow.on_lag_event(life, tracker, event, lag, now);
        self.after_lag_change(connection, verdict.pause, lag);
        if let Some(reason) = verdict.close {
            self.close(connection, reason);
        }
    }

    /// Keeps everything in step with the state of a member's lag: the lag timer, the member's own pause,
    /// the event.
    fn after_lag_change<S>(
        &mut self,
        connection: &mut Connection<S>,
        change: Option<PauseChange>,
        lag: u64,
    ) {
        if change.is_none() && !self.flow.is_restricting() {
            return;
        }
        let (id, dialect) = (connection.id(), connection.dialect());
        let output = connection.output.as_deref();
        let check = output.and_then(|output| self.flow.next_lag_check(dialect, &output.tracker));
        match check {
            Some(at) => self.timers.set(id, Timer::Lag, at),
            None => self.timers.cancel(id, TimerKind::Lag),
        }
        if !self.flow.is_self_paused(id) && self.flow.throttled_until(id).is_none() {
            self.ready.unpark(&mut connection.readiness, id);
        }
        match change {
            None => {}
            Some(PauseChange::Began) => {
                let reader = connection.identity();
                self.pause_to_publish = Some(true);
                self.counters.pauses += 1;
                self.events.push(RoomEvent::PauseBegan { reader, lag });
            }
            Some(PauseChange::Ended { lasted }) => {
                self.pause_to_publish = Some(false);
                self.counters.paused += lasted;
                self.events.push(RoomEvent::PauseEnded { lasted });
            }
        }
    }

    /// A connection cannot be written to any more. A member is read to the end of its input, and then it
    /// is over.
    pub(super) fn on_write_failed<S>(
        &mut self,
        connection: &mut Connection<S>,
        kind: ErrorKind,
        now: Instant,
    ) {
        self.drop_output(connection, now);
        connection.readiness.marks.insert(Marks::OUTPUT_LOST);
        connection.readiness.kernel.remove(Ready::WRITABLE);
        self.lifecycle.fail_write(&mut connection.life, kind);
        if connection.life.is_heard() {
            // A short read must not end the reading: the socket may never have another edge.
            let to_its_end = Ready::READABLE | Ready::READ_CLOSED;
            let readiness = &mut connection.readiness;
            let id = connection.life.id();
            self.ready.note(readiness, id, to_its_end);
            self.ready.unpark(readiness, id);
        }
    }

    /// Gives a connection's pending output up.
    pub(super) fn drop_output<S>(&mut self, connection: &mut Connection<S>, now: Instant) {
        if connection.output.is_some() {
            connection.readiness.marks.insert(Marks::OUTPUT_LOST);
            connection.drop_output(&mut self.channels[connection.dialect()]);
            let change = self.flow.on_no_lag(&connection.life, now);
            self.after_lag_change(connection, change, 0);
        }
    }

    // ---- A connection goes.

    /// A member has left: its input ended, it sent its farewell, or the relay stops. Its last messages
    /// are published already; it still receives this turn, and is closed when its output is delivered.
    pub(super) fn on_end<S>(
        &mut self,
        connection: &mut Connection<S>,
        cause: DrainCause,
        now: Instant,
    ) {
        let dialect = connection.dialect();
        self.lifecycle.drain(&mut connection.life, cause);
        self.channels[dialect].on_leave();
        self.timers.cancel(connection.id(), TimerKind::Idle);
        self.keep_message_timer(connection, false, now);
        if !connection.readiness.marks.any(Marks::HAS_ADJUSTMENT) {
            self.adjust_delivery(connection, Adjustment::NONE);
        }
        self.events.push(RoomEvent::Left {
            peer: connection.identity(),
            reason: cause.into(),
            members: self.lifecycle.members(),
            age: self.age(connection, now),
            unread: 0,
        });
    }

    /// A draining connection was delivered the turn in which it left. If output is pending, it has time
    /// to accept it; else it is closed.
    pub(super) fn finish_drain<S>(
        &mut self,
        connection: &mut Connection<S>,
        cause: DrainCause,
        now: Instant,
    ) {
        let channel = &self.channels[connection.dialect()];
        let pending = connection.pending_bytes(channel);
        let Some(output) = connection.output.as_deref_mut() else {
            return self.close(connection, cause.into());
        };
        // Nothing that is published from here on is for it.
        output.cursor.end_here(&channel.backlog);
        let due = after(now, self.limits.farewell_timeout);
        self.timers
            .set(connection.id(), Timer::Drain { pending }, due);
        self.on_lag_event(connection, LagEvent::Left, now);
    }

    /// A connection is over: it neither sends nor receives, and is removed at the end of the turn.
    pub(super) fn close<S>(&mut self, connection: &mut Connection<S>, reason: CloseReason) {
        self.lifecycle.close(&mut connection.life, reason);
    }

    // ---- A timer fires.

    pub(super) fn on_timer<S>(
        &mut self,
        connection: &mut Connection<S>,
        timer: Timer,
        now: Instant,
    ) {
        match timer {
            Timer::Name => {
                let late = (CloseReason::HandshakeTimeout, GRACE);
                self.close_if_late(connection, timer, late, now);
            }
            Timer::Idle => {
                // What a member sent that is held back is a sign of life, too.
                let timeout = self.limits.idle_timeout;
                let more = timeout.filter(|_| self.is_held_back(connection));
                let late = (CloseReason::IdleTimeout, more.unwrap_or(GRACE));
                self.close_if_late(connection, timer, late, now);
            }
            Timer::Message { paused_before } => {
                self.on_message_timer(connection, paused_before, now);
            }
            Timer::Drain { pending } => self.on_drain_timer(connection, pending, now),
            Timer::Lag => self.on_lag_event(connection, LagEvent::Timer, now),
            Timer::Throttle => {
                self.flow.end_throttle(connection.id(), now);
                self.ready
                    .unpark(&mut connection.readiness, connection.life.id());
            }
        }
    }

    /// Closes a connection that is late, unless it has sent something that was not read yet: it may be
    /// what is waited for. Then the connection gets this much more time.
    fn close_if_late<S>(
        &mut self,
        connection: &mut Connection<S>,
        timer: Timer,
        (reason, more): (CloseReason, Duration),
        now: Instant,
    ) {
        if connection.readiness.is_readable() {
            let due = self.when_read(connection.id(), after(now, more));
            self.timers.set(connection.id(), timer, due);
        } else {
            self.close(connection, reason);
        }
    }

    /// That time, or the end of a member's throttle if that is later.
    fn when_read(&self, id: ConnId, due: Instant) -> Instant {
        self.flow.throttled_until(id).unwrap_or(due).max(due)
    }

    /// A member has not completed its message. The time in which it was not read does not count.
    fn on_message_timer<S>(
        &mut self,
        connection: &mut Connection<S>,
        paused_before: Duration,
        now: Instant,
    ) {
        connection.readiness.marks.remove(Marks::MESSAGE_TIMER);
        let paused = self
            .flow
            .paused_time(connection.id(), now)
            .saturating_sub(paused_before);
        if paused.is_zero() && !connection.readiness.is_readable() {
            return self.close(connection, CloseReason::MessageTimeout);
        }
        let due = self.when_read(connection.id(), after(now, paused.max(GRACE)));
        let wait = due.saturating_duration_since(now);
        self.start_message_timer(connection, wait, now);
    }

    /// A draining connection should have accepted output. If it has, it has as much time again.
    fn on_drain_timer<S>(
        &mut self,
        connection: &mut Connection<S>,
        pending_before: u64,
        now: Instant,
    ) {
        let pending = connection.pending_bytes(&self.channels[connection.dialect()]);
        if pending < pending_before {
            let due = after(now, self.limits.farewell_timeout);
            self.timers
                .set(connection.id(), Timer::Drain { pending }, due);
        } else {
            self.close(connection, CloseReason::DrainTimeout { pending });
        }
    }

    // ---- Memory.

    /// How much memory is held for the connections, in bytes: published bytes that some member has not
    /// received, once however many members that are, history, the turn, incomplete messages, the cursors,
    /// and what the streams hold. The fixed size of an idle connection is not included.
    pub(super) fn held_bytes(&self) -> usize {
        self.channels.held_bytes() + self.flow.partial_bytes() + self.stream_bytes
    }

    /// How much memory an incomplete message of this connection takes, in bytes.
    pub(super) fn partial_bytes<S>(&self, connection: &Connection<S>) -> usize {
        let web_socket = if connection.readiness.marks.any(Marks::PARTIAL_MESSAGE) {
            self.partial_messages.get(&connection.id())
        } else {
            None
        };
        connection.decoder.held_bytes() + web_socket.map_or(0, WebSocketDecoder::held_bytes)
    }

    /// How much memory a connection holds of its own, in bytes.
    pub(super) fn own_bytes<S>(&self, connection: &Connection<S>) -> usize {
        let output = connection.output.as_deref().map(PendingOutput::held_bytes);
        self.partial_bytes(connection) + output.unwrap_or_default()
    }

    /// Frees the memory of a connection that will be removed.
    pub(super) fn free<S>(&mut self, connection: &mut Connection<S>, now: Instant) {
        self.drop_output(connection, now);
        self.flow.refund_partial(self.partial_bytes(connection));
        connection.decoder = Decoder::new();
        self.partial_messages.remove(&connection.id());
        self.known_names.remove(&connection.id());
    }
}
