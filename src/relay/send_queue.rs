//! What one member has still to be sent: a place in its channel's backlog.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use super::backlog::Backlog;
use super::lines::{Line, Lines};

/// How many slices one gathered write takes. With the backlog's chunks that is up to a mebibyte,
/// which is also the most that one member is written in one turn.
pub(super) const MAX_SLICES: usize = 16;

/// A member that is behind: its cursor in the channel's stream, and the places ahead of it where it is
/// to be sent something else than the stream has.
///
/// The queue holds references only, so being behind costs a member the same few bytes whether it is
/// one message behind or a hundred thousand. It exists only while something is pending: a member
/// that caught up has none.
#[derive(Debug)]
pub(super) struct SendQueue {
    cursor: u64,
    /// What is ahead of the cursor or at it, in order. Those without anything between them are one.
    asides: VecDeque<Aside>,
    /// How much of the first aside's line was sent, in bytes.
    begun: u64,
    /// How much of the stream ahead is left out, in bytes.
    left_out: u64,
    /// How long all the asides' lines are, in bytes.
    told: u64,
    /// Where it ends, for a member that leaves: what is said after that is not for it.
    last: u64,
}

/// A place in the stream where a member is sent something else: its own words are left out, and it may
/// be told something instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aside {
    /// What is left out, if anything.
    pub(super) span: Range<u64>,
    /// What is sent in its place.
    pub(super) line: Line,
}

impl SendQueue {
    /// A queue of everything in `backlog` from `start` on but the asides, less its first `sent` bytes,
    /// which the socket took already.
    pub(super) fn new(
        start: u64,
        asides: impl IntoIterator<Item = Aside>,
        sent: usize,
        backlog: &mut Backlog,
        lines: &Lines,
    ) -> Self {
        let mut queue = Self {
            cursor: start,
            asides: VecDeque::new(),
            begun: 0,
            left_out: 0,
            told: 0,
            last: u64::MAX,
        };
        for aside in asides {
            queue.put(aside, lines);
        }
        queue.step(sent, lines);
        backlog.attach(queue.cursor);
        queue
    }

    /// How many bytes the member has still to be sent.
    pub(super) const fn pending_bytes(&self, backlog: &Backlog) -> u64 {
        self.behind(backlog) - self.left_out
    }

    /// How far the member is behind the room, in bytes of what was said, its own words included:
    /// that is how much of the backlog it holds on to. And of what it is told besides.
    pub(super) const fn behind(&self, backlog: &Backlog) -> u64 {
        self.end(backlog) - self.cursor + self.told - self.begun
    }

    /// What it holds on to, in bytes: the stream from its cursor on, whether all of that is for it or
    /// not, what it is told besides, and its own memory. Messages may be as short as nothing, so to
    /// remember where they were may take more than they do.
    pub(super) fn cost(&self, backlog: &Backlog) -> u64 {
        let own = (self.asides.len() * size_of::<Aside>()) as u64;
        backlog.end() - self.cursor + self.told - self.begun + own
    }

    /// What it takes to remember its asides, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.asides.capacity() * size_of::<Aside>()
    }

    /// Ends the queue where the stream ends now: nothing more is for this member.
    pub(super) const fn end_here(&mut self, backlog: &Backlog) {
        self.last = backlog.end();
    }

    const fn end(&self, backlog: &Backlog) -> u64 {
        if self.last < backlog.end() {
            self.last
        } else {
            backlog.end()
        }
    }

    /// Puts an aside behind all others, at a place that is ahead of the cursor or at it.
    pub(super) fn put(&mut self, aside: Aside, lines: &Lines) {
        self.told += lines.len(aside.line);
        self.left_out += aside.span.end - aside.span.start;
        if let Some(last) = self.asides.back_mut()
            && last.span.end == aside.span.start
            && let Some(line) = last.line.and(aside.line)
        {
            last.span.end = aside.span.end;
            last.line = line;
        } else {
            self.asides.push_back(aside);
        }
    }

    /// Fills `slices` with what is to be sent next; says how many slices and how many bytes.
    pub(super) fn io_slices<'b>(
        &self,
        backlog: &'b Backlog,
        lines: &'b Lines,
        slices: &mut [IoSlice<'b>; MAX_SLICES],
    ) -> (usize, usize) {
        let mut position = self.cursor;
        let mut told = self.begun;
        let mut asides = self.asides.iter().peekable();
        let (mut count, mut total) = (0, 0);
        while count < MAX_SLICES {
            let bytes = if let Some(aside) = asides
                .next_if(|aside| aside.span.start == position && told == lines.len(aside.line))
            {
                (position, told) = (aside.span.end, 0);
                continue;
            } else if let Some(aside) = asides.peek()
                && aside.span.start == position
            {
                let bytes = lines.bytes_at(aside.line, told);
                told += bytes.len() as u64;
                bytes
            } else {
                let next = asides.peek().map_or(self.last, |aside| aside.span.start);
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

    /// Moves past `sent` bytes that the socket took. Says whether anything is left; if not, the
    /// queue has let go of the backlog and is to be dropped.
    #[must_use]
    pub(super) fn advance(&mut self, sent: usize, backlog: &mut Backlog, lines: &Lines) -> bool {
        let from = self.cursor;
        self.step(sent, lines);
        if self.cursor == self.end(backlog) && self.asides.is_empty() {
            backlog.detach(from);
            return false;
        }
        backlog.advance(from, self.cursor);
        true
    }

    /// Lets go of the backlog, whatever was pending.
    pub(super) fn abandon(self, backlog: &mut Backlog) {
        backlog.detach(self.cursor);
    }

    /// Moves the cursor over `sent` bytes, and over what is left out on the way and right behind it.
    fn step(&mut self, sent: usize, lines: &Lines) {
        let mut sent = sent as u64;
        loop {
            let next = self
                .asides
                .front()
                .map_or(u64::MAX, |aside| aside.span.start);
            let way = sent.min(next - self.cursor);
            self.cursor += way;
            sent -= way;
            let Some(aside) = self.asides.front().filter(|_| self.cursor == next) else {
                return;
            };
            let len = lines.len(aside.line);
            let told = sent.min(len - self.begun);
            self.begun += told;
            sent -= told;
            if self.begun < len {
                return;
            }
            self.begun = 0;
            self.told -= len;
            self.cursor = aside.span.end;
            self.left_out -= aside.span.end - aside.span.start;
            self.asides.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Wording;
    use crate::wire::Dialect;
    use proptest::prelude::*;

    /// Lines whose acknowledgement is "ACK".
    fn lines() -> Lines {
        let wording = Wording {
            ack: Some(b"ACK".to_vec()),
            ..Wording::default()
        };
        Lines::new(Dialect::Chat64, &wording)
    }

    fn own(span: Range<u64>) -> Aside {
        let line = Line::Nothing;
        Aside { span, line }
    }

    fn answered(span: Range<u64>, acks: u64) -> Aside {
        let line = Line::Acks(acks);
        Aside { span, line }
    }

    /// Sends everything pending, at most `step` bytes at a time.
    fn drain(mut queue: SendQueue, backlog: &mut Backlog, step: usize) -> Vec<u8> {
        let lines = lines();
        let mut sent = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let (count, total) = queue.io_slices(backlog, &lines, &mut slices);
            let pending: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(pending.len(), total);
            let taken = total.min(step);
            sent.extend_from_slice(&pending[..taken]);
            if !queue.advance(taken, backlog, &lines) {
                return sent;
            }
            assert!(queue.pending_bytes(backlog) > 0);
        }
    }

    #[test]
    fn all_but_its_own_words_is_sent_whatever_the_socket_takes() {
        for step in 1..12 {
            for sent in 0..7 {
                let mut backlog = Backlog::default();
                backlog.append(b"abcOWNdefg");
                let mut queue = SendQueue::new(0, [own(3..6)], sent, &mut backlog, &lines());
                assert_eq!(queue.pending_bytes(&backlog), 7 - sent as u64);
                backlog.append(b"hiMINEjk");
                queue.put(own(12..16), &lines());
                assert_eq!(queue.pending_bytes(&backlog), 11 - sent as u64);
                assert_eq!(drain(queue, &mut backlog, step), b"abcdefghijk"[sent..]);
                assert_eq!(backlog.len(), 0);
            }
        }
    }

    #[test]
    fn answers_are_sent_in_the_place_of_its_own_words_whatever_the_socket_takes() {
        let expected = b"abcACKACKdefgACKhiACK";
        for step in 1..20 {
            for sent in 0..14 {
                let mut backlog = Backlog::default();
                backlog.append(b"abcOWNdefg");
                let asides = [answered(3..6, 2)];
                let mut queue = SendQueue::new(0, asides, sent, &mut backlog, &lines());
                if sent == 13 {
                    // All but the answer to something that took no bytes.
                    queue.put(answered(10..10, 0), &lines());
                }
                assert_eq!(queue.pending_bytes(&backlog), 13 - sent as u64);
                queue.put(answered(10..10, 1), &lines());
                backlog.append(b"hi");
                queue.put(answered(12..12, 1), &lines());
                assert_eq!(queue.pending_bytes(&backlog), 21 - sent as u64);
                assert_eq!(drain(queue, &mut backlog, step), expected[sent..]);
                assert_eq!((backlog.len(), backlog.readers()), (0, 0));
            }
        }
    }

    #[test]
    fn who_hears_nothing_is_answered_all_the_same() {
        let mut backlog = Backlog::default();
        let mut queue = SendQueue::new(0, [answered(0..0, 1)], 2, &mut backlog, &lines());
        for _ in 0..100_000 {
            queue.put(answered(0..0, 1), &lines());
        }
        assert_eq!(queue.asides.len(), 1, "a count, not a list");
        assert_eq!(queue.behind(&backlog), 300_001);
        assert_eq!(
            drain(queue, &mut backlog, 1000),
            b"ACK".repeat(100_001)[2..]
        );
        assert_eq!(backlog.readers(), 0);
    }

    #[test]
    fn a_greeting_comes_before_everything_else() {
        let mut backlog = Backlog::default();
        let lines = Lines::new(Dialect::Greet10, &Wording::default());
        let line = Line::Greeting;
        let aside = Aside { span: 0..0, line };
        let mut queue = SendQueue::new(0, [aside], 0, &mut backlog, &lines);
        backlog.append(b"4         tick");
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (count, total) = queue.io_slices(&backlog, &lines, &mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(bytes, b"22        Welcome to the server!4         tick");
        assert!(!queue.advance(total, &mut backlog, &lines));
    }

    #[test]
    fn what_is_said_after_a_queue_has_ended_is_not_in_it() {
        for step in 1..12 {
            let mut backlog = Backlog::default();
            backlog.append(b"abcOWNdef");
            let asides = [answered(3..6, 1)];
            let mut queue = SendQueue::new(0, asides, 0, &mut backlog, &lines());
            queue.end_here(&backlog);
            backlog.append(b"ghi");
            assert_eq!(queue.pending_bytes(&backlog), 9);
            // Three of its own, three after its end and one aside, less what is left out.
            let own = size_of::<Aside>() as u64;
            assert_eq!(queue.cost(&backlog), 12 + 3 + own);
            assert_eq!(drain(queue, &mut backlog, step), b"abcACKdef");
            assert_eq!((backlog.len(), backlog.readers()), (0, 0));
        }
    }

    #[test]
    fn a_queue_costs_what_it_holds_on_to_and_its_own_memory() {
        let mut backlog = Backlog::default();
        backlog.append(b"abcOWNdef");
        let mut queue = SendQueue::new(2, [answered(3..6, 1)], 0, &mut backlog, &lines());
        let own = size_of::<Aside>() as u64;
        assert_eq!(queue.cost(&backlog), 7 + 3 + own);
        assert!(
            queue.advance(2, &mut backlog, &lines()),
            "a byte and one of the answer"
        );
        assert_eq!(queue.cost(&backlog), 6 + 2 + own);
        assert!(queue.advance(2, &mut backlog, &lines()));
        assert_eq!(queue.cost(&backlog), 3);
    }

    #[test]
    fn a_queue_with_only_its_own_words_left_is_done() {
        let mut backlog = Backlog::default();
        backlog.append(b"abcOWN");
        let mut queue = SendQueue::new(0, [own(3..6)], 1, &mut backlog, &lines());
        assert!(!queue.advance(2, &mut backlog, &lines()));
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn own_words_in_a_row_are_one_aside() {
        let mut backlog = Backlog::default();
        backlog.append(b"a");
        let mut queue = SendQueue::new(0, [], 0, &mut backlog, &lines());
        for i in 0..1000 {
            backlog.append(b"OWN");
            queue.put(own(1 + 3 * i..4 + 3 * i), &lines());
        }
        assert_eq!(queue.asides.len(), 1);
        assert_eq!(queue.pending_bytes(&backlog), 1);
        assert_eq!(queue.behind(&backlog), 3001);
        assert_eq!(drain(queue, &mut backlog, 9), b"a");
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
            let mut queue: Option<SendQueue> = None;
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
                let aside = answered(start + before as u64..start + (before + own) as u64, acks);
                if let Some(queue) = &mut queue {
                    backlog.append(&said);
                    queue.put(aside, &lines());
                } else if before + after > 0 || acks > 0 {
                    backlog.append(&said);
                    queue = Some(SendQueue::new(start, [aside], 0, &mut backlog, &lines()));
                }
                if let Some(mut behind) = queue.take() {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let lines = lines();
                    let (count, total) = behind.io_slices(&backlog, &lines, &mut slices);
                    let taken = total.min(steps.next().unwrap_or(1));
                    let bytes = slices[..count].iter().flat_map(|s| s.to_vec());
                    sent.extend(bytes.take(taken));
                    if behind.advance(taken, &mut backlog, &lines) {
                        queue = Some(behind);
                    }
                }
            }
            if let Some(behind) = queue {
                sent.extend(drain(behind, &mut backlog, 100_000));
            }
            prop_assert_eq!((backlog.len(), backlog.readers()), (0, 0));
            prop_assert!(sent == expected);
        }
    }
}
