//! Readiness: what the kernel reported for each connection, and the lists of those to be served.

use std::collections::VecDeque;
use std::ops::BitOr;

use super::conn_id::ConnId;

/// `Ready` is the set of readiness bits that an event reports.
///
/// Readiness is a hint. Events only set these bits; the turn acts on them, and takes `READABLE` and
/// `WRITABLE` back when a read or a write has shown that the socket is drained or full. The others
/// stay: the edge that reported them may have been the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready(u8);

impl Ready {
    /// There may be something to read.
    pub const READABLE: Self = Self(1);
    /// There may be room to write.
    pub const WRITABLE: Self = Self(1 << 1);
    /// The peer has closed its sending side. A FIN can share its edge with data, so a short read does
    /// not prove that everything was read.
    pub const READ_CLOSED: Self = Self(1 << 2);
    /// The peer has sent urgent data, at which a read stops short (tcp(7)).
    pub const URGENT: Self = Self(1 << 3);
    /// The connection is closed in both directions: what was received before can still be read.
    pub const HUNG_UP: Self = Self(1 << 4);

    /// Each bit, with the word for it.
    pub const WORDS: [(Self, &'static str); 5] = [
        (Self::READABLE, "readable"),
        (Self::WRITABLE, "writable"),
        (Self::READ_CLOSED, "read_closed"),
        (Self::URGENT, "urgent"),
        (Self::HUNG_UP, "hung_up"),
    ];

    /// Whether any of these bits is set.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets these bits.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Clears these bits.
    pub const fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

impl BitOr for Ready {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the relay remembers of a connection from one step of a turn to the next. Only the relay sets
/// these bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(u8);

impl Marks {
    /// The connection took part in this turn, so its delivery differs from the others'.
    pub(super) const HAS_ADJUSTMENT: Self = Self(1);
    /// The connection is readable and in no list: the end of its throttle or of its own pause lists
    /// it again.
    pub(super) const PARKED: Self = Self(1 << 1);
    /// A message timer runs for the connection.
    pub(super) const MESSAGE_TIMER: Self = Self(1 << 2);
    /// A part of a WebSocket message was received, and the room keeps its decoder.
    pub(super) const PARTIAL_MESSAGE: Self = Self(1 << 3);
    /// Pending output was given up, so the peer may have received a part of a frame, and nothing can be sent
    /// behind it.
    pub(super) const OUTPUT_LOST: Self = Self(1 << 4);

    pub(super) const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) const fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

/// A connection's readiness: a byte from the kernel, and a byte of the relay's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) kernel: Ready,
    pub(super) marks: Marks,
}

impl Readiness {
    pub(super) const fn is_readable(self) -> bool {
        self.kernel.any(Ready::READABLE)
    }

    pub(super) const fn is_writable(self) -> bool {
        self.kernel.any(Ready::WRITABLE)
    }

    /// Whether a short read leaves open if there is more to read.
    pub(super) const fn must_read_to_end(self) -> bool {
        let bits = Ready::READ_CLOSED.0 | Ready::URGENT.0 | Ready::HUNG_UP.0;
        self.kernel.any(Ready(bits))
    }
}

/// `ReadyList` names a list of connections that are to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyList {
    /// Connections that are to be read.
    ToRead,
    /// Readable members that wait for the next round of a pause.
    Held,
    /// Connections that are to be flushed.
    ToFlush,
}

/// The connections to be served in the next turn, in the order in which they became ready.
///
/// Reading and flushing have a list each because a turn reads no more than its budget, but flushes
/// every writable member: a slow reader that reads must not fall further behind because others send.
///
/// **Each readable connection is in exactly one place**: in `to_read`; or in `held`, until the next round
/// of a pause; or parked, which is a mark of its own and no list.
#[derive(Debug, Default)]
pub(super) struct ReadyLists {
    /// Connections that are [`READABLE`](Ready::READABLE).
    to_read: VecDeque<ConnId>,
    /// Readable members that wait for the next round of a pause.
    held: VecDeque<ConnId>,
    /// Connections that are [`WRITABLE`](Ready::WRITABLE), or were until a moment ago.
    to_flush: VecDeque<ConnId>,
}

impl ReadyLists {
    /// Sets readiness bits, and lists the connection for each bit that was not set.
    pub(super) fn note(&mut self, readiness: &mut Readiness, id: ConnId, ready: Ready) {
        let is_new = |bit| ready.any(bit) && !readiness.kernel.any(bit);
        if is_new(Ready::READABLE) {
            debug_assert!(
                !readiness.marks.any(Marks::PARKED),
                "a parked connection is readable already"
            );
            self.to_read.push_back(id);
        }
        if is_new(Ready::WRITABLE) {
            self.to_flush.push_back(id);
        }
        readiness.kernel.insert(ready);
    }

    /// Lists a connection again that was taken from the list and has more to read.
    pub(super) fn read_again(&mut self, id: ConnId) {
        self.to_read.push_back(id);
    }

    /// Lists a connection again that was taken from the list and has room for more.
    pub(super) fn flush_again(&mut self, id: ConnId) {
        self.to_flush.push_back(id);
    }

    /// Holds a member that was taken from the list until the next round of the pause is due.
    pub(super) fn hold(&mut self, id: ConnId) {
        self.held.push_back(id);
    }

    /// Lists the held members again, before those that became readable since.
    pub(super) fn release_held(&mut self) {
        if !self.held.is_empty() {
            self.held.append(&mut self.to_read);
            std::mem::swap(&mut self.held, &mut self.to_read);
        }
    }

    /// Parks a connection that was taken from the list.
    pub(super) fn park(readiness: &mut Readiness) {
        debug_assert!(
            readiness.is_readable(),
            "only a readable connection is parked"
        );
        readiness.marks.insert(Marks::PARKED);
    }

    /// Lists a connection again if it was parked.
    pub(super) fn unpark(&mut self, readiness: &mut Readiness, id: ConnId) {
        if readiness.marks.any(Marks::PARKED) {
            debug_assert!(readiness.is_readable(), "a parked connection is readable");
            readiness.marks.remove(Marks::PARKED);
            self.to_read.push_back(id);
        }
    }

    /// Takes a connection from the place in which it waits to be read, whichever that is.
    pub(super) fn unlist(&mut self, readiness: &mut Readiness, id: ConnId) {
        if readiness.marks.any(Marks::PARKED) {
            readiness.marks.remove(Marks::PARKED);
        } else {
            self.to_read.retain(|&listed| listed != id);
            self.held.retain(|&held| held != id);
        }
    }

    pub(super) fn next_to_read(&mut self) -> Option<ConnId> {
        self.to_read.pop_front()
    }

    pub(super) fn next_to_flush(&mut self) -> Option<ConnId> {
        self.to_flush.pop_front()
    }

    pub(super) fn to_read(&self) -> usize {
        self.to_read.len()
    }

    pub(super) fn to_flush(&self) -> usize {
        self.to_flush.len()
    }

    /// Whether a member waits for the next round of a pause.
    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// The connections on this list, the next one first.
    pub(super) fn on(&self, list: ReadyList) -> impl Iterator<Item = ConnId> {
        let list = match list {
            ReadyList::ToRead => &self.to_read,
            ReadyList::Held => &self.held,
            ReadyList::ToFlush => &self.to_flush,
        };
        list.iter().copied()
    }

    /// The connections that are listed to be read, held ones included.
    pub(super) fn listed(&self) -> impl Iterator<Item = ConnId> {
        self.to_read.iter().chain(&self.held).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId::new(1, 1);
    const B: ConnId = ConnId::new(2, 2);

    #[test]
    fn a_bit_that_is_set_already_lists_nothing_again() {
        let mut lists = ReadyLists::default();
        let mut readiness = Readiness::default();
        let both = Ready::READABLE | Ready::WRITABLE;
        lists.note(&mut readiness, A, both);
        lists.note(&mut readiness, A, both | Ready::HUNG_UP);
        assert_eq!((lists.to_read(), lists.to_flush()), (1, 1));
        readiness.kernel.remove(both);
        assert_eq!(readiness.kernel, Ready::HUNG_UP);
        assert!(readiness.must_read_to_end());
    }

    #[test]
    fn held_members_are_read_before_those_that_became_readable_later() {
        let mut lists = ReadyLists::default();
        lists.hold(A);
        lists.read_again(B);
        assert!(lists.has_held());
        lists.release_held();
        assert!(!lists.has_held());
        assert_eq!(lists.listed().collect::<Vec<_>>(), [A, B]);
    }

    #[test]
    fn connection_is_taken_from_the_place_in_which_it_waits() {
        let mut lists = ReadyLists::default();
        let mut readiness = Readiness::default();
        lists.note(&mut readiness, A, Ready::READABLE);
        lists.hold(B);
        lists.unlist(&mut readiness, A);
        assert_eq!(lists.listed().collect::<Vec<_>>(), [B]);
        lists.unlist(&mut readiness, B);
        assert_eq!(lists.listed().count(), 0);
        ReadyLists::park(&mut readiness);
        lists.unlist(&mut readiness, A);
        lists.unpark(&mut readiness, A);
        assert_eq!(lists.listed().count(), 0, "it is not parked any more");
    }

    #[test]
    fn a_parked_connection_is_in_no_list_until_it_is_unparked() {
        let mut lists = ReadyLists::default();
        let mut readiness = Readiness::default();
        lists.note(&mut readiness, A, Ready::READABLE);
        assert_eq!(lists.next_to_read(), Some(A));
        ReadyLists::park(&mut readiness);
        lists.note(&mut readiness, A, Ready::READABLE);
        assert_eq!(lists.to_read(), 0);
        lists.unpark(&mut readiness, A);
        lists.unpark(&mut readiness, A);
        assert_eq!(lists.listed().collect::<Vec<_>>(), [A]);
    }

    #[test]
    fn unlisted_connection_is_in_no_place() {
        let mut lists = ReadyLists::default();
        let mut parked = Readiness::default();
        lists.note(&mut parked, A, Ready::READABLE);
        assert_eq!(lists.next_to_read(), Some(A));
        ReadyLists::park(&mut parked);
        lists.unlist(&mut parked, A);
        lists.unpark(&mut parked, A);
        assert_eq!(lists.to_read(), 0);

        let mut listed = Readiness::default();
        lists.note(&mut listed, B, Ready::READABLE);
        lists.hold(A);
        lists.unlist(&mut listed, B);
        lists.unlist(&mut listed, A);
        assert_eq!((lists.to_read(), lists.has_held()), (0, false));
    }
}
