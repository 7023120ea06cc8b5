//! What goes into a TLS session and comes out of it: plaintext, and records.

/// The most plaintext that one record holds (RFC 8446, 5.1).
pub(super) const MAX_PLAINTEXT: usize = 1 << 14;

/// The longest record: its header, and the most by which encryption may lengthen it (RFC 8446, 5.2; TLS 1.2
/// allows more, which nothing needs).
pub(super) const MAX_RECORD: usize = 5 + MAX_PLAINTEXT + 256;

/// The plaintext of a connection on its way to whom reads it: into a buffer, and what exceeds that behind it.
#[derive(Debug)]
pub(super) struct Plaintext<'a> {
    pub(super) buffer: &'a mut [u8],
    pub(super) filled: usize,
    pub(super) excess: &'a mut Vec<u8>,
}

impl Plaintext<'_> {
    /// Whether no more is needed for now.
    pub(super) const fn is_enough(&self) -> bool {
        !self.excess.is_empty() || (self.filled > 0 && self.filled == self.buffer.len())
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = &mut self.buffer[self.filled..];
        let (now, later) = bytes.split_at(bytes.len().min(room.len()));
        room[..now.len()].copy_from_slice(now);
        self.filled += now.len();
        self.excess.extend_from_slice(later);
    }
}

/// Records to be sent. The buffer behind it is used again and again.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    len: usize,
}

impl Outgoing {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(super) const fn clear(&mut self) {
        self.len = 0;
    }

    /// Has this write at most `most` bytes behind those that are there, and say how many they were.
    pub(super) fn append<E>(
        &mut self,
        most: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        if self.buffer.len() < self.len + most {
            self.buffer.resize(self.len + most, 0);
        }
        self.len += write(&mut self.buffer[self.len..])?;
        Ok(())
    }
}
