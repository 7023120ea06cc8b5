//! What is known of each connection's readiness, and who is to be served in the next turn.

use std::collections::VecDeque;
use std::ops::BitOr;

use super::ConnId;
use super::connection::Connection;

/// What is known of a connection's readiness, and what this turn did with it.
///
/// Events only set these; the turn's passes over the ready lists act on them and take them back. It
/// is a set of bits in one byte because there is one for each idle member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready(u8);

impl Ready {
    /// There may be something to read.
    pub const READABLE: Self = Self(1);
    /// There may be room to write.
    pub const WRITABLE: Self = Self(1 << 1);
    /// A short read is no proof that everything was read: the peer has closed its sending side, or
    /// it has sent urgent data, at which a read stops early. This is remembered, because the edge
    /// that told it may be the last.
    pub const READ_TO_END: Self = Self(1 << 2);
    /// The connection is gone in both directions. Remembered as well.
    pub const HUNG_UP: Self = Self(1 << 3);
    /// Some of what was said in this turn is not for this connection.
    pub(super) const WITHHELD: Self = Self(1 << 4);

    /// Whether any of these is set.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets these.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) const fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Whether a short read leaves open if there is more to read.
    pub(super) const fn must_read_to_end(self) -> bool {
        self.any(Self(Self::READ_TO_END.0 | Self::HUNG_UP.0))
    }
}

impl BitOr for Ready {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Who is to be served in the next turn, in the order of becoming ready.
///
/// There are two lists because a turn reads no more than its budget allows, but writes to all who can be
/// written to: somebody who is behind and reads is not to fall further behind because others talk.
#[derive(Debug, Default)]
pub(super) struct ReadyLists {
    /// Who is [`READABLE`](Ready::READABLE).
    to_read: VecDeque<ConnId>,
    /// Who is [`WRITABLE`](Ready::WRITABLE), or was until a moment ago.
    to_flush: VecDeque<ConnId>,
}

impl ReadyLists {
    /// Sets what is known of a connection, and lists it if that is new.
    pub(super) fn set<S>(&mut self, connection: &mut Connection<S>, id: ConnId, ready: Ready) {
        let is_new = |bit| ready.any(bit) && !connection.ready.any(bit);
        if is_new(Ready::READABLE) {
            self.to_read.push_back(id);
        }
        if is_new(Ready::WRITABLE) {
            self.to_flush.push_back(id);
        }
        connection.ready.insert(ready);
    }

    /// Lists a connection again that was [`next`](Self::next_to_read) and has more to be read.
    pub(super) fn read_again(&mut self, id: ConnId) {
        self.to_read.push_back(id);
    }

    /// Lists a connection again that was [`next`](Self::next_to_flush) and has room for more.
    pub(super) fn flush_again(&mut self, id: ConnId) {
        self.to_flush.push_back(id);
    }

    pub(super) fn next_to_read(&mut self) -> Option<ConnId> {
        self.to_read.pop_front()
    }

    pub(super) fn next_to_flush(&mut self) -> Option<ConnId> {
        self.to_flush.pop_front()
    }

    /// How many are to be read.
    pub(super) fn to_read(&self) -> usize {
        self.to_read.len()
    }

    /// How many are to be flushed.
    pub(super) fn to_flush(&self) -> usize {
        self.to_flush.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.to_read.is_empty() && self.to_flush.is_empty()
    }
}
