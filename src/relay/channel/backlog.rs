//! The published bytes that some member has not received: one copy, however many members lag.

use std::collections::VecDeque;
use std::mem;

use crate::relay::limits::CHUNK;

/// A channel's stream from the position of the slowest member, or from the beginning of the history,
/// to the end. See "the backlog" in the relay's documentation.
///
/// Each chunk counts the readers that stand in it. Chunks at the front that have none, and that are no
/// history, are freed. When no member lags and there is no history, all are.
#[derive(Debug, Default)]
pub(in crate::relay) struct Backlog {
    /// All of them full but the last.
    chunks: VecDeque<Chunk>,
    /// The position of the first chunk's first byte.
    base: u64,
    /// The position after the last byte stored.
    end: u64,
    /// How many cursors there are.
    readers: usize,
    /// How many of them stand at the end, and so in no chunk: their output is replies of their own.
    at_end: usize,
    /// The position from which on everything is kept, as history.
    history: Option<u64>,
    /// The memory of the cursors themselves, in bytes.
    cursor_bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    readers: usize,
}

impl Backlog {
    /// The position after the last byte stored.
    pub(in crate::relay) const fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes are stored, for all lagging members and as history.
    pub(in crate::relay) const fn len(&self) -> u64 {
        self.end - self.base
    }

    /// How much memory is held, in bytes: the stored bytes, and the cursors.
    pub(in crate::relay) fn held_bytes(&self) -> usize {
        self.shared_bytes() + self.cursor_bytes
    }

    /// How much of that is stored bytes, of which there is one copy for all.
    pub(in crate::relay) fn shared_bytes(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// A cursor takes this much more memory, in bytes.
    pub(in crate::relay) const fn charge(&mut self, bytes: usize) {
        self.cursor_bytes += bytes;
    }

    /// A cursor takes this much less memory, in bytes.
    pub(in crate::relay) const fn refund(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.cursor_bytes, "what is refunded was charged");
        self.cursor_bytes -= bytes;
    }

    /// The memory of the cursors, in bytes.
    pub(in crate::relay) const fn cursor_bytes(&self) -> usize {
        self.cursor_bytes
    }

    /// How many of the stored bytes some member has still to receive, counted in chunks.
    pub(in crate::relay) fn unread_bytes(&self) -> u64 {
        let has_reader = |chunk: &Chunk| chunk.readers > 0;
        let before = self.chunks.iter().position(has_reader);
        before.map_or(0, |chunks| self.len() - (chunks * CHUNK) as u64)
    }

    /// How many cursors there are.
    pub(in crate::relay) const fn readers(&self) -> usize {
        self.readers
    }

    /// Appends published bytes. There must be a reader, or one be attached before anything else, or they
    /// must be history: bytes that no cursor passes would never be freed.
    pub(in crate::relay) fn append(&mut self, mut bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (first, _) = self.locate(self.end);
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = match self.chunks.back() {
                Some(last) => CHUNK - last.bytes.len(),
                None => 0,
            };
            if room == 0 {
                self.chunks.push_back(Chunk {
                    bytes: Vec::with_capacity(CHUNK),
                    readers: 0,
                });
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(room));
            if let Some(last) = self.chunks.back_mut() {
                last.bytes.extend_from_slice(now);
            }
            bytes = later;
        }
        self.chunks[first].readers += mem::take(&mut self.at_end);
    }

    /// The bytes at `position`, to the end of the chunk it is in; nothing at the stream's end.
    pub(in crate::relay) fn bytes_at(&self, position: u64) -> &[u8] {
        let (index, offset) = self.locate(position);
        self.chunks
            .get(index)
            .map_or(&[], |chunk| &chunk.bytes[offset..])
    }

    /// Adds a reader at `position`.
    pub(in crate::relay) fn attach(&mut self, position: u64) {
        *self.readers_at(position) += 1;
        self.readers += 1;
    }

    /// Moves a reader forward.
    pub(in crate::relay) fn advance(&mut self, from: u64, to: u64) {
        debug_assert!(from <= to, "a reader never goes back");
        *self.readers_at(from) -= 1;
        *self.readers_at(to) += 1;
        self.free_consumed();
    }

    /// Removes the reader at `position`.
    pub(in crate::relay) fn detach(&mut self, position: u64) {
        *self.readers_at(position) -= 1;
        self.readers -= 1;
        self.free_consumed();
    }

    /// Everything that is appended from now on may be history: it must not be freed before the end of its turn,
    /// which says what of it is.
    pub(in crate::relay) const fn begin_history(&mut self) {
        if self.history.is_none() {
            self.history = Some(self.end);
        }
    }

    /// Keeps everything from this position on, as history, and nothing before it that no reader needs.
    pub(in crate::relay) fn keep_from(&mut self, position: u64) {
        self.history = Some(position);
        self.free_consumed();
    }

    /// The count of the readers in the chunk of this position.
    fn readers_at(&mut self, position: u64) -> &mut usize {
        if position == self.end {
            return &mut self.at_end;
        }
        let (index, _) = self.locate(position);
        &mut self.chunks[index].readers
    }

    /// Frees the chunks that every reader has passed and that are no history.
    fn free_consumed(&mut self) {
        let kept = self.history.unwrap_or(self.end);
        if self.readers == self.at_end && kept == self.end {
            self.chunks = VecDeque::new();
            self.base = self.end;
            return;
        }
        while self.base + CHUNK as u64 <= kept
            && self.chunks.front().is_some_and(|chunk| chunk.readers == 0)
        {
            self.chunks.pop_front();
            self.base += CHUNK as u64;
        }
    }

    fn locate(&self, position: u64) -> (usize, usize) {
        debug_assert!(self.base <= position && position <= self.end);
        let offset = (position - self.base) as usize;
        (offset / CHUNK, offset % CHUNK)
    }

    /// Checks what must hold between turns.
    pub(in crate::relay) fn check(&self) {
        let in_chunks: usize = self.chunks.iter().map(|chunk| chunk.readers).sum();
        debug_assert_eq!(
            in_chunks + self.at_end,
            self.readers,
            "each reader is in one place"
        );
        let stored: usize = self.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        debug_assert_eq!(stored as u64, self.len(), "the chunks are the stream");
        let kept = self.history.unwrap_or(self.end);
        debug_assert!(self.base <= kept && kept <= self.end, "history is stored");
        debug_assert!(
            self.readers > 0 || self.cursor_bytes == 0,
            "without cursors nothing is charged for them"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    /// Reads everything from `position` on, chunk by chunk.
    fn read_to_end(backlog: &Backlog, mut position: u64) -> Vec<u8> {
        let mut read = Vec::new();
        while position < backlog.end() {
            let bytes = backlog.bytes_at(position);
            read.extend_from_slice(bytes);
            position += bytes.len() as u64;
        }
        read
    }

    #[test]
    fn reader_finds_every_byte_across_chunks() {
        let published = pattern(3 * CHUNK + 17);
        let mut backlog = Backlog::default();
        backlog.append(&published[..100]);
        backlog.attach(40);
        for piece in published[100..].chunks(999) {
            backlog.append(piece);
        }
        assert_eq!(backlog.end(), published.len() as u64);
        for position in [40, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, published.len()] {
            assert_eq!(
                read_to_end(&backlog, position as u64),
                published[position..]
            );
        }
    }

    #[test]
    fn chunks_are_freed_when_the_last_reader_has_passed_them() {
        let mut backlog = Backlog::default();
        backlog.append(&pattern(4 * CHUNK));
        backlog.attach(10);
        backlog.attach(CHUNK as u64 + 5);
        assert_eq!(backlog.len(), 4 * CHUNK as u64);
        backlog.advance(CHUNK as u64 + 5, 3 * CHUNK as u64);
        assert_eq!(backlog.len(), 4 * CHUNK as u64, "a reader is still at 10");
        backlog.advance(10, 2 * CHUNK as u64 + 1);
        assert_eq!(backlog.len(), 2 * CHUNK as u64);
        backlog.detach(2 * CHUNK as u64 + 1);
        assert_eq!(backlog.len(), CHUNK as u64);
        backlog.detach(3 * CHUNK as u64);
        assert_eq!(backlog.len(), 0);
        assert!(backlog.chunks.is_empty() && backlog.readers() == 0);
    }

    #[test]
    fn emptied_backlog_continues_at_the_same_position() {
        let mut backlog = Backlog::default();
        backlog.append(&pattern(CHUNK + 100));
        backlog.attach(0);
        backlog.detach(0);
        let start = backlog.end();
        backlog.append(b"more");
        backlog.attach(start + 1);
        assert_eq!(read_to_end(&backlog, start + 1), b"ore");
    }

    #[test]
    fn bytes_that_end_on_a_chunk_boundary_are_whole() {
        let published = pattern(CHUNK);
        let mut backlog = Backlog::default();
        backlog.append(&published);
        backlog.attach(0);
        assert_eq!(backlog.bytes_at(backlog.end()), b"");
        assert_eq!(read_to_end(&backlog, 0), published);
        backlog.append(b"x");
        backlog.advance(0, CHUNK as u64);
        assert_eq!(read_to_end(&backlog, CHUNK as u64), b"x");
        assert_eq!(backlog.len(), 1);
    }

    #[test]
    fn reader_at_the_end_holds_nothing_until_more_is_appended() {
        let mut backlog = Backlog::default();
        backlog.attach(0);
        assert_eq!((backlog.readers(), backlog.len()), (1, 0));
        for bytes in [1, CHUNK - 1, 2 * CHUNK, 1] {
            let start = backlog.end();
            backlog.append(&pattern(bytes));
            assert_eq!(backlog.len(), bytes as u64);
            backlog.advance(start, backlog.end());
            let held = backlog.len();
            assert_eq!((backlog.readers(), held), (1, 0), "after {bytes} bytes");
        }
        backlog.detach(backlog.end());
        assert_eq!(backlog.readers(), 0);
    }

    #[test]
    fn history_is_kept_though_every_reader_has_passed_it() {
        let mut backlog = Backlog::default();
        let published = pattern(3 * CHUNK + 9);
        backlog.append(&published);
        backlog.attach(5);
        backlog.keep_from(2 * CHUNK as u64 + 1);
        assert_eq!(
            backlog.len(),
            published.len() as u64,
            "a reader is still at 5"
        );
        assert_eq!(backlog.unread_bytes(), published.len() as u64);
        backlog.advance(5, 2 * CHUNK as u64 + 5);
        assert_eq!(backlog.len(), CHUNK as u64 + 9, "history is what is left");
        backlog.attach(3 * CHUNK as u64);
        backlog.detach(2 * CHUNK as u64 + 5);
        assert_eq!(backlog.len(), CHUNK as u64 + 9);
        assert_eq!(backlog.unread_bytes(), 9);
        backlog.detach(3 * CHUNK as u64);
        assert_eq!(backlog.len(), CHUNK as u64 + 9);
        assert_eq!(backlog.unread_bytes(), 0);
        let kept = read_to_end(&backlog, 2 * CHUNK as u64 + 1);
        assert_eq!(kept, published[2 * CHUNK + 1..]);
        backlog.keep_from(backlog.end());
        assert_eq!(backlog.len(), 0);
    }
}
