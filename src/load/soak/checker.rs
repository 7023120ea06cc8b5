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
#[derive(Debug)]
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
    /// The number of its messages that all members must receive that joined in time.
    due: Due,
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

/// Which of a member's messages are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// All that it has sent, since it is present or has left in order.
    Sent,
    /// Those up to the last one that any member has received, since it has left by a reset.
    Received,
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
    const fn due(&self) -> u32 {
        match self.due {
            Due::Sent => self.sent,
            Due::Received => self.received,
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
            members: Slab::new(),
            known: HashMap::new(),
            joins: 0,
            left: VecDeque::new(),
            tally: Tally::default(),
            sent: 0,
            bytes: 0,
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
            due: Due::Sent,
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
        if !in_order {
            member.due = Due::Received;
        }
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
    struct Said(Vec<u8>);

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
            // Everybody hears something, and so is known to be here.
            for sender in 0..2 {
                let said = room.queue(sender);
                room.send_to_all(sender, &said);
            }
            assert_eq!(room.counts(), [0; 4]);
            room
        }

        fn join(&mut self) -> usize {
            self.members.push(self.checker.join(&mut Vec::new()));
            self.members.len() - 1
        }

        fn queue(&mut self, sender: usize) -> Said {
            let mut frame = Vec::new();
            self.checker.queue(self.members[sender], &mut frame);
            let mut heard = Vec::new();
            encode_frame(name_of(sender as u32, "tag").as_bytes(), &mut heard);
            heard.extend(frame);
            Said(heard)
        }

        fn tell(&mut self, receiver: usize, said: &Said) {
            let taken = self.checker.check(self.members[receiver], &said.0);
            assert_eq!(taken, Ok(said.0.len()));
        }

        fn send_to_all(&mut self, sender: usize, said: &Said) {
            for receiver in (0..self.members.len()).filter(|&receiver| receiver != sender) {
                self.tell(receiver, said);
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
            // They may have been heard since they left.
            self.checker.settle(SETTLE_TIME);
            self.checker.settle(2 * SETTLE_TIME);
            self.checker.give_up();
            assert_eq!(self.counts(), counts);
            assert_eq!(self.checker.outstanding(), 0);
        }
    }

    #[test]
    fn what_all_hear_once_and_in_order_has_no_fault_however_it_is_cut() {
        let mut room = Room::new(3);
        let said = [room.queue(0), room.queue(1), room.queue(0)];
        room.tell(1, &said[0]);
        room.tell(1, &said[2]);
        // Only a sender's own order is promised.
        room.tell(0, &said[1]);
        let stream = [&said[1].0[..], &said[0].0, &said[2].0].concat();
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
    fn a_message_that_one_does_not_hear_is_lost_as_soon_as_a_later_one_comes() {
        let mut room = Room::new(3);
        let said = [room.queue(0), room.queue(0)];
        room.tell(1, &said[0]);
        room.tell(1, &said[1]);
        room.tell(2, &said[1]);
        assert_eq!(room.counts(), [1, 0, 0, 0]);
        room.assert_judged([1, 0, 0, 0]);
    }

    #[test]
    fn the_last_message_that_one_does_not_hear_is_lost_in_the_end() {
        let mut room = Room::new(3);
        let said = room.queue(0);
        room.tell(1, &said);
        assert_eq!(room.checker.outstanding(), 1);
        room.assert_judged([1, 0, 0, 0]);
    }

    #[test]
    fn a_message_that_comes_twice_is_duplicated() {
        let mut room = Room::new(3);
        let said = room.queue(0);
        room.send_to_all(0, &said);
        room.tell(2, &said);
        room.assert_judged([0, 1, 0, 0]);
    }

    #[test]
    fn two_messages_that_change_places_are_out_of_order_and_not_lost() {
        let mut room = Room::new(3);
        let said = [room.queue(0), room.queue(0)];
        for at in [0, 1] {
            room.tell(1, &said[at]);
            room.tell(2, &said[1 - at]);
        }
        room.assert_judged([0, 0, 1, 0]);
    }

    #[test]
    fn a_message_with_another_byte_is_altered_and_not_lost() {
        let mut room = Room::new(3);
        let mut said = room.queue(0);
        room.tell(1, &said);
        // Behind two headers, the name and the head.
        let last = said.0.len() - 1;
        assert!(last > 50, "there is something to alter");
        said.0[last] ^= 1;
        room.tell(2, &said);
        room.assert_judged([0, 0, 0, 1]);
    }

    #[test]
    fn a_message_that_its_own_speaker_hears_is_altered() {
        let mut room = Room::new(3);
        let said = room.queue(0);
        room.send_to_all(0, &said);
        room.tell(0, &said);
        room.assert_judged([0, 0, 0, 1]);
    }

    #[test]
    fn a_message_that_comes_as_somebody_elses_or_was_never_said_is_altered() {
        let mut room = Room::new(3);
        let mut other = room.queue(0);
        room.send_to_all(0, &other);
        // The last digit of the name.
        other.0[19] = b'1';
        room.tell(2, &other);
        let mut half = Vec::new();
        room.checker.queue_half(room.members[0], &mut half);
        let mut whole = Vec::new();
        encode_frame(b"tag-000000", &mut whole);
        let id = room.checker.members[room.members[0]].next();
        codec().write(id, &mut whole);
        room.tell(2, &Said(whole));
        room.assert_judged([0, 0, 0, 2]);
        let mut rest = &half[..];
        assert_eq!(Decoder::new().decode(&mut rest, 10, 1 << 20), Ok(None));
    }

    #[test]
    fn what_is_no_message_of_this_soak_is_altered_or_others() {
        let mut room = Room::new(3);
        let mut stream = Vec::new();
        for part in ["tag-000000", "hello", "alice", "hello"] {
            encode_frame(part.as_bytes(), &mut stream);
        }
        room.tell(1, &Said(stream));
        room.assert_judged([0, 0, 0, 1]);
        assert_eq!(room.checker.tally.foreign, 1);
        let garbage = room
            .checker
            .check(room.members[1], b"HTTP/1.1 400 Bad Request");
        assert_eq!(garbage, Err(Garbled));
    }

    #[test]
    fn who_comes_in_the_middle_hears_from_some_message_on_and_then_each() {
        let mut room = Room::new(2);
        let said = [(); 4].map(|()| room.queue(0));
        let newcomer = room.join();
        for message in &said {
            room.tell(1, message);
        }
        for message in &said[2..] {
            room.tell(newcomer, message);
        }
        room.assert_judged([0; 4]);
        // One of those before it would have come late, and what was left out later is lost.
        room.tell(newcomer, &said[1]);
        assert_eq!(room.counts(), [0, 0, 1, 0]);
        let more = [(); 3].map(|()| room.queue(0));
        for message in &more {
            room.tell(1, message);
        }
        room.tell(newcomer, &more[2]);
        room.assert_judged([2, 0, 1, 0]);
    }

    #[test]
    fn who_has_heard_anybody_is_to_hear_all_that_is_said_from_then_on() {
        let mut room = Room::new(3);
        let newcomer = room.join();
        let first = room.queue(0);
        room.send_to_all(0, &first);
        assert!(room.checker.is_present(room.members[newcomer]));
        let said = [room.queue(1), room.queue(1)];
        for message in &said {
            room.tell(0, message);
            room.tell(2, message);
        }
        // It had not heard this sender before, but it was here.
        room.tell(newcomer, &said[1]);
        room.assert_judged([1, 0, 0, 0]);
        // Nor has it those who come later.
        let later = room.join();
        let said = [room.queue(later), room.queue(later)];
        for receiver in 0..3 {
            room.tell(receiver, &said[0]);
            room.tell(receiver, &said[1]);
        }
        room.tell(newcomer, &said[1]);
        room.assert_judged([2, 0, 0, 0]);
    }

    #[test]
    fn all_have_to_agree_on_how_far_one_was_heard_that_left_anyhow() {
        for (hears, lost) in [([1, 1], 0), ([0, 0], 0), ([2, 1], 1), ([0, 3], 3)] {
            let mut room = Room::new(3);
            let said = [(); 3].map(|()| room.queue(0));
            room.leave(0, false);
            for (receiver, count) in [1, 2].into_iter().zip(hears) {
                for message in &said[..count] {
                    room.tell(receiver, message);
                }
            }
            room.assert_judged([lost, 0, 0, 0]);
        }
    }

    #[test]
    fn who_left_in_order_is_to_be_heard_to_the_end_by_all() {
        for (hears, lost) in [([3, 3], 0), ([0, 0], 6), ([3, 2], 1)] {
            let mut room = Room::new(3);
            let said = [(); 3].map(|()| room.queue(0));
            room.leave(0, true);
            for (receiver, count) in [1, 2].into_iter().zip(hears) {
                for message in &said[..count] {
                    room.tell(receiver, message);
                }
            }
            room.assert_judged([lost, 0, 0, 0]);
        }
    }

    #[test]
    fn nothing_is_asked_of_those_who_leave_or_are_excused() {
        let mut room = Room::new(4);
        let said = room.queue(0);
        room.tell(1, &said);
        room.checker.excuse(room.members[2]);
        room.leave(3, false);
        assert_eq!(room.checker.outstanding(), 0);
        room.assert_judged([0; 4]);
    }

    #[test]
    fn a_message_that_comes_after_its_speaker_was_judged_is_out_of_order() {
        let mut room = Room::new(2);
        let sender = room.join();
        let said = room.queue(sender);
        room.leave(sender, false);
        room.tell(0, &said);
        room.tell(1, &said);
        room.assert_judged([0; 4]);
        room.tell(1, &said);
        assert_eq!(room.counts(), [0, 0, 1, 0]);
        // To a newcomer it may be history.
        let newcomer = room.join();
        room.tell(newcomer, &said);
        assert_eq!(room.counts(), [0, 0, 1, 0]);
    }

    #[test]
    fn what_waits_in_the_server_may_be_heard_long_after_its_speaker_has_left() {
        for in_order in [true, false] {
            let mut room = Room::new(3);
            let said = [(); 4].map(|()| room.queue(0));
            room.leave(0, in_order);
            let mut now = Duration::ZERO;
            for (nth, message) in said.iter().enumerate() {
                for _ in 0..10 {
                    now += SETTLE_TIME;
                    room.checker.settle(now);
                }
                assert_eq!(room.counts(), [0; 4]);
                room.tell(1, message);
                // The last one does not get to all.
                if nth < 3 {
                    room.tell(2, message);
                }
            }
            // All was heard, but not long ago.
            room.checker.settle(now + SETTLE_TIME);
            assert_eq!(room.counts(), [0; 4]);
            room.checker.settle(now + 2 * SETTLE_TIME);
            assert_eq!(room.counts(), [1, 0, 0, 0]);
            assert!(room.checker.left.is_empty());
        }
    }

    #[test]
    fn what_was_never_heard_of_one_who_left_is_lost_in_the_end_and_not_before() {
        for (in_order, lost) in [(true, 3), (false, 1)] {
            let mut room = Room::new(3);
            let said = [(); 3].map(|()| room.queue(0));
            room.leave(0, in_order);
            room.tell(1, &said[0]);
            room.tell(1, &said[1]);
            room.tell(2, &said[0]);
            for time in 1..10 {
                room.checker.settle(SETTLE_TIME * time);
                assert_eq!(room.counts(), [0; 4]);
            }
            assert_eq!(room.checker.outstanding(), lost);
            room.assert_judged([lost, 0, 0, 0]);
        }
    }

    #[test]
    fn a_place_that_was_anothers_begins_anew() {
        let mut room = Room::new(3);
        for round in 1..20 {
            room.leave(0, true);
            room.checker.settle(SETTLE_TIME);
            let number = room.checker.joins;
            let newcomer = room.checker.join(&mut Vec::new());
            room.members[0] = newcomer;
            let mut frame = Vec::new();
            encode_frame(name_of(number, "tag").as_bytes(), &mut frame);
            room.checker.queue(newcomer, &mut frame);
            room.send_to_all(0, &Said(frame));
            let said = room.queue(1);
            room.send_to_all(1, &said);
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
    fn what_is_missing_is_remembered_up_to_a_bound() {
        let mut room = Room::new(3);
        let many = MAX_MISSING + 10;
        let said: Vec<_> = (0..=many).map(|_| room.queue(0)).collect();
        for message in &said {
            room.tell(1, message);
        }
        room.tell(2, &said[many]);
        assert_eq!(room.counts(), [many as u64, 0, 0, 0]);
        assert_eq!(room.progress(2).missing.len(), MAX_MISSING);
        room.tell(2, &said[many - 1]);
        assert_eq!(room.counts(), [many as u64 - 1, 0, 1, 0]);
    }

    #[test]
    fn who_was_heard_to_its_last_message_is_known() {
        let mut room = Room::new(3);
        assert!(room.checker.is_delivered(room.members[0]));
        let said = room.queue(0);
        assert!(!room.checker.is_delivered(room.members[0]));
        room.tell(2, &said);
        assert!(room.checker.is_delivered(room.members[0]));
        // With nobody left to hear it, there is nothing to wait for, even if others come.
        room.queue(0);
        room.leave(1, false);
        let newcomer = room.join();
        let said = room.queue(2);
        room.tell(newcomer, &said);
        assert!(!room.checker.is_delivered(room.members[0]));
        room.leave(2, false);
        assert!(room.checker.is_delivered(room.members[0]));
    }
}
