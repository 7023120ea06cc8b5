//! The tutorials' protocols, and their differences.

use std::fmt;
use std::str::FromStr;

use super::frame::encode_frame;
use super::header;
use super::json::{self, TimeText};
use super::websocket::{self, Opcode, encode_header, encode_with};

/// The protocol of a listener: what its clients send, and what they expect to receive.
///
/// A dialect is the listener's, not something a connection negotiates: nothing in the tutorials'
/// protocols would tell them apart. Their differences are in [`rules`](Self::rules).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Dialect {
    /// The chat with usernames and ten-byte headers.
    Chat10,
    /// The chat with 64-byte headers and no names, in which senders are answered.
    Chat64,
    /// The server with 64-byte headers that answers each message, and whose clients receive nothing else.
    Ack64,
    /// The server that greets with a ten-byte header, and then sends the time now and then.
    Greet10,
    /// The server that greets and hangs up.
    Hello,
    /// The chat for browsers: WebSocket, text to the relay, JSON from it.
    Ws,
    /// The chat with usernames and ten-byte headers, through WebSocket as a tunnel.
    WsChat10,
    /// The server that returns each WebSocket message to its sender.
    WsEcho,
    /// The server that returns all bytes to their sender.
    Echo,
    /// No chat: HTTP, for the relay's metrics and its health.
    Metrics,
}

/// The properties of one dialect: a row of the table in [`Dialect::rules`].
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    /// The name by which a listener's address asks for it, as in `chat10://127.0.0.1:1234`.
    pub name: &'static str,
    /// What its clients send.
    pub sends: Sends,
    /// Where a member's name comes from.
    pub naming: Naming,
    /// What its members receive.
    pub receives: Receives,
    /// What is paused while one of its members is a slow reader.
    pub pauses: Pauses,
    /// The acknowledgement that the sender of a message receives, if there is one.
    pub ack: Option<&'static str>,
    /// The message that ends a member's connection, if there is one.
    pub farewell: Option<Farewell>,
    /// The greeting that a new connection receives, if there is one.
    pub greeting: Option<Greeting>,
}

/// What the clients of a dialect send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    /// Frames with headers of this width, in bytes.
    Frames(usize),
    /// WebSocket messages: each is what a frame is elsewhere.
    Messages,
    /// WebSocket messages whose bytes in a row are frames with ten-byte headers.
    Tunnel,
    /// WebSocket messages that are returned.
    EchoMessages,
    /// Bytes that are returned.
    Echo,
    /// Requests in HTTP. Each is answered and its connection closed, so that it never is one of the relay's.
    Requests,
    /// Nothing that has a meaning: it is dropped.
    Nothing,
}

impl Sends {
    /// Whether its connections begin with the head of a request in HTTP.
    #[must_use]
    pub const fn begins_with_http(self) -> bool {
        self.is_web_socket() || matches!(self, Self::Requests)
    }

    /// Whether it is WebSocket, which begins with a handshake in HTTP.
    #[must_use]
    pub const fn is_web_socket(self) -> bool {
        matches!(self, Self::Messages | Self::Tunnel | Self::EchoMessages)
    }

    /// Whether clients send messages for the room.
    #[must_use]
    pub const fn is_chat(self) -> bool {
        matches!(self, Self::Frames(_) | Self::Messages | Self::Tunnel)
    }
}

/// Where a member's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The first frame is the name.
    FirstFrame,
    /// The peer's address stands for a name: `192.0.2.1:4000`.
    Address,
}

/// What a member receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receives {
    /// Each message of the room as two frames with ten-byte headers: the sender's name, the message.
    Frames,
    /// The bytes of each message of the room.
    Payloads,
    /// Each message of the room as a JSON object in a WebSocket text frame, with its time.
    Json,
    /// The same as [`Frames`](Self::Frames), in one WebSocket binary frame.
    TunneledFrames,
    /// The server's ticks, each a frame with a ten-byte header, and no messages.
    Ticks,
    /// No messages. All output is replies to the member itself.
    Nothing,
}

/// What is paused while a member is a slow reader: whatever fills its backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pauses {
    /// The input of all members.
    Room,
    /// The input of the member itself, since it alone causes its output.
    Itself,
    /// Nothing: no input of a member causes the output.
    Nothing,
}

/// A message that ends the sender's connection. It is acknowledged like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The message.
    pub word: &'static str,
    /// Whether it is relayed to the others.
    pub is_relayed: bool,
}

/// The greeting that a new connection receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The text.
    pub text: &'static str,
    /// Whether it is sent as a frame with a ten-byte header, or as it is.
    pub is_framed: bool,
    /// Whether the connection is closed after it.
    pub closes: bool,
}

/// A dialect without messages. The rows of the table have what is different from it.
const SILENT: Rules = Rules {
    name: "",
    sends: Sends::Nothing,
    naming: Naming::Address,
    receives: Receives::Nothing,
    pauses: Pauses::Itself,
    ack: None,
    farewell: None,
    greeting: None,
};

impl Dialect {
    /// How many dialects there are.
    pub const COUNT: usize = 10;

    /// Every dialect, in the order in which help texts list them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Chat10,
        Self::Chat64,
        Self::Ack64,
        Self::Greet10,
        Self::Hello,
        Self::Ws,
        Self::WsChat10,
        Self::WsEcho,
        Self::Echo,
        Self::Metrics,
    ];

    /// Its row of the table.
    #[must_use]
    pub const fn rules(self) -> &'static Rules {
        match self {
            Self::Chat10 => &Rules {
                name: "chat10",
                sends: Sends::Frames(header::WIDTH),
                naming: Naming::FirstFrame,
                receives: Receives::Frames,
                pauses: Pauses::Room,
                ..SILENT
            },
            Self::Chat64 => &Rules {
                name: "chat64",
                sends: Sends::Frames(header::WIDE),
                receives: Receives::Payloads,
                pauses: Pauses::Room,
                ack: Some("Message was Sent!"),
                farewell: Some(Farewell {
                    word: "Client Disconnected",
                    is_relayed: true,
                }),
                ..SILENT
            },
            Self::Ack64 => &Rules {
                name: "ack64",
                sends: Sends::Frames(header::WIDE),
                ack: Some("Msg received"),
                farewell: Some(Farewell {
                    word: "!DISCONNECT",
                    is_relayed: false,
                }),
                ..SILENT
            },
            Self::Greet10 => &Rules {
                name: "greet10",
                receives: Receives::Ticks,
                pauses: Pauses::Nothing,
                greeting: Some(Greeting {
                    text: "Welcome to the server!",
                    is_framed: true,
                    closes: false,
                }),
                ..SILENT
            },
            Self::Hello => &Rules {
                name: "hello",
                greeting: Some(Greeting {
                    text: "welcome to the server!",
                    is_framed: false,
                    closes: true,
                }),
                ..SILENT
            },
            Self::Ws => &Rules {
                name: "ws",
                sends: Sends::Messages,
                naming: Naming::FirstFrame,
                receives: Receives::Json,
                pauses: Pauses::Room,
                ack: Some("{\"ack\":1}"),
                ..SILENT
            },
            Self::WsChat10 => &Rules {
                name: "ws-chat10",
                sends: Sends::Tunnel,
                naming: Naming::FirstFrame,
                receives: Receives::TunneledFrames,
                pauses: Pauses::Room,
                ..SILENT
            },
            Self::WsEcho => &Rules {
                name: "ws-echo",
                sends: Sends::EchoMessages,
                ..SILENT
            },
            Self::Echo => &Rules {
                name: "echo",
                sends: Sends::Echo,
                ..SILENT
            },
            Self::Metrics => &Rules {
                name: "metrics",
                sends: Sends::Requests,
                ..SILENT
            },
        }
    }

    /// Its index in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether its connections are closed after the greeting.
    #[must_use]
    pub const fn closes_after_greeting(self) -> bool {
        matches!(self.rules().greeting, Some(Greeting { closes: true, .. }))
    }
}

impl Receives {
    /// Whether it is the room's messages.
    #[must_use]
    pub const fn is_room(self) -> bool {
        matches!(
            self,
            Self::Frames | Self::Payloads | Self::Json | Self::TunneledFrames
        )
    }

    /// Whether each message carries its time.
    #[must_use]
    pub const fn is_timed(self) -> bool {
        matches!(self, Self::Json)
    }

    /// Whether it goes out in WebSocket frames.
    #[must_use]
    pub const fn is_web_socket(self) -> bool {
        matches!(self, Self::Json | Self::TunneledFrames)
    }

    /// The most that a message takes in bytes, beside its text, where its name takes this many.
    #[must_use]
    pub const fn overhead(self, name_len: usize) -> usize {
        match self {
            Self::Frames => name_len + 2 * header::WIDTH,
            Self::Json => json::MAX_GROWTH * name_len + json::OVERHEAD,
            Self::TunneledFrames => name_len + 2 * header::WIDTH + websocket::MAX_HEADER,
            Self::Payloads | Self::Ticks | Self::Nothing => 0,
        }
    }

    /// How many bytes each byte of a text takes, at the most.
    #[must_use]
    pub const fn growth(self) -> usize {
        match self {
            Self::Frames | Self::TunneledFrames | Self::Payloads => 1,
            Self::Json => json::MAX_GROWTH,
            Self::Ticks | Self::Nothing => 0,
        }
    }

    /// Appends a message as the members receive it, if they do. The sender's name is a frame already, since it is
    /// the same for each of its messages.
    #[inline]
    pub fn encode(self, name_frame: &[u8], message: &[u8], time: &TimeText, out: &mut Vec<u8>) {
        match self {
            Self::Frames => {
                out.extend_from_slice(name_frame);
                encode_frame(message, out);
            }
            Self::Payloads => out.extend_from_slice(message),
            Self::Json => encode_with(Opcode::Text, out, |out| {
                json::push_message(&name_frame[header::WIDTH..], message, time, out);
            }),
            Self::TunneledFrames => {
                let len = name_frame.len() + header::WIDTH + message.len();
                encode_header(Opcode::Binary, len, out);
                out.extend_from_slice(name_frame);
                encode_frame(message, out);
            }
            Self::Ticks | Self::Nothing => {}
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rules().name)
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        Self::ALL
            .into_iter()
            .find(|dialect| dialect.rules().name.eq_ignore_ascii_case(name))
            .ok_or(UnknownDialect)
    }
}

/// An unknown dialect name. Its message lists the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDialect;

impl fmt::Display for UnknownDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown dialect; the known ones:")?;
        for dialect in Dialect::ALL {
            write!(f, " {dialect}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownDialect {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_found_by_its_name_and_its_index() {
        for (index, dialect) in Dialect::ALL.into_iter().enumerate() {
            let name = dialect.rules().name;
            assert_eq!(name.parse(), Ok(dialect));
            assert_eq!(name.to_uppercase().parse(), Ok(dialect));
            assert_eq!(dialect.index(), index);
        }
    }

    #[test]
    fn an_unknown_dialect_lists_the_known_ones() {
        let error = "irc".parse::<Dialect>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown dialect; the known ones: chat10 chat64 ack64 greet10 hello ws \
             ws-chat10 ws-echo echo metrics"
        );
    }

    #[test]
    fn a_greeting_is_all_in_hello_alone() {
        for dialect in Dialect::ALL {
            let is_all = dialect == Dialect::Hello;
            assert_eq!(dialect.closes_after_greeting(), is_all, "{dialect}");
        }
    }

    #[test]
    fn a_message_is_encoded_as_each_dialect_hears_it() {
        for (dialect, heard) in [
            (Dialect::Chat10, "<5         alice6         hello!"),
            (Dialect::Chat64, "<hello!"),
            (Dialect::Ack64, "<"),
            (Dialect::Greet10, "<"),
            (Dialect::Hello, "<"),
            (
                Dialect::Ws,
                "<\u{81}E{\"time\":\"1970-01-01T00:00:00.000Z\",\"name\":\"alice\",\"message\":\"hello!\"}",
            ),
            (Dialect::WsEcho, "<"),
            (Dialect::Echo, "<"),
        ] {
            let mut out = b"<".to_vec();
            let receives = dialect.rules().receives;
            receives.encode(
                b"5         alice",
                b"hello!",
                &TimeText::default(),
                &mut out,
            );
            let heard: Vec<_> = heard.chars().map(|char| char as u8).collect();
            assert_eq!(
                out.escape_ascii().to_string(),
                heard.escape_ascii().to_string(),
                "{dialect}"
            );
            assert_eq!(receives.is_room(), heard.len() > 1, "{dialect}");
        }
    }
}
