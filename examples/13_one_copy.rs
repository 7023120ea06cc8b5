//! Step 13: one copy. To step 09 it adds messages that are shared, and a limit of what is queued.
//!
//! - **Can do**: have a hundred members that do not read for the memory of one, up to the limit.
//! - **Breaks**: a member that lags by more than the limit is closed, even if it reads all the time.
//! - **See it break**: `cargo run --example attack -- drip 13_one_copy`
//! - **In the real code**: senders are paused for a slow reader, `src/relay/flow/lag.rs`

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind::{Interrupted, InvalidData, UnexpectedEof, WouldBlock};
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;
use std::{env, mem};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

const LISTENER: Token = Token(usize::MAX);
const MAX_PAYLOAD_LEN: usize = 1 << 20;
const MAX_LAG: usize = 4 << 20;

type Connections = BTreeMap<usize, (TcpStream, Member)>;

/// What the server keeps of a connection. It is a member once it has a name, which is a whole frame.
#[derive(Default)]
struct Member {
    name: Option<Vec<u8>>,
    /// The part of the next frame that has come.
    input: Vec<u8>,
    /// What the socket has not accepted yet. The other members have the same messages, not copies.
    output: VecDeque<Rc<[u8]>>,
    /// How many bytes of the first of them it has accepted, and how many of them all it has not.
    sent: usize,
    lag: usize,
    /// Its input has ended. When the output is delivered, the connection is closed.
    is_ended: bool,
}

fn main() -> io::Result<()> {
    let addr = env::args().nth(1);
    let addr = addr.as_deref().unwrap_or("127.0.0.1:1234");
    let mut listener = TcpListener::bind(addr.parse().map_err(io::Error::other)?)?;
    println!("listening on {}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let (mut connections, mut next_id) = (Connections::new(), 0);
    let mut ready = BTreeSet::new();
    loop {
        let timeout = (!ready.is_empty()).then_some(Duration::ZERO);
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != Interrupted => return Err(error),
            _ => {}
        }
        ready.extend(events.iter().map(|event| event.token().0));
        turn(&mut connections, &mut ready);
        while events.iter().any(|event| event.token() == LISTENER)
            && let Ok(stream) = accept(&listener, &registry, Token(next_id))
        {
            connections.insert(next_id, (stream, Member::default()));
            next_id += 1;
        }
    }
}

fn accept(listener: &TcpListener, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let (mut stream, _) = listener.accept()?;
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads once from each connection that may be readable, and writes what was published to each member.
fn turn(connections: &mut Connections, ready: &mut BTreeSet<usize>) {
    let mut published = Vec::new();
    for id in mem::take(ready) {
        let Some((stream, member)) = connections.get_mut(&id) else {
            continue;
        };
        match member.read(stream) {
            Ok(messages) => {
                published.push((id, Rc::<[u8]>::from(messages)));
                // There may be more, and there will be no event for it.
                ready.insert(id);
            }
            Err(error) => member.is_ended |= error.kind() != WouldBlock,
        }
    }
    connections.retain(|id, (stream, member)| {
        if member.name.is_some() {
            for (_, messages) in published.iter().filter(|(sender, _)| sender != id) {
                member.lag += messages.len();
                member.output.push_back(Rc::clone(messages));
            }
        }
        match member.flush(stream) {
            Err(_) if member.lag > MAX_LAG => false,
            Ok(()) => !member.is_ended,
            Err(error) => error.kind() == WouldBlock,
        }
    });
}

impl Member {
    /// Reads once, and returns the messages for the others. The first frame is the name.
    fn read(&mut self, stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => return Err(UnexpectedEof.into()),
            len => self.input.extend_from_slice(&buffer[..len]),
        }
        let mut messages = Vec::new();
        while let Some(frame) = take_frame(&mut self.input) {
            match &self.name {
                None => self.name = Some(frame?),
                Some(name) => messages.extend([name.as_slice(), &frame?].concat()),
            }
        }
        Ok(messages)
    }

    /// Writes until the queue is empty, or the socket would block. In that case an event will follow.
    fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while let Some(messages) = self.output.front() {
            let len = stream.write(&messages[self.sent..])?;
            self.sent += len;
            self.lag -= len;
            if self.sent == messages.len() {
                self.output.pop_front();
                self.sent = 0;
            }
        }
        Ok(())
    }
}

/// Takes the first frame if it is complete: ten bytes with the payload's length, and the payload.
fn take_frame(input: &mut Vec<u8>) -> Option<io::Result<Vec<u8>>> {
    let header = str::from_utf8(input.get(..10)?).unwrap_or_default();
    let len = match header.trim_end().parse::<usize>() {
        // `parse` accepts "+5" as well.
        Ok(len) if len <= MAX_PAYLOAD_LEN && !header.starts_with('+') => 10 + len,
        _ => return Some(Err(InvalidData.into())),
    };
    (input.len() >= len).then(|| Ok(input.drain(..len).collect()))
}
