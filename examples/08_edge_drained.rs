//! Step 08: edge-triggered, and drained. Each call is repeated until it would block.
//!
//! - **Can do**: serve each socket that is ready to the end, with one event and one registration.
//! - **Breaks**: a client that sends faster than it is read is read for ever, and no other client is.
//! - **See it break**: `cargo run --example attack -- flood 08_edge_drained`
//! - **In the real code**: each connection has a budget in each turn, `src/relay/reading.rs`

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::io::ErrorKind::{ConnectionAborted, Interrupted, InvalidData, UnexpectedEof, WouldBlock};
use std::io::{self, Read, Write};

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
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => loop {
                    match accept(&listener, &registry, Token(next_id)) {
                        Ok(stream) => connections.insert(next_id, (stream, Member::default())),
                        Err(error) if error.kind() == WouldBlock => break,
                        Err(error) if error.kind() == Interrupted => continue,
                        Err(error) if error.kind() == ConnectionAborted => continue,
                        Err(error) => {
                            eprintln!("cannot accept: {error}");
                            break;
                        }
                    };
                    next_id += 1;
                },
                Token(id) => serve(&mut connections, id),
            }
        }
    }
}

fn accept(listener: &TcpListener, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let (mut stream, _) = listener.accept()?;
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Relays what a connection sends. An error ends this connection, and nothing else.
fn serve(connections: &mut Connections, id: usize) {
    while let Some((stream, member)) = connections.get_mut(&id) {
        let _ = member.flush(stream);
        match member.read(stream) {
            Ok(messages) => publish(connections, id, &messages),
            Err(error) if error.kind() == WouldBlock => return,
            Err(error) if error.kind() == Interrupted => {}
            Err(_) => drop(connections.remove(&id)),
        }
    }
}

/// Writes messages to all members but their sender.
fn publish(connections: &mut Connections, sender: usize, messages: &[u8]) {
    for (&id, (stream, member)) in connections {
        if id != sender && member.name.is_some() {
            // A receiver's error is not the sender's. Reading from the receiver fails as well.
            member.output.extend(messages);
            let _ = member.flush(stream);
        }
    }
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
            match stream.write(self.output.as_slices().0) {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == Interrupted => {}
                Err(error) => return Err(error),
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
