//! The header grammar, with a parser of our own.
//!
//! ```text
//! header = *SP 1*DIGIT *SP        ; exactly the dialect's width; "5         " for a width of ten
//! ```
//!
//! Spaces may lead because one tutorial's client formats with Python's `:< {10}`, where the blank is
//! the sign option. Everything else is refused at its first impossible byte: a header of spaces alone,
//! a sign, an underscore, an inner space, a tab, NUL, a letter, a non-ASCII digit. Neither Python's
//! `int()` nor Rust's `FromStr` can be the parser: both take `+5`, and two programs that disagree about
//! a length disagree about where every later frame begins (CVE-2021-32715 was that mistake in an HTTP
//! library). For the same reason the relay writes headers of its own and never echoes a sender's.

/// Width in bytes of `chat10` headers, and of every header that the relay writes.
pub const WIDTH: usize = 10;

/// Width in bytes of the headers that `chat64` and `ack64` clients send.
pub const WIDE: usize = 64;

/// The largest length that a header of [`WIDTH`] can announce: ten digits.
pub const MAX_LEN: u64 = 9_999_999_999;

/// The length that a header announces, or `None` if it is not a header.
///
/// The slice is the whole header, of any width. A number too large for a `u64` comes back as
/// [`u64::MAX`], which is over every limit, so that no header can overflow its way to a small one.
#[must_use]
pub fn parse(header: &[u8]) -> Option<u64> {
    Prefix::default().extend(header)?.announced()
}

/// The part of a header that has arrived, as far as the grammar has come with it.
///
/// `None` in place of a `Prefix` means that no header begins with these bytes. The width is not known
/// here: a complete header of spaces alone is a prefix without a [length](Prefix::announced).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Prefix {
    /// No bytes, or spaces alone.
    #[default]
    Blank,
    /// The last byte is a digit of this number.
    Digits(u64),
    /// A space has ended this number. Only spaces can follow.
    Padded(u64),
}

impl Prefix {
    /// The prefix with these bytes after it, or `None` at the first byte that the grammar has no place
    /// for.
    #[inline]
    pub(super) fn extend(mut self, bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes.iter();
        if self == Self::Blank {
            match bytes.find(|&&byte| byte != b' ') {
                None => return Some(self),
                Some(digit @ b'0'..=b'9') => self = Self::Digits(u64::from(digit - b'0')),
                Some(_) => return None,
            }
        }
        if let Self::Digits(mut len) = self {
            loop {
                match bytes.next() {
                    None => return Some(Self::Digits(len)),
                    Some(digit @ b'0'..=b'9') => len = with_digit(len, *digit),
                    Some(b' ') => break,
                    Some(_) => return None,
                }
            }
            self = Self::Padded(len);
        }
        bytes.all(|&byte| byte == b' ').then_some(self)
    }

    /// The length that a complete header announces, like that of [`parse`].
    pub(super) const fn announced(self) -> Option<u64> {
        match self {
            Self::Blank => None,
            Self::Digits(len) | Self::Padded(len) => Some(len),
        }
    }
}

/// A decimal number with one more digit; [`u64::MAX`] stands for all that are larger.
#[inline]
fn with_digit(number: u64, digit: u8) -> u64 {
    number
        .saturating_mul(10)
        .saturating_add(u64::from(digit - b'0'))
}

/// The canonical header for a payload of `len` bytes: digits first, then spaces.
///
/// # Panics
///
/// If `len` is over [`MAX_LEN`].
#[must_use]
pub fn encode(len: usize) -> [u8; WIDTH] {
    let mut header = [b' '; WIDTH];
    let mut digits = [0; WIDTH];
    let mut first = WIDTH;
    let mut rest = len;
    loop {
        assert!(first > 0, "a payload of {len} bytes does not fit a header");
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    header[..WIDTH - first].copy_from_slice(&digits[first..]);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_grammar_are_read() {
        for (header, len) in [
            ("5         ", 5),
            ("0         ", 0),
            (" 5        ", 5),
            ("         5", 5),
            ("   12     ", 12),
            ("0000000005", 5),
            ("0000000000", 0),
            ("4294967296", 4_294_967_296),
            ("9999999999", MAX_LEN),
        ] {
            assert_eq!(parse(header.as_bytes()), Some(len), "{header:?}");
        }
    }

    #[test]
    fn anything_else_is_no_header() {
        for header in [
            "          ",
            "+5        ",
            "-5        ",
            "1_0       ",
            "1 0       ",
            "5\t        ",
            "\t5        ",
            "5\n        ",
            "5\0        ",
            "0x5       ",
            "5.0       ",
            "1e3       ",
            "5a        ",
            "GET / HTTP",
            "٥        ",
            "５       ",
            "",
        ] {
            assert_eq!(parse(header.as_bytes()), None, "{header:?}");
        }
        assert_eq!(parse(&[0xff; WIDTH]), None);
    }

    #[test]
    fn every_single_byte_is_a_digit_a_space_or_refused() {
        for byte in 0..=u8::MAX {
            let mut header = *b"1         ";
            header[1] = byte;
            let expected = match byte {
                b'0'..=b'9' => Some(10 + u64::from(byte - b'0')),
                b' ' => Some(1),
                _ => None,
            };
            assert_eq!(parse(&header), expected, "byte {byte:#04x}");
        }
    }

    /// A prefix that came byte by byte.
    fn prefix_of(bytes: &[u8]) -> Option<Prefix> {
        bytes.chunks(1).try_fold(Prefix::default(), Prefix::extend)
    }

    #[test]
    fn prefix_is_refused_exactly_if_no_header_begins_with_it() {
        // Each sequence of up to seven bytes of these kinds.
        let kinds = b" 07+";
        let mut prefixes = vec![Vec::new()];
        while let Some(prefix) = prefixes.pop() {
            let padded_with = |byte| {
                let mut header = prefix.clone();
                header.resize(WIDTH, byte);
                parse(&header).is_some()
            };
            let begins_a_header = padded_with(b' ') || padded_with(b'0');
            let found = prefix_of(&prefix);
            let text = prefix.escape_ascii();
            assert_eq!(found.is_some(), begins_a_header, "\"{text}\"");
            assert_eq!(Prefix::default().extend(&prefix), found, "\"{text}\"");
            if let Some(found) = found {
                assert_eq!(found.announced(), parse(&prefix), "\"{text}\"");
            }
            if prefix.len() < 7 {
                for &byte in kinds {
                    prefixes.push([&*prefix, &[byte]].concat());
                }
            }
        }
    }

    #[test]
    fn prefix_of_a_wide_header_cannot_overflow() {
        for digits in [20, 21, 40, WIDE] {
            let header = vec![b'9'; digits];
            let prefix = prefix_of(&header).unwrap();
            assert_eq!(prefix.announced(), Some(u64::MAX), "{digits} digits");
        }
    }

    #[test]
    fn a_wide_header_cannot_overflow() {
        let mut header = [b' '; WIDE];
        header[..26].fill(b'9');
        assert_eq!(parse(&header), Some(u64::MAX));
        header.fill(b'9');
        assert_eq!(parse(&header), Some(u64::MAX));
        // 2^64 + 5 would be 5 if the digits were added up modulo 2^64.
        header.fill(b' ');
        header[..20].copy_from_slice(b"18446744073709551621");
        assert_eq!(parse(&header), Some(u64::MAX));
    }

    #[test]
    fn what_is_encoded_is_left_aligned_and_reads_back() {
        assert_eq!(&encode(0), b"0         ");
        assert_eq!(&encode(5), b"5         ");
        assert_eq!(&encode(1_048_576), b"1048576   ");
        assert_eq!(&encode(9_999_999_999), b"9999999999");
        for len in (0..1000).chain([9_999, 10_000, 123_456_789, 1_000_000_000]) {
            assert_eq!(parse(&encode(len)), Some(len as u64));
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_length_of_eleven_digits_is_never_encoded() {
        let _ = encode(10_000_000_000);
    }
}
