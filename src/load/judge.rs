//! The common part of the two delivery checkers: the judgement of the messages that one receiver
//! gets of one sender, and the tally.
//!
//! The checker of the [scenarios](super::checker) has receivers that stay, up to millions of them,
//! and compares many messages at a time. The checker of a [soak](super::soak) has members that
//! come and go.

use std::collections::BTreeSet;

use super::message::{Codec, MessageId};
use super::protocol::index_of;

/// The maximum number of missing messages that are remembered for each receiver, in case they
/// arrive later.
pub(super) const MAX_MISSING: usize = 4096;

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

impl Tally {
    /// Returns which message of this run this is, and whether it is as it was sent. A message that
    /// is none is counted.
    pub(super) fn identify(
        &mut self,
        codec: &Codec,
        name: Option<&[u8]>,
        payload: &[u8],
    ) -> Option<(MessageId, bool)> {
        let named = name.map(|name| index_of(name, &codec.tag));
        if named == Some(None) {
            self.foreign += 1;
            return None;
        }
        let is_named = |id: MessageId| named.is_none_or(|named| named == Some(id.sender));
        let identified = codec.read(payload).filter(|&(id, _)| is_named(id));
        self.corrupt += u64::from(identified.is_none());
        identified
    }
}

/// A `Position` marks how far one receiver has got the messages of one sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// The first message that was received or must be, or [`NOT_YET`](Self::NOT_YET).
    pub(super) from: u32,
    /// The next one; as long as none was received, the one that must be received at the latest.
    pub(super) next: u32,
}

impl Position {
    /// No message was received, and any may be the first.
    const NOT_YET: u32 = u32::MAX;
    pub(super) const UNKNOWN: Self = Self {
        from: Self::NOT_YET,
        next: Self::NOT_YET,
    };

    /// All messages from this one on must be received, and those before it were.
    pub(super) const fn at(next: u32) -> Self {
        Self { from: 0, next }
    }
}

/// A `Progress` marks how far one receiver has got the messages of each sender.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// By the index of the sender.
    pub(super) positions: Vec<Position>,
    /// Messages that are missing, though later ones of their senders have arrived.
    pub(super) missing: BTreeSet<MessageId>,
}

impl Progress {
    pub(super) const fn new(positions: Vec<Position>) -> Self {
        Self {
            positions,
            missing: BTreeSet::new(),
        }
    }

    /// Judges a message that has arrived, of the sender with this index. If it is later than all
    /// before it, the number of messages that it has skipped is returned. They are lost, unless
    /// they arrive after all.
    pub(super) fn judge(&mut self, sender: usize, id: MessageId, tally: &mut Tally) -> Option<u64> {
        let position = &mut self.positions[sender];
        if position.from == Position::NOT_YET {
            position.from = id.seq.min(position.next);
            position.next = position.from;
        }
        if id.seq >= position.next {
            let skipped = position.next..id.seq;
            let lost = skipped.len() as u64;
            position.next = id.seq + 1;
            tally.deliveries += 1;
            tally.lost += lost;
            let room = MAX_MISSING - self.missing.len().min(MAX_MISSING);
            let skipped = skipped.rev().take(room);
            self.missing
                .extend(skipped.map(|seq| MessageId { seq, ..id }));
            return Some(lost);
        }
        if self.missing.remove(&id) {
            tally.lost -= 1;
            tally.out_of_order += 1;
            tally.deliveries += 1;
        } else if id.seq < position.from {
            tally.out_of_order += 1;
        } else {
            tally.duplicated += 1;
        }
        None
    }
}
