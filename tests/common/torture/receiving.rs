//! What a client receives, and what it should have been.

use std::fmt;

/// A message as a client receives it: its sender's name, where the protocol has that, and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub name: Vec<u8>,
    pub text: Vec<u8>,
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, text) = (self.name.escape_ascii(), &self.text);
        let start = text[..text.len().min(20)].escape_ascii();
        write!(f, "{name}: {start}… ({} bytes)", text.len())
    }
}

/// How a peer receives messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// As two frames: the name and the text.
    Frames,
    /// As the text alone, which has square brackets around it.
    Bare,
    /// As JSON over WebSocket, after the answer to a handshake. What is no message has a name without bytes.
    Web,
}

/// The answer to the handshake of RFC 6455, 1.3.
const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The bytes that have come, as messages.
#[derive(Debug, Default)]
pub struct Receiver {
    pub bytes: Vec<u8>,
    pub messages: Vec<Received>,
    /// How many of the bytes these messages are.
    parsed: usize,
}

impl Receiver {
    /// Takes the messages out of what has come.
    pub fn parse(&mut self, speech: Speech) -> Result<(), String> {
        if speech == Speech::Web && self.parsed == 0 {
            let len = self.bytes.len().min(ACCEPTED.len());
            if self.bytes[..len] != ACCEPTED[..len] {
                return Err(strange(&self.bytes));
            }
            if len < ACCEPTED.len() {
                return Ok(());
            }
            self.parsed = len;
        }
        loop {
            let rest = &self.bytes[self.parsed..];
            let first = match speech {
                Speech::Frames => framed(rest)?,
                Speech::Bare => bracketed(rest)?,
                Speech::Web => web(rest)?,
            };
            let Some((message, len)) = first else {
                return Ok(());
            };
            self.messages.push(message);
            self.parsed += len;
        }
    }

    /// Whether the answer to a handshake has come.
    pub const fn is_upgraded(&self) -> bool {
        self.parsed > 0
    }

    /// Whether there is nothing besides whole messages.
    pub fn is_whole(&self) -> bool {
        self.parsed == self.bytes.len()
    }

    /// Whether a message of this text is among them.
    pub fn has(&self, text: &[u8]) -> bool {
        self.messages
            .iter()
            .rev()
            .any(|received| received.text == text)
    }

    /// Checks that it begins as expected, in order and without anything twice, and returns how much of
    /// it is there. Each of the others may be there too, once and anywhere.
    pub fn compare(
        &self,
        expected: &[Received],
        mut others: Vec<Received>,
    ) -> Result<usize, String> {
        let mut count = 0;
        for received in &self.messages {
            if expected.get(count) == Some(received) {
                count += 1;
            } else if let Some(other) = others.iter().position(|other| other == received) {
                others.remove(other);
            } else {
                let expected = expected.get(count);
                let expected = expected.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                return Err(format!(
                    "receives as number {count} {received}, and not {expected}"
                ));
            }
        }
        Ok(count)
    }
}

/// The first message, and its length with all that belongs to it.
type First = Result<Option<(Received, usize)>, String>;

/// The frame of a name and that of a message.
fn framed(bytes: &[u8]) -> First {
    let Some(name) = payload(bytes)? else {
        return Ok(None);
    };
    let name_len = 10 + name.len();
    let Some(text) = payload(&bytes[name_len..])? else {
        return Ok(None);
    };
    let received = Received {
        name: name.to_vec(),
        text: text.to_vec(),
    };
    Ok(Some((received, name_len + 10 + text.len())))
}

fn payload(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    let Some(header) = bytes.get(..10) else {
        return Ok(None);
    };
    let header = std::str::from_utf8(header).map_err(|_| strange(bytes))?;
    let len: usize = header.trim_end().parse().map_err(|_| strange(bytes))?;
    Ok(bytes.get(10..10 + len))
}

fn bracketed(bytes: &[u8]) -> First {
    if bytes.first().is_some_and(|&byte| byte != b'[') {
        return Err(strange(bytes));
    }
    let end = bytes.iter().position(|&byte| byte == b']');
    Ok(end.map(|end| {
        let received = Received {
            name: Vec::new(),
            text: bytes[..=end].to_vec(),
        };
        (received, end + 1)
    }))
}

fn web(bytes: &[u8]) -> First {
    let (header, len) = match *bytes {
        [_, len, ..] if len < 126 => (2, usize::from(len)),
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        [_, 126, ..] | [_] | [] => return Ok(None),
        _ => return Err(strange(bytes)),
    };
    let Some(payload) = bytes.get(header..header + len) else {
        return Ok(None);
    };
    let text = str::from_utf8(payload).unwrap_or_default();
    let unnamed = |text: String| Received {
        name: Vec::new(),
        text: text.into_bytes(),
    };
    let received = match (bytes[0], payload) {
        (0x81, br#"{"ack":1}"#) => unnamed("[ack]".to_owned()),
        (0x81, [b'{', b'"', b'h', ..]) => unnamed("[hello]".to_owned()),
        (0x81, _) => message(text).ok_or_else(|| strange(bytes))?,
        (0x8a, _) => unnamed(text.to_owned()),
        (0x88, [high, low, ..]) => {
            unnamed(format!("[close {}]", u16::from_be_bytes([*high, *low])))
        }
        _ => return Err(strange(bytes)),
    };
    Ok(Some((received, header + len)))
}

/// A message without anything that needs an escape.
fn message(object: &str) -> Option<Received> {
    let (time, rest) = object.strip_prefix(r#"{"time":""#)?.split_at_checked(24)?;
    let is_time = time.starts_with("20") && time.ends_with('Z');
    let (name, text) = rest
        .strip_prefix(r#"","name":""#)?
        .strip_suffix(r#""}"#)?
        .split_once(r#"","message":""#)?;
    is_time.then(|| Received {
        name: name.into(),
        text: text.into(),
    })
}

fn strange(bytes: &[u8]) -> String {
    format!("receives {}…", bytes[..bytes.len().min(30)].escape_ascii())
}
