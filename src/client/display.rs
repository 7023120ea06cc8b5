//! Formats messages and notices: for a screen, and as lines of output.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use crossterm::queue;
use crossterm::style::{Attribute, Color, SetAttribute, SetForegroundColor};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr;

use super::incoming::Received;
use super::wrap::{Wrapper, columns, columns_of_char, is_blank};
use crate::text::{JsonField, Quoted, Shown};

/// A `Format` is how messages are written to an output that is no screen, each on one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `name: message`, with everything escaped that is not plainly printable, and with a name
    /// between quotes that could look like something else.
    #[default]
    Plain,
    /// A JSON object.
    Json,
    /// `name: message`, in exactly the bytes that were received.
    Raw,
}

/// A `Clock` formats the time of a message.
#[derive(Clone, Debug)]
pub struct Clock {
    zone: TimeZone,
}

impl Clock {
    /// Creates a clock for this time zone.
    #[must_use]
    pub const fn new(zone: TimeZone) -> Self {
        Self { zone }
    }

    /// The day of a time, as a reader of the messages has it.
    pub(super) fn day(&self, time: Timestamp) -> Date {
        time.to_zoned(self.zone.clone()).date()
    }

    /// Appends a time in this form, as of strftime(3).
    pub(super) fn write(&self, out: &mut Vec<u8>, form: &str, now: Timestamp) -> io::Result<()> {
        write!(out, "{}", now.to_zoned(self.zone.clone()).strftime(form))
    }
}

/// Appends a message as a line. With a `clock`, the line has the time.
///
/// A JSON object has the strings `name` and `message`. If bytes are not UTF-8, U+FFFD stands in their
/// place, and `name_hex` or `message_hex` has all the bytes in hexadecimal. With a clock it has `time`,
/// in UTC (RFC 3339). A message from before the client joined has `"history":true`.
///
/// # Errors
///
/// None: writing to memory does not fail.
pub fn write_line(
    out: &mut Vec<u8>,
    format: Format,
    clock: Option<(&Clock, Timestamp)>,
    message: &Received<'_>,
    is_past: bool,
) -> io::Result<()> {
    let Received { name, text, .. } = *message;
    if format == Format::Json {
        out.push(b'{');
        if let Some((_, now)) = clock {
            write!(out, "\"time\":\"{now:.3}\",")?;
        }
        let [name, text] = [JsonField("name", name), JsonField("message", text)];
        write!(out, "{name},{text}")?;
        if is_past {
            out.extend_from_slice(b",\"history\":true");
        }
        out.push(b'}');
    } else {
        if let Some((clock, now)) = clock {
            clock.write(out, "%H:%M ", now)?;
        }
        if format == Format::Raw {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(text);
        } else {
            write!(out, "{}: {}", shown_name(name), Shown::plain(text))?;
        }
    }
    out.push(b'\n');
    Ok(())
}

/// A `Palette` is the set of colours of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// No colours (`NO_COLOR`), or eight at most: which ones these are differs, and some of them are
    /// illegible on one background or the other.
    None,
    /// The 256 colours of xterm.
    Indexed,
}

impl Palette {
    /// The colour of a name. Equal names always have equal colours.
    fn of(self, name: &[u8]) -> Option<Color> {
        // FNV-1a, because it must be the same in every version of the program.
        let hash = name.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        // The low bits alone are much alike for short names.
        let hash = (hash ^ hash >> 15).wrapping_mul(0x85eb_ca6b) >> 13;
        match self {
            Self::None => None,
            Self::Indexed => Some(Color::AnsiValue(NAMES[hash as usize % NAMES.len()])),
        }
    }
}

/// The colours of xterm's 256 that are legible on a white background as well as on a black one, with a
/// contrast of 4.5 to 1 or more (WCAG 2.1, 1.4.3). There are no others, but for a grey. One is that of warnings
/// as well, and one that of mentions.
const NAMES: [u8; 5] = [29, 63, 98, WARNING, MENTION];
const WARNING: u8 = 131;
const MENTION: u8 = 163;
const GREY: u8 = 243;

/// The most lines of a message that are shown of one that is folded.
const MAX_LINES: usize = 10;

/// Whether a message has so many lines that it is folded.
pub(super) fn is_long(message: &[u8]) -> bool {
    message.split(|&byte| byte == b'\n').count() > MAX_LINES
}

/// A `Look` is how a message is shown, beside its text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether it mentions its reader, and is highlighted.
    pub is_mention: bool,
    /// Whether only its first lines are shown if it has many.
    pub is_folded: bool,
}

/// A `Theme` formats messages and notices for a screen.
///
/// Each row ends in CR LF, because LF alone only moves down on a terminal in raw mode.
#[derive(Clone, Debug)]
pub struct Theme {
    palette: Palette,
    /// The clock, if messages have the time in front.
    clock: Option<Clock>,
}

/// A `Notice` is the kind of a line that the client writes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Information.
    Info,
    /// A problem.
    Warning,
}

impl Theme {
    /// Creates a theme. With a `clock`, messages have the time in front.
    #[must_use]
    pub const fn new(palette: Palette, clock: Option<Clock>) -> Self {
        Self { palette, clock }
    }

    /// The day of a time, if messages have the time in front.
    pub(super) fn day(&self, time: Timestamp) -> Option<Date> {
        self.clock.as_ref().map(|clock| clock.day(time))
    }

    /// Appends a message. Its first row begins with the name, and each further row with an indent, so
    /// that no part of a message looks like the message of another member. Nor does a name: see
    /// [`write_name`](Self::write_name).
    ///
    /// Further lines of the message have a bar in the indent. A message that begins with "/me " is an
    /// action of its sender, as in XEP-0245.
    ///
    /// # Errors
    ///
    /// None: writing to memory does not fail.
    pub fn write_message(
        &self,
        out: &mut Vec<u8>,
        now: Timestamp,
        name: &[u8],
        message: &[u8],
        cols: usize,
        look: Look,
    ) -> io::Result<()> {
        let mut rows = Wrapper::new(out, cols);
        if let Some(clock) = &self.clock
            && Wrapper::has_room_for(TIME_COLS, cols)
        {
            let out = rows.codes();
            self.begin_quiet(out)?;
            clock.write(out, "%H:%M", now)?;
            queue!(out, SetAttribute(Attribute::Reset))?;
            out.push(b' ');
            rows.begin_name(TIME_COLS);
        }
        let action = message.strip_prefix(b"/me ");
        if action.is_some() {
            rows.write(b"* ");
        }
        self.begin_name(rows.codes(), name)?;
        rows.write(&bare_or_quoted(name));
        queue!(rows.codes(), SetAttribute(Attribute::Reset))?;
        rows.write(if action.is_some() { b" " } else { b": " });
        let lines = action.unwrap_or(message).split(|&byte| byte == b'\n');
        let more = lines.clone().count().saturating_sub(MAX_LINES);
        let most = if look.is_folded {
            MAX_LINES
        } else {
            usize::MAX
        };
        for (index, line) in lines.take(most).enumerate() {
            if index > 0 {
                rows.begin_line();
            }
            if look.is_mention {
                self.begin_mention(rows.codes())?;
            }
            rows.write(line);
        }
        queue!(rows.codes(), SetAttribute(Attribute::Reset))?;
        if look.is_folded && more > 0 {
            rows.begin_line();
            self.begin_quiet(rows.codes())?;
            let s = if more == 1 { "" } else { "s" };
            rows.write(
                format!("... {more} more line{s}: /more shows the whole message").as_bytes(),
            );
            queue!(rows.codes(), SetAttribute(Attribute::Reset))?;
        }
        rows.finish();
        Ok(())
    }

    /// Appends a notice of the client.
    ///
    /// # Errors
    ///
    /// None: writing to memory does not fail.
    pub fn write_notice(
        &self,
        out: &mut Vec<u8>,
        kind: Notice,
        text: &str,
        cols: usize,
    ) -> io::Result<()> {
        match (kind, self.palette) {
            (Notice::Info, _) => self.begin_quiet(out)?,
            (Notice::Warning, Palette::None) => queue!(out, SetAttribute(Attribute::Bold))?,
            (Notice::Warning, Palette::Indexed) => {
                queue!(out, SetForegroundColor(Color::AnsiValue(WARNING)))?;
            }
        }
        let mut rows = Wrapper::new(out, cols);
        rows.write(b"-- ");
        rows.write(text.as_bytes());
        queue!(rows.codes(), SetAttribute(Attribute::Reset))?;
        rows.finish();
        Ok(())
    }

    /// Appends a name, in bold and its colour, on one row. It is between quotes if it could look like
    /// something else, such as a notice, or the name of another member and what that member says.
    ///
    /// # Errors
    ///
    /// None: writing to memory does not fail.
    pub fn write_name(&self, out: &mut Vec<u8>, name: &[u8]) -> io::Result<()> {
        self.begin_name(out, name)?;
        write_shown(out, &bare_or_quoted(name))?;
        queue!(out, SetAttribute(Attribute::Reset))
    }

    /// Appends the code for what is less important than messages.
    fn begin_quiet(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match self.palette {
            Palette::None => queue!(out, SetAttribute(Attribute::Dim)),
            Palette::Indexed => queue!(out, SetForegroundColor(Color::AnsiValue(GREY))),
        }
    }

    /// Appends the codes for the text of a message that mentions its reader.
    fn begin_mention(&self, out: &mut Vec<u8>) -> io::Result<()> {
        queue!(out, SetAttribute(Attribute::Bold))?;
        match self.palette {
            Palette::None => Ok(()),
            Palette::Indexed => queue!(out, SetForegroundColor(Color::AnsiValue(MENTION))),
        }
    }

    /// Appends the codes for bold and a name's colour.
    fn begin_name(&self, out: &mut Vec<u8>, name: &[u8]) -> io::Result<()> {
        queue!(out, SetAttribute(Attribute::Bold))?;
        if let Some(colour) = self.palette.of(name) {
            queue!(out, SetForegroundColor(colour))?;
        }
        Ok(())
    }
}

/// The columns of the time and the blank after it.
const TIME_COLS: usize = "12:34 ".len();

/// A longer name is quoted, so that it does not look like a name and a message. In columns.
const MAX_BARE_NAME_COLS: usize = 32;

/// A name in front of a message, before it is escaped: between quotes if it could look like something
/// else.
///
/// A name looks like something else if it has a colon and a blank inside, like a name and a message; if
/// it begins like a notice, an action or a further line of a message; or if it has other blanks than
/// single spaces between words.
fn bare_or_quoted(name: &[u8]) -> Cow<'_, [u8]> {
    if needs_quotes(&Shown::plain(name).to_string()) {
        Quoted(name).to_string().into_bytes().into()
    } else {
        name.into()
    }
}

fn needs_quotes(shown: &str) -> bool {
    if columns(shown) > MAX_BARE_NAME_COLS {
        return true;
    }
    // Joiners and the like do not show, and must not hide what stands around them.
    let visible: String = shown
        .chars()
        .filter(|&char| columns_of_char(char) > 0)
        .collect();
    visible.is_empty()
        || ["--", "*", "|", " "]
            .iter()
            .any(|mark| visible.starts_with(mark))
        || [": ", "  "].iter().any(|pair| visible.contains(pair))
        || visible.ends_with(' ')
        || visible.contains(|char| char != ' ' && is_blank(char))
}

/// A name in front of a message, as text without marks.
pub(super) fn shown_name(name: &[u8]) -> String {
    Shown::plain(&bare_or_quoted(name)).to_string()
}

/// A `Named` is a name in a sentence or a list, between quotes if it would not look like one word.
pub(super) struct Named<'a>(pub(super) &'a [u8]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = Shown::plain(self.0).to_string();
        let ends_word = |char: char| char.is_whitespace() || matches!(char, ',' | '(' | ')');
        if shown.is_empty() || shown.contains(ends_word) {
            return Quoted(self.0).fmt(f);
        }
        f.write_str(&shown)
    }
}

/// The columns of a name, as it is shown.
pub(super) fn width_of_name(name: &[u8]) -> usize {
    shown_name(name).width()
}

/// Appends untrusted text, with escapes in reverse video.
pub(super) fn write_shown(out: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let marks = ("\x1b[7m", "\x1b[27m");
    write!(out, "{}", Shown { bytes, marks })
}

/// Appends dim text.
pub(super) fn dim(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    queue!(out, SetAttribute(Attribute::Dim))?;
    out.extend_from_slice(text.as_bytes());
    queue!(out, SetAttribute(Attribute::Reset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use unicode_width::UnicodeWidthChar;

    fn noon() -> Timestamp {
        "2026-11-21T12:34:56.789Z".parse().unwrap()
    }

    fn line(format: Format, clock: bool, name: &[u8], message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let utc = Clock::new(TimeZone::UTC);
        let clock = clock.then_some((&utc, noon()));
        let message = Received::new(name, message);
        write_line(&mut out, format, clock, &message, false).unwrap();
        out
    }

    #[test]
    fn message_is_one_line_whatever_it_contains() {
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
    fn name_is_quoted_if_it_could_look_like_something_else() {
        let theme = Theme::new(Palette::None, None);
        let long = "n".repeat(33);
        for (name, shown) in [
            // Bare.
            ("alice:", "alice:"),
            ("a:b c", "a:b c"),
            ("Juan de la Cruz", "Juan de la Cruz"),
            ("-alice-", "-alice-"),
            ("李小龙", "李小龙"),
            ("نيلوفر", "نيلوفر"),
            (&long[1..], &long[1..]),
            ("bell\u{7}", "bell\\u{7}"),
            // A name and a message.
            ("alice: send bob the key", "\"alice: send bob the key\""),
            ("\"alice: hm", "\"\\\"alice: hm\""),
            ("alice:\u{a0}hm", "\"alice:\\u{a0}hm\""),
            ("alice:\u{34f} hm", "\"alice:\u{34f} hm\""),
            // A notice, an action, a further line.
            ("-- the server", "\"-- the server\""),
            ("-\u{200d}- the server", "\"-\\u{200d}- the server\""),
            ("* alice waves", "\"* alice waves\""),
            ("*", "\"*\""),
            ("| and", "\"| and\""),
            // Blanks.
            ("", "\"\""),
            ("a  b", "\"a  b\""),
            (" a", "\" a\""),
            ("a ", "\"a \""),
            ("a\u{3000}b", "\"a\\u{3000}b\""),
            ("a\u{2800}b", "\"a\u{2800}b\""),
            // Wider than a name is.
            (&long, &format!("\"{long}\"")),
            (&"你".repeat(17), &format!("\"{}\"", "你".repeat(17))),
        ] {
            let name = name.as_bytes();
            let written = line(Format::Plain, false, name, b"ok");
            assert_eq!(
                String::from_utf8(written).unwrap(),
                format!("{shown}: ok\n")
            );
            let terminal =
                on_screen(|out| theme.write_message(out, noon(), name, b"ok", 40, Look::default()));
            assert_eq!(terminal.screen().contents(), format!("{shown}: ok"));
        }
    }

    #[test]
    fn row_with_a_quoted_name_is_filled_to_its_end() {
        let theme = Theme::new(Palette::None, None);
        let name = b"alice: send bob the key";
        let expected = "\"alice: send bob the key\": and be quick";
        let terminal = on_screen(|out| {
            theme.write_message(out, noon(), name, b"and be quick", 40, Look::default())
        });
        assert_eq!(terminal.screen().contents(), expected);
        let message = b"and be quick ok";
        let terminal =
            on_screen(|out| theme.write_message(out, noon(), name, message, 40, Look::default()));
        assert_eq!(terminal.screen().contents(), format!("{expected}\n   ok"));
    }

    #[test]
    fn json_line_preserves_every_byte() {
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

    /// A terminal that shows the output.
    fn on_screen(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> vt100::Parser {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        let mut terminal = vt100::Parser::new(10.try_into().unwrap(), 40.try_into().unwrap(), 0);
        terminal.process(&out);
        terminal
    }

    #[test]
    fn further_lines_of_a_message_have_a_bar_in_the_indent() {
        let theme = Theme::new(Palette::Indexed, Some(Clock::new(TimeZone::UTC)));
        let forged = b"hi\n12:34 eve: I am bob";
        let terminal =
            on_screen(|out| theme.write_message(out, noon(), b"bob", forged, 40, Look::default()));
        assert_eq!(
            terminal.screen().contents(),
            "12:34 bob: hi\n       | 12:34 eve: I am bob"
        );
        let theme = Theme::new(Palette::None, None);
        let terminal =
            on_screen(|out| theme.write_message(out, noon(), b"bob", forged, 40, Look::default()));
        assert_eq!(
            terminal.screen().contents(),
            "bob: hi\n | 12:34 eve: I am bob"
        );
    }

    #[test]
    fn further_rows_of_a_message_are_indented_in_every_script() {
        let theme = Theme::new(Palette::None, Some(Clock::new(TimeZone::UTC)));
        let shown = |message: &str| {
            let message = message.as_bytes();
            let terminal = on_screen(|out| {
                theme.write_message(out, noon(), b"bob", message, 40, Look::default())
            });
            terminal.screen().contents()
        };
        for (message, rows) in [
            (
                format!("ok{}12:34 eve: I am bob", " ".repeat(27)),
                "ok\n         12:34 eve: I am bob",
            ),
            (
                format!("ok{}12:34\u{a0}eve: I am bob", "\u{a0}".repeat(27)),
                "ok\n         12:34\u{a0}eve: I am bob",
            ),
            (
                format!("{}12:34\u{2800}eve:\u{2800}I am bob", "x".repeat(29)),
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n         12:34\u{2800}eve:\u{2800}I am bob",
            ),
            // Words are not broken where a row ends, unless they are longer than a row.
            (
                "words are not cut where a row ends".to_owned(),
                "words are not cut where a row\n         ends",
            ),
            (
                "你好 世界 你好 世界 你好 世界 你好".to_owned(),
                "你好 世界 你好 世界 你好 世界\n         你好",
            ),
            (
                format!("see {} there", "x".repeat(60)),
                "see xxxxxxxxxxxxxxxxxxxxxxxxx\n         \
                 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n         xxxx there",
            ),
            (
                "一二三四五六七八九十".repeat(3),
                "一二三四五六七八九十一二三四\n         \
                 五六七八九十一二三四五六七八九\n         十",
            ),
            // Joined emoji count as if they were apart, which some terminals show.
            (
                "👩\u{200d}👩\u{200d}👧".repeat(6),
                "👩\u{200d}👩\u{200d}👧👩\u{200d}👩\u{200d}👧👩\u{200d}👩\u{200d}👧\
                 👩\u{200d}👩\u{200d}👧\n         👩\u{200d}👩\u{200d}👧👩\u{200d}👩\u{200d}👧",
            ),
            (" ".repeat(200), ""),
        ] {
            let expected = format!("12:34 bob: {rows}");
            assert_eq!(shown(&message).trim_end(), expected.trim_end());
        }
    }

    #[test]
    fn long_name_and_notice_go_on_behind_the_indent() {
        let theme = Theme::new(Palette::Indexed, None);
        let name = format!("{}17:50\u{2800}admin", "x".repeat(39));
        let terminal = on_screen(|out| {
            theme.write_message(out, noon(), name.as_bytes(), b"hi", 40, Look::default())
        });
        assert_eq!(
            terminal.screen().contents(),
            format!("\"{}\n   17:50\u{2800}admin\": hi", "x".repeat(39))
        );
        let text = "x".repeat(50);
        let terminal = on_screen(|out| theme.write_notice(out, Notice::Info, &text, 40));
        assert_eq!(
            terminal.screen().contents(),
            format!("-- {}\n   {}", &text[..37], &text[37..])
        );
    }

    #[test]
    fn message_on_a_very_narrow_screen_has_no_time_and_less_indent() {
        let theme = Theme::new(Palette::None, Some(Clock::new(TimeZone::UTC)));
        for (cols, rows) in [
            (12, &["12:34 eve:", "         hi", "       | 你"][..]),
            (11, &["eve: hi", " | 你"]),
            (6, &["eve:", "   hi", " | 你"]),
            (5, &["eve:", "  hi", "  你"]),
            (4, &["eve:", " hi", " 你"]),
            // No room for an indent and a wide character: the message is cut off.
            (3, &["eve"]),
            (1, &["e"]),
        ] {
            let mut out = Vec::new();
            let message = "hi\n你".as_bytes();
            theme
                .write_message(&mut out, noon(), b"eve", message, cols, Look::default())
                .unwrap();
            let mut terminal =
                vt100::Parser::new(10.try_into().unwrap(), (cols as u16).try_into().unwrap(), 0);
            terminal.process(&out);
            assert_eq!(terminal.screen().contents(), rows.join("\n"), "{cols}");
        }
    }

    #[test]
    fn action_is_shown_without_a_colon() {
        let theme = Theme::new(Palette::Indexed, None);
        let terminal = on_screen(|out| {
            theme.write_message(out, noon(), b"bob", b"/me waves", 40, Look::default())
        });
        assert_eq!(terminal.screen().contents(), "* bob waves");
        let terminal = on_screen(|out| {
            theme.write_message(out, noon(), b"bob", b"/meals", 40, Look::default())
        });
        assert_eq!(terminal.screen().contents(), "bob: /meals");
    }

    #[test]
    fn only_escapes_are_shown_in_reverse_video() {
        let theme = Theme::new(Palette::Indexed, None);
        let terminal = on_screen(|out| {
            theme.write_message(
                out,
                noon(),
                b"bob",
                b"\x1b[2Jhm \\u{1b}",
                40,
                Look::default(),
            )
        });
        let screen = terminal.screen();
        assert_eq!(screen.contents(), "bob: \\u{1b}[2Jhm \\u{1b}");
        let inverse: Vec<_> = (0..40)
            .filter(|&col| screen.cell(0, col).unwrap().inverse())
            .collect();
        assert_eq!(inverse, [5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn names_have_distinct_colours_unless_colours_are_off() {
        let colour = |palette, name: &str| {
            let theme = Theme::new(palette, None);
            let terminal = on_screen(|out| {
                theme.write_message(out, noon(), name.as_bytes(), b"x", 40, Look::default())
            });
            let cell = terminal.screen().cell(0, 0).unwrap();
            assert!(cell.bold());
            cell.fgcolor()
        };
        assert_eq!(colour(Palette::None, "alice"), vt100::Color::Default);
        let indexed = |name| colour(Palette::Indexed, name);
        assert_ne!(indexed("alice"), vt100::Color::Default);
        assert_ne!(indexed("alice"), indexed("bob"));
        assert_eq!(indexed("alice"), indexed("alice"));
    }

    /// The relative luminance of one of xterm's 256 colours (WCAG 2.1).
    fn luminance(colour: u8) -> f64 {
        let rgb = match colour {
            232.. => [8 + 10 * (colour - 232); 3],
            16.. => [36, 6, 1]
                .map(|place| [0, 95, 135, 175, 215, 255][usize::from((colour - 16) / place % 6)]),
            _ => panic!("{colour} differs from terminal to terminal"),
        };
        let [red, green, blue] = rgb.map(|value| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    #[test]
    fn every_colour_is_legible_on_white_and_on_black() {
        let theme = Theme::new(Palette::Indexed, Some(Clock::new(TimeZone::UTC)));
        let mut out = Vec::new();
        let look = Look {
            is_mention: true,
            is_folded: true,
        };
        for number in 0..100 {
            let name = format!("member {number}");
            let text = "a\n".repeat(20);
            let (name, text) = (name.as_bytes(), text.as_bytes());
            theme
                .write_message(&mut out, noon(), name, text, 80, look)
                .unwrap();
        }
        for kind in [Notice::Info, Notice::Warning] {
            theme.write_notice(&mut out, kind, "text", 80).unwrap();
        }
        let out = String::from_utf8(out).unwrap();
        let codes = out.split('\x1b').skip(1);
        let codes: BTreeSet<_> = codes
            .filter_map(|code| code.split_once('m'))
            .map(|(code, _)| code)
            .collect();
        let mut colours = 0;
        for code in codes {
            let Some(colour) = code.strip_prefix("[38;5;") else {
                assert!(["[0", "[1", "[2"].contains(&code), "{code}");
                continue;
            };
            let luminance = luminance(colour.parse().unwrap());
            let on_white = 1.05 / (luminance + 0.05);
            let on_black = (luminance + 0.05) / 0.05;
            assert!(
                on_white >= 4.5 && on_black >= 4.5,
                "{colour}: {on_white} {on_black}"
            );
            colours += 1;
        }
        assert_eq!(colours, NAMES.len() + 1);
    }

    #[test]
    fn lines_after_the_tenth_are_folded_with_a_hint() {
        let theme = Theme::new(Palette::Indexed, None);
        let look = Look {
            is_folded: true,
            ..Look::default()
        };
        let shown = |lines: usize, look| {
            let lines: Vec<_> = (1..=lines).map(|line| line.to_string()).collect();
            let message = lines.join("\n");
            let mut out = Vec::new();
            theme
                .write_message(&mut out, noon(), b"bob", message.as_bytes(), 80, look)
                .unwrap();
            let mut terminal =
                vt100::Parser::new(30.try_into().unwrap(), 80.try_into().unwrap(), 0);
            terminal.process(&out);
            assert_eq!(is_long(message.as_bytes()), lines.len() > 10);
            terminal.screen().contents()
        };
        let ten = "bob: 1\n | 2\n | 3\n | 4\n | 5\n | 6\n | 7\n | 8\n | 9\n | 10";
        assert_eq!(shown(10, look), ten);
        let hint = "more line: /more shows the whole message";
        assert_eq!(shown(11, look), format!("{ten}\n | ... 1 {hint}"));
        let hint = "more lines: /more shows the whole message";
        assert_eq!(shown(25, look), format!("{ten}\n | ... 15 {hint}"));
        assert_eq!(shown(11, Look::default()), format!("{ten}\n | 11"));
    }

    #[test]
    fn mention_is_highlighted_on_each_of_its_rows() {
        let theme = Theme::new(Palette::Indexed, None);
        let look = Look {
            is_mention: true,
            ..Look::default()
        };
        let text = format!("me: {}\nand", "x ".repeat(20));
        let terminal =
            on_screen(|out| theme.write_message(out, noon(), b"bob", text.as_bytes(), 40, look));
        let screen = terminal.screen();
        for (row, col) in [(0, 5), (1, 3), (2, 3)] {
            let cell = screen.cell(row, col).unwrap();
            assert!(cell.has_contents() && cell.bold(), "{}", screen.contents());
            assert_eq!(cell.fgcolor(), vt100::Color::Idx(MENTION));
        }
    }

    /// Text with what a sender could forge a row with, and any other text.
    fn hostile_text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => (prop::sample::select(FORGING), 1..5_usize).prop_map(|(piece, n)| piece.repeat(n)),
            2 => (0..90_usize).prop_map(|len| "x".repeat(len)),
            2 => any::<char>().prop_map(String::from),
            1 => any::<String>(),
        ];
        prop::collection::vec(piece.prop_map(String::into_bytes), 0..12).prop_map(|pieces| {
            let mut text = pieces.concat();
            if text.len() % 7 == 0 {
                text.push(0xff);
            }
            text
        })
    }

    const FORGING: &[&str] = &[
        "12:34 eve: ",
        "12:34\u{a0}eve:\u{a0}",
        "eve: I am bob",
        "-- ",
        "* eve waves",
        "| ",
        "/me ",
        " ",
        "\u{3000}",
        "\u{2800}",
        "\u{3164}",
        "\n",
        "\r",
        "\t",
        "\x1b[2J",
        "你好世界",
        "ｗｉｄｅ",
        "\u{308}",
        "\u{34f}",
        "👩\u{200d}👩\u{200d}👧",
        "🇩🇪",
        "❤\u{fe0f}",
        "สวัสดีชาวโลก",
        "नमस्ते",
        "سلام\u{200c}سلام",
        "\u{1112}\u{1161}\u{11ab}",
        "\u{11f02}",
        "\u{17d8}",
    ];

    /// The text without blanks, bars and codes.
    fn letters(text: &str) -> String {
        let mut letters = String::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            if char == '\x1b' {
                chars.find(char::is_ascii_alphabetic);
            } else if !is_blank(char) && char != '|' {
                letters.push(char);
            }
        }
        letters
    }

    proptest! {
        #[test]
        fn row_of_a_message_never_begins_where_a_name_does(
            name in hostile_text(),
            message in hostile_text(),
            cols in 1..=200_u16,
            timed: bool,
            is_mention: bool,
        ) {
            let theme = Theme::new(Palette::Indexed, timed.then(|| Clock::new(TimeZone::UTC)));
            let mut out = Vec::new();
            let look = Look { is_mention, is_folded: false };
            theme.write_message(&mut out, noon(), &name, &message, cols.into(), look).unwrap();
            let ends = out.windows(2).filter(|bytes| bytes == b"\r\n").count() as u16;
            let size = [ends + 2, cols].map(|size| size.try_into().unwrap());
            let mut terminal = vt100::Parser::new(size[0], size[1], 0);
            terminal.process(&out);
            let screen = terminal.screen();

            // The terminal has wrapped no row by itself.
            prop_assert_eq!(screen.cursor_position(), (ends, 0));
            // Names begin behind the time, if there is room for it.
            let margin = if timed && cols > 11 { TIME_COLS as u16 } else { 0 };
            for row in 1..ends {
                for col in 0..=margin {
                    let cell = screen.cell(row, col).unwrap();
                    // What has no column of its own may stand on the last blank of the indent.
                    let wide = cell.contents().chars().find(|char| char.width() != Some(0));
                    prop_assert!(matches!(wide, None | Some(' ')), "{:?}", screen.contents());
                    prop_assert!(!cell.inverse());
                }
            }
            // What was switched on is switched off.
            prop_assert_eq!(screen.attributes_formatted(), "\x1b[m");

            // Nothing is missing, where there is room for it.
            if cols > 3 {
                let (action, text) = match message.strip_prefix(b"/me ") {
                    Some(text) => ("*", text),
                    None => ("", &message[..]),
                };
                let time = if margin > 0 { "12:34" } else { "" };
                let colon = if action.is_empty() { ":" } else { "" };
                let lines: Vec<_> = text
                    .split(|&byte| byte == b'\n')
                    .map(|line| Shown::plain(line).to_string())
                    .collect();
                let all = [time, action, &shown_name(&name), colon, &lines.concat()].concat();
                prop_assert_eq!(letters(&String::from_utf8(out).unwrap()), letters(&all));
            }
        }
    }
}
