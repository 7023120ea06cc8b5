//! WebSocket frames (RFC 6455), of servers and of clients: one decoder, and the frames to send.
//!
//! A client masks each frame with a key of its own, a server masks none. So what is relayed is encoded
//! once for all members, like every other dialect.

use std::mem;

use super::FrameError;

/// The smallest frame of a client: two bytes and the masking key.
pub const MIN_CLIENT_FRAME: usize = 6;

/// The smallest frame of a server, which has no masking key.
const MIN_SERVER_FRAME: usize = MIN_CLIENT_FRAME - KEY_LEN;

/// The length of a masking key, in bytes.
const KEY_LEN: usize = 4;

/// The longest payload of a control frame, in bytes.
const MAX_CONTROL: usize = 125;

/// The longest header of a frame, in bytes.
pub const MAX_HEADER: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message that the last data frame began.
    Continuation,
    /// A message in UTF-8.
    Text,
    /// A message of any bytes.
    Binary,
    /// The end of the connection.
    Close,
    /// A question whether the peer is alive.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Which side sends the frames of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sender {
    /// A client, which must mask each frame.
    #[default]
    Client,
    /// A server, which must mask none.
    Server,
}

/// What the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A whole message, in however many frames it came.
    Message {
        /// Whether it was sent as text; it is valid UTF-8 then.
        is_text: bool,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// A ping, whose payload the pong must have.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// The end, with the payload that the answer must have, a status code or nothing, and with the reason
    /// that stands behind the code.
    Close(&'a [u8], &'a str),
}

/// The header of a frame that is being received.
#[derive(Clone, Copy, Debug)]
struct Head {
    is_final: bool,
    opcode: Opcode,
    key: [u8; KEY_LEN],
    len: usize,
}

/// An incremental decoder of one side's frames, as [`Decoder`](super::Decoder) is for frames with a
/// decimal header. The default is one for a client's frames.
///
/// A message that arrives whole in one frame is unmasked and yielded where it lies. Of anything else the
/// bytes so far are kept. Between messages it holds nothing and [is at rest](Self::is_at_rest): it need
/// not be kept.
#[derive(Debug, Default)]
pub struct WebSocketDecoder {
    sender: Sender,
    /// The header bytes so far, of a header that is not complete.
    header: [u8; MAX_HEADER],
    header_len: usize,
    /// The frame whose payload is being received, and how much of that has come.
    frame: Option<(Head, usize)>,
    /// The payload so far of a control frame that is not complete.
    control: Vec<u8>,
    /// The data so far of the message that is not complete.
    message: Vec<u8>,
    /// Whether that message is text; `None` between messages.
    is_text: Option<bool>,
    /// The message was yielded, and goes when the next item is asked for.
    is_yielded: bool,
}

impl WebSocketDecoder {
    /// A decoder for a server's frames.
    #[must_use]
    pub fn for_server_frames() -> Self {
        Self {
            sender: Sender::Server,
            ..Self::default()
        }
    }

    /// Whether the stream stands between two messages, so that a new decoder can go on in its place.
    #[must_use]
    pub const fn is_at_rest(&self) -> bool {
        let has_message = self.is_text.is_some() && !self.is_yielded;
        self.header_len == 0 && self.frame.is_none() && !has_message
    }

    /// How many bytes are missing from the header or the payload that is being received.
    #[must_use]
    pub fn missing(&self) -> usize {
        match self.frame {
            Some((head, received)) => head.len - received,
            None => self.min_frame().saturating_sub(self.header_len).max(1),
        }
    }

    /// How much memory it takes, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.message.capacity() + self.control.capacity()
    }

    /// The next item, or `None` when `input` is used up. `input` is moved past what was taken from it,
    /// and unmasked where it lies. `max_message` is the longest message to accept, in bytes, over all
    /// its frames.
    ///
    /// # Errors
    ///
    /// [`FrameError::WebSocket`] and [`FrameError::NotUtf8`] for what RFC 6455 does not allow, and
    /// [`FrameError::TooLong`] before any byte of the frame that is too long is kept. There is nothing
    /// left to do with the stream then but to close it.
    #[allow(clippy::mut_mut, reason = "the slice is moved forward")]
    pub fn decode<'d, 'i: 'd>(
        &'d mut self,
        input: &mut &'i mut [u8],
        max_message: usize,
    ) -> Result<Option<Item<'d>>, FrameError> {
        if mem::take(&mut self.is_yielded) {
            (self.message, self.is_text) = (Vec::new(), None);
        }
        loop {
            let (head, received) = match self.frame {
                Some(frame) => frame,
                None => match self.read_head(input, max_message)? {
                    None => return Ok(None),
                    Some(head) => (head, 0),
                },
            };
            let available = mem::take(input);
            let taken = available.len().min(head.len - received);
            let (payload, rest) = available.split_at_mut(taken);
            *input = rest;
            if self.sender == Sender::Client {
                mask(payload, head.key, received);
            }
            let payload = &*payload;
            let is_complete = received + taken == head.len;
            if is_complete && received == 0 {
                // All of the frame came at once.
                if head.opcode.is_control() {
                    self.frame = None;
                    return control_item(head.opcode, payload).map(Some);
                }
                if head.is_final && head.opcode != Opcode::Continuation {
                    (self.frame, self.is_text) = (None, None);
                    let is_text = head.opcode == Opcode::Text;
                    return message_item(is_text, payload).map(Some);
                }
            }
            let kept = if head.opcode.is_control() {
                &mut self.control
            } else {
                self.is_text.get_or_insert(head.opcode == Opcode::Text);
                &mut self.message
            };
            kept.extend_from_slice(payload);
            if !is_complete {
                self.frame = Some((head, received + taken));
                return Ok(None);
            }
            self.frame = None;
            if head.opcode.is_control() {
                // A message that it interrupts goes on after it.
                return control_item(head.opcode, &self.control).map(Some);
            }
            if head.is_final {
                self.is_yielded = true;
                let is_text = self.is_text.unwrap_or_default();
                return message_item(is_text, &self.message).map(Some);
            }
        }
    }

    /// Completes a header from `input`, if it can, and keeps what there is of it otherwise.
    #[allow(clippy::mut_mut, reason = "the slice is moved forward")]
    fn read_head(
        &mut self,
        input: &mut &mut [u8],
        max_message: usize,
    ) -> Result<Option<Head>, FrameError> {
        while !input.is_empty() {
            if let Some(len) = self.header_size()
                && self.header_len == len
            {
                break;
            }
            self.header[self.header_len] = input[0];
            self.header_len += 1;
            *input = &mut mem::take(input)[1..];
            if self.header_len <= 2 {
                self.check_start()?;
            }
        }
        if self.header_size() != Some(self.header_len) {
            return Ok(None);
        }
        let head = self.parse_head(max_message)?;
        self.header_len = 0;
        if head.opcode.is_control() {
            self.control.clear();
        }
        Ok(Some(head))
    }

    /// How long the header is, once its second byte has come.
    fn header_size(&self) -> Option<usize> {
        if self.header_len < 2 {
            return None;
        }
        let longer = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        Some(self.min_frame() + longer)
    }

    const fn min_frame(&self) -> usize {
        match self.sender {
            Sender::Client => MIN_CLIENT_FRAME,
            Sender::Server => MIN_SERVER_FRAME,
        }
    }

    /// Checks the first two bytes of a header, as far as they have come.
    fn check_start(&self) -> Result<(), FrameError> {
        let [first, second] = [self.header[0], self.header[1]];
        if first & 0x70 != 0 {
            return Err(FrameError::WebSocket("a reserved bit is set"));
        }
        let Some(opcode) = Opcode::from_bits(first & 0xf) else {
            return Err(FrameError::WebSocket("an unknown opcode"));
        };
        let is_final = first & 0x80 != 0;
        match (opcode, self.is_text) {
            (Opcode::Continuation, None) => {
                return Err(FrameError::WebSocket("a continuation of no message"));
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(FrameError::WebSocket("a message inside another one"));
            }
            _ if opcode.is_control() && !is_final => {
                return Err(FrameError::WebSocket("a fragmented control frame"));
            }
            _ => {}
        }
        if self.header_len == 2 {
            match (self.sender, second & 0x80 != 0) {
                (Sender::Client, false) => {
                    return Err(FrameError::WebSocket("a frame without a mask"));
                }
                (Sender::Server, true) => {
                    return Err(FrameError::WebSocket("a server's frame with a mask"));
                }
                _ => {}
            }
            if opcode.is_control() && usize::from(second & 0x7f) > MAX_CONTROL {
                return Err(FrameError::WebSocket("a control frame that is too long"));
            }
        }
        Ok(())
    }

    /// Parses a header that is complete.
    fn parse_head(&self, max_message: usize) -> Result<Head, FrameError> {
        let header = &self.header[..self.header_len];
        let (lengths, key) = match self.sender {
            Sender::Client => header[1..].split_at(header.len() - 1 - KEY_LEN),
            Sender::Server => (&header[1..], &[0; KEY_LEN][..]),
        };
        let len = match lengths {
            [len] => u64::from(len & 0x7f),
            [_, long @ ..] => long.iter().fold(0, |len, &byte| len << 8 | u64::from(byte)),
            [] => 0,
        };
        let shortest = match lengths.len() {
            1 => 0,
            3 => 126,
            _ => 1 << 16,
        };
        if len < shortest || len >> 63 != 0 {
            return Err(FrameError::WebSocket(
                "a length that is not in its shortest form",
            ));
        }
        let opcode = Opcode::from_bits(header[0] & 0xf).unwrap_or(Opcode::Close);
        let before = if opcode.is_control() {
            0
        } else {
            self.message.len()
        };
        let total = len.saturating_add(before as u64);
        if !opcode.is_control() && total > max_message as u64 {
            let (len, max) = (total, max_message);
            return Err(FrameError::TooLong { len, max });
        }
        Ok(Head {
            is_final: header[0] & 0x80 != 0,
            opcode,
            key: [key[0], key[1], key[2], key[3]],
            len: len as usize,
        })
    }
}

/// Masks a part of a payload that begins at this offset of it, or takes the mask off.
pub fn mask(part: &mut [u8], mut key: [u8; 4], offset: usize) {
    key.rotate_left(offset % 4);
    let mut words = part.chunks_exact_mut(8);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

fn message_item(is_text: bool, payload: &[u8]) -> Result<Item<'_>, FrameError> {
    if is_text && str::from_utf8(payload).is_err() {
        return Err(FrameError::NotUtf8);
    }
    Ok(Item::Message { is_text, payload })
}

fn control_item(opcode: Opcode, payload: &[u8]) -> Result<Item<'_>, FrameError> {
    match opcode {
        Opcode::Ping => return Ok(Item::Ping(payload)),
        Opcode::Pong => return Ok(Item::Pong),
        _ => {}
    }
    let Some((code, reason)) = payload.split_at_checked(2) else {
        return match payload {
            [] => Ok(Item::Close(&[], "")),
            _ => Err(FrameError::WebSocket("half of a status code")),
        };
    };
    // RFC 6455, 7.4, and the registry that it began.
    let code_number = u16::from_be_bytes([code[0], code[1]]);
    if !matches!(code_number, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(FrameError::WebSocket("a status code that must not be sent"));
    }
    let reason = str::from_utf8(reason).map_err(|_| FrameError::NotUtf8)?;
    Ok(Item::Close(code, reason))
}

/// Appends the header of a server's frame with a payload of this length.
pub fn encode_header(opcode: Opcode, len: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode.bits());
    match len {
        0..=125 => out.push(len as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Appends a server's frame.
pub fn encode(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    encode_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a client's frame, with its payload masked by this key. RFC 6455 asks for a key that is hard to
/// guess, and for another one in each frame: the caller has the source of chance.
pub fn encode_masked(opcode: Opcode, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    let start = out.len();
    encode_header(opcode, payload.len(), out);
    out[start + 1] |= 0x80;
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], key, 0);
}

/// Appends a server's frame that ends the connection, with as much of the reason as fits.
pub fn encode_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let mut fits = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(fits) {
        fits -= 1;
    }
    encode_header(Opcode::Close, 2 + fits, out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..fits]);
}

/// Appends a server's frame whose payload is written by a function, since its length is known only then.
pub fn encode_with(opcode: Opcode, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    // Room for the header of a payload of less than 64 KiB; as a rule that is one of 126 bytes or more.
    const RESERVED: usize = 4;
    let start = out.len();
    out.extend_from_slice(&[0; RESERVED]);
    write(out);
    let len = out.len() - start - RESERVED;
    let mut header = Vec::with_capacity(MAX_HEADER);
    encode_header(opcode, len, &mut header);
    out.splice(start..start + RESERVED, header);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{self, Read, Write};
    use tungstenite::protocol::{Role, WebSocket};

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_masked(Opcode::Text, payload, KEY, &mut bytes);
        bytes[0] = first;
        bytes
    }

    fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(Opcode::Text, payload, &mut bytes);
        bytes[0] = first;
        bytes
    }

    /// What a stream is decoded to if it comes in pieces of these sizes, and whether it then is at rest.
    fn decode(stream: &[u8], sizes: &[usize], max: usize) -> (Vec<String>, bool) {
        decode_by(WebSocketDecoder::default, stream, sizes, max)
    }

    fn decode_by(
        new: fn() -> WebSocketDecoder,
        stream: &[u8],
        sizes: &[usize],
        max: usize,
    ) -> (Vec<String>, bool) {
        let mut decoder = new();
        let mut items = Vec::new();
        let (mut rest, mut sizes) = (stream.to_vec(), sizes.iter().cycle());
        while !rest.is_empty() {
            let size = sizes
                .next()
                .map_or(rest.len(), |&size| size.clamp(1, rest.len()));
            let later = rest.split_off(size);
            let mut input = &mut rest[..];
            loop {
                match decoder.decode(&mut input, max) {
                    Ok(None) => break,
                    Ok(Some(item)) => items.push(format!("{item:?}")),
                    Err(error) => {
                        items.push(error.to_string());
                        return (items, true);
                    }
                }
            }
            if decoder.is_at_rest() {
                // Nothing is lost with it.
                decoder = new();
            }
            rest = later;
        }
        (items, decoder.is_at_rest())
    }

    fn item(item: &Item<'_>) -> String {
        format!("{item:?}")
    }

    fn text(payload: &str) -> String {
        let payload = payload.as_bytes();
        item(&Item::Message {
            is_text: true,
            payload,
        })
    }

    #[test]
    fn example_of_the_rfc_is_decoded() {
        // RFC 6455, 5.7: a single-frame masked text message.
        let hello = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(frame(0x81, b"Hello"), hello);
        assert_eq!(decode(&hello, &[], 5), (vec![text("Hello")], true));
    }

    #[test]
    fn message_in_fragments_with_a_ping_between_is_one_message_after_the_ping() {
        let stream = [
            frame(0x01, b"Hel"),
            frame(0x89, b"are you there"),
            frame(0x00, b""),
            frame(0x80, b"lo"),
            frame(0x8a, b"unasked"),
            frame(0x82, b"\xff"),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let expected = vec![
            item(&Item::Ping(b"are you there")),
            text("Hello"),
            item(&Item::Pong),
            item(&Item::Message {
                is_text: false,
                payload: b"\xff",
            }),
            item(&Item::Close(&[0x03, 0xe8], "bye")),
        ];
        for size in 1..stream.len() {
            assert_eq!(
                decode(&stream, &[size], 5),
                (expected.clone(), true),
                "{size}"
            );
        }
    }

    #[test]
    fn frames_of_a_server_cut_anywhere_are_decoded_without_a_mask() {
        let long = "é".repeat(40_000);
        let stream = [
            server_frame(0x81, b"Hello"),
            server_frame(0x01, b"Hel"),
            server_frame(0x89, b"are you there"),
            server_frame(0x80, b"lo"),
            server_frame(0x82, &[7; 126]),
        ];
        let expected = vec![
            text("Hello"),
            item(&Item::Ping(b"are you there")),
            text("Hello"),
            item(&Item::Message {
                is_text: false,
                payload: &[7; 126],
            }),
        ];
        let decode = |stream: &[u8], sizes: &[usize]| {
            decode_by(WebSocketDecoder::for_server_frames, stream, sizes, 80_000)
        };
        let messages = stream.concat();
        for size in 1..=messages.len() {
            assert_eq!(decode(&messages, &[size]), (expected.clone(), true));
        }
        let large = server_frame(0x81, long.as_bytes());
        for size in [1, 9, 10, 11, 79_999, 80_000, 80_010] {
            assert_eq!(decode(&large, &[size]), (vec![text(&long)], true));
        }
        let closed = item(&Item::Close(&[3, 0xe9], "the relay stops"));
        let close = server_frame(0x88, b"\x03\xe9the relay stops");
        for size in 1..=close.len() {
            assert_eq!(decode(&close, &[size]), (vec![closed.clone()], true));
        }
        for (bytes, says) in [
            (frame(0x81, b"Hello"), "a server's frame with a mask"),
            (vec![0x91], "a reserved bit is set"),
            (vec![0x81, 126, 0, 125], "shortest form"),
            (
                vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0x38, 0x81],
                "announced 80001 bytes",
            ),
        ] {
            let (items, _) = decode(&bytes, &[1]);
            assert!(items.last().unwrap().contains(says), "{says}: {items:?}");
        }
    }

    #[test]
    fn stream_that_ends_inside_anything_is_not_at_rest() {
        let stream = [frame(0x01, b"ab"), frame(0x80, b"cd")].concat();
        for end in 1..stream.len() {
            assert!(!decode(&stream[..end], &[], 9).1, "{end}");
        }
        assert!(decode(&stream, &[], 9).1);
    }

    #[test]
    fn frame_that_the_rfc_forbids_is_refused_at_the_byte_that_says_so() {
        let long = |first: u8, len: &[u8]| [&[first][..], len, &KEY].concat();
        for (stream, says) in [
            (vec![0xc1], "a reserved bit is set"),
            (vec![0x83], "an unknown opcode"),
            (vec![0x80], "a continuation of no message"),
            (
                [frame(0x01, b""), vec![0x81]].concat(),
                "a message inside another one",
            ),
            (vec![0x09], "a fragmented control frame"),
            (vec![0x81, 0x05], "a frame without a mask"),
            (vec![0x89, 0xfe], "a control frame that is too long"),
            (long(0x81, &[0xfe, 0, 125]), "shortest form"),
            (
                long(0x81, &[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
                "shortest form",
            ),
            (
                long(0x82, &[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
                "shortest form",
            ),
            (frame(0x88, b"\x03"), "half of a status code"),
            (
                frame(0x88, b"\x03\xed"),
                "a status code that must not be sent",
            ),
            (frame(0x88, b"\x03\xe8\xff"), "not UTF-8"),
            (frame(0x81, b"\xed\xa0\x80"), "not UTF-8"),
            (
                frame(0x82, b"123456"),
                "announced 6 bytes where 5 are the limit",
            ),
            (
                [frame(0x02, b"123"), frame(0x80, b"456")].concat(),
                "announced 6 bytes",
            ),
        ] {
            let (items, _) = decode(&stream, &[1], 5);
            let last = items.last().unwrap();
            assert!(last.contains(says), "{says}: {last}");
        }
    }

    #[test]
    fn message_that_came_whole_is_not_copied_and_a_kept_one_is_given_back() {
        let mut decoder = WebSocketDecoder::default();
        let mut stream = frame(0x82, &vec![7; 100_000]);
        let mut input = &mut stream[..];
        assert!(decoder.decode(&mut input, 100_000).unwrap().is_some());
        assert_eq!(
            (decoder.held_bytes(), decoder.is_at_rest()),
            (size_of_val(&decoder), true)
        );
        let mut stream = frame(0x82, &[7; 1000]);
        let (mut first, mut second) = stream.split_at_mut(600);
        assert_eq!(decoder.decode(&mut first, 1000).unwrap(), None);
        assert_eq!(decoder.missing(), 408);
        assert!(decoder.held_bytes() >= 592 && !decoder.is_at_rest());
        assert!(decoder.decode(&mut second, 1000).unwrap().is_some());
        assert!(decoder.is_at_rest());
        assert_eq!(decoder.decode(&mut second, 1000).unwrap(), None);
        assert_eq!(decoder.held_bytes(), size_of_val(&decoder));
    }

    #[test]
    fn server_frames_have_the_shortest_header_however_they_are_written() {
        for (len, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (0xffff, vec![0x81, 126, 0xff, 0xff]),
            (0x1_0000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![b'x'; len];
            let (mut at_once, mut written) = (b"<".to_vec(), b"<".to_vec());
            encode(Opcode::Text, &payload, &mut at_once);
            encode_with(Opcode::Text, &mut written, |out| {
                out.extend_from_slice(&payload);
            });
            assert_eq!(at_once, [b"<", &header[..], &payload].concat());
            assert!(at_once == written, "{len}");
        }
        let mut close = Vec::new();
        encode_close(1008, &"é".repeat(100), &mut close);
        assert_eq!((close[1], close.len()), (2 + 122, 2 + 2 + 122));
        assert!(str::from_utf8(&close[4..]).is_ok());
    }

    /// A stream in memory.
    #[derive(Default)]
    struct Wire {
        input: io::Cursor<Vec<u8>>,
        output: Vec<u8>,
    }

    impl Read for Wire {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.input.read(buf)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                read => Ok(read),
            }
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A message, a ping or a pong.
    fn theirs() -> impl Strategy<Value = tungstenite::Message> {
        let bytes = |len| prop::collection::vec(any::<u8>(), 0..len);
        prop_oneof![
            ".{0,100}".prop_map(tungstenite::Message::from),
            bytes(70_000).prop_map(tungstenite::Message::from),
            bytes(300).prop_map(tungstenite::Message::from),
            bytes(126).prop_map(|ping| tungstenite::Message::Ping(ping.into())),
            bytes(126).prop_map(|pong| tungstenite::Message::Pong(pong.into())),
        ]
    }

    fn their_item(message: &tungstenite::Message) -> String {
        item(&match message {
            tungstenite::Message::Text(text) => Item::Message {
                is_text: true,
                payload: text.as_bytes(),
            },
            tungstenite::Message::Binary(payload) => Item::Message {
                is_text: false,
                payload,
            },
            tungstenite::Message::Ping(payload) => Item::Ping(payload),
            _ => Item::Pong,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn frames_of_another_server_are_decoded_to_its_messages(
            messages in prop::collection::vec(theirs(), 0..6),
            sizes in prop::collection::vec(1_usize..2000, 1..9),
        ) {
            let mut server = WebSocket::from_raw_socket(Wire::default(), Role::Server, None);
            for message in &messages {
                server.send(message.clone()).unwrap();
            }
            server.close(None).unwrap();
            let stream = &server.get_ref().output;
            let expected: Vec<_> = messages.iter().map(their_item).chain([item(&Item::Close(&[], ""))]).collect();
            let decoded = decode_by(WebSocketDecoder::for_server_frames, stream, &sizes, 70_000);
            prop_assert_eq!(decoded, (expected, true));
        }

        #[test]
        fn masked_frames_are_decoded_by_another_server(
            messages in prop::collection::vec(theirs(), 0..6),
            key in any::<[u8; 4]>(),
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                let opcode = match message {
                    tungstenite::Message::Text(_) => Opcode::Text,
                    tungstenite::Message::Binary(_) => Opcode::Binary,
                    tungstenite::Message::Ping(_) => Opcode::Ping,
                    _ => Opcode::Pong,
                };
                encode_masked(opcode, &message.clone().into_data(), key, &mut stream);
            }
            let wire = Wire { input: io::Cursor::new(stream), output: Vec::new() };
            let mut server = WebSocket::from_raw_socket(wire, Role::Server, None);
            for message in messages {
                prop_assert_eq!(server.read().unwrap(), message);
            }
            prop_assert!(server.read().is_err());
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_any_stream_gives_the_same_items(
            is_server in any::<bool>(),
            frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            sizes in prop::collection::vec(1_usize..20, 1..9),
        ) {
            // Mostly frames that mean something.
            let stream: Vec<u8> = frames
                .iter()
                .flat_map(|(first, payload)| {
                    let frame = if is_server { server_frame } else { frame };
                    frame(first & 0x8f, payload)
                })
                .collect();
            let new = if is_server { WebSocketDecoder::for_server_frames } else { WebSocketDecoder::default };
            prop_assert_eq!(decode_by(new, &stream, &[], 1000), decode_by(new, &stream, &sizes, 1000));
        }
    }
}
