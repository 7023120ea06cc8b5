//! The clients that the judge plays, in one event loop.
//!
//! As in the relay, sockets are edge-triggered: a client stays ready until a call would block. While the
//! judge waits for one client, all others go on sending and receiving, so that no server can be blamed for
//! a client that does not read. A client that is paused does not read on purpose.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Socket, Type};

use super::failure::{ByteText, Failure, difference};
use crate::wire::{encode_frame, header};

/// Small, and the same for each client: a larger one would hide a slow reader for longer.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// The most bytes that a client keeps unread. A server that sends more floods it.
const MAX_INPUT: usize = 16 * 1024 * 1024;

/// The shortest time between the names of a room and its first message.
const JOIN_TIME: Duration = Duration::from_millis(50);

/// The time between two parts of a frame, so that the server can read the first one alone.
const PART_INTERVAL: Duration = Duration::from_millis(20);

/// The payload of messages that ask whether a room is complete. Others than the expected one are from earlier
/// attempts, and ignored.
const PROBE: &str = "are you there? ";

/// A step of a stage: an error is what the server did wrong.
pub(super) type Check<T = ()> = Result<T, Failure>;

/// The number of a client.
pub(super) type Id = usize;

/// All clients of a stage.
pub(super) struct Clients {
    addr: SocketAddr,
    patience: Duration,
    /// When the stage must have ended.
    end: Instant,
    poll: Poll,
    events: Events,
    /// Clients whose sockets may be ready.
    ready: BTreeSet<Id>,
    all: Vec<Client>,
    scratch: Vec<u8>,
    /// The last bytes that were sent, for the report: by which client, and how.
    sent: String,
    /// The number of probes so far.
    probes: usize,
}

/// One client. It is closed when it is dropped.
struct Client {
    name: String,
    /// None if the client has left.
    stream: Option<TcpStream>,
    input: Vec<u8>,
    output: Vec<u8>,
    is_paused: bool,
    /// How the connection ended, if not by the client.
    ended: Option<&'static str>,
}

/// Connects within a time.
pub(super) fn connect(addr: SocketAddr, patience: Duration) -> io::Result<net::TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect_timeout(&addr.into(), patience)?;
    let stream = net::TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A frame with this payload.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(payload, &mut frame);
    frame
}

impl Clients {
    pub(super) fn new(addr: SocketAddr, patience: Duration) -> io::Result<Self> {
        Ok(Self {
            addr,
            patience,
            end: Instant::now() + 4 * patience,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            ready: BTreeSet::new(),
            all: Vec::new(),
            scratch: vec![0; RECEIVE_BUFFER],
            sent: "nothing yet".to_owned(),
            probes: 0,
        })
    }

    /// Connects a client, which sends nothing.
    pub(super) fn connect(&mut self, name: &str) -> Check<Id> {
        let id = self.all.len();
        let left = self.end.saturating_duration_since(Instant::now());
        let patience = self.patience.min(left).max(Duration::from_millis(1));
        let stream = connect(self.addr, patience).and_then(|stream| {
            let mut stream = TcpStream::from_std(stream);
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(id), both)?;
            Ok(stream)
        });
        let stream = stream.map_err(|error| Failure {
            sent: self.sent.clone(),
            expected: format!("the server accepts connection {}, of {name}", id + 1),
            came: error.to_string(),
            chapter: None,
        })?;
        self.all.push(Client {
            name: name.to_owned(),
            stream: Some(stream),
            input: Vec::new(),
            output: Vec::new(),
            is_paused: false,
            ended: None,
        });
        Ok(id)
    }

    /// Connects a client that sends its name.
    pub(super) fn join(&mut self, name: &str) -> Check<Id> {
        let id = self.connect(name)?;
        self.send_bytes(id, &frame(name.as_bytes()), "");
        Ok(id)
    }

    /// Clients that have joined. Each of the others has received a message of the first one.
    pub(super) fn room<const N: usize>(&mut self, names: [&str; N]) -> Check<[Id; N]> {
        self.room_with(names, Self::join)
    }

    /// The same, with names that come byte by byte.
    pub(super) fn room_in_bytes<const N: usize>(&mut self, names: [&str; N]) -> Check<[Id; N]> {
        let room = self.room_with(names, |clients, name| {
            let id = clients.connect(name)?;
            clients.send_parts(id, &frame(name.as_bytes()), 1);
            Ok(id)
        });
        room.map_err(|mut failure| {
            failure.sent = format!("each client: its name, byte by byte; then {}", failure.sent);
            failure
        })
    }

    /// Clients that join in this way. Nothing confirms that a client has joined, and a message that comes too
    /// early does not reach it. So they wait, and if that was too short, they leave, and others wait longer.
    fn room_with<const N: usize>(
        &mut self,
        names: [&str; N],
        join: impl Fn(&mut Self, &str) -> Check<Id>,
    ) -> Check<[Id; N]> {
        let deadline = self.deadline();
        let mut wait = JOIN_TIME;
        loop {
            let mut ids = [0; N];
            for (id, name) in ids.iter_mut().zip(names) {
                *id = join(self, name)?;
            }
            sleep(wait);
            let probe = self.probe(ids[0]);
            let limit = (Instant::now() + 10 * wait).min(deadline);
            let mut others = ids[1..].iter();
            let met = others.try_for_each(|&id| self.expect_until(limit, id, ids[0], &probe));
            match met {
                Ok(()) => return Ok(ids),
                Err(Trouble::Late(_)) if limit < deadline => {
                    for id in ids {
                        self.leave(id);
                    }
                }
                Err(trouble) => return Err(trouble.into()),
            }
            wait = (2 * wait).min(self.patience / 4);
        }
    }

    /// Waits until each of these clients has joined: the first one sends until all others have received.
    pub(super) fn gather(&mut self, ids: &[Id]) -> Check {
        let deadline = self.deadline();
        let mut wait = 4 * JOIN_TIME;
        loop {
            let probe = self.probe(ids[0]);
            let limit = (Instant::now() + wait).min(deadline);
            let mut others = ids[1..].iter();
            match others.try_for_each(|&id| self.expect_until(limit, id, ids[0], &probe)) {
                Ok(()) => return Ok(()),
                Err(Trouble::Late(_)) if limit < deadline => wait *= 2,
                Err(trouble) => return Err(trouble.into()),
            }
        }
    }

    /// Has a client send a probe. Returns its payload.
    fn probe(&mut self, from: Id) -> Vec<u8> {
        self.probes += 1;
        let probe = format!("{PROBE}{}", self.probes).into_bytes();
        self.send(from, &probe);
        probe
    }

    /// Has a client send a message.
    pub(super) fn send(&mut self, id: Id, message: &[u8]) {
        self.send_bytes(id, &frame(message), "");
    }

    /// Has a client send bytes. `how` goes into the report.
    pub(super) fn send_bytes(&mut self, id: Id, bytes: &[u8], how: &str) {
        self.sent = format!("{}{how}: {}", self.all[id].name, ByteText(bytes));
        let client = &mut self.all[id];
        client.output.extend_from_slice(bytes);
        client.write();
    }

    /// Has a client send bytes in parts of this length, with a pause after each.
    pub(super) fn send_parts(&mut self, id: Id, bytes: &[u8], len: usize) {
        for part in bytes.chunks(len) {
            self.send_bytes(id, part, "");
            sleep(PART_INTERVAL);
        }
        let how = format!(", in parts of {len} bytes");
        self.sent = format!("{}{how}: {}", self.all[id].name, ByteText(bytes));
    }

    /// Has a client send bytes in two parts.
    pub(super) fn send_split(&mut self, id: Id, bytes: &[u8], at: usize) {
        self.send_bytes(id, &bytes[..at], "");
        sleep(PART_INTERVAL);
        self.send_bytes(id, &bytes[at..], "");
        let (one, other) = (ByteText(&bytes[..at]), ByteText(&bytes[at..]));
        self.sent = format!("{}: {one}, and a moment later {other}", self.all[id].name);
    }

    /// Describes the last bytes differently in the report.
    pub(super) fn describe_sent(&mut self, text: String) {
        self.sent = text;
    }

    /// The client does not read any more, until it is resumed.
    pub(super) fn pause(&mut self, id: Id) {
        self.all[id].is_paused = true;
    }

    pub(super) fn resume(&mut self, id: Id) {
        self.all[id].is_paused = false;
        self.ready.insert(id);
    }

    /// The client ends its input's side of the connection, and reads on.
    pub(super) fn shutdown(&mut self, id: Id) {
        let deadline = self.deadline();
        while !self.all[id].output.is_empty() && Instant::now() < deadline {
            self.turn(deadline);
        }
        if let Some(stream) = &self.all[id].stream {
            // It fails if the connection has ended, which the next expectation finds out.
            let _ = stream.shutdown(Shutdown::Write);
        }
        self.sent.push_str(", and the end of its input");
    }

    pub(super) fn leave(&mut self, id: Id) {
        self.all[id].stream = None;
    }

    /// The client resets its connection.
    pub(super) fn reset(&mut self, id: Id) {
        if let Some(stream) = self.all[id].stream.take() {
            // Without it the connection ends in the usual way, which is less of a test.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        self.sent = format!("{}: a reset of its connection", self.all[id].name);
    }

    /// Waits until a client receives this message, and nothing else before it.
    pub(super) fn expect(&mut self, to: Id, from: Id, message: &[u8]) -> Check {
        Ok(self.expect_until(self.deadline(), to, from, message)?)
    }

    /// The same, but the connection may end instead. Returns whether the message came.
    pub(super) fn expect_or_end(&mut self, to: Id, from: Id, message: &[u8]) -> Check<bool> {
        match self.expect_until(self.deadline(), to, from, message) {
            Ok(()) => Ok(true),
            Err(Trouble::Ended(_)) => Ok(false),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Has a client send a message, and each of the others receive it.
    pub(super) fn relay(&mut self, from: Id, to: &[Id], message: &[u8]) -> Check {
        self.send(from, message);
        to.iter().try_for_each(|&to| self.expect(to, from, message))
    }

    /// Waits in silence. Each of these clients must stay connected, and receive nothing.
    pub(super) fn expect_silence(&mut self, ids: &[Id], time: Duration) -> Check {
        let end = Instant::now() + time;
        loop {
            for &id in ids {
                self.all[id].drop_probes();
            }
            let is_broken = |client: &Client| !client.input.is_empty() || client.ended.is_some();
            if let Some(&id) = ids.iter().find(|&&id| is_broken(&self.all[id])) {
                let came = self.came(id, "");
                let name = &self.all[id].name;
                let expected = format!("{name}: {time:?} of silence on an open connection");
                return Err(self.failure(expected, came));
            }
            if Instant::now() >= end {
                return Ok(());
            }
            self.turn(end);
        }
    }

    fn deadline(&self) -> Instant {
        self.end.min(Instant::now() + self.patience)
    }

    fn expect_until(
        &mut self,
        deadline: Instant,
        to: Id,
        from: Id,
        message: &[u8],
    ) -> Result<(), Trouble> {
        let name = self.all[from].name.clone();
        let expected = [frame(name.as_bytes()), frame(message)].concat();
        let expected_text = format!("{}: {}", self.all[to].name, ByteText(&expected));
        loop {
            let taken = self.all[to].take_message();
            let kind: fn(Failure) -> Trouble;
            let came = match &taken {
                Taken::Message {
                    name: one,
                    message: other,
                } => {
                    if one[header::WIDTH..] == *name.as_bytes()
                        && other[header::WIDTH..] == *message
                    {
                        return Ok(());
                    }
                    if taken.is_probe() {
                        continue;
                    }
                    kind = Trouble::Failed;
                    difference(&[one.as_slice(), other].concat(), &expected)
                }
                Taken::NoFrames => {
                    kind = Trouble::Failed;
                    let came = difference(&self.all[to].input, &expected);
                    format!("{came}, which does not begin with two frames")
                }
                Taken::Nothing if self.all[to].ended.is_some() => {
                    kind = Trouble::Ended;
                    self.came(to, "")
                }
                Taken::Nothing if self.all[from].ended.is_some() => {
                    kind = Trouble::Failed;
                    let how = self.all[from].ended.unwrap_or_default();
                    self.came(to, &format!("; to {name} came {how}"))
                }
                Taken::Nothing if Instant::now() >= deadline => {
                    kind = Trouble::Late;
                    self.came(to, &format!(", and no more within {:?}", self.patience))
                }
                Taken::Nothing => {
                    self.turn(deadline);
                    continue;
                }
            };
            return Err(kind(self.failure(expected_text, came)));
        }
    }

    /// The unread bytes of a client, with how its connection ended.
    fn came(&self, id: Id, then: &str) -> String {
        let client = &self.all[id];
        let bytes = match client.input.as_slice() {
            [] => "nothing".to_owned(),
            bytes => ByteText(bytes).to_string(),
        };
        match client.ended {
            Some(how) => format!("{bytes}, and then {how}"),
            None => format!("{bytes}{then}"),
        }
    }

    fn failure(&self, expected: String, came: String) -> Failure {
        let sent = self.sent.clone();
        Failure {
            sent,
            expected,
            came,
            chapter: None,
        }
    }

    /// One turn of the event loop: each client that is ready reads once, and writes.
    fn turn(&mut self, deadline: Instant) {
        let wait = if self.ready.is_empty() {
            deadline.saturating_duration_since(Instant::now())
        } else {
            Duration::ZERO
        };
        // The only error that is expected is an interruption, after which the caller tries again.
        if self.poll.poll(&mut self.events, Some(wait)).is_ok() {
            self.ready
                .extend(self.events.iter().map(|event| event.token().0));
        }
        let (clients, scratch) = (&mut self.all, &mut self.scratch);
        self.ready.retain(|&id| {
            clients[id].write();
            clients[id].read(scratch)
        });
    }
}

/// Why an expectation was not met.
enum Trouble {
    /// The message did not come in time.
    Late(Failure),
    /// The connection ended before it.
    Ended(Failure),
    /// It cannot come any more.
    Failed(Failure),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let (Trouble::Late(failure) | Trouble::Ended(failure) | Trouble::Failed(failure)) = trouble;
        failure
    }
}

impl Client {
    /// Reads once. Returns whether there may be more.
    fn read(&mut self, scratch: &mut [u8]) -> bool {
        let Some(stream) = self.stream.as_mut() else {
            return false;
        };
        if self.is_paused || self.ended.is_some() {
            return false;
        }
        match stream.read(scratch) {
            Ok(0) => self.ended = Some("the end of the connection"),
            Ok(len) => self.input.extend_from_slice(&scratch[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.ended = Some("a reset of the connection"),
        }
        if self.input.len() > MAX_INPUT {
            self.ended = Some("more than 16 MiB that it should not receive");
        }
        self.ended.is_none()
    }

    /// Writes until there is no output, or the socket would block. In that case an event follows.
    fn write(&mut self) {
        let Some(stream) = self.stream.as_mut() else {
            return;
        };
        while !self.output.is_empty() {
            match stream.write(&self.output) {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Reading fails as well, or returns what came before the end.
                Err(_) => self.output.clear(),
            }
        }
    }

    /// Takes the frames of a name and a message.
    fn take_message(&mut self) -> Taken {
        let ends = frame_end(&self.input).and_then(|first| match first {
            Some(first) => Ok(frame_end(&self.input[first..])?.map(|second| (first, second))),
            None => Ok(None),
        });
        match ends {
            Ok(Some((first, second))) => Taken::Message {
                name: self.input.drain(..first).collect(),
                message: self.input.drain(..second).collect(),
            },
            Ok(None) => Taken::Nothing,
            Err(NoFrame) => Taken::NoFrames,
        }
    }

    /// Removes probes of earlier attempts.
    fn drop_probes(&mut self) {
        let input = self.input.clone();
        if !self.take_message().is_probe() {
            self.input = input;
        }
    }
}

/// What a client has received.
enum Taken {
    /// Not all of a message.
    Nothing,
    /// The frame with a name, and the frame of a message.
    Message { name: Vec<u8>, message: Vec<u8> },
    /// Bytes that are no frames.
    NoFrames,
}

impl Taken {
    fn is_probe(&self) -> bool {
        match self {
            Self::Message { message, .. } => message[header::WIDTH..].starts_with(PROBE.as_bytes()),
            Self::Nothing | Self::NoFrames => false,
        }
    }
}

/// Bytes that are no header.
struct NoFrame;

/// The length of the first frame, if it is complete.
fn frame_end(bytes: &[u8]) -> Result<Option<usize>, NoFrame> {
    let Some(first) = bytes.get(..header::WIDTH) else {
        return Ok(None);
    };
    let len = header::parse(first).ok_or(NoFrame)?;
    let end = usize::try_from(len).map_err(|_| NoFrame)? + header::WIDTH;
    Ok((bytes.len() >= end).then_some(end))
}
