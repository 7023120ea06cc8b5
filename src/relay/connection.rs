//! One peer: its stream, what it is to the room, and what little it has to remember.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::backlog::Backlog;
use super::channel::{Channel, Channels};
use super::close_reason::CloseReason;
use super::limits::Limits;
use super::pace::Pace;
use super::ready::Ready;
use super::send_queue::{MAX_SLICES, SendQueue};
use crate::text::Quoted;
use crate::wire::{Called, Decoder, Dialect, Hears, encode_frame, header};

/// How many reads one connection may take in one turn. More than one are needed only to read to the
/// end, where each may be short.
const MAX_READS: usize = 16;

/// A connection, registered or not.
///
/// Thousands of these sit idle at a time, so an idle one owns no buffer: the decoder is a null
/// pointer between frames, there is no queue while the member keeps up, and what is rarely there
/// is in a `Box`. What remains is pinned by a test, since every byte here is paid per member.
#[derive(Debug)]
pub struct Connection<S> {
    pub(super) stream: S,
    /// Which of the connections that this slot has seen this one is: see [`super::ConnId`].
    pub(super) generation: u32,
    pub(super) ready: Ready,
    /// A write failed, so this connection has to end, but not before its last words were read.
    pub(super) broken: Option<ErrorKind>,
    pub(super) dialect: Dialect,
    peer: PeerAddr,
    /// When it was accepted, in seconds since the relay's start.
    pub(super) accepted_at: u32,
    /// How many messages its channel had had when it joined, less those of the history.
    pub(super) heard_before: u32,
    pub(super) state: State,
    pub(super) decoder: Decoder,
    pub(super) behind: Option<Box<Behind>>,
}

/// What there is of a member only while it is behind.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) queue: SendQueue,
    pub(super) pace: Pace,
}

impl Behind {
    /// How much memory it takes of its own, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.queue.held_bytes()
    }
}

/// What a connection is to the room.
#[derive(Debug)]
pub(super) enum State {
    /// Connected, its first frame not complete: it says nothing and hears nothing.
    AwaitingName,
    /// A member of the room, or in the audience of a listener that has a part in no room.
    Registered {
        /// Its name as the frame that precedes each of its messages, encoded once.
        name: Box<[u8]>,
        /// How many messages it has said; where nobody listens, how many bytes.
        said: u32,
        stage: Stage,
    },
    /// Marked: it neither speaks nor hears, and is removed at the end of the turn.
    Closing,
}

/// How far a member is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not at all.
    Here,
    /// It has closed its sending side, and the log has said so.
    HalfClosed,
    /// It says nothing more, and goes for this reason when it has been sent what is queued for it.
    Leaving(Leave),
}

/// Why a member goes that is still sent what is queued for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It has taken its leave.
    Farewell,
    /// It was greeted, and that is all.
    Greeted,
    /// It has closed its sending side, and there is nothing that it could be waiting to hear.
    Eof,
    /// The relay stops.
    Shutdown,
}

impl From<Leave> for CloseReason {
    fn from(leave: Leave) -> Self {
        match leave {
            Leave::Farewell => Self::Farewell,
            Leave::Greeted => Self::Greeted,
            Leave::Eof => Self::Eof,
            Leave::Shutdown => Self::Shutdown,
        }
    }
}

impl State {
    /// A member of this name.
    fn registered(name: &[u8]) -> Self {
        let mut frame = Vec::with_capacity(header::WIDTH + name.len());
        encode_frame(name, &mut frame);
        Self::Registered {
            name: frame.into(),
            said: 0,
            stage: Stage::Here,
        }
    }
}

/// What came of one read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It moved this many bytes.
    Done(usize),
    /// The socket has nothing, or no room: wait for the next edge.
    Blocked,
    /// The connection is broken.
    Failed(ErrorKind),
}

/// What one connection's reading in one turn brought.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) bytes: u64,
    /// The messages that were relayed.
    pub(super) messages: u64,
    /// The messages that are to be acknowledged.
    pub(super) acks: u64,
    pub(super) end: InputEnd,
}

/// How a connection's reading ended.
#[derive(Debug)]
pub(super) enum InputEnd {
    /// For now: there may be more to come.
    Open,
    /// For good, which is news, but the peer may still listen.
    HalfClosed,
    /// For good, and so did the connection.
    Over(CloseReason),
}

impl<S> Connection<S> {
    pub(super) fn new(
        stream: S,
        peer: SocketAddr,
        dialect: Dialect,
        generation: u32,
        accepted_at: u32,
    ) -> Self {
        let peer = PeerAddr::from(peer);
        let mut connection = Self {
            stream,
            generation,
            ready: Ready::default(),
            broken: None,
            dialect,
            peer,
            accepted_at,
            heard_before: 0,
            state: State::AwaitingName,
            decoder: Decoder::new(),
            behind: None,
        };
        if dialect.rules().called == Called::ByAddress {
            connection.state = State::registered(peer.to_string().as_bytes());
        }
        if dialect.only_greets() {
            connection.leave(Leave::Greeted);
        }
        connection
    }

    /// From now on it says nothing more, and goes when it has been sent what is queued for it.
    pub(super) fn leave(&mut self, leave: Leave) {
        if let State::Registered { stage, .. } = &mut self.state {
            *stage = Stage::Leaving(leave);
        }
    }

    /// Whether it has given its name, if it has to, and is not marked.
    pub(super) const fn is_member(&self) -> bool {
        matches!(self.state, State::Registered { .. })
    }

    /// Whether it is a member that will say nothing more.
    pub(super) const fn is_half_closed(&self) -> bool {
        matches!(
            self.state,
            State::Registered {
                stage: Stage::HalfClosed,
                ..
            }
        )
    }

    /// Whether it goes as soon as it has been sent what is queued for it, and why.
    pub(super) const fn leaving(&self) -> Option<Leave> {
        match self.state {
            State::Registered {
                stage: Stage::Leaving(leave),
                ..
            } => Some(leave),
            _ => None,
        }
    }

    /// Whether what is said is to be written to it.
    pub(super) const fn hears(&self) -> bool {
        matches!(
            self.state,
            State::Registered {
                stage: Stage::Here | Stage::HalfClosed,
                ..
            }
        ) && self.broken.is_none()
    }

    /// Whether it is known to be gone, so that what has come from it is all that will.
    pub(super) const fn is_gone(&self) -> bool {
        self.broken.is_some() || self.ready.any(Ready::HUNG_UP)
    }

    pub(super) const fn peer(&self) -> PeerAddr {
        self.peer
    }

    /// The connection as the log shows it.
    pub(super) fn who(&self) -> Who<'_> {
        let name = match &self.state {
            State::Registered { name, .. } => Some(&**name),
            State::AwaitingName | State::Closing => None,
        };
        Who {
            name,
            dialect: self.dialect,
            peer: self.peer,
        }
    }

    /// Notes that it can no longer be written to.
    ///
    /// It may have said its last words before that, so it ends only when it is read to the end: the
    /// caller has to see to it that it is read.
    pub(super) fn break_off(&mut self, kind: ErrorKind, backlog: &mut Backlog) {
        self.abandon_queue(backlog);
        self.broken = Some(kind);
        self.ready.remove(Ready::WRITABLE);
    }

    /// Gives up what is queued.
    pub(super) fn abandon_queue(&mut self, backlog: &mut Backlog) {
        if let Some(behind) = self.behind.take() {
            backlog.release(behind.held_bytes());
            behind.queue.abandon(backlog);
        }
    }

    /// How many messages it has said; what else that counts is said where it is.
    pub(super) const fn said(&self) -> u32 {
        match self.state {
            State::Registered { said, .. } => said,
            State::AwaitingName | State::Closing => 0,
        }
    }

    /// Takes the frames out of `bytes`. Messages are said in the channels.
    fn decode(
        &mut self,
        mut bytes: &[u8],
        limits: &Limits,
        channels: &mut Channels,
        input: &mut Input,
    ) -> Result<(), CloseReason> {
        let rules = self.dialect.rules();
        let Some(header_width) = rules.header_width else {
            return self.overhear(bytes.len(), limits);
        };
        loop {
            let max = match self.state {
                State::AwaitingName => limits.max_name,
                State::Registered {
                    stage: Stage::Leaving(_),
                    ..
                } => return Ok(()),
                State::Registered { .. } | State::Closing => limits.max_message,
            };
            let payload = self
                .decoder
                .decode(&mut bytes, header_width, max)
                .map_err(CloseReason::Protocol)?;
            let Some(payload) = payload else {
                return Ok(());
            };
            match &mut self.state {
                State::AwaitingName => self.state = State::registered(payload),
                State::Registered { name, said, stage } => {
                    input.acks += u64::from(rules.ack.is_some());
                    let mut is_heard = true;
                    if let Some(farewell) = rules.farewell
                        && channels[self.dialect].lines.is_farewell(payload)
                    {
                        *stage = Stage::Leaving(Leave::Farewell);
                        is_heard = farewell.is_heard;
                    }
                    if is_heard {
                        channels.say(name, payload);
                        *said = said.saturating_add(1);
                        input.messages += 1;
                    }
                }
                State::Closing => {}
            }
        }
    }

    /// Counts bytes of somebody to whom nobody listens, and drops them.
    fn overhear(&mut self, bytes: usize, limits: &Limits) -> Result<(), CloseReason> {
        if let State::Registered { said, .. } = &mut self.state {
            *said = said.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
            if *said as usize > limits.max_message || *said == u32::MAX {
                return Err(CloseReason::Unheard {
                    max: limits.max_message,
                });
            }
        }
        Ok(())
    }

    /// What it means that there is nothing more to read just now.
    fn end_of_reading(&mut self) -> InputEnd {
        self.ready.remove(Ready::READABLE);
        match self.broken {
            Some(kind) => InputEnd::Over(CloseReason::Io(kind)),
            None if self.ready.any(Ready::HUNG_UP) => InputEnd::Over(CloseReason::Eof),
            None => InputEnd::Open,
        }
    }

    /// What it means that there will never be anything more to read.
    fn end_of_input(&mut self) -> InputEnd {
        self.ready.remove(Ready::READABLE);
        if self.decoder.is_inside_frame() && self.leaving().is_none() {
            return InputEnd::Over(CloseReason::TruncatedFrame);
        }
        match self.broken {
            // Writing to a peer that has closed both sides fails like this: it just left.
            Some(ErrorKind::BrokenPipe) => InputEnd::Over(CloseReason::Eof),
            Some(kind) => InputEnd::Over(CloseReason::Io(kind)),
            None if self.ready.any(Ready::HUNG_UP) => InputEnd::Over(CloseReason::Eof),
            None => match &mut self.state {
                State::Registered { stage, .. } => {
                    // It is news once; later events repeat it.
                    if *stage != Stage::Here {
                        return InputEnd::Open;
                    }
                    if self.dialect.rules().hears == Hears::Nothing {
                        // All that it can still be waiting for is the last acknowledgement.
                        *stage = Stage::Leaving(Leave::Eof);
                        return InputEnd::Open;
                    }
                    *stage = Stage::HalfClosed;
                    InputEnd::HalfClosed
                }
                State::AwaitingName | State::Closing => InputEnd::Over(CloseReason::Eof),
            },
        }
    }
}

impl<S: Read + Write> Connection<S> {
    /// Reads this connection's share of a turn: about as much as fits `scratch`. What it says is said
    /// in the channels.
    ///
    /// A read that does not fill the buffer has emptied the socket, on epoll and kqueue, which saves
    /// the second read that would only say "would block". There are two exceptions, and both are
    /// read to the end. When the peer has closed its sending side, that news may have shared its
    /// edge with the data, and no other edge will follow. And a read stops early at TCP urgent data,
    /// which no client of ours sends, but anybody can. After a read that filled the buffer there may
    /// be more: the connection keeps its readiness, and with it its place on the ready list.
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        limits: &Limits,
        channels: &mut Channels,
    ) -> Input {
        let mut input = Input {
            bytes: 0,
            messages: 0,
            acks: 0,
            end: InputEnd::Open,
        };
        for _ in 0..MAX_READS {
            let read = match attempt(|| self.stream.read(scratch)) {
                Outcome::Done(0) => {
                    input.end = self.end_of_input();
                    break;
                }
                Outcome::Done(read) => read,
                Outcome::Blocked => {
                    input.end = self.end_of_reading();
                    break;
                }
                Outcome::Failed(kind) => {
                    input.end = InputEnd::Over(CloseReason::Io(kind));
                    break;
                }
            };
            input.bytes += read as u64;
            let decoded = self.decode(&scratch[..read], limits, channels, &mut input);
            if let Err(reason) = decoded {
                input.end = InputEnd::Over(reason);
                break;
            }
            if read == scratch.len() {
                break;
            }
            if !self.ready.must_read_to_end() {
                input.end = self.end_of_reading();
                break;
            }
        }
        input
    }

    /// Reads and drops what has come, up to a bound, so that closing does not have to reset.
    pub(super) fn discard_input(&mut self, scratch: &mut [u8]) {
        for _ in 0..MAX_READS {
            match attempt(|| self.stream.read(scratch)) {
                Outcome::Done(1..) => {}
                Outcome::Done(0) | Outcome::Blocked | Outcome::Failed(_) => return,
            }
        }
    }

    /// Writes these slices in one system call.
    pub(super) fn write_slices(&mut self, slices: &[IoSlice<'_>]) -> Outcome {
        attempt(|| self.stream.write_vectored(slices))
    }

    /// Writes two slices, either of which may be empty, in one system call.
    pub(super) fn write(&mut self, before: &[u8], after: &[u8]) -> Outcome {
        attempt(|| {
            if after.is_empty() {
                self.stream.write(before)
            } else if before.is_empty() {
                self.stream.write(after)
            } else {
                self.stream
                    .write_vectored(&[IoSlice::new(before), IoSlice::new(after)])
            }
        })
    }

    /// Writes what is queued, in one system call. The queue is gone when all of it went out.
    ///
    /// Readiness to write is used up unless the socket took all that it was offered: a short write
    /// means that its buffer is full and that the next edge will come.
    pub(super) fn flush(&mut self, channel: &mut Channel) -> Outcome {
        let Some(behind) = &mut self.behind else {
            self.ready.remove(Ready::WRITABLE);
            return Outcome::Done(0);
        };
        let held_before = behind.held_bytes();
        let queue = &mut behind.queue;
        let (backlog, lines) = (&mut channel.backlog, &channel.lines);
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (count, offered) = queue.io_slices(backlog, lines, &mut slices);
        let outcome = attempt(|| self.stream.write_vectored(&slices[..count]));
        if outcome != Outcome::Done(offered) {
            self.ready.remove(Ready::WRITABLE);
        }
        if let Outcome::Done(sent) = outcome
            && !queue.advance(sent, backlog, lines)
        {
            backlog.release(held_before);
            self.behind = None;
            self.ready.remove(Ready::WRITABLE);
        }
        outcome
    }
}

/// The one place that decides what an I/O error means.
///
/// "Would block" is no error but the end of a drain, an interrupted call is made again, and
/// everything else ends this connection and nobody else's.
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

/// A connection as the log shows it: its name, escaped, if it has given one, else its dialect, and where
/// it comes from.
pub(super) struct Who<'a> {
    /// The name's frame.
    pub(super) name: Option<&'a [u8]>,
    pub(super) dialect: Dialect,
    pub(super) peer: PeerAddr,
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name, self.dialect.rules().called) {
            (Some(name), Called::ByName) => write!(f, "{} ", Quoted(&name[header::WIDTH..]))?,
            (None, Called::ByName) => {}
            (_, Called::ByAddress) => write!(f, "{} ", self.dialect)?,
        }
        self.peer.fmt(f)
    }
}

/// A peer's address in 18 bytes instead of the 32 of a [`SocketAddr`].
///
/// IPv4 is kept the way a dual-stack socket shows it, as an IPv4-mapped IPv6 address (RFC 4291,
/// 2.5.5.2), and shown as IPv4 again. What gets lost is the scope of a link-local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerAddr {
    ip: Ipv6Addr,
    port: u16,
}

impl From<SocketAddr> for PeerAddr {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self {
            ip,
            port: addr.port(),
        }
    }
}

impl PeerAddr {
    /// The address without the port.
    pub(super) const fn ip(self) -> Ipv6Addr {
        self.ip
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip.to_canonical(), self.port).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_shown_as_it_connected() {
        for (addr, shown) in [
            ("127.0.0.1:1234", "127.0.0.1:1234"),
            ("[::ffff:10.0.0.7]:80", "10.0.0.7:80"),
            ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(PeerAddr::from(addr).to_string(), shown);
        }
    }

    #[test]
    fn the_log_calls_a_member_by_its_name_or_its_dialect_and_a_stranger_by_its_address() {
        let peer = PeerAddr::from(SocketAddr::from(([192, 0, 2, 1], 4001)));
        let name = b"7         al\tice";
        for (name, dialect, shown) in [
            (
                Some(&name[..]),
                Dialect::Chat10,
                r#""al\tice" 192.0.2.1:4001"#,
            ),
            (None, Dialect::Chat10, "192.0.2.1:4001"),
            (
                Some(&b"14        192.0.2.1:4001"[..]),
                Dialect::Ack64,
                "ack64 192.0.2.1:4001",
            ),
            (None, Dialect::Hello, "hello 192.0.2.1:4001"),
        ] {
            let who = Who {
                name,
                dialect,
                peer,
            };
            assert_eq!(who.to_string(), shown);
        }
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
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
