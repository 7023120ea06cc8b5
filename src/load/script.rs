//! What the load says: text that tells who said it, and as which of its messages.

use std::io::Write;
use std::ops::Range;

/// How long the part is that tells a message from others: `000042:000000017`.
pub(super) const HEAD: usize = 16;

const SPEAKER: Range<usize> = 0..6;
const COLON: usize = 6;
const SEQ: Range<usize> = 7..HEAD;

/// The text of a run's messages.
#[derive(Debug)]
pub(super) struct Script {
    /// What follows the head, in all messages.
    filler: Vec<u8>,
}

/// Which message of all that are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    /// Who says it.
    pub(super) speaker: u32,
    /// How many the speaker has said before it.
    pub(super) seq: u32,
}

/// What a payload turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// This message, as it was said.
    Whole(Line),
    /// This message, but not as it was said.
    Damaged(Line),
    /// No message of this script.
    Unreadable,
}

impl Script {
    /// Messages of `size` bytes, at least [`HEAD`]; the same for the same seed.
    pub(super) fn new(size: usize, seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut filler = vec![b' '];
        filler.resize_with(size.saturating_sub(HEAD), || {
            // Words of five letters on average.
            if chance.u8(..6) == 0 {
                b' '
            } else {
                chance.lowercase() as u8
            }
        });
        Self { filler }
    }

    /// Writes a message over what `out` holds.
    pub(super) fn write(&self, line: Line, out: &mut Vec<u8>) {
        out.clear();
        // Writing to a vector does not fail.
        let _ = write!(out, "{:06}:{:09}", line.speaker, line.seq);
        out.extend_from_slice(&self.filler);
    }

    /// Finds out which message this is.
    pub(super) fn read(&self, payload: &[u8]) -> Reading {
        let Some((head, filler)) = payload.split_at_checked(HEAD) else {
            return Reading::Unreadable;
        };
        let (Some(speaker), Some(seq)) = (number(&head[SPEAKER]), number(&head[SEQ])) else {
            return Reading::Unreadable;
        };
        if head[COLON] != b':' {
            return Reading::Unreadable;
        }
        let line = Line { speaker, seq };
        if filler == self.filler {
            Reading::Whole(line)
        } else {
            Reading::Damaged(line)
        }
    }
}

/// A number of digits and nothing else, as many as fit.
pub(super) fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number: u32, byte| match byte {
        b'0'..=b'9' => Some(number * 10 + u32::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line {
        speaker: 42,
        seq: 17,
    };

    fn written(script: &Script) -> Vec<u8> {
        let mut payload = b"something before".to_vec();
        script.write(LINE, &mut payload);
        payload
    }

    #[test]
    fn a_message_says_whose_it_is_and_has_the_size_that_was_asked_for() {
        for size in [16, 17, 64, 1000] {
            let script = Script::new(size, 1);
            let payload = written(&script);
            assert_eq!(payload.len(), size);
            assert_eq!(&payload[..HEAD], b"000042:000000017");
            assert_eq!(script.read(&payload), Reading::Whole(LINE));
        }
    }

    #[test]
    fn the_same_seed_says_the_same() {
        assert_eq!(written(&Script::new(64, 7)), written(&Script::new(64, 7)));
        assert_ne!(written(&Script::new(64, 7)), written(&Script::new(64, 8)));
    }

    #[test]
    fn a_message_that_was_changed_anywhere_is_not_whole() {
        let script = Script::new(20, 1);
        let payload = written(&script);
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert_ne!(script.read(&changed), Reading::Whole(LINE), "{at}");
        }
        for len in 0..payload.len() {
            let expected = match len {
                ..HEAD => Reading::Unreadable,
                _ => Reading::Damaged(LINE),
            };
            assert_eq!(script.read(&payload[..len]), expected);
        }
        let longer = [&payload[..], b"x"].concat();
        assert_eq!(script.read(&longer), Reading::Damaged(LINE));
    }
}
