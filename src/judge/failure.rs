//! A failed expectation as text: bytes in the way of Python, cut where they are long.

use std::fmt;

/// The most bytes of a message that are shown.
const SHOWN_BYTES: usize = 60;

/// What a server did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The last bytes that a client had sent, and how.
    pub sent: String,
    /// What a client should have received.
    pub expected: String,
    /// What it received.
    pub came: String,
    /// The chapter of the guide that explains it, if it is not the one of the stage.
    pub(super) chapter: Option<usize>,
}

impl Failure {
    /// The same failure, which another chapter than that of the stage explains.
    pub(super) const fn in_chapter(mut self, chapter: usize) -> Self {
        self.chapter = Some(chapter);
        self
    }
}

/// Shows bytes as a literal of Python: `b'5         hello'`. Of many it shows the first ones and the number.
pub(super) struct ByteText<'a>(pub(super) &'a [u8]);

impl fmt::Display for ByteText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN_BYTES)];
        f.write_str("b'")?;
        for &byte in shown {
            match byte {
                b'"' => f.write_str("\"")?,
                _ => write!(f, "{}", byte.escape_ascii())?,
            }
        }
        f.write_str("'")?;
        if shown.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// Shows bytes that are not the expected ones, with the place where they differ if that is not in sight.
pub(super) fn difference(came: &[u8], expected: &[u8]) -> String {
    let same = came
        .iter()
        .zip(expected)
        .take_while(|(one, other)| one == other)
        .count();
    let text = ByteText(came);
    if same < SHOWN_BYTES {
        return text.to_string();
    }
    let from = &came[same - 10..];
    format!(
        "{text}; the first {same} bytes are right, and with the last ten of these it goes on {}",
        ByteText(from)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_python_writes_them() {
        for (bytes, text) in [
            (&b"5         hello"[..], "b'5         hello'"),
            (b"", "b''"),
            (b"\x00\xff\n\\", "b'\\x00\\xff\\n\\\\'"),
            (b"O'Brien \"", "b'O\\'Brien \"'"),
        ] {
            assert_eq!(ByteText(bytes).to_string(), text);
        }
        let long = ByteText(&[b'x'; 61]).to_string();
        assert_eq!(long, format!("b'{}'… (61 bytes)", "x".repeat(60)));
    }

    #[test]
    fn difference_far_behind_is_shown_with_the_bytes_before_it() {
        let mut came = vec![b'x'; 100];
        came[90] = b'!';
        let text = difference(&came, &[b'x'; 100]);
        assert!(text.ends_with("goes on b'xxxxxxxxxx!xxxxxxxxx'"), "{text}");
        assert_eq!(difference(b"ab", b"ac"), "b'ab'");
    }
}
