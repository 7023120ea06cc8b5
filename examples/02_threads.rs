//! Step 02: threads. One for each client, and a lock around the room.
//!
//! - **Can do**: relay the messages of many clients, whenever they speak.
//! - **Breaks**: a write blocks while the receiver's buffers are full, and the lock is held meanwhile.
//!   One client that does not read holds up all others.
//! - **See it break**: `cargo run --example attack -- slow 02_threads`
//! - **In the real code**: what a socket does not accept is kept, and the others go on,
//!   `src/relay/delivery.rs`

use std::collections::BTreeMap;
use std::env;
use std::io::ErrorKind::InvalidData;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

const HEADER_LEN: usize = 10;
const MAX_PAYLOAD_LEN: usize = 1 << 20;

/// The members' sockets, which all threads share.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<BTreeMap<usize, TcpStream>>>);

fn main() -> io::Result<()> {
    let addr = env::args().nth(1);
    let addr = addr.as_deref().unwrap_or("127.0.0.1:1234");
    let listener = TcpListener::bind(addr)?;
    println!("listening on {}", listener.local_addr()?);
    let room = Room::default();
    let mut next_id = 0;
    loop {
        if let Err(error) = accept(&listener, next_id, room.clone()) {
            eprintln!("cannot accept: {error}");
        }
        next_id += 1;
    }
}

/// Waits for a client, and starts a thread for it.
fn accept(listener: &TcpListener, id: usize, room: Room) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    thread::Builder::new().spawn(move || {
        if let Err(error) = serve_client(stream, id, &room) {
            eprintln!("connection {id} is closed: {error}");
        }
        room.lock().remove(&id);
    })?;
    Ok(())
}

/// Relays what a client sends, until it leaves.
fn serve_client(mut stream: TcpStream, id: usize, room: &Room) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let name = read_frame(&mut stream)?;
    room.lock().insert(id, stream.try_clone()?);
    loop {
        let message = read_frame(&mut stream)?;
        room.publish(id, &[name.as_slice(), &message].concat());
    }
}

impl Room {
    /// A thread that panicked has left the members as they were.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a message to all members but its sender. Without the lock, two messages could mix.
    fn publish(&self, sender: usize, message: &[u8]) {
        for (&id, stream) in self.lock().iter_mut() {
            if id != sender {
                // A receiver's error is not the sender's. The receiver's own thread gets it as well.
                let _ = stream.write_all(message);
            }
        }
    }
}

/// Reads one frame, header and payload.
fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_LEN];
    stream.read_exact(&mut frame)?;
    frame.resize(HEADER_LEN + payload_len(&frame)?, 0);
    stream.read_exact(&mut frame[HEADER_LEN..])?;
    Ok(frame)
}

/// The length in a header: decimal digits, and spaces up to ten bytes.
fn payload_len(header: &[u8]) -> io::Result<usize> {
    let text = str::from_utf8(header).map_err(io::Error::other)?;
    match text.trim_end().parse() {
        // `parse` accepts "+5" as well.
        Ok(len) if len <= MAX_PAYLOAD_LEN && !text.starts_with('+') => Ok(len),
        _ => Err(InvalidData.into()),
    }
}
