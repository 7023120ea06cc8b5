//! What was said and not everybody has yet: one copy, however many are behind.

use std::collections::VecDeque;
use std::mem;

/// The bytes of a chunk. It is also about the most that one slice of a gathered write carries.
pub(super) const CHUNK: usize = 64 * 1024;

/// A channel's stream from the place of the member that is furthest behind, or from the beginning of
/// its history, to the end: see "the backlog" in the relay's documentation.
///
/// Each chunk counts the readers that stand in it. Chunks at the front that have none, and that are not
/// history, are freed; when nobody is behind and there is no history, all are.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// All of them full but the last.
    chunks: VecDeque<Chunk>,
    /// The position of the first chunk's first byte.
    base: u64,
    /// The position after the last byte said.
    end: u64,
    readers: usize,
    /// How many of them stand at the end, and so in no chunk: what they wait for is their own.
    at_end: usize,
    /// What is kept from here on, whoever has read it.
    history: Option<u64>,
    /// What it takes to remember where the readers are, in bytes.
    remembering: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    readers: usize,
}

impl Backlog {
    /// The position after the last byte stored.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes are held, in all, for all who are behind and as history.
    pub(super) const fn len(&self) -> u64 {
        self.end - self.base
    }

    /// How much memory is held, in bytes: for what was said, and to remember where the readers are.
    pub(super) fn held_bytes(&self) -> usize {
        self.shared_bytes() + self.remembering
    }

    /// How much of that is for what was said, in bytes, in one copy for all.
    pub(super) fn shared_bytes(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// A reader takes this much more memory, in bytes.
    pub(super) const fn remember(&mut self, bytes: usize) {
        self.remembering += bytes;
    }

    /// A reader takes this much less memory.
    pub(super) const fn release(&mut self, bytes: usize) {
        self.remembering -= bytes;
    }

    /// How many of these bytes somebody waits for, to a chunk.
    pub(super) fn awaited(&self) -> u64 {
        let waits = |chunk: &Chunk| chunk.readers > 0;
        let before = self.chunks.iter().position(waits);
        before.map_or(0, |chunks| self.len() - (chunks * CHUNK) as u64)
    }

    /// How many are behind.
    pub(super) const fn readers(&self) -> usize {
        self.readers
    }

    /// Appends what was said. There must be a reader, or one be attached before anything else, or it
    /// must be history: bytes that nobody waits for would never be freed.
    pub(super) fn append(&mut self, mut bytes: &[u8]) {
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
    pub(super) fn bytes_at(&self, position: u64) -> &[u8] {
        let (index, offset) = self.locate(position);
        self.chunks
            .get(index)
            .map_or(&[], |chunk| &chunk.bytes[offset..])
    }

    /// Takes on a reader that stands at `position`.
    pub(super) fn attach(&mut self, position: u64) {
        *self.readers_at(position) += 1;
        self.readers += 1;
    }

    /// Moves a reader on.
    pub(super) fn advance(&mut self, from: u64, to: u64) {
        *self.readers_at(from) -= 1;
        *self.readers_at(to) += 1;
        self.let_go();
    }

    /// Lets go of the reader at `position`.
    pub(super) fn detach(&mut self, position: u64) {
        *self.readers_at(position) -= 1;
        self.readers -= 1;
        self.let_go();
    }

    /// Keeps what is from this position on, and nothing before it that nobody waits for.
    pub(super) fn keep_from(&mut self, position: u64) {
        self.history = Some(position);
        self.let_go();
    }

    /// The count of the readers that stand where this position is.
    fn readers_at(&mut self, position: u64) -> &mut usize {
        if position == self.end {
            return &mut self.at_end;
        }
        let (index, _) = self.locate(position);
        &mut self.chunks[index].readers
    }

    /// Frees the chunks that every reader has passed and that are not history.
    fn let_go(&mut self) {
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
    fn a_reader_finds_every_byte_across_chunks() {
        let said = pattern(3 * CHUNK + 17);
        let mut backlog = Backlog::default();
        backlog.append(&said[..100]);
        backlog.attach(40);
        for piece in said[100..].chunks(999) {
            backlog.append(piece);
        }
        assert_eq!(backlog.end(), said.len() as u64);
        for position in [40, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, said.len()] {
            assert_eq!(read_to_end(&backlog, position as u64), said[position..]);
        }
    }

    #[test]
    fn chunks_go_when_the_last_reader_has_passed_them() {
        let mut backlog = Backlog::default();
        backlog.append(&pattern(4 * CHUNK));
        backlog.attach(10);
        backlog.attach(CHUNK as u64 + 5);
        assert_eq!(backlog.len(), 4 * CHUNK as u64);
        backlog.advance(CHUNK as u64 + 5, 3 * CHUNK as u64);
        assert_eq!(backlog.len(), 4 * CHUNK as u64, "one is still at 10");
        backlog.advance(10, 2 * CHUNK as u64 + 1);
        assert_eq!(backlog.len(), 2 * CHUNK as u64);
        backlog.detach(2 * CHUNK as u64 + 1);
        assert_eq!(backlog.len(), CHUNK as u64);
        backlog.detach(3 * CHUNK as u64);
        assert_eq!(backlog.len(), 0);
        assert!(backlog.chunks.is_empty() && backlog.readers() == 0);
    }

    #[test]
    fn a_backlog_that_was_empty_begins_again_at_the_same_position() {
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
    fn what_ends_on_a_chunk_boundary_is_whole() {
        let said = pattern(CHUNK);
        let mut backlog = Backlog::default();
        backlog.append(&said);
        backlog.attach(0);
        assert_eq!(backlog.bytes_at(backlog.end()), b"");
        assert_eq!(read_to_end(&backlog, 0), said);
        backlog.append(b"x");
        backlog.advance(0, CHUNK as u64);
        assert_eq!(read_to_end(&backlog, CHUNK as u64), b"x");
        assert_eq!(backlog.len(), 1);
    }

    #[test]
    fn a_reader_at_the_end_holds_nothing_until_more_is_said() {
        let mut backlog = Backlog::default();
        backlog.attach(0);
        assert_eq!((backlog.readers(), backlog.len()), (1, 0));
        for said in [1, CHUNK - 1, 2 * CHUNK, 1] {
            let start = backlog.end();
            backlog.append(&pattern(said));
            assert_eq!(backlog.len(), said as u64);
            backlog.advance(start, backlog.end());
            let held = backlog.len();
            assert_eq!((backlog.readers(), held), (1, 0), "after {said} bytes");
        }
        backlog.detach(backlog.end());
        assert_eq!(backlog.readers(), 0);
    }

    #[test]
    fn history_is_kept_though_everybody_has_read_it() {
        let mut backlog = Backlog::default();
        let said = pattern(3 * CHUNK + 9);
        backlog.append(&said);
        backlog.attach(5);
        backlog.keep_from(2 * CHUNK as u64 + 1);
        assert_eq!(backlog.len(), said.len() as u64, "one is still at 5");
        assert_eq!(backlog.awaited(), said.len() as u64);
        backlog.advance(5, 2 * CHUNK as u64 + 5);
        assert_eq!(backlog.len(), CHUNK as u64 + 9, "history is what is left");
        backlog.attach(3 * CHUNK as u64);
        backlog.detach(2 * CHUNK as u64 + 5);
        assert_eq!(backlog.len(), CHUNK as u64 + 9);
        assert_eq!(backlog.awaited(), 9);
        backlog.detach(3 * CHUNK as u64);
        assert_eq!(backlog.len(), CHUNK as u64 + 9);
        assert_eq!(backlog.awaited(), 0);
        let kept = read_to_end(&backlog, 2 * CHUNK as u64 + 1);
        assert_eq!(kept, said[2 * CHUNK + 1..]);
        backlog.keep_from(backlog.end());
        assert_eq!(backlog.len(), 0);
    }
}
