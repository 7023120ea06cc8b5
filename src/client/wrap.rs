//! Breaks a message into the rows of a screen.
//!
//! A terminal that wraps a long row by itself goes on in its first column, where the names of
//! senders are. A sender could pad a message until its end stands there and reads like the message
//! of another member. So a terminal is never left to wrap: each row is broken here, and each further
//! row begins with an indent, in every script.
//!
//! That holds for the width that the screen has when a message is printed. A terminal that becomes
//! narrower later may wrap the rows in its history again.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::text::Shown;

/// The indent of further rows, in columns, from where the name begins.
pub(super) const INDENT: usize = 3;

/// The columns that text needs on a row: those of the widest character, U+17D8.
const MIN_TEXT_COLS: usize = 3;

/// The beginning of each further line of a message, as wide as the indent.
const LINE_MARK: &str = " \x1b[2m|\x1b[0m ";

/// Reverse video, which marks an escape: no text can contain these two.
const REVERSE: &str = "\x1b[7m";
const NOT_REVERSE: &str = "\x1b[27m";

/// Characters that stand for [`REVERSE`] and [`NOT_REVERSE`] while text is measured. [`Shown`]
/// lets no control character through, so they cannot be in a text.
const BEGIN_ESCAPE: &str = "\u{1}";
const END_ESCAPE: &str = "\u{2}";

/// A `Wrapper` appends one message, or one notice, row by row.
///
/// On a screen of up to three columns there is no room for an indent beside a wide character, and the
/// message is cut off at the end of its first row.
#[derive(Debug)]
pub(super) struct Wrapper<'a> {
    out: &'a mut Vec<u8>,
    cols: usize,
    /// Where names begin, in columns.
    margin: usize,
    /// Where the next character goes, in columns.
    col: usize,
    /// Blanks that are written if a word follows them on the same row.
    blanks: String,
    /// Whether an escape has begun and not ended.
    in_escape: bool,
    /// Whether nothing more is written, for want of room.
    is_cut: bool,
}

impl<'a> Wrapper<'a> {
    /// Begins at the first column of a screen that has `cols` columns.
    pub(super) fn new(out: &'a mut Vec<u8>, cols: usize) -> Self {
        Self {
            out,
            cols,
            margin: 0,
            col: 0,
            blanks: String::new(),
            in_escape: false,
            is_cut: false,
        }
    }

    /// Whether a screen has room for a margin of so many columns, an indent and text.
    pub(super) const fn has_room_for(margin: usize, cols: usize) -> bool {
        margin + INDENT + MIN_TEXT_COLS <= cols
    }

    /// Moves the margin to where the cursor is: `cols` columns have been written.
    pub(super) fn begin_name(&mut self, cols: usize) {
        self.margin = cols;
        self.col = cols;
    }

    /// The output, for codes that take no columns.
    pub(super) fn codes(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Appends text, with everything escaped that is not plainly printable. Rows are broken between
    /// words; a word that is longer than a row is broken between characters.
    pub(super) fn write(&mut self, text: &[u8]) {
        let marks = (BEGIN_ESCAPE, END_ESCAPE);
        let shown = Shown { bytes: text, marks }.to_string();
        let mut rest = &shown[..];
        while !rest.is_empty() && !self.is_cut {
            let (blanks, after) = split_while(rest, is_blank_grapheme);
            let (word, after) = split_while(after, |grapheme| !is_blank_grapheme(grapheme));
            self.blanks.push_str(blanks);
            if !word.is_empty() {
                self.write_word(word);
            }
            rest = after;
        }
    }

    /// Begins another line of the message.
    pub(super) fn begin_line(&mut self) {
        self.break_row();
        if !self.is_cut && Self::has_room_for(self.margin, self.cols) {
            self.out.truncate(self.out.len() - INDENT);
            self.out.extend_from_slice(LINE_MARK.as_bytes());
        }
    }

    /// Ends the last row.
    pub(super) fn finish(self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn write_word(&mut self, word: &str) {
        let blanks = columns(&self.blanks);
        let width = columns(word);
        let row = self.cols.saturating_sub(self.indent());
        if self.col + blanks + width > self.cols && (width <= row || self.col + blanks >= self.cols)
        {
            // A word without a blank before it goes on with what stands there.
            if !self.blanks.is_empty() {
                self.break_row();
            }
        }
        let blanks = std::mem::take(&mut self.blanks);
        self.col += columns(&blanks);
        self.out.extend_from_slice(blanks.as_bytes());
        for grapheme in word.graphemes(true) {
            if columns(grapheme) <= row {
                self.write_unit(grapheme);
            } else {
                for unit in combined_chars(grapheme) {
                    self.write_unit(unit);
                }
            }
        }
    }

    /// Appends a grapheme, or a character, that is not broken.
    fn write_unit(&mut self, unit: &str) {
        match unit {
            BEGIN_ESCAPE | END_ESCAPE => {
                self.in_escape = unit == BEGIN_ESCAPE;
                let code = if self.in_escape { REVERSE } else { NOT_REVERSE };
                self.out.extend_from_slice(code.as_bytes());
            }
            _ => {
                let width = columns(unit);
                if self.col + width > self.cols {
                    self.break_row();
                }
                if !self.is_cut {
                    self.out.extend_from_slice(unit.as_bytes());
                    self.col += width;
                }
            }
        }
    }

    /// Goes on in another row, behind the indent, without the blanks before it.
    fn break_row(&mut self) {
        self.blanks.clear();
        let indent = self.indent();
        if indent == 0 {
            self.is_cut = true;
            return;
        }
        if self.in_escape {
            self.out.extend_from_slice(NOT_REVERSE.as_bytes());
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.resize(self.out.len() + indent, b' ');
        if self.in_escape {
            self.out.extend_from_slice(REVERSE.as_bytes());
        }
        self.col = indent;
    }

    /// The indent of further rows, in columns: less on a screen that has no room for all of it.
    fn indent(&self) -> usize {
        (self.margin + INDENT).min(self.cols.saturating_sub(MIN_TEXT_COLS))
    }
}

/// Whether a character looks like a blank: white space of any script, the fillers of Hangul and the
/// pattern of Braille without dots.
pub(super) fn is_blank(char: char) -> bool {
    char.is_whitespace() || char == '\u{2800}' || is_filler(char)
}

fn is_filler(char: char) -> bool {
    matches!(char, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}')
}

fn is_blank_grapheme(grapheme: &str) -> bool {
    grapheme.chars().all(is_blank)
}

/// The most columns that a terminal may give to text.
///
/// Terminals differ in whether a sequence of joined characters, such as the emoji of a family, takes
/// the columns of one or of all. A row that is a little short does no harm, and one that the terminal
/// wraps does. (A terminal can be set up to give two columns to each character whose width Unicode
/// calls ambiguous. Cyrillic and Greek letters are among these, so this is not taken into account.)
pub(super) fn columns(text: &str) -> usize {
    let of_grapheme = |grapheme: &str| {
        let apart: usize = grapheme.chars().map(columns_of_char).sum();
        match grapheme {
            BEGIN_ESCAPE | END_ESCAPE => 0,
            _ => apart.max(grapheme.width()),
        }
    };
    text.graphemes(true).map(of_grapheme).sum()
}

/// The columns of a character by itself; zero if it combines with the one before.
pub(super) fn columns_of_char(char: char) -> usize {
    match char.width() {
        _ if is_filler(char) => 2,
        // Some that are written before others are a column wide where they do not combine.
        Some(0) if !combines(char) => 1,
        width => width.unwrap_or(0),
    }
}

/// Whether a character combines with the one before it.
fn combines(char: char) -> bool {
    let pair = String::from_iter(['x', char]);
    pair.graphemes(true).count() == 1
}

/// Splits text before its first grapheme for which `holds` does not hold.
fn split_while(text: &str, holds: impl Fn(&str) -> bool) -> (&str, &str) {
    let end = text
        .grapheme_indices(true)
        .find(|(_, grapheme)| !holds(grapheme))
        .map_or(text.len(), |(at, _)| at);
    text.split_at(end)
}

/// The characters of a grapheme, each with those that take no columns of their own after it.
fn combined_chars(grapheme: &str) -> impl Iterator<Item = &str> {
    let mut rest = grapheme;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let after = rest[first.len_utf8()..]
            .find(|char| columns_of_char(char) > 0)
            .map_or(rest.len(), |at| first.len_utf8() + at);
        let unit;
        (unit, rest) = rest.split_at(after);
        Some(unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_is_wider_than_the_least_room_for_text() {
        for char in '\0'..=char::MAX {
            let shown = Shown::plain(char.to_string().as_bytes()).to_string();
            let widest = shown.graphemes(true).map(columns).max();
            assert!(widest <= Some(MIN_TEXT_COLS), "{char:?}: {widest:?}");
        }
    }

    #[test]
    fn joined_characters_are_counted_as_wide_as_any_terminal_shows_them() {
        for (text, expected) in [
            ("", 0),
            ("ab c", 4),
            ("你", 2),
            ("Zoe\u{308}", 3),
            ("👩\u{200d}👩\u{200d}👧", 6),
            ("❤\u{fe0f}", 2),
            ("🇩🇪", 2),
            ("\u{3164}", 2),
            ("\u{1}\\n\u{2}", 2),
        ] {
            assert_eq!(columns(text), expected, "{text:?}");
        }
    }

    #[test]
    fn grapheme_wider_than_a_row_is_broken_between_its_characters() {
        let family = "👩\u{200d}👩\u{200d}👧";
        let mut out = Vec::new();
        let mut rows = Wrapper::new(&mut out, 5);
        rows.write(family.as_bytes());
        rows.finish();
        let expected = "👩\u{200d}👩\u{200d}\r\n  👧\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
