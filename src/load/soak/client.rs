//! One place of a soak, and who has it: a connection, what is done over it, and what is on its way.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use socket2::SockRef;

use super::super::plan::Fault;
use super::checker::Member;
use super::messages::MAX_MESSAGE_SIZE;
use super::plan::Step;

/// How much one read takes at most.
pub(super) const READ_SIZE: usize = 256 * 1024;

/// The longest part of something unfinished that is kept: a message with two headers and a name.
const UNFINISHED: usize = MAX_MESSAGE_SIZE + 100;

/// What has become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Away,
    /// It is being made.
    Connecting,
    /// It is there.
    Here,
}

/// How somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    All,
    ByteByByte,
    Nothing,
}

/// A place, and who has it.
#[derive(Debug)]
pub(super) struct SoakClient {
    pub(super) state: State,
    pub(super) stream: Option<TcpStream>,
    /// How it misbehaves, if it does.
    pub(super) fault: Option<Fault>,
    /// What it is known as, once it has given its name.
    pub(super) member: Option<Member>,
    /// What it is doing, and what it does after that.
    pub(super) steps: VecDeque<Step>,
    /// When it began with the first of these, if it has.
    pub(super) began: Option<u64>,
    /// When to look at it again.
    pub(super) due: Option<u64>,
    /// When its connection was made, or begun.
    pub(super) since: u64,
    pub(super) reading: Reading,
    /// Whether the server may close it.
    pub(super) may_be_closed: bool,
    /// Whether what it sent last is not a whole message.
    pub(super) is_broken: bool,
    /// Whether all that it said is to be heard, even if it leaves now.
    pub(super) in_order: bool,
    /// The beginning of something that was not all there.
    kept: Vec<u8>,
    /// What is said and the socket has not taken.
    pub(super) out: Vec<u8>,
    /// What is to be sent byte by byte.
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

    /// Has the place for one who does this.
    pub(super) fn begin(&mut self, fault: Option<Fault>, steps: Vec<Step>) {
        *self = Self {
            fault,
            steps: steps.into(),
            due: self.due,
            ..Self::new()
        };
    }

    /// Has it do this next, and nothing else.
    pub(super) fn replace_steps(&mut self, steps: Vec<Step>) {
        self.steps = steps.into();
        self.began = None;
    }

    /// Sends what was said, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let mut sent = 0;
        while sent < self.out.len() {
            match stream.write(&self.out[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What went wrong shows when it is read, after what has come before it.
                Err(_) => break,
            }
        }
        self.out.drain(..sent);
    }

    /// Reads once, at most `most` bytes, with what was kept before them in `buffer`. Returns how
    /// many bytes have come, and how many there are in all.
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

    /// Keeps what is unfinished. Says whether it may be the beginning of a message.
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

    /// Has the connection end as most programs' do, and not by a reset as it would.
    pub(super) fn end_in_order(&self) {
        if let Some(stream) = &self.stream {
            let _ = SockRef::from(stream).set_linger(None);
        }
    }

    /// Whether it takes part as it should.
    pub(super) fn is_staying(&self) -> bool {
        self.state == State::Here && self.steps.front() == Some(&Step::Stay)
    }
}
