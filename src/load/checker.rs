//! The delivery checker of the scenarios: it compares every byte that each receiver gets with the
//! messages that were sent. It does no I/O.
//!
//! A receiver must get each message of the other members once, whole, and in its sender's order.
//! Nearly always all receivers get the same messages in the same order, each without its own. So
//! the bytes that the first of them receives are checked in full and kept, and the bytes of the
//! others are compared with them, many messages at a time. That costs less than the system call
//! that read them, and no byte is left unchecked.
//!
//! ```text
//!   kept, in the order in which it was first received   [0:0][1:0][0:1][2:0][0:2]
//!   receiver 0, which gets all but its own                    ^ has got all before; 2:0 is next
//!   receiver 3, in an order of its own: it got 1:0 before 0:0      is checked by itself
//! ```
//!
//! A receiver whose bytes differ is not necessarily wrong, since only the order of each sender is
//! promised. From there on it is checked by itself: which message of each sender is next for it,
//! and which are missing.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::delays::Delays;
use super::judge::{Codec, Position, Progress, Tally};
use super::message::MessageId;
use super::protocol::{Garbled, Incoming, Role};

/// Messages that all receivers have got are dropped after at least so many were sent.
const MIN_TRIM_MESSAGES: usize = 1024;

/// The same for the bytes that are kept.
const MIN_TRIM_BYTES: usize = 8 * 1024 * 1024;

/// A `DeliveryChecker` knows all messages that are sent in a run, and how far each receiver has
/// got them.
#[derive(Debug)]
pub(super) struct DeliveryChecker {
    codec: Codec,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    order: SharedOrder,
    /// The number of sent messages, and of kept bytes, at which some may be dropped again.
    trim_at: (u64, usize),
    /// The number of messages that were sent.
    sent: u64,
    /// The number of present receivers.
    present: usize,
    /// The number of deliveries that have not arrived.
    outstanding: u64,
    tally: Tally,
    /// Whether a ping was among the bytes that were checked last.
    pub(super) is_pinged: bool,
    /// The delays of the messages that were sent from this time on, in nanoseconds.
    delays: Delays,
    measured_from: u64,
}

#[derive(Debug, Default)]
struct Sender {
    /// The number of its messages.
    sent: u32,
    /// The next of its messages that no receiver has got yet.
    unreceived: u32,
    /// The times for which its messages from the `times_from`th on were scheduled, in nanoseconds.
    times: VecDeque<u64>,
    times_from: u32,
}

#[derive(Debug, Default)]
struct Receiver {
    place: Place,
    /// The number of messages that will not arrive any more: received, lost, or sent before it was
    /// present.
    settled: u64,
    /// The number of messages that it had sent when it last left. It may receive those, as a
    /// history.
    sent_before: u32,
}

/// Which messages a receiver has got.
#[derive(Debug, Default)]
enum Place {
    /// It is not known to be a member: no message must arrive, and any may.
    #[default]
    Absent,
    /// Those before this position of the shared order, without its own.
    Shared(u64),
    /// It receives in an order of its own.
    Separate(Box<Progress>),
}

/// The `SharedOrder` holds the messages that some receivers have got and others may still get, in
/// the order in which they are received.
#[derive(Debug, Default)]
struct SharedOrder {
    entries: Vec<Entry>,
    /// The bytes in which they came, `len` for each.
    bytes: Vec<u8>,
    len: usize,
    /// The number of messages that were dropped before the first entry. Positions count them.
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: MessageId,
    /// The time for which it was scheduled, in nanoseconds.
    sent: u64,
}

impl Sender {
    fn time_of(&self, seq: u32) -> Option<u64> {
        let index = seq.checked_sub(self.times_from)?;
        self.times.get(index as usize).copied()
    }
}

impl SharedOrder {
    /// The position after the last entry.
    const fn end(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }

    /// The first index from this one on with a message that is not this sender's.
    fn skip(&self, index: usize, own: Option<u32>) -> usize {
        let entries = self.entries[index..].iter();
        index
            + entries
                .take_while(|entry| own == Some(entry.id.sender))
                .count()
    }

    /// The indices of the messages from this one on that are not this sender's, up to its next.
    fn up_to_own(&self, index: usize, own: Option<u32>, most: usize) -> Range<usize> {
        let entries = &self.entries[index..self.entries.len().min(index + most)];
        let is_own = |entry: &Entry| own == Some(entry.id.sender);
        let count = own.and_then(|_| entries.iter().position(is_own));
        index..index + count.unwrap_or(entries.len())
    }

    fn insert(&mut self, index: usize, entry: Entry, bytes: &[u8]) {
        self.len = bytes.len();
        self.entries.insert(index, entry);
        let at = index * self.len;
        self.bytes.splice(at..at, bytes.iter().copied());
    }

    /// Moves an entry before those from an earlier index on.
    fn move_back(&mut self, from: usize, to: usize) {
        self.entries[to..=from].rotate_right(1);
        self.bytes[to * self.len..(from + 1) * self.len].rotate_right(self.len);
    }

    fn drop_before(&mut self, position: u64) {
        let count = (position - self.dropped) as usize;
        self.entries.drain(..count);
        self.bytes.drain(..count * self.len);
        self.dropped = position;
    }
}

impl DeliveryChecker {
    /// For this many receivers, none of them present yet, and senders, which in a chat are the
    /// first of the receivers.
    pub(super) fn new(codec: Codec, receivers: usize, senders: usize) -> Self {
        Self {
            codec,
            senders: (0..senders).map(|_| Sender::default()).collect(),
            receivers: (0..receivers).map(|_| Receiver::default()).collect(),
            order: SharedOrder::default(),
            trim_at: (MIN_TRIM_MESSAGES as u64, MIN_TRIM_BYTES),
            sent: 0,
            present: 0,
            outstanding: 0,
            tally: Tally::default(),
            is_pinged: false,
            delays: Delays::new(),
            measured_from: u64::MAX,
        }
    }

    /// Appends the first bytes of a client.
    pub(super) fn join(&self, role: Role, out: &mut Vec<u8>) {
        self.codec.join(role, out);
    }

    /// Appends a sender's next message, which was scheduled for `sent`, to `out`.
    pub(super) fn queue(&mut self, sender: u32, sent: Duration, out: &mut Vec<u8>) {
        let receives = self
            .receiver_of(sender)
            .is_some_and(|it| self.is_present(it));
        let sending = &mut self.senders[sender as usize];
        let seq = sending.sent;
        sending.sent += 1;
        sending.times.push_back(sent.as_nanos() as u64);
        self.codec.write(MessageId { sender, seq }, out);
        self.sent += 1;
        self.outstanding += (self.present - usize::from(receives)) as u64;
    }

    /// Checks the bytes that a receiver got. Returns how many of them were used, which is all but
    /// an incomplete message at the end, and whether a welcome was among them.
    ///
    /// # Errors
    ///
    /// If they are not in the protocol. Nothing after them can be read.
    pub(super) fn check(
        &mut self,
        receiver: usize,
        input: &[u8],
        now: Duration,
    ) -> Result<(usize, bool), Garbled> {
        let now = now.as_nanos() as u64;
        let mut rest = input;
        let mut is_welcome = false;
        loop {
            rest = self.compare(receiver, rest, now);
            let Some((incoming, used)) = self.codec.protocol.next(rest)? else {
                break;
            };
            let (bytes, after) = rest.split_at(used);
            rest = after;
            match incoming {
                Incoming::Welcome => is_welcome = true,
                Incoming::Ping => self.is_pinged = true,
                Incoming::Aside => {}
                Incoming::Message { name, payload } => {
                    self.take(receiver, name, payload, bytes, now);
                }
            }
        }
        if self.sent >= self.trim_at.0 || self.order.bytes.len() >= self.trim_at.1 {
            self.trim();
        }
        Ok((input.len() - rest.len(), is_welcome))
    }

    /// Requires a receiver to get every message that is sent from now on.
    pub(super) fn expect(&mut self, receiver: usize) {
        if !self.is_present(receiver) {
            self.enter(receiver, self.order.end(), 0);
        }
    }

    /// Removes a receiver. Its outstanding deliveries are lost if it `was_cut`, and no loss if it
    /// left.
    pub(super) fn leave(&mut self, receiver: usize, was_cut: bool) {
        if self.is_present(receiver) {
            let owed = self.owed(receiver);
            self.present -= 1;
            self.outstanding -= owed;
            if was_cut {
                self.tally.lost += owed;
            }
        }
        self.receivers[receiver].place = Place::Absent;
        if let Some(own) = self.sender_of(receiver) {
            self.receivers[receiver].sent_before = self.senders[own as usize].sent;
        }
    }

    /// The number of receivers.
    pub(super) const fn receivers(&self) -> usize {
        self.receivers.len()
    }

    /// The number of senders.
    pub(super) const fn senders(&self) -> u32 {
        self.senders.len() as u32
    }

    /// Whether a receiver has got a message since it joined.
    pub(super) fn is_present(&self, receiver: usize) -> bool {
        !matches!(self.receivers[receiver].place, Place::Absent)
    }

    /// The number of receivers that have got a message since they joined.
    pub(super) const fn present(&self) -> usize {
        self.present
    }

    /// The number of deliveries that have not arrived.
    pub(super) const fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// The number of messages that were sent.
    pub(super) const fn messages(&self) -> u64 {
        self.sent
    }

    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The delays of the messages that are measured.
    pub(super) const fn delays(&self) -> &Delays {
        &self.delays
    }

    /// Measures the messages that are scheduled from this time on, and forgets what was measured
    /// before.
    pub(super) fn measure_from(&mut self, time: Duration) {
        self.delays = Delays::new();
        self.measured_from = time.as_nanos() as u64;
    }

    /// Counts the deliveries that have not arrived as lost.
    pub(super) fn give_up(&mut self) {
        self.tally.lost += self.outstanding;
        for receiver in 0..self.receivers.len() {
            if self.is_present(receiver) {
                let owed = self.owed(receiver);
                self.receivers[receiver].settled += owed;
            }
        }
        self.outstanding = 0;
    }

    /// The sender on the same connection as a receiver, if there is one.
    fn sender_of(&self, receiver: usize) -> Option<u32> {
        let is_both = !self.codec.protocol.is_broker() && receiver < self.senders.len();
        is_both.then_some(receiver as u32)
    }

    /// The receiver on the same connection as a sender, if there is one.
    fn receiver_of(&self, sender: u32) -> Option<usize> {
        (!self.codec.protocol.is_broker()).then_some(sender as usize)
    }

    /// The number of messages that a receiver has not got.
    fn owed(&self, receiver: usize) -> u64 {
        let own = self.sender_of(receiver);
        let own = own.map_or(0, |own| self.senders[own as usize].sent);
        // It is below zero only if a server sends messages that were never sent to it.
        (self.sent - u64::from(own)).saturating_sub(self.receivers[receiver].settled)
    }

    /// Compares the messages at the beginning of the input with those that are next for this
    /// receiver, and counts those that are the same byte for byte. Returns the rest of the input.
    fn compare<'a>(&mut self, receiver: usize, mut rest: &'a [u8], now: u64) -> &'a [u8] {
        let own = self.sender_of(receiver);
        let order = &self.order;
        let Place::Shared(at) = &mut self.receivers[receiver].place else {
            return rest;
        };
        let mut count = 0;
        loop {
            let first = order.skip((*at - order.dropped) as usize, own);
            let room = rest.len().checked_div(order.len).unwrap_or(0);
            let mut next = order.up_to_own(first, own, room);
            let expected = &order.bytes[next.start * order.len..next.end * order.len];
            let is_same = rest[..expected.len()] == *expected;
            if !is_same {
                let pairs = rest.chunks_exact(order.len);
                let pairs = pairs.zip(expected.chunks_exact(order.len));
                next.end = next.start + pairs.take_while(|(came, kept)| came == kept).count();
            }
            if next.is_empty() {
                break;
            }
            rest = &rest[next.len() * order.len..];
            *at = order.dropped + next.end as u64;
            count += next.len() as u64;
            record(
                &mut self.delays,
                self.measured_from,
                &order.entries[next],
                now,
            );
            if !is_same {
                break;
            }
        }
        self.tally.deliveries += count;
        self.settle(receiver, count);
        rest
    }

    /// Checks one message that is not known to be the next one.
    fn take(
        &mut self,
        receiver: usize,
        name: Option<&[u8]>,
        payload: &[u8],
        bytes: &[u8],
        now: u64,
    ) {
        let identified = self.codec.identify(name, payload, &mut self.tally);
        let Some((id, is_whole)) = identified else {
            return;
        };
        let is_own = self.sender_of(receiver) == Some(id.sender);
        if is_own && id.seq < self.receivers[receiver].sent_before {
            // A server may send a history to new members, and this one has joined again.
            return;
        }
        let sender = self.senders.get(id.sender as usize);
        let is_due = !is_own && sender.is_some_and(|sender| id.seq < sender.sent);
        if !is_due || !is_whole {
            self.tally.corrupt += 1;
        }
        if !is_due {
            return;
        }
        let bytes = is_whole.then_some(bytes);
        match self.receivers[receiver].place {
            Place::Absent => {
                self.insert(receiver, id, bytes, self.order.end());
                self.become_present(receiver, id);
            }
            // It is the first to receive what is next, or shows where that belongs.
            Place::Shared(at) => {
                if let Some(position) = self.insert(receiver, id, bytes, at) {
                    self.receivers[receiver].place = Place::Shared(position + 1);
                    self.tally.deliveries += 1;
                    self.settle(receiver, 1);
                    self.record_one(id, now);
                } else {
                    let next = self.next_from((at - self.order.dropped) as usize);
                    self.receivers[receiver].place = Place::Separate(Box::new(Progress {
                        positions: next.into_iter().map(Position::at).collect(),
                        ..Progress::default()
                    }));
                    self.take_separately(receiver, id, now);
                }
            }
            Place::Separate(_) => self.take_separately(receiver, id, now),
        }
    }

    fn take_separately(&mut self, receiver: usize, id: MessageId, now: u64) {
        let Place::Separate(progress) = &mut self.receivers[receiver].place else {
            return;
        };
        if let Some(lost) = progress.judge(id.sender as usize, id, &mut self.tally) {
            self.settle(receiver, lost + 1);
            self.record_one(id, now);
        }
    }

    /// Inserts a message into the shared order, where a receiver at position `at` has got it, if
    /// it is whole and does not contradict what other receivers have got. Returns its position.
    ///
    /// Usually the message is new, and the position is the end. But the first receiver does not
    /// get its own messages. The second one gets them between those that are kept, and inserts
    /// them there; or rather before or after its own messages, which it does not get either, so
    /// that the third receiver may correct the position.
    fn insert(
        &mut self,
        receiver: usize,
        id: MessageId,
        bytes: Option<&[u8]>,
        at: u64,
    ) -> Option<u64> {
        let order = &self.order;
        let bytes = bytes.filter(|bytes| order.len == 0 || bytes.len() == order.len)?;
        let first = (at - order.dropped) as usize;
        let index = order.skip(first, self.sender_of(receiver));
        let position = order.dropped + index as u64;
        let owner = self.receiver_of(id.sender);
        let sender = &self.senders[id.sender as usize];
        let sent = sender.time_of(id.seq)?;
        let after = &order.entries[index..];
        let kept = if id.seq < sender.unreceived {
            // If it is not there, all receivers that needed it have got it before.
            Some(after.iter().position(|entry| entry.id == id)?)
        } else {
            // If no receiver has got some message before it, those in the shared order would skip
            // the gap with it, and must detect it. If none is in that order, there was none to
            // receive them.
            let mut others = (0..)
                .zip(&self.receivers)
                .filter(|one| Some(one.0) != owner);
            let is_shared = |(_, other): (_, &Receiver)| matches!(other.place, Place::Shared(_));
            if id.seq > sender.unreceived && others.any(is_shared) {
                return None;
            }
            None
        };
        // It must not stand before another message of its sender.
        let mut passed = after[..kept.unwrap_or(after.len())].iter();
        if passed.any(|entry| entry.id.sender == id.sender) {
            return None;
        }
        if !after.is_empty() {
            // Receivers beyond the position have not got it. So there must be none but its sender,
            // and those that have passed only messages of their own.
            let last = kept.map_or(u64::MAX, |kept| position + kept as u64);
            let mut beyond = Vec::new();
            for (other, it) in self.receivers.iter().enumerate() {
                if let Place::Shared(at) = it.place
                    && (position + 1..=last).contains(&at)
                {
                    let passed = order.skip(index, self.sender_of(other)) as u64;
                    if Some(other) == owner {
                        beyond.push((other, at + 1));
                    } else if order.dropped + passed >= at {
                        beyond.push((other, position));
                    } else {
                        return None;
                    }
                }
            }
            for (other, at) in beyond {
                self.receivers[other].place = Place::Shared(at);
            }
        }
        if let Some(kept) = kept {
            self.order.move_back(index + kept, index);
        } else {
            self.order.insert(index, Entry { id, sent }, bytes);
            self.senders[id.sender as usize].unreceived = id.seq + 1;
        }
        Some(position)
    }

    /// Marks a receiver as present: it must get every message after this one, if that is in the
    /// shared order.
    fn become_present(&mut self, receiver: usize, id: MessageId) {
        let entries = &self.order.entries;
        if let Some(index) = entries.iter().rposition(|entry| entry.id == id) {
            let own = self.sender_of(receiver);
            let next = (0..).zip(self.next_from(index + 1));
            let next = next.filter(|&(sender, _)| own != Some(sender));
            let owed = next.map(|(sender, next)| self.senders[sender as usize].sent - next);
            let owed = owed.map(u64::from).sum();
            self.enter(receiver, self.order.dropped + index as u64 + 1, owed);
            self.tally.deliveries += 1;
        }
    }

    /// Adds a receiver to the shared order that must get so many of the messages that were sent.
    fn enter(&mut self, receiver: usize, at: u64, owed: u64) {
        self.receivers[receiver].place = Place::Shared(at);
        self.receivers[receiver].settled = 0;
        self.receivers[receiver].settled = self.owed(receiver) - owed;
        self.outstanding += owed;
        self.present += 1;
    }

    /// The next message of each sender for a receiver that has got all messages before this index.
    fn next_from(&self, index: usize) -> Vec<u32> {
        let mut next: Vec<u32> = self.senders.iter().map(|one| one.unreceived).collect();
        for entry in self.order.entries[index..].iter().rev() {
            next[entry.id.sender as usize] = entry.id.seq;
        }
        next
    }

    /// Records the delay of one message.
    fn record_one(&mut self, id: MessageId, now: u64) {
        if let Some(sent) = self.senders[id.sender as usize].time_of(id.seq) {
            let entry = Entry { id, sent };
            record(&mut self.delays, self.measured_from, &[entry], now);
        }
    }

    /// Settles some messages of a receiver: fewer than `count`, if they were given up before.
    fn settle(&mut self, receiver: usize, count: u64) {
        let count = count.min(self.owed(receiver));
        self.receivers[receiver].settled += count;
        self.outstanding -= count;
    }

    /// Drops the messages that all receivers have got.
    fn trim(&mut self) {
        let mut keep_from = self.order.end();
        for index in 0..self.receivers.len() {
            let own = self.sender_of(index);
            if let Place::Shared(at) = &mut self.receivers[index].place {
                // A receiver that gets nothing does not move past its own messages by itself.
                let first = self.order.skip((*at - self.order.dropped) as usize, own);
                *at = self.order.dropped + first as u64;
                keep_from = keep_from.min(*at);
            }
        }
        self.order.drop_before(keep_from);
        self.rejoin_shared_order();
        // The times of sending are kept for as long as a receiver with an order of its own may get
        // the message.
        let is_shared = |receiver: &Receiver| matches!(receiver.place, Place::Shared(_));
        let mut needed = if self.receivers.iter().any(is_shared) {
            self.next_from(0)
        } else {
            // Then nothing is kept for messages that no receiver has got.
            self.senders.iter().map(|sender| sender.sent).collect()
        };
        for (index, receiver) in self.receivers.iter().enumerate() {
            if let Place::Separate(progress) = &receiver.place {
                let own = self.sender_of(index);
                for (sender, needed) in (0..).zip(&mut needed) {
                    if own != Some(sender) {
                        *needed = (*needed).min(progress.positions[sender as usize].next);
                    }
                }
            }
        }
        for (sender, needed) in self.senders.iter_mut().zip(needed) {
            let passed = needed.saturating_sub(sender.times_from);
            sender.times.drain(..passed as usize);
            sender.times_from += passed;
        }
        let messages = MIN_TRIM_MESSAGES.max(2 * self.order.entries.len());
        let bytes = MIN_TRIM_BYTES.max(2 * self.order.bytes.len());
        self.trim_at = (self.sent + messages as u64, bytes);
    }

    /// Returns receivers to the shared order that have got all messages up to some position, and
    /// none after it.
    fn rejoin_shared_order(&mut self) {
        for index in 0..self.receivers.len() {
            if let Place::Separate(progress) = &self.receivers[index].place
                && progress.missing.is_empty()
                && let Some(at) = self.position_of(&progress.positions, self.sender_of(index))
            {
                self.receivers[index].place = Place::Shared(at);
            }
        }
    }

    /// The position before which a receiver with these positions has got every message, and after
    /// which none, if there is one.
    fn position_of(&self, positions: &[Position], own: Option<u32>) -> Option<u64> {
        let is_own = |sender: usize| own == Some(sender as u32);
        let is_next = |entry: &Entry| {
            let sender = entry.id.sender as usize;
            !is_own(sender) && entry.id.seq >= positions[sender].next
        };
        let entries = &self.order.entries;
        let first = entries.iter().position(is_next).unwrap_or(entries.len());
        // What is next from there on, if the receiver has got all before it.
        let expected = self.next_from(first);
        let mut pairs = positions.iter().zip(&expected).enumerate();
        pairs
            .all(|(sender, (position, expected))| is_own(sender) || position.next == *expected)
            .then_some(self.order.dropped + first as u64)
    }
}

/// Records the delays of messages that have arrived now. Messages that were sent together have the
/// same delay.
fn record(delays: &mut Delays, measured_from: u64, entries: &[Entry], now: u64) {
    for sent_together in entries.chunk_by(|one, next| one.sent == next.sent) {
        let sent = sent_together[0].sent;
        if sent >= measured_from {
            delays.record(now.saturating_sub(sent), sent_together.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::message::MessageFormat;
    use super::super::protocol::{Protocol, name_of};
    use super::*;
    use crate::wire::encode_frame;

    const TAG: &str = "tag";
    const SIZE: usize = 20;

    const fn ns(nanoseconds: u64) -> Duration {
        Duration::from_nanos(nanoseconds)
    }

    fn new_checker(size: usize, receivers: usize, senders: usize) -> DeliveryChecker {
        let format = MessageFormat::new(size, 2, 1);
        let codec = Codec::new(Protocol::Chat10, TAG, format);
        DeliveryChecker::new(codec, receivers, senders)
    }

    /// A checker in which these hear, and the first so many of them speak.
    fn checker(receivers: usize, senders: usize) -> DeliveryChecker {
        let mut checker = new_checker(SIZE, receivers, senders);
        checker.measure_from(ns(0));
        for receiver in 0..receivers {
            checker.expect(receiver);
        }
        checker
    }

    /// What a server makes of a message.
    fn relayed(line: MessageId) -> Vec<u8> {
        let mut payload = Vec::new();
        MessageFormat::new(SIZE, 2, 1).write(line, &mut payload);
        let mut bytes = Vec::new();
        encode_frame(name_of(line.sender, TAG).as_bytes(), &mut bytes);
        encode_frame(&payload, &mut bytes);
        bytes
    }

    const fn line(sender: u32, seq: u32) -> MessageId {
        MessageId { sender, seq }
    }

    fn queue(checker: &mut DeliveryChecker, count: u32, sender: u32) {
        for _ in 0..count {
            checker.queue(sender, ns(5), &mut Vec::new());
        }
    }

    fn check(checker: &mut DeliveryChecker, receiver: usize, lines: &[MessageId]) {
        for &line in lines {
            let bytes = relayed(line);
            let taken = checker.check(receiver, &bytes, ns(10)).unwrap();
            assert_eq!(taken, (bytes.len(), false));
        }
    }

    fn separate_orders(checker: &DeliveryChecker) -> usize {
        let is_separate = |receiver: &&Receiver| matches!(receiver.place, Place::Separate(_));
        checker.receivers.iter().filter(is_separate).count()
    }

    #[test]
    fn what_is_said_is_what_a_server_takes_for_a_message() {
        let mut checker = checker(2, 1);
        let mut said = Vec::new();
        checker.queue(0, ns(0), &mut said);
        let payload = &relayed(line(0, 0))[20..];
        assert_eq!(said, payload);
    }

    #[test]
    fn each_message_is_counted_once_for_each_who_hears_it() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 2, 0);
        assert_eq!(checker.outstanding(), 4);
        check(&mut checker, 1, &[line(0, 0), line(0, 1)]);
        check(&mut checker, 2, &[line(0, 0)]);
        assert_eq!(checker.outstanding(), 1);
        let expected = Tally {
            deliveries: 3,
            ..Tally::default()
        };
        assert_eq!(*checker.tally(), expected);
        let delays = checker.delays();
        assert_eq!(
            (delays.times().unwrap().samples, delays.quantile(1.0)),
            (3, Some(ns(5)))
        );
    }

    #[test]
    fn only_what_was_to_be_sent_late_enough_is_measured() {
        let mut checker = checker(2, 1);
        checker.measure_from(ns(100));
        for sent in [99, 100, 150] {
            checker.queue(0, ns(sent), &mut Vec::new());
        }
        let stream: Vec<u8> = (0..3).flat_map(|seq| relayed(line(0, seq))).collect();
        checker.check(1, &stream, ns(160)).unwrap();
        let delays = checker.delays();
        assert_eq!(delays.times().unwrap().samples, 2);
        assert_eq!(
            [0.5, 1.0].map(|part| delays.quantile(part)),
            [Some(ns(10)), Some(ns(60))]
        );
    }

    #[test]
    fn a_message_that_one_never_gets_is_lost_when_a_later_one_comes() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 3, 0);
        check(&mut checker, 1, &[line(0, 0), line(0, 2)]);
        assert_eq!(checker.tally().lost, 1);
        check(&mut checker, 2, &[line(0, 0), line(0, 1), line(0, 2)]);
        let expected = Tally {
            deliveries: 5,
            lost: 1,
            ..Tally::default()
        };
        assert_eq!(*checker.tally(), expected);
        assert_eq!(checker.outstanding(), 0);
    }

    #[test]
    fn a_message_that_nobody_gets_is_lost_for_everybody() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 2, 0);
        check(&mut checker, 1, &[line(0, 1)]);
        check(&mut checker, 2, &[line(0, 1)]);
        assert_eq!(checker.tally().lost, 2);
        assert_eq!(checker.outstanding(), 0);
    }

    #[test]
    fn a_message_that_comes_twice_is_duplicated() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 2, 0);
        check(&mut checker, 1, &[line(0, 0), line(0, 0), line(0, 1)]);
        check(&mut checker, 2, &[line(0, 0), line(0, 1), line(0, 1)]);
        let expected = Tally {
            deliveries: 4,
            duplicated: 2,
            ..Tally::default()
        };
        assert_eq!(*checker.tally(), expected);
    }

    #[test]
    fn messages_of_one_speaker_that_change_places_are_out_of_order_and_not_lost() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 3, 0);
        check(&mut checker, 1, &[line(0, 1), line(0, 0), line(0, 2)]);
        check(&mut checker, 2, &[line(0, 0), line(0, 1), line(0, 2)]);
        let expected = Tally {
            deliveries: 6,
            out_of_order: 1,
            ..Tally::default()
        };
        assert_eq!(*checker.tally(), expected);
        assert_eq!(checker.outstanding(), 0);
    }

    #[test]
    fn messages_of_two_speakers_may_come_in_any_order() {
        let mut checker = checker(4, 2);
        queue(&mut checker, 1, 0);
        queue(&mut checker, 1, 1);
        check(&mut checker, 2, &[line(0, 0), line(1, 0)]);
        check(&mut checker, 3, &[line(1, 0), line(0, 0)]);
        check(&mut checker, 0, &[line(1, 0)]);
        check(&mut checker, 1, &[line(0, 0)]);
        let expected = Tally {
            deliveries: 6,
            ..Tally::default()
        };
        assert_eq!(*checker.tally(), expected);
    }

    #[test]
    fn a_message_that_is_not_what_was_said_is_corrupt() {
        let mut checker = checker(2, 1);
        queue(&mut checker, 1, 0);
        let mut damaged = relayed(line(0, 0));
        *damaged.last_mut().unwrap() ^= 1;
        checker.check(1, &damaged, ns(10)).unwrap();
        let expected = Tally {
            deliveries: 1,
            corrupt: 1,
            ..Tally::default()
        };
        assert_eq!(*checker.tally(), expected);
        // Under another's name, of nobody, of the future, and one's own: never said to this one.
        let mut renamed = relayed(line(0, 0));
        renamed[19] = b'1';
        let nobody = relayed(line(9, 0));
        let future = relayed(line(0, 7));
        for (corrupt, bytes) in (2..).zip([renamed, nobody, future]) {
            checker.check(1, &bytes, ns(10)).unwrap();
            assert_eq!(checker.tally().corrupt, corrupt);
        }
        checker.check(0, &relayed(line(0, 0)), ns(10)).unwrap();
        assert_eq!(checker.tally().corrupt, 5);
        assert_eq!(checker.tally().deliveries, 1);
    }

    #[test]
    fn what_others_say_in_the_room_is_foreign() {
        let mut checker = checker(2, 1);
        queue(&mut checker, 1, 0);
        let mut stream = Vec::new();
        for part in ["alice", "hi", "tag-bob", "ho"] {
            encode_frame(part.as_bytes(), &mut stream);
        }
        stream.extend(relayed(line(0, 0)));
        checker.check(1, &stream, ns(10)).unwrap();
        let expected = Tally {
            deliveries: 1,
            foreign: 2,
            ..Tally::default()
        };
        assert_eq!(*checker.tally(), expected);
    }

    #[test]
    fn a_stream_out_of_step_is_garbled() {
        let mut checker = checker(2, 1);
        queue(&mut checker, 1, 0);
        assert_eq!(checker.check(1, b"no header at all", ns(10)), Err(Garbled));
    }

    #[test]
    fn the_beginning_of_a_message_is_left_for_later() {
        let mut checker = checker(2, 1);
        queue(&mut checker, 2, 0);
        let one = relayed(line(0, 0));
        let stream = [&one[..], &relayed(line(0, 1))[..7]].concat();
        assert_eq!(checker.check(1, &stream, ns(10)), Ok((one.len(), false)));
        for end in 0..one.len() {
            assert_eq!(
                checker.check(1, &relayed(line(0, 1))[..end], ns(10)),
                Ok((0, false))
            );
        }
    }

    #[test]
    fn what_is_to_come_when_a_connection_ends_is_lost_unless_it_was_ended_from_here() {
        for (was_cut, lost) in [(true, 2), (false, 0)] {
            let mut checker = checker(3, 1);
            queue(&mut checker, 3, 0);
            check(&mut checker, 1, &[line(0, 0)]);
            checker.leave(1, was_cut);
            assert_eq!(checker.tally().lost, lost);
            assert_eq!(checker.outstanding(), 3);
            assert_eq!(checker.present(), 2);
        }
    }

    #[test]
    fn what_is_given_up_is_lost() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 3, 0);
        check(&mut checker, 1, &[line(0, 0)]);
        checker.give_up();
        assert_eq!(checker.tally().lost, 5);
        assert_eq!(checker.outstanding(), 0);
    }

    #[test]
    fn what_comes_after_it_was_given_up_is_a_delivery_and_was_lost() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 1, 0);
        checker.give_up();
        check(&mut checker, 1, &[line(0, 0)]);
        check(&mut checker, 2, &[line(0, 0)]);
        assert_eq!((checker.tally().lost, checker.tally().deliveries), (2, 2));
        assert_eq!(checker.outstanding(), 0);
    }

    #[test]
    fn a_newcomer_is_here_from_the_first_message_that_it_hears() {
        let mut checker = checker(3, 2);
        checker.leave(2, false);
        queue(&mut checker, 2, 0);
        assert_eq!(checker.outstanding(), 2);
        assert!(!checker.is_present(2));
        check(&mut checker, 1, &[line(0, 0), line(0, 1)]);
        check(&mut checker, 2, &[line(0, 1)]);
        assert!(checker.is_present(2));
        queue(&mut checker, 1, 0);
        assert_eq!(checker.outstanding(), 2);
        check(&mut checker, 1, &[line(0, 2)]);
        check(&mut checker, 2, &[line(0, 2)]);
        assert_eq!(checker.outstanding(), 0);
        let expected = Tally {
            deliveries: 5,
            ..Tally::default()
        };
        assert_eq!(*checker.tally(), expected);
    }

    #[test]
    fn who_comes_back_may_be_told_what_it_said_before() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 2, 0);
        check(&mut checker, 1, &[line(0, 0), line(0, 1)]);
        checker.leave(0, false);
        check(&mut checker, 0, &[line(0, 0), line(0, 1)]);
        assert_eq!(checker.tally().corrupt, 0);
        assert!(!checker.is_present(0));
        queue(&mut checker, 1, 0);
        check(&mut checker, 0, &[line(0, 2)]);
        assert_eq!(checker.tally().corrupt, 1);
    }

    #[test]
    fn what_was_said_to_nobody_is_no_loss_to_those_who_come_later() {
        let mut checker = checker(3, 1);
        checker.leave(1, false);
        checker.leave(2, false);
        queue(&mut checker, 2, 0);
        check(&mut checker, 1, &[line(0, 1)]);
        check(&mut checker, 2, &[line(0, 1)]);
        assert_eq!(checker.tally().lost, 0);
        assert_eq!(checker.present(), 3);
        assert_eq!(checker.outstanding(), 0);
    }

    #[test]
    fn what_everybody_has_heard_is_dropped() {
        let mut checker = checker(3, 2);
        for seq in 0..5000 {
            queue(&mut checker, 1, 0);
            check(&mut checker, 1, &[line(0, seq)]);
            check(&mut checker, 2, &[line(0, seq)]);
        }
        let most = 2 * MIN_TRIM_MESSAGES;
        assert!(checker.order.entries.len() <= most);
        assert!(checker.senders[0].times.len() <= most);
        assert_eq!(checker.tally().deliveries, 10_000);
    }

    #[test]
    fn large_messages_are_dropped_before_they_are_many() {
        const LARGE_PIECE: usize = 1024 * 1024;
        let mut checker = new_checker(LARGE_PIECE, 2, 1);
        checker.expect(0);
        checker.expect(1);
        let mut said = Vec::new();
        for _ in 0..20 {
            said.clear();
            checker.queue(0, ns(0), &mut said);
            let mut relayed = Vec::new();
            encode_frame(name_of(0, TAG).as_bytes(), &mut relayed);
            relayed.extend_from_slice(&said);
            checker.check(1, &relayed, ns(1)).unwrap();
            assert!(checker.order.bytes.len() <= MIN_TRIM_BYTES + LARGE_PIECE + 100);
        }
        assert_eq!(checker.tally().deliveries, 20);
    }

    #[test]
    fn who_went_its_own_way_falls_in_again() {
        let mut checker = checker(4, 2);
        for seq in 0..2 * MIN_TRIM_MESSAGES as u32 {
            queue(&mut checker, 1, 0);
            queue(&mut checker, 1, 1);
            check(&mut checker, 2, &[line(0, seq)]);
            let (first, second) = if seq == 0 { (1, 0) } else { (0, 1) };
            check(&mut checker, 3, &[line(first, seq)]);
            check(&mut checker, 2, &[line(1, seq)]);
            check(&mut checker, 3, &[line(second, seq)]);
            if seq == 0 {
                assert_eq!(separate_orders(&checker), 1);
            }
            check(&mut checker, 0, &[line(1, seq)]);
            check(&mut checker, 1, &[line(0, seq)]);
        }
        assert_eq!(separate_orders(&checker), 0);
    }

    /// How a server may treat a message on its way to one member.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fault {
        None,
        Drop,
        Repeat,
        /// It goes after the next one.
        Delay,
    }

    fn fault() -> impl Strategy<Value = Fault> {
        prop_oneof![
            12 => Just(Fault::None),
            1 => Just(Fault::Drop),
            1 => Just(Fault::Repeat),
            1 => Just(Fault::Delay),
        ]
    }

    /// What a member is sent, of what is said in this order.
    fn sent_to(receiver: u32, order: &[MessageId], faults: &[Fault]) -> Vec<MessageId> {
        let mut sent = Vec::new();
        let mut late = None;
        let others = order.iter().filter(|line| line.sender != receiver);
        for (&line, fault) in others.zip(faults.iter().cycle()) {
            match fault {
                Fault::None => sent.push(line),
                Fault::Drop => {}
                Fault::Repeat => sent.extend([line, line]),
                Fault::Delay => {
                    sent.extend(late.replace(line));
                    continue;
                }
            }
            sent.extend(late.take());
        }
        sent.extend(late);
        sent
    }

    /// What a tally has to be: each receiver's stream by itself, in the plainest way.
    fn counted(streams: &[Vec<MessageId>], said: &[u32]) -> Tally {
        let mut tally = Tally::default();
        for (receiver, stream) in streams.iter().enumerate() {
            for (sender, &said) in (0..).zip(said) {
                if sender as usize == receiver {
                    continue;
                }
                let mut heard = BTreeSet::new();
                for line in stream.iter().filter(|line| line.sender == sender) {
                    let is_late = heard.last().is_some_and(|&last| last > line.seq);
                    if heard.insert(line.seq) {
                        tally.deliveries += 1;
                        tally.out_of_order += u64::from(is_late);
                    } else {
                        tally.duplicated += 1;
                    }
                }
                tally.lost += u64::from(said) - heard.len() as u64;
            }
        }
        tally
    }

    /// Has all hear what they are sent, in pieces of these sizes, by turns of these receivers.
    fn play(checker: &mut DeliveryChecker, streams: &[Vec<MessageId>], reads: &[(usize, usize)]) {
        let streams: Vec<Vec<u8>> = streams
            .iter()
            .map(|lines| lines.iter().flat_map(|&line| relayed(line)).collect())
            .collect();
        // How far each has read, and how much of that was taken.
        let mut at = vec![(0_usize, 0_usize); streams.len()];
        let turns = reads
            .iter()
            .copied()
            .map(|(receiver, len)| (receiver % streams.len(), len));
        let rest = (0..streams.len()).map(|receiver| (receiver, usize::MAX));
        for (receiver, len) in turns.chain(rest) {
            let (read, taken) = &mut at[receiver];
            *read = read.saturating_add(len).min(streams[receiver].len());
            *taken += checker
                .check(receiver, &streams[receiver][*taken..*read], ns(10))
                .unwrap()
                .0;
            let owed: u64 = (0..streams.len())
                .map(|receiver| checker.owed(receiver))
                .sum();
            assert_eq!(checker.outstanding(), owed);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// A server with one order for all: nobody needs to go its own way, so that what is compared
        /// byte by byte is all of it but the first hearing.
        #[test]
        fn all_stay_in_step_with_one_order(
            order in prop::collection::vec(0..5_u32, 1..60),
            reads in prop::collection::vec((0..6_usize, 1..200_usize), 0..200),
        ) {
            let mut checker = checker(6, 5);
            let mut said = vec![0; 5];
            let order: Vec<MessageId> = order
                .into_iter()
                .map(|sender| {
                    queue(&mut checker, 1, sender);
                    said[sender as usize] += 1;
                    line(sender, said[sender as usize] - 1)
                })
                .collect();
            let streams: Vec<_> = (0..6).map(|receiver| sent_to(receiver, &order, &[Fault::None])).collect();
            play(&mut checker, &streams, &reads);
            prop_assert_eq!(*checker.tally(), counted(&streams, &said));
            prop_assert_eq!(checker.outstanding(), 0);
            prop_assert_eq!(separate_orders(&checker), 0);
        }

        /// Whatever a server does with its messages, and in whatever order whoever reads, what is
        /// counted is what each was sent.
        #[test]
        fn faults_are_counted_for_what_they_are(
            orders in prop::collection::vec(prop::collection::vec(0..4_u32, 30), 5),
            faults in prop::collection::vec(prop::collection::vec(fault(), 1..40), 5),
            reads in prop::collection::vec((0..5_usize, 1..200_usize), 0..200),
            one_order in any::<bool>(),
        ) {
            let mut checker = checker(5, 4);
            for sender in 0..4 {
                queue(&mut checker, 30, sender);
            }
            // Each hears the senders take turns as its order says, or all as the first one's.
            let streams: Vec<_> = (0..5)
                .map(|receiver| {
                    let mut said = [0; 4];
                    let order = &orders[if one_order { 0 } else { receiver }];
                    let rest = (0..4).cycle().take(4 * 30);
                    let mut turns: Vec<MessageId> = Vec::new();
                    for sender in order.iter().copied().chain(rest) {
                        let seq = &mut said[sender as usize];
                        if *seq < 30 {
                            turns.push(line(sender, *seq));
                            *seq += 1;
                        }
                    }
                    sent_to(receiver as u32, &turns, &faults[receiver])
                })
                .collect();
            play(&mut checker, &streams, &reads);
            checker.give_up();
            prop_assert_eq!(*checker.tally(), counted(&streams, &[30; 4]));
        }
    }
}
