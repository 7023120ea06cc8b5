//! What the relay says of its own accord: greetings and acknowledgements.

use super::backlog::CHUNK;
use crate::wire::{Dialect, encode_frame};

/// How many acknowledgements go out as one slice at most.
const MOST_ACKS: usize = 256;

/// The relay's own words, where they are to be others than the tutorials'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wording {
    /// What newcomers are told, in the dialects that greet them. Any bytes.
    pub greeting: Option<Vec<u8>>,
    /// What the sender of a message is answered, in the dialects that do. An empty answer is none.
    pub ack: Option<Vec<u8>>,
    /// The message with which a member takes its leave, in the dialects that have one. An empty one is
    /// none.
    pub farewell: Option<Vec<u8>>,
}

/// A line of the relay's to one member: what it is, not its bytes, so that a thousand
/// acknowledgements that a member has not read are one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Nothing,
    Greeting,
    /// So many acknowledgements.
    Acks(u64),
}

impl Line {
    /// So many acknowledgements, which may be none.
    pub(super) const fn acks(count: u64) -> Self {
        match count {
            0 => Self::Nothing,
            count => Self::Acks(count),
        }
    }

    /// Both of them as one, if they can be.
    pub(super) const fn and(self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Nothing, Self::Nothing) => Some(Self::Nothing),
            (Self::Acks(count), Self::Acks(more)) => Some(Self::Acks(count.saturating_add(more))),
            _ => None,
        }
    }
}

/// The lines of one dialect, as they go on the wire.
#[derive(Debug)]
pub(super) struct Lines {
    greeting: Box<[u8]>,
    /// The acknowledgement again and again, so that many go out as one slice.
    acks: Box<[u8]>,
    ack_len: usize,
    /// The message with which a member takes its leave, if there is one.
    farewell: Option<Box<[u8]>>,
}

impl Lines {
    pub(super) fn new(dialect: Dialect, wording: &Wording) -> Self {
        let rules = dialect.rules();
        let or = |own: &Option<Vec<u8>>, text: &str| match own {
            Some(own) => own.clone(),
            None => text.as_bytes().to_vec(),
        };
        let mut greeting = Vec::new();
        if let Some(rule) = rules.greeting {
            let text = or(&wording.greeting, rule.text);
            if rule.is_framed {
                encode_frame(&text, &mut greeting);
            } else {
                greeting = text;
            }
        }
        let ack = rules.ack.map(|text| or(&wording.ack, text));
        let ack = ack.unwrap_or_default();
        let farewell = rules.farewell.map(|rule| or(&wording.farewell, rule.word));
        // Somebody who says nothing has not said goodbye.
        let farewell = farewell.filter(|word| !word.is_empty());
        Self {
            greeting: greeting.into(),
            acks: ack
                .repeat((CHUNK / ack.len().max(1)).clamp(1, MOST_ACKS))
                .into(),
            ack_len: ack.len(),
            farewell: farewell.map(Vec::into_boxed_slice),
        }
    }

    /// Whether a member takes its leave with this message.
    pub(super) fn is_farewell(&self, message: &[u8]) -> bool {
        self.farewell.as_deref() == Some(message)
    }

    /// How long a line is, in bytes.
    pub(super) const fn len(&self, line: Line) -> u64 {
        match line {
            Line::Nothing => 0,
            Line::Greeting => self.greeting.len() as u64,
            Line::Acks(count) => count.saturating_mul(self.ack_len as u64),
        }
    }

    /// The bytes of a line from `offset` on, or the first of them; nothing at its end.
    pub(super) fn bytes_at(&self, line: Line, offset: u64) -> &[u8] {
        let left = (self.len(line) - offset).min(CHUNK as u64) as usize;
        if left == 0 {
            return &[];
        }
        match line {
            Line::Nothing => &[],
            Line::Greeting => &self.greeting[offset as usize..][..left],
            Line::Acks(_) => {
                let start = (offset % self.ack_len as u64) as usize;
                &self.acks[start..][..left.min(self.acks.len() - start)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(lines: &Lines, line: Line, from: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while from + (bytes.len() as u64) < lines.len(line) {
            let more = lines.bytes_at(line, from + bytes.len() as u64);
            assert!(!more.is_empty());
            bytes.extend_from_slice(more);
        }
        bytes
    }

    #[test]
    fn a_line_is_found_from_any_offset() {
        let lines = Lines::new(Dialect::Chat64, &Wording::default());
        let acks = b"Message was Sent!".repeat(3000);
        for from in [0, 1, 16, 17, 18, 17_408, 17_409, 50_999] {
            assert_eq!(whole(&lines, Line::Acks(3000), from as u64), acks[from..]);
        }
        assert_eq!(lines.bytes_at(Line::Acks(3000), 51_000), b"");
        assert_eq!(lines.bytes_at(Line::Greeting, 0), b"");
    }

    #[test]
    fn each_dialect_has_its_own_lines() {
        let lines = |dialect| Lines::new(dialect, &Wording::default());
        let greeting = |dialect| whole(&lines(dialect), Line::Greeting, 0);
        assert_eq!(greeting(Dialect::Hello), b"welcome to the server!");
        assert_eq!(
            greeting(Dialect::Greet10),
            b"22        Welcome to the server!"
        );
        assert_eq!(greeting(Dialect::Chat10), b"");
        let ack = |dialect| whole(&lines(dialect), Line::Acks(1), 0);
        assert_eq!(ack(Dialect::Chat64), b"Message was Sent!");
        assert_eq!(ack(Dialect::Ack64), b"Msg received");
        assert_eq!(ack(Dialect::Chat10), b"");
        assert!(lines(Dialect::Ack64).is_farewell(b"!DISCONNECT"));
        assert!(!lines(Dialect::Ack64).is_farewell(b"!DISCONNECT "));
        assert!(!lines(Dialect::Chat10).is_farewell(b""));
    }

    #[test]
    fn other_words_may_be_any_bytes_of_any_length() {
        let wording = Wording {
            greeting: Some(vec![0x80; 200_000]),
            ack: Some(vec![b'k'; 100_000]),
            farewell: Some(b"bye".to_vec()),
        };
        let lines = Lines::new(Dialect::Hello, &wording);
        assert_eq!(whole(&lines, Line::Greeting, 0), vec![0x80; 200_000]);
        let lines = Lines::new(Dialect::Ack64, &wording);
        assert_eq!(whole(&lines, Line::Acks(2), 99_999), vec![b'k'; 100_001]);
        assert!(lines.is_farewell(b"bye") && !lines.is_farewell(b"!DISCONNECT"));
        let silent = Wording {
            ack: Some(Vec::new()),
            farewell: Some(Vec::new()),
            ..Wording::default()
        };
        let lines = Lines::new(Dialect::Ack64, &silent);
        assert_eq!(lines.bytes_at(Line::Acks(7), 0), b"");
        assert!(!lines.is_farewell(b"") && !lines.is_farewell(b"!DISCONNECT"));
    }
}
