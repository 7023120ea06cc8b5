//! The tutorials' protocols, and all in which they differ.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use super::{encode_frame, header};

/// A protocol that a listener speaks: what its clients send, and what they expect to hear.
///
/// A dialect is the listener's, not something a connection negotiates: nothing in the tutorials'
/// protocols would say which of them it is. All in which they differ is in [`rules`](Self::rules).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Dialect {
    /// The chat with usernames and ten-byte headers.
    Chat10,
    /// The chat with 64-byte headers and no names, in which senders are answered.
    Chat64,
    /// The server with 64-byte headers that answers each message, and nobody else hears of it.
    Ack64,
    /// The server that greets with a ten-byte header, and then tells the time.
    Greet10,
    /// The server that greets and hangs up.
    Hello,
}

/// All in which one dialect differs from the others: a row of the table in [`Dialect::rules`].
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    /// The name by which a listener's address asks for it, as in `chat10://127.0.0.1:1234`.
    pub name: &'static str,
    /// The width in bytes of the headers that its clients send. Without one, what they send is no
    /// message, and is dropped.
    pub header_width: Option<usize>,
    /// What its clients are called where names are shown.
    pub called: Called,
    /// What its clients are sent of what is said.
    pub hears: Hears,
    /// What the sender of a message is answered, if it is.
    pub ack: Option<&'static str>,
    /// The message with which its clients take their leave, if there is one.
    pub farewell: Option<Farewell>,
    /// What newcomers are told, if they are.
    pub greeting: Option<Greeting>,
}

/// What a client is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// As its first frame says.
    ByName,
    /// As its address, `192.0.2.1:4000`.
    ByAddress,
}

/// What a client is sent of what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    /// The sender's name and the message, each as a frame with a ten-byte header.
    Frames,
    /// The message's bytes alone.
    Payloads,
    /// Nothing of that, but the time, now and then, as a frame with a ten-byte header.
    Time,
    /// Nothing.
    Nothing,
}

/// A message with which a client takes its leave. It is acknowledged like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The message.
    pub word: &'static str,
    /// Whether the others hear it.
    pub is_heard: bool,
}

/// What a newcomer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The text.
    pub text: &'static str,
    /// Whether it goes out as a frame with a ten-byte header, or as it is.
    pub is_framed: bool,
    /// Whether that is all, and the connection is closed after it.
    pub is_all: bool,
}

impl Dialect {
    /// How many dialects there are.
    pub const COUNT: usize = 5;

    /// Every dialect, in the order in which help texts list them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Chat10,
        Self::Chat64,
        Self::Ack64,
        Self::Greet10,
        Self::Hello,
    ];

    /// What is particular to it.
    #[must_use]
    pub const fn rules(self) -> &'static Rules {
        match self {
            Self::Chat10 => &Rules {
                name: "chat10",
                header_width: Some(header::WIDTH),
                called: Called::ByName,
                hears: Hears::Frames,
                ack: None,
                farewell: None,
                greeting: None,
            },
            Self::Chat64 => &Rules {
                name: "chat64",
                header_width: Some(header::WIDE),
                called: Called::ByAddress,
                hears: Hears::Payloads,
                ack: Some("Message was Sent!"),
                farewell: Some(Farewell {
                    word: "Client Disconnected",
                    is_heard: true,
                }),
                greeting: None,
            },
            Self::Ack64 => &Rules {
                name: "ack64",
                header_width: Some(header::WIDE),
                called: Called::ByAddress,
                hears: Hears::Nothing,
                ack: Some("Msg received"),
                farewell: Some(Farewell {
                    word: "!DISCONNECT",
                    is_heard: false,
                }),
                greeting: None,
            },
            Self::Greet10 => &Rules {
                name: "greet10",
                header_width: None,
                called: Called::ByAddress,
                hears: Hears::Time,
                ack: None,
                farewell: None,
                greeting: Some(Greeting {
                    text: "Welcome to the server!",
                    is_framed: true,
                    is_all: false,
                }),
            },
            Self::Hello => &Rules {
                name: "hello",
                header_width: None,
                called: Called::ByAddress,
                hears: Hears::Nothing,
                ack: None,
                farewell: None,
                greeting: Some(Greeting {
                    text: "welcome to the server!",
                    is_framed: false,
                    is_all: true,
                }),
            },
        }
    }

    /// Its index in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether its clients are greeted, and that is all.
    #[must_use]
    pub const fn only_greets(self) -> bool {
        matches!(self.rules().greeting, Some(Greeting { is_all: true, .. }))
    }
}

impl Hears {
    /// Whether it is what the room says.
    #[must_use]
    pub const fn is_room(self) -> bool {
        matches!(self, Self::Frames | Self::Payloads)
    }

    /// Appends a message as it is heard, if it is. The sender's name is a frame already, since it is
    /// the same for each of its messages.
    pub fn encode(self, name_frame: &[u8], message: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Frames => {
                out.extend_from_slice(name_frame);
                encode_frame(message, out);
            }
            Self::Payloads => out.extend_from_slice(message),
            Self::Time | Self::Nothing => {}
        }
    }
}

/// What tells the time: so many decimals as Python prints of `time.time()`.
#[must_use]
pub fn time_message(time: SystemTime) -> String {
    // A clock that stands before 1970 has not been set.
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs_f64();
    format!("The time is {seconds:?}")
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

/// A dialect that nobody here speaks; its message lists those that are spoken.
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
    use std::time::Duration;

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
            "unknown dialect; the known ones: chat10 chat64 ack64 greet10 hello"
        );
    }

    #[test]
    fn a_greeting_is_all_in_hello_alone() {
        for dialect in Dialect::ALL {
            let is_all = dialect == Dialect::Hello;
            assert_eq!(dialect.only_greets(), is_all, "{dialect}");
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
        ] {
            let mut out = b"<".to_vec();
            let hears = dialect.rules().hears;
            hears.encode(b"5         alice", b"hello!", &mut out);
            assert_eq!(out, heard.as_bytes(), "{dialect}");
            assert_eq!(hears.is_room(), heard.len() > 1, "{dialect}");
        }
    }

    #[test]
    fn the_time_is_told_as_python_prints_it() {
        for (micros, told) in [
            (1_593_590_400_123_000, "The time is 1593590400.123"),
            (1_593_590_400_000_000, "The time is 1593590400.0"),
            (1_593_590_400_123_456, "The time is 1593590400.123456"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            assert_eq!(time_message(time), told);
        }
        let unset = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(time_message(unset), "The time is 0.0");
    }
}
