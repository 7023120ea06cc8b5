//! The delivery checker: it compares every byte that each receiver gets with the messages that
//! were sent. It does no I/O.
//!
//! A receiver must get each message of the other members once, whole, and in its sender's order.
//! Nearly always all receivers get the same messages in the same order, each without its own. So
//! the bytes that the first of them receives are checked in full and kept, and the bytes of the
//! others are compared with them, many messages at a time. That costs less than the system call
//! that read them, and no byte is left unchecked.
//!
//! ```text
//!   kept, in the order in which it was first received   [0:0][1:0][0:1][2:0][0:2]
//!   receiver 0, which gets all but its own                         ^ next for it is 2:0
//!   receiver 3, in an order of its own: it got 1:0 before 0:0      is checked by itself
//! ```
//!
//! A receiver whose bytes differ is not necessarily wrong, since only the order of each sender is
//! promised. From there on it is checked by itself: which message of each sender is next for it,
//! and which are missing.

use std::collections::{BTreeSet, VecDeque};

use super::delays::Delays;
use super::message::{MessageFormat, MessageId, Reading};
use super::protocol::{Garbled, Incoming, Protocol, index_of};

/// Messages that all receivers have got are dropped after at least so many were sent.
const MIN_TRIM_MESSAGES: usize = 1024;

/// The same for the bytes that are kept.
const MIN_TRIM_BYTES: usize = 8 * 1024 * 1024;

/// A `Tally` counts what became of the deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Messages that arrived, counted once for each receiver.
    pub(super) deliveries: u64,
    /// Messages that did not arrive at a receiver.
    pub(super) lost: u64,
    /// Messages that arrived at a receiver twice.
    pub(super) duplicated: u64,
    /// Messages that arrived after a later one of the same sender.
    pub(super) out_of_order: u64,
    /// Messages that were not what was sent.
    pub(super) corrupt: u64,
    /// Messages of clients that are not this run's.
    pub(super) foreign: u64,
}

/// A `DeliveryChecker` knows all messages that are sent in a run, and how far each receiver has
/// got them.
#[derive(Debug)]
pub(super) struct DeliveryChecker {
    protocol: Protocol,
    tag: String,
    script: MessageFormat,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    /// The messages that some receivers have got and others may still get, in the order of their
    /// first arrival, and the bytes in which they came, all of the same length.
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    len: usize,
    /// The number of messages that were dropped before the first entry. Positions count them.
    dropped: u64,
    /// The number of sent messages at which some may be dropped again.
    trim_at: u64,
    /// The number of kept bytes at which the same is tried.
    trim_bytes: usize,
    /// How many messages have been said.
    said: u64,
    /// How many receivers are here.
    here: usize,
    /// How many deliveries are to come.
    outstanding: u64,
    tally: Tally,
    /// How long each delivery took, of the messages that are measured.
    delays: Delays,
    measured_from: u64,
    payload: Vec<u8>,
}

#[derive(Debug)]
struct Sender {
    /// The receiver on the same connection, if there is one.
    receiver: Option<usize>,
    said: u32,
    /// The next of its messages that no receiver has got yet.
    unheard: u32,
    /// When each message from `times_from` on was to be sent.
    times: VecDeque<u64>,
    times_from: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    line: MessageId,
    /// When it was to be sent.
    sent: u64,
}

#[derive(Debug)]
struct Receiver {
    place: Place,
    /// The number of messages that will not arrive any more: received, lost, or sent before it was
    /// present.
    settled: u64,
    /// Which sender it is.
    sender: Option<u32>,
    /// The positions of its own messages, which it does not receive.
    own: VecDeque<u64>,
    /// The number of messages that it had sent when it last left. It may receive those, as a
    /// history.
    said_before: u32,
}

/// The next message of a receiver.
#[derive(Debug)]
enum Place {
    /// It is not known to be a member: nothing must arrive, and anything may.
    Away,
    /// The message at this position of the shared order.
    Shared(u64),
    /// It receives in an order of its own.
    SeparateOrder(Box<SeparateOrder>),
}

#[derive(Debug)]
struct SeparateOrder {
    /// The next message of each sender.
    next: Vec<u32>,
    /// Earlier ones that have not come.
    missing: BTreeSet<MessageId>,
}

impl DeliveryChecker {
    /// For this many receivers, none of them present yet, and senders, which in a chat are the
    /// first of the receivers.
    pub(super) fn new(
        protocol: Protocol,
        tag: &str,
        script: MessageFormat,
        receivers: usize,
        senders: usize,
    ) -> Self {
        let apart = protocol.is_broker();
        Self {
            protocol,
            tag: tag.to_owned(),
            script,
            senders: (0..senders)
                .map(|index| Sender {
                    receiver: (!apart).then_some(index),
                    said: 0,
                    unheard: 0,
                    times: VecDeque::new(),
                    times_from: 0,
                })
                .collect(),
            receivers: (0..receivers)
                .map(|index| Receiver {
                    place: Place::Away,
                    settled: 0,
                    sender: (!apart && index < senders).then_some(index as u32),
                    own: VecDeque::new(),
                    said_before: 0,
                })
                .collect(),
            entries: VecDeque::new(),
            bytes: Vec::new(),
            len: 0,
            dropped: 0,
            trim_at: MIN_TRIM_MESSAGES as u64,
            trim_bytes: MIN_TRIM_BYTES,
            said: 0,
            here: 0,
            outstanding: 0,
            tally: Tally::default(),
            delays: Delays::new(),
            measured_from: u64::MAX,
            payload: Vec::new(),
        }
    }

    /// Appends a sender's next message, which was scheduled for `sent`, to `out`.
    pub(super) fn queue(&mut self, sender: u32, sent: u64, out: &mut Vec<u8>) {
        let speaking = &mut self.senders[sender as usize];
        let line = MessageId {
            sender,
            seq: speaking.said,
        };
        speaking.said += 1;
        speaking.times.push_back(sent);
        self.script.write(line, &mut self.payload);
        self.protocol.queue(&self.payload, &self.tag, out);
        self.said += 1;
        let hears_itself = speaking
            .receiver
            .is_some_and(|receiver| self.is_present(receiver));
        self.outstanding += (self.here - usize::from(hears_itself)) as u64;
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
        now: u64,
    ) -> Result<(usize, bool), Garbled> {
        let mut rest = input;
        let mut welcomed = false;
        loop {
            rest = self.compare(receiver, rest, now);
            let Some((incoming, used)) = self.protocol.next(rest)? else {
                break;
            };
            let (taken, after) = rest.split_at(used);
            rest = after;
            match incoming {
                Incoming::Welcome => welcomed = true,
                Incoming::Aside => {}
                Incoming::Message { name, payload } => {
                    self.take(receiver, name, payload, taken, now);
                }
            }
        }
        if self.said >= self.trim_at || self.bytes.len() >= self.trim_bytes {
            self.trim();
        }
        Ok((input.len() - rest.len(), welcomed))
    }

    /// Requires a receiver to get every message that is sent from now on.
    pub(super) fn expect(&mut self, receiver: usize) {
        if !self.is_present(receiver) {
            self.receivers[receiver].place = Place::Shared(self.end());
            self.receivers[receiver].settled = 0;
            self.receivers[receiver].settled = self.owed(receiver);
            self.here += 1;
        }
    }

    /// Removes a receiver. Its outstanding deliveries are lost if it `was_cut`, and no loss if it
    /// left.
    pub(super) fn leave(&mut self, receiver: usize, was_cut: bool) {
        if self.is_present(receiver) {
            let owed = self.owed(receiver);
            self.here -= 1;
            self.outstanding -= owed;
            if was_cut {
                self.tally.lost += owed;
            }
        }
        let leaving = &mut self.receivers[receiver];
        leaving.place = Place::Away;
        leaving.own.clear();
        if let Some(own) = leaving.sender {
            leaving.said_before = self.senders[own as usize].said;
        }
    }

    /// The number of receivers.
    pub(super) fn receivers(&self) -> usize {
        self.receivers.len()
    }

    /// The number of senders.
    pub(super) fn senders(&self) -> u32 {
        self.senders.len() as u32
    }

    /// Whether a receiver has got anything since it joined.
    pub(super) fn is_present(&self, receiver: usize) -> bool {
        !matches!(self.receivers[receiver].place, Place::Away)
    }

    /// The number of receivers that have got something since they joined.
    pub(super) const fn present(&self) -> usize {
        self.here
    }

    /// How many deliveries are to come.
    pub(super) const fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// How many messages have been said.
    pub(super) const fn messages(&self) -> u64 {
        self.said
    }

    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How long the deliveries took, of the messages that are measured.
    pub(super) const fn delays(&self) -> &Delays {
        &self.delays
    }

    /// Measures the messages that are to be sent from this time on, and forgets what was measured
    /// before.
    pub(super) fn measure_from(&mut self, time: u64) {
        self.delays = Delays::new();
        self.measured_from = time;
    }

    /// Gives up what has not come: it is lost.
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

    fn owed(&self, receiver: usize) -> u64 {
        let hearing = &self.receivers[receiver];
        let own = hearing
            .sender
            .map_or(0, |sender| u64::from(self.senders[sender as usize].said));
        // It is below zero only if a server sends messages that were never sent to it.
        (self.said - own).saturating_sub(hearing.settled)
    }

    /// Compares the messages at the beginning of the input with those that are next for this
    /// receiver, and counts those that are the same byte for byte. Returns the rest of the input.
    fn compare<'a>(&mut self, receiver: usize, mut rest: &'a [u8], now: u64) -> &'a [u8] {
        let len = self.len;
        let Receiver {
            place: Place::Shared(at),
            own,
            ..
        } = &mut self.receivers[receiver]
        else {
            return rest;
        };
        let mut taken = 0;
        while rest.len() >= len {
            if own.front() == Some(at) {
                own.pop_front();
                *at += 1;
                continue;
            }
            let first = (*at - self.dropped) as usize;
            let until = own
                .front()
                .map_or(self.entries.len(), |own| (own - self.dropped) as usize);
            let mut count = (until - first).min(rest.len().checked_div(len).unwrap_or(0));
            let kept = &self.bytes[first * len..][..count * len];
            let all = count;
            if rest[..count * len] != *kept {
                let pairs = rest.chunks_exact(len).zip(kept.chunks_exact(len));
                count = pairs.take_while(|(came, kept)| came == kept).count();
            }
            if count == 0 {
                break;
            }
            let heard = self.entries.range(first..first + count);
            record(&mut self.delays, self.measured_from, heard, now);
            rest = &rest[count * len..];
            *at += count as u64;
            taken += count as u64;
            if count < all {
                break;
            }
        }
        self.tally.deliveries += taken;
        self.settle(receiver, taken);
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
        if name.is_some_and(|name| index_of(name, &self.tag).is_none()) {
            self.tally.foreign += 1;
            return;
        }
        let (line, whole) = match self.script.read(payload) {
            Reading::Whole(line) => (line, true),
            Reading::Damaged(line) => (line, false),
            Reading::Unreadable => {
                self.tally.corrupt += 1;
                return;
            }
        };
        let was_said = self
            .senders
            .get(line.sender as usize)
            .is_some_and(|sender| line.seq < sender.said);
        let named = name.is_none_or(|name| index_of(name, &self.tag) == Some(line.sender));
        let own = self.receivers[receiver].sender == Some(line.sender);
        if own && line.seq < self.receivers[receiver].said_before {
            // A server may send a history to new members, and this one has joined again.
            return;
        }
        if !was_said || !named || own {
            self.tally.corrupt += 1;
            return;
        }
        if !whole {
            self.tally.corrupt += 1;
        }
        let bytes = whole.then_some(bytes);
        match self.receivers[receiver].place {
            Place::Away => {
                self.insert(line, bytes, self.end());
                self.become_present(receiver, line);
            }
            // It is the first to receive what is next, or shows where that belongs.
            Place::Shared(at) => {
                if self.insert(line, bytes, at) {
                    self.receivers[receiver].place = Place::Shared(at + 1);
                    self.count(receiver, line, now);
                } else {
                    self.leave_shared_order(receiver, at);
                    self.take_separately(receiver, line, now);
                }
            }
            Place::SeparateOrder(_) => self.take_separately(receiver, line, now),
        }
    }

    /// The position after the last message that is kept.
    fn end(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }

    /// Inserts a message at this position of the shared order, where a receiver has got it, if it
    /// is whole and does not contradict what other receivers have got. Returns whether it is
    /// there.
    ///
    /// Usually the message is new, and the position is the end. But the first receiver does not
    /// get its own messages. The second one gets them between those that are kept, and inserts
    /// them there; or rather before or after its own messages, which it does not get either, so
    /// that the third receiver may correct the place.
    fn insert(&mut self, line: MessageId, bytes: Option<&[u8]>, position: u64) -> bool {
        let Some(bytes) = bytes.filter(|bytes| self.len == 0 || bytes.len() == self.len) else {
            return false;
        };
        let from = (position - self.dropped) as usize;
        let sender = &self.senders[line.sender as usize];
        let own = sender.receiver;
        let kept = (line.seq < sender.unheard).then(|| {
            self.entries
                .range(from..)
                .position(|entry| entry.line == line)
        });
        let entry = match kept {
            Some(Some(index)) => self.entries[from + index],
            // All receivers that needed it have got it before.
            Some(None) => return false,
            None => {
                // If no receiver has got some message before it, those in the shared order would
                // skip the gap with it, and must detect it. If none is in that order, there was
                // none to receive them.
                let misses = |receiver: &Receiver| {
                    matches!(receiver.place, Place::Shared(_))
                        && receiver.sender != Some(line.sender)
                };
                if line.seq > sender.unheard && self.receivers.iter().any(misses) {
                    return false;
                }
                let at = line.seq.checked_sub(sender.times_from);
                let Some(&sent) = at.and_then(|at| sender.times.get(at as usize)) else {
                    return false;
                };
                Entry { line, sent }
            }
        };
        let kept = kept.flatten().map(|index| from + index);
        // It must not stand before another message of its sender.
        let mut passed = self.entries.range(from..kept.unwrap_or(self.entries.len()));
        if passed.any(|entry| entry.line.sender == line.sender) {
            return false;
        }
        if position < self.end() && !self.make_room(position, own, kept) {
            return false;
        }
        let len = bytes.len();
        self.len = len;
        if let Some(index) = kept {
            self.entries.remove(index);
            self.bytes[from * len..(index + 1) * len].rotate_right(len);
        } else {
            self.senders[line.sender as usize].unheard = line.seq + 1;
            let place = from * len..from * len;
            self.bytes.splice(place, bytes.iter().copied());
        }
        self.entries.insert(from, entry);
        if position + 1 < self.end() {
            self.index_own(position);
        } else if let Some(own) = own
            && matches!(self.receivers[own].place, Place::Shared(_))
        {
            self.receivers[own].own.push_back(position);
        }
        true
    }

    /// Makes room for a message of this receiver's own at a position where others stand now. The
    /// message is new, or `kept` at a later index. Returns whether it may stand there.
    ///
    /// A receiver that is beyond the position and is not its sender would have missed it or got it
    /// later, unless the messages before it were its own.
    fn make_room(&mut self, position: u64, own: Option<usize>, kept: Option<usize>) -> bool {
        let from = (position - self.dropped) as usize;
        let kept = kept.map_or(u64::MAX, |index| self.dropped + index as u64);
        for (index, receiver) in self.receivers.iter().enumerate() {
            if let Place::Shared(at) = receiver.place
                && at > position
                && own != Some(index)
            {
                let before = (at.min(kept) - self.dropped) as usize;
                let mut before = self.entries.range(from..before);
                if !before.all(|entry| receiver.sender == Some(entry.line.sender)) {
                    return false;
                }
            }
        }
        for (index, receiver) in self.receivers.iter_mut().enumerate() {
            if let Place::Shared(at) = &mut receiver.place
                && *at > position
                && *at <= kept
            {
                // Its sender has passed it; for other receivers it is next.
                *at = if own == Some(index) {
                    *at + 1
                } else {
                    position
                };
            }
        }
        true
    }

    /// Lists again, from this position on, the messages of each receiver's own.
    fn index_own(&mut self, position: u64) {
        for receiver in &mut self.receivers {
            let before = receiver.own.partition_point(|&own| own < position);
            receiver.own.truncate(before);
        }
        let from = (position - self.dropped) as usize;
        for (position, entry) in (position..).zip(self.entries.range(from..)) {
            if let Some(own) = self.senders[entry.line.sender as usize].receiver
                && let Place::Shared(at) = self.receivers[own].place
                && at <= position
            {
                self.receivers[own].own.push_back(position);
            }
        }
    }

    /// Marks a receiver as present: it must get every message after this one.
    fn become_present(&mut self, receiver: usize, line: MessageId) {
        let Some(index) = self.entries.iter().rposition(|entry| entry.line == line) else {
            return;
        };
        let after = self.dropped + index as u64 + 1;
        self.receivers[receiver].place = Place::Shared(after);
        self.index_own(after);
        // The messages that were sent after this one are outstanding.
        let own = self.receivers[receiver].sender;
        let next = self.next_from(index + 1);
        let to_come: u64 = (0..)
            .zip(self.senders.iter().zip(next))
            .filter(|&(sender, _)| own != Some(sender))
            .map(|(_, (sender, next))| u64::from(sender.said - next))
            .sum();
        self.receivers[receiver].settled = 0;
        self.receivers[receiver].settled = self.owed(receiver) - to_come;
        self.here += 1;
        self.outstanding += to_come;
        self.tally.deliveries += 1;
    }

    /// The next message of each sender for a receiver that has got all messages before this index.
    fn next_from(&self, index: usize) -> Vec<u32> {
        let mut next: Vec<u32> = self.senders.iter().map(|one| one.unheard).collect();
        for entry in self.entries.range(index..).rev() {
            next[entry.line.sender as usize] = entry.line.seq;
        }
        next
    }

    /// Gives a receiver an order of its own.
    fn leave_shared_order(&mut self, receiver: usize, at: u64) {
        let next = self.next_from((at - self.dropped) as usize);
        let parting = &mut self.receivers[receiver];
        parting.own = VecDeque::new();
        parting.place = Place::SeparateOrder(Box::new(SeparateOrder {
            next,
            missing: BTreeSet::new(),
        }));
    }

    fn take_separately(&mut self, receiver: usize, line: MessageId, now: u64) {
        let Place::SeparateOrder(way) = &mut self.receivers[receiver].place else {
            return;
        };
        let next = &mut way.next[line.sender as usize];
        if line.seq >= *next {
            let skipped = (*next..line.seq).map(|seq| MessageId { seq, ..line });
            let lost = u64::from(line.seq - *next);
            way.missing.extend(skipped);
            *next = line.seq + 1;
            self.count(receiver, line, now);
            // Until they come after all.
            self.tally.lost += lost;
            self.settle(receiver, lost);
        } else if way.missing.remove(&line) {
            self.tally.lost -= 1;
            self.tally.out_of_order += 1;
            self.tally.deliveries += 1;
        } else {
            self.tally.duplicated += 1;
        }
    }

    /// Counts a delivery.
    fn count(&mut self, receiver: usize, line: MessageId, now: u64) {
        let sender = &self.senders[line.sender as usize];
        let at = line.seq.checked_sub(sender.times_from);
        if let Some(&sent) = at.and_then(|at| sender.times.get(at as usize)) {
            let entry = Entry { line, sent };
            record(&mut self.delays, self.measured_from, [&entry], now);
        }
        self.tally.deliveries += 1;
        self.settle(receiver, 1);
    }

    /// Settles some messages of a receiver: fewer than `count`, if they were given up before.
    fn settle(&mut self, receiver: usize, count: u64) {
        let count = count.min(self.owed(receiver));
        self.receivers[receiver].settled += count;
        self.outstanding -= count;
    }

    /// Drops the messages that all receivers have got.
    fn trim(&mut self) {
        let mut keep_from = self.end();
        for receiver in &mut self.receivers {
            if let Place::Shared(at) = &mut receiver.place {
                // A receiver that gets nothing does not move past its own messages by itself.
                while receiver.own.front() == Some(at) {
                    receiver.own.pop_front();
                    *at += 1;
                }
                keep_from = keep_from.min(*at);
            }
        }
        let drop = (keep_from - self.dropped) as usize;
        self.entries.drain(..drop);
        self.bytes.drain(..drop * self.len);
        self.dropped = keep_from;
        self.rejoin_shared_order();
        // The times of sending are kept for as long as a receiver with an order of its own may get
        // the message.
        let mut next = self.next_from(0);
        let in_step = |receiver: &Receiver| matches!(receiver.place, Place::Shared(_));
        if !self.receivers.iter().any(in_step) {
            // Then nothing is kept for messages that no receiver has got.
            next = self.senders.iter().map(|sender| sender.said).collect();
        }
        for receiver in &self.receivers {
            if let Place::SeparateOrder(way) = &receiver.place {
                for (sender, (next, own)) in next.iter_mut().zip(&way.next).enumerate() {
                    if receiver.sender != Some(sender as u32) {
                        *next = (*next).min(*own);
                    }
                }
            }
        }
        for (sender, next) in self.senders.iter_mut().zip(next) {
            let passed = next.saturating_sub(sender.times_from);
            sender.times.drain(..passed as usize);
            sender.times_from += passed;
        }
        self.trim_at = self.said + MIN_TRIM_MESSAGES.max(2 * self.entries.len()) as u64;
        self.trim_bytes = MIN_TRIM_BYTES.max(2 * self.bytes.len());
    }

    /// Returns receivers to the shared order that have got all messages up to some position, and
    /// none after it.
    fn rejoin_shared_order(&mut self) {
        for index in 0..self.receivers.len() {
            let receiver = &self.receivers[index];
            if let Place::SeparateOrder(way) = &receiver.place
                && way.missing.is_empty()
                && let Some(at) = self.position_of(&way.next, receiver.sender)
            {
                self.receivers[index].place = Place::Shared(at);
                let position = self.dropped;
                self.index_own(position);
            }
        }
    }

    /// The position before which a receiver with these next messages has got every message, and
    /// after which none, if there is one.
    fn position_of(&self, next: &[u32], own: Option<u32>) -> Option<u64> {
        let is_own = |sender: usize| own == Some(sender as u32);
        let is_next = |entry: &Entry| {
            let sender = entry.line.sender as usize;
            !is_own(sender) && entry.line.seq >= next[sender]
        };
        let first = self.entries.iter().position(is_next);
        let first = first.unwrap_or(self.entries.len());
        // What is next from there on, if the receiver has heard all before it.
        let expected = self.next_from(first);
        let mut pairs = next.iter().zip(&expected).enumerate();
        pairs
            .all(|(sender, (next, expected))| is_own(sender) || next == expected)
            .then_some(self.dropped + first as u64)
    }
}

/// Records the delays of messages that have arrived now. Messages that were sent together have the
/// same delay.
fn record<'a>(
    delays: &mut Delays,
    measured_from: u64,
    heard: impl IntoIterator<Item = &'a Entry>,
    now: u64,
) {
    // When the messages of a run were sent, and how many there are.
    let (mut sent, mut count) = (measured_from, 0);
    for entry in heard {
        if entry.sent != sent {
            if count > 0 {
                delays.record(now.saturating_sub(sent), count);
            }
            (sent, count) = (entry.sent, 0);
        }
        count += u64::from(entry.sent >= measured_from);
    }
    if count > 0 {
        delays.record(now.saturating_sub(sent), count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::name_of;
    use super::*;
    use crate::wire::encode_frame;
    use proptest::prelude::*;

    const TAG: &str = "tag";
    const SIZE: usize = 20;

    /// A checker in which these hear, and the first so many of them speak.
    fn checker(receivers: usize, senders: usize) -> DeliveryChecker {
        let script = MessageFormat::new(SIZE, 2, 1);
        let mut checker = DeliveryChecker::new(Protocol::Chat10, TAG, script, receivers, senders);
        checker.measure_from(0);
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
            checker.queue(sender, 5, &mut Vec::new());
        }
    }

    fn check(checker: &mut DeliveryChecker, receiver: usize, lines: &[MessageId]) {
        for &line in lines {
            let bytes = relayed(line);
            let taken = checker.check(receiver, &bytes, 10).unwrap();
            assert_eq!(taken, (bytes.len(), false));
        }
    }

    fn own_ways(checker: &DeliveryChecker) -> usize {
        let own_way = |receiver: &&Receiver| matches!(receiver.place, Place::SeparateOrder(_));
        checker.receivers.iter().filter(own_way).count()
    }

    #[test]
    fn what_is_said_is_what_a_server_takes_for_a_message() {
        let mut checker = checker(2, 1);
        let mut said = Vec::new();
        checker.queue(0, 0, &mut said);
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
            (3, Some(5))
        );
    }

    #[test]
    fn only_what_was_to_be_sent_late_enough_is_measured() {
        let mut checker = checker(2, 1);
        checker.measure_from(100);
        for sent in [99, 100, 150] {
            checker.queue(0, sent, &mut Vec::new());
        }
        let stream: Vec<u8> = (0..3).flat_map(|seq| relayed(line(0, seq))).collect();
        checker.check(1, &stream, 160).unwrap();
        let delays = checker.delays();
        assert_eq!(delays.times().unwrap().samples, 2);
        assert_eq!(
            [0.5, 1.0].map(|part| delays.quantile(part)),
            [Some(10), Some(60)]
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
        checker.check(1, &damaged, 10).unwrap();
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
            checker.check(1, &bytes, 10).unwrap();
            assert_eq!(checker.tally().corrupt, corrupt);
        }
        checker.check(0, &relayed(line(0, 0)), 10).unwrap();
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
        checker.check(1, &stream, 10).unwrap();
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
        assert_eq!(checker.check(1, b"no header at all", 10), Err(Garbled));
    }

    #[test]
    fn the_beginning_of_a_message_is_left_for_later() {
        let mut checker = checker(2, 1);
        queue(&mut checker, 2, 0);
        let one = relayed(line(0, 0));
        let stream = [&one[..], &relayed(line(0, 1))[..7]].concat();
        assert_eq!(checker.check(1, &stream, 10), Ok((one.len(), false)));
        for end in 0..one.len() {
            assert_eq!(
                checker.check(1, &relayed(line(0, 1))[..end], 10),
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
        assert!(checker.entries.len() <= most);
        assert!(checker.senders[0].times.len() <= most);
        assert!(checker.receivers[0].own.len() <= most);
        assert_eq!(checker.tally().deliveries, 10_000);
    }

    #[test]
    fn large_messages_are_dropped_before_they_are_many() {
        const LARGE_PIECE: usize = 1024 * 1024;
        let mut checker = DeliveryChecker::new(
            Protocol::Chat10,
            TAG,
            MessageFormat::new(LARGE_PIECE, 2, 1),
            2,
            1,
        );
        checker.expect(0);
        checker.expect(1);
        let mut said = Vec::new();
        for _ in 0..20 {
            said.clear();
            checker.queue(0, 0, &mut said);
            let mut relayed = Vec::new();
            encode_frame(name_of(0, TAG).as_bytes(), &mut relayed);
            relayed.extend_from_slice(&said);
            checker.check(1, &relayed, 1).unwrap();
            assert!(checker.bytes.len() <= MIN_TRIM_BYTES + LARGE_PIECE + 100);
        }
        assert_eq!(checker.tally().deliveries, 20);
    }

    #[test]
    fn who_went_its_own_way_falls_in_again() {
        let mut checker = checker(4, 2);
        for seq in 0..2 * MIN_TRIM_MESSAGES as u32 {
            queue(&mut checker, 1, 0);
            queue(&mut checker, 1, 1);
            check(&mut checker, 2, &[line(0, seq), line(1, seq)]);
            let (first, second) = if seq == 0 { (1, 0) } else { (0, 1) };
            check(&mut checker, 3, &[line(first, seq), line(second, seq)]);
            if seq == 0 {
                assert_eq!(own_ways(&checker), 1);
            }
            check(&mut checker, 0, &[line(1, seq)]);
            check(&mut checker, 1, &[line(0, seq)]);
        }
        assert_eq!(own_ways(&checker), 0);
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
                .check(receiver, &streams[receiver][*taken..*read], 10)
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
            prop_assert_eq!(own_ways(&checker), 0);
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
