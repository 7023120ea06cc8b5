//! Escaping of text that strangers wrote, before it reaches a terminal or a log.
//!
//! A name or a message may hold terminal escapes that repaint the screen, a line feed that forges a
//! log line, or a bidirectional override that turns a name around. The relay passes such bytes on
//! untouched, they are the sender's words; but where *we* show them, they are shown as what they
//! are.

use std::fmt::{self, Write as _};

/// Shows bytes from the wire on one line, with everything that is not plainly printable escaped.
///
/// Printable Unicode stays as it is, so a name in any script is readable. Control characters,
/// bidirectional and other invisible formatting characters, line separators, unassigned code points
/// and the backslash itself are written as Rust writes them (`\n`, `\u{202e}`, `\\`), bytes that
/// are not UTF-8 as `\xff`. So the escaping can be undone, and no text can pose as an escaped one.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            // `escape_debug` is made for literals and would escape the quotes in O'Brien as well.
            for piece in chunk.valid().split_inclusive(['\'', '"']) {
                let text = piece.trim_end_matches(['\'', '"']);
                write!(f, "{}", text.escape_debug())?;
                f.write_str(&piece[text.len()..])?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Shows bytes from the wire as [`Escaped`] does, between double quotes, with those inside escaped
/// too: no name can end its quotation and go on as if it were the log's.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for (index, part) in self.0.split(|&byte| byte == b'"').enumerate() {
            if index > 0 {
                f.write_str("\\\"")?;
            }
            Escaped(part).fmt(f)?;
        }
        f.write_str("\"")
    }
}

/// Shows a stranger's text to a person: as [`Escaped`], but readable first.
///
/// The backslash stays as it is, and so do the spaces that other scripts use, the joiners without
/// which Persian and family emoji fall apart, and the tags of flags. None of these can move the
/// cursor, forge a line or turn one around; but a text can *look* like an escape here. Where that
/// matters, give marks that no text can contain, such as the terminal's codes for reverse video: they
/// are put around each run of escapes.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The bytes from the wire.
    pub bytes: &'a [u8],
    /// What to put before and after what is escaped.
    pub marks: (&'a str, &'a str),
}

impl<'a> Shown<'a> {
    /// Without marks.
    #[must_use]
    pub const fn plain(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            marks: ("", ""),
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.marks;
        // Whether an escape has been begun and not ended, and whether there is something in front of
        // this that a mark can combine with.
        let (mut marked, mut joins) = (false, false);
        for chunk in self.bytes.utf8_chunks() {
            for char in chunk.valid().chars() {
                let plain = is_plain(char, joins);
                if plain == marked {
                    f.write_str(if plain { after } else { before })?;
                    marked = !plain;
                }
                if plain {
                    f.write_char(char)?;
                } else {
                    write!(f, "{}", char.escape_debug())?;
                }
                joins = plain;
            }
            for byte in chunk.invalid() {
                if !marked {
                    f.write_str(before)?;
                    marked = true;
                }
                write!(f, "\\x{byte:02x}")?;
                joins = false;
            }
        }
        if marked {
            f.write_str(after)?;
        }
        Ok(())
    }
}

/// Whether [`Shown`] shows a character as it is.
fn is_plain(char: char, joins: bool) -> bool {
    match char {
        // What `escape_debug` escapes for the sake of literals, and the spaces (category Zs).
        '\\'
        | '\''
        | '"'
        | '\u{a0}'
        | '\u{1680}'
        | '\u{2000}'..='\u{200a}'
        | '\u{202f}'
        | '\u{205f}'
        | '\u{3000}' => true,
        // Joiners, tags and everything else that combines, if there is something to combine with.
        '\u{200c}' | '\u{200d}' | '\u{e0020}'..='\u{e007f}' => joins,
        _ if char.escape_debug().len() == 1 => true,
        // `escape_debug` of a `char` escapes whatever combines, that of a `str` only at the front.
        _ => {
            joins
                && ['x', char]
                    .iter()
                    .collect::<String>()
                    .escape_debug()
                    .count()
                    == 2
        }
    }
}

/// Writes a text as a JSON string (RFC 8259), quotes included, so that it does no harm on a terminal
/// either: whatever [`Shown`] would escape is written as `\u` and four digits, or two of these for a
/// character beyond the basic plane. What a parser gets is the exact text.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a>(pub &'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        let mut joins = false;
        for char in self.0.chars() {
            let plain = is_plain(char, joins);
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                '\n' => f.write_str("\\n")?,
                _ if plain => f.write_char(char)?,
                _ => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        write!(f, "\\u{unit:04x}")?;
                    }
                }
            }
            joins = plain;
        }
        f.write_str("\"")
    }
}

/// Writes bytes from the wire as a field of a JSON object, under this key. If they are not UTF-8, U+FFFD stands
/// in their place, and a second field, with `_hex` after the key, has all of them in hexadecimal.
#[derive(Clone, Copy, Debug)]
pub struct JsonField<'a>(pub &'a str, pub &'a [u8]);

impl fmt::Display for JsonField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, value) = *self;
        let text = String::from_utf8_lossy(value);
        write!(f, "\"{key}\":{}", Json(&text))?;
        if text.as_bytes() != value {
            write!(f, ",\"{key}_hex\":\"")?;
            value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_char('"')?;
        }
        Ok(())
    }
}

/// Writes bytes as a value of a query, percent-encoded (RFC 3986, 2.1).
#[derive(Clone, Copy, Debug)]
pub struct PercentEncoded<'a>(pub &'a [u8]);

impl fmt::Display for PercentEncoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            if byte.is_ascii_alphanumeric() || b"-._~/:@".contains(&byte) {
                f.write_char(byte.into())?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// Returns the bytes that a percent-encoded text stands for, or nothing if a percent sign in it is not followed by two
/// digits.
#[must_use]
pub fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let digits = (digit(bytes.next())?, digit(bytes.next())?);
            u8::try_from(digits.0 << 4 | digits.1).ok()?
        } else {
            byte
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percent_encoding_is_undone_by_decoding() {
        let bytes = "a b&c=ü%/:+@\n".as_bytes();
        let encoded = PercentEncoded(bytes).to_string();
        assert_eq!(encoded, "a%20b%26c%3D%C3%BC%25/:%2B@%0A");
        assert_eq!(percent_decoded(&encoded), Some(bytes.to_vec()));
        assert_eq!(percent_decoded("ü+%c3%bc"), Some("ü+ü".into()));
        for text in ["%", "a%f", "%+f", "%c3%b", "%ü"] {
            assert_eq!(percent_decoded(text), None, "{text}");
        }
    }

    fn shown(bytes: impl AsRef<[u8]>) -> String {
        Shown::plain(bytes.as_ref()).to_string()
    }

    #[test]
    fn what_people_write_is_shown_as_they_wrote_it() {
        for text in [
            r"C:\dir \o/",
            "O'Brien \"Bob\"",
            "Zoe\u{308} नमस्ते",
            "你好\u{3000}世界",
            "\u{6a9}\u{62a}\u{627}\u{628}\u{200c}\u{647}\u{627}",
            "👩\u{200d}👩\u{200d}👧 ❤\u{fe0f}",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "10\u{a0}000",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn what_could_do_harm_is_shown_escaped_and_marked() {
        let marked = |bytes: &[u8]| {
            let marks = ("<", ">");
            Shown { bytes, marks }.to_string()
        };
        assert_eq!(marked(b"a\x1b[2Jb"), "a<\\u{1b}>[2Jb");
        assert_eq!(marked(b"\r\n\xff\xfe"), "<\\r\\n\\xff\\xfe>");
        assert_eq!(marked("a\u{202e}b".as_bytes()), "a<\\u{202e}>b");
        assert_eq!(marked("\u{308}\u{200d}".as_bytes()), "<\\u{308}\\u{200d}>");
        assert_eq!(
            marked("\u{9b}1m\u{feff}".as_bytes()),
            "<\\u{9b}>1m<\\u{feff}>"
        );
        assert_eq!(marked(br"\u{1b}"), r"\u{1b}", "only looks like one");
    }

    #[test]
    fn json_says_exactly_what_was_said_and_does_no_harm() {
        assert_eq!(Json("a\"b\\c\nd").to_string(), r#""a\"b\\c\nd""#);
        assert_eq!(Json("\u{1b}[2J\u{9b}").to_string(), r#""\u001b[2J\u009b""#);
        assert_eq!(
            Json("\u{202e}\u{e0001}").to_string(),
            r#""\u202e\udb40\udc01""#
        );
        assert_eq!(Json("Zoë 👋").to_string(), "\"Zoë 👋\"");
    }

    proptest! {
        #[test]
        fn nothing_that_moves_the_cursor_is_shown(bytes: Vec<u8>, text: String) {
            for bytes in [&bytes[..], text.as_bytes()] {
                let json = Json(&String::from_utf8_lossy(bytes)).to_string();
                for text in [shown(bytes), json] {
                    prop_assert!(!text.contains(|char: char| char.is_control()));
                    let turned = text.contains(['\u{202e}', '\u{2066}', '\u{2028}']);
                    prop_assert!(!turned);
                }
            }
        }

        #[test]
        fn json_parses_to_what_was_said(text: String) {
            let parsed: String = serde_json::from_str(&Json(&text).to_string()).unwrap();
            prop_assert_eq!(parsed, text);
        }
    }

    fn escaped(bytes: impl AsRef<[u8]>) -> String {
        Escaped(bytes.as_ref()).to_string()
    }

    #[test]
    fn printable_text_of_any_script_is_left_alone() {
        for text in [
            "alice",
            "O'Brien \"Bob\"",
            "Zoë",
            "Zoe\u{308}",
            "李小龙",
            "नमस्ते",
            "👋",
            "علي",
            "",
        ] {
            assert_eq!(escaped(text), text);
        }
    }

    #[test]
    fn what_could_move_the_cursor_or_forge_a_line_is_escaped() {
        assert_eq!(escaped("a\nb\r\t"), "a\\nb\\r\\t");
        assert_eq!(escaped("\x1b[2J\x07\x7f"), "\\u{1b}[2J\\u{7}\\u{7f}");
        assert_eq!(escaped("\u{9b}31m"), "\\u{9b}31m", "C1 controls too");
        assert_eq!(escaped("\u{202e}evil\u{2066}"), "\\u{202e}evil\\u{2066}");
        assert_eq!(
            escaped("\u{200b}\u{2028}\u{feff}"),
            "\\u{200b}\\u{2028}\\u{feff}"
        );
        assert_eq!(escaped("\0"), "\\0");
        assert_eq!(escaped("\u{308}x"), "\\u{308}x", "nothing to combine with");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_shown_one_by_one() {
        assert_eq!(escaped(b"ok\xff\xc3(\xe2\x82"), "ok\\xff\\xc3(\\xe2\\x82");
    }

    #[test]
    fn no_text_can_pose_as_an_escaped_one() {
        assert_eq!(escaped(r"\xff"), r"\\xff");
    }

    #[test]
    fn no_name_can_end_its_quotation() {
        let name = b"x\" 203.0.113.9:22: connection reset, \\\"";
        let shown = r#""x\" 203.0.113.9:22: connection reset, \\\"""#;
        assert_eq!(Quoted(name).to_string(), shown);
        assert_eq!(Quoted(b"").to_string(), r#""""#);
    }

    #[test]
    fn no_byte_and_no_character_gets_through_as_a_control() {
        for char in (0..=0x10_ffff).filter_map(char::from_u32) {
            let shown = escaped(char.to_string());
            assert!(!shown.contains(|c: char| c.is_control()), "{char:?}");
        }
    }
}
