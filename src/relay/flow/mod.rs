//! Flow control: which connection may be read now and how much, and which one is closed for its lag.
//!
//! Three limits hold input back, and this is the one door to them:
//!
//! - **Slow readers** (`lag.rs` has the policy and its table, `pause.rs` the room's side of it): while a
//!   member that reads is over the soft limit, members are read only in rounds, no faster than the
//!   minimum read rate.
//! - **The send quota** (`quota.rs`): a member that has the relay write more than its rate is throttled.
//! - **The turn's budget**: what is *published* in a turn is bounded. An empty message takes ten bytes to
//!   send and, under a name of 256 bytes, 276 to publish; so the size of a read is chosen such that what
//!   it can decode to fits the budget.

mod lag;
mod pause;
mod quota;
mod rate;

use std::time::{Duration, Instant};

use super::close_reason::CloseReason;
use super::conn_id::ConnId;
use super::lifecycle::Life;
use super::limits::Limits;
use crate::wire::{Dialect, header};
use lag::LagState;
pub(super) use lag::{LagEvent, LagLimits, LagTracker};
use pause::RoomPause;
pub(super) use pause::{Mode, PauseChange};
use quota::SendQuota;
pub(crate) use rate::Rate;

/// How much a member publishes in one round, in bytes, before the next member has its turn; a message
/// that is longer is read whole. A round of fifty members takes three seconds to a reader of 8 kB/s.
const ROUND_BUDGET: usize = 512;

/// The most that is read at once from a member with a send quota, in bytes: a large room makes a large
/// bill of it.
const CHARGED_READ: usize = 4096;

/// The share of the turn's budget below which no more input is read in the turn: reads of a few bytes
/// would cost more calls than they are worth.
const LAST_SHARE: usize = 16;

/// Whether a connection may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// It may be read.
    Read(ReadBudget),
    /// Not before the next round of the pause.
    Hold,
    /// Not before its own pause ends.
    Park,
    /// Not before its throttle ends, at this time.
    Throttle(Instant),
}

/// How much of a connection may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadBudget {
    /// How many bytes one read may return.
    pub(super) bytes: usize,
    /// In a round, how many bytes of one message may be read, however little they publish; elsewhere 0.
    pub(super) message_bytes: usize,
}

/// What the permit depends on, of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct InputState {
    pub(super) id: ConnId,
    pub(super) kind: InputKind,
    /// How many bytes are missing from the header or the payload that is being received.
    pub(super) missing: usize,
    /// The width of its headers, in bytes.
    pub(super) header_width: usize,
    /// The length of its name's frame, in bytes.
    pub(super) name_frame_len: usize,
    /// How many more bytes each of its messages takes for WebSocket members.
    pub(super) overhead: usize,
    /// How many more bytes each byte of its messages takes for them.
    pub(super) growth: usize,
}

/// What a connection's input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputKind {
    /// Input that has no effect: it is discarded.
    Ignored,
    /// A pending connection's name.
    Name,
    /// A member's messages.
    Messages,
    /// The last messages of a member whose peer is gone. Its throttle has no use: at most one socket
    /// buffer of input remains, and a throttle would only keep its place occupied.
    LastMessages,
}

/// What comes of a change of a member's lag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LagVerdict {
    /// Why the member is closed, if it is.
    pub(super) close: Option<CloseReason>,
    /// What that changes for the room.
    pub(super) pause: Option<PauseChange>,
}

/// The room's flow control.
#[derive(Debug)]
pub(super) struct FlowControl {
    lag_limits: [LagLimits; Dialect::COUNT],
    pause: RoomPause,
    quota: SendQuota,
    read_budget: usize,
    turn_budget: usize,
    /// The longest frame that a name can have, in bytes.
    longest_name_frame: usize,
    /// The memory of incomplete frames, in bytes.
    partial_bytes: usize,
    /// How many bytes the members have sent in this round, and will be published of it.
    round_bytes: usize,
}

impl FlowControl {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            lag_limits: Dialect::ALL.map(|dialect| LagLimits::new(limits, dialect)),
            pause: RoomPause::default(),
            quota: SendQuota::new(limits.rate),
            read_budget: limits.read_budget,
            turn_budget: limits.turn_budget,
            longest_name_frame: header::WIDTH + limits.max_name,
            partial_bytes: 0,
            round_bytes: 0,
        }
    }

    /// The limits of lag in this dialect.
    pub(super) const fn lag_limits(&self, dialect: Dialect) -> &LagLimits {
        &self.lag_limits[dialect.index()]
    }

    /// Whether members may be read now, if only in a round.
    pub(super) fn may_read_members(&self, now: Instant) -> bool {
        self.next_round().is_none_or(|due| due <= now)
    }

    /// When the next round of a pause is due; `None` if the room is not paused.
    pub(super) const fn next_round(&self) -> Option<Instant> {
        self.pause.next_round()
    }

    /// A member was read: this many bytes, and completed messages whose names take this many bytes. The sum
    /// of these over all rounds is what the rounds publish.
    pub(super) const fn count_round(&mut self, bytes: usize, names: usize) {
        self.round_bytes += bytes + names;
    }

    /// How many bytes may be published of what other relays' members said, when this many were published in the
    /// turn. Half of the turn is left for the members of this one.
    pub(super) fn bus_budget(&self, published: usize, now: Instant) -> usize {
        match self.pause.mode() {
            Mode::Full => self.turn_budget.saturating_sub(published) / 2,
            Mode::PacedRounds if !self.may_read_members(now) => 0,
            Mode::PacedRounds | Mode::Rounds => ROUND_BUDGET,
        }
    }

    /// The turn's reading is over. If that was a round of a pause, the next one is due later.
    pub(super) fn after_reading(&mut self, now: Instant) {
        let bytes = std::mem::take(&mut self.round_bytes);
        if bytes > 0 && self.may_read_members(now) {
            self.pause.end_round(bytes, now);
        }
    }

    /// How input is read at the moment.
    pub(super) fn mode(&self) -> Mode {
        self.pause.mode()
    }

    /// Whether any member is, or was, held back because of a slow reader. If not, no lag timer runs.
    #[inline]
    pub(super) fn is_restricting(&self) -> bool {
        self.pause.is_any()
    }

    /// Whether the turn has used its budget, when this many bytes were published in it.
    pub(super) const fn is_turn_full(&self, published: usize) -> bool {
        published + self.turn_budget / LAST_SHARE > self.turn_budget
    }

    /// Whether and how much a connection may be read now, when this many bytes were published in the
    /// turn.
    #[inline]
    pub(super) fn permit(&mut self, reader: &InputState, published: usize, now: Instant) -> Permit {
        if reader.kind == InputKind::Messages && !self.is_restricting() && !self.quota.is_limited()
        {
            let left = self.turn_budget.saturating_sub(published);
            return self.read(reader.input_for(left, reader.name_frame_len), reader);
        }
        self.restricted_permit(reader, published, now)
    }

    /// The permit where something holds input back, or where input is no message.
    fn restricted_permit(&mut self, reader: &InputState, published: usize, now: Instant) -> Permit {
        let mode = self.pause.mode();
        let left = self.turn_budget.saturating_sub(published);
        match reader.kind {
            InputKind::Ignored => return self.read(self.read_budget, reader),
            // The name and nothing more, or the first message would not wait for a round.
            InputKind::Name if mode != Mode::Full => return self.read(0, reader),
            InputKind::Name => {
                return self.read(reader.input_for(left, self.longest_name_frame), reader);
            }
            InputKind::Messages => {
                if self.pause.is_self_paused(reader.id) {
                    return Permit::Park;
                }
                if let Some(until) = self.quota.throttle(reader.id, now) {
                    return Permit::Throttle(until);
                }
            }
            InputKind::LastMessages => {}
        }
        let name = reader.name_frame_len;
        let round_bytes = reader.input_for(ROUND_BUDGET, name);
        match mode {
            Mode::PacedRounds if !self.may_read_members(now) => Permit::Hold,
            // A long message is read over several rounds, or the others would wait until a reader at the
            // minimum rate has received all of it.
            Mode::PacedRounds => Permit::Read(ReadBudget {
                bytes: reader
                    .missing
                    .min(ROUND_BUDGET)
                    .max(round_bytes)
                    .clamp(1, self.read_budget),
                message_bytes: ROUND_BUDGET,
            }),
            Mode::Rounds => Permit::Read(ReadBudget {
                message_bytes: usize::MAX,
                ..self.budget(round_bytes, reader)
            }),
            Mode::Full if self.quota.is_limited() => {
                self.read(reader.input_for(left, name).min(CHARGED_READ), reader)
            }
            Mode::Full => self.read(reader.input_for(left, name), reader),
        }
    }

    /// How much is read from a connection that must leave, whatever holds its input back: as much as a
    /// whole turn may publish of it.
    pub(super) fn final_read(&self, reader: &InputState) -> ReadBudget {
        let name = match reader.kind {
            InputKind::Ignored | InputKind::Name => self.longest_name_frame,
            InputKind::Messages | InputKind::LastMessages => reader.name_frame_len,
        };
        self.budget(reader.input_for(self.turn_budget, name), reader)
    }

    #[inline]
    fn read(&self, bytes: usize, reader: &InputState) -> Permit {
        Permit::Read(self.budget(bytes, reader))
    }

    /// A read of this many bytes. A header or a payload that has begun is read on, whatever the budget.
    #[inline]
    fn budget(&self, bytes: usize, reader: &InputState) -> ReadBudget {
        ReadBudget {
            bytes: bytes.max(reader.missing).clamp(1, self.read_budget),
            message_bytes: 0,
        }
    }

    /// The end of a member's throttle has come.
    pub(super) fn end_throttle(&mut self, id: ConnId, now: Instant) {
        self.quota.end_throttle(id, now);
    }

    /// When a throttled member may be read from again, if it is throttled.
    pub(super) fn throttled_until(&self, id: ConnId) -> Option<Instant> {
        self.quota.throttled_until(id)
    }

    /// How many members are throttled.
    pub(super) fn throttled(&self) -> usize {
        self.quota.throttled()
    }

    /// How long the present pause has lasted.
    pub(super) fn pause_so_far(&self, now: Instant) -> Duration {
        self.pause.so_far(now)
    }

    /// Whether members have a send quota.
    pub(super) const fn has_quota(&self) -> bool {
        self.quota.is_limited()
    }

    /// Lifts the send quota.
    pub(super) fn lift_quota(&mut self) {
        self.quota.lift();
    }

    /// Charges a member for the bytes that it has the relay write.
    pub(super) fn charge_delivery(&mut self, id: ConnId, delivery_cost: u64, now: Instant) {
        self.quota.charge(id, delivery_cost, now);
    }

    /// Something happened to a lagging member, whose lag is this now.
    pub(super) fn on_lag_event(
        &mut self,
        life: &Life,
        tracker: &mut LagTracker,
        event: LagEvent,
        lag: u64,
        now: Instant,
    ) -> LagVerdict {
        let limits = self.lag_limits[life.dialect().index()];
        let close = tracker.on_event(event, lag, &limits, now);
        let state = tracker.state();
        // Most writes go to members that merely fell behind, which are in no index.
        let pause = if self.is_restricting() || state.is_slow() {
            self.pause.file(life.id(), state, limits.pauses, now)
        } else {
            None
        };
        LagVerdict { close, pause }
    }

    /// A member has no pending output any more: it has caught up, or gives its output up.
    pub(super) fn on_no_lag(&mut self, life: &Life, now: Instant) -> Option<PauseChange> {
        if !self.is_restricting() {
            return None;
        }
        let pauses = self.lag_limits(life.dialect()).pauses;
        self.pause.file(life.id(), LagState::Keeping, pauses, now)
    }

    /// When a slow reader must be looked at again, if nothing happens.
    pub(super) fn next_lag_check(&self, dialect: Dialect, tracker: &LagTracker) -> Option<Instant> {
        tracker.next_check(self.lag_limits(dialect))
    }

    /// How long the relay has not read from this connection, in all: the room was paused, or the member
    /// was, or it was throttled.
    pub(super) fn paused_time(&self, id: ConnId, now: Instant) -> Duration {
        self.pause.paused_time(id, now) + self.quota.throttled_time(id, now)
    }

    /// Whether this member is paused itself.
    pub(super) fn is_self_paused(&self, id: ConnId) -> bool {
        self.pause.is_self_paused(id)
    }

    /// Forgets a connection that ended.
    pub(super) fn remove(&mut self, id: ConnId) {
        self.quota.remove(id);
        self.pause.remove(id);
    }

    /// An incomplete frame takes this much memory, in bytes.
    pub(super) const fn charge_partial(&mut self, bytes: usize) {
        self.partial_bytes += bytes;
    }

    /// An incomplete frame gives this much memory back, in bytes.
    pub(super) const fn refund_partial(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.partial_bytes, "what is refunded was charged");
        self.partial_bytes -= bytes;
    }

    /// The memory of incomplete frames, in bytes.
    pub(super) const fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// Checks what must hold between turns, of the member with this tracker.
    pub(super) fn check(&self, life: &Life, tracker: Option<&LagTracker>) {
        let pauses = self.lag_limits(life.dialect()).pauses;
        self.pause
            .check(life.id(), tracker.map(LagTracker::state), pauses);
    }

    /// Checks that nothing is kept of other connections than these; returns how many slow readers there
    /// are.
    pub(super) fn check_members(&self, is_connection: impl Fn(ConnId) -> bool) -> usize {
        debug_assert!(
            self.quota.members().all(is_connection),
            "accounts are removed"
        );
        self.pause.slow_readers()
    }
}

impl InputState {
    /// How many more bytes of a member may be read in a round: the rest of its share, or of one message.
    /// `read` bytes were read in the round, and these frames completed and bytes published.
    pub(super) fn rest_of_round(
        &self,
        budget: ReadBudget,
        read: usize,
        (frames, published): (u32, usize),
    ) -> usize {
        if frames == 0 {
            let message_bytes = budget.message_bytes.saturating_sub(read);
            return self.missing.max(1).min(message_bytes);
        }
        self.input_for(ROUND_BUDGET.saturating_sub(published), self.name_frame_len)
    }

    /// How much input can be read such that no more than `published` bytes are published, in bytes, under
    /// a name whose frame is this long.
    ///
    /// The worst case of a channel of frames is a stream of empty messages: each takes a header, and is
    /// published as the name's frame and a header. Where the input's headers are longer than that, it is a
    /// stream of long messages. A channel of bare payloads never publishes more than the input. In channels
    /// for WebSocket members a long message may be nothing but escapes.
    fn input_for(&self, published: usize, name_frame_len: usize) -> usize {
        let as_frames = (name_frame_len + header::WIDTH).max(self.header_width);
        let worst = as_frames + self.header_width + self.overhead;
        let as_long_messages = published / (1 + self.growth);
        as_long_messages.min(published.saturating_mul(self.header_width) / worst)
    }
}

#[cfg(test)]
mod tests {
    use super::super::lifecycle::Lifecycle;
    use super::*;
    use crate::wire::Pauses;
    use std::net::SocketAddr;

    const ID: ConnId = ConnId::new(1, 1);
    const OTHER: ConnId = ConnId::new(2, 2);
    const NOTHING: LagVerdict = LagVerdict {
        close: None,
        pause: None,
    };

    fn reader(kind: InputKind) -> InputState {
        InputState {
            id: ID,
            kind,
            missing: 10,
            header_width: 10,
            name_frame_len: 15,
            overhead: 0,
            growth: 0,
        }
    }

    fn read(bytes: usize, message_bytes: usize) -> Permit {
        Permit::Read(ReadBudget {
            bytes,
            message_bytes,
        })
    }

    fn life(id: ConnId, dialect: Dialect) -> Life {
        let peer = SocketAddr::from(([192, 0, 2, 1], 4001));
        Lifecycle::new(None).accept(id, peer.into(), dialect, None)
    }

    /// A slow reader over the limit.
    fn pause(flow: &mut FlowControl, now: Instant) -> (Life, LagTracker) {
        let slow = life(OTHER, Dialect::Chat10);
        let mut tracker = LagTracker::new(flow.lag_limits(Dialect::Chat10), now);
        let (event, lag) = (LagEvent::OverThreshold, 9 << 20);
        let verdict = flow.on_lag_event(&slow, &mut tracker, event, lag, now);
        let pause = Some(PauseChange::Began);
        assert_eq!(verdict, LagVerdict { close: None, pause });
        (slow, tracker)
    }

    #[test]
    fn read_is_no_larger_than_what_may_be_published_of_it() {
        let now = Instant::now();
        let mut flow = FlowControl::new(&Limits::default());
        let mut long_name = reader(InputKind::Messages);
        long_name.name_frame_len = 266;
        // Each ten bytes of empty messages are published as 276, and perhaps as payloads.
        let bytes = 256 * 1024 * 10 / 286;
        assert_eq!(flow.permit(&long_name, 0, now), read(bytes, 0));
        let half = 128 * 1024;
        assert_eq!(flow.permit(&long_name, half, now), read(bytes / 2, 0));
        // Each long message with a wide header is published by two channels.
        let mut wide = reader(InputKind::Messages);
        (wide.header_width, wide.name_frame_len) = (64, 25);
        let wide_read = flow.permit(&wide, 200 * 1024, now);
        assert_eq!(wide_read, read(28 * 1024, 0));
        // A frame that has begun is read on, whatever the budget.
        long_name.missing = 30_000;
        assert_eq!(flow.permit(&long_name, half, now), read(30_000, 0));
        // A pending connection may have the longest name, and messages behind it.
        assert_eq!(
            flow.permit(&reader(InputKind::Name), 0, now),
            read(bytes, 0)
        );
        let ignored = flow.permit(&reader(InputKind::Ignored), half, now);
        assert_eq!(ignored, read(64 * 1024, 0));
    }

    #[test]
    fn turn_is_full_when_a_last_share_is_left() {
        let flow = FlowControl::new(&Limits::default());
        assert!(!flow.is_turn_full(0) && !flow.is_turn_full(240 * 1024));
        assert!(flow.is_turn_full(240 * 1024 + 1) && flow.is_turn_full(9 << 20));
    }

    #[test]
    fn paused_room_reads_names_and_ignored_input_and_messages_only_in_rounds() {
        let now = Instant::now();
        let mut flow = FlowControl::new(&Limits::default());
        pause(&mut flow, now);
        assert_eq!(flow.mode(), Mode::PacedRounds);
        for kind in [InputKind::Messages, InputKind::LastMessages] {
            assert_eq!(flow.permit(&reader(kind), 0, now), Permit::Hold);
        }
        assert_eq!(flow.permit(&reader(InputKind::Name), 0, now), read(10, 0));
        let ignored = flow.permit(&reader(InputKind::Ignored), 0, now);
        assert_eq!(ignored, read(64 * 1024, 0));
        // Until a round is due.
        let due = flow.next_round().unwrap();
        let round = flow.permit(&reader(InputKind::Messages), 0, due);
        assert_eq!(round, read(512 * 10 / 35, 512));
        flow.count_round(500, 100);
        flow.after_reading(due);
        assert!(flow.next_round().unwrap() > due);
        assert_eq!(
            flow.permit(&reader(InputKind::Messages), 0, due),
            Permit::Hold
        );
    }

    #[test]
    fn rounds_read_a_message_or_half_a_kilobyte() {
        let now = Instant::now();
        let mut flow = FlowControl::new(&Limits::default());
        let (slow, mut tracker) = pause(&mut flow, now);
        let (event, lag) = (LagEvent::Accepted(1), 1 << 20);
        let verdict = flow.on_lag_event(&slow, &mut tracker, event, lag, now);
        assert_eq!((verdict, flow.mode()), (NOTHING, Mode::Rounds));
        let member = reader(InputKind::Messages);
        assert_eq!(
            flow.permit(&member, 0, now),
            read(512 * 10 / 35, usize::MAX)
        );
        let in_long_message = InputState {
            missing: 9000,
            ..member
        };
        assert_eq!(
            flow.permit(&in_long_message, 0, now),
            read(9000, usize::MAX)
        );
        let change = flow.on_no_lag(&slow, now);
        let lasted = Duration::ZERO;
        assert_eq!(change, Some(PauseChange::Ended { lasted }));
        assert_eq!(flow.mode(), Mode::Full);
    }

    #[test]
    fn member_over_its_quota_is_throttled_unless_its_peer_is_gone() {
        let now = Instant::now();
        let limits = Limits {
            rate: Some(1000),
            ..Limits::default()
        };
        let mut flow = FlowControl::new(&limits);
        let member = reader(InputKind::Messages);
        assert_eq!(flow.permit(&member, 0, now), read(CHARGED_READ, 0));
        flow.charge_delivery(ID, 3000, now);
        let until = now + Duration::from_secs(2);
        assert_eq!(flow.permit(&member, 0, now), Permit::Throttle(until));
        let last = flow.permit(&reader(InputKind::LastMessages), 0, now);
        assert_eq!(last, read(CHARGED_READ, 0));
        assert_eq!(flow.paused_time(ID, until), until - now);
        flow.end_throttle(ID, until);
        assert_eq!(flow.permit(&member, 0, until), read(CHARGED_READ, 0));
    }

    #[test]
    fn member_that_does_not_read_its_replies_is_parked() {
        let now = Instant::now();
        let mut flow = FlowControl::new(&Limits::default());
        let mut tracker = LagTracker::new(flow.lag_limits(Dialect::Ack64), now);
        let asker = life(ID, Dialect::Ack64);
        let (event, lag) = (LagEvent::OverThreshold, 9 << 20);
        let verdict = flow.on_lag_event(&asker, &mut tracker, event, lag, now);
        assert_eq!(verdict, NOTHING);
        assert_eq!(
            flow.permit(&reader(InputKind::Messages), 0, now),
            Permit::Park
        );
        assert_eq!(flow.mode(), Mode::Full, "no other member waits");
        assert_eq!(flow.on_no_lag(&asker, now), None);
        assert!(matches!(
            flow.permit(&reader(InputKind::Messages), 0, now),
            Permit::Read(_)
        ));
        assert_eq!(flow.lag_limits(Dialect::Ack64).pauses, Pauses::Itself);
    }
}
