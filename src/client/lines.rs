//! Lines out of a stream that is cut anywhere.

/// Takes a stream apart at its line feeds. The bytes of an unfinished line are kept until it is done.
#[derive(Debug, Default)]
pub struct LineSplitter {
    unfinished: Vec<u8>,
}

impl LineSplitter {
    /// Hands each line that is complete by now to `on_line`, without its line feed and otherwise as
    /// it came.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.unfinished.is_empty() {
                on_line(line);
            } else {
                self.unfinished.extend_from_slice(line);
                on_line(&self.unfinished);
                // A long line's buffer is not kept for the short ones that may follow.
                self.unfinished = Vec::new();
            }
            bytes = rest;
        }
        self.unfinished.extend_from_slice(bytes);
    }

    /// Hands out the last line if it did not end in a line feed.
    pub fn finish(&mut self, on_line: impl FnOnce(&[u8])) {
        if !self.unfinished.is_empty() {
            on_line(&std::mem::take(&mut self.unfinished));
        }
    }

    /// How long the unfinished line is so far, in bytes.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.feed(piece, |line| lines.push(line.to_vec()));
        }
        splitter.finish(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn lines_are_what_stands_between_line_feeds() {
        for (stream, lines) in [
            (&b""[..], &[][..]),
            (b"one", &[&b"one"[..]]),
            (b"one\n", &[b"one"]),
            (b"\n\n", &[b"", b""]),
            (b"one\r\n\ntwo \xff", &[b"one\r", b"", b"two \xff"]),
        ] {
            assert_eq!(lines_of([stream]), lines, "{stream:?}");
            assert_eq!(lines_of(stream.chunks(1)), lines, "{stream:?}");
        }
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(
            stream in "[ab\n]{0,60}",
            size in 1..20_usize,
        ) {
            let expected: Vec<_> = stream.lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines_of(stream.as_bytes().chunks(size)), expected);
        }
    }
}
