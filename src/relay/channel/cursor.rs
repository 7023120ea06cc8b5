//! A cursor: how far one member has received its channel's stream.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use super::backlog::Backlog;
use super::replies::{Reply, ReplyBytes};

/// How many slices one gathered write takes. With the backlog's chunks that is up to a mebibyte,
/// which is also the most that one member is written in one turn.
pub(in crate::relay) const MAX_SLICES: usize = 16;

/// A `Cursor` marks how far one member has received the channel's stream, and where ahead of that its
/// output differs from the stream.
///
/// A cursor refers to shared bytes and owns none, so a lagging member costs the same whether it is one
/// message behind or a hundred thousand. It exists only while output is pending: a member that keeps
/// up has none.
#[derive(Debug)]
pub(in crate::relay) struct Cursor {
    position: u64,
    /// The splices at the position or ahead of it, in order. Adjacent ones are merged.
    splices: VecDeque<Splice>,
    /// How much of the first splice's reply was sent already, in bytes.
    inserted_sent: u64,
    /// How much of the stream ahead is skipped, in bytes.
    skipped_len: u64,
    /// The length of all splices' replies, in bytes.
    inserted_len: u64,
    /// The memory of those replies that are bytes for this member alone.
    own_bytes: usize,
    /// The position at which the output ends, for a draining member.
    last: u64,
}

/// A place in the stream at which one member's output differs from it: the member's own bytes are
/// skipped, and a reply may be inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::relay) struct Splice {
    /// The bytes that are skipped, if any.
    pub(in crate::relay) span: Range<u64>,
    /// The reply that is inserted in their place.
    pub(in crate::relay) reply: Reply,
}

impl Cursor {
    /// A cursor at `start` with these splices ahead, moved past the `sent` bytes that the socket accepted
    /// already.
    pub(in crate::relay) fn new(
        start: u64,
        splices: impl IntoIterator<Item = Splice>,
        sent: usize,
        backlog: &mut Backlog,
        replies: &ReplyBytes,
    ) -> Self {
        let mut cursor = Self {
            position: start,
            splices: VecDeque::new(),
            inserted_sent: 0,
            skipped_len: 0,
            inserted_len: 0,
            own_bytes: 0,
            last: u64::MAX,
        };
        for splice in splices {
            cursor.push(splice, replies);
        }
        cursor.step(sent, replies);
        backlog.attach(cursor.position);
        cursor
    }

    /// How far the member has received the stream.
    pub(in crate::relay) const fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes of output are pending.
    pub(in crate::relay) const fn pending_bytes(&self, backlog: &Backlog) -> u64 {
        self.stream_lag(backlog) - self.skipped_len
    }

    /// The distance to the end of the output, in bytes, skipped bytes included.
    const fn stream_lag(&self, backlog: &Backlog) -> u64 {
        self.end(backlog) - self.position + self.inserted_len - self.inserted_sent
    }

    /// The member's lag, in bytes: the stream from the cursor on, whether all of that is for the member
    /// or not, the replies, and the splices themselves. An empty message takes no bytes in some streams,
    /// and its splice takes some.
    pub(in crate::relay) fn lag(&self, backlog: &Backlog) -> u64 {
        let own = (self.splices.len() * size_of::<Splice>()) as u64;
        backlog.end() - self.position + self.inserted_len - self.inserted_sent + own
    }

    /// The memory of the splices and their own bytes.
    pub(in crate::relay) fn held_bytes(&self) -> usize {
        self.splices.capacity() * size_of::<Splice>() + self.own_bytes
    }

    /// Ends the output where the stream ends now: the member drains.
    pub(in crate::relay) const fn end_here(&mut self, backlog: &Backlog) {
        self.last = backlog.end();
    }

    const fn end(&self, backlog: &Backlog) -> u64 {
        if self.last < backlog.end() {
            self.last
        } else {
            backlog.end()
        }
    }

    /// Adds a splice behind all others, at the position or ahead of it.
    pub(in crate::relay) fn push(&mut self, splice: Splice, replies: &ReplyBytes) {
        self.inserted_len += replies.len(&splice.reply);
        self.own_bytes += splice.reply.held_bytes();
        self.skipped_len += splice.span.end - splice.span.start;
        if let Some(last) = self.splices.back_mut()
            && last.span.end == splice.span.start
            && let Some(reply) = last.reply.and(&splice.reply)
        {
            last.span.end = splice.span.end;
            last.reply = reply;
        } else {
            self.splices.push_back(splice);
        }
    }

    /// Fills `slices` with the next bytes to send. Returns how many slices and how many bytes that is.
    pub(in crate::relay) fn io_slices<'b>(
        &'b self,
        backlog: &'b Backlog,
        replies: &'b ReplyBytes,
        slices: &mut [IoSlice<'b>; MAX_SLICES],
    ) -> (usize, usize) {
        let mut position = self.position;
        let mut inserted = self.inserted_sent;
        let mut ahead = self.splices.iter().peekable();
        let (mut count, mut total) = (0, 0);
        while count < MAX_SLICES {
            let bytes = if let Some(splice) = ahead.next_if(|splice| {
                splice.span.start == position && inserted == replies.len(&splice.reply)
            }) {
                (position, inserted) = (splice.span.end, 0);
                continue;
            } else if let Some(splice) = ahead.peek()
                && splice.span.start == position
            {
                let bytes = replies.bytes_at(&splice.reply, inserted);
                inserted += bytes.len() as u64;
                bytes
            } else {
                let next = ahead.peek().map_or(self.last, |splice| splice.span.start);
                let bytes = backlog.bytes_at(position);
                let bytes = &bytes[..bytes.len().min((next - position) as usize)];
                position += bytes.len() as u64;
                bytes
            };
            if bytes.is_empty() {
                break;
            }
            slices[count] = IoSlice::new(bytes);
            count += 1;
            total += bytes.len();
        }
        (count, total)
    }

    /// Moves past `sent` bytes that the socket accepted. Returns whether output is left; if not, the
    /// cursor is detached from the backlog and must be dropped.
    #[must_use]
    pub(in crate::relay) fn advance(
        &mut self,
        sent: usize,
        backlog: &mut Backlog,
        replies: &ReplyBytes,
    ) -> bool {
        let from = self.position;
        self.step(sent, replies);
        if self.position == self.end(backlog) && self.splices.is_empty() {
            backlog.detach(from);
            return false;
        }
        backlog.advance(from, self.position);
        true
    }

    /// Detaches from the backlog, whatever is pending.
    pub(in crate::relay) fn abandon(self, backlog: &mut Backlog) {
        backlog.detach(self.position);
    }

    /// Moves the position over `sent` bytes, and over skipped bytes on the way and right behind them.
    fn step(&mut self, sent: usize, replies: &ReplyBytes) {
        let mut sent = sent as u64;
        loop {
            let next = self
                .splices
                .front()
                .map_or(u64::MAX, |splice| splice.span.start);
            let step = sent.min(next - self.position);
            self.position += step;
            sent -= step;
            let Some(splice) = self.splices.front().filter(|_| self.position == next) else {
                return;
            };
            let len = replies.len(&splice.reply);
            let inserted = sent.min(len - self.inserted_sent);
            self.inserted_sent += inserted;
            sent -= inserted;
            if self.inserted_sent < len {
                return;
            }
            self.inserted_sent = 0;
            self.inserted_len -= len;
            self.position = splice.span.end;
            self.skipped_len -= splice.span.end - splice.span.start;
            self.own_bytes -= splice.reply.held_bytes();
            self.splices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::replies::ReplyTexts;
    use super::*;
    use crate::relay::limits::Limits;
    use crate::wire::Dialect;
    use proptest::prelude::*;

    /// ReplyBytes whose acknowledgement is "ACK".
    fn replies() -> ReplyBytes {
        let texts = ReplyTexts {
            ack: Some(b"ACK".to_vec()),
            ..ReplyTexts::default()
        };
        ReplyBytes::new(Dialect::Chat64, &texts, &Limits::default())
    }

    fn own(span: Range<u64>) -> Splice {
        let reply = Reply::Nothing;
        Splice { span, reply }
    }

    fn answered(span: Range<u64>, acks: u64) -> Splice {
        let reply = Reply::Acks(acks);
        Splice { span, reply }
    }

    /// Sends everything pending, at most `step` bytes at a time.
    fn drain(mut cursor: Cursor, backlog: &mut Backlog, step: usize) -> Vec<u8> {
        let replies = replies();
        let mut sent = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let (count, total) = cursor.io_slices(backlog, &replies, &mut slices);
            let pending: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(pending.len(), total);
            let taken = total.min(step);
            sent.extend_from_slice(&pending[..taken]);
            if !cursor.advance(taken, backlog, &replies) {
                return sent;
            }
            assert!(cursor.pending_bytes(backlog) > 0);
        }
    }

    #[test]
    fn own_span_is_skipped_whatever_the_socket_accepts() {
        for step in 1..12 {
            for sent in 0..7 {
                let mut backlog = Backlog::default();
                backlog.append(b"abcOWNdefg");
                let mut cursor = Cursor::new(0, [own(3..6)], sent, &mut backlog, &replies());
                assert_eq!(cursor.pending_bytes(&backlog), 7 - sent as u64);
                backlog.append(b"hiMINEjk");
                cursor.push(own(12..16), &replies());
                assert_eq!(cursor.pending_bytes(&backlog), 11 - sent as u64);
                assert_eq!(drain(cursor, &mut backlog, step), b"abcdefghijk"[sent..]);
                assert_eq!(backlog.len(), 0);
            }
        }
    }

    #[test]
    fn acks_replace_the_own_span_whatever_the_socket_accepts() {
        let expected = b"abcACKACKdefgACKhiACK";
        for step in 1..20 {
            for sent in 0..14 {
                let mut backlog = Backlog::default();
                backlog.append(b"abcOWNdefg");
                let splices = [answered(3..6, 2)];
                let mut cursor = Cursor::new(0, splices, sent, &mut backlog, &replies());
                if sent == 13 {
                    // All but the answer to something that took no bytes.
                    cursor.push(answered(10..10, 0), &replies());
                }
                assert_eq!(cursor.pending_bytes(&backlog), 13 - sent as u64);
                cursor.push(answered(10..10, 1), &replies());
                backlog.append(b"hi");
                cursor.push(answered(12..12, 1), &replies());
                assert_eq!(cursor.pending_bytes(&backlog), 21 - sent as u64);
                assert_eq!(drain(cursor, &mut backlog, step), expected[sent..]);
                assert_eq!((backlog.len(), backlog.readers()), (0, 0));
            }
        }
    }

    #[test]
    fn acks_without_a_stream_are_coalesced() {
        let mut backlog = Backlog::default();
        let mut cursor = Cursor::new(0, [answered(0..0, 1)], 2, &mut backlog, &replies());
        for _ in 0..100_000 {
            cursor.push(answered(0..0, 1), &replies());
        }
        assert_eq!(cursor.splices.len(), 1, "a count, not a list");
        assert_eq!(cursor.stream_lag(&backlog), 300_001);
        assert_eq!(
            drain(cursor, &mut backlog, 1000),
            b"ACK".repeat(100_001)[2..]
        );
        assert_eq!(backlog.readers(), 0);
    }

    #[test]
    fn greeting_precedes_the_stream() {
        let mut backlog = Backlog::default();
        let replies = ReplyBytes::new(Dialect::Greet10, &ReplyTexts::default(), &Limits::default());
        let reply = Reply::Greeting;
        let splice = Splice { span: 0..0, reply };
        let mut cursor = Cursor::new(0, [splice], 0, &mut backlog, &replies);
        backlog.append(b"4         tick");
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (count, total) = cursor.io_slices(&backlog, &replies, &mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(bytes, b"22        Welcome to the server!4         tick");
        assert!(!cursor.advance(total, &mut backlog, &replies));
    }

    #[test]
    fn what_is_said_after_a_queue_has_ended_is_not_in_it() {
        for step in 1..12 {
            let mut backlog = Backlog::default();
            backlog.append(b"abcOWNdef");
            let splices = [answered(3..6, 1)];
            let mut cursor = Cursor::new(0, splices, 0, &mut backlog, &replies());
            cursor.end_here(&backlog);
            backlog.append(b"ghi");
            assert_eq!(cursor.pending_bytes(&backlog), 9);
            // Three of its own, three after its end and one splice, less what is left out.
            let own = size_of::<Splice>() as u64;
            assert_eq!(cursor.lag(&backlog), 12 + 3 + own);
            assert_eq!(drain(cursor, &mut backlog, step), b"abcACKdef");
            assert_eq!((backlog.len(), backlog.readers()), (0, 0));
        }
    }

    #[test]
    fn a_queue_costs_what_it_holds_on_to_and_its_own_memory() {
        let mut backlog = Backlog::default();
        backlog.append(b"abcOWNdef");
        let mut cursor = Cursor::new(2, [answered(3..6, 1)], 0, &mut backlog, &replies());
        let own = size_of::<Splice>() as u64;
        assert_eq!(cursor.lag(&backlog), 7 + 3 + own);
        assert!(
            cursor.advance(2, &mut backlog, &replies()),
            "a byte and one of the answer"
        );
        assert_eq!(cursor.lag(&backlog), 6 + 2 + own);
        assert!(cursor.advance(2, &mut backlog, &replies()));
        assert_eq!(cursor.lag(&backlog), 3);
    }

    #[test]
    fn a_queue_with_only_its_own_words_left_is_done() {
        let mut backlog = Backlog::default();
        backlog.append(b"abcOWN");
        let mut cursor = Cursor::new(0, [own(3..6)], 1, &mut backlog, &replies());
        assert!(!cursor.advance(2, &mut backlog, &replies()));
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn own_words_in_a_row_are_one_aside() {
        let mut backlog = Backlog::default();
        backlog.append(b"a");
        let mut cursor = Cursor::new(0, [], 0, &mut backlog, &replies());
        for i in 0..1000 {
            backlog.append(b"OWN");
            cursor.push(own(1 + 3 * i..4 + 3 * i), &replies());
        }
        assert_eq!(cursor.splices.len(), 1);
        assert_eq!(cursor.pending_bytes(&backlog), 1);
        assert_eq!(cursor.stream_lag(&backlog), 3001);
        assert_eq!(drain(cursor, &mut backlog, 9), b"a");
    }

    proptest! {
        /// Turns of any size, of which the member said any part and is answered any number of times,
        /// sent in pieces of any size: the member gets everything that it did not say, in order, the
        /// answers where its own words were, and nothing else.
        #[test]
        fn any_turns_in_any_pieces_arrive_once_and_in_order(
            turns in prop::collection::vec(
                (0..70_000_usize, 0..70_000_usize, 0..300_usize, 0..3_u64), 1..12),
            steps in prop::collection::vec(1..200_000_usize, 1..8),
        ) {
            let mut backlog = Backlog::default();
            let mut cursor: Option<Cursor> = None;
            let (mut expected, mut sent) = (Vec::<u8>::new(), Vec::<u8>::new());
            let mut steps = steps.into_iter().cycle();
            for (turn, (before, own, after, acks)) in turns.into_iter().enumerate() {
                let start = backlog.end();
                let mut said = vec![turn as u8; before];
                said.extend(std::iter::repeat_n(0xff, own));
                said.extend(std::iter::repeat_n(turn as u8, after));
                expected.extend(&said[..before]);
                expected.extend(b"ACK".repeat(acks as usize));
                expected.extend(&said[before + own..]);
                let splice = answered(start + before as u64..start + (before + own) as u64, acks);
                if let Some(cursor) = &mut cursor {
                    backlog.append(&said);
                    cursor.push(splice, &replies());
                } else if before + after > 0 || acks > 0 {
                    backlog.append(&said);
                    cursor = Some(Cursor::new(start, [splice], 0, &mut backlog, &replies()));
                }
                if let Some(mut behind) = cursor.take() {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let replies = replies();
                    let (count, total) = behind.io_slices(&backlog, &replies, &mut slices);
                    let taken = total.min(steps.next().unwrap_or(1));
                    let bytes = slices[..count].iter().flat_map(|s| s.to_vec());
                    sent.extend(bytes.take(taken));
                    if behind.advance(taken, &mut backlog, &replies) {
                        cursor = Some(behind);
                    }
                }
            }
            if let Some(behind) = cursor {
                sent.extend(drain(behind, &mut backlog, 100_000));
            }
            prop_assert_eq!((backlog.len(), backlog.readers()), (0, 0));
            prop_assert!(sent == expected);
        }
    }
}
