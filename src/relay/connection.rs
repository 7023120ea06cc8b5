//! One peer: its stream, what is read from it, and what is written to it.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use super::channel::{Backlog, Channel, Cursor, MAX_SLICES};
use super::close_reason::CloseReason;
use super::conn_id::ConnId;
use super::events::Identity;
use super::flow::LagTracker;
use super::lifecycle::{DrainCause, Life};
use super::peer_addr::PeerAddr;
use super::ready::{Marks, Readiness, Ready};
use crate::wire::{Decoder, Dialect, websocket};

/// A connection, a member or not.
///
/// Thousands of these are idle at a time, so an idle one owns no buffer: the decoder is a null pointer
/// between frames, there is no pending output while the member keeps up, and what is rarely there is in
/// a `Box`. The size of the rest is pinned by a test, since every byte here is paid per member.
#[derive(Debug)]
pub struct Connection<S> {
    pub(super) stream: S,
    pub(super) readiness: Readiness,
    pub(super) peer: PeerAddr,
    /// When it was accepted, in seconds since the relay's start.
    pub(super) accepted_at: u32,
    /// How many messages its channel had had when it joined, less those of the history.
    pub(super) messages_before: u32,
    pub(super) life: Life,
    pub(super) decoder: Decoder,
    pub(super) output: Option<Box<PendingOutput>>,
}

/// The output that a lagging member has still to receive. A member that keeps up has none.
#[derive(Debug)]
pub(super) struct PendingOutput {
    pub(super) cursor: Cursor,
    pub(super) tracker: LagTracker,
}

impl PendingOutput {
    /// How much memory it takes of its own, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.cursor.held_bytes()
    }

    /// Whether the lag exceeds the threshold of the tracker.
    pub(super) fn is_over_threshold(&self, backlog: &Backlog) -> bool {
        self.cursor.lag(backlog) > self.tracker.threshold()
    }
}

/// What came of one read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It moved this many bytes.
    Done(usize),
    /// The socket has nothing, or no room: the next edge reports the change.
    Blocked,
    /// The connection is broken.
    Failed(ErrorKind),
}

/// What one read came to, as far as reading on is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadStep {
    /// This many bytes came, and there may be more.
    More(usize),
    /// This many bytes came, and the socket is drained.
    Exhausted(usize),
    /// The input has ended.
    Ended,
    /// The connection is broken.
    Failed(ErrorKind),
}

/// What the end of the reads of one turn means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InputEnd {
    /// Nothing: the connection stays as it is.
    Open,
    /// The peer has left. Output can still be delivered to it.
    Leaves(DrainCause),
    /// The connection is over.
    Over(CloseReason),
}

impl<S> Connection<S> {
    /// A connection that was accepted at this time, in seconds since the relay's start.
    pub(super) fn new(stream: S, peer: PeerAddr, accepted_at: u32, life: Life) -> Self {
        Self {
            stream,
            readiness: Readiness::default(),
            peer,
            accepted_at,
            messages_before: 0,
            life,
            decoder: Decoder::new(),
            output: None,
        }
    }

    /// The connection's identity.
    #[inline]
    pub(super) const fn id(&self) -> ConnId {
        self.life.id()
    }

    /// The dialect of its peer.
    #[inline]
    pub(super) const fn dialect(&self) -> Dialect {
        self.life.dialect()
    }

    /// The connection, as events name it.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            id: self.id(),
            name: self.life.name().map(Into::into),
            dialect: self.dialect(),
            peer: self.peer.into(),
        }
    }

    /// Whether the input stands inside a message: if it ends now, that message was cut short.
    pub(super) fn is_inside_message(&self) -> bool {
        self.decoder.is_inside_frame() || self.readiness.marks.any(Marks::PARTIAL_MESSAGE)
    }

    /// Whether the connection is closed in both directions.
    pub(super) const fn is_hung_up(&self) -> bool {
        self.readiness.kernel.any(Ready::HUNG_UP)
    }

    /// Gives the pending output up.
    pub(super) fn drop_output(&mut self, channel: &mut Channel) {
        if let Some(output) = self.output.take() {
            channel.backlog.refund(output.held_bytes());
            output.cursor.abandon(&mut channel.backlog);
        }
    }

    /// How many bytes of output are pending.
    pub(super) fn pending_bytes(&self, channel: &Channel) -> u64 {
        let output = self.output.as_deref();
        output.map_or(0, |output| output.cursor.pending_bytes(&channel.backlog))
    }
}

impl<S: Read + Write> Connection<S> {
    /// Reads once.
    ///
    /// A read that does not fill the buffer has drained the socket, on epoll and kqueue, which saves the
    /// second read that would only return "would block". There are two exceptions, and both are read on
    /// until it does. When the peer has closed its sending side, the FIN may have shared its edge with
    /// the data, and no other edge will follow. And a read stops short at TCP urgent data. After a read
    /// that filled the buffer there may be more: the connection keeps its readiness, and with it its
    /// place on the ready list.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> ReadStep {
        match attempt(|| self.stream.read(buffer)) {
            Outcome::Done(0) => ReadStep::Ended,
            Outcome::Done(read) if read == buffer.len() => ReadStep::More(read),
            Outcome::Done(read) if self.readiness.must_read_to_end() => ReadStep::More(read),
            Outcome::Done(read) => ReadStep::Exhausted(read),
            Outcome::Blocked => ReadStep::Exhausted(0),
            Outcome::Failed(kind) => ReadStep::Failed(kind),
        }
    }

    /// Reads and discards received bytes, up to `max_reads` buffers of them. Returns how many they were.
    pub(super) fn discard_input(&mut self, scratch: &mut [u8], max_reads: usize) -> u64 {
        let mut discarded = 0;
        for _ in 0..max_reads {
            match attempt(|| self.stream.read(scratch)) {
                Outcome::Done(read @ 1..) => discarded += read as u64,
                Outcome::Done(0) | Outcome::Blocked | Outcome::Failed(_) => break,
            }
        }
        discarded
    }

    /// Writes a frame that ends a WebSocket connection, as far as the socket accepts it. Returns how many
    /// bytes it accepted.
    pub(super) fn write_close(&mut self, code: u16, reason: &str) -> u64 {
        let mut frame = Vec::new();
        websocket::encode_close(code, reason, &mut frame);
        match self.write_slices(&[IoSlice::new(&frame)]) {
            Outcome::Done(sent) => sent as u64,
            Outcome::Blocked | Outcome::Failed(_) => 0,
        }
    }

    /// Writes these slices in one system call.
    pub(super) fn write_slices(&mut self, slices: &[IoSlice<'_>]) -> Outcome {
        attempt(|| self.stream.write_vectored(slices))
    }

    /// Writes one slice.
    #[inline]
    pub(super) fn write(&mut self, bytes: &[u8]) -> Outcome {
        attempt(|| self.stream.write(bytes))
    }

    /// Writes two slices, either of which may be empty, in one system call.
    pub(super) fn write_both(&mut self, before: &[u8], after: &[u8]) -> Outcome {
        if after.is_empty() {
            self.write(before)
        } else if before.is_empty() {
            self.write(after)
        } else {
            self.write_slices(&[IoSlice::new(before), IoSlice::new(after)])
        }
    }

    /// Writes pending output, in one system call. It is gone when all of it went out.
    ///
    /// The socket stays writable only if it accepted everything that it was offered: a short write means
    /// that its buffer is full and that the next edge will come.
    pub(super) fn flush(&mut self, channel: &mut Channel) -> Outcome {
        let Some(output) = &mut self.output else {
            self.readiness.kernel.remove(Ready::WRITABLE);
            return Outcome::Done(0);
        };
        let held_before = output.held_bytes();
        let (backlog, replies) = (&mut channel.backlog, &channel.replies);
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (count, offered) = output.cursor.io_slices(backlog, replies, &mut slices);
        let outcome = attempt(|| self.stream.write_vectored(&slices[..count]));
        if outcome != Outcome::Done(offered) {
            self.readiness.kernel.remove(Ready::WRITABLE);
        }
        if let Outcome::Done(sent) = outcome
            && !output.cursor.advance(sent, backlog, replies)
        {
            backlog.refund(held_before);
            self.output = None;
            self.readiness.kernel.remove(Ready::WRITABLE);
        } else {
            backlog.refund(held_before - output.held_bytes());
        }
        outcome
    }
}

/// The one place that decides what an I/O error means.
///
/// "Would block" is no error but the end of a drain, an interrupted call is made again, and everything
/// else ends this connection and no other.
#[inline]
fn attempt(mut io: impl FnMut() -> io::Result<usize>) -> Outcome {
    loop {
        return match io() {
            Ok(n) => Outcome::Done(n),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock => Outcome::Blocked,
                kind => Outcome::Failed(kind),
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_call_is_made_again() {
        let mut left = 3;
        let outcome = attempt(|| {
            left -= 1;
            if left > 0 {
                Err(ErrorKind::Interrupted.into())
            } else {
                Ok(7)
            }
        });
        assert_eq!((outcome, left), (Outcome::Done(7), 0));
    }
}
