//! The bus as a member of the `chat10` channel: what is to be said to other relays.
//!
//! It has a place in the channel's backlog like any lagging member, and skips what it published itself: that came
//! from other relays. But it is no connection. What it receives are whole messages, as many as its caller takes,
//! and it neither pauses senders nor is closed for its lag: at its limit the oldest messages are given up.

use std::collections::VecDeque;
use std::ops::Range;

use super::channel::Backlog;
use crate::wire::header;

/// `BusMember` is the place in the channel's stream up to which the bus has received it.
#[derive(Debug)]
pub(super) struct BusMember {
    position: u64,
    /// The spans ahead of the position that it published itself. Adjacent ones are merged.
    own: VecDeque<Range<u64>>,
    /// How many bytes these are.
    own_len: u64,
    /// How far it may be behind the end of the stream, in bytes.
    max_lag: u64,
}

impl BusMember {
    /// A bus that receives what is published from now on.
    pub(super) fn new(max_lag: u64, backlog: &mut Backlog) -> Self {
        backlog.attach(backlog.end());
        Self {
            position: backlog.end(),
            own: VecDeque::new(),
            own_len: 0,
            max_lag,
        }
    }

    /// This span of the stream, the last one so far, is its own.
    pub(super) fn skip(&mut self, span: Range<u64>) {
        self.own_len += span.end - span.start;
        match self.own.back_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => self.own.push_back(span),
        }
    }

    /// How many bytes it has still to receive. What was published in this turn does not count before its end.
    pub(super) fn lag(&self, backlog: &Backlog) -> u64 {
        let end = backlog.end();
        let of_this_turn = self.own.iter().rev().take_while(|span| span.end > end);
        let of_this_turn: u64 = of_this_turn
            .map(|span| span.end - span.start.max(end))
            .sum();
        end - self.position - (self.own_len - of_this_turn)
    }

    /// Takes the next messages: as many as fit `max` bytes, or one that is longer. Appends them to `out` and
    /// returns how many they are.
    pub(super) fn take(&mut self, max: usize, backlog: &mut Backlog, out: &mut Vec<u8>) -> u64 {
        let from = self.position;
        let mut count = 0;
        while let Some(len) = self.next_len(backlog) {
            if count > 0 && out.len() + len as usize > max {
                break;
            }
            copy(backlog, self.position, len, out);
            self.position += len;
            count += 1;
        }
        backlog.advance(from, self.position);
        count
    }

    /// Gives up the oldest messages beyond its limit. Returns how many they are.
    pub(super) fn give_up(&mut self, backlog: &mut Backlog) -> u64 {
        let from = self.position;
        let mut count = 0;
        self.skip_own();
        while backlog.end() - self.position > self.max_lag
            && let Some(len) = self.next_len(backlog)
        {
            self.position += len;
            count += 1;
            self.skip_own();
        }
        backlog.advance(from, self.position);
        count
    }

    /// Moves over its own span, if it stands before one.
    fn skip_own(&mut self) {
        if let Some(span) = self.own.front()
            && span.start == self.position
        {
            self.position = span.end;
            self.own_len -= span.end - span.start;
            self.own.pop_front();
        }
    }

    /// The length of the next message, in bytes; `None` if there is none. It stands before that afterwards.
    fn next_len(&mut self, backlog: &Backlog) -> Option<u64> {
        self.skip_own();
        if self.position == backlog.end() {
            return None;
        }
        let name = frame_len(backlog, self.position)?;
        Some(name + frame_len(backlog, self.position + name)?)
    }
}

/// The length of the frame at this position of the stream, its header included.
fn frame_len(backlog: &Backlog, position: u64) -> Option<u64> {
    let bytes = backlog.bytes_at(position);
    let len = if let Some(head) = bytes.get(..header::WIDTH) {
        header::parse(head)
    } else {
        // The header is in two chunks.
        let mut head = Vec::with_capacity(header::WIDTH);
        copy(backlog, position, header::WIDTH as u64, &mut head);
        header::parse(&head)
    };
    Some(header::WIDTH as u64 + len?)
}

fn copy(backlog: &Backlog, mut position: u64, len: u64, out: &mut Vec<u8>) {
    let end = position + len;
    while position < end {
        let bytes = backlog.bytes_at(position);
        let bytes = &bytes[..bytes.len().min((end - position) as usize)];
        out.extend_from_slice(bytes);
        position += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode_frame;

    /// A message of this length, and a name.
    fn message(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(b"alice", &mut out);
        encode_frame(&vec![b'x'; len], &mut out);
        out
    }

    fn append(backlog: &mut Backlog, bytes: &[u8]) -> Range<u64> {
        let start = backlog.end();
        backlog.append(bytes);
        start..backlog.end()
    }

    #[test]
    fn bus_receives_whole_messages_less_its_own() {
        let mut backlog = Backlog::default();
        append(&mut backlog, &message(1));
        let mut bus = BusMember::new(u64::MAX, &mut backlog);
        let (long, short) = (message(70_000), message(3));
        for bytes in [&short, &long, &short, &short] {
            append(&mut backlog, bytes);
            let own = append(&mut backlog, &message(9));
            bus.skip(own);
        }
        let expected = [&short[..], &long, &short, &short].concat();
        assert_eq!(bus.lag(&backlog), expected.len() as u64);
        let mut received = Vec::new();
        for count in [1, 1, 2, 0] {
            let mut out = Vec::new();
            assert_eq!(bus.take(100, &mut backlog, &mut out), count);
            received.extend(out);
        }
        assert!(received == expected);
        assert_eq!((bus.lag(&backlog), backlog.len()), (0, 0));
    }

    #[test]
    fn oldest_messages_are_given_up_at_the_limit() {
        let mut backlog = Backlog::default();
        let len = message(10).len() as u64;
        let mut bus = BusMember::new(5 * len, &mut backlog);
        for _ in 0..5 {
            append(&mut backlog, &message(10));
            assert_eq!(bus.give_up(&mut backlog), 0);
        }
        append(&mut backlog, &message(11));
        let own = append(&mut backlog, &message(10));
        bus.skip(own);
        assert_eq!(bus.give_up(&mut backlog), 3);
        let mut out = Vec::new();
        assert_eq!(bus.take(usize::MAX, &mut backlog, &mut out), 3);
        assert_eq!(out.len() as u64, 3 * len + 1);
        let own = append(&mut backlog, &message(1000));
        bus.skip(own);
        append(&mut backlog, &message(10));
        assert_eq!(bus.give_up(&mut backlog), 0, "its own is not behind it");
        assert_eq!(bus.lag(&backlog), len);
        let end = backlog.end();
        bus.skip(end..end + 10);
        bus.skip(end + 15..end + 20);
        assert_eq!(bus.lag(&backlog), len, "it is not in the backlog yet");
    }
}
