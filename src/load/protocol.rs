//! The protocols of the servers that can be measured: what a client sends, and what it receives.
//! No I/O.
//!
//! Beside the relay's own protocols there are those of other servers that relay messages, so that
//! one program can measure them all on the same work. Only what the measuring needs is here.

use std::io::Write;

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::handshake::Target;
use crate::wire::websocket::{self, Opcode};
use crate::wire::{encode_frame, header};

/// The protocol of a server. Its name is what an address has before its `://`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(ascii_case_insensitive, serialize_all = "kebab-case")]
pub enum Protocol {
    /// The tutorials' chat with ten-byte headers. A sender does not receive its own messages.
    #[default]
    Chat10,
    /// Redis publish/subscribe, as RESP2. A subscriber cannot publish, so senders have connections
    /// of their own. See <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
    Redis,
    /// MQTT 3.1.1 at QoS 0. A subscriber receives its own messages, so senders have connections of
    /// their own. See <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>.
    Mqtt,
    /// NATS core. Messages have no sender, so senders have connections of their own, as a broker's.
    /// See <https://docs.nats.io/reference/reference-protocols/nats-protocol>.
    Nats,
    /// The relay's dialect for browsers: JSON in WebSocket messages. Its frames are compared as they are,
    /// like those of the other protocols.
    Ws,
    /// The tutorials' chat through a WebSocket, as a tunnel.
    WsChat10,
    /// MQTT through a WebSocket, as a tunnel: section 6 of its standard.
    WsMqtt,
    /// NATS through a WebSocket, as a tunnel.
    WsNats,
}

/// What a connection is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It receives, and in a chat it sends as well.
    Member(u32),
    /// It only sends: a broker's publisher.
    Sender(u32),
}

/// Something that a server sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    /// A message, with its sender's name if the protocol has that.
    Message {
        name: Option<&'a [u8]>,
        payload: &'a [u8],
    },
    /// It has taken the connection in.
    Welcome,
    /// It asks whether this side is alive.
    Ping,
    /// Anything else that is in order, such as the answer to a PUBLISH.
    Aside,
}

/// The server sent what its protocol does not have, or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// Why nothing was taken from the input.
enum Stop {
    /// It is not all there.
    Incomplete,
    Garbled,
}

/// A part of what a server sent.
type Part<T> = Result<T, Stop>;

/// The longest payload that is taken for one, in bytes.
const MAX_PAYLOAD: u64 = 64 * 1024 * 1024;

impl Protocol {
    /// Whether the bytes of the protocol are in the payloads of WebSocket frames.
    pub(super) const fn is_tunnel(self) -> bool {
        matches!(self, Self::WsChat10 | Self::WsMqtt | Self::WsNats)
    }

    /// Whether it begins with a WebSocket.
    #[must_use]
    pub const fn is_web_socket(self) -> bool {
        self.is_tunnel() || matches!(self, Self::Ws)
    }

    /// The WebSocket that is opened before the first byte of the protocol, if it needs one.
    pub(super) fn web_socket(self, host: String) -> Option<Target> {
        let (path, protocol) = match self {
            Self::Chat10 | Self::Redis | Self::Mqtt | Self::Nats => return None,
            Self::Ws => ("/", Some("chatloop.json")),
            Self::WsChat10 => ("/", Some("chat10")),
            Self::WsMqtt => ("/mqtt", Some("mqtt")),
            Self::WsNats => ("/", None),
        };
        Some(Target {
            host,
            path: path.to_owned(),
            protocol,
            credentials: None,
        })
    }

    /// Whether it is a broker's: senders need connections of their own, and the server answers when it
    /// has taken a connection in.
    pub(super) const fn is_broker(self) -> bool {
        !matches!(self, Self::Chat10 | Self::Ws | Self::WsChat10)
    }

    /// Whether the server sends messages from before a member joined, and then that it has joined.
    pub(super) const fn has_history(self) -> bool {
        matches!(self, Self::Ws)
    }

    /// Appends the first bytes of a connection. `tag` distinguishes this run's members and channel
    /// from others.
    pub(super) fn join(self, role: Role, tag: &str, out: &mut Vec<u8>) {
        match (self, role) {
            (Self::Chat10 | Self::WsChat10, Role::Member(index) | Role::Sender(index)) => {
                encode_frame(name_of(index, tag).as_bytes(), out);
            }
            (Self::Ws, Role::Member(index) | Role::Sender(index)) => {
                masked(Opcode::Text, name_of(index, tag).as_bytes(), out);
            }
            (Self::Redis, Role::Member(_)) => resp(&[b"SUBSCRIBE", channel(tag).as_bytes()], out),
            (Self::Redis, Role::Sender(_)) => resp(&[b"PING"], out),
            (Self::Mqtt | Self::WsMqtt, Role::Member(index)) => {
                mqtt_connect('m', index, tag, out);
                let topic = channel(tag);
                // Packet 1, one topic, QoS 0.
                let body = [&[0, 1][..], &mqtt_text(&topic), &[0]].concat();
                mqtt_packet(0x82, &[&body], out);
            }
            (Self::Mqtt | Self::WsMqtt, Role::Sender(index)) => {
                mqtt_connect('s', index, tag, out);
                // PINGREQ, so that there is an answer to wait for that a member's CONNACK is not.
                mqtt_packet(0xc0, &[], out);
            }
            (Self::Nats | Self::WsNats, role) => {
                out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
                if let Role::Member(_) = role {
                    // Writing to a vector does not fail.
                    let _ = write!(out, "SUB {} 1\r\n", channel(tag));
                }
                // Its answer shows that the subscription is there as well.
                out.extend_from_slice(b"PING\r\n");
            }
        }
    }

    /// Appends a message.
    pub(super) fn queue(self, payload: &[u8], tag: &str, out: &mut Vec<u8>) {
        match self {
            Self::Chat10 | Self::WsChat10 => encode_frame(payload, out),
            Self::Ws => masked(Opcode::Text, payload, out),
            Self::Redis => resp(&[b"PUBLISH", channel(tag).as_bytes(), payload], out),
            Self::Mqtt | Self::WsMqtt => {
                mqtt_packet(0x30, &[&mqtt_text(&channel(tag)), payload], out);
            }
            Self::Nats | Self::WsNats => {
                let _ = write!(out, "PUB {} {}\r\n", channel(tag), payload.len());
                out.extend_from_slice(payload);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Appends the answer to a [ping](Incoming::Ping). Pings of a tunnel are not the protocol's.
    pub(super) fn pong(self, out: &mut Vec<u8>) {
        match self {
            Self::Ws => masked(Opcode::Pong, &[], out),
            Self::Nats | Self::WsNats => out.extend_from_slice(b"PONG\r\n"),
            _ => {}
        }
    }

    /// Takes the first thing that a server sent, if all of it is there. Returns it and its length.
    ///
    /// # Errors
    ///
    /// If the server sent what its protocol does not have, or refused.
    pub(super) fn next(self, input: &[u8]) -> Result<Option<(Incoming<'_>, usize)>, Garbled> {
        let mut rest = input;
        let taken = match self {
            Self::Chat10 | Self::WsChat10 => chat10(&mut rest),
            Self::Ws => ws(&mut rest),
            Self::Redis => redis(&mut rest),
            Self::Mqtt | Self::WsMqtt => mqtt(&mut rest),
            Self::Nats | Self::WsNats => nats(&mut rest),
        };
        match taken {
            Ok(incoming) => Ok(Some((incoming, input.len() - rest.len()))),
            Err(Stop::Incomplete) => Ok(None),
            Err(Stop::Garbled) => Err(Garbled),
        }
    }
}

/// A member's name in the chat: ten bytes, about as long as usual names.
pub(super) fn name_of(index: u32, tag: &str) -> String {
    format!("{tag}-{index:06}")
}

/// The index of the member with this name, if it is one of this run's.
pub(super) fn index_of(name: &[u8], tag: &str) -> Option<u32> {
    let digits = name.strip_prefix(tag.as_bytes())?.strip_prefix(b"-")?;
    number(digits).filter(|_| digits.len() >= 6)
}

/// Parses a number of digits and nothing else.
pub(super) fn number(digits: &[u8]) -> Option<u32> {
    // A sign is the one thing that the parser takes and that is no digit.
    let is_number = digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .filter(|_| is_number)
}

/// Where a broker's members meet.
fn channel(tag: &str) -> String {
    format!("load-{tag}")
}

/// Takes so many bytes.
fn take<'a>(input: &mut &'a [u8], len: usize) -> Part<&'a [u8]> {
    input.split_off(..len).ok_or(Stop::Incomplete)
}

fn length(len: Option<u64>) -> Part<usize> {
    let len = len.filter(|&len| len <= MAX_PAYLOAD);
    len.map(|len| len as usize).ok_or(Stop::Garbled)
}

fn chat10<'a>(input: &mut &'a [u8]) -> Part<Incoming<'a>> {
    Ok(Incoming::Message {
        name: Some(frame(input)?),
        payload: frame(input)?,
    })
}

/// Takes a frame's payload.
fn frame<'a>(input: &mut &'a [u8]) -> Part<&'a [u8]> {
    let len = length(header::parse(take(input, header::WIDTH)?))?;
    take(input, len)
}

/// Appends a client's WebSocket frame.
pub(super) fn masked(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    websocket::encode_masked(opcode, payload, fastrand::u32(..).to_ne_bytes(), out);
}

/// Takes a WebSocket frame. The relay sends each message in one.
fn ws<'a>(input: &mut &'a [u8]) -> Part<Incoming<'a>> {
    let [first, short] = [take(input, 1)?[0], take(input, 1)?[0]];
    // RFC 6455, 5.2: the length is in its shortest form.
    let (wide, shortest) = match short {
        ..126 => (0, 0),
        126 => (2, 126),
        127 => (8, 1 << 16),
        _ => return Err(Stop::Garbled),
    };
    let long = take(input, wide)?.iter();
    let long = long.fold(0, |len, &byte| len << 8 | u64::from(byte));
    let len = if wide == 0 { u64::from(short) } else { long };
    let len = length(Some(len).filter(|&len| len >= shortest))?;
    let payload = take(input, len)?;
    match first {
        0x81 => json(payload).ok_or(Stop::Garbled),
        0x89 if payload.is_empty() => Ok(Incoming::Ping),
        // A heartbeat, and a Close frame, which the end of the connection follows.
        0x8a | 0x88 => Ok(Incoming::Aside),
        _ => Err(Stop::Garbled),
    }
}

/// Parses an object of the relay, byte for byte as the relay writes it.
fn json(object: &[u8]) -> Option<Incoming<'_>> {
    match object {
        b"{\"ack\":1}" | b"{\"paused\":true}" | b"{\"paused\":false}" => {
            return Some(Incoming::Aside);
        }
        _ if object.starts_with(b"{\"hello\":{") && object.ends_with(b"}}") => {
            return Some(Incoming::Welcome);
        }
        _ => {}
    }
    let rest = object.strip_prefix(b"{\"time\":\"")?;
    let (time, rest) = rest.split_at_checked(TIME.len())?;
    let rest = rest.strip_prefix(b"\",\"name\":\"")?.strip_suffix(b"\"}")?;
    if !is_time(time) {
        return None;
    }
    // The names and the texts of a measurement need no escapes. What has them is of another client, or is
    // not what was sent.
    let end = rest.iter().position(|&byte| byte == b'"')?;
    let (name, rest) = rest.split_at(end);
    Some(Incoming::Message {
        name: Some(name),
        payload: rest.strip_prefix(BEFORE_TEXT).unwrap_or_default(),
    })
}

/// What stands between the name and the text in JSON.
const BEFORE_TEXT: &[u8] = b"\",\"message\":\"";

/// The form of a time in JSON.
const TIME: &[u8; 24] = b"0000-00-00T00:00:00.000Z";

fn is_time(text: &[u8]) -> bool {
    text.iter().zip(TIME).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == form,
    })
}

/// Appends a command as an array of bulk strings.
fn resp(parts: &[&[u8]], out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = write!(out, "*{}\r\n", parts.len());
    for part in parts {
        let _ = write!(out, "${}\r\n", part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

fn redis<'a>(input: &mut &'a [u8]) -> Part<Incoming<'a>> {
    match line(input)? {
        b"+PONG" => Ok(Incoming::Welcome),
        [b'+' | b':', ..] => Ok(Incoming::Aside),
        b"*3" => match [redis_part(input)?, redis_part(input)?, redis_part(input)?] {
            [b"message", _, payload] => Ok(Incoming::Message {
                name: None,
                payload,
            }),
            [b"subscribe", ..] => Ok(Incoming::Welcome),
            _ => Err(Stop::Garbled),
        },
        _ => Err(Stop::Garbled),
    }
}

/// Takes a number or a bulk string.
fn redis_part<'a>(input: &mut &'a [u8]) -> Part<&'a [u8]> {
    match line(input)? {
        [b':', number @ ..] => Ok(number),
        [b'$', len @ ..] => {
            let len = length(header::parse(len))?;
            Ok(&take(input, len + 2)?[..len])
        }
        _ => Err(Stop::Garbled),
    }
}

/// Takes a line, and returns it without its end.
fn line<'a>(input: &mut &'a [u8]) -> Part<&'a [u8]> {
    let end = input.windows(2).position(|two| two == b"\r\n");
    let end = end.ok_or(Stop::Incomplete)?;
    Ok(&take(input, end + 2)?[..end])
}

fn mqtt_connect(kind: char, index: u32, tag: &str, out: &mut Vec<u8>) {
    let id = format!("{tag}{kind}{index:06}");
    // Level 4 of the protocol, a clean session, and no keepalive: an idle member must be silent.
    let head = [&mqtt_text("MQTT")[..], &[4, 2, 0, 0]].concat();
    mqtt_packet(0x10, &[&head, &mqtt_text(&id)], out);
}

/// A string with its length before it.
fn mqtt_text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn mqtt_packet(kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(kind);
    let mut left: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        let more = if left > 0x7f { 0x80 } else { 0 };
        out.push((left & 0x7f) as u8 | more);
        left >>= 7;
        if left == 0 {
            break;
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn mqtt<'a>(input: &mut &'a [u8]) -> Part<Incoming<'a>> {
    let kind = take(input, 1)?[0];
    let mut len = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = take(input, 1)?[0];
        if shift == 28 {
            return Err(Stop::Garbled);
        }
        len |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let len = length(Some(len))?;
    match (kind & 0xf0, take(input, len)?) {
        // CONNACK; what follows it shows that the connection is taken in: SUBACK or PINGRESP.
        (0x20, [_, 0]) => Ok(Incoming::Aside),
        (0x90, [_, _, 0]) | (0xd0, []) => Ok(Incoming::Welcome),
        (0x30, [high, low, rest @ ..]) => {
            let topic = usize::from(u16::from_be_bytes([*high, *low]));
            Ok(Incoming::Message {
                name: None,
                payload: rest.get(topic..).ok_or(Stop::Garbled)?,
            })
        }
        _ => Err(Stop::Garbled),
    }
}

fn nats<'a>(input: &mut &'a [u8]) -> Part<Incoming<'a>> {
    match line(input)? {
        b"PONG" => Ok(Incoming::Welcome),
        b"PING" => Ok(Incoming::Ping),
        line if line.starts_with(b"INFO {") => Ok(Incoming::Aside),
        // MSG, the subject, the subscription, and the length, since no answer is asked for.
        line if line.starts_with(b"MSG ") => {
            let len = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
            let len = length(header::parse(len))?;
            Ok(Incoming::Message {
                name: None,
                payload: &take(input, len + 2)?[..len],
            })
        }
        _ => Err(Stop::Garbled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(protocol: Protocol, role: Role) -> Vec<u8> {
        let mut out = Vec::new();
        protocol.join(role, "tag", &mut out);
        out
    }

    fn messages(protocol: Protocol, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        protocol.queue(payload, "tag", &mut out);
        out
    }

    /// Takes all that there is, from the stream whole and from each beginning of it: whatever is not
    /// all there is left alone.
    #[track_caller]
    fn assert_parsed(protocol: Protocol, stream: &[u8], expected: &[Incoming<'_>]) {
        for end in 0..=stream.len() {
            let mut rest = &stream[..end];
            let mut parsed = Vec::new();
            while let Some((incoming, used)) = protocol.next(rest).unwrap() {
                parsed.push(incoming);
                rest = &rest[used..];
            }
            assert_eq!(parsed, expected[..parsed.len()], "{end}");
            if end == stream.len() {
                assert_eq!((parsed.len(), rest), (expected.len(), &[][..]));
            }
        }
    }

    const fn bare(payload: &[u8]) -> Incoming<'_> {
        Incoming::Message {
            name: None,
            payload,
        }
    }

    #[test]
    fn chat10_messages_are_those_of_the_tutorials() {
        let member = joined(Protocol::Chat10, Role::Member(42));
        assert_eq!(member, b"10        tag-000042");
        assert_eq!(messages(Protocol::Chat10, b"hello"), b"5         hello");
        let message = |name, payload| Incoming::Message {
            name: Some(name),
            payload,
        };
        assert_parsed(
            Protocol::Chat10,
            b"5         alice2         hi0         0000000000",
            &[message(b"alice", b"hi"), message(b"", b"")],
        );
    }

    #[test]
    fn redis_messages_are_those_of_its_protocol() {
        let member = joined(Protocol::Redis, Role::Member(0));
        assert_eq!(member, b"*2\r\n$9\r\nSUBSCRIBE\r\n$8\r\nload-tag\r\n");
        let sender = joined(Protocol::Redis, Role::Sender(0));
        assert_eq!(sender, b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(
            messages(Protocol::Redis, b"hello"),
            b"*3\r\n$7\r\nPUBLISH\r\n$8\r\nload-tag\r\n$5\r\nhello\r\n"
        );
        assert_parsed(
            Protocol::Redis,
            b"*3\r\n$9\r\nsubscribe\r\n$8\r\nload-tag\r\n:1\r\n+PONG\r\n:499\r\n\
              *3\r\n$7\r\nmessage\r\n$8\r\nload-tag\r\n$4\r\na\r\nb\r\n",
            &[
                Incoming::Welcome,
                Incoming::Welcome,
                Incoming::Aside,
                bare(b"a\r\nb"),
            ],
        );
    }

    #[test]
    fn ws_messages_are_those_of_the_relay() {
        let mut name = joined(Protocol::Ws, Role::Member(42));
        assert_eq!(name[..2], [0x81, 0x8a]);
        let key = name[2..6].try_into().unwrap();
        websocket::mask(&mut name[6..], key, 0);
        assert_eq!(&name[6..], b"tag-000042");
        assert_eq!(messages(Protocol::Ws, b"hello")[..2], [0x81, 0x85]);
        let text = |json: &str| {
            let mut frame = Vec::new();
            websocket::encode(Opcode::Text, json.as_bytes(), &mut frame);
            frame
        };
        let object = |name: &str, text: &str| {
            format!(
                "{{\"time\":\"2026-11-27T23:50:01.123Z\",\"name\":\"{name}\",\"message\":\"{text}\"}}"
            )
        };
        let long = "x".repeat(70_000);
        let message = |name, payload| Incoming::Message {
            name: Some(name),
            payload,
        };
        let stream = [
            text(r#"{"hello":{"version":"0.1.0","maxName":256,"maxMessage":1024}}"#),
            text(&object("alice", "hi")),
            text(r#"{"ack":1}"#),
            vec![0x89, 0],
            vec![0x8a, 0],
            text(&object("", &long[..100])),
            text(r#"{"paused":true}"#),
        ]
        .concat();
        assert_parsed(
            Protocol::Ws,
            &stream,
            &[
                Incoming::Welcome,
                message(b"alice", b"hi"),
                Incoming::Aside,
                Incoming::Ping,
                Incoming::Aside,
                message(b"", &long.as_bytes()[..100]),
                Incoming::Aside,
            ],
        );
        let frame = text(&object("a", &long));
        let parsed = Protocol::Ws.next(&frame).unwrap().unwrap();
        assert_eq!(parsed, (message(b"a", long.as_bytes()), frame.len()));
        assert_eq!(Protocol::Ws.next(&frame[..frame.len() - 1]), Ok(None));
        // Messages of other clients, whose text does not matter, and a text that was not sent like this.
        for (object, name, payload) in [
            (object("o\\\"neill", "hi"), &b"o\\"[..], &b""[..]),
            (object("bob", "a\\nb"), b"bob", b"a\\nb"),
            (object("bob\",\"name_hex\":\"ff", "x"), b"bob", b""),
        ] {
            let frame = text(&object);
            let parsed = Protocol::Ws.next(&frame).unwrap().unwrap();
            assert_eq!(parsed, (message(name, payload), frame.len()));
        }
        let time = |from, to| text(&object("a", "b").replacen(from, to, 1));
        for garbled in [
            text("{}"),
            text("{\"ack\":2}"),
            time("2026", "202x"),
            time("Z", "z"),
            time("\"time\"", "\"Time\""),
            time("\"name\"", "\"nam\""),
            time("\"}", "\"]"),
            vec![0x82, 0],
            vec![0x01, 0],
            vec![0x81, 0x80, 0, 0, 0, 0],
            vec![0x89, 1, 0],
            vec![0x81, 126, 0, 9],
        ] {
            assert_eq!(Protocol::Ws.next(&garbled), Err(Garbled), "{garbled:?}");
        }
    }

    #[test]
    fn mqtt_messages_are_those_of_its_standard() {
        assert_eq!(
            joined(Protocol::Mqtt, Role::Member(7)),
            b"\x10\x16\0\x04MQTT\x04\x02\0\0\0\x0atagm000007\x82\x0d\0\x01\0\x08load-tag\0"
        );
        assert_eq!(
            joined(Protocol::Mqtt, Role::Sender(7)),
            b"\x10\x16\0\x04MQTT\x04\x02\0\0\0\x0atags000007\xc0\0"
        );
        let long = [b'x'; 300];
        let publish = messages(Protocol::Mqtt, &long);
        // 310 bytes follow, in seven bits a byte.
        assert_eq!(publish[..13], *b"\x30\xb6\x02\0\x08load-tag");
        assert_eq!(publish[13..], long);
        let stream = [b"\x20\x02\0\0\x90\x03\0\x01\0\xd0\0", &publish[..]].concat();
        assert_parsed(
            Protocol::Mqtt,
            &stream,
            &[
                Incoming::Aside,
                Incoming::Welcome,
                Incoming::Welcome,
                bare(&long),
            ],
        );
    }

    #[test]
    fn nats_messages_are_those_of_its_protocol() {
        let connect = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
        let member = joined(Protocol::Nats, Role::Member(7));
        let expected = format!("{connect}SUB load-tag 1\r\nPING\r\n");
        assert_eq!(str::from_utf8(&member), Ok(&*expected));
        let sender = joined(Protocol::Nats, Role::Sender(7));
        assert_eq!(str::from_utf8(&sender), Ok(&*format!("{connect}PING\r\n")));
        assert_eq!(
            messages(Protocol::Nats, b"hello"),
            b"PUB load-tag 5\r\nhello\r\n"
        );
        let mut pong = Vec::new();
        Protocol::Nats.pong(&mut pong);
        assert_eq!(pong, b"PONG\r\n");
        assert_parsed(
            Protocol::Nats,
            b"INFO {\"server_id\":\"x\"}\r\nPONG\r\nMSG load-tag 1 4\r\na\r\nb\r\nPING\r\nMSG load-tag 1 0\r\n\r\n",
            &[
                Incoming::Aside,
                Incoming::Welcome,
                bare(b"a\r\nb"),
                Incoming::Ping,
                bare(b""),
            ],
        );
    }

    #[test]
    fn input_that_no_server_of_the_protocol_sends_is_garbled() {
        for (protocol, stream) in [
            (Protocol::Chat10, &b"HTTP/1.1 400 Bad Request"[..]),
            (Protocol::Chat10, b"9999999999"),
            (Protocol::Redis, b"-ERR max number of clients reached\r\n"),
            (Protocol::Redis, b"*3\r\n$1\r\nx\r\n$1\r\nx\r\n$1\r\nx\r\n"),
            (Protocol::Redis, b"HTTP/1.1 400 Bad Request\r\n"),
            // A refusal, a subscription that failed, a length without an end, a topic that is too
            // long for its packet.
            (Protocol::Mqtt, b"\x20\x02\0\x05"),
            (Protocol::Mqtt, b"\x90\x03\0\x01\x80"),
            (Protocol::Mqtt, b"\x30\xff\xff\xff\xff\x01"),
            (Protocol::Mqtt, b"\x30\x03\0\x09x"),
            (Protocol::Nats, b"-ERR 'Authorization Violation'\r\n"),
            (Protocol::Nats, b"MSG load-tag 1 x\r\n"),
        ] {
            assert_eq!(protocol.next(stream), Err(Garbled), "{protocol:?}");
        }
    }

    #[test]
    fn name_has_the_number_of_its_member() {
        assert_eq!(name_of(42, "tag"), "tag-000042");
        assert_eq!(index_of(b"tag-000042", "tag"), Some(42));
        for other in [
            "bob",
            "tag-",
            "tag-42",
            "tag-+00042",
            "gat-000042",
            "tag-00004x",
        ] {
            assert_eq!(index_of(other.as_bytes(), "tag"), None, "{other}");
        }
    }
}
