//! Step 03: a busy loop. One thread, and no call that blocks.
//!
//! - **Can do**: go on with the others while one client does not read.
//! - **Breaks**: it asks each socket again and again. It uses all of a core while all clients are silent.
//! - **See it break**: `cargo run --example attack -- rest 03_busy_loop`
//! - **In the real code**: the loop sleeps until there is something to do, `src/server/mod.rs`

use std::collections::BTreeMap;
use std::env;
use std::io::ErrorKind::{Interrupted, UnexpectedEof, WouldBlock};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

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
        let ids: Vec<_> = connections.keys().copied().collect();
        for id in ids {
            serve(&mut connections, id);
        }
        // What cannot be accepted now is tried again.
        if let Ok(stream) = accept(&listener) {
            connections.insert(next_id, (stream, Member::default()));
            next_id += 1;
        }
    }
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
