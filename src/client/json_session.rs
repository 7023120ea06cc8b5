//! The objects that arrive over one WebSocket.

use std::io::{ErrorKind, Read};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::Deserialize;

use super::incoming::{Incoming, Received};
use super::session::{Disconnect, MAX_PAYLOAD, Progress, excerpt};
use crate::wire::FrameError;
use crate::wire::websocket::{Item, WebSocketDecoder};

/// The longest WebSocket message that is accepted from a server. A byte takes at most six in JSON, and two
/// more in hexadecimal; a name as long as the text is allowed for.
const MAX_OBJECT: usize = 16 * MAX_PAYLOAD;

/// The status code of a Close frame that has none (RFC 6455, 7.1.5).
pub(super) const NO_STATUS: u16 = 1005;

/// A `JsonSession` decodes the stream of a server behind the handshake: JSON objects in WebSocket messages.
#[derive(Debug)]
pub(super) struct JsonSession {
    decoder: WebSocketDecoder,
    /// The bytes that came with the response to the handshake.
    early: Vec<u8>,
    /// Whether an object of the chat has arrived.
    is_chat: bool,
}

/// An object as the server sends it. Keys that are not known are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    time: Option<Timestamp>,
    name: Option<String>,
    name_hex: Option<String>,
    message: Option<String>,
    message_hex: Option<String>,
    hello: Option<Hello>,
    ack: Option<u64>,
    paused: Option<bool>,
}

#[derive(Deserialize)]
struct Hello {
    #[serde(rename = "maxMessage")]
    max_message: usize,
}

impl JsonSession {
    /// Creates a session whose stream begins with these bytes, which were read already.
    pub(super) fn new(early: Vec<u8>) -> Self {
        Self {
            decoder: WebSocketDecoder::for_server_frames(),
            early,
            is_chat: false,
        }
    }

    /// Reads from `stream` once, into `scratch`, and passes each item that is complete by then to
    /// `on_item`.
    pub(super) fn receive(
        &mut self,
        stream: &mut impl Read,
        scratch: &mut [u8],
        mut on_item: impl FnMut(Incoming<'_>),
    ) -> Result<Progress, Disconnect> {
        let mut early = std::mem::take(&mut self.early);
        let mut input = if early.is_empty() {
            match stream.read(scratch) {
                Ok(0) if self.decoder.is_at_rest() => return Err(Disconnect::Closed),
                Ok(0) => return Err(Disconnect::CutShort),
                Ok(read) => &mut scratch[..read],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Progress::Drained);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Progress::More),
                Err(error) => return Err(Disconnect::Io(error)),
            }
        } else {
            &mut early[..]
        };
        loop {
            let item = self.decoder.decode(&mut input, MAX_OBJECT);
            match item.map_err(Disconnect::Protocol)? {
                None => return Ok(Progress::More),
                Some(Item::Message {
                    is_text: true,
                    payload,
                }) => {
                    let not_ours = if self.is_chat {
                        Disconnect::NotMessage
                    } else {
                        Disconnect::NotChat
                    };
                    read_object(payload, &mut on_item)
                        .ok_or_else(|| not_ours(excerpt(payload).to_vec()))?;
                    self.is_chat = true;
                }
                Some(Item::Message { .. }) => {
                    let binary = FrameError::WebSocket("a message that is not text");
                    return Err(Disconnect::Protocol(binary));
                }
                Some(Item::Ping(payload)) => on_item(Incoming::Ping(payload)),
                Some(Item::Pong) => {}
                Some(Item::Close(code, reason)) => {
                    let code = code.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Err(Disconnect::ClosedFor {
                        code: code.unwrap_or(NO_STATUS),
                        reason: reason.to_owned(),
                    });
                }
            }
        }
    }

    /// Whether an object of the chat has arrived.
    pub(super) const fn is_chat(&self) -> bool {
        self.is_chat
    }
}

/// Passes what an object has to `on_item`. `None` if it is no object of the chat.
fn read_object(json: &[u8], on_item: &mut impl FnMut(Incoming<'_>)) -> Option<()> {
    // An array would do for serde.
    let object = json.starts_with(b"{").then_some(json)?;
    let object: Object = serde_json::from_slice(object).ok()?;
    if let (Some(name), Some(text)) = (object.name, object.message) {
        let name = bytes(name, object.name_hex)?;
        let text = bytes(text, object.message_hex)?;
        on_item(Incoming::Message(Received {
            name: &name,
            text: &text,
            time: object.time,
        }));
    }
    if let Some(Hello { max_message }) = object.hello {
        on_item(Incoming::Joined { max_message });
    }
    if let Some(count) = object.ack {
        on_item(Incoming::Confirmed(count));
    }
    if let Some(paused) = object.paused {
        on_item(Incoming::Paused(paused));
    }
    Some(())
}

/// The bytes of a text, which has them in hexadecimal too if they are not UTF-8.
fn bytes(text: String, hex: Option<String>) -> Option<Vec<u8>> {
    match hex {
        None => Some(text.into_bytes()),
        Some(hex) => HEXLOWER.decode(hex.as_bytes()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::websocket::{self, Opcode};
    use std::io;

    /// A stream that yields one piece per read, and then its end.
    struct Pieces<'a>(Vec<&'a [u8]>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buf[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn receive_all(early: &[u8], pieces: Vec<&[u8]>) -> (Vec<String>, String) {
        let mut stream = Pieces(pieces);
        let mut session = JsonSession::new(early.to_vec());
        let mut items = Vec::new();
        loop {
            let received = session.receive(&mut stream, &mut [0; 4000], |item| {
                items.push(format!("{item:?}"));
            });
            if let Err(disconnect) = received {
                return (items, disconnect.to_string());
            }
        }
    }

    fn text(json: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        websocket::encode(Opcode::Text, json.as_bytes(), &mut frame);
        frame
    }

    #[test]
    fn stream_of_a_relay_cut_anywhere_is_its_items() {
        let mut close = Vec::new();
        websocket::encode_close(1001, "the relay stops", &mut close);
        let mut ping = Vec::new();
        websocket::encode(Opcode::Ping, b"?", &mut ping);
        let stream = [
            text(r#"{"time":"2026-11-27T23:50:01.123Z","name":"bob","message":"old"}"#),
            text(r#"{"hello":{"version":"0.1.0","maxName":256,"maxMessage":1024}}"#),
            ping,
            text(r#"{"ack":1}"#),
            text(r#"{"paused":true}"#),
            text(r#"{"a new":"kind of object"}"#),
            text(
                "{\"time\":\"2026-11-27T23:51:00.000Z\",\"name\":\"\u{fffd}\",\"name_hex\":\"ff\",\
                 \"message\":\"\\n\\u001b\\\"\\ud83d\\udc4b\"}",
            ),
            close,
        ]
        .concat();
        let time: Timestamp = "2026-11-27T23:50:01.123Z".parse().unwrap();
        let later: Timestamp = "2026-11-27T23:51:00Z".parse().unwrap();
        let expected = [
            Incoming::Message(Received {
                name: b"bob",
                text: b"old",
                time: Some(time),
            }),
            Incoming::Joined { max_message: 1024 },
            Incoming::Ping(b"?"),
            Incoming::Confirmed(1),
            Incoming::Paused(true),
            Incoming::Message(Received {
                name: b"\xff",
                text: "\n\u{1b}\"👋".as_bytes(),
                time: Some(later),
            }),
        ]
        .map(|item| format!("{item:?}"))
        .to_vec();
        let end = "the server closed the connection (1001: the relay stops)";
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            let (items, disconnect) = receive_all(left, vec![right]);
            assert_eq!(
                (items, disconnect.as_str()),
                (expected.clone(), end),
                "{at}"
            );
        }
        assert_eq!(receive_all(b"", stream.chunks(1).collect()).0, expected);
    }

    #[test]
    fn stream_that_is_none_of_a_relay_is_reported() {
        let hello = text(r#"{"hello":{"maxMessage":9}}"#);
        let chat = |more: &[u8]| [&hello[..], more].concat();
        let mut no_reason = Vec::new();
        websocket::encode(Opcode::Close, &[], &mut no_reason);
        for (stream, says) in [
            (Vec::new(), "the server closed the connection"),
            (chat(b""), "the server closed the connection"),
            (
                chat(b"\x81"),
                "closed the connection in the middle of a message",
            ),
            (chat(&no_reason), "the server closed the connection (1005)"),
            (
                text("hi\n"),
                r#"does not speak the chat protocol; it says "hi\n""#,
            ),
            (text("[]"), "does not speak the chat protocol"),
            (text(r#"{"ack":-1}"#), "does not speak the chat protocol"),
            (
                chat(&text("{")),
                r#"the server sent something that is no message: "{""#,
            ),
            (
                text(r#"{"name":"a","message":"b","message_hex":"f"}"#),
                "does not speak the chat protocol",
            ),
            (chat(b"\x82\x00"), "a message that is not text"),
            (chat(b"\x81\x80"), "a server's frame with a mask"),
            (chat(b"\x81\x01\xff"), "text that is not UTF-8"),
        ] {
            let (_, end) = receive_all(b"", vec![&stream]);
            assert!(end.ends_with(says) || end.contains(says), "{says}: {end}");
        }
        let all = receive_all(b"", vec![&text(&"[".repeat(3000))]);
        assert!(all.1.contains("does not speak the chat protocol"));
    }
}
