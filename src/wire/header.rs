//! The header grammar, with a parser of our own.
//!
//! ```text
//! header = *SP 1*DIGIT *SP        ; exactly the dialect's width; "5         " for a width of ten
//! ```
//!
//! Spaces may lead because one tutorial's client formats with Python's `:< {10}`, where the blank is
//! the sign option. Everything else is refused: a header of spaces alone, a sign, an underscore, an
//! inner space, a tab, NUL, a letter, a non-ASCII digit. Neither Python's `int()` nor Rust's
//! `FromStr` can be the parser: both take `+5`, and two programs that disagree about a length
//! disagree about where every later frame begins (CVE-2021-32715 was that mistake in an HTTP
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
    let first = header.iter().position(|&byte| byte != b' ')?;
    let last = header.iter().rposition(|&byte| byte != b' ')?;
    header[first..=last]
        .iter()
        .try_fold(0_u64, |len, byte| match byte {
            b'0'..=b'9' => Some(
                len.saturating_mul(10)
                    .saturating_add(u64::from(byte - b'0')),
            ),
            _ => None,
        })
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
