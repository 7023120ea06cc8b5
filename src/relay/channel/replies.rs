//! The relay's own output to one member: greetings and acknowledgements.

use std::sync::Arc;

use crate::relay::limits::{CHUNK, Limits};
use crate::wire::websocket::{self, Opcode};
use crate::wire::{Dialect, Receives, encode_frame};

/// How many acknowledgements one slice holds at most.
const MAX_ACKS_PER_SLICE: usize = 256;

/// The texts of the relay's replies, where they differ from the tutorials'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyTexts {
    /// The greeting of a new connection, in the dialects that greet. Any bytes.
    pub greeting: Option<Vec<u8>>,
    /// The acknowledgement that the sender of a message receives, in the dialects that have one. An
    /// empty one is none.
    pub ack: Option<Vec<u8>>,
    /// The message that ends a member's connection, in the dialects that have one. An empty one is none.
    pub farewell: Option<Vec<u8>>,
}

/// A reply to one member: as a rule its kind and its count, not its bytes, so that a thousand
/// acknowledgements that a member has not read are one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Reply {
    Nothing,
    Greeting,
    /// This many acknowledgements.
    Acks(u64),
    /// Bytes that are for this member alone.
    Own(Arc<[u8]>),
}

impl Reply {
    /// This many acknowledgements, which may be none.
    pub(in crate::relay) const fn acks(count: u64) -> Self {
        match count {
            0 => Self::Nothing,
            count => Self::Acks(count),
        }
    }

    /// Both replies as one, if they can be.
    pub(super) const fn and(&self, next: &Self) -> Option<Self> {
        match (self, next) {
            (Self::Nothing, Self::Nothing) => Some(Self::Nothing),
            (Self::Acks(count), Self::Acks(more)) => Some(Self::Acks(count.saturating_add(*more))),
            _ => None,
        }
    }

    /// How much memory it takes of its own, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Nothing | Self::Greeting | Self::Acks(_) => 0,
        }
    }
}

/// The replies of one dialect, as they go on the wire.
#[derive(Debug)]
pub(in crate::relay) struct ReplyBytes {
    greeting: Box<[u8]>,
    /// The acknowledgement repeated, so that many go out as one slice.
    acks: Box<[u8]>,
    ack_len: usize,
    /// The message that ends a member's connection, if there is one.
    farewell: Option<Box<[u8]>>,
}

impl ReplyBytes {
    pub(in crate::relay) fn new(dialect: Dialect, texts: &ReplyTexts, limits: &Limits) -> Self {
        let rules = dialect.rules();
        let or = |own: &Option<Vec<u8>>, text: &str| match own {
            Some(own) => own.clone(),
            None => text.as_bytes().to_vec(),
        };
        let mut greeting = Vec::new();
        if let Some(rule) = rules.greeting {
            let text = or(&texts.greeting, rule.text);
            if rule.is_framed {
                encode_frame(&text, &mut greeting);
            } else {
                greeting = text;
            }
        }
        let mut ack = rules.ack.map(|text| or(&texts.ack, text));
        if rules.receives == Receives::Json {
            greeting = hello(limits);
            ack = rules.ack.map(text_frame);
        }
        let ack = ack.unwrap_or_default();
        let farewell = rules.farewell.map(|rule| or(&texts.farewell, rule.word));
        // An empty message is no farewell: the protocols allow it.
        let farewell = farewell.filter(|word| !word.is_empty());
        Self {
            greeting: greeting.into(),
            acks: ack
                .repeat((CHUNK / ack.len().max(1)).clamp(1, MAX_ACKS_PER_SLICE))
                .into(),
            ack_len: ack.len(),
            farewell: farewell.map(Vec::into_boxed_slice),
        }
    }

    /// The message that ends a member's connection, if there is one.
    pub(in crate::relay) fn farewell(&self) -> Option<&[u8]> {
        self.farewell.as_deref()
    }

    /// Several replies as one: the greeting if it `is_new`, acknowledgements, and bytes of the member's
    /// own.
    #[inline]
    pub(in crate::relay) fn joined(&self, is_new: bool, acks: u64, own: &[u8]) -> Reply {
        if !is_new && own.is_empty() {
            return Reply::acks(acks);
        }
        self.several(is_new, acks, own)
    }

    fn several(&self, is_new: bool, acks: u64, own: &[u8]) -> Reply {
        let has_greeting = is_new && !self.greeting.is_empty();
        match (has_greeting, acks, own) {
            (false, acks, []) => Reply::acks(acks),
            (true, 0, []) => Reply::Greeting,
            _ => {
                let greeting: &[u8] = if has_greeting { &self.greeting } else { &[] };
                let acks = self.acks[..self.ack_len].repeat(acks as usize);
                Reply::Own([greeting, &acks, own].concat().into())
            }
        }
    }

    /// How long a reply is, in bytes.
    #[inline]
    pub(in crate::relay) fn len(&self, reply: &Reply) -> u64 {
        match reply {
            Reply::Nothing => 0,
            Reply::Greeting => self.greeting.len() as u64,
            Reply::Acks(count) => count.saturating_mul(self.ack_len as u64),
            Reply::Own(bytes) => bytes.len() as u64,
        }
    }

    /// The bytes of a reply from `offset` on, or the first of them; nothing at its end.
    pub(in crate::relay) fn bytes_at<'a>(&'a self, reply: &'a Reply, offset: u64) -> &'a [u8] {
        debug_assert!(offset <= self.len(reply), "the offset is inside the reply");
        let left = (self.len(reply) - offset).min(CHUNK as u64) as usize;
        if left == 0 {
            return &[];
        }
        match reply {
            Reply::Nothing => &[],
            Reply::Greeting => &self.greeting[offset as usize..][..left],
            Reply::Own(bytes) => &bytes[offset as usize..][..left],
            Reply::Acks(_) => {
                let start = (offset % self.ack_len as u64) as usize;
                &self.acks[start..][..left.min(self.acks.len() - start)]
            }
        }
    }
}

/// The first frame that a browser member receives after the history.
fn hello(limits: &Limits) -> Vec<u8> {
    text_frame(&format!(
        "{{\"hello\":{{\"version\":\"{}\",\"maxName\":{},\"maxMessage\":{}}}}}",
        env!("CARGO_PKG_VERSION"),
        limits.max_name,
        limits.max_message,
    ))
}

fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    websocket::encode(Opcode::Text, text.as_bytes(), &mut frame);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(replies: &ReplyBytes, reply: &Reply, from: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while from + (bytes.len() as u64) < replies.len(reply) {
            let more = replies.bytes_at(reply, from + bytes.len() as u64);
            assert!(!more.is_empty());
            bytes.extend_from_slice(more);
        }
        bytes
    }

    #[test]
    fn reply_bytes_are_found_from_any_offset() {
        let replies = ReplyBytes::new(Dialect::Chat64, &ReplyTexts::default(), &Limits::default());
        let acks = b"Message was Sent!".repeat(3000);
        for from in [0, 1, 16, 17, 18, 17_408, 17_409, 50_999] {
            assert_eq!(
                whole(&replies, &Reply::Acks(3000), from as u64),
                acks[from..]
            );
        }
        assert_eq!(replies.bytes_at(&Reply::Acks(3000), 51_000), b"");
        assert_eq!(replies.bytes_at(&Reply::Greeting, 0), b"");
    }

    #[test]
    fn each_dialect_has_its_own_replies() {
        let replies =
            |dialect| ReplyBytes::new(dialect, &ReplyTexts::default(), &Limits::default());
        let greeting = |dialect| whole(&replies(dialect), &Reply::Greeting, 0);
        assert_eq!(greeting(Dialect::Hello), b"welcome to the server!");
        assert_eq!(
            greeting(Dialect::Greet10),
            b"22        Welcome to the server!"
        );
        assert_eq!(greeting(Dialect::Chat10), b"");
        let ack = |dialect| whole(&replies(dialect), &Reply::Acks(1), 0);
        assert_eq!(ack(Dialect::Chat64), b"Message was Sent!");
        assert_eq!(ack(Dialect::Ack64), b"Msg received");
        assert_eq!(ack(Dialect::Chat10), b"");
        let farewell = replies(Dialect::Ack64).farewell().map(<[u8]>::to_vec);
        assert_eq!(farewell.as_deref(), Some(&b"!DISCONNECT"[..]));
        assert_eq!(replies(Dialect::Chat10).farewell(), None);
    }

    #[test]
    fn reply_texts_may_be_any_bytes_of_any_length() {
        let texts = ReplyTexts {
            greeting: Some(vec![0x80; 200_000]),
            ack: Some(vec![b'k'; 100_000]),
            farewell: Some(b"bye".to_vec()),
        };
        let replies = ReplyBytes::new(Dialect::Hello, &texts, &Limits::default());
        assert_eq!(whole(&replies, &Reply::Greeting, 0), vec![0x80; 200_000]);
        let replies = ReplyBytes::new(Dialect::Ack64, &texts, &Limits::default());
        assert_eq!(
            whole(&replies, &Reply::Acks(2), 99_999),
            vec![b'k'; 100_001]
        );
        assert_eq!(replies.farewell(), Some(&b"bye"[..]));
        let silent = ReplyTexts {
            ack: Some(Vec::new()),
            farewell: Some(Vec::new()),
            ..ReplyTexts::default()
        };
        let replies = ReplyBytes::new(Dialect::Ack64, &silent, &Limits::default());
        assert_eq!(replies.bytes_at(&Reply::Acks(7), 0), b"");
        assert_eq!(replies.farewell(), None);
    }
}
