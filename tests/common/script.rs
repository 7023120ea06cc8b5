//! A relay without sockets: its streams follow a script.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use chatloop::relay::{ConnId, Limits, Ready, Relay, ReplyTexts, RoomEvent};
use chatloop::wire::Dialect;

use super::frame;

/// A stream that a test controls. Clones are the same stream.
#[derive(Clone, Default)]
pub struct Script(Rc<RefCell<Inner>>);

struct Inner {
    /// What reads will return, in order. After that, "would block".
    reads: VecDeque<io::Result<Vec<u8>>>,
    /// How many more bytes writes will take before "would block".
    room: usize,
    /// A write was not taken whole, so there will be an edge when there is room again.
    is_full: bool,
    /// Writes fail with this.
    write_error: Option<ErrorKind>,
    written: Vec<u8>,
    write_calls: usize,
    read_calls: usize,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            reads: VecDeque::new(),
            room: usize::MAX,
            is_full: false,
            write_error: None,
            written: Vec::new(),
            write_calls: 0,
            read_calls: 0,
        }
    }
}

impl Script {
    /// The next reads return these bytes, as much of them as the reader's buffer takes. As with a
    /// socket, what is sent twice before it is read can be read at once.
    pub fn sends(&self, bytes: impl AsRef<[u8]>) -> &Self {
        let reads = &mut self.0.borrow_mut().reads;
        match reads.back_mut() {
            Some(Ok(last)) if !last.is_empty() => last.extend_from_slice(bytes.as_ref()),
            _ => reads.push_back(Ok(bytes.as_ref().to_vec())),
        }
        self
    }

    /// The next reads return these bytes one by one, as reads do at urgent data.
    pub fn sends_byte_by_byte(&self, bytes: impl AsRef<[u8]>) -> &Self {
        let reads = &mut self.0.borrow_mut().reads;
        reads.extend(bytes.as_ref().iter().map(|&byte| Ok(vec![byte])));
        self
    }

    /// A read after that returns the end of the input, and so does every read after it.
    pub fn closes(&self) -> &Self {
        self.0.borrow_mut().reads.push_back(Ok(Vec::new()));
        self
    }

    /// A read after that fails.
    pub fn fails(&self, kind: ErrorKind) -> &Self {
        self.0.borrow_mut().reads.push_back(Err(kind.into()));
        self
    }

    /// From now on takes only this many more bytes. Says whether a socket would have an edge for that.
    pub fn takes(&self, room: usize) -> bool {
        let inner = &mut *self.0.borrow_mut();
        inner.room = room;
        room > 0 && std::mem::take(&mut inner.is_full)
    }

    /// From now on writes fail.
    pub fn breaks(&self, kind: ErrorKind) {
        self.0.borrow_mut().write_error = Some(kind);
    }

    /// From now on writes succeed again.
    pub fn recovers(&self) {
        self.0.borrow_mut().write_error = None;
    }

    /// What was written since the last look.
    pub fn received(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().written)
    }

    /// How many times it was written to since the last look.
    pub fn write_calls(&self) -> usize {
        std::mem::take(&mut self.0.borrow_mut().write_calls)
    }

    /// How many bytes it has sent that no client has read.
    pub fn unread(&self) -> usize {
        let reads = &self.0.borrow().reads;
        reads.iter().flatten().map(Vec::len).sum()
    }

    /// How many times it was read since the last look.
    pub fn read_calls(&self) -> usize {
        std::mem::take(&mut self.0.borrow_mut().read_calls)
    }

    /// Whether the relay has closed it.
    pub fn is_closed(&self) -> bool {
        // The relay's handle and this one, or only this one.
        Rc::strong_count(&self.0) == 1
    }
}

impl Read for Script {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.0.borrow_mut();
        inner.read_calls += 1;
        match inner.reads.pop_front() {
            None => Err(ErrorKind::WouldBlock.into()),
            Some(Ok(bytes)) if bytes.is_empty() => {
                inner.reads.push_front(Ok(bytes));
                Ok(0)
            }
            Some(Ok(mut bytes)) => {
                let taken = bytes.len().min(buf.len());
                let rest = bytes.split_off(taken);
                buf[..taken].copy_from_slice(&bytes);
                if !rest.is_empty() {
                    inner.reads.push_front(Ok(rest));
                }
                Ok(taken)
            }
            Some(Err(error)) => Err(error),
        }
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut inner = self.0.borrow_mut();
        inner.write_calls += 1;
        if let Some(kind) = inner.write_error {
            return Err(kind.into());
        }
        if inner.room == 0 {
            inner.is_full = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut total = 0;
        for slice in slices {
            let taken = slice.len().min(inner.room);
            inner.written.extend_from_slice(&slice[..taken]);
            inner.room -= taken;
            inner.is_full |= taken < slice.len();
            total += taken;
        }
        Ok(total)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One scripted connection of a [`Room`].
pub struct Peer {
    pub id: ConnId,
    pub stream: Script,
}

/// How many turns a test takes at most. What waits for something that never happens fails there.
const MOST_TURNS: usize = 100_000;

/// The dialects of the tutorials.
pub const TUTORIALS: [Dialect; 5] = [
    Dialect::Chat10,
    Dialect::Chat64,
    Dialect::Ack64,
    Dialect::Greet10,
    Dialect::Hello,
];

/// A relay, its scratch buffer, and the turns of a loop.
pub struct Room {
    pub relay: Relay<Script>,
    pub scratch: Vec<u8>,
    /// The time, which passes only when a test moves it.
    pub now: Instant,
    /// The events of all turns, until a test takes them.
    pub events: Vec<RoomEvent>,
    /// The last connection's port.
    port: u16,
    turns: usize,
}

impl Room {
    /// A room for `chat10` alone.
    pub fn new(limits: Limits) -> Self {
        Self::serving(&[Dialect::Chat10], limits, &ReplyTexts::default())
    }

    pub fn serving(served: &[Dialect], limits: Limits, texts: &ReplyTexts) -> Self {
        let now = Instant::now();
        Self {
            scratch: vec![0; limits.read_budget],
            relay: Relay::new(limits, served, texts, now),
            now,
            events: Vec::new(),
            port: 4000,
            turns: 0,
        }
    }

    /// A `chat10` connection that has sent nothing.
    pub fn connect(&mut self) -> Peer {
        self.connect_to(Dialect::Chat10)
    }

    /// A connection that has sent nothing. Each has a port of its own, counted from 4001.
    pub fn connect_to(&mut self, dialect: Dialect) -> Peer {
        let stream = Script::default();
        self.port += 1;
        let addr = SocketAddr::from(([192, 0, 2, 1], self.port));
        let id = self.relay.insert(stream.clone(), addr, dialect, self.now);
        Peer { id, stream }
    }

    /// A member.
    pub fn join(&mut self, name: impl AsRef<[u8]>) -> Peer {
        let peer = self.connect();
        peer.stream.sends(frame(name));
        self.readable(&peer);
        self.turn();
        peer
    }

    pub fn readable(&mut self, peer: &Peer) {
        self.relay.note(peer.id, Ready::READABLE);
    }

    pub fn writable(&mut self, peer: &Peer) {
        self.relay.note(peer.id, Ready::WRITABLE);
    }

    /// One edge that reports data and the end of the peer's input.
    pub fn read_closed(&mut self, peer: &Peer) {
        self.relay
            .note(peer.id, Ready::READABLE | Ready::READ_CLOSED);
    }

    /// The peer sends this in a turn of its own.
    pub fn say(&mut self, peer: &Peer, message: impl AsRef<[u8]>) {
        peer.stream.sends(frame(message));
        self.readable(peer);
        self.turn();
    }

    /// One turn of the loop, less the polling and accepting.
    pub fn turn(&mut self) {
        self.turns += 1;
        assert!(self.turns <= MOST_TURNS, "it comes to no end");
        self.relay.serve_ready(&mut self.scratch, self.now);
        self.finish_turn();
    }

    /// The rest of a turn whose input was read.
    pub fn finish_turn(&mut self) {
        self.relay.fan_out(self.now);
        self.relay.remove_closed(&mut self.scratch, self.now);
        self.events.extend(self.relay.drain_events());
    }

    /// This much time passes, and each timeout in it is handled in a turn of its own.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.relay.next_timeout()
            && at <= until
        {
            self.now = self.now.max(at);
            self.relay.handle_timeout(self.now);
            self.turn();
            self.turns();
        }
        self.now = until;
        self.turn();
        self.turns();
    }

    /// Turns until no connection is ready.
    pub fn turns(&mut self) {
        while self.relay.has_ready() {
            self.turn();
        }
    }

    /// Takes the events since the last call.
    pub fn take_events(&mut self) -> Vec<RoomEvent> {
        std::mem::take(&mut self.events)
    }
}
