//! Splits a stream of bytes into lines.

/// A `LineSplitter` cuts a stream at its line ends, LF or CR LF, and keeps the bytes of an unfinished
/// line until its end arrives.
#[derive(Debug, Default)]
pub struct LineSplitter {
    unfinished: Vec<u8>,
}

impl LineSplitter {
    /// Passes each line that is complete by now to `on_line`, without its line end and otherwise
    /// unchanged.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.unfinished.is_empty() {
                on_line(without_cr(line));
            } else {
                self.unfinished.extend_from_slice(line);
                on_line(without_cr(&self.unfinished));
                // A long line's buffer is not kept for the short ones that may follow.
                self.unfinished = Vec::new();
            }
            bytes = rest;
        }
        self.unfinished.extend_from_slice(bytes);
    }

    /// Passes the last line on if the stream did not end in a line feed.
    pub fn finish(&mut self, on_line: impl FnOnce(&[u8])) {
        if !self.unfinished.is_empty() {
            on_line(&std::mem::take(&mut self.unfinished));
        }
    }

    /// The length of the unfinished line so far, in bytes.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }
}

/// A line without the carriage return of a CR LF.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
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
    fn line_ends_at_lf_or_crlf_however_the_stream_is_cut() {
        for (stream, lines) in [
            (&b""[..], &[][..]),
            (b"one", &[&b"one"[..]]),
            (b"one\n", &[b"one"]),
            (b"\n\n", &[b"", b""]),
            (b"one\r\n\ntwo \xff", &[b"one", b"", b"two \xff"]),
            (b"\r\n", &[b""]),
            // A CR that no LF follows is a byte like any other.
            (b"a\rb\r\r\n\r", &[b"a\rb\r", b"\r"]),
        ] {
            assert_eq!(lines_of([stream]), lines, "{stream:?}");
            assert_eq!(lines_of(stream.chunks(1)), lines, "{stream:?}");
        }
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_stream_is_cut(
            stream in "[ab\r\n]{0,60}",
            size in 1..20_usize,
        ) {
            let expected: Vec<_> = stream.lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines_of(stream.as_bytes().chunks(size)), expected);
        }
    }
}
