//! The messages that arrive over one connection.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use super::outbox::ConnectionEnd;
use crate::handshake::HandshakeError;
use crate::text::{Quoted, Shown};
use crate::wire::{Decoder, FrameError, header};

/// The longest name or message that is accepted from a server, in bytes. Relays have lower limits of
/// their own; this one bounds the client's memory.
pub const MAX_PAYLOAD: usize = 16 * 1024 * 1024;

/// The most bytes that an error shows of another protocol.
const EXCERPT_BYTES: usize = 60;

/// The beginning of what a server sent, for an error that shows it.
pub(super) fn excerpt(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(EXCERPT_BYTES)]
}

/// Whether a server has answered in TLS, with the alert that it got something else.
fn is_tls(first: &[u8]) -> bool {
    // The type of the record, and the version that each has.
    first.starts_with(&[21, 3])
}

/// A `Session` decodes the stream of a `chat10` server: frames in pairs, a name and the message of that member.
#[derive(Debug, Default)]
pub struct Session {
    decoder: Decoder,
    /// The name of the message that comes next, once it has arrived.
    from: Option<Vec<u8>>,
    /// Whether a whole frame has arrived.
    is_chat: bool,
    /// The first bytes that arrived, for an error if they are no frame.
    first: Vec<u8>,
}

/// A `Progress` is whether there may be more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something was read, and there may be more.
    More,
    /// There is nothing more to read for now.
    Drained,
}

impl Session {
    /// Reads from `stream` once, into `scratch`, and passes each message that is complete by then to
    /// `on_message`, as name and payload.
    ///
    /// # Errors
    ///
    /// [`Disconnect`], after the last message before it.
    pub fn receive(
        &mut self,
        stream: &mut impl Read,
        scratch: &mut [u8],
        mut on_message: impl FnMut(&[u8], &[u8]),
    ) -> Result<Progress, Disconnect> {
        let mut input = match stream.read(scratch) {
            Ok(0) if is_tls(&self.first) => {
                return Err(Disconnect::NotChat(std::mem::take(&mut self.first)));
            }
            Ok(0) if self.is_inside_message() => return Err(Disconnect::CutShort),
            Ok(0) => return Err(Disconnect::Closed),
            Ok(read) => &scratch[..read],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Drained),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Progress::More),
            Err(error) => return Err(Disconnect::Io(error)),
        };
        if !self.is_chat {
            let wanted = EXCERPT_BYTES
                .saturating_sub(self.first.len())
                .min(input.len());
            self.first.extend_from_slice(&input[..wanted]);
        }
        loop {
            match self.decoder.decode(&mut input, header::WIDTH, MAX_PAYLOAD) {
                Ok(Some(payload)) => {
                    self.is_chat = true;
                    match self.from.take() {
                        Some(name) => on_message(&name, payload),
                        None => self.from = Some(payload.to_vec()),
                    }
                }
                Ok(None) => return Ok(Progress::More),
                Err(FrameError::BadHeader(_)) if !self.is_chat => {
                    return Err(Disconnect::NotChat(std::mem::take(&mut self.first)));
                }
                Err(error) => return Err(Disconnect::Protocol(error)),
            }
        }
    }

    /// Whether a whole frame has arrived, so that the server speaks the chat protocol.
    #[must_use]
    pub fn is_chat(&self) -> bool {
        self.is_chat
    }

    fn is_inside_message(&self) -> bool {
        self.from.is_some() || self.decoder.is_inside_frame()
    }
}

/// A `Disconnect` is how a connection ended.
#[derive(Debug)]
pub enum Disconnect {
    /// The server closed it.
    Closed,
    /// The server closed it inside a message.
    CutShort,
    /// The server closed the WebSocket, with this status code and reason.
    ClosedFor {
        /// The status code.
        code: u16,
        /// The reason, which may be empty.
        reason: String,
    },
    /// It failed.
    Io(io::Error),
    /// There is no WebSocket to connect to.
    Handshake(HandshakeError),
    /// The first bytes from the server, these, are not the chat protocol.
    NotChat(Vec<u8>),
    /// After valid messages, the server sent a text that is none and begins with these bytes.
    NotMessage(Vec<u8>),
    /// After valid frames, the server sent bytes that are no frame, or a frame that is too long.
    Protocol(FrameError),
}

impl Disconnect {
    /// Whether the server has refused what the client sent, rather than ended the connection for reasons of
    /// its own (RFC 6455, 7.4.1).
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::ClosedFor { code, .. } => matches!(code, 1002 | 1003 | 1007..=1009),
            // By the certificate that it demands.
            Self::Io(error) => error.kind() == ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    /// The effect on the messages that were sent.
    #[must_use]
    pub fn connection_end(&self) -> ConnectionEnd {
        match self {
            Self::Io(error) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ConnectionEnd::Reset,
                _ => ConnectionEnd::Broken,
            },
            Self::Closed
            | Self::CutShort
            | Self::ClosedFor { .. }
            | Self::Handshake(_)
            | Self::NotChat(_)
            | Self::NotMessage(_)
            | Self::Protocol(_) => ConnectionEnd::Closed,
        }
    }
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the server closed the connection"),
            Self::CutShort => {
                f.write_str("the server closed the connection in the middle of a message")
            }
            Self::ClosedFor { code, reason } => {
                write!(f, "the server closed the connection ({code}")?;
                if !reason.is_empty() {
                    write!(f, ": {}", Shown::plain(reason.as_bytes()))?;
                }
                f.write_str(")")
            }
            Self::Handshake(error) => error.fmt(f),
            Self::Io(error) if error.kind() == ErrorKind::ConnectionReset => {
                f.write_str("the server reset the connection")
            }
            Self::Io(error) if error.kind() == ErrorKind::PermissionDenied => error.fmt(f),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::NotChat(said) if is_tls(said) => {
                f.write_str("this port speaks TLS; write tls:// in front of the address")
            }
            Self::NotChat(said) => write!(
                f,
                "this port does not speak the chat protocol; it says {}",
                Quoted(said)
            ),
            Self::NotMessage(said) => write!(
                f,
                "the server sent something that is no message: {}",
                Quoted(said)
            ),
            Self::Protocol(error) => {
                write!(f, "the server sent something that is no message: {error}")
            }
        }
    }
}

impl std::error::Error for Disconnect {}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn receive_all(pieces: Vec<&[u8]>) -> (Vec<(String, String)>, Disconnect) {
        let mut stream = Pieces(pieces);
        let mut session = Session::default();
        let mut messages = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        loop {
            let received = session.receive(&mut stream, &mut [0; 1000], |name, message| {
                messages.push((text(name), text(message)));
            });
            if let Err(disconnect) = received {
                return (messages, disconnect);
            }
        }
    }

    fn pair(name: &str, message: &str) -> (String, String) {
        (name.to_owned(), message.to_owned())
    }

    #[test]
    fn messages_do_not_depend_on_how_the_stream_is_cut() {
        let stream = b"3         bob5         hello0         0         3         bob2          6";
        let messages = [pair("bob", "hello"), pair("", ""), pair("bob", " 6")];
        for at in 1..stream.len() {
            let (left, right) = stream.split_at(at);
            let (heard, disconnect) = receive_all(vec![left, right]);
            assert_eq!(heard, messages, "split at {at}");
            assert!(matches!(disconnect, Disconnect::Closed));
        }
        assert_eq!(receive_all(stream.chunks(1).collect()).0, messages);
    }

    #[test]
    fn end_of_stream_after_a_name_is_inside_a_message() {
        for stream in [
            &b"3         bob"[..],
            b"3  ",
            b"3         bo",
            b"3         bob4         ab",
        ] {
            assert!(matches!(receive_all(vec![stream]).1, Disconnect::CutShort));
        }
        assert!(matches!(receive_all(Vec::new()).1, Disconnect::Closed));
    }

    #[test]
    fn other_protocol_is_reported_with_its_first_bytes_at_the_first_impossible_one() {
        let banner = b"SSH-2.0-OpenSSH_9.2p1\r\n";
        let greeting = b"22 things to do\n";
        for (pieces, says) in [
            (vec![&banner[..]], r#""SSH-2.0-OpenSSH_9.2p1\r\n""#),
            (vec![&banner[..7], &banner[7..]], r#""SSH-2.0""#),
            (
                vec![&greeting[..2], &greeting[2..]],
                r#""22 things to do\n""#,
            ),
            (vec![&greeting[..4], &greeting[4..]], r#""22 t""#),
            (vec![b"hi\n"], r#""hi\n""#),
        ] {
            let (heard, disconnect) = receive_all(pieces);
            assert_eq!(heard, []);
            let expected = format!("this port does not speak the chat protocol; it says {says}");
            assert_eq!(disconnect.to_string(), expected);
        }
    }

    #[test]
    fn invalid_frame_after_a_valid_one_is_a_protocol_error() {
        let (heard, disconnect) = receive_all(vec![b"1         a1         bnot a header"]);
        assert_eq!(heard, [pair("a", "b")]);
        assert!(
            disconnect
                .to_string()
                .ends_with("not a header: \"not a head\""),
            "{disconnect}"
        );
        let (_, disconnect) = receive_all(vec![b"9999999999"]);
        assert!(
            disconnect
                .to_string()
                .contains("announced 9999999999 bytes"),
            "{disconnect}"
        );
    }
}
