//! Step 01: blocking. A room for two, who take turns.
//!
//! - **Can do**: relay the messages of two clients, as long as they speak in turn.
//! - **Breaks**: a read blocks until its client sends. A silent client holds up all others.
//! - **See it break**: `cargo run --example attack -- idle 01_blocking`
//! - **In the real code**: only a socket that is ready is read, `src/relay/ready.rs`

use std::env;
use std::io::ErrorKind::InvalidData;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

const HEADER_LEN: usize = 10;
const MAX_PAYLOAD_LEN: usize = 1 << 20;

fn main() -> io::Result<()> {
    let addr = env::args().nth(1);
    let addr = addr.as_deref().unwrap_or("127.0.0.1:1234");
    let listener = TcpListener::bind(addr)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        // A client that leaves ends its room, and not the server.
        if let Err(error) = serve_room(&listener) {
            eprintln!("the room has ended: {error}");
        }
    }
}

/// Serves two clients, until one of them leaves.
fn serve_room(listener: &TcpListener) -> io::Result<()> {
    let mut members = [join(listener)?, join(listener)?];
    loop {
        let [(sender, name), (receiver, _)] = &mut members;
        // Until this returns, nothing is read that the other one may have sent.
        let message = read_frame(sender)?;
        receiver.write_all(&[name.as_slice(), &message].concat())?;
        members.swap(0, 1);
    }
}

/// Waits for a client, and for the frame with its name.
fn join(listener: &TcpListener) -> io::Result<(TcpStream, Vec<u8>)> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let name = read_frame(&mut stream)?;
    Ok((stream, name))
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
