//! What one member has still to be sent: a place in the shared backlog.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use super::backlog::Backlog;

/// How many slices one gathered write takes. With the backlog's chunks that is up to a mebibyte,
/// which is also the most that one member is written in one turn.
pub(super) const MAX_SLICES: usize = 16;

/// A member that is behind: its cursor in the room's stream, and the spans ahead of it that it need
/// not be sent because it said them itself.
///
/// The queue holds references only, so being behind costs a member the same few bytes whether it is
/// one message behind or a hundred thousand. It exists only while something is pending: a member
/// that caught up has none.
#[derive(Debug)]
pub(super) struct SendQueue {
    cursor: u64,
    /// Its own words ahead of the cursor, in order, never touching each other.
    ///
    /// Each of them is at least one frame of the backlog, so all members' spans together are fewer
    /// than the messages held there: they need no limit of their own.
    own: VecDeque<Range<u64>>,
    own_bytes: u64,
}

impl SendQueue {
    /// A queue of everything in `backlog` from `start` on but `own`, less its first `sent` bytes,
    /// which the socket took already. There must be something left.
    pub(super) fn new(
        start: u64,
        own: Option<Range<u64>>,
        sent: usize,
        backlog: &mut Backlog,
    ) -> Self {
        let mut queue = Self {
            cursor: start,
            own: VecDeque::new(),
            own_bytes: 0,
        };
        if let Some(own) = own {
            queue.skip(own);
        }
        queue.step(sent);
        backlog.attach(queue.cursor);
        queue
    }

    /// How many bytes the member has still to be sent.
    pub(super) const fn pending_bytes(&self, backlog: &Backlog) -> u64 {
        self.behind(backlog) - self.own_bytes
    }

    /// How far the member is behind the room, in bytes of what was said, its own words included:
    /// that is how much of the backlog it holds on to.
    pub(super) const fn behind(&self, backlog: &Backlog) -> u64 {
        backlog.end() - self.cursor
    }

    /// Leaves out a span that is about to be, or just was, said by the member itself.
    pub(super) fn skip(&mut self, span: Range<u64>) {
        self.own_bytes += span.end - span.start;
        match self.own.back_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => self.own.push_back(span),
        }
    }

    /// Fills `slices` with what is to be sent next; says how many slices and how many bytes.
    pub(super) fn io_slices<'b>(
        &self,
        backlog: &'b Backlog,
        slices: &mut [IoSlice<'b>; MAX_SLICES],
    ) -> (usize, usize) {
        let mut position = self.cursor;
        let mut own = self.own.iter();
        let mut next_own = own.next();
        let (mut count, mut total) = (0, 0);
        while count < MAX_SLICES && position < backlog.end() {
            if let Some(span) = next_own
                && span.start == position
            {
                position = span.end;
                next_own = own.next();
                continue;
            }
            let mut bytes = backlog.bytes_at(position);
            if let Some(span) = next_own {
                bytes = &bytes[..bytes.len().min((span.start - position) as usize)];
            }
            slices[count] = IoSlice::new(bytes);
            count += 1;
            total += bytes.len();
            position += bytes.len() as u64;
        }
        (count, total)
    }

    /// Moves past `sent` bytes that the socket took. Says whether anything is left; if not, the
    /// queue has let go of the backlog and is to be dropped.
    #[must_use]
    pub(super) fn advance(&mut self, sent: usize, backlog: &mut Backlog) -> bool {
        let from = self.cursor;
        self.step(sent);
        backlog.advance(from, self.cursor);
        self.cursor < backlog.end()
    }

    /// Lets go of the backlog, whatever was pending.
    pub(super) fn abandon(self, backlog: &mut Backlog) {
        backlog.detach(self.cursor);
    }

    /// Moves the cursor over `sent` bytes and over its own words on and right behind the way.
    fn step(&mut self, mut sent: usize) {
        loop {
            let next = self.own.front().map_or(u64::MAX, |span| span.start);
            let way = (next - self.cursor).min(sent as u64);
            self.cursor += way;
            sent -= way as usize;
            if self.cursor < next {
                return;
            }
            if let Some(span) = self.own.pop_front() {
                self.cursor = span.end;
                self.own_bytes -= span.end - span.start;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sends everything pending, at most `step` bytes at a time.
    fn drain(mut queue: SendQueue, backlog: &mut Backlog, step: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let (count, total) = queue.io_slices(backlog, &mut slices);
            let pending: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(pending.len(), total);
            let taken = total.min(step);
            sent.extend_from_slice(&pending[..taken]);
            if !queue.advance(taken, backlog) {
                return sent;
            }
        }
    }

    #[test]
    fn all_but_its_own_words_is_sent_whatever_the_socket_takes() {
        for step in 1..12 {
            for sent in 0..7 {
                let mut backlog = Backlog::default();
                backlog.append(b"abcOWNdefg");
                let mut queue = SendQueue::new(0, Some(3..6), sent, &mut backlog);
                assert_eq!(queue.pending_bytes(&backlog), 7 - sent as u64);
                backlog.append(b"hiMINEjk");
                queue.skip(12..16);
                assert_eq!(queue.pending_bytes(&backlog), 11 - sent as u64);
                assert_eq!(drain(queue, &mut backlog, step), b"abcdefghijk"[sent..]);
                assert_eq!(backlog.len(), 0);
            }
        }
    }

    #[test]
    fn a_queue_with_only_its_own_words_left_is_done() {
        let mut backlog = Backlog::default();
        backlog.append(b"abcOWN");
        let mut queue = SendQueue::new(0, Some(3..6), 1, &mut backlog);
        assert!(!queue.advance(2, &mut backlog));
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn own_words_in_a_row_are_one_span() {
        let mut backlog = Backlog::default();
        backlog.append(b"a");
        let mut queue = SendQueue::new(0, None, 0, &mut backlog);
        for i in 0..1000 {
            backlog.append(b"OWN");
            queue.skip(1 + 3 * i..4 + 3 * i);
        }
        assert_eq!(queue.own.len(), 1);
        assert_eq!(queue.pending_bytes(&backlog), 1);
        assert_eq!(queue.behind(&backlog), 3001);
        assert_eq!(drain(queue, &mut backlog, 9), b"a");
    }

    proptest! {
        /// Turns of any size, of which the member said any part, sent in pieces of any size: the
        /// member gets everything that it did not say, in order, and nothing else.
        #[test]
        fn any_turns_in_any_pieces_arrive_once_and_in_order(
            turns in prop::collection::vec((0..70_000_usize, 0..70_000_usize, 0..300_usize), 1..12),
            steps in prop::collection::vec(1..200_000_usize, 1..8),
        ) {
            let mut backlog = Backlog::default();
            let mut queue: Option<SendQueue> = None;
            let (mut expected, mut sent) = (Vec::<u8>::new(), Vec::<u8>::new());
            let mut steps = steps.into_iter().cycle();
            for (turn, (before, own, after)) in turns.into_iter().enumerate() {
                let start = backlog.end();
                let mut said = vec![turn as u8; before];
                said.extend(std::iter::repeat_n(0xff, own));
                said.extend(std::iter::repeat_n(turn as u8, after));
                expected.extend(said.iter().filter(|&&byte| byte != 0xff));
                let span = start + before as u64..start + (before + own) as u64;
                let span = (own > 0).then_some(span);
                if let Some(queue) = &mut queue {
                    backlog.append(&said);
                    if let Some(span) = span {
                        queue.skip(span);
                    }
                } else if before + after > 0 {
                    backlog.append(&said);
                    queue = Some(SendQueue::new(start, span, 0, &mut backlog));
                }
                if let Some(mut behind) = queue.take() {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let (count, total) = behind.io_slices(&backlog, &mut slices);
                    let taken = total.min(steps.next().unwrap_or(1));
                    let bytes = slices[..count].iter().flat_map(|s| s.to_vec());
                    sent.extend(bytes.take(taken));
                    if behind.advance(taken, &mut backlog) {
                        queue = Some(behind);
                    }
                }
            }
            if let Some(behind) = queue {
                sent.extend(drain(behind, &mut backlog, 100_000));
            }
            prop_assert_eq!(backlog.len(), 0);
            prop_assert!(sent == expected);
        }
    }
}
