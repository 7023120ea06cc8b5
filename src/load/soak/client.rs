//! A client of a soak: its connection, its steps, and the bytes that are under way.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;

use mio::net::TcpStream;
use socket2::SockRef;

use super::super::connect::flush;
use super::super::plan::Fault;
use super::checker::Member;
use super::messages::MAX_MESSAGE_SIZE;
use super::plan::Step;

/// The maximum size of one read.
pub(super) const READ_SIZE: usize = 256 * 1024;

/// The longest incomplete message that is kept: a message with two headers and a name.
const UNFINISHED: usize = MAX_MESSAGE_SIZE + 100;

/// The state of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Away,
    /// It is being made.
    Connecting,
    /// It is there.
    Here,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    All,
    ByteByByte,
    Nothing,
}

/// A `SoakClient` is a place in the pool, with the client that has it.
#[derive(Debug)]
pub(super) struct SoakClient {
    pub(super) state: State,
    pub(super) stream: Option<TcpStream>,
    /// How it misbehaves, if it does.
    pub(super) fault: Option<Fault>,
    /// Its identity in the checker, once it has sent its name.
    pub(super) member: Option<Member>,
    /// Its current step, and the steps after it.
    pub(super) steps: VecDeque<Step>,
    /// When it began the current step, if it has.
    pub(super) began: Option<u64>,
    /// When it has something to do, if that is scheduled.
    pub(super) due: Option<u64>,
    /// When its connection was made, or begun.
    pub(super) since: u64,
    pub(super) reading: Reading,
    /// Whether the server may close it.
    pub(super) may_be_closed: bool,
    /// Whether it has sent something that is not a whole message.
    pub(super) is_broken: bool,
    /// Whether all of its messages must be delivered, even if it leaves now.
    pub(super) in_order: bool,
    /// The beginning of an incomplete message.
    kept: Vec<u8>,
    /// Bytes that the socket has not accepted.
    pub(super) out: Vec<u8>,
    /// Bytes that are sent one by one.
    pub(super) slow: VecDeque<u8>,
}

impl SoakClient {
    /// An empty place.
    pub(super) const fn new() -> Self {
        Self {
            state: State::Away,
            stream: None,
            fault: None,
            member: None,
            steps: VecDeque::new(),
            began: None,
            due: None,
            since: 0,
            reading: Reading::All,
            may_be_closed: false,
            is_broken: false,
            in_order: false,
            kept: Vec::new(),
            out: Vec::new(),
            slow: VecDeque::new(),
        }
    }

    /// Gives the place to a client with these steps.
    pub(super) fn begin(&mut self, fault: Option<Fault>, steps: Vec<Step>) {
        *self = Self {
            fault,
            steps: steps.into(),
            due: self.due,
            ..Self::new()
        };
    }

    /// Replaces the remaining steps.
    pub(super) fn replace_steps(&mut self, steps: Vec<Step>) {
        self.steps = steps.into();
        self.began = None;
    }

    /// Writes the queued bytes, as far as the socket accepts them.
    pub(super) fn flush(&mut self) {
        flush(self.stream.as_mut(), &mut self.out);
    }

    /// Reads once, at most `most` bytes, after the kept bytes in `buffer`. Returns the number of
    /// bytes that were read, and that of all in the buffer.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, most: usize) -> io::Result<(usize, usize)> {
        let Some(stream) = &mut self.stream else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let kept = self.kept.len();
        if buffer.len() < kept + most {
            buffer.resize(kept + most, 0);
        }
        let read = stream.read(&mut buffer[kept..kept + most])?;
        buffer[..kept].copy_from_slice(&self.kept);
        Ok((read, kept + read))
    }

    /// Keeps an incomplete message. Returns whether it is not too long for one.
    pub(super) fn keep(&mut self, rest: &[u8]) -> bool {
        self.kept.clear();
        self.kept.extend_from_slice(rest);
        self.kept.len() <= UNFINISHED
    }

    /// Closes the sending side.
    pub(super) fn half_close(&self) {
        if let Some(stream) = &self.stream {
            // What went wrong shows when it is read.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Has the connection end by a FIN, and not by a reset.
    pub(super) fn end_in_order(&self) {
        if let Some(stream) = &self.stream {
            let _ = SockRef::from(stream).set_linger(None);
        }
    }

    /// Whether it is a connected member that stays.
    pub(super) fn is_staying(&self) -> bool {
        self.state == State::Here && self.steps.front() == Some(&Step::Stay)
    }
}
