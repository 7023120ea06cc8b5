//! The messages of a measurement: each has the numbers of its sender and of itself, and a text
//! that follows from them and from the seed. So no message is kept to know what it must be.

use std::io::Write;
use std::mem;

use super::protocol::{Protocol, number};

/// The digits of a message's number, and at least of its sender's. In a soak, senders are replaced
/// all the time, so their numbers have more.
const SEQ_DIGITS: usize = 9;
const MIN_SENDER_DIGITS: usize = 6;
const SOAK_SENDER_DIGITS: usize = 9;

/// In a soak, a typical message has up to so many bytes after its head. One message in so many is
/// long. It has more bytes than one turn of a relay reads of a connection, so that it is received
/// in pieces.
const MAX_TYPICAL_SIZE: usize = 200;
const LONG_MESSAGE_RATIO: u32 = 64;

/// The size of the longest message in a soak, in bytes.
pub(super) const MAX_SOAK_SIZE: usize = 32 * 1024;

/// The size of a message's head, which identifies it: `000042:000000017`. The numbers of more than
/// a million senders have more digits.
pub(super) const fn head_len(senders: usize) -> usize {
    sender_digits(senders) + 1 + SEQ_DIGITS
}

const fn sender_digits(senders: usize) -> usize {
    if senders > 10_usize.pow(MIN_SENDER_DIGITS as u32) {
        (senders - 1).ilog10() as usize + 1
    } else {
        MIN_SENDER_DIGITS
    }
}

/// A `Codec` writes and reads the messages of one run.
#[derive(Debug, Default)]
pub(super) struct Codec {
    pub(super) protocol: Protocol,
    /// It distinguishes the names of this run from others.
    pub(super) tag: String,
    sender_digits: usize,
    /// The text after the head, or what it is cut from.
    text: Vec<u8>,
    /// The seed of the cuts, if not all messages have the whole text.
    cuts: Option<u64>,
    payload: Vec<u8>,
}

/// A `MessageId` identifies a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MessageId {
    /// The number of its sender.
    pub(super) sender: u32,
    /// The number of messages that the sender has sent before it.
    pub(super) seq: u32,
}

impl Codec {
    /// Messages of `size` bytes, at least [`head_len`]; the same for the same seed.
    pub(super) fn new(
        protocol: Protocol,
        tag: &str,
        size: usize,
        senders: usize,
        seed: u64,
    ) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut text = vec![b' '];
        text.resize_with(size.saturating_sub(head_len(senders)), || {
            // Words of five letters on average.
            if chance.u8(..6) == 0 {
                b' '
            } else {
                chance.lowercase() as u8
            }
        });
        Self {
            protocol,
            tag: tag.to_owned(),
            sender_digits: sender_digits(senders),
            text,
            cuts: None,
            payload: Vec::new(),
        }
    }

    /// Messages of many sizes, for a soak; the same for the same seed.
    pub(super) fn of_soak(protocol: Protocol, tag: &str, seed: u64) -> Self {
        let mut text = vec![0; 2 * MAX_SOAK_SIZE];
        fastrand::Rng::with_seed(seed).fill(&mut text);
        Self {
            sender_digits: SOAK_SENDER_DIGITS,
            text,
            cuts: Some(seed),
            ..Self::new(protocol, tag, 0, 0, seed)
        }
    }

    /// Appends a message.
    pub(super) fn write(&mut self, id: MessageId, out: &mut Vec<u8>) {
        let mut payload = mem::take(&mut self.payload);
        payload.clear();
        // Writing to a vector does not fail.
        let _ = write!(
            payload,
            "{:01$}:{2:09}",
            id.sender, self.sender_digits, id.seq
        );
        payload.extend_from_slice(self.text_of(id));
        self.protocol.queue(&payload, &self.tag, out);
        self.payload = payload;
    }

    /// Returns which message this is, and whether it is as it was sent; `None` if it is no message
    /// of this format.
    pub(super) fn read(&self, payload: &[u8]) -> Option<(MessageId, bool)> {
        let (sender, rest) = payload.split_at_checked(self.sender_digits)?;
        let (seq, text) = rest.strip_prefix(b":")?.split_at_checked(SEQ_DIGITS)?;
        let id = MessageId {
            sender: number(sender)?,
            seq: number(seq)?,
        };
        Some((id, text == self.text_of(id)))
    }

    fn text_of(&self, id: MessageId) -> &[u8] {
        let Some(seed) = self.cuts else {
            return &self.text;
        };
        let id_bits = u64::from(id.sender) << 32 | u64::from(id.seq);
        let mut chance = fastrand::Rng::with_seed(seed ^ id_bits);
        let most = if chance.u32(..LONG_MESSAGE_RATIO) == 0 {
            MAX_SOAK_SIZE - SOAK_SENDER_DIGITS - 1 - SEQ_DIGITS
        } else {
            MAX_TYPICAL_SIZE
        };
        let from = chance.usize(..MAX_SOAK_SIZE);
        &self.text[from..][..chance.usize(..=most)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header;

    const MIN_HEAD: usize = head_len(2);
    const SOAK_HEAD: usize = SOAK_SENDER_DIGITS + 1 + SEQ_DIGITS;

    const MESSAGE: MessageId = MessageId {
        sender: 42,
        seq: 17,
    };

    fn of_size(size: usize, senders: usize, seed: u64) -> Codec {
        Codec::new(Protocol::Chat10, "tag", size, senders, seed)
    }

    fn of_soak(seed: u64) -> Codec {
        Codec::of_soak(Protocol::Chat10, "tag", seed)
    }

    /// The payload of a message.
    fn written(codec: &mut Codec, id: MessageId) -> Vec<u8> {
        let mut out = Vec::new();
        codec.write(id, &mut out);
        out.split_off(header::WIDTH)
    }

    #[test]
    fn message_has_the_number_of_its_sender_and_the_requested_size() {
        for size in [16, 17, 64, 1000] {
            let mut codec = of_size(size, 2, 1);
            let payload = written(&mut codec, MESSAGE);
            assert_eq!(payload.len(), size);
            assert_eq!(&payload[..MIN_HEAD], b"000042:000000017");
            assert_eq!(codec.read(&payload), Some((MESSAGE, true)));
        }
    }

    #[test]
    fn sender_number_has_as_many_digits_as_the_number_of_senders_needs() {
        assert_eq!([0, 1, 1_000_000].map(head_len), [16, 16, 16]);
        assert_eq!(head_len(1_000_001), 17);
        let mut codec = of_size(20, 12_000_000, 1);
        let last = MessageId {
            sender: 11_999_999,
            seq: 3,
        };
        let payload = written(&mut codec, last);
        assert_eq!(&payload[..18], b"11999999:000000003");
        assert_eq!(payload.len(), 20);
        assert_eq!(codec.read(&payload), Some((last, true)));
    }

    #[test]
    fn soak_messages_have_the_number_of_their_sender_and_many_sizes() {
        let mut codec = of_soak(7);
        let mut sizes: Vec<_> = (0..10_000)
            .map(|seq| {
                let id = MessageId { seq, ..MESSAGE };
                let payload = written(&mut codec, id);
                assert_eq!(codec.read(&payload), Some((id, true)));
                assert!(payload.starts_with(format!("000000042:{seq:09}").as_bytes()));
                payload.len()
            })
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes[0], SOAK_HEAD);
        let median = sizes[5000];
        assert!((SOAK_HEAD..SOAK_HEAD + 200).contains(&median), "{median}");
        let longest = sizes[9999];
        assert!(
            (MAX_SOAK_SIZE / 2..=MAX_SOAK_SIZE).contains(&longest),
            "{longest}"
        );
        let long = sizes.iter().filter(|&&size| size > SOAK_HEAD + 200).count();
        assert!((100..220).contains(&long), "{long}");
    }

    #[test]
    fn same_seed_gives_the_same_messages_and_another_does_not() {
        let codecs: [fn(u64) -> Codec; 2] = [|seed| of_size(64, 2, seed), of_soak];
        for new in codecs {
            let message = |seed| written(&mut new(seed), MESSAGE);
            assert_eq!(message(7), message(7));
            assert_ne!(message(7), message(8));
        }
    }

    #[test]
    fn message_that_was_changed_anywhere_is_not_as_it_was_sent() {
        let codecs = [(of_size(20, 2, 1), MIN_HEAD), (of_soak(1), SOAK_HEAD)];
        for (mut codec, head) in codecs {
            let payload = written(&mut codec, MESSAGE);
            assert!(payload.len() > head, "a message with more than a head");
            for at in 0..payload.len() {
                let mut changed = payload.clone();
                changed[at] ^= 1;
                assert_ne!(codec.read(&changed), Some((MESSAGE, true)), "{at}");
            }
            for len in 0..payload.len() {
                let expected = (len >= head).then_some((MESSAGE, false));
                assert_eq!(codec.read(&payload[..len]), expected);
            }
            let longer = [&payload[..], b"x"].concat();
            assert_eq!(codec.read(&longer), Some((MESSAGE, false)));
        }
    }
}
