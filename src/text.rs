//! Escaping of text that strangers wrote, before it reaches a terminal or a log.
//!
//! A name or a message may hold terminal escapes that repaint the screen, a line feed that forges a
//! log line, or a bidirectional override that turns a name around. The relay passes such bytes on
//! untouched, they are the sender's words; but where *we* show them, they are shown as what they
//! are.

use std::fmt;

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
/// too: no name can end its quotation and go on as if the log had said it.
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

#[cfg(test)]
mod tests {
    use super::*;

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
