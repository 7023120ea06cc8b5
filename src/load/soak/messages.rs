//! The messages of a soak: of many sizes, each with the numbers of its sender and of itself.

use std::io::Write;
use std::ops::Range;

use super::super::message::{MessageId, Reading, number};

/// How long the part is that tells a message from others: `000000042:000000017:`. There are
/// messages of this and nothing else.
const HEAD: usize = 20;

const SPEAKER: Range<usize> = 0..9;
const SEQ: Range<usize> = 10..19;
const COLONS: [usize; 2] = [9, 19];

/// A typed message has up to so many bytes more.
const MAX_TYPED_SIZE: u64 = 200;

/// One message in so many is long, and has up to so many bytes: more than one turn of a relay reads
/// of a connection at a time, so that it is taken apart and put together again.
const LONG_MESSAGE_RATIO: u64 = 64;
pub(super) const MAX_MESSAGE_SIZE: usize = 32 * 1024;

/// The messages of a soak. All of them follow from the seed, so that none has to be kept to know
/// what it is to be.
#[derive(Debug)]
pub(super) struct SoakMessages {
    seed: u64,
    /// What the messages are cut from, each at a place of its own.
    text: Vec<u8>,
}

impl SoakMessages {
    /// The same messages for the same seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut text = vec![0; 2 * MAX_MESSAGE_SIZE];
        chance.fill(&mut text);
        Self { seed, text }
    }

    /// Writes a message over what `out` holds.
    pub(super) fn write(&self, line: MessageId, out: &mut Vec<u8>) {
        out.clear();
        // Writing to a vector does not fail.
        let _ = write!(out, "{:09}:{:09}:", line.sender, line.seq);
        out.extend_from_slice(self.rest(line));
    }

    /// Finds out which message this is.
    pub(super) fn read(&self, payload: &[u8]) -> Reading {
        let Some((head, rest)) = payload.split_at_checked(HEAD) else {
            return Reading::Unreadable;
        };
        let (Some(sender), Some(seq)) = (number(&head[SPEAKER]), number(&head[SEQ])) else {
            return Reading::Unreadable;
        };
        if COLONS.iter().any(|&colon| head[colon] != b':') {
            return Reading::Unreadable;
        }
        let line = MessageId { sender, seq };
        if rest == self.rest(line) {
            Reading::Whole(line)
        } else {
            Reading::Damaged(line)
        }
    }

    /// What follows the head.
    fn rest(&self, line: MessageId) -> &[u8] {
        let chance = mix(self.seed ^ mix(u64::from(line.sender) << 32 | u64::from(line.seq)));
        let most = if chance.is_multiple_of(LONG_MESSAGE_RATIO) {
            (MAX_MESSAGE_SIZE - HEAD) as u64
        } else {
            MAX_TYPED_SIZE
        };
        let len = (chance >> 8) % (most + 1);
        let from = (chance >> 32) as usize % MAX_MESSAGE_SIZE;
        &self.text[from..from + len as usize]
    }
}

/// Spreads the bits of a number over all bits (splitmix64).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(words: &SoakMessages, line: MessageId) -> Vec<u8> {
        let mut payload = b"something before".to_vec();
        words.write(line, &mut payload);
        payload
    }

    const fn line(seq: u32) -> MessageId {
        MessageId { sender: 42, seq }
    }

    #[test]
    fn messages_say_whose_they_are_and_have_many_sizes() {
        let words = SoakMessages::new(7);
        let mut sizes: Vec<_> = (0..10_000)
            .map(|seq| {
                let payload = written(&words, line(seq));
                assert_eq!(words.read(&payload), Reading::Whole(line(seq)));
                assert!(payload.starts_with(format!("000000042:{seq:09}:").as_bytes()));
                payload.len()
            })
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes[0], HEAD);
        assert!((HEAD..HEAD + 200).contains(&sizes[5000]), "{}", sizes[5000]);
        let longest = sizes[9999];
        assert!(
            (MAX_MESSAGE_SIZE / 2..=MAX_MESSAGE_SIZE).contains(&longest),
            "{longest}"
        );
        let long = sizes.iter().filter(|&&size| size > HEAD + 200).count();
        assert!((100..220).contains(&long), "{long}");
    }

    #[test]
    fn the_same_seed_says_the_same_and_another_does_not() {
        let said = |seed| written(&SoakMessages::new(seed), line(1));
        assert_eq!(said(7), said(7));
        assert_ne!(said(7), said(8));
    }

    #[test]
    fn a_message_that_was_changed_anywhere_is_not_whole() {
        let words = SoakMessages::new(1);
        let payload = written(&words, line(3));
        assert!(payload.len() > HEAD, "a message with more than a head");
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert_ne!(words.read(&changed), Reading::Whole(line(3)), "{at}");
        }
        for len in 0..payload.len() {
            let expected = match len {
                ..HEAD => Reading::Unreadable,
                _ => Reading::Damaged(line(3)),
            };
            assert_eq!(words.read(&payload[..len]), expected);
        }
        let longer = [&payload[..], b"x"].concat();
        assert_eq!(words.read(&longer), Reading::Damaged(line(3)));
    }
}
