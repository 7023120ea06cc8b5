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
use super::judge::{Position, Progress, Tally};
use super::message::{Codec, MessageId};
use super::protocol::{Garbled, Incoming};

/// Messages that all receivers have got are dropped after at least so many were sent, or so many
/// bytes are kept.
const MIN_TRIM_MESSAGES: usize = 1024;
const MIN_TRIM_BYTES: usize = 8 * 1024 * 1024;

/// A receiver with an order of its own may be so many messages behind the shared order for its
/// delays to be known.
const MAX_LAG: usize = 16 * 1024;

/// So many messages at a time are searched for one of the receiver's own.
const OWN_BLOCK: usize = 64;

/// The sender on the connection of a receiver that does not send.
const NO_SENDER: u32 = u32::MAX;

/// A `DeliveryChecker` knows all messages that are sent in a run, and how far each receiver has
/// got them.
#[derive(Debug, Default)]
pub(super) struct DeliveryChecker {
    pub(super) codec: Codec,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    /// The shared order: the messages that some receivers have got and others may still get, in
    /// the order in which they are received, and their bytes, `len` for each.
    entries: Vec<MessageId>,
    bytes: Vec<u8>,
    len: usize,
    /// The runs of messages in it that were scheduled for the same time: the index of the first of
    /// them, and that time in nanoseconds.
    runs: Vec<(usize, u64)>,
    /// The number of sent messages, and of kept bytes, at which some may be dropped again.
    trim_at: (u64, usize),
    /// The number of messages that were sent.
    pub(super) sent: u64,
    /// The number of receivers that have got a message since they joined.
    pub(super) present: usize,
    /// The number of deliveries that have not arrived.
    pub(super) outstanding: u64,
    pub(super) tally: Tally,
    /// Whether a ping was among the bytes that were checked last.
    pub(super) is_pinged: bool,
    /// The delays of the messages that were scheduled from this time on, in nanoseconds.
    pub(super) delays: Delays,
    measured_from: u64,
}

#[derive(Debug, Default)]
struct Sender {
    /// The number of its messages.
    sent: u32,
    /// The next of its messages that is not in the shared order yet.
    next: u32,
    /// The times for which its messages from the `times_from`th on were scheduled, in nanoseconds.
    times: VecDeque<u64>,
    times_from: u32,
}

#[derive(Debug, Default)]
struct Receiver {
    place: Place,
    /// Whether its messages are the server's history, until the server has taken it in.
    awaits_welcome: bool,
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
    /// The messages before this index of the shared order, without its own.
    Shared(usize),
    /// It receives in an order of its own.
    Separate(Box<Progress>),
}

impl Sender {
    fn time_of(&self, seq: u32) -> Option<u64> {
        let index = seq.checked_sub(self.times_from)?;
        self.times.get(index as usize).copied()
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
            trim_at: (MIN_TRIM_MESSAGES as u64, MIN_TRIM_BYTES),
            measured_from: u64::MAX,
            ..Self::default()
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

    /// A receiver joins, and is sent the server's history first if there is one.
    pub(super) fn join(&mut self, receiver: usize) {
        self.receivers[receiver].awaits_welcome = self.codec.protocol.has_history();
    }

    /// Appends a sender's next message, which was scheduled for `at`, to `out`.
    pub(super) fn queue(&mut self, sender: u32, at: Duration, out: &mut Vec<u8>) {
        let sending = &mut self.senders[sender as usize];
        let seq = sending.sent;
        sending.sent += 1;
        sending.times.push_back(at.as_nanos() as u64);
        self.codec.write(MessageId { sender, seq }, out);
        self.sent += 1;
        let receives = self.own(sender as usize) == sender && self.is_present(sender as usize);
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
        let mut rest = self.compare(receiver, input, now);
        let mut is_welcome = false;
        while let Some((incoming, used)) = self.codec.protocol.next(rest)? {
            match incoming {
                Incoming::Message { .. } if self.receivers[receiver].awaits_welcome => {}
                Incoming::Message { name, payload } => {
                    self.take(receiver, name, payload, &rest[..used], now);
                }
                Incoming::Welcome => {
                    is_welcome = true;
                    self.receivers[receiver].awaits_welcome = false;
                }
                Incoming::Ping => self.is_pinged = true,
                Incoming::Aside => {}
            }
            rest = self.compare(receiver, &rest[used..], now);
        }
        if self.sent >= self.trim_at.0 || self.bytes.len() >= self.trim_at.1 {
            self.trim();
        }
        Ok((input.len() - rest.len(), is_welcome))
    }

    /// Requires a receiver to get every message that is sent from now on.
    pub(super) fn expect(&mut self, receiver: usize) {
        if !self.is_present(receiver) {
            self.enter(receiver, self.entries.len(), 0);
        }
    }

    /// Adds a receiver to the shared order that must get so many of the messages that were sent.
    fn enter(&mut self, receiver: usize, at: usize, owed: u64) {
        self.receivers[receiver].place = Place::Shared(at);
        self.receivers[receiver].settled = 0;
        self.receivers[receiver].settled = self.owed(receiver) - owed;
        self.outstanding += owed;
        self.present += 1;
    }

    /// Removes a receiver. Its outstanding deliveries are lost if it `was_cut`, and no loss if it
    /// left.
    pub(super) fn leave(&mut self, receiver: usize, was_cut: bool) {
        let owed = self.owed(receiver);
        if self.is_present(receiver) {
            self.present -= 1;
            self.outstanding -= owed;
            self.tally.lost += if was_cut { owed } else { 0 };
        }
        let own = self.senders.get(self.own(receiver) as usize);
        let sent_before = own.map_or(0, |own| own.sent);
        self.receivers[receiver].place = Place::Absent;
        self.receivers[receiver].sent_before = sent_before;
    }

    /// Measures the messages that are scheduled from this time on, and forgets what was measured
    /// before.
    pub(super) fn measure_from(&mut self, time: Duration) {
        self.delays = Delays::default();
        self.measured_from = time.as_nanos() as u64;
    }

    /// Counts the deliveries that have not arrived as lost.
    pub(super) fn give_up(&mut self) {
        self.tally.lost += self.outstanding;
        self.outstanding = 0;
        for receiver in 0..self.receivers.len() {
            self.receivers[receiver].settled += self.owed(receiver);
        }
    }

    /// The sender on the same connection as a receiver.
    fn own(&self, receiver: usize) -> u32 {
        if receiver < self.senders.len() && !self.codec.protocol.is_broker() {
            receiver as u32
        } else {
            NO_SENDER
        }
    }

    /// The number of messages that a receiver has not got.
    fn owed(&self, receiver: usize) -> u64 {
        let own = self.senders.get(self.own(receiver) as usize);
        let own = own.map_or(0, |own| u64::from(own.sent));
        // It is below zero only if a server sends messages that were never sent to it.
        (self.sent - own).saturating_sub(self.receivers[receiver].settled)
    }

    /// Settles some messages of a receiver: fewer than `count`, if they were given up before.
    fn settle(&mut self, receiver: usize, count: u64) {
        let count = count.min(self.owed(receiver));
        self.receivers[receiver].settled += count;
        self.outstanding -= count;
    }

    /// Compares the messages at the beginning of the input with those that are next for this
    /// receiver, and counts those that are the same byte for byte. Returns the rest of the input.
    fn compare<'a>(&mut self, receiver: usize, mut rest: &'a [u8], now: u64) -> &'a [u8] {
        let (own, len) = (self.own(receiver), self.len);
        let Place::Shared(mut at) = self.receivers[receiver].place else {
            return rest;
        };
        let mut deliveries = 0;
        loop {
            let first = skip(&self.entries, at, own);
            let entries = &self.entries[first..];
            let entries = &entries[..entries.len().min(rest.len().checked_div(len).unwrap_or(0))];
            let count = count_of_others(entries, own);
            let expected = &self.bytes[first * len..][..count * len];
            let equal = if rest.starts_with(expected) {
                count
            } else {
                let pairs = rest.chunks_exact(len).zip(expected.chunks_exact(len));
                pairs.take_while(|(got, kept)| got == kept).count()
            };
            if equal == 0 {
                break;
            }
            rest = &rest[equal * len..];
            deliveries += equal as u64;
            at = first + equal;
            self.record_all(first..at, now);
            if equal < count {
                break;
            }
        }
        self.receivers[receiver].place = Place::Shared(at);
        self.tally.deliveries += deliveries;
        self.settle(receiver, deliveries);
        rest
    }

    /// Records the delays of a range of the shared order that has arrived now.
    fn record_all(&mut self, range: Range<usize>, now: u64) {
        let mut run = self.runs.partition_point(|run| run.0 <= range.start);
        let mut from = range.start;
        while from < range.end {
            let until = self
                .runs
                .get(run)
                .map_or(range.end, |next| next.0.min(range.end));
            self.record(self.runs[run - 1].1, now, until - from);
            from = until;
            run += 1;
        }
    }

    /// Records the delay of messages that were scheduled for the same time and have arrived now.
    fn record(&mut self, at: u64, now: u64, count: usize) {
        if at >= self.measured_from {
            self.delays.record(now.saturating_sub(at), count as u64);
        }
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
        let identified = self.tally.identify(&self.codec, name, payload);
        let Some((id, is_whole)) = identified else {
            return;
        };
        let own = self.own(receiver);
        if id.sender == own && id.seq < self.receivers[receiver].sent_before {
            // A server may send a history to new members, and this one has joined again.
            return;
        }
        let sender = self.senders.get(id.sender as usize);
        let is_due = id.sender != own && sender.is_some_and(|sender| id.seq < sender.sent);
        self.tally.corrupt += u64::from(!is_due || !is_whole);
        if !is_due {
            return;
        }
        let bytes = is_whole.then_some(bytes);
        let mut skipped = None;
        match self.receivers[receiver].place {
            Place::Absent => {
                self.insert(own, id, bytes, self.entries.len());
                self.become_present(receiver, id);
            }
            Place::Shared(at) => {
                // It is the first to receive what is next, or shows where that belongs.
                if let Some(index) = self.insert(own, id, bytes, at) {
                    self.receivers[receiver].place = Place::Shared(index + 1);
                    self.tally.deliveries += 1;
                    skipped = Some(0);
                } else {
                    let next = self.next_from(at).into_iter().map(Position::at);
                    let progress = Progress::new(next.collect());
                    self.receivers[receiver].place = Place::Separate(Box::new(progress));
                }
            }
            Place::Separate(_) => {}
        }
        if let Place::Separate(progress) = &mut self.receivers[receiver].place {
            skipped = progress.judge(id.sender as usize, id, &mut self.tally);
        }
        if let Some(skipped) = skipped {
            self.settle(receiver, skipped + 1);
            if let Some(at) = self.senders[id.sender as usize].time_of(id.seq) {
                self.record(at, now, 1);
            }
        }
    }

    /// Inserts a message into the shared order, where a receiver has got it that had those before
    /// index `at`, if it is whole and does not contradict what other receivers have got. Returns
    /// its index.
    ///
    /// Usually the message is new, and goes to the end. But the first receiver does not get its
    /// own messages. The second one gets them between those that are kept, and inserts them there;
    /// or rather before or after its own messages, which it does not get either, so that the third
    /// receiver may correct the order.
    fn insert(
        &mut self,
        own: u32,
        id: MessageId,
        bytes: Option<&[u8]>,
        at: usize,
    ) -> Option<usize> {
        let bytes = bytes.filter(|bytes| self.len == 0 || bytes.len() == self.len)?;
        let index = skip(&self.entries, at, own);
        let passed = &self.entries[index..];
        let sender = &self.senders[id.sender as usize];
        sender.time_of(id.seq)?;
        let is_new = id.seq >= sender.next;
        let end = if is_new {
            // If no receiver has got some message before it, those in the shared order would skip
            // the gap with it, and must detect it. If none is in that order, there was none to
            // receive them.
            if id.seq > sender.next && self.shared().any(|(own, _)| own != id.sender) {
                return None;
            }
            self.entries.len()
        } else {
            // If it is not there, all receivers that needed it have got it before.
            index + passed.iter().position(|entry| *entry == id)?
        };
        // It must not stand before another message of its sender.
        let mut passed = self.entries[index..end].iter();
        if passed.any(|entry| entry.sender == id.sender) {
            return None;
        }
        if index < end {
            // Receivers beyond the index have not got it. So there must be none but its sender,
            // and those that have passed only messages of their own.
            let is_beyond = |at: usize| at > index && at <= end;
            let contradicts = |(own, at)| {
                own != id.sender && is_beyond(at) && skip(&self.entries, index, own) < at
            };
            if self.shared().any(contradicts) {
                return None;
            }
            for receiver in 0..self.receivers.len() {
                let is_sender = self.own(receiver) == id.sender;
                if let Place::Shared(at) = &mut self.receivers[receiver].place
                    && is_beyond(*at)
                {
                    *at = if is_sender { *at + 1 } else { index };
                }
            }
        }
        let len = bytes.len();
        if is_new {
            self.len = len;
            self.entries.insert(index, id);
            let range = index * len..index * len;
            self.bytes.splice(range, bytes.iter().copied());
            self.senders[id.sender as usize].next = id.seq + 1;
        } else {
            self.entries[index..=end].rotate_right(1);
            self.bytes[index * len..(end + 1) * len].rotate_right(len);
        }
        if index < end {
            self.find_runs();
        } else {
            self.extend_runs(index);
        }
        Some(index)
    }

    /// Finds the runs of messages that were scheduled for the same time.
    fn find_runs(&mut self) {
        self.runs.clear();
        for index in 0..self.entries.len() {
            self.extend_runs(index);
        }
    }

    /// The same for the message at this index, which follows those whose runs are known.
    fn extend_runs(&mut self, index: usize) {
        let id = self.entries[index];
        // The times of messages in the shared order are kept.
        let at = self.senders[id.sender as usize].time_of(id.seq);
        let at = at.unwrap_or_default();
        if self.runs.last().is_none_or(|run| run.1 != at) {
            self.runs.push((index, at));
        }
    }

    /// The receivers in the shared order: which sender each is, and its index.
    fn shared(&self) -> impl Iterator<Item = (u32, usize)> {
        let receivers = self.receivers.iter().enumerate();
        receivers.filter_map(|(receiver, it)| match it.place {
            Place::Shared(at) => Some((self.own(receiver), at)),
            Place::Absent | Place::Separate(_) => None,
        })
    }

    /// Marks a receiver as present: it must get every message after this one, if that is in the
    /// shared order.
    fn become_present(&mut self, receiver: usize, id: MessageId) {
        if let Some(index) = self.entries.iter().rposition(|entry| *entry == id) {
            let own = self.own(receiver);
            let next = (0..).zip(self.senders.iter().zip(self.next_from(index + 1)));
            let owed = next
                .filter(|&(sender, _)| sender != own)
                .map(|(_, (sender, next))| u64::from(sender.sent - next));
            self.enter(receiver, index + 1, owed.sum());
            self.tally.deliveries += 1;
        }
    }

    /// The next message of each sender for a receiver that has got all messages before this index.
    fn next_from(&self, index: usize) -> Vec<u32> {
        let mut next: Vec<u32> = self.senders.iter().map(|sender| sender.next).collect();
        for entry in self.entries[index..].iter().rev() {
            next[entry.sender as usize] = entry.seq;
        }
        next
    }

    /// Drops the messages that all receivers have got.
    fn trim(&mut self) {
        // Receivers return to the shared order that have got all messages up to some index, and
        // none after it.
        for index in 0..self.receivers.len() {
            if let Place::Separate(progress) = &self.receivers[index].place
                && let Some(at) = self.index_of(progress, self.own(index))
            {
                self.receivers[index].place = Place::Shared(at);
            }
        }
        // A receiver that gets nothing does not move past its own messages by itself.
        let passed = self.shared().map(|(own, at)| skip(&self.entries, at, own));
        let passed = passed.min();
        let count = passed.unwrap_or(self.entries.len());
        self.entries.drain(..count);
        self.bytes.drain(..count * self.len);
        self.find_runs();
        for receiver in &mut self.receivers {
            if let Place::Shared(at) = &mut receiver.place {
                *at = at.saturating_sub(count);
            }
        }
        // Without a receiver in the shared order, messages do not get there.
        let next = self.next_from(0);
        let lag = (MAX_LAG / self.senders.len()) as u32;
        for (sender, next) in self.senders.iter_mut().zip(next) {
            let next = passed.map_or(sender.sent, |_| next);
            let dropped = next.saturating_sub(sender.times_from + lag);
            sender.times.drain(..dropped as usize);
            sender.times_from += dropped;
        }
        let messages = MIN_TRIM_MESSAGES.max(2 * self.entries.len());
        let bytes = MIN_TRIM_BYTES.max(2 * self.bytes.len());
        self.trim_at = (self.sent + messages as u64, bytes);
    }

    /// The index in the shared order before which a receiver with this progress has got every
    /// message, and after which none, if there is one.
    fn index_of(&self, progress: &Progress, own: u32) -> Option<usize> {
        let positions = &progress.positions;
        let is_next =
            |id: &MessageId| id.sender != own && id.seq >= positions[id.sender as usize].next;
        let first = self.entries.iter().position(is_next);
        let first = first.unwrap_or(self.entries.len());
        // What is next from there on, if the receiver has got all before it.
        let mut pairs = (0..).zip(positions.iter().zip(self.next_from(first)));
        let is_there = pairs.all(|(sender, (at, next))| sender == own || at.next == next);
        (is_there && progress.missing.is_empty()).then_some(first)
    }
}

/// The first index from this one on with a message that is not this sender's.
fn skip(entries: &[MessageId], index: usize, own: u32) -> usize {
    let entries = entries[index..].iter();
    index + entries.take_while(|id| id.sender == own).count()
}

/// The number of messages before the first of this sender's.
fn count_of_others(entries: &[MessageId], own: u32) -> usize {
    let is_own = |id: &MessageId| id.sender == own;
    // Blocks without a branch for each message are checked several messages at a time.
    let has_none = |block: &&[MessageId]| !block.iter().fold(false, |any, id| any | is_own(id));
    let blocks = entries.chunks(OWN_BLOCK).take_while(has_none);
    let from = entries.len().min(blocks.count() * OWN_BLOCK);
    let mut rest = entries[from..].iter();
    rest.position(is_own).map_or(entries.len(), |at| from + at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::protocol::{Protocol, name_of};
    use super::*;
    use crate::wire::encode_frame;

    const TAG: &str = "tag";
    const SIZE: usize = 20;

    const fn ns(nanoseconds: u64) -> Duration {
        Duration::from_nanos(nanoseconds)
    }

    fn codec(size: usize) -> Codec {
        Codec::new(Protocol::Chat10, TAG, size, 2, 1)
    }

    fn new_checker(size: usize, receivers: usize, senders: usize) -> DeliveryChecker {
        DeliveryChecker::new(codec(size), receivers, senders)
    }

    /// A checker with so many present receivers, of which the first are senders.
    fn checker(receivers: usize, senders: usize) -> DeliveryChecker {
        let mut checker = new_checker(SIZE, receivers, senders);
        checker.measure_from(ns(0));
        for receiver in 0..receivers {
            checker.expect(receiver);
        }
        checker
    }

    /// What a server makes of a message.
    fn relayed(id: MessageId) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_frame(name_of(id.sender, TAG).as_bytes(), &mut bytes);
        codec(SIZE).write(id, &mut bytes);
        bytes
    }

    const fn id(sender: u32, seq: u32) -> MessageId {
        MessageId { sender, seq }
    }

    fn queue(checker: &mut DeliveryChecker, count: u32, sender: u32) {
        for _ in 0..count {
            checker.queue(sender, ns(5), &mut Vec::new());
        }
    }

    fn check(checker: &mut DeliveryChecker, receiver: usize, ids: &[MessageId]) {
        for &id in ids {
            let bytes = relayed(id);
            let taken = checker.check(receiver, &bytes, ns(10)).unwrap();
            assert_eq!(taken, (bytes.len(), false));
        }
    }

    fn separate_orders(checker: &DeliveryChecker) -> usize {
        let is_separate = |receiver: &&Receiver| matches!(receiver.place, Place::Separate(_));
        checker.receivers.iter().filter(is_separate).count()
    }

    #[test]
    fn queued_message_is_a_frame_of_the_protocol() {
        let mut checker = checker(2, 1);
        let mut queued = Vec::new();
        checker.queue(0, ns(0), &mut queued);
        let payload = &relayed(id(0, 0))[20..];
        assert_eq!(queued, payload);
    }

    #[test]
    fn message_counts_once_for_each_receiver() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 2, 0);
        assert_eq!(checker.outstanding, 4);
        check(&mut checker, 1, &[id(0, 0), id(0, 1)]);
        check(&mut checker, 2, &[id(0, 0)]);
        assert_eq!(checker.outstanding, 1);
        let expected = Tally {
            deliveries: 3,
            ..Tally::default()
        };
        assert_eq!(checker.tally, expected);
        let delays = &checker.delays;
        assert_eq!(
            (delays.times().unwrap().samples, delays.quantile(1.0)),
            (3, Some(ns(5)))
        );
    }

    #[test]
    fn delays_are_of_messages_scheduled_since_the_measurement_began() {
        let mut checker = checker(2, 1);
        checker.measure_from(ns(100));
        for sent in [99, 100, 150] {
            checker.queue(0, ns(sent), &mut Vec::new());
        }
        let stream: Vec<u8> = (0..3).flat_map(|seq| relayed(id(0, seq))).collect();
        checker.check(1, &stream, ns(160)).unwrap();
        let delays = &checker.delays;
        assert_eq!(delays.times().unwrap().samples, 2);
        assert_eq!(
            [0.5, 1.0].map(|part| delays.quantile(part)),
            [Some(ns(10)), Some(ns(60))]
        );
    }

    #[test]
    fn missing_message_is_lost_when_a_later_one_arrives() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 3, 0);
        check(&mut checker, 1, &[id(0, 0), id(0, 2)]);
        assert_eq!(checker.tally.lost, 1);
        check(&mut checker, 2, &[id(0, 0), id(0, 1), id(0, 2)]);
        let expected = Tally {
            deliveries: 5,
            lost: 1,
            ..Tally::default()
        };
        assert_eq!(checker.tally, expected);
        assert_eq!(checker.outstanding, 0);
    }

    #[test]
    fn message_that_no_receiver_gets_is_lost_for_each() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 2, 0);
        check(&mut checker, 1, &[id(0, 1)]);
        check(&mut checker, 2, &[id(0, 1)]);
        assert_eq!(checker.tally.lost, 2);
        assert_eq!(checker.outstanding, 0);
    }

    #[test]
    fn message_that_arrives_twice_is_duplicated() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 2, 0);
        check(&mut checker, 1, &[id(0, 0), id(0, 0), id(0, 1)]);
        check(&mut checker, 2, &[id(0, 0), id(0, 1), id(0, 1)]);
        let expected = Tally {
            deliveries: 4,
            duplicated: 2,
            ..Tally::default()
        };
        assert_eq!(checker.tally, expected);
    }

    #[test]
    fn messages_of_one_sender_in_another_order_are_out_of_order_and_not_lost() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 3, 0);
        check(&mut checker, 1, &[id(0, 1), id(0, 0), id(0, 2)]);
        check(&mut checker, 2, &[id(0, 0), id(0, 1), id(0, 2)]);
        let expected = Tally {
            deliveries: 6,
            out_of_order: 1,
            ..Tally::default()
        };
        assert_eq!(checker.tally, expected);
        assert_eq!(checker.outstanding, 0);
    }

    #[test]
    fn messages_of_two_senders_in_any_order_have_no_fault() {
        let mut checker = checker(4, 2);
        queue(&mut checker, 1, 0);
        queue(&mut checker, 1, 1);
        check(&mut checker, 2, &[id(0, 0), id(1, 0)]);
        check(&mut checker, 3, &[id(1, 0), id(0, 0)]);
        check(&mut checker, 0, &[id(1, 0)]);
        check(&mut checker, 1, &[id(0, 0)]);
        let expected = Tally {
            deliveries: 6,
            ..Tally::default()
        };
        assert_eq!(checker.tally, expected);
    }

    #[test]
    fn message_that_was_not_sent_like_this_is_corrupt() {
        let mut checker = checker(2, 1);
        queue(&mut checker, 1, 0);
        let mut damaged = relayed(id(0, 0));
        *damaged.last_mut().unwrap() ^= 1;
        checker.check(1, &damaged, ns(10)).unwrap();
        let expected = Tally {
            deliveries: 1,
            corrupt: 1,
            ..Tally::default()
        };
        assert_eq!(checker.tally, expected);
        // Under another name, of no sender, not sent yet, and its own: never sent to this receiver.
        let mut renamed = relayed(id(0, 0));
        renamed[19] = b'1';
        let unknown = relayed(id(9, 0));
        let future = relayed(id(0, 7));
        for (corrupt, bytes) in (2..).zip([renamed, unknown, future]) {
            checker.check(1, &bytes, ns(10)).unwrap();
            assert_eq!(checker.tally.corrupt, corrupt);
        }
        checker.check(0, &relayed(id(0, 0)), ns(10)).unwrap();
        assert_eq!(checker.tally.corrupt, 5);
        assert_eq!(checker.tally.deliveries, 1);
    }

    #[test]
    fn message_of_another_client_is_foreign() {
        let mut checker = checker(2, 1);
        queue(&mut checker, 1, 0);
        let mut stream = Vec::new();
        for part in ["alice", "hi", "tag-bob", "ho"] {
            encode_frame(part.as_bytes(), &mut stream);
        }
        stream.extend(relayed(id(0, 0)));
        checker.check(1, &stream, ns(10)).unwrap();
        let expected = Tally {
            deliveries: 1,
            foreign: 2,
            ..Tally::default()
        };
        assert_eq!(checker.tally, expected);
    }

    #[test]
    fn stream_without_a_header_is_garbled() {
        let mut checker = checker(2, 1);
        queue(&mut checker, 1, 0);
        assert_eq!(checker.check(1, b"no header at all", ns(10)), Err(Garbled));
    }

    #[test]
    fn incomplete_message_is_not_used() {
        let mut checker = checker(2, 1);
        queue(&mut checker, 2, 0);
        let one = relayed(id(0, 0));
        let stream = [&one[..], &relayed(id(0, 1))[..7]].concat();
        assert_eq!(checker.check(1, &stream, ns(10)), Ok((one.len(), false)));
        for end in 0..one.len() {
            assert_eq!(
                checker.check(1, &relayed(id(0, 1))[..end], ns(10)),
                Ok((0, false))
            );
        }
    }

    #[test]
    fn outstanding_deliveries_are_lost_when_a_connection_is_cut_and_not_when_it_leaves() {
        for (was_cut, lost) in [(true, 2), (false, 0)] {
            let mut checker = checker(3, 1);
            queue(&mut checker, 3, 0);
            check(&mut checker, 1, &[id(0, 0)]);
            checker.leave(1, was_cut);
            assert_eq!(checker.tally.lost, lost);
            assert_eq!(checker.outstanding, 3);
            assert_eq!(checker.present, 2);
        }
    }

    #[test]
    fn given_up_deliveries_are_lost() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 3, 0);
        check(&mut checker, 1, &[id(0, 0)]);
        checker.give_up();
        assert_eq!(checker.tally.lost, 5);
        assert_eq!(checker.outstanding, 0);
    }

    #[test]
    fn message_that_arrives_after_it_was_given_up_is_a_delivery_and_lost() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 1, 0);
        checker.give_up();
        check(&mut checker, 1, &[id(0, 0)]);
        check(&mut checker, 2, &[id(0, 0)]);
        assert_eq!((checker.tally.lost, checker.tally.deliveries), (2, 2));
        assert_eq!(checker.outstanding, 0);
    }

    #[test]
    fn receiver_is_present_from_the_first_message_that_it_gets() {
        let mut checker = checker(3, 2);
        checker.leave(2, false);
        queue(&mut checker, 2, 0);
        assert_eq!(checker.outstanding, 2);
        assert!(!checker.is_present(2));
        check(&mut checker, 1, &[id(0, 0), id(0, 1)]);
        check(&mut checker, 2, &[id(0, 1)]);
        assert!(checker.is_present(2));
        queue(&mut checker, 1, 0);
        assert_eq!(checker.outstanding, 2);
        check(&mut checker, 1, &[id(0, 2)]);
        check(&mut checker, 2, &[id(0, 2)]);
        assert_eq!(checker.outstanding, 0);
        let expected = Tally {
            deliveries: 5,
            ..Tally::default()
        };
        assert_eq!(checker.tally, expected);
    }

    #[test]
    fn returning_sender_may_get_its_earlier_messages_as_history() {
        let mut checker = checker(3, 1);
        queue(&mut checker, 2, 0);
        check(&mut checker, 1, &[id(0, 0), id(0, 1)]);
        checker.leave(0, false);
        check(&mut checker, 0, &[id(0, 0), id(0, 1)]);
        assert_eq!(checker.tally.corrupt, 0);
        assert!(!checker.is_present(0));
        queue(&mut checker, 1, 0);
        check(&mut checker, 0, &[id(0, 2)]);
        assert_eq!(checker.tally.corrupt, 1);
    }

    #[test]
    fn message_sent_to_no_receiver_is_not_lost_for_later_ones() {
        let mut checker = checker(3, 1);
        checker.leave(1, false);
        checker.leave(2, false);
        queue(&mut checker, 2, 0);
        check(&mut checker, 1, &[id(0, 1)]);
        check(&mut checker, 2, &[id(0, 1)]);
        assert_eq!(checker.tally.lost, 0);
        assert_eq!(checker.present, 3);
        assert_eq!(checker.outstanding, 0);
    }

    #[test]
    fn messages_that_all_receivers_have_got_are_dropped() {
        let mut checker = checker(3, 2);
        for seq in 0..20_000 {
            queue(&mut checker, 1, 0);
            check(&mut checker, 1, &[id(0, seq)]);
            check(&mut checker, 2, &[id(0, seq)]);
        }
        let most = 2 * MIN_TRIM_MESSAGES;
        assert!(checker.entries.len() <= most);
        assert!(checker.senders[0].times.len() <= MAX_LAG / 2 + most);
        assert_eq!(checker.tally.deliveries, 40_000);
    }

    #[test]
    fn large_messages_are_dropped_before_they_are_many() {
        const LARGE_PIECE: usize = 1024 * 1024;
        let mut checker = new_checker(LARGE_PIECE, 2, 1);
        checker.expect(0);
        checker.expect(1);
        let mut queued = Vec::new();
        for _ in 0..20 {
            queued.clear();
            checker.queue(0, ns(0), &mut queued);
            let mut relayed = Vec::new();
            encode_frame(name_of(0, TAG).as_bytes(), &mut relayed);
            relayed.extend_from_slice(&queued);
            checker.check(1, &relayed, ns(1)).unwrap();
            assert!(checker.bytes.len() <= MIN_TRIM_BYTES + LARGE_PIECE + 100);
        }
        assert_eq!(checker.tally.deliveries, 20);
    }

    #[test]
    fn receiver_with_a_separate_order_returns_to_the_shared_one() {
        let mut checker = checker(4, 2);
        for seq in 0..2 * MIN_TRIM_MESSAGES as u32 {
            queue(&mut checker, 1, 0);
            queue(&mut checker, 1, 1);
            check(&mut checker, 2, &[id(0, seq)]);
            let (first, second) = if seq == 0 { (1, 0) } else { (0, 1) };
            check(&mut checker, 3, &[id(first, seq)]);
            check(&mut checker, 2, &[id(1, seq)]);
            check(&mut checker, 3, &[id(second, seq)]);
            if seq == 0 {
                assert_eq!(separate_orders(&checker), 1);
            }
            check(&mut checker, 0, &[id(1, seq)]);
            check(&mut checker, 1, &[id(0, seq)]);
        }
        assert_eq!(separate_orders(&checker), 0);
    }

    #[test]
    fn receivers_that_got_the_same_messages_in_another_order_share_one() {
        let mut checker = checker(4, 2);
        queue(&mut checker, 2, 0);
        queue(&mut checker, 2, 1);
        check(&mut checker, 2, &[id(0, 0), id(1, 0)]);
        check(&mut checker, 3, &[id(1, 0), id(0, 0)]);
        assert_eq!(separate_orders(&checker), 0);
        // One got the first before the second, and the other the second without the first.
        check(&mut checker, 2, &[id(0, 1)]);
        check(&mut checker, 3, &[id(1, 1)]);
        assert_eq!(separate_orders(&checker), 1);
        check(&mut checker, 2, &[id(1, 1)]);
        check(&mut checker, 3, &[id(0, 1)]);
        check(&mut checker, 0, &[id(1, 0), id(1, 1)]);
        check(&mut checker, 1, &[id(0, 0), id(0, 1)]);
        let expected = Tally {
            deliveries: 12,
            ..Tally::default()
        };
        assert_eq!(checker.tally, expected);
        assert_eq!(checker.outstanding, 0);
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

    /// What a receiver is sent, of the messages in this order.
    fn sent_to(receiver: u32, order: &[MessageId], faults: &[Fault]) -> Vec<MessageId> {
        let mut sent = Vec::new();
        let mut late = None;
        let others = order.iter().filter(|id| id.sender != receiver);
        for (&id, fault) in others.zip(faults.iter().cycle()) {
            match fault {
                Fault::None => sent.push(id),
                Fault::Drop => {}
                Fault::Repeat => sent.extend([id, id]),
                Fault::Delay => {
                    sent.extend(late.replace(id));
                    continue;
                }
            }
            sent.extend(late.take());
        }
        sent.extend(late);
        sent
    }

    /// The expected tally: each receiver's stream by itself, in the plainest way.
    fn counted(streams: &[Vec<MessageId>], count: &[u32]) -> Tally {
        let mut tally = Tally::default();
        for (receiver, stream) in streams.iter().enumerate() {
            for (sender, &count) in (0..).zip(count) {
                if sender as usize == receiver {
                    continue;
                }
                let mut received = BTreeSet::new();
                for id in stream.iter().filter(|id| id.sender == sender) {
                    let is_late = received.last().is_some_and(|&last| last > id.seq);
                    if received.insert(id.seq) {
                        tally.deliveries += 1;
                        tally.out_of_order += u64::from(is_late);
                    } else {
                        tally.duplicated += 1;
                    }
                }
                tally.lost += u64::from(count) - received.len() as u64;
            }
        }
        tally
    }

    /// Has all receivers read what they are sent, in pieces of these sizes, by turns.
    fn play(checker: &mut DeliveryChecker, streams: &[Vec<MessageId>], reads: &[(usize, usize)]) {
        let streams: Vec<Vec<u8>> = streams
            .iter()
            .map(|ids| ids.iter().flat_map(|&id| relayed(id)).collect())
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
            assert_eq!(checker.outstanding, owed);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// With a server that has one order for all, no receiver leaves the shared order. So all
        /// messages are compared byte by byte but those that arrive first.
        #[test]
        fn receivers_of_one_order_all_share_it(
            order in prop::collection::vec(0..5_u32, 1..60),
            reads in prop::collection::vec((0..6_usize, 1..200_usize), 0..200),
        ) {
            let mut checker = checker(6, 5);
            let mut count = vec![0; 5];
            let order: Vec<MessageId> = order
                .into_iter()
                .map(|sender| {
                    queue(&mut checker, 1, sender);
                    count[sender as usize] += 1;
                    id(sender, count[sender as usize] - 1)
                })
                .collect();
            let streams: Vec<_> = (0..6).map(|receiver| sent_to(receiver, &order, &[Fault::None])).collect();
            play(&mut checker, &streams, &reads);
            prop_assert_eq!(checker.tally, counted(&streams, &count));
            prop_assert_eq!(checker.outstanding, 0);
            prop_assert_eq!(separate_orders(&checker), 0);
        }

        /// Whatever a server does with its messages, and in whatever order the receivers read, the
        /// faults that are counted are those of the server.
        #[test]
        fn faults_of_a_server_are_counted_by_kind(
            orders in prop::collection::vec(prop::collection::vec(0..4_u32, 30), 5),
            faults in prop::collection::vec(prop::collection::vec(fault(), 1..40), 5),
            reads in prop::collection::vec((0..5_usize, 1..200_usize), 0..200),
            one_order in any::<bool>(),
        ) {
            let mut checker = checker(5, 4);
            for sender in 0..4 {
                queue(&mut checker, 30, sender);
            }
            // Each receiver has an order of its own of the senders, or all have the first one's.
            let streams: Vec<_> = (0..5)
                .map(|receiver| {
                    let mut count = [0; 4];
                    let order = &orders[if one_order { 0 } else { receiver }];
                    let rest = (0..4).cycle().take(4 * 30);
                    let mut turns: Vec<MessageId> = Vec::new();
                    for sender in order.iter().copied().chain(rest) {
                        let seq = &mut count[sender as usize];
                        if *seq < 30 {
                            turns.push(id(sender, *seq));
                            *seq += 1;
                        }
                    }
                    sent_to(receiver as u32, &turns, &faults[receiver])
                })
                .collect();
            play(&mut checker, &streams, &reads);
            checker.give_up();
            prop_assert_eq!(checker.tally, counted(&streams, &[30; 4]));
        }
    }
}
