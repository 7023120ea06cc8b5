//! The JSON objects that browser members receive.
//!
//! They are those of `chatloop join --json`. The relay reads no JSON: what a browser sends is plain text.

use std::time::Duration;

use super::websocket::MAX_HEADER;

/// A time of day as text, to milliseconds: `2026-11-27T23:50:01.123Z` (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeText([u8; 24]);

impl TimeText {
    /// The text of a time since the beginning of 1970. After the year 9999 it stands still.
    #[must_use]
    pub fn new(since_1970: Duration) -> Self {
        const LAST_SECOND: u64 = 253_402_300_799;
        let seconds = since_1970.as_secs().min(LAST_SECOND);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (at, width, value) in [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, second / 3600),
            (14, 2, second / 60 % 60),
            (17, 2, second % 60),
            (20, 3, u64::from(since_1970.subsec_millis())),
        ] {
            let mut rest = value;
            for digit in text[at..at + width].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        Self(text)
    }
}

impl Default for TimeText {
    fn default() -> Self {
        Self::new(Duration::ZERO)
    }
}

/// The year, month and day of a count of days since the beginning of 1970, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last one, and in eras of 400 years, which
/// all have the same days.
const fn date(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468;
    const DAYS_OF_ERA: u64 = 146_097;
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year + (month <= 2) as u64;
    (year, month, day_of_month)
}

/// The most that a message takes beside its name and its text, as an object in a frame, in bytes.
pub(super) const OVERHEAD: usize =
    r#"{"time":"","name":"","name_hex":"","message":"","message_hex":""}"#.len()
        + size_of::<TimeText>()
        + MAX_HEADER;

/// The most that each byte of a name or a text takes: an escape of six, and two hexadecimal digits where
/// other bytes are not UTF-8.
pub(super) const MAX_GROWTH: usize = 8;

/// Appends a message as an object. Where bytes are not UTF-8, the text has U+FFFD in their place, and a
/// field of its own has all the bytes in hexadecimal.
pub(super) fn push_message(name: &[u8], message: &[u8], time: &TimeText, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(&time.0);
    out.extend_from_slice(b"\",\"name\":");
    push_value(b"name", name, out);
    out.extend_from_slice(b",\"message\":");
    push_value(b"message", message, out);
    out.push(b'}');
}

fn push_value(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if is_plain(value) {
        out.extend_from_slice(value);
        out.push(b'"');
        return;
    }
    let mut is_utf8 = true;
    for part in value.utf8_chunks() {
        push_escaped(part.valid(), out);
        if !part.invalid().is_empty() {
            is_utf8 = false;
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
    if !is_utf8 {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(key);
        out.extend_from_slice(b"_hex\":\"");
        for byte in value {
            out.extend([byte >> 4, byte & 0xf].map(hex_digit));
        }
        out.push(b'"');
    }
}

/// Whether a text is ASCII that needs no escape. Most are.
fn is_plain(text: &[u8]) -> bool {
    // Without an early end the compiler looks at many bytes at once.
    let special = text.iter().fold(0, |special, &byte| {
        special
            | u8::from(!(b' '..0x7f).contains(&byte))
            | u8::from(byte == b'"')
            | u8::from(byte == b'\\')
    });
    special == 0
}

fn push_escaped(text: &str, out: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..b' ' => {
                out.extend_from_slice(b"\\u00");
                out.extend([byte >> 4, byte & 0xf].map(hex_digit));
            }
            _ => out.push(byte),
        }
    }
}

const fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &TimeText) -> String {
        String::from_utf8(text.0.to_vec()).unwrap()
    }

    #[test]
    fn time_is_written_with_leap_years_as_the_calendar_has_them() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_764_287_401_123, "2025-11-27T23:50:01.123Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            let text = TimeText::new(Duration::from_millis(millis));
            assert_eq!(time(&text), expected);
        }
        let late = TimeText::new(Duration::from_secs(u64::MAX));
        assert_eq!(time(&late), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn message_is_an_object_that_any_parser_reads() {
        for (name, message, expected) in [
            ("alice", "hi", r#""name":"alice","message":"hi"}"#),
            ("", "", r#""name":"","message":""}"#),
            (
                "\"\\",
                "a\u{1}\n\t\r\u{7f}é",
                "\"name\":\"\\\"\\\\\",\"message\":\"a\\u0001\\n\\t\\r\u{7f}é\"}",
            ),
        ] {
            let mut out = Vec::new();
            let time = TimeText::default();
            push_message(name.as_bytes(), message.as_bytes(), &time, &mut out);
            let text = String::from_utf8(out).unwrap();
            let start = r#"{"time":"1970-01-01T00:00:00.000Z","#;
            assert_eq!(text, format!("{start}{expected}"));
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            let fields = (&read["name"], &read["message"]);
            assert_eq!(fields, (&name.into(), &message.into()));
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_there_in_hexadecimal() {
        let mut out = Vec::new();
        push_message(b"n\xff", b"\xc3", &TimeText::default(), &mut out);
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(read["name"], "n\u{fffd}");
        assert_eq!(read["name_hex"], "6eff");
        assert_eq!(read["message"], "\u{fffd}");
        assert_eq!(read["message_hex"], "c3");
    }
}
