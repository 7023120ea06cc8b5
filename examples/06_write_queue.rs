//! Step 06: a write queue. What a socket does not accept is kept for it.
//!
//! - **Can do**: deliver everything to slow readers, without making the others wait.
//! - **Breaks**: poll(2) looks at every socket, each time. Beside hundreds of silent clients, one message
//!   costs many times what it costs without them.
//! - **See it break**: `cargo run --example attack -- crowd 06_write_queue`
//! - **In the real code**: each socket is registered once, `src/server/system.rs`

use std::collections::{BTreeMap, VecDeque};
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
    /// What the socket has not accepted yet.
    output: VecDeque<u8>,
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
    for (stream, member) in connections.values() {
        // A socket is writable nearly always. That is of interest only while there is output.
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !member.output.is_empty());
        fds.push(PollFd::new(stream, flags));
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
    let _ = member.flush(stream);
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

    /// Writes once. What the socket does not accept stays in the queue.
    fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        if !self.output.is_empty() {
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
