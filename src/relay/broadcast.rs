//! What is said in one turn, encoded once for everybody.

use std::ops::Range;

use crate::wire::header;

/// The turn's messages as they go on the wire, and which part of them is not for whom.
///
/// Each message is appended once, whatever the number of members. In one turn a connection is
/// served once, so all that it says in the turn is one contiguous span, and "everything but my own
/// words" is at most two slices of the same bytes: one `write` for a member that was silent, one
/// `writev` for one that spoke.
#[derive(Debug, Default)]
pub(super) struct Broadcast {
    bytes: Vec<u8>,
    withheld: Vec<(usize, Range<usize>)>,
}

/// The buffer's capacity is let go when a turn was larger than this, in bytes, so that one huge
/// message does not hold its memory for as long as the relay runs.
const KEPT_CAPACITY: usize = 512 * 1024;

impl Broadcast {
    /// Everything said so far in this turn.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends one message: the sender's name as a ready-made frame, then the message's frame.
    pub(super) fn append(&mut self, name_frame: &[u8], message: &[u8]) {
        self.bytes.extend_from_slice(name_frame);
        self.bytes.extend_from_slice(&header::encode(message.len()));
        self.bytes.extend_from_slice(message);
    }

    /// Withholds everything since `start` from the connection in this slot: it said it.
    pub(super) fn withhold(&mut self, key: usize, start: usize) {
        self.withheld.push((key, start..self.bytes.len()));
    }

    /// Who does not get everything, by slot, and which part each is not to get.
    pub(super) fn withheld(&self) -> &[(usize, Range<usize>)] {
        &self.withheld
    }

    /// Forgets the turn and keeps the memory for the next one, unless it was out of the ordinary.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_CAPACITY);
        self.withheld.clear();
    }
}
