//! What the benches share: streams of frames, and rooms whose members' streams are sinks.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each bench is a crate of its own and uses a part"
)]

use std::hint::black_box;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use chatloop::relay::{ConnId, Limits, Ready, Relay, ReplyTexts};
use chatloop::wire::{Decoder, Dialect, encode_frame, header};

/// So many frames, one after the other.
pub fn frames(count: usize, len: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..count {
        encode_frame(&vec![b'x'; len], &mut stream);
    }
    stream
}

/// Decodes a stream that comes in pieces; returns how many payload bytes there were.
pub fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> usize {
    const MAX: usize = 1024 * 1024;
    let mut decoder = Decoder::new();
    let mut total = 0;
    for mut piece in pieces {
        while let Ok(Some(payload)) = decoder.decode(&mut piece, header::WIDTH, MAX) {
            total += black_box(payload).len();
        }
    }
    total
}

/// A stream the size of a socket. The first read is its name, each later one a message of 64 bytes;
/// a write takes everything. For all that the compiler knows, it looks at what it takes: otherwise
/// work that went into that would be left out.
#[derive(Default)]
pub struct Sink {
    reads: u32,
}

const NAME: &[u8] = b"10        user000000";
const MESSAGE: &[u8] =
    b"64        0123456789012345678901234567890123456789012345678901234567890123";

/// The size of one message as it is delivered: its sender's name, and the message.
pub const DELIVERED: usize = NAME.len() + MESSAGE.len();

impl Read for Sink {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let sent = if self.reads == 0 { NAME } else { MESSAGE };
        self.reads += 1;
        buf[..sent.len()].copy_from_slice(sent);
        Ok(sent.len())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        black_box(bytes.as_ptr());
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        black_box(slices.as_ptr());
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn turn<S: Read + Write>(relay: &mut Relay<S>, scratch: &mut [u8], now: Instant) {
    relay.serve_ready(scratch, now);
    relay.fan_out(now);
    relay.remove_closed(scratch, now);
}

/// A room of so many members that have these dialects in turn.
pub fn room_of<S: Read + Write + Default>(
    members: usize,
    dialects: &[Dialect],
    scratch: &mut [u8],
) -> (Relay<S>, Vec<ConnId>) {
    let now = Instant::now();
    let mut relay = Relay::new(Limits::default(), dialects, &ReplyTexts::default(), now);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 4000));
    let mut ids = Vec::with_capacity(members);
    for &dialect in dialects.iter().cycle().take(members) {
        let id = relay.insert(S::default(), peer, dialect, now);
        if relay.pending_connections() > 0 {
            relay.note(id, Ready::READABLE);
        }
        turn(&mut relay, scratch, now);
        drop(relay.drain_events());
        ids.push(id);
    }
    assert_eq!(relay.members().total(), members);
    (relay, ids)
}
