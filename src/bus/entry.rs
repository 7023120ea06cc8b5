//! An entry of the stream: some messages of one relay.

use std::fmt;
use std::sync::Arc;

use super::frames::Frames;
use super::resp::Value;

/// The version of the entries, in their field `v`.
const VERSION: &[u8] = b"1";

/// An entry's id: the engine's time at which it was added, in milliseconds, and a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The time since 1970, in milliseconds.
    pub ms: u64,
    /// Counts the entries of the same millisecond.
    pub number: u64,
}

impl EntryId {
    /// The position before all entries.
    pub const START: Self = Self { ms: 0, number: 0 };

    /// The id that this text is.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (ms, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self {
            ms: ms.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

/// A `Boot` is one run of a relay. Its messages are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot {
    /// The engine's time at the relay's first connection, in milliseconds since 1970.
    pub began: u64,
    /// A random number, which no other run has.
    pub random: u64,
}

impl Boot {
    fn parse(text: &[u8]) -> Option<Self> {
        let (began, random) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self {
            began: began.parse().ok()?,
            random: u64::from_str_radix(random, 16).ok()?,
        })
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.began, self.random)
    }
}

/// The messages of an entry: as frames of `chat10`, a name and a message in turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// The number of its first message among those of its boot.
    pub first: u64,
    /// How many messages it has: at least one.
    pub count: u64,
    /// The frames.
    pub bytes: Arc<[u8]>,
    /// The id under which the engine has had it before, if it was sent again.
    pub origin: Option<EntryId>,
    /// On which connection of its boot it was sent, counted from 1.
    pub attempt: u64,
}

/// The `Identity` of an entry distinguishes it from all others, even from one with the same messages at the same id.
///
/// An engine that takes over may give an id again that another one gave. If it is given to the same messages, sent
/// again, what is before them in the stream need not be what was before them. With another attempt it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The run of the relay.
    pub boot: Boot,
    /// The number of its first message.
    pub first: u64,
    /// The connection on which it was sent.
    pub attempt: u64,
}

/// What is in the stream at one id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Its content; `None` if it is no entry of this version, or cannot be read.
    pub content: Option<Content>,
}

/// What a relay has written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// The name of the relay, for people.
    pub node: Vec<u8>,
    /// Its run.
    pub boot: Boot,
    /// Its messages.
    pub batch: Batch,
}

impl Entry {
    /// Decodes an element of a reply that lists entries; `None` if it is none.
    #[must_use]
    pub fn decode(value: &Value) -> Option<Self> {
        let [id, fields] = value.array()? else {
            return None;
        };
        let id = EntryId::parse(id.bytes()?)?;
        let content = fields.array().and_then(decode_content);
        Some(Self { id, content })
    }

    /// The entry that it is, whatever its id.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let Content { boot, batch, .. } = self.content.as_ref()?;
        Some(Identity {
            boot: *boot,
            first: batch.first,
            attempt: batch.attempt,
        })
    }

    /// The id at which the engine has had its messages first.
    #[must_use]
    pub fn origin(&self) -> EntryId {
        let origin = self.content.as_ref().and_then(|one| one.batch.origin);
        origin.unwrap_or(self.id)
    }
}

fn decode_content(fields: &[Value]) -> Option<Content> {
    let field = |name: &[u8]| {
        let mut pairs = fields.chunks_exact(2);
        pairs.find(|pair| pair[0].bytes() == Some(name))?[1].bytes()
    };
    if field(b"v") != Some(VERSION) {
        return None;
    }
    let bytes = field(b"d")?;
    let batch = Batch {
        first: number(field(b"s")?)?,
        count: number(field(b"c")?)?,
        bytes: bytes.into(),
        origin: match field(b"o") {
            Some(id) => Some(EntryId::parse(id)?),
            None => None,
        },
        attempt: number(field(b"a")?)?,
    };
    batch.first.checked_add(batch.count)?;
    let is_whole = batch.count > 0 && Frames::new(bytes).count_messages() == Some(batch.count);
    is_whole.then_some(Content {
        node: field(b"n")?.to_vec(),
        boot: Boot::parse(field(b"b")?)?,
        batch,
    })
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The fields of an entry, as the words that end `XADD`.
pub(super) fn with_fields<R>(
    node: &[u8],
    boot: Boot,
    batch: &Batch,
    add: impl FnOnce(&[&[u8]]) -> R,
) -> R {
    let (boot, first) = (boot.to_string(), batch.first.to_string());
    let (count, attempt) = (batch.count.to_string(), batch.attempt.to_string());
    let origin = batch.origin.map(|id| id.to_string());
    let mut words: Vec<&[u8]> = vec![
        b"v",
        VERSION,
        b"n",
        node,
        b"b",
        boot.as_bytes(),
        b"s",
        first.as_bytes(),
        b"c",
        count.as_bytes(),
        b"a",
        attempt.as_bytes(),
        b"d",
        &batch.bytes,
    ];
    if let Some(origin) = &origin {
        words.extend([b"o", origin.as_bytes()]);
    }
    add(&words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode_frame;

    fn value(id: &str, words: &[&[u8]]) -> Value {
        let words = words.iter().map(|word| Value::Bytes(word.to_vec()));
        let id = Value::Bytes(id.as_bytes().to_vec());
        Value::Array(vec![id, Value::Array(words.collect())])
    }

    fn batch() -> Batch {
        let mut bytes = Vec::new();
        for word in ["alice", "hello", "bob", ""] {
            encode_frame(word.as_bytes(), &mut bytes);
        }
        Batch {
            first: 7,
            count: 2,
            bytes: bytes.into(),
            origin: EntryId::parse(b"3-4"),
            attempt: 5,
        }
    }

    #[test]
    fn entry_is_read_as_it_was_written() {
        let boot = Boot {
            began: 1,
            random: u64::MAX,
        };
        let value = with_fields(b"east", boot, &batch(), |words| value("17-2", words));
        let entry = Entry::decode(&value).unwrap();
        assert_eq!(entry.id.to_string(), "17-2");
        assert_eq!(entry.origin().to_string(), "3-4");
        let content = entry.content.unwrap();
        assert_eq!((&content.node[..], content.boot), (&b"east"[..], boot));
        assert_eq!(content.batch, batch());
    }

    #[test]
    fn entry_that_lacks_something_has_no_content() {
        let boot = Boot {
            began: 1,
            random: 2,
        };
        let words: Vec<Vec<u8>> = with_fields(b"east", boot, &batch(), |words| {
            words.iter().map(|word| word.to_vec()).collect()
        });
        let bad: [(usize, &[u8]); 9] = [
            (1, b"2"),
            (5, b"1"),
            (7, b"-1"),
            (7, b"18446744073709551615"),
            (9, b"3"),
            (9, b"0"),
            (11, b""),
            (13, b"5         alice5         hell"),
            (15, b"x"),
        ];
        for (at, word) in bad {
            let mut words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            words[at] = word;
            let entry = Entry::decode(&value("17-2", &words)).unwrap();
            assert_eq!(entry.content, None, "{:?}", word.escape_ascii().to_string());
        }
        let entry = Entry::decode(&value("17-2", &[b"hello", b"world"])).unwrap();
        assert_eq!(entry.content, None);
        assert_eq!(Entry::decode(&Value::Null), None);
    }
}
