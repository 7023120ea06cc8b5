//! The handlers: what happens when a connection joins, sends, leaves, lags or ends.
//!
//! [`Room`] is all of the relay but the connections themselves. Its handlers are given the connection
//! that they are about, so each of them can change that connection and everything shared, and no other
//! connection.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::channel::{Channels, JoinPoint, Reply, ReplyTexts};
use super::close_reason::CloseReason;
use super::conn_id::ConnId;
use super::connection::{Connection, Incoming, InputEnd, PendingOutput};
use super::delivery::{Delivery, Override, greet};
use super::events::{Counters, Identity, RoomEvent};
use super::flow::{FlowControl, InputKind, InputState, Mode, PauseChange, Permit, ReadBudget};
use super::lifecycle::{DrainCause, Lifecycle};
use super::limits::Limits;
use super::ready::{Marks, Ready, ReadyLists};
use super::timers::{Timer, TimerKind, Timers, after};
use crate::wire::{Decoder, Dialect};

/// Extra time for a connection whose timer fired while it had unread input.
const GRACE: Duration = Duration::from_millis(100);

/// Everything that connections share.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) limits: Limits,
    /// What the ages of connections are counted from.
    started: Instant,
    pub(super) channels: Channels,
    pub(super) lifecycle: Lifecycle,
    pub(super) flow: FlowControl,
    pub(super) ready: ReadyLists,
    pub(super) timers: Timers,
    /// The connections that took part in this turn, and how their deliveries differ.
    pub(super) overrides: Vec<(ConnId, Override)>,
    /// What happened since the events were drained last.
    pub(super) events: Vec<RoomEvent>,
    pub(super) counters: Counters,
}

/// What one connection sent in one turn, while it is being read.
#[derive(Debug)]
pub(super) struct Input {
    id: ConnId,
    dialect: Dialect,
    /// Where in the turn buffer the connection's own span begins.
    start: usize,
    /// The point of the turn at which it became a member, if it did.
    joined: Option<JoinPoint>,
    /// How many bytes were read.
    bytes: u64,
    /// How many frames were completed.
    frames: u32,
    /// How many bytes were published.
    published: usize,
    /// How many messages were relayed.
    messages: u32,
    /// How many messages are acknowledged.
    acks: u64,
    /// How many bytes it takes to deliver the messages to all members.
    cost: u64,
}

impl Room {
    pub(super) fn new(
        limits: Limits,
        served: &[Dialect],
        texts: &ReplyTexts,
        now: Instant,
    ) -> Self {
        Self {
            channels: Channels::new(&limits, served, texts),
            lifecycle: Lifecycle::new(limits.max_per_ip),
            flow: FlowControl::new(&limits),
            limits,
            started: now,
            ready: ReadyLists::default(),
            timers: Timers::default(),
            overrides: Vec::new(),
            events: Vec::new(),
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
    pub(super) fn on_accept<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        now: Instant,
    ) {
        self.counters.accepted += 1;
        self.events
            .push(RoomEvent::Accepted(identity(id, connection)));
        if connection.life.is_pending() {
            let due = after(now, self.limits.handshake_timeout);
            self.timers.set(id, Timer::Name, due);
            return;
        }
        let start = self.channels[connection.dialect].join_point();
        connection.messages_before = start.messages_before;
        let reply = greeting_of(connection.dialect);
        let limits = *self.flow.lag_limits(connection.dialect);
        let channel = &mut self.channels[connection.dialect];
        let has_output = greet(connection, channel, (reply, start.history), limits, now);
        if has_output {
            let readiness = &mut connection.readiness;
            self.ready.note(readiness, id, Ready::WRITABLE);
        }
        match connection.life.draining() {
            None => self.on_join(id, connection, now),
            Some(cause) if has_output => self.finish_drain(id, connection, cause, now),
            Some(cause) => self.close(id, connection, cause.into()),
        }
    }

    /// A connection has become a member.
    fn on_join<S>(&mut self, id: ConnId, connection: &Connection<S>, now: Instant) {
        debug_assert!(connection.life.is_open(), "a new member is open");
        self.channels[connection.dialect].members += 1;
        let members = self.lifecycle.members();
        self.counters.joined += 1;
        self.counters.peak_members = self.counters.peak_members.max(members.total());
        self.start_idle_timer(id, connection, now);
        if connection.is_hung_up() || connection.readiness.kernel.any(Ready::READ_CLOSED) {
            self.lifecycle.note_gone(id, &connection.life);
        }
        let member = identity(id, connection);
        self.events.push(RoomEvent::Joined { member, members });
    }

    // ---- A connection is read.

    /// Whether and how much this connection may be read now. If not, it has been put where it will be
    /// found again.
    pub(super) fn permit<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        now: Instant,
    ) -> Permit {
        let reader = Self::input_state(id, connection);
        let permit = self.flow.permit(&reader, self.channels.turn_len(), now);
        match permit {
            Permit::Read(_) => {}
            Permit::Hold => self.ready.hold(id),
            Permit::Park => ReadyLists::park(&mut connection.readiness),
            Permit::Throttle(until) => {
                ReadyLists::park(&mut connection.readiness);
                self.timers.set(id, Timer::Throttle, until);
                let member = identity(id, connection);
                let wait = until.saturating_duration_since(now);
                self.events.push(RoomEvent::Throttled { member, wait });
            }
        }
        permit
    }

    /// How much is read from a connection that is dismissed.
    pub(super) fn final_read<S>(&self, id: ConnId, connection: &Connection<S>) -> ReadBudget {
        self.flow.final_read(&Self::input_state(id, connection))
    }

    /// The state of a connection's input, for flow control.
    fn input_state<S>(id: ConnId, connection: &Connection<S>) -> InputState {
        let header_width = connection.dialect.rules().header_width;
        let life = &connection.life;
        let source = if header_width.is_none() || !(life.is_heard() || life.is_pending()) {
            InputKind::Ignored
        } else if life.is_pending() {
            InputKind::Name
        } else if connection.is_hung_up() || life.write_error().is_some() {
            InputKind::LastMessages
        } else {
            InputKind::Messages
        };
        let header_width = header_width.unwrap_or(1);
        InputState {
            id,
            source,
            missing: connection.decoder.missing(header_width),
            header_width,
            name_frame_len: life.name_frame().len(),
        }
    }

    /// Whether a member's input is not read for now: the room waits for a slow reader, or the member is
    /// throttled or paused itself. Otherwise its turn comes within a few turns.
    pub(super) fn is_held_back<S>(&self, connection: &Connection<S>) -> bool {
        self.flow.mode() != Mode::Full || connection.readiness.marks.any(Marks::PARKED)
    }

    /// How much more of a connection may be read in a round, in bytes.
    pub(super) fn rest_of_round<S>(
        connection: &Connection<S>,
        input: &Input,
        budget: ReadBudget,
    ) -> usize {
        let state = Self::input_state(input.id, connection);
        let so_far = (input.frames, input.published);
        state.rest_of_round(budget, input.bytes as usize, so_far)
    }

    /// A connection is about to be read.
    pub(super) fn begin_input<S>(&mut self, id: ConnId, connection: &Connection<S>) -> Input {
        debug_assert!(
            !connection.readiness.marks.any(Marks::HAS_OVERRIDE),
            "a connection is read once a turn, so that its own span is contiguous"
        );
        self.flow.refund_partial(connection.decoder.held_bytes());
        Input {
            id,
            dialect: connection.dialect,
            start: self.channels[connection.dialect].turn.len(),
            joined: None,
            bytes: 0,
            frames: 0,
            published: 0,
            messages: 0,
            acks: 0,
            cost: 0,
        }
    }

    /// These bytes were read.
    pub(super) fn on_bytes<S>(
        &mut self,
        connection: &mut Connection<S>,
        mut bytes: &[u8],
        input: &mut Input,
    ) -> Result<(), InputEnd> {
        input.bytes += bytes.len() as u64;
        loop {
            let incoming = connection.next_incoming(&mut bytes, &self.limits);
            let incoming =
                incoming.map_err(|error| InputEnd::Over(CloseReason::Protocol(error)))?;
            match incoming {
                None => return Ok(()),
                Some(Incoming::Message { name_frame, body }) => {
                    if self.channels[input.dialect].replies.farewell() == Some(body) {
                        return Err(self.on_farewell(name_frame, body, input));
                    }
                    self.on_message(name_frame, body, input);
                }
                Some(Incoming::Name(name)) => self.on_name(connection, &name, input),
                Some(Incoming::Ignored(len)) => self.on_ignored(connection, len)?,
            }
        }
    }

    /// A pending connection sent its name: it is a member now.
    fn on_name<S>(&mut self, connection: &mut Connection<S>, name: &[u8], input: &mut Input) {
        input.frames += 1;
        let point = self.channels[input.dialect].join_point();
        input.joined = Some(point);
        connection.messages_before = point.messages_before;
        self.timers.cancel(input.id, TimerKind::Name);
        self.lifecycle
            .join(input.id, &mut connection.life, input.dialect, name);
    }

    /// A member sent a message: it is published.
    #[inline]
    fn on_message(&mut self, name_frame: &[u8], body: &[u8], input: &mut Input) {
        input.frames += 1;
        input.acks += 1;
        input.messages += 1;
        let published = self.channels.publish(name_frame, body);
        input.published += published.len;
        input.cost += published.cost;
    }

    /// A member sent the farewell of its dialect: a message like any other, or for the relay alone, and
    /// the last one.
    fn on_farewell(&mut self, name_frame: &[u8], body: &[u8], input: &mut Input) -> InputEnd {
        let farewell = input.dialect.rules().farewell;
        if farewell.is_none_or(|farewell| farewell.is_relayed) {
            self.on_message(name_frame, body, input);
        } else {
            input.frames += 1;
            input.acks += 1;
        }
        InputEnd::Leaves(DrainCause::Farewell)
    }

    /// A peer sent bytes where input has no meaning. They are counted, and bounded.
    fn on_ignored<S>(&self, connection: &mut Connection<S>, len: usize) -> Result<(), InputEnd> {
        let life = &mut connection.life;
        life.count_sent(u32::try_from(len).unwrap_or(u32::MAX));
        let max = self.limits.max_message;
        if life.is_open() && (life.sent() as usize > max || life.sent() == u32::MAX) {
            return Err(InputEnd::Over(CloseReason::InputIgnored { max }));
        }
        Ok(())
    }

    /// A connection was read as far as it may be in this turn.
    pub(super) fn end_input<S>(
        &mut self,
        connection: &mut Connection<S>,
        input: &Input,
        end: InputEnd,
        now: Instant,
    ) {
        let id = input.id;
        self.flow.charge_partial(connection.decoder.held_bytes());
        self.counters.bytes_in += input.bytes;
        self.counters.messages += u64::from(input.messages);
        connection.life.count_sent(input.messages);
        if self.flow.is_restricting() {
            let names = input.frames as usize * connection.life.name_frame().len();
            self.flow.count_round(input.bytes as usize, names);
        }
        let own = self.own_override(input);
        if self.flow.has_quota() {
            // A member does not pay for its own span, which it is not sent.
            let own = if input.joined.is_some() {
                0
            } else {
                own.own.len()
            };
            let cost = input.cost.saturating_sub(own as u64);
            self.flow.charge_delivery(id, cost, now);
        }
        if input.joined.is_some() || !own.own.is_empty() || own.reply != Reply::Nothing {
            self.push_override(id, connection, own);
        }
        if input.joined.is_some() {
            self.on_join(id, connection, now);
        } else if input.bytes > 0 {
            self.start_idle_timer(id, connection, now);
        }
        self.keep_message_timer(id, connection, input.frames > 0, now);
        match end {
            InputEnd::Open => {}
            // Nothing can be delivered to it any more.
            InputEnd::Leaves(cause) if connection.life.write_error().is_some() => {
                self.close(id, connection, cause.into());
            }
            InputEnd::Leaves(cause) => self.on_end(id, connection, cause, now),
            InputEnd::Over(reason) => self.close(id, connection, reason),
        }
        if connection.readiness.is_readable() {
            self.ready.read_again(id);
        }
    }

    /// How a member's delivery of this turn differs from the others': its own span is left out, its
    /// messages are acknowledged, and a new member receives a greeting and the history.
    fn own_override(&self, input: &Input) -> Override {
        let channel = &self.channels[input.dialect];
        let has_ack = input.dialect.rules().ack.is_some();
        let acks = Reply::acks(if has_ack { input.acks } else { 0 });
        let Some(point) = input.joined else {
            return Override {
                own: input.start..channel.turn.len(),
                reply: acks,
                history: None,
            };
        };
        // Bytes published in this turn before the member joined are not delivered to it, unless they are
        // history.
        let history = point.history;
        let start = history.map_or(0, |_| point.turn_len);
        let greeting = greeting_of(input.dialect);
        Override {
            own: start..channel.turn.len(),
            reply: if greeting == Reply::Nothing {
                acks
            } else {
                greeting
            },
            history,
        }
    }

    fn push_override<S>(&mut self, id: ConnId, connection: &mut Connection<S>, over: Override) {
        connection.readiness.marks.insert(Marks::HAS_OVERRIDE);
        self.overrides.push((id, over));
    }

    /// A message timer runs while a member is inside a message, from its first byte on.
    #[inline]
    fn keep_message_timer<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        has_completed: bool,
        now: Instant,
    ) {
        let is_running = connection.readiness.marks.any(Marks::MESSAGE_TIMER);
        if connection.decoder.is_inside_frame() && connection.life.is_heard() {
            if has_completed || !is_running {
                self.start_message_timer(id, connection, self.limits.message_timeout, now);
            }
        } else if is_running {
            connection.readiness.marks.remove(Marks::MESSAGE_TIMER);
            self.timers.cancel(id, TimerKind::Message);
        }
    }

    fn start_message_timer<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        wait: Duration,
        now: Instant,
    ) {
        let paused_before = self.flow.paused_time(id, now);
        connection.readiness.marks.insert(Marks::MESSAGE_TIMER);
        self.timers
            .set(id, Timer::Message { paused_before }, after(now, wait));
    }

    fn start_idle_timer<S>(&mut self, id: ConnId, connection: &Connection<S>, now: Instant) {
        if let Some(timeout) = self.limits.idle_timeout
            && connection.life.is_open()
            && connection.dialect.rules().header_width.is_some()
        {
            self.timers.set(id, Timer::Idle, after(now, timeout));
        }
    }

    // ---- A connection is written to.

    /// A lagging member's socket accepted `sent` bytes.
    pub(super) fn on_written<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        sent: usize,
        now: Instant,
    ) {
        self.counters.writes += u64::from(sent > 0);
        self.counters.bytes_out += sent as u64;
        if connection.readiness.is_writable() {
            self.ready.flush_again(id);
        }
        let Some(output) = connection.output.as_deref_mut() else {
            return self.on_caught_up(id, connection, now);
        };
        if sent == 0 {
            return;
        }
        let dialect = connection.dialect;
        let lag = output.cursor.lag(&self.channels[dialect].backlog);
        let tracker = &mut output.tracker;
        let written = (sent as u64, lag);
        let (reason, change) = self.flow.on_written(id, dialect, tracker, written, now);
        self.after_lag_change(id, connection, change, lag);
        if let Some(reason) = reason {
            self.close(id, connection, reason);
        }
    }

    /// A member has no output pending any more.
    fn on_caught_up<S>(&mut self, id: ConnId, connection: &mut Connection<S>, now: Instant) {
        let change = self.flow.on_no_lag(id, connection.dialect, now);
        self.after_lag_change(id, connection, change, 0);
        if let Some(cause) = connection.life.draining() {
            self.close(id, connection, cause.into());
        }
    }

    /// What a delivery came to, if it was not complete.
    pub(super) fn on_delivery<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        delivery: Delivery,
        now: Instant,
    ) {
        match delivery {
            Delivery::Complete => {}
            Delivery::Failed(kind) => self.on_write_failed(id, connection, kind, now),
            Delivery::Pending {
                excess_lag,
                has_room,
            } => {
                if has_room {
                    let readiness = &mut connection.readiness;
                    self.ready.note(readiness, id, Ready::WRITABLE);
                }
                if let Some(lag) = excess_lag {
                    self.on_lag(id, connection, lag, now);
                }
            }
        }
    }

    /// A member's lag is over its threshold.
    fn on_lag<S>(&mut self, id: ConnId, connection: &mut Connection<S>, lag: u64, now: Instant) {
        let Some(output) = connection.output.as_deref_mut() else {
            return;
        };
        let (dialect, tracker) = (connection.dialect, &mut output.tracker);
        let (reason, change) = self.flow.on_lag(id, dialect, tracker, lag, now);
        self.after_lag_change(id, connection, change, lag);
        if let Some(reason) = reason {
            self.close(id, connection, reason);
        }
    }

    /// Keeps everything in step with the state of a member's lag: the lag timer, the member's own pause,
    /// the event.
    fn after_lag_change<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        change: Option<PauseChange>,
        lag: u64,
    ) {
        if change.is_none() && !self.flow.is_restricting() {
            return;
        }
        let output = connection.output.as_deref();
        let check = output.and_then(|output| {
            self.flow
                .next_lag_check(connection.dialect, &output.tracker)
        });
        match check {
            Some(at) => self.timers.set(id, Timer::Lag, at),
            None => self.timers.cancel(id, TimerKind::Lag),
        }
        if connection.readiness.marks.any(Marks::PARKED)
            && !self.flow.is_self_paused(id)
            && self.flow.throttled_until(id).is_none()
        {
            self.ready.unpark(&mut connection.readiness, id);
        }
        self.report_pause(change, || (identity(id, connection), lag));
    }

    fn report_pause(
        &mut self,
        change: Option<PauseChange>,
        reader: impl FnOnce() -> (Identity, u64),
    ) {
        match change {
            None => {}
            Some(PauseChange::Began) => {
                let (reader, lag) = reader();
                self.events.push(RoomEvent::PauseBegan { reader, lag });
            }
            Some(PauseChange::Ended { lasted }) => {
                self.events.push(RoomEvent::PauseEnded { lasted });
            }
        }
    }

    /// A connection cannot be written to any more. A member is read to the end of its input, and then it
    /// is over.
    pub(super) fn on_write_failed<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        kind: ErrorKind,
        now: Instant,
    ) {
        self.drop_output(id, connection, now);
        connection.readiness.kernel.remove(Ready::WRITABLE);
        self.lifecycle.fail_write(id, &mut connection.life, kind);
        if connection.life.is_heard() {
            // A short read must not end the reading: the socket may never have another edge.
            let to_its_end = Ready::READABLE | Ready::READ_CLOSED;
            let readiness = &mut connection.readiness;
            self.ready.note(readiness, id, to_its_end);
            self.ready.unpark(readiness, id);
        }
    }

    /// Gives a connection's pending output up.
    pub(super) fn drop_output<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        now: Instant,
    ) {
        if connection.output.is_some() {
            connection.drop_output(&mut self.channels[connection.dialect]);
            let change = self.flow.on_no_lag(id, connection.dialect, now);
            self.after_lag_change(id, connection, change, 0);
        }
    }

    // ---- A connection goes.

    /// A member has left: its input ended, it sent its farewell, or the relay stops. Its last messages
    /// are published already; it still receives this turn, and is closed when its output is delivered.
    pub(super) fn on_end<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        cause: DrainCause,
        now: Instant,
    ) {
        let dialect = connection.dialect;
        self.lifecycle
            .drain(id, &mut connection.life, dialect, cause);
        self.channels[dialect].on_leave();
        self.timers.cancel(id, TimerKind::Idle);
        self.keep_message_timer(id, connection, false, now);
        if !connection.readiness.marks.any(Marks::HAS_OVERRIDE) {
            self.push_override(id, connection, Override::NONE);
        }
        self.events.push(RoomEvent::Left {
            peer: identity(id, connection),
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
        id: ConnId,
        connection: &mut Connection<S>,
        cause: DrainCause,
        now: Instant,
    ) {
        let channel = &self.channels[connection.dialect];
        let pending = connection.pending_bytes(channel);
        let Some(output) = connection.output.as_deref_mut() else {
            return self.close(id, connection, cause.into());
        };
        // Nothing that is published from here on is for it.
        output.cursor.end_here(&channel.backlog);
        let lag = output.cursor.lag(&channel.backlog);
        output.tracker.on_drain(lag);
        let due = after(now, self.limits.farewell_timeout);
        self.timers.set(id, Timer::Drain { pending }, due);
    }

    /// A connection is over: it neither sends nor receives, and is removed at the end of the turn.
    pub(super) fn close<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        reason: CloseReason,
    ) {
        self.lifecycle.close(id, &mut connection.life, reason);
    }

    // ---- A timer fires.

    pub(super) fn on_timer<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        timer: Timer,
        now: Instant,
    ) {
        match timer {
            Timer::Name => {
                let late = (CloseReason::HandshakeTimeout, GRACE);
                self.close_if_late(id, connection, timer, late, now);
            }
            Timer::Idle => {
                // What a member sent that is held back is a sign of life, too.
                let timeout = self.limits.idle_timeout;
                let more = timeout.filter(|_| self.is_held_back(connection));
                let late = (CloseReason::IdleTimeout, more.unwrap_or(GRACE));
                self.close_if_late(id, connection, timer, late, now);
            }
            Timer::Message { paused_before } => {
                self.on_message_timer(id, connection, paused_before, now);
            }
            Timer::Drain { pending } => self.on_drain_timer(id, connection, pending, now),
            Timer::Lag => self.on_lag_timer(id, connection, now),
            Timer::Throttle => {
                self.flow.end_throttle(id, now);
                self.ready.unpark(&mut connection.readiness, id);
            }
        }
    }

    /// Closes a connection that is late, unless it has sent something that was not read yet: it may be
    /// what is waited for. Then the connection gets this much more time.
    fn close_if_late<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        timer: Timer,
        (reason, more): (CloseReason, Duration),
        now: Instant,
    ) {
        if connection.readiness.is_readable() {
            let due = self.when_read(id, after(now, more));
            self.timers.set(id, timer, due);
        } else {
            self.close(id, connection, reason);
        }
    }

    /// That time, or the end of a member's throttle if that is later.
    fn when_read(&self, id: ConnId, due: Instant) -> Instant {
        self.flow.throttled_until(id).unwrap_or(due).max(due)
    }

    /// A member has not completed its message. The time in which it was not read does not count.
    fn on_message_timer<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        paused_before: Duration,
        now: Instant,
    ) {
        connection.readiness.marks.remove(Marks::MESSAGE_TIMER);
        let paused = self.flow.paused_time(id, now).saturating_sub(paused_before);
        if paused.is_zero() && !connection.readiness.is_readable() {
            return self.close(id, connection, CloseReason::MessageTimeout);
        }
        let due = self.when_read(id, after(now, paused.max(GRACE)));
        let wait = due.saturating_duration_since(now);
        self.start_message_timer(id, connection, wait, now);
    }

    /// A draining connection should have accepted output. If it has, it has as much time again.
    fn on_drain_timer<S>(
        &mut self,
        id: ConnId,
        connection: &mut Connection<S>,
        pending_before: u64,
        now: Instant,
    ) {
        let pending = connection.pending_bytes(&self.channels[connection.dialect]);
        if pending < pending_before {
            let due = after(now, self.limits.farewell_timeout);
            self.timers.set(id, Timer::Drain { pending }, due);
        } else {
            self.close(id, connection, CloseReason::DrainTimeout { pending });
        }
    }

    /// A slow reader's socket should have accepted bytes.
    fn on_lag_timer<S>(&mut self, id: ConnId, connection: &mut Connection<S>, now: Instant) {
        let Some(output) = connection.output.as_deref_mut() else {
            return;
        };
        let dialect = connection.dialect;
        let lag = output.cursor.lag(&self.channels[dialect].backlog);
        let tracker = &mut output.tracker;
        let (reason, change) = self.flow.on_lag_timer(id, dialect, tracker, lag, now);
        self.after_lag_change(id, connection, change, lag);
        if let Some(reason) = reason {
            self.close(id, connection, reason);
        }
    }

    // ---- Memory.

    /// How much memory is held for the connections, in bytes: published bytes that some member has not
    /// received, once however many members that are, history, the turn, incomplete messages, and the
    /// cursors. The fixed size of an idle connection is
    /// not included.
    pub(super) fn held_bytes(&self) -> usize {
        self.channels.held_bytes() + self.flow.partial_bytes()
    }

    /// How much memory a connection holds of its own, in bytes.
    pub(super) fn own_bytes<S>(connection: &Connection<S>) -> u64 {
        let output = connection.output.as_deref();
        let output = output.map_or(0, PendingOutput::held_bytes);
        (connection.decoder.held_bytes() + output) as u64
    }

    /// Frees the memory of a connection that will be removed.
    pub(super) fn free<S>(&mut self, id: ConnId, connection: &mut Connection<S>, now: Instant) {
        self.drop_output(id, connection, now);
        self.flow.refund_partial(connection.decoder.held_bytes());
        connection.decoder = Decoder::new();
    }
}

/// A connection, as events name it.
pub(super) fn identity<S>(id: ConnId, connection: &Connection<S>) -> Identity {
    Identity {
        id,
        name: connection.life.name().map(Into::into),
        dialect: connection.dialect,
        peer: connection.peer.into(),
    }
}

/// The greeting of a dialect, if it has one.
fn greeting_of(dialect: Dialect) -> Reply {
    let greeting = dialect.rules().greeting;
    greeting.map_or(Reply::Nothing, |_| Reply::Greeting)
}
