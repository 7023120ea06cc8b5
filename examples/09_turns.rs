//! Step 09: turns. One read a connection, then one write a member, then closing, then accepting.
//!
//! - **Can do**: serve a client that sends without end as one of many.
//! - **Breaks**: where there is no descriptor, accepting fails, and the edge was spent. The clients that
//!   wait are neither served nor refused, even when there are descriptors again.
//! - **See it break**: `cargo run --example attack -- full 09_turns`
//! - **In the real code**: accepting under a shortage, `src/server/acceptor.rs`

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind::{Interrupted, InvalidData, UnexpectedEof, WouldBlock};
use std::io::{self, Read, Write};
use std::time::Duration;
use std::{env, mem};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

const LISTENER: Token = Token(usize::MAX);
const MAX_PAYLOAD_LEN: usize = 1 << 20;

type Connections = BTreeMap<usize, (TcpStream, Member)>;

/// What the server keeps of a connection. It is a member once it has a name, which is a whole frame.
#[derive(Default)]
struct Member {
    name: Option<Vec<u8>>,
    /// The part of the next frame that has come.
    input: Vec<u8>,
    /// What the socket has not accepted yet.
    output: VecDeque<u8>,
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
                published.push((id, messages));
                // There may be more, and there will be no event for it.
                ready.insert(id);
            }
            Err(error) => member.is_ended |= error.kind() != WouldBlock,
        }
    }
    connections.retain(|id, (stream, member)| {
        if member.name.is_some() {
            for (_, messages) in published.iter().filter(|(sender, _)| sender != id) {
                member.output.extend(messages);
            }
        }
        match member.flush(stream) {
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
        while !self.output.is_empty() {
            let len = stream.write(self.output.as_slices().0)?;
            self.output.drain(..len);
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
