//! The peers: their names, and how they encode their messages.

use std::net::{Ipv6Addr, SocketAddr};

use chatloop::wire::Dialect;

use super::choices::Choices;
use super::proxy::Header;
use super::web::{self, Answer, BINARY, CLOSE, CONTINUED, PING, PONG, TEXT};

/// The longest payload that a peer gives a ping, unless it is the longest of all.
const USUAL_PING: usize = 8;

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its dialect, once its handshake is accepted if there is one.
    pub dialect: Dialect,
    pub addr: SocketAddr,
    pub stage: Stage,
    /// What its proxy sends first, if it has one.
    pub header: Option<Header>,
    /// It waits for no answer: when its proxy has sent the header, it begins with its dialect.
    pub goes_on_at_once: bool,
    /// What it will send next: a header, a request, or the end of something that it has begun.
    pub outgoing: Vec<u8>,
    /// The number of its messages, so that no two are the same.
    sent_count: usize,
}

/// How far a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It uses HTTP, and may go on when its handshake was answered; or its proxy has still to send a header.
    Visiting,
    /// It has still to give its name.
    Nameless,
    /// It will never do that.
    Mute,
    Joined,
    /// It sends nothing more.
    Ended,
}

impl Peer {
    /// The peer of this number, which has connected to a listener of this dialect. If that is one for proxies,
    /// its proxy sends this header.
    pub fn new(
        number: usize,
        listener: Dialect,
        header: Option<Header>,
        is_mute: bool,
        choices: &mut Choices,
    ) -> Self {
        let port = 1024 + (number % 60_000) as u16;
        let addr = match number % 3 {
            0 => SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), port)),
            last => SocketAddr::from(([198, 51, 100, last as u8], port)),
        };
        let mut peer = Self {
            dialect: listener,
            addr,
            stage: Stage::Visiting,
            header,
            goes_on_at_once: false,
            outgoing: Vec::new(),
            sent_count: 0,
        };
        if web::begins_with_http(listener) {
            peer.prepare_request(choices);
        }
        if let Some(header) = &peer.header {
            peer.outgoing.splice(..0, header.bytes.iter().copied());
            peer.goes_on_at_once = !is_mute && !web::begins_with_http(listener);
        }
        if peer.outgoing.is_empty() {
            peer.begin(is_mute);
        } else if is_mute {
            // It never completes that.
            let len = choices.below(peer.outgoing.len());
            peer.outgoing.truncate(len);
        }
        peer
    }

    /// It begins with its dialect.
    pub fn begin(&mut self, is_mute: bool) {
        self.stage = match self.dialect {
            Dialect::Chat10 | Dialect::Ws | Dialect::WsChat10 if is_mute => Stage::Mute,
            Dialect::Chat10 | Dialect::Ws | Dialect::WsChat10 => Stage::Nameless,
            _ => Stage::Joined,
        };
    }

    /// Chooses a request: as a rule a handshake that succeeds.
    fn prepare_request(&mut self, choices: &mut Choices) {
        let (all, good) = (web::requests(self.dialect), web::handshakes(self.dialect));
        let kind = choices.below(16);
        let index = match kind {
            0..12 => choices.below(good),
            _ => choices.below(all.len()),
        };
        let request = &all[index];
        self.outgoing.clone_from(&request.head);
        if kind == 15 {
            // It does not wait for the answer.
            self.outgoing.extend(self.web_frame(TEXT, b"early"));
        }
        if let Answer::Upgrade(dialect, _) = request.answer {
            self.dialect = dialect;
        }
    }

    /// How wide the headers are that it sends; what has none is noise.
    pub const fn header_width(&self) -> usize {
        match self.dialect {
            Dialect::Chat10 | Dialect::WsChat10 => 10,
            Dialect::Chat64 | Dialect::Ack64 => 64,
            _ => 0,
        }
    }

    /// A message or a name of this length, like no other if it is long enough to be.
    pub fn payload(&mut self, len: usize) -> Vec<u8> {
        self.sent_count += 1;
        let tag = format!("{}.{}:", self.addr.port(), self.sent_count).into_bytes();
        let filler = (0..).map(|index| (index * 7 + self.sent_count) as u8);
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

    /// A client's frame, with a key of its own.
    pub fn web_frame(&self, first: u8, payload: &[u8]) -> Vec<u8> {
        let key = (self.sent_count as u32 + u32::from(self.addr.port())).wrapping_mul(0x9e37_79b9);
        web::client_frame(first, payload, key.to_be_bytes())
    }

    /// A name or a message of about this length in the frames of WebSocket, in one of the forms that are
    /// allowed.
    pub fn web_message(&mut self, len: usize, choices: &mut Choices) -> Vec<u8> {
        let is_name = self.stage == Stage::Nameless;
        if self.dialect == Dialect::WsChat10 {
            let payload = self.payload(len);
            let frame = self.frame(&payload, choices);
            return self.tunneled(&frame, is_name, choices);
        }
        let form = choices.below(8);
        if form > 4 {
            let payload = self.payload(len);
            return self.web_fragments(BINARY, &payload, form > 5, is_name, choices);
        }
        let payload = self.text(len);
        self.web_fragments(TEXT, payload.as_bytes(), form > 2, is_name, choices)
    }

    /// A frame with a decimal header in messages that are cut anywhere.
    fn tunneled(&self, frame: &[u8], is_name: bool, choices: &mut Choices) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut rest = frame;
        for _ in 0..choices.below(3) {
            let (piece, later) = rest.split_at(choices.below(rest.len() + 1));
            let is_cut = choices.below(4) == 1;
            sent.extend(self.web_fragments(BINARY, piece, is_cut, is_name, choices));
            rest = later;
        }
        sent.extend(self.web_fragments(BINARY, rest, false, is_name, choices));
        sent
    }

    /// A message in one frame, or in several with control frames between them. Before its name a peer sends
    /// no ping: whether that is answered depends on what the server has read with it.
    fn web_fragments(
        &self,
        first: u8,
        payload: &[u8],
        is_cut: bool,
        is_name: bool,
        choices: &mut Choices,
    ) -> Vec<u8> {
        if !is_cut {
            return self.web_frame(first, payload);
        }
        let mut sent = Vec::new();
        let (mut opcode, mut rest) = (first & 0xf, payload);
        for _ in 0..choices.between(1, 3) {
            let (fragment, later) = rest.split_at(choices.below(rest.len() + 1));
            sent.extend(self.web_frame(opcode, fragment));
            if !is_name && choices.below(2) == 1 {
                sent.extend(self.ping(choices));
            }
            (opcode, rest) = (0, later);
        }
        sent.extend(self.web_frame(CONTINUED, rest));
        sent
    }

    /// A ping, or a pong for which there was none.
    pub fn ping(&self, choices: &mut Choices) -> Vec<u8> {
        let len = match choices.below(16) {
            15 => 125,
            _ => choices.below(USUAL_PING),
        };
        let payload = vec![self.sent_count as u8; len];
        let first = choices.one_of(&[PING, PING, PING, PONG]);
        self.web_frame(first, &payload)
    }

    /// A Close frame that is allowed.
    pub fn close(&self, choices: &mut Choices) -> Vec<u8> {
        let payload = choices.one_of(&[
            &b""[..],
            b"\x03\xe8",
            b"\x03\xe9bye",
            b"\x0b\xb8caf\xc3\xa9",
        ]);
        self.web_frame(CLOSE, payload)
    }

    /// A frame that no client may send.
    pub fn bad_web_frame(&self, max_message: usize, choices: &mut Choices) -> Vec<u8> {
        let long = |len: u64| [&[BINARY, 0xff][..], &len.to_be_bytes(), b"key!"].concat();
        let over = web::max_message(self.dialect, max_message) as u64 + 1;
        match choices.below(14) {
            0 => web::server_frame(TEXT, b"unmasked"),
            1 => self.web_frame(0xc1, b"reserved bit"),
            2 => self.web_frame(0x83, b"reserved opcode"),
            3 => self.web_frame(CONTINUED, b"of nothing"),
            4 => [self.web_frame(0x01, b"a"), self.web_frame(TEXT, b"b")].concat(),
            5 => self.web_frame(0x09, b"fragmented ping"),
            6 => self.web_frame(PING, &[b'p'; 126]),
            7 => self.web_frame(CLOSE, b"\x03"),
            8 => self.web_frame(CLOSE, b"\x03\xed"),
            9 => self.web_frame(CLOSE, b"\x03\xe8\xff"),
            10 => long(1),
            11 => long(u64::MAX),
            12 => long(over.max(0x1_0000)),
            _ => self.web_frame(TEXT, b"\xed\xa0\x80"),
        }
    }

    /// A text that needs escapes, like no other if it is long enough to be.
    fn text(&mut self, len: usize) -> String {
        self.sent_count += 1;
        let mut text = format!("{}.{}:", self.addr.port(), self.sent_count);
        let alphabet = ['a', '"', 'é', '\\', 'b', '\u{1}', '🦀', '\n', '\u{7f}', ' '];
        let mut chars = alphabet
            .iter()
            .cycle()
            .skip(self.sent_count % alphabet.len());
        while text.len() < len
            && let Some(&char) = chars.next()
        {
            text.push(char);
        }
        while text.len() > len {
            text.pop();
        }
        let missing = len - text.len();
        text + &"x".repeat(missing)
    }
}
