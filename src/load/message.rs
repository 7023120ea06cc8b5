//! The messages of a measurement: text with the numbers of its sender and of itself.

use std::io::Write;

/// How many digits there are of a message's number, and at least of its sender's.
const SEQ_DIGITS: usize = 9;
const SENDER_DIGITS: usize = 6;

/// The length of the part that tells a message from others: `000042:000000017`. The numbers of more
/// than a million senders have more digits.
pub(super) const fn head_len(senders: usize) -> usize {
    sender_digits(senders) + 1 + SEQ_DIGITS
}

const fn sender_digits(senders: usize) -> usize {
    let digits = match senders {
        0 | 1 => 1,
        _ => (senders - 1).ilog10() as usize + 1,
    };
    if digits < SENDER_DIGITS {
        SENDER_DIGITS
    } else {
        digits
    }
}

/// The format of a run's messages.
#[derive(Debug)]
pub(super) struct MessageFormat {
    sender_digits: usize,
    /// The text after the head, the same in all messages.
    filler: Vec<u8>,
}

/// A `MessageId` identifies a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MessageId {
    /// The number of its sender.
    pub(super) sender: u32,
    /// The number of messages that the sender has sent before it.
    pub(super) seq: u32,
}

/// The result of reading a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// This message, as it was sent.
    Whole(MessageId),
    /// This message, but not as it was sent.
    Damaged(MessageId),
    /// No message of this format.
    Unreadable,
}

impl MessageFormat {
    /// Messages of `size` bytes, at least [`head_len`]; the same for the same seed.
    pub(super) fn new(size: usize, senders: usize, seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut filler = vec![b' '];
        filler.resize_with(size.saturating_sub(head_len(senders)), || {
            // SoakMessages of five letters on average.
            if chance.u8(..6) == 0 {
                b' '
            } else {
                chance.lowercase() as u8
            }
        });
        Self {
            sender_digits: sender_digits(senders),
            filler,
        }
    }

    /// Writes a message over what `out` holds.
    pub(super) fn write(&self, line: MessageId, out: &mut Vec<u8>) {
        out.clear();
        // Writing to a vector does not fail.
        let _ = write!(
            out,
            "{:01$}:{2:09}",
            line.sender, self.sender_digits, line.seq
        );
        out.extend_from_slice(&self.filler);
    }

    /// Finds out which message this is.
    pub(super) fn read(&self, payload: &[u8]) -> Reading {
        let head = self.sender_digits + 1 + SEQ_DIGITS;
        let Some((head, filler)) = payload.split_at_checked(head) else {
            return Reading::Unreadable;
        };
        let (sender, seq) = head.split_at(self.sender_digits);
        let (Some(sender), [b':', seq @ ..]) = (number(sender), seq) else {
            return Reading::Unreadable;
        };
        let Some(seq) = number(seq) else {
            return Reading::Unreadable;
        };
        let line = MessageId { sender, seq };
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

    const MIN_HEAD: usize = head_len(2);

    const MESSAGE: MessageId = MessageId {
        sender: 42,
        seq: 17,
    };

    fn written(script: &MessageFormat) -> Vec<u8> {
        let mut payload = b"something before".to_vec();
        script.write(MESSAGE, &mut payload);
        payload
    }

    #[test]
    fn a_message_says_whose_it_is_and_has_the_size_that_was_asked_for() {
        for size in [16, 17, 64, 1000] {
            let script = MessageFormat::new(size, 2, 1);
            let payload = written(&script);
            assert_eq!(payload.len(), size);
            assert_eq!(&payload[..MIN_HEAD], b"000042:000000017");
            assert_eq!(script.read(&payload), Reading::Whole(MESSAGE));
        }
    }

    #[test]
    fn sender_number_has_as_many_digits_as_the_number_of_senders_needs() {
        assert_eq!([0, 1, 1_000_000].map(head_len), [16, 16, 16]);
        assert_eq!(head_len(1_000_001), 17);
        let script = MessageFormat::new(20, 12_000_000, 1);
        let last = MessageId {
            sender: 11_999_999,
            seq: 3,
        };
        let mut payload = Vec::new();
        script.write(last, &mut payload);
        assert_eq!(&payload[..18], b"11999999:000000003");
        assert_eq!(payload.len(), 20);
        assert_eq!(script.read(&payload), Reading::Whole(last));
    }

    #[test]
    fn the_same_seed_says_the_same() {
        assert_eq!(
            written(&MessageFormat::new(64, 2, 7)),
            written(&MessageFormat::new(64, 2, 7))
        );
        assert_ne!(
            written(&MessageFormat::new(64, 2, 7)),
            written(&MessageFormat::new(64, 2, 8))
        );
    }

    #[test]
    fn a_message_that_was_changed_anywhere_is_not_whole() {
        let script = MessageFormat::new(20, 2, 1);
        let payload = written(&script);
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert_ne!(script.read(&changed), Reading::Whole(MESSAGE), "{at}");
        }
        for len in 0..payload.len() {
            let expected = match len {
                ..MIN_HEAD => Reading::Unreadable,
                _ => Reading::Damaged(MESSAGE),
            };
            assert_eq!(script.read(&payload[..len]), expected);
        }
        let longer = [&payload[..], b"x"].concat();
        assert_eq!(script.read(&longer), Reading::Damaged(MESSAGE));
    }
}
