//! The delivery checker for members that come and go. It does no I/O.
//!
//! The [checker](super::super::checker) for members that stay is fast. Here members are replaced
//! all the time, and the question is another one: does every member receive, of each sender,
//! exactly the same messages, in order, whole and once, from its joining to its leaving?
//!
//! - **From its joining.** The protocol has no sign that a member was taken in, but the first
//!   message that it receives shows it. Every message that is sent from then on must arrive. Of
//!   the messages that were under way at that time it may receive the last ones: some message, and
//!   then each after it.
//! - **To its leaving.** The last messages of a sender that leaves by a reset may not have reached
//!   the server. So they are delivered up to some message, and all present members must agree on
//!   which. The messages of a sender that left in order are all delivered.
//!
//! Whether all agree is judged some time after the last delivery of a sender that has left, if
//! that was its last message, and then the sender is forgotten. If some of its messages were not
//! delivered to any member, they may still be queued in the server, so the sender is judged at the
//! end. The memory that this takes depends on the number of members and of senders that left
//! undelivered messages, not on the duration.
//!
//! Why two checkers: a member that joins while messages are under way has a position of its own for
//! each sender, and whether a delivery is due depends on what other members have received. So what
//! is outstanding is counted for each sender and receiver when it is needed. The other checker
//! knows it after every message, for a million receivers that share one position list.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use slab::Slab;

use super::super::judge::{Position, Progress, Tally};
use super::super::message::{Codec, MessageId};
use super::super::protocol::{Garbled, Incoming, Role};

/// A sender that has left is judged when no member has received anything of it for this long. It
/// is longer than any pause of a member whose deliveries are required.
const SETTLE_TIME: Duration = Duration::from_secs(15);

/// A `Checker` compares the messages that the members of a soak receive with those that were sent.
#[derive(Debug, Default)]
pub(super) struct Checker {
    codec: Codec,
    /// The present members, and those that have left and are not judged yet.
    members: Slab<Member>,
    /// The key of the member with this number.
    known: HashMap<u32, usize>,
    /// The number of members so far, which is the number of the next one.
    pub(super) joins: u32,
    /// The members that have left and are not judged yet, in the order in which they are checked.
    left: VecDeque<Left>,
    pub(super) tally: Tally,
    /// The number of messages that were sent.
    pub(super) sent: u64,
    /// The number of bytes that were received.
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Member {
    number: u32,
    /// The number of its messages.
    sent: u32,
    /// The number of its messages up to the last one that any member has received.
    received: u32,
    /// The number of deliveries of its messages.
    deliveries: u64,
    /// Whether it has left by a reset, so that its messages up to the last one that any member has
    /// received are due, and not all that it has sent.
    was_reset: bool,
    /// `None` if it has left.
    receiver: Option<Receiver>,
}

/// A member that has left, and when it was checked last.
#[derive(Clone, Copy, Debug)]
struct Left {
    member: usize,
    at: Duration,
    /// The number of its deliveries at that time.
    deliveries: u64,
}

#[derive(Debug, Default)]
struct Receiver {
    /// Whether it has received anything, and so is known to be a member.
    is_present: bool,
    /// Whether it may lag by any time.
    is_excused: bool,
    progress: Progress,
}

impl Member {
    /// The number of its messages that all members must receive that joined in time.
    const fn due(&self) -> u32 {
        if self.was_reset {
            self.received
        } else {
            self.sent
        }
    }

    /// Its next message.
    const fn next(&self) -> MessageId {
        MessageId {
            sender: self.number,
            seq: self.sent,
        }
    }
}

impl Checker {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            codec,
            ..Self::default()
        }
    }

    /// Adds a member: the bytes that it sends first are appended to `out`. Returns its key.
    pub(super) fn join(&mut self, out: &mut Vec<u8>) -> usize {
        let number = self.joins;
        self.joins += 1;
        let Codec { protocol, tag, .. } = &self.codec;
        protocol.join(Role::Member(number), tag, out);
        let key = self.members.insert(Member {
            number,
            sent: 0,
            received: 0,
            deliveries: 0,
            was_reset: false,
            receiver: Some(Receiver::default()),
        });
        self.known.insert(number, key);
        let capacity = self.members.capacity();
        // The key may have belonged to another member.
        for receiver in self.receivers() {
            let positions = &mut receiver.progress.positions;
            positions.resize(capacity, Position::UNKNOWN);
            positions[key] = if receiver.is_present {
                Position::at(0)
            } else {
                Position::UNKNOWN
            };
        }
        key
    }

    fn receivers(&mut self) -> impl Iterator<Item = &mut Receiver> {
        let members = self.members.iter_mut();
        members.filter_map(|(_, member)| member.receiver.as_mut())
    }

    /// Appends a member's next message to `out`.
    pub(super) fn queue(&mut self, key: usize, out: &mut Vec<u8>) {
        let member = &mut self.members[key];
        self.codec.write(member.next(), out);
        member.sent += 1;
        self.sent += 1;
    }

    /// Appends the first half of a member's next message to `out`. The rest is never sent, so no
    /// member may receive any of it.
    pub(super) fn queue_half(&mut self, key: usize, out: &mut Vec<u8>) {
        let from = out.len();
        self.codec.write(self.members[key].next(), out);
        let half = (out.len() - from) / 2;
        out.truncate(from + half);
    }

    /// Excuses a member from receiving messages in time, since it does not read as it should.
    pub(super) fn excuse(&mut self, key: usize) {
        if let Some(receiver) = &mut self.members[key].receiver {
            receiver.is_excused = true;
        }
    }

    /// Removes a member that left at `now`. If it left `in_order`, all of its messages must be
    /// delivered.
    pub(super) fn leave(&mut self, key: usize, in_order: bool, now: Duration) {
        let member = &mut self.members[key];
        member.receiver = None;
        member.was_reset = !in_order;
        self.check_again(key, now);
    }

    /// Schedules the judgement of a member that has left: when no member has received anything of
    /// it since `now`.
    fn check_again(&mut self, member: usize, now: Duration) {
        self.left.push_back(Left {
            member,
            at: now,
            deliveries: self.members[member].deliveries,
        });
    }

    /// Counts bytes that arrived at a connection that is no member.
    pub(super) const fn count_leak(&mut self) {
        self.tally.corrupt += 1;
    }

    /// Whether a member has received anything since it joined.
    pub(super) fn is_present(&self, key: usize) -> bool {
        let receiver = self.members[key].receiver.as_ref();
        receiver.is_some_and(|receiver| receiver.is_present)
    }

    /// Whether all messages of a member were delivered to at least one member, or there is none
    /// left that must receive them: those that were present may all have left without reading.
    pub(super) fn is_delivered(&self, key: usize) -> bool {
        let member = &self.members[key];
        member.received == member.sent || self.owed_of(key) == 0
    }

    /// Checks the bytes that a member received. Returns how many of them were used: all but an
    /// incomplete message at the end.
    ///
    /// # Errors
    ///
    /// If they are not in the protocol. Nothing after them can be read.
    pub(super) fn check(&mut self, key: usize, input: &[u8]) -> Result<usize, Garbled> {
        let mut used = 0;
        while let Some((incoming, len)) = self.codec.protocol.next(&input[used..])? {
            used += len;
            if let Incoming::Message { name, payload } = incoming {
                self.take(key, name, payload);
            }
        }
        self.bytes += used as u64;
        Ok(used)
    }

    fn take(&mut self, key: usize, name: Option<&[u8]>, payload: &[u8]) {
        let identified = self.tally.identify(&self.codec, name, payload);
        let Some((id, is_whole)) = identified else {
            return;
        };
        if !self.is_present(key) {
            self.become_present(key);
        }
        let Some(&sender) = self.known.get(&id.sender) else {
            let member = &self.members[key];
            let is_excused = member.receiver.as_ref().is_none_or(|it| it.is_excused);
            if id.sender >= self.joins {
                self.tally.corrupt += 1;
            } else if id.sender > member.number && !is_excused {
                // Its sender has joined, left and been judged since this member joined. The
                // messages of senders that were there before may be a history that a server sends
                // to new members.
                self.tally.out_of_order += 1;
            }
            return;
        };
        let is_due = sender != key && id.seq < self.members[sender].sent;
        if !is_due || !is_whole {
            self.tally.corrupt += 1;
        }
        if is_due
            && let Some((sending, receiving)) = self.members.get2_mut(sender, key)
            && let Some(receiver) = &mut receiving.receiver
        {
            sending.received = sending.received.max(id.seq + 1);
            sending.deliveries += 1;
            receiver.progress.judge(sender, id, &mut self.tally);
        }
    }

    /// Marks a receiver as present: every message that is sent from now on must arrive.
    fn become_present(&mut self, key: usize) {
        let sent: Vec<_> = self
            .members
            .iter()
            .map(|(key, it)| (key, it.sent))
            .collect();
        if let Some(receiver) = &mut self.members[key].receiver {
            receiver.is_present = true;
            for (sender, sent) in sent {
                receiver.progress.positions[sender].next = sent;
            }
        }
    }

    /// Judges the senders that have left, if all of their messages were delivered and the last of
    /// them some time ago. A present member that has not received as many of them as others has
    /// lost the rest. At `now`, all members have read what had arrived.
    pub(super) fn settle(&mut self, now: Duration) {
        while let Some(&left) = self.left.front()
            && left.at + SETTLE_TIME <= now
        {
            self.left.pop_front();
            let member = &self.members[left.member];
            if member.received < member.sent || member.deliveries != left.deliveries {
                self.check_again(left.member, now);
                continue;
            }
            self.tally.lost += self.owed_of(left.member);
            let number = self.members.remove(left.member).number;
            self.known.remove(&number);
            for receiver in self.receivers() {
                let missing = &mut receiver.progress.missing;
                missing.retain(|id| id.sender != number);
            }
        }
    }

    /// The number of deliveries that have not arrived.
    pub(super) fn outstanding(&self) -> u64 {
        self.members.iter().map(|(key, _)| self.owed_of(key)).sum()
    }

    /// The number of deliveries of this sender's messages that have not arrived.
    fn owed_of(&self, sender: usize) -> u64 {
        let due = self.members[sender].due();
        let others = self.members.iter().filter(|&(key, _)| key != sender);
        others
            .filter_map(|(_, member)| member.receiver.as_ref())
            .filter(|receiver| receiver.is_present && !receiver.is_excused)
            .map(|it| u64::from(due.saturating_sub(it.progress.positions[sender].next)))
            .sum()
    }

    /// Counts the deliveries that have not arrived as lost.
    pub(super) fn give_up(&mut self) {
        self.tally.lost += self.outstanding();
        let due: Vec<_> = self
            .members
            .iter()
            .map(|(key, it)| (key, it.due()))
            .collect();
        for receiver in self.receivers() {
            for &(sender, due) in &due {
                let position = &mut receiver.progress.positions[sender];
                if position.next < due {
                    position.from = position.from.min(position.next);
                    position.next = due;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::judge::MAX_MISSING;
    use super::super::super::protocol::{Protocol, name_of};
    use super::*;
    use crate::wire::{Decoder, encode_frame};

    /// A room that relays as it should, until a test has it do otherwise.
    struct Room {
        checker: Checker,
        members: Vec<usize>,
    }

    /// One message as others are sent it.
    #[derive(Clone)]
    struct Message(Vec<u8>);

    fn codec() -> Codec {
        Codec::of_soak(Protocol::Chat10, "tag", 1)
    }

    impl Room {
        fn new(members: usize) -> Self {
            let mut room = Self {
                checker: Checker::new(codec()),
                members: Vec::new(),
            };
            for _ in 0..members {
                room.join();
            }
            // All members receive a message, and so are present.
            for sender in 0..2 {
                let sent = room.queue(sender);
                room.send_to_all(sender, &sent);
            }
            assert_eq!(room.counts(), [0; 4]);
            room
        }

        fn join(&mut self) -> usize {
            self.members.push(self.checker.join(&mut Vec::new()));
            self.members.len() - 1
        }

        fn queue(&mut self, sender: usize) -> Message {
            let mut frame = Vec::new();
            self.checker.queue(self.members[sender], &mut frame);
            let mut relayed = Vec::new();
            encode_frame(name_of(sender as u32, "tag").as_bytes(), &mut relayed);
            relayed.extend(frame);
            Message(relayed)
        }

        fn deliver(&mut self, receiver: usize, sent: &Message) {
            let taken = self.checker.check(self.members[receiver], &sent.0);
            assert_eq!(taken, Ok(sent.0.len()));
        }

        fn send_to_all(&mut self, sender: usize, sent: &Message) {
            for receiver in (0..self.members.len()).filter(|&receiver| receiver != sender) {
                self.deliver(receiver, sent);
            }
        }

        fn leave(&mut self, member: usize, in_order: bool) {
            self.checker
                .leave(self.members[member], in_order, Duration::ZERO);
        }

        fn progress(&self, member: usize) -> &Progress {
            let member = &self.checker.members[self.members[member]];
            &member.receiver.as_ref().unwrap().progress
        }

        /// Lost, duplicated, out of order, altered.
        fn counts(&self) -> [u64; 4] {
            let tally = self.checker.tally;
            [
                tally.lost,
                tally.duplicated,
                tally.out_of_order,
                tally.corrupt,
            ]
        }

        #[track_caller]
        fn assert_judged(&mut self, counts: [u64; 4]) {
            // Their messages may have arrived since they left.
            self.checker.settle(SETTLE_TIME);
            self.checker.settle(2 * SETTLE_TIME);
            self.checker.give_up();
            assert_eq!(self.counts(), counts);
            assert_eq!(self.checker.outstanding(), 0);
        }
    }

    #[test]
    fn messages_received_once_and_in_order_have_no_fault_however_they_are_cut() {
        let mut room = Room::new(3);
        let sent = [room.queue(0), room.queue(1), room.queue(0)];
        room.deliver(1, &sent[0]);
        room.deliver(1, &sent[2]);
        // Only a sender's own order is promised.
        room.deliver(0, &sent[1]);
        let stream = [&sent[1].0[..], &sent[0].0, &sent[2].0].concat();
        let mut kept: Vec<u8> = Vec::new();
        for byte in stream {
            kept.push(byte);
            let taken = room.checker.check(room.members[2], &kept).unwrap();
            kept.drain(..taken);
        }
        assert!(kept.is_empty());
        assert_eq!(room.checker.outstanding(), 0);
        room.assert_judged([0; 4]);
        // Two for each of the first two messages, and two for each of these three.
        assert_eq!(room.checker.tally.deliveries, 10);
        assert_eq!(room.checker.sent, 5);
    }

    #[test]
    fn missing_message_is_lost_when_a_later_one_arrives() {
        let mut room = Room::new(3);
        let sent = [room.queue(0), room.queue(0)];
        room.deliver(1, &sent[0]);
        room.deliver(1, &sent[1]);
        room.deliver(2, &sent[1]);
        assert_eq!(room.counts(), [1, 0, 0, 0]);
        room.assert_judged([1, 0, 0, 0]);
    }

    #[test]
    fn missing_last_message_is_lost_at_the_end() {
        let mut room = Room::new(3);
        let sent = room.queue(0);
        room.deliver(1, &sent);
        assert_eq!(room.checker.outstanding(), 1);
        room.assert_judged([1, 0, 0, 0]);
    }

    #[test]
    fn message_that_arrives_twice_is_duplicated() {
        let mut room = Room::new(3);
        let sent = room.queue(0);
        room.send_to_all(0, &sent);
        room.deliver(2, &sent);
        room.assert_judged([0, 1, 0, 0]);
    }

    #[test]
    fn two_messages_in_another_order_are_out_of_order_and_not_lost() {
        let mut room = Room::new(3);
        let sent = [room.queue(0), room.queue(0)];
        for at in [0, 1] {
            room.deliver(1, &sent[at]);
            room.deliver(2, &sent[1 - at]);
        }
        room.assert_judged([0, 0, 1, 0]);
    }

    #[test]
    fn message_with_another_byte_is_altered_and_not_lost() {
        let mut room = Room::new(3);
        let mut sent = room.queue(0);
        room.deliver(1, &sent);
        // Behind two headers, the name and the head.
        let last = sent.0.len() - 1;
        assert!(last > 50, "there is something to alter");
        sent.0[last] ^= 1;
        room.deliver(2, &sent);
        room.assert_judged([0, 0, 0, 1]);
    }

    #[test]
    fn message_that_its_own_sender_receives_is_altered() {
        let mut room = Room::new(3);
        let sent = room.queue(0);
        room.send_to_all(0, &sent);
        room.deliver(0, &sent);
        room.assert_judged([0, 0, 0, 1]);
    }

    #[test]
    fn message_under_another_name_or_never_sent_is_altered() {
        let mut room = Room::new(3);
        let mut other = room.queue(0);
        room.send_to_all(0, &other);
        // The last digit of the name.
        other.0[19] = b'1';
        room.deliver(2, &other);
        let mut half = Vec::new();
        room.checker.queue_half(room.members[0], &mut half);
        let mut whole = Vec::new();
        encode_frame(b"tag-000000", &mut whole);
        let id = room.checker.members[room.members[0]].next();
        codec().write(id, &mut whole);
        room.deliver(2, &Message(whole));
        room.assert_judged([0, 0, 0, 2]);
        let mut rest = &half[..];
        assert_eq!(Decoder::new().decode(&mut rest, 10, 1 << 20), Ok(None));
    }

    #[test]
    fn message_that_is_none_of_this_soak_is_altered_or_foreign() {
        let mut room = Room::new(3);
        let mut stream = Vec::new();
        for part in ["tag-000000", "hello", "alice", "hello"] {
            encode_frame(part.as_bytes(), &mut stream);
        }
        room.deliver(1, &Message(stream));
        room.assert_judged([0, 0, 0, 1]);
        assert_eq!(room.checker.tally.foreign, 1);
        let garbage = room
            .checker
            .check(room.members[1], b"HTTP/1.1 400 Bad Request");
        assert_eq!(garbage, Err(Garbled));
    }

    #[test]
    fn member_that_joins_amid_messages_must_receive_each_after_its_first() {
        let mut room = Room::new(2);
        let sent = [(); 4].map(|()| room.queue(0));
        let joined = room.join();
        for message in &sent {
            room.deliver(1, message);
        }
        for message in &sent[2..] {
            room.deliver(joined, message);
        }
        room.assert_judged([0; 4]);
        // One of those before it would have come late, and what was left out later is lost.
        room.deliver(joined, &sent[1]);
        assert_eq!(room.counts(), [0, 0, 1, 0]);
        let more = [(); 3].map(|()| room.queue(0));
        for message in &more {
            room.deliver(1, message);
        }
        room.deliver(joined, &more[2]);
        room.assert_judged([2, 0, 1, 0]);
    }

    #[test]
    fn present_member_must_receive_all_messages_sent_from_then_on() {
        let mut room = Room::new(3);
        let joined = room.join();
        let first = room.queue(0);
        room.send_to_all(0, &first);
        assert!(room.checker.is_present(room.members[joined]));
        let sent = [room.queue(1), room.queue(1)];
        for message in &sent {
            room.deliver(0, message);
            room.deliver(2, message);
        }
        // It had not received anything of this sender before, but it was present.
        room.deliver(joined, &sent[1]);
        room.assert_judged([1, 0, 0, 0]);
        // The same holds for a sender that joined later.
        let later = room.join();
        let sent = [room.queue(later), room.queue(later)];
        for receiver in 0..3 {
            room.deliver(receiver, &sent[0]);
            room.deliver(receiver, &sent[1]);
        }
        room.deliver(joined, &sent[1]);
        room.assert_judged([2, 0, 0, 0]);
    }

    #[test]
    fn all_members_must_receive_the_same_messages_of_a_sender_that_reset() {
        for (received, lost) in [([1, 1], 0), ([0, 0], 0), ([2, 1], 1), ([0, 3], 3)] {
            let mut room = Room::new(3);
            let sent = [(); 3].map(|()| room.queue(0));
            room.leave(0, false);
            for (receiver, count) in [1, 2].into_iter().zip(received) {
                for message in &sent[..count] {
                    room.deliver(receiver, message);
                }
            }
            room.assert_judged([lost, 0, 0, 0]);
        }
    }

    #[test]
    fn all_members_must_receive_all_messages_of_a_sender_that_left_in_order() {
        for (received, lost) in [([3, 3], 0), ([0, 0], 6), ([3, 2], 1)] {
            let mut room = Room::new(3);
            let sent = [(); 3].map(|()| room.queue(0));
            room.leave(0, true);
            for (receiver, count) in [1, 2].into_iter().zip(received) {
                for message in &sent[..count] {
                    room.deliver(receiver, message);
                }
            }
            room.assert_judged([lost, 0, 0, 0]);
        }
    }

    #[test]
    fn member_that_left_or_is_excused_need_not_receive() {
        let mut room = Room::new(4);
        let sent = room.queue(0);
        room.deliver(1, &sent);
        room.checker.excuse(room.members[2]);
        room.leave(3, false);
        assert_eq!(room.checker.outstanding(), 0);
        room.assert_judged([0; 4]);
    }

    #[test]
    fn message_that_arrives_after_its_sender_was_judged_is_out_of_order() {
        let mut room = Room::new(2);
        let sender = room.join();
        let sent = room.queue(sender);
        room.leave(sender, false);
        room.deliver(0, &sent);
        room.deliver(1, &sent);
        room.assert_judged([0; 4]);
        room.deliver(1, &sent);
        assert_eq!(room.counts(), [0, 0, 1, 0]);
        // To a member that joins later it may be history.
        let joined = room.join();
        room.deliver(joined, &sent);
        assert_eq!(room.counts(), [0, 0, 1, 0]);
    }

    #[test]
    fn message_queued_in_the_server_may_arrive_long_after_its_sender_left() {
        for in_order in [true, false] {
            let mut room = Room::new(3);
            let sent = [(); 4].map(|()| room.queue(0));
            room.leave(0, in_order);
            let mut now = Duration::ZERO;
            for (nth, message) in sent.iter().enumerate() {
                for _ in 0..10 {
                    now += SETTLE_TIME;
                    room.checker.settle(now);
                }
                assert_eq!(room.counts(), [0; 4]);
                room.deliver(1, message);
                // The last one does not get to all.
                if nth < 3 {
                    room.deliver(2, message);
                }
            }
            // All messages have arrived, but not long ago.
            room.checker.settle(now + SETTLE_TIME);
            assert_eq!(room.counts(), [0; 4]);
            room.checker.settle(now + 2 * SETTLE_TIME);
            assert_eq!(room.counts(), [1, 0, 0, 0]);
            assert!(room.checker.left.is_empty());
        }
    }

    #[test]
    fn message_of_a_sender_that_left_that_never_arrives_is_lost_at_the_end_and_not_before() {
        for (in_order, lost) in [(true, 3), (false, 1)] {
            let mut room = Room::new(3);
            let sent = [(); 3].map(|()| room.queue(0));
            room.leave(0, in_order);
            room.deliver(1, &sent[0]);
            room.deliver(1, &sent[1]);
            room.deliver(2, &sent[0]);
            for time in 1..10 {
                room.checker.settle(SETTLE_TIME * time);
                assert_eq!(room.counts(), [0; 4]);
            }
            assert_eq!(room.checker.outstanding(), lost);
            room.assert_judged([lost, 0, 0, 0]);
        }
    }

    #[test]
    fn key_of_a_member_that_left_is_used_again() {
        let mut room = Room::new(3);
        for round in 1..20 {
            room.leave(0, true);
            room.checker.settle(SETTLE_TIME);
            let number = room.checker.joins;
            let joined = room.checker.join(&mut Vec::new());
            room.members[0] = joined;
            let mut frame = Vec::new();
            encode_frame(name_of(number, "tag").as_bytes(), &mut frame);
            room.checker.queue(joined, &mut frame);
            room.send_to_all(0, &Message(frame));
            let sent = room.queue(1);
            room.send_to_all(1, &sent);
            assert_eq!(room.counts(), [0; 4], "round {round}");
        }
        assert_eq!(
            (room.checker.members.len(), room.checker.known.len()),
            (3, 3)
        );
        assert_eq!(room.progress(1).positions.len(), 4);
        room.assert_judged([0; 4]);
    }

    #[test]
    fn missing_messages_are_remembered_up_to_a_limit() {
        let mut room = Room::new(3);
        let many = MAX_MISSING + 10;
        let sent: Vec<_> = (0..=many).map(|_| room.queue(0)).collect();
        for message in &sent {
            room.deliver(1, message);
        }
        room.deliver(2, &sent[many]);
        assert_eq!(room.counts(), [many as u64, 0, 0, 0]);
        assert_eq!(room.progress(2).missing.len(), MAX_MISSING);
        room.deliver(2, &sent[many - 1]);
        assert_eq!(room.counts(), [many as u64 - 1, 0, 1, 0]);
    }

    #[test]
    fn sender_is_delivered_when_its_last_message_has_arrived() {
        let mut room = Room::new(3);
        assert!(room.checker.is_delivered(room.members[0]));
        let sent = room.queue(0);
        assert!(!room.checker.is_delivered(room.members[0]));
        room.deliver(2, &sent);
        assert!(room.checker.is_delivered(room.members[0]));
        // Without a member that must receive it, there is nothing to wait for, even if others join.
        room.queue(0);
        room.leave(1, false);
        let joined = room.join();
        let sent = room.queue(2);
        room.deliver(joined, &sent);
        assert!(!room.checker.is_delivered(room.members[0]));
        room.leave(2, false);
        assert!(room.checker.is_delivered(room.members[0]));
    }
}
