//! WebSocket frames of a client, cut anywhere: the decoder that takes the pieces as they come returns what
//! it returns for the whole stream, and what tungstenite reads there.
//!
//! The first byte is the limit of a message, four more are the sizes of the pieces, in turn; the rest is the
//! stream.
//!
//!     mkdir -p fuzz/corpus/websocket
//!     cargo +nightly fuzz run websocket fuzz/corpus/websocket fuzz/seeds/websocket

#![no_main]

use std::io::{self, Read, Write};

use chatloop::wire::FrameError;
use chatloop::wire::websocket::{Item, WebSocketDecoder};
use chatloop_fuzz::pieces;
use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

fuzz_target!(|data: &[u8]| {
    let Some((&[max, ref sizes @ ..], stream)) = data.split_first_chunk::<5>() else {
        return;
    };
    let max = usize::from(max);
    let whole = decode(&[stream], max);
    for pieces in [
        pieces(stream, *sizes).collect(),
        stream.chunks(1).collect::<Vec<_>>(),
    ] {
        let cut = decode(&pieces, max);
        assert_eq!(cut, whole, "in {} pieces", pieces.len());
    }
    compare(&whole, &read_with_tungstenite(stream, max));
});

/// What a stream comes to.
#[derive(Debug, PartialEq, Eq)]
struct Reading<E> {
    items: Vec<Received>,
    end: E,
}

#[derive(Debug, PartialEq, Eq)]
enum Received {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    /// With the status code, if it has one.
    Close(Option<u16>),
}

impl Received {
    const fn is_control(&self) -> bool {
        !matches!(self, Self::Text(_) | Self::Binary(_))
    }
}

/// How the decoder's stream ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    BetweenMessages,
    InsideMessage,
    Closed,
    Refused(FrameError),
}

/// How tungstenite's stream ends.
#[derive(Debug, PartialEq, Eq)]
enum TheirEnd {
    OfInput,
    Closed,
    Refused,
    NotUtf8,
}

fn decode(pieces: &[&[u8]], max: usize) -> Reading<End> {
    let mut decoder = WebSocketDecoder::default();
    let mut items = Vec::new();
    let mut received = 0;
    for piece in pieces {
        received += piece.len();
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            let item = match decoder.decode(&mut input, max) {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(error) => {
                    let end = End::Refused(error);
                    return Reading { items, end };
                }
            };
            items.push(match item {
                Item::Message { is_text, payload } => {
                    assert!(payload.len() <= max);
                    if is_text {
                        Received::Text(payload.to_vec())
                    } else {
                        Received::Binary(payload.to_vec())
                    }
                }
                Item::Ping(payload) => Received::Ping(payload.to_vec()),
                Item::Pong => Received::Pong,
                Item::Close(code, _) => {
                    let code = code.first_chunk().map(|&code| u16::from_be_bytes(code));
                    items.push(Received::Close(code));
                    let end = End::Closed;
                    return Reading { items, end };
                }
            });
        }
        assert!(input.is_empty(), "all input is used up");
        assert!(decoder.missing() > 0);
        // No memory is allocated for bytes that are only announced.
        let grown = decoder.held_bytes() - size_of_val(&decoder);
        assert!(grown <= 2 * received + 32, "{grown} of {received}");
    }
    let end = if decoder.is_at_rest() {
        End::BetweenMessages
    } else {
        End::InsideMessage
    };
    Reading { items, end }
}

/// A peer that sends a stream, and receives anything.
struct Peer<'a>(&'a [u8]);

impl Read for Peer<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_with_tungstenite(stream: &[u8], max: usize) -> Reading<TheirEnd> {
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .max_message_size(Some(max))
        // It allocates what a header announces. A control frame has its own limit.
        .max_frame_size(Some(max.max(125)));
    let mut socket = WebSocket::from_raw_socket(Peer(stream), Role::Server, Some(config));
    let mut items = Vec::new();
    let end = loop {
        items.push(match socket.read() {
            Ok(Message::Text(text)) => Received::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Received::Binary(bytes.to_vec()),
            Ok(Message::Ping(payload)) => Received::Ping(payload.to_vec()),
            Ok(Message::Pong(_)) => Received::Pong,
            Ok(Message::Close(frame)) => {
                items.push(Received::Close(frame.map(|frame| frame.code.into())));
                break TheirEnd::Closed;
            }
            Ok(Message::Frame(_)) => unreachable!("is never read"),
            Err(Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => break TheirEnd::OfInput,
            Err(Error::Utf8(_)) => break TheirEnd::NotUtf8,
            Err(_) => break TheirEnd::Refused,
        });
    };
    Reading { items, end }
}

/// Both readers must agree but where tungstenite is known to differ.
fn compare(ours: &Reading<End>, theirs: &Reading<TheirEnd>) {
    let show = || format!("ours {ours:?}\ntheirs {theirs:?}");
    let common = ours.items.len().min(theirs.items.len());
    if let End::Refused(FrameError::WebSocket(
        "a length that is not in its shortest form"
        | "a control frame that is too long"
        | "a status code that must not be sent",
    )) = ours.end
    {
        // It allows a short length in a long form, of which control frames have none. It answers the
        // status code with a Close frame of its own.
        let (first, second) = (&ours.items[..common], &theirs.items[..common]);
        assert_eq!(first, second, "{}", show());
        let mut rest = ours.items[common..].iter();
        let is_ahead = theirs.end == TheirEnd::NotUtf8 && rest.all(Received::is_control);
        assert!(is_ahead || common == ours.items.len(), "{}", show());
        return;
    }
    if theirs.end == TheirEnd::NotUtf8 {
        // It checks each fragment of a text, the decoder the whole text: until the text is complete,
        // there may be control frames.
        assert_eq!(theirs.items, ours.items[..common], "{}", show());
        let mut rest = ours.items[common..].iter();
        assert!(rest.all(Received::is_control), "{}", show());
        assert_ne!(ours.end, End::BetweenMessages, "{}", show());
        return;
    }
    match &ours.end {
        End::BetweenMessages | End::InsideMessage => {
            assert_eq!(theirs.end, TheirEnd::OfInput, "{}", show());
            assert_eq!(theirs.items, ours.items, "{}", show());
        }
        End::Closed => {
            assert_eq!(theirs.end, TheirEnd::Closed, "{}", show());
            let (close, before) = ours.items.split_last().expect("the Close frame");
            let (their_close, theirs_before) = theirs.items.split_last().expect("the Close frame");
            assert_eq!(theirs_before, before, "{}", show());
            // It does not know 1014 (Bad Gateway), which was registered later.
            if *close != Received::Close(Some(1014)) {
                assert_eq!(their_close, close, "{}", show());
            }
        }
        End::Refused(_) => {
            // The decoder refuses a header at the first byte that is wrong, tungstenite when the whole
            // frame was received.
            assert_ne!(theirs.end, TheirEnd::Closed, "{}", show());
            assert_eq!(theirs.items, ours.items, "{}", show());
        }
    }
}
