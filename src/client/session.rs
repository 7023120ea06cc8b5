//! A connection as the client sees it: the server's frames, as messages.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use super::outbox::Cut;
use crate::text::Quoted;
use crate::wire::{Decoder, FrameError, header};

/// The longest name or message that is taken from a server, in bytes. Relays have limits of their
/// own, and lower ones; this is only so that nobody can have us keep gigabytes.
pub const MAX_PAYLOAD: usize = 16 * 1024 * 1024;

/// How much to show of what a server says that is no chat server, in bytes.
const GLIMPSE: usize = 60;

/// What has come over a connection: frames in pairs, a name and what that member said.
#[derive(Debug, Default)]
pub struct Session {
    decoder: Decoder,
    /// The name, once it is known whose message comes next.
    from: Option<Vec<u8>>,
    /// Whether a whole frame has come.
    is_chat: bool,
    /// The first bytes that came, in case they turn out to be no chat.
    first: Vec<u8>,
}

/// Whether there may be more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something was read, and there may be more.
    More,
    /// There is nothing more to read for now.
    Drained,
}

impl Session {
    /// Reads from `stream` once, into `scratch`, and hands each message that is complete by then to
    /// `on_message`, as name and payload.
    ///
    /// # Errors
    ///
    /// [`Loss`], after the last message that came before it.
    pub fn receive(
        &mut self,
        stream: &mut impl Read,
        scratch: &mut [u8],
        mut on_message: impl FnMut(&[u8], &[u8]),
    ) -> Result<Progress, Loss> {
        let mut input = match stream.read(scratch) {
            Ok(0) if self.is_inside_message() => return Err(Loss::CutShort),
            Ok(0) => return Err(Loss::Closed),
            Ok(read) => &scratch[..read],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Drained),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Progress::More),
            Err(error) => return Err(Loss::Io(error)),
        };
        if !self.is_chat {
            let wanted = GLIMPSE.saturating_sub(self.first.len()).min(input.len());
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
                    return Err(Loss::NotChat(std::mem::take(&mut self.first)));
                }
                Err(error) => return Err(Loss::Protocol(error)),
            }
        }
    }

    /// Whether a whole frame has come: this is a chat.
    #[must_use]
    pub fn is_chat(&self) -> bool {
        self.is_chat
    }

    fn is_inside_message(&self) -> bool {
        self.from.is_some() || self.decoder.is_inside_frame()
    }
}

/// Why a connection is of no use any more.
#[derive(Debug)]
pub enum Loss {
    /// The server closed it.
    Closed,
    /// The server closed it in the middle of a message.
    CutShort,
    /// It broke.
    Io(io::Error),
    /// The first bytes from the server, these, are not the chat protocol.
    NotChat(Vec<u8>),
    /// After some that were right, the server sent something that is no frame or too long.
    Protocol(FrameError),
}

impl Loss {
    /// What it means for what was said.
    #[must_use]
    pub fn cut(&self) -> Cut {
        match self {
            Self::Io(error) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Cut::Reset,
                _ => Cut::Broken,
            },
            Self::Closed | Self::CutShort | Self::NotChat(_) | Self::Protocol(_) => Cut::Closed,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the server closed the connection"),
            Self::CutShort => {
                f.write_str("the server closed the connection in the middle of a message")
            }
            Self::Io(error) if error.kind() == ErrorKind::ConnectionReset => {
                f.write_str("the server reset the connection")
            }
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::NotChat(said) => write!(
                f,
                "this port does not speak the chat protocol; it says {}",
                Quoted(said)
            ),
            Self::Protocol(error) => {
                write!(f, "the server sent something that is no message: {error}")
            }
        }
    }
}

impl std::error::Error for Loss {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that yields these pieces, one a read, and then its end.
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

    fn receive_all(pieces: Vec<&[u8]>) -> (Vec<(String, String)>, Loss) {
        let mut stream = Pieces(pieces);
        let mut session = Session::default();
        let mut messages = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        loop {
            let received = session.receive(&mut stream, &mut [0; 1000], |name, message| {
                messages.push((text(name), text(message)));
            });
            if let Err(loss) = received {
                return (messages, loss);
            }
        }
    }

    fn pair(name: &str, message: &str) -> (String, String) {
        (name.to_owned(), message.to_owned())
    }

    #[test]
    fn messages_come_whole_however_the_stream_is_cut() {
        let stream = b"3         bob5         hello0         0         3         bob2          6";
        let messages = [pair("bob", "hello"), pair("", ""), pair("bob", " 6")];
        for at in 1..stream.len() {
            let (left, right) = stream.split_at(at);
            let (heard, loss) = receive_all(vec![left, right]);
            assert_eq!(heard, messages, "split at {at}");
            assert!(matches!(loss, Loss::Closed));
        }
        assert_eq!(receive_all(stream.chunks(1).collect()).0, messages);
    }

    #[test]
    fn an_end_between_name_and_message_is_one_inside_a_message() {
        for stream in [
            &b"3         bob"[..],
            b"3  ",
            b"3         bo",
            b"3         bob4         ab",
        ] {
            assert!(matches!(receive_all(vec![stream]).1, Loss::CutShort));
        }
        assert!(matches!(receive_all(Vec::new()).1, Loss::Closed));
    }

    #[test]
    fn server_of_another_kind_is_named_by_its_first_bytes_as_soon_as_one_is_no_header() {
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
            let (heard, loss) = receive_all(pieces);
            assert_eq!(heard, []);
            let expected = format!("this port does not speak the chat protocol; it says {says}");
            assert_eq!(loss.to_string(), expected);
        }
    }

    #[test]
    fn a_chat_server_that_loses_its_place_is_still_a_chat_server() {
        let (heard, loss) = receive_all(vec![b"1         a1         bnot a header"]);
        assert_eq!(heard, [pair("a", "b")]);
        assert!(
            loss.to_string().ends_with("not a header: \"not a head\""),
            "{loss}"
        );
        let (_, loss) = receive_all(vec![b"9999999999"]);
        assert!(
            loss.to_string().contains("announced 9999999999 bytes"),
            "{loss}"
        );
    }
}
