//! Step 04: level-triggered. The loop sleeps in poll(2) until a socket has something to read.
//!
//! - **Can do**: serve all clients from one thread, without CPU while all are silent.
//! - **Breaks**: it takes a read for a frame. Of two frames in one read it makes one message, and of a
//!   frame that takes two reads two messages: one of 70 kB has the sender's name in its middle.
//! - **See it break**: `cargo run --example attack -- split 04_level`
//! - **In the real code**: frames out of a stream that is cut anywhere, `src/wire/decoder.rs`

use std::collections::BTreeMap;
use std::env;
use std::io::ErrorKind::{Interrupted, UnexpectedEof, WouldBlock};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

type Connections = BTreeMap<usize, (TcpStream, Member)>;

/// What the server keeps of a connection. It is a member once it has a name, which is a whole frame.
#[derive(Default)]
struct Member {
    name: Option<Vec<u8>>,
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
        let frame = match stream.read(&mut buffer)? {
            0 => return Err(UnexpectedEof.into()),
            len => &buffer[..len],
        };
        let mut messages = Vec::new();
        match &self.name {
            None => self.name = Some(frame.to_vec()),
            Some(name) => messages.extend([name, frame].concat()),
        }
        Ok(messages)
    }
}
