//! Step 05: framing. Bytes are collected until a frame is complete, wherever TCP cuts them.
//!
//! - **Can do**: relay each message as it was sent.
//! - **Breaks**: `write_all` gives up where the socket would block, and the other bytes are lost. A client
//!   that reads late receives the beginning of a frame, and after it another frame.
//! - **See it break**: `cargo run --example attack -- late 05_framing`
//! - **In the real code**: what a socket does not accept is kept, `src/relay/channel/backlog.rs`

use std::collections::BTreeMap;
use std::env;
use std::io::ErrorKind::{Interrupted, InvalidData, UnexpectedEof, WouldBlock};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

const MAX_PAYLOAD_LEN: usize = 1 << 20;

type Connections = BTreeMap<usize, (TcpStream, Member)>;

/// What the server keeps of a connection. It is a member once it has a name, which is a whole frame.
#[derive(Default)]
struct Member {
    name: Option<Vec<u8>>,
    /// The part of the next frame that has come.
    input: Vec<u8>,
}

fn main() -> io::Result<()> {
    let addr = env::args().nth(1);
    let addr = addr.as_deref().unwrap_or("127.0.0.1:1234");
    let listener = TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let (mut connections, mut next_id) = (Connections::new(), 0);
    loop {
        for id in wait(&listener, &connections)? {
            serve(&mut connections, id);
        }
        // What cannot be accepted now is tried again.
        if let Ok(stream) = accept(&listener) {
            connections.insert(next_id, (stream, Member::default()));
            next_id += 1;
        }
    }
}

/// Waits until a socket is ready, and returns the connections that are. What is left undone is reported
/// again by the next call: that is "level-triggered".
fn wait(listener: &TcpListener, connections: &Connections) -> io::Result<Vec<usize>> {
    let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
    for (stream, _) in connections.values() {
        fds.push(PollFd::new(stream, PollFlags::IN));
    }
    retry_on_intr(|| poll(&mut fds, None))?;
    let ready = connections.keys().zip(&fds[1..]);
    let ready = ready.filter(|(_, fd)| !fd.revents().is_empty());
    Ok(ready.map(|(&id, _)| id).collect())
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Relays what a connection sends. An error ends this connection, and nothing else.
fn serve(connections: &mut Connections, id: usize) {
    let Some((stream, member)) = connections.get_mut(&id) else {
        return;
    };
    match member.read(stream) {
        Ok(messages) => publish(connections, id, &messages),
        Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => {}
        Err(_) => drop(connections.remove(&id)),
    }
}

/// Writes messages to all members but their sender.
fn publish(connections: &mut Connections, sender: usize, messages: &[u8]) {
    for (&id, (stream, member)) in connections {
        if id != sender && member.name.is_some() {
            // A receiver's error is not the sender's. Reading from the receiver fails as well.
            let _ = stream.write_all(messages);
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
