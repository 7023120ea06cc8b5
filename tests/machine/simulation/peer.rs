//! The peers: who they are, and how they write what they say.

use std::net::{Ipv6Addr, SocketAddr};

use chatloop::wire::Dialect;

use super::choices::Choices;

/// Somebody at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    pub dialect: Dialect,
    pub addr: SocketAddr,
    pub stage: Stage,
    /// How much it has said, so that no two messages are the same.
    said: usize,
}

/// How far a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has still to give its name.
    Nameless,
    /// It will never do that.
    Mute,
    Talking,
    /// It sends nothing more.
    Ended,
}

impl Peer {
    /// The peer of this number.
    pub fn new(number: usize, dialect: Dialect, is_mute: bool) -> Self {
        let port = 1024 + (number % 60_000) as u16;
        let addr = match number % 3 {
            0 => SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), port)),
            last => SocketAddr::from(([198, 51, 100, last as u8], port)),
        };
        let stage = match dialect {
            Dialect::Chat10 if is_mute => Stage::Mute,
            Dialect::Chat10 => Stage::Nameless,
            _ => Stage::Talking,
        };
        Self {
            dialect,
            addr,
            stage,
            said: 0,
        }
    }

    /// How wide the headers are that it sends; what has none is noise.
    pub const fn header_width(&self) -> usize {
        match self.dialect {
            Dialect::Chat10 => 10,
            Dialect::Chat64 | Dialect::Ack64 => 64,
            _ => 0,
        }
    }

    /// A message or a name of this length, like no other if it is long enough to be.
    pub fn payload(&mut self, len: usize) -> Vec<u8> {
        self.said += 1;
        let tag = format!("{}.{}:", self.addr.port(), self.said).into_bytes();
        let filler = (0..).map(|index| (index * 7 + self.said) as u8);
        tag.into_iter().chain(filler).take(len).collect()
    }

    /// That payload in a frame, with one of the headers that the grammar allows.
    pub fn frame(&self, payload: &[u8], choices: &mut Choices) -> Vec<u8> {
        let (width, len) = (self.header_width(), payload.len());
        let mut frame = match choices.below(8) {
            _ if width == 0 => String::new(),
            0 => format!("{len:>width$}"),
            1 => format!("{len:0width$}"),
            2 => format!("{:<width$}", format!(" {len}")),
            _ => format!("{len:<width$}"),
        }
        .into_bytes();
        frame.extend_from_slice(payload);
        frame
    }

    /// As many bytes as a header has, and no header.
    pub fn bad_header(&self, choices: &mut Choices) -> Vec<u8> {
        let width = self.header_width();
        let start = choices.one_of(&["", "+5", "1_0", "-1", "5 5", "GET / HTTP/1.1", "\t5", "5\0"]);
        let mut header = format!("{start:<width$}").into_bytes();
        header.truncate(width);
        header
    }
}
