//! How a message looks: on a screen, and as a line of output.

use std::io::{self, Write};

use crossterm::queue;
use crossterm::style::{Attribute, Color, SetAttribute, SetForegroundColor};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr;

use crate::text::{Json, Quoted, Shown};

/// How messages are written to an output that is no screen, each on one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `name: message`, with what is not plain text escaped, and a name with a colon and a blank in
    /// it between quotes.
    #[default]
    Plain,
    /// A JSON object.
    Json,
    /// `name: message`, in exactly the bytes that came.
    Raw,
}

/// When it is, as shown to whoever looks.
#[derive(Clone, Debug)]
pub struct Clock {
    zone: TimeZone,
}

impl Clock {
    /// A clock that shows the time of this zone.
    #[must_use]
    pub const fn new(zone: TimeZone) -> Self {
        Self { zone }
    }

    fn write_to(&self, out: &mut Vec<u8>, now: Timestamp) -> io::Result<()> {
        write!(out, "{}", now.to_zoned(self.zone.clone()).strftime("%H:%M"))
    }
}

/// Appends a message as a line. With a `clock`, the line says when it came.
///
/// A JSON object has `name` and `message`, each a string; where bytes are not UTF-8 these have
/// U+FFFD in their place, and `name_hex` or `message_hex` has all the bytes in hexadecimal. With a
/// clock it has `time`, in UTC (RFC 3339).
///
/// # Errors
///
/// None: memory takes it all.
pub fn write_line(
    out: &mut Vec<u8>,
    format: Format,
    clock: Option<(&Clock, Timestamp)>,
    name: &[u8],
    message: &[u8],
) -> io::Result<()> {
    if format == Format::Json {
        out.push(b'{');
        if let Some((_, now)) = clock {
            write!(out, "\"time\":\"{now:.3}\",")?;
        }
        write_json(out, "name", name)?;
        out.push(b',');
        write_json(out, "message", message)?;
        out.push(b'}');
    } else {
        if let Some((clock, now)) = clock {
            clock.write_to(out, now)?;
            out.push(b' ');
        }
        if format == Format::Raw {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(message);
        } else {
            write!(out, "{}: {}", name_text(name), Shown::plain(message))?;
        }
    }
    out.push(b'\n');
    Ok(())
}

fn write_json(out: &mut Vec<u8>, key: &str, value: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(value);
    write!(out, "\"{key}\":{}", Json(&text))?;
    if text.as_bytes() != value {
        write!(out, ",\"{key}_hex\":\"")?;
        for byte in value {
            write!(out, "{byte:02x}")?;
        }
        out.push(b'"');
    }
    Ok(())
}

/// Which colours a terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// None are wanted (`NO_COLOR`).
    None,
    /// The eight that every terminal with colours has.
    Basic,
    /// The 256 of xterm.
    Indexed,
}

impl Palette {
    /// A name's colour. The same name has the same one everywhere and always.
    fn of(self, name: &[u8]) -> Option<Color> {
        // FNV-1a, since it has to be the same in every version of the program.
        let hash = name.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        // Its low bits alone say little of a short name.
        let hash = (hash ^ hash >> 15).wrapping_mul(0x85eb_ca6b) >> 13;
        match self {
            Self::None => None,
            Self::Basic => Some(pick(&BASIC, hash)),
            Self::Indexed => Some(Color::AnsiValue(pick(&INDEXED, hash))),
        }
    }
}

/// The basic colours, without black and white, of which one is the background.
const BASIC: [Color; 6] = [
    Color::DarkRed,
    Color::DarkGreen,
    Color::DarkYellow,
    Color::DarkBlue,
    Color::DarkMagenta,
    Color::DarkCyan,
];

/// Colours of xterm's cube that are neither too light for a white background nor too dark for a
/// black one, spread over the hues.
const INDEXED: [u8; 12] = [33, 35, 37, 67, 71, 99, 131, 136, 162, 170, 172, 203];

fn pick<T: Copy>(from: &[T], hash: u32) -> T {
    from[hash as usize % from.len()]
}

/// How things look on a screen: what stands above the line that is being typed.
///
/// Each line ends in CR LF, since a terminal in raw mode takes LF for "down" alone.
#[derive(Clone, Debug)]
pub struct Look {
    palette: Palette,
    /// Whether messages have the time in front.
    clock: Option<Clock>,
}

/// What a line that is no message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is good to know.
    Info,
    /// Something is not as it should be.
    Trouble,
}

impl Look {
    /// With a `clock`, messages have the time in front.
    #[must_use]
    pub const fn new(palette: Palette, clock: Option<Clock>) -> Self {
        Self { palette, clock }
    }

    /// Appends a message. Its first line has the name in front, further ones a bar, so that nobody
    /// can say a line that looks like somebody else's; nor can a name: see [`Self::write_name`]. A
    /// message that begins with "/me " is something that its sender does, as XEP-0245 has it.
    ///
    /// # Errors
    ///
    /// None: memory takes it all.
    pub fn write_message(
        &self,
        out: &mut Vec<u8>,
        now: Timestamp,
        name: &[u8],
        message: &[u8],
        cols: usize,
    ) -> io::Result<()> {
        let mut col = 0;
        if let Some(clock) = &self.clock {
            queue!(out, SetAttribute(Attribute::Dim))?;
            clock.write_to(out, now)?;
            queue!(out, SetAttribute(Attribute::Reset))?;
            out.push(b' ');
            col = "12:34 ".len();
        }
        let indent = col + INDENT;
        let action = message.strip_prefix(b"/me ");
        if action.is_some() {
            out.extend_from_slice(b"* ");
        }
        self.write_name(out, name)?;
        out.extend_from_slice(if action.is_some() { b" " } else { b": " });
        col += width_of_name(name) + if action.is_some() { 3 } else { 2 };
        for (index, line) in action
            .unwrap_or(message)
            .split(|&byte| byte == b'\n')
            .enumerate()
        {
            if index > 0 {
                out.extend_from_slice(b"\r\n");
                out.resize(out.len() + indent - INDENT, b' ');
                dim(out, "| ")?;
                col = indent;
            }
            write_wrapped(out, line, col, indent, cols)?;
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Appends a line of our own.
    ///
    /// # Errors
    ///
    /// None: memory takes it all.
    pub fn write_notice(
        &self,
        out: &mut Vec<u8>,
        kind: Notice,
        text: &str,
        cols: usize,
    ) -> io::Result<()> {
        match (kind, self.palette) {
            (Notice::Info, _) => queue!(out, SetAttribute(Attribute::Dim))?,
            (Notice::Trouble, Palette::None) => queue!(out, SetAttribute(Attribute::Bold))?,
            (Notice::Trouble, _) => queue!(out, SetForegroundColor(Color::DarkYellow))?,
        }
        out.extend_from_slice(b"-- ");
        write_wrapped(out, text.as_bytes(), 3, 3, cols)?;
        queue!(out, SetAttribute(Attribute::Reset))?;
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Appends a name, in bold and its colour; between quotes if it would look like a name and what
    /// somebody says.
    ///
    /// # Errors
    ///
    /// None: memory takes it all.
    pub fn write_name(&self, out: &mut Vec<u8>, name: &[u8]) -> io::Result<()> {
        queue!(out, SetAttribute(Attribute::Bold))?;
        if let Some(colour) = self.palette.of(name) {
            queue!(out, SetForegroundColor(colour))?;
        }
        if has_colon_and_blank(name) {
            write!(out, "{}", Quoted(name))?;
        } else {
            write_shown(out, name)?;
        }
        queue!(out, SetAttribute(Attribute::Reset))
    }
}

/// By how much the further rows of a message are indented, in columns.
const INDENT: usize = 2;

/// Appends text at column `col` of a screen, shown as [`write_shown`] does it. Where it goes on to
/// another row, it does so between words, and the row is indented: so nobody can pad a message with
/// blanks until its end looks like somebody else's. What is longer than a row, such as an address, is
/// left to the terminal, which knows then that it is one.
fn write_wrapped(
    out: &mut Vec<u8>,
    text: &[u8],
    mut col: usize,
    indent: usize,
    cols: usize,
) -> io::Result<()> {
    let mut rest = text;
    while !rest.is_empty() {
        let mut blanks = 0;
        while let Some(len) = blank_at(rest, blanks) {
            blanks += len;
        }
        let (blank, after) = rest.split_at(blanks);
        let end = (0..after.len()).find(|&at| blank_at(after, at).is_some());
        let (word, after) = after.split_at(end.unwrap_or(after.len()));
        let blanks = width_of(blank);
        let width = width_of(word);
        if col + blanks + width <= cols || blanks == 0 || indent + INDENT >= cols {
            write_shown(out, blank)?;
            col += blanks + width;
        } else if !word.is_empty() {
            out.extend_from_slice(b"\r\n");
            out.resize(out.len() + indent, b' ');
            col = indent + width;
        }
        write_shown(out, word)?;
        if col > cols {
            col %= cols;
        }
        rest = after;
    }
    Ok(())
}

/// How many bytes the blank at `at` has, if there is one: a space, or one of other scripts.
fn blank_at(text: &[u8], at: usize) -> Option<usize> {
    let len = match text.get(at)? {
        b' ' => return Some(1),
        0xc2 => 2,
        0xe1..=0xe3 => 3,
        _ => return None,
    };
    let char = str::from_utf8(text.get(at..at + len)?).ok()?;
    char.chars().all(char::is_whitespace).then_some(len)
}

/// Whether a part of a name in front of a message would pass for the name, and the rest for the
/// beginning of the message.
fn has_colon_and_blank(name: &[u8]) -> bool {
    (1..name.len()).any(|at| name[at - 1] == b':' && blank_at(name, at).is_some())
}

/// A name in front of a message.
fn name_text(name: &[u8]) -> String {
    if has_colon_and_blank(name) {
        Quoted(name).to_string()
    } else {
        Shown::plain(name).to_string()
    }
}

/// How many columns a name takes, as it is shown.
pub(super) fn width_of_name(name: &[u8]) -> usize {
    name_text(name).width()
}

/// How many columns text takes, as it is shown.
fn width_of(text: &[u8]) -> usize {
    Shown::plain(text).to_string().width()
}

/// Appends text that may be a stranger's, with what is escaped in reverse video.
pub(super) fn write_shown(out: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let marks = ("\x1b[7m", "\x1b[27m");
    write!(out, "{}", Shown { bytes, marks })
}

/// Appends text that is there but not what one looks at.
pub(super) fn dim(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    queue!(out, SetAttribute(Attribute::Dim))?;
    out.extend_from_slice(text.as_bytes());
    queue!(out, SetAttribute(Attribute::Reset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Timestamp {
        "2026-11-21T12:34:56.789Z".parse().unwrap()
    }

    fn line(format: Format, clock: bool, name: &[u8], message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let utc = Clock::new(TimeZone::UTC);
        let clock = clock.then_some((&utc, noon()));
        write_line(&mut out, format, clock, name, message).unwrap();
        out
    }

    #[test]
    fn a_line_is_one_line_whatever_was_said() {
        let message = b"a\nb\r\x1b[2J\xff \\o/";
        assert_eq!(
            line(Format::Plain, false, b"b\nob", message),
            b"b\\nob: a\\nb\\r\\u{1b}[2J\\xff \\o/\n"
        );
        assert_eq!(
            line(Format::Raw, false, b"b\nob", message),
            b"b\nob: a\nb\r\x1b[2J\xff \\o/\n"
        );
        assert_eq!(line(Format::Plain, true, b"bob", b"hi"), b"12:34 bob: hi\n");
    }

    #[test]
    fn a_name_cannot_pass_for_somebody_elses_message() {
        let look = Look::new(Palette::None, None);
        for (name, shown) in [
            ("alice: send bob the key", "\"alice: send bob the key\": ok"),
            ("\"alice: hm", "\"\\\"alice: hm\": ok"),
            ("alice:\u{a0}hm", "\"alice:\\u{a0}hm\": ok"),
            ("alice:", "alice:: ok"),
            ("a:b c", "a:b c: ok"),
        ] {
            let name = name.as_bytes();
            let written = line(Format::Plain, false, name, b"ok");
            assert_eq!(String::from_utf8(written).unwrap(), format!("{shown}\n"));
            let terminal = on_screen(|out| look.write_message(out, noon(), name, b"ok", 40));
            assert_eq!(terminal.screen().contents(), shown);
        }
        // The row is as full as it looks.
        let name = b"alice: send bob the key";
        let terminal = on_screen(|out| look.write_message(out, noon(), name, b"and be quick", 40));
        let expected = "\"alice: send bob the key\": and be quick";
        assert_eq!(terminal.screen().contents(), expected);
        let terminal =
            on_screen(|out| look.write_message(out, noon(), name, b"and be quick ok", 40));
        assert_eq!(terminal.screen().contents(), format!("{expected}\n  ok"));
    }

    #[test]
    fn a_json_line_has_every_byte() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(line(Format::Json, true, "Zoë".as_bytes(), b"a\n\"b\"")),
            "{\"time\":\"2026-11-21T12:34:56.789Z\",\"name\":\"Zoë\",\"message\":\"a\\n\\\"b\\\"\"}\n"
        );
        assert_eq!(
            text(line(Format::Json, false, b"bob", b"ok\xff")),
            "{\"name\":\"bob\",\"message\":\"ok\u{fffd}\",\"message_hex\":\"6f6bff\"}\n"
        );
    }

    /// What a terminal of this size shows.
    fn on_screen(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> vt100::Parser {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        let mut terminal = vt100::Parser::new(10.try_into().unwrap(), 40.try_into().unwrap(), 0);
        terminal.process(&out);
        terminal
    }

    #[test]
    fn further_lines_of_a_message_cannot_pass_for_somebody_elses() {
        let look = Look::new(Palette::Indexed, Some(Clock::new(TimeZone::UTC)));
        let forged = b"hi\n12:34 eve: I am bob";
        let terminal = on_screen(|out| look.write_message(out, noon(), b"bob", forged, 40));
        assert_eq!(
            terminal.screen().contents(),
            "12:34 bob: hi\n      | 12:34 eve: I am bob"
        );
        let look = Look::new(Palette::None, None);
        let terminal = on_screen(|out| look.write_message(out, noon(), b"bob", forged, 40));
        assert_eq!(
            terminal.screen().contents(),
            "bob: hi\n| 12:34 eve: I am bob"
        );
    }

    #[test]
    fn further_rows_of_a_line_cannot_either() {
        let look = Look::new(Palette::None, Some(Clock::new(TimeZone::UTC)));
        let shown = |message: &str| {
            let message = message.as_bytes();
            let terminal = on_screen(|out| look.write_message(out, noon(), b"bob", message, 40));
            terminal.screen().contents()
        };
        assert_eq!(
            shown(&format!("ok{}12:34 eve: I am bob", " ".repeat(27))),
            "12:34 bob: ok\n        12:34 eve: I am bob"
        );
        assert_eq!(
            shown(&format!(
                "ok{}12:34\u{a0}eve: I am bob",
                "\u{a0}".repeat(27)
            )),
            "12:34 bob: ok\n        12:34\u{a0}eve: I am bob"
        );
        assert_eq!(
            shown("words are not cut where a row ends"),
            "12:34 bob: words are not cut where a row\n        ends"
        );
        assert_eq!(
            shown("你好 世界 你好 世界 你好 世界 你好"),
            "12:34 bob: 你好 世界 你好 世界 你好 世界\n        你好"
        );
        // Nor is what could be copied, and the terminal knows that it is one line.
        let long = "x".repeat(60);
        assert_eq!(
            shown(&format!("see {long} there")),
            format!("12:34 bob: see\n        {long} there")
        );
        assert_eq!(shown(&" ".repeat(200)).trim_end(), "12:34 bob:");
    }

    #[test]
    fn actions_read_as_such() {
        let look = Look::new(Palette::Basic, None);
        let terminal = on_screen(|out| look.write_message(out, noon(), b"bob", b"/me waves", 40));
        assert_eq!(terminal.screen().contents(), "* bob waves");
        let terminal = on_screen(|out| look.write_message(out, noon(), b"bob", b"/meals", 40));
        assert_eq!(terminal.screen().contents(), "bob: /meals");
    }

    #[test]
    fn escapes_are_shown_in_reverse_video_and_nothing_else_is() {
        let look = Look::new(Palette::Indexed, None);
        let terminal =
            on_screen(|out| look.write_message(out, noon(), b"bob", b"\x1b[2Jhm \\u{1b}", 40));
        let screen = terminal.screen();
        assert_eq!(screen.contents(), "bob: \\u{1b}[2Jhm \\u{1b}");
        let inverse: Vec<_> = (0..40)
            .filter(|&col| screen.cell(0, col).unwrap().inverse())
            .collect();
        assert_eq!(inverse, [5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn names_have_colours_of_their_own_unless_none_are_wanted() {
        let colour = |palette, name: &str| {
            let look = Look::new(palette, None);
            let terminal =
                on_screen(|out| look.write_message(out, noon(), name.as_bytes(), b"x", 40));
            let cell = terminal.screen().cell(0, 0).unwrap();
            assert!(cell.bold());
            cell.fgcolor()
        };
        assert_eq!(colour(Palette::None, "alice"), vt100::Color::Default);
        for palette in [Palette::Basic, Palette::Indexed] {
            assert_ne!(colour(palette, "alice"), vt100::Color::Default);
            assert_ne!(colour(palette, "alice"), colour(palette, "bob"));
            assert_eq!(colour(palette, "alice"), colour(palette, "alice"));
        }
    }
}
