//! Messages as frames of `chat10`: a name and a message in turn.

use crate::wire::header;

/// `Frames` yields the messages of a byte string, each with its name.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// The messages of these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many messages there are; `None` if the bytes are not whole messages.
    #[must_use]
    pub fn count_messages(mut self) -> Option<u64> {
        let mut count = 0;
        while self.next().is_some() {
            count += 1;
        }
        self.rest.is_empty().then_some(count)
    }

    /// The bytes of the messages that are not taken yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = split_frame(self.rest)?;
        let (message, rest) = split_frame(rest)?;
        self.rest = rest;
        Some((name, message))
    }
}

/// The payload of the first frame, and the bytes after it.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(header::WIDTH)?;
    rest.split_at_checked(usize::try_from(header::parse(head)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_are_counted_and_all_else_is_none() {
        let bytes = b"5         alice2         hi0         0         ";
        assert_eq!(Frames::new(bytes).count_messages(), Some(2));
        assert_eq!(Frames::new(b"").count_messages(), Some(0));
        for len in 1..bytes.len() {
            let count = Frames::new(&bytes[..len]).count_messages();
            assert_eq!(count, (len == 27).then_some(1), "{len}");
        }
        let messages: Vec<_> = Frames::new(bytes).collect();
        assert_eq!(messages, [(&b"alice"[..], &b"hi"[..]), (b"", b"")]);
    }
}
