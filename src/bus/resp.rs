//! RESP2, the protocol that Redis and Valkey speak: the encoding of a command, and an incremental decoder of
//! replies.
//!
//! Commands are arrays of byte strings. A decoder of our own, because the crates for this decode from the first
//! byte again whenever a reply is incomplete, and leave it to their caller how long a reply may become. Here a
//! reply is decoded as it arrives, and a byte string over the limit is skipped without being kept.

use std::fmt;

/// A line, such as an error's text, is at most this long, in bytes.
const MAX_LINE: usize = 4096;

/// Arrays are nested at most this deep. Those of a stream's entries need four.
const MAX_DEPTH: usize = 8;

/// An array has at most this many elements.
const MAX_ELEMENTS: usize = 1 << 20;

/// A `Value` is one reply, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A status, such as `OK`.
    Status(Vec<u8>),
    /// The command failed, for this reason.
    Error(Vec<u8>),
    /// A number.
    Integer(i64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A byte string over the decoder's limit, which was skipped.
    TooLong,
    /// A list of values.
    Array(Vec<Self>),
    /// No value.
    Null,
}

impl Value {
    /// The bytes of a byte string.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The elements of an array.
    #[must_use]
    pub fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// The bytes are no replies of RESP2: the connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoReply;

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it sent bytes that are not the Redis protocol")
    }
}

/// Appends a command to `out`.
pub fn encode_command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// A `ReplyDecoder` decodes the replies of one connection, however they are cut.
#[derive(Debug)]
pub struct ReplyDecoder {
    /// The bytes that are not decoded yet, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// The arrays that are not complete, the innermost last: their elements, and how many are missing.
    open: Vec<(Vec<Value>, usize)>,
    /// How many bytes of a byte string that is too long are still to be skipped.
    skip: usize,
    /// Byte strings are kept up to this length.
    max_bytes: usize,
}

/// What the first undecoded bytes are.
enum Item {
    Value(Value),
    /// An array of this many elements begins.
    Begin(usize),
    /// A byte string begins of which this many bytes are to be skipped.
    Skip(usize),
}

impl ReplyDecoder {
    /// A decoder that skips byte strings over `max_bytes`.
    #[must_use]
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            open: Vec::new(),
            skip: 0,
            max_bytes,
        }
    }

    /// Takes bytes that were received.
    pub fn feed(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.buffer.extend_from_slice(&bytes[skipped..]);
    }

    /// The next reply; `None` if it is not complete.
    ///
    /// # Errors
    ///
    /// [`NoReply`] if the bytes are none. Nothing can be decoded after that.
    pub fn decode(&mut self) -> Result<Option<Value>, NoReply> {
        loop {
            if self.skip > 0 {
                return Ok(None);
            }
            let Some((item, len)) = self.item()? else {
                self.discard_decoded();
                return Ok(None);
            };
            self.start += len;
            let value = match item {
                Item::Begin(elements) if elements > 0 => {
                    if self.open.len() == MAX_DEPTH {
                        return Err(NoReply);
                    }
                    self.open.push((Vec::new(), elements));
                    continue;
                }
                Item::Begin(_) => Value::Array(Vec::new()),
                Item::Skip(bytes) => {
                    let here = bytes.min(self.buffer.len() - self.start);
                    self.start += here;
                    self.skip = bytes - here;
                    Value::TooLong
                }
                Item::Value(value) => value,
            };
            if let Some(reply) = self.add(value) {
                self.discard_decoded();
                return Ok(Some(reply));
            }
        }
    }

    /// Adds a value to the array that it belongs to. Returns the reply that is complete with it.
    fn add(&mut self, mut value: Value) -> Option<Value> {
        loop {
            let Some((elements, missing)) = self.open.last_mut() else {
                return Some(value);
            };
            elements.push(value);
            *missing -= 1;
            if *missing > 0 {
                return None;
            }
            let (elements, _) = self.open.pop()?;
            value = Value::Array(elements);
        }
    }

    /// The item that the undecoded bytes begin with, and its length.
    fn item(&self) -> Result<Option<(Item, usize)>, NoReply> {
        let bytes = &self.buffer[self.start..];
        let Some(end) = bytes
            .windows(2)
            .take(MAX_LINE)
            .position(|two| two == b"\r\n")
        else {
            let is_too_long = bytes.len() > MAX_LINE;
            return if is_too_long { Err(NoReply) } else { Ok(None) };
        };
        let after = end + 2;
        let Some((&kind, text)) = bytes[..end].split_first() else {
            return Err(NoReply);
        };
        let item = match kind {
            b'+' => Item::Value(Value::Status(text.to_vec())),
            b'-' => Item::Value(Value::Error(text.to_vec())),
            b':' => Item::Value(Value::Integer(number(text)?)),
            b'*' => match length(text, MAX_ELEMENTS)? {
                Some(elements) => Item::Begin(elements),
                None => Item::Value(Value::Null),
            },
            b'$' => match length(text, isize::MAX as usize - 2)? {
                Some(len) if len > self.max_bytes => Item::Skip(len + 2),
                Some(len) => return byte_string(bytes, after, len),
                None => Item::Value(Value::Null),
            },
            _ => return Err(NoReply),
        };
        Ok(Some((item, after)))
    }

    fn discard_decoded(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }
}

/// The byte string of this length that begins at `at`.
fn byte_string(bytes: &[u8], at: usize, len: usize) -> Result<Option<(Item, usize)>, NoReply> {
    let end = at + len;
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => {
            let value = Value::Bytes(bytes[at..end].to_vec());
            Ok(Some((Item::Value(value), end + 2)))
        }
        Some(_) => Err(NoReply),
        None => Ok(None),
    }
}

fn number(text: &[u8]) -> Result<i64, NoReply> {
    let text = std::str::from_utf8(text).map_err(|_| NoReply)?;
    text.parse().map_err(|_| NoReply)
}

/// A length; `None` stands for no value.
fn length(text: &[u8], max: usize) -> Result<Option<usize>, NoReply> {
    let number = number(text)?;
    if number == -1 {
        return Ok(None);
    }
    let length = usize::try_from(number).map_err(|_| NoReply)?;
    (length <= max).then_some(Some(length)).ok_or(NoReply)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The replies of these bytes, received in pieces of this length.
    fn decoded(bytes: &[u8], piece: usize) -> Result<Vec<Value>, NoReply> {
        let mut decoder = ReplyDecoder::new(8);
        let mut values = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.feed(piece);
            while let Some(value) = decoder.decode()? {
                values.push(value);
            }
        }
        Ok(values)
    }

    #[test]
    fn replies_are_the_same_however_they_are_cut() {
        let bytes = b"+OK\r\n-ERR no\r\n:-7\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n\
            *2\r\n*2\r\n$1\r\nx\r\n*1\r\n:1\r\n$9\r\ntoo long!\r\n+end\r\n";
        let bytes_of = |text: &str| Value::Bytes(text.as_bytes().to_vec());
        let one = Value::Array(vec![Value::Integer(1)]);
        let inner = Value::Array(vec![bytes_of("x"), one]);
        let expected = vec![
            Value::Status(b"OK".to_vec()),
            Value::Error(b"ERR no".to_vec()),
            Value::Integer(-7),
            bytes_of("a\r\nbc"),
            bytes_of(""),
            Value::Null,
            Value::Null,
            Value::Array(Vec::new()),
            Value::Array(vec![inner, Value::TooLong]),
            Value::Status(b"end".to_vec()),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(decoded(bytes, piece).as_ref(), Ok(&expected), "{piece}");
        }
    }

    #[test]
    fn bytes_that_are_no_replies_are_refused() {
        let deep = "*1\r\n".repeat(MAX_DEPTH + 1);
        let long = "+".repeat(MAX_LINE + 2);
        let bad = [
            "\r\n",
            "HTTP/1.1 200 OK\r\n",
            "$x\r\n",
            "$-2\r\n",
            "*99999999999\r\n",
            ":\r\n",
            "$1\r\nabc",
            &deep,
            &long,
        ];
        for text in bad {
            for piece in [1, text.len()] {
                assert_eq!(decoded(text.as_bytes(), piece), Err(NoReply), "{text:?}");
            }
        }
    }

    #[test]
    fn skipped_byte_string_is_never_kept() {
        let mut decoder = ReplyDecoder::new(8);
        decoder.feed(b"$1000000\r\n");
        assert_eq!(decoder.decode(), Ok(Some(Value::TooLong)));
        for _ in 0..1000 {
            decoder.feed(&[b'x'; 1000]);
            assert_eq!(decoder.decode(), Ok(None));
            assert_eq!(decoder.buffer.capacity(), 0);
        }
        decoder.feed(b"\r\n:5\r\n");
        assert_eq!(decoder.decode(), Ok(Some(Value::Integer(5))));
    }

    #[test]
    fn command_is_an_array_of_byte_strings() {
        let mut out = Vec::new();
        encode_command(&[b"GET", b"a\r\nb"], &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
    }
}
