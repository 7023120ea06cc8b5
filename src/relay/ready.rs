//! What is known of each connection's readiness, and who is to be served in the next turn.

use std::collections::VecDeque;
use std::mem;
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
    /// It is readable and on no list: it is woken when it may be read from again.
    pub(super) const RESTING: Self = Self(1 << 5);
    /// While the room waits, it was read its share.
    pub(super) const HAD_SHARE: Self = Self(1 << 6);

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
/// To be read and to be written to are two lists because a turn reads no more than its budget allows,
/// but writes to all who can be written to: somebody who is behind and reads is not to fall further
/// behind because others talk. Two more are for those who have to wait until the room goes on.
#[derive(Debug, Default)]
pub(super) struct ReadyLists {
    /// Who is [`READABLE`](Ready::READABLE).
    to_read: VecDeque<ConnId>,
    /// Who is [`WRITABLE`](Ready::WRITABLE), or was until a moment ago.
    to_flush: VecDeque<ConnId>,
    /// Who is readable and is not read from while the room waits.
    parked: VecDeque<ConnId>,
    /// The same, but it was read its share.
    served: VecDeque<ConnId>,
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

    /// Keeps a connection that was [`next`](Self::next_to_read) for later, because the room waits.
    pub(super) fn park(&mut self, id: ConnId, had_share: bool) {
        let parked = if had_share {
            &mut self.served
        } else {
            &mut self.parked
        };
        parked.push_back(id);
    }

    /// Those who were parked are to be read: first those who had no share, then those who came since,
    /// then the others.
    pub(super) fn unpark(&mut self) {
        self.parked.append(&mut self.to_read);
        self.parked.append(&mut self.served);
        mem::swap(&mut self.parked, &mut self.to_read);
    }

    /// Whether somebody is readable and has to wait for the room.
    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty() || !self.served.is_empty()
    }

    /// Keeps a connection that was [`next`](Self::next_to_read) until it is woken.
    pub(super) fn rest<S>(connection: &mut Connection<S>) {
        connection.ready.insert(Ready::RESTING);
    }

    /// Lists a connection again that rested.
    pub(super) fn wake<S>(&mut self, connection: &mut Connection<S>, id: ConnId) {
        if connection.ready.any(Ready::RESTING) {
            connection.ready.remove(Ready::RESTING);
            self.to_read.push_back(id);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_already_stays_known() {
        let both = Ready::READABLE | Ready::WRITABLE;
        assert_eq!(both | Ready::READABLE, both);
        let mut ready = both;
        ready.insert(Ready::WRITABLE | Ready::HUNG_UP);
        assert!(ready.any(Ready::READABLE) && ready.any(Ready::WRITABLE));
        ready.remove(both);
        ready.remove(Ready::READABLE);
        assert_eq!(ready, Ready::HUNG_UP);
    }
}
