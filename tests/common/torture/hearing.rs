//! What somebody hears, and what it should have been.

use std::fmt;

/// A message as somebody hears it: its sender's name, where that is told, and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub name: Vec<u8>,
    pub text: Vec<u8>,
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, text) = (self.name.escape_ascii(), &self.text);
        let start = text[..text.len().min(20)].escape_ascii();
        write!(f, "{name}: {start}… ({} bytes)", text.len())
    }
}

/// The bytes that have come, as messages.
#[derive(Debug, Default)]
pub struct Hearing {
    pub bytes: Vec<u8>,
    pub messages: Vec<Heard>,
    /// How many of the bytes these messages are.
    parsed: usize,
}

impl Hearing {
    /// Takes the messages out of what has come: frames, or without those what has square brackets
    /// around it.
    pub fn parse(&mut self, is_framed: bool) -> Result<(), String> {
        loop {
            let rest = &self.bytes[self.parsed..];
            let first = if is_framed {
                framed(rest)?
            } else {
                bracketed(rest)?
            };
            let Some((message, len)) = first else {
                return Ok(());
            };
            self.messages.push(message);
            self.parsed += len;
        }
    }

    /// Whether there is nothing besides whole messages.
    pub fn is_whole(&self) -> bool {
        self.parsed == self.bytes.len()
    }

    /// Whether a message of this text is among them.
    pub fn has(&self, text: &[u8]) -> bool {
        self.messages.iter().rev().any(|heard| heard.text == text)
    }

    /// Checks that it begins as expected, in order and without anything twice, and says how much of
    /// it is there. Each of the others may be there too, once and anywhere.
    pub fn compare(&self, expected: &[Heard], mut others: Vec<Heard>) -> Result<usize, String> {
        let mut count = 0;
        for heard in &self.messages {
            if expected.get(count) == Some(heard) {
                count += 1;
            } else if let Some(other) = others.iter().position(|other| other == heard) {
                others.remove(other);
            } else {
                let expected = expected.get(count);
                let expected = expected.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                return Err(format!(
                    "hears as number {count} {heard}, and not {expected}"
                ));
            }
        }
        Ok(count)
    }
}

/// The first message, and its length with all that belongs to it.
type First = Result<Option<(Heard, usize)>, String>;

/// The frame of a name and that of a message.
fn framed(bytes: &[u8]) -> First {
    let Some(name) = payload(bytes)? else {
        return Ok(None);
    };
    let name_len = 10 + name.len();
    let Some(text) = payload(&bytes[name_len..])? else {
        return Ok(None);
    };
    let heard = Heard {
        name: name.to_vec(),
        text: text.to_vec(),
    };
    Ok(Some((heard, name_len + 10 + text.len())))
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
        let heard = Heard {
            name: Vec::new(),
            text: bytes[..=end].to_vec(),
        };
        (heard, end + 1)
    }))
}

fn strange(bytes: &[u8]) -> String {
    format!("hears {}…", bytes[..bytes.len().min(30)].escape_ascii())
}
