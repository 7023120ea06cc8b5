//! The line that is being typed, below the messages.

use std::io;

use crossterm::cursor::{MoveToColumn, MoveUp};
use crossterm::queue;
use crossterm::style::{Attribute, SetAttribute};
use crossterm::terminal::{Clear, ClearType};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::display::{dim, write_shown};
use crate::text::Shown;

/// The beginning of each further line of a text.
const LINE_MARK: &str = "| ";

/// A `Screen` paints the last rows of a terminal: those of the line that is being typed.
///
/// Messages scroll up into the terminal's own history, where they can be searched and copied like other
/// output. To print a message, the typed line is erased, the message is printed in its place, and the
/// line is painted again below. All of that is one write, so that it does not flicker.
///
/// A screen does no I/O: it appends the bytes for the terminal to a buffer of the caller.
#[derive(Debug)]
pub struct Screen {
    rows: usize,
    cols: usize,
    /// Whether the terminal wraps lines again when it becomes narrower.
    reflows: bool,
    /// The painted rows, if there are any.
    painted: Option<Painted>,
}

/// A `Prompt` stands before the line that is being typed.
#[derive(Debug, Default)]
pub struct Prompt {
    /// The text with the terminal's codes for its style.
    pub styled: Vec<u8>,
    /// The width in columns.
    pub width: usize,
}

/// A `Painted` describes the rows of a layout that are on the screen.
#[derive(Debug)]
struct Painted {
    /// The width of each row in columns.
    widths: Vec<usize>,
    cursor: Position,
}

impl Painted {
    /// The rows above the cursor, on a screen with `cols` columns.
    fn above(&self, cols: usize) -> usize {
        let before = &self.widths[..self.cursor.row];
        before
            .iter()
            .map(|&width| height(width, cols))
            .sum::<usize>()
            + self.cursor.col / cols
    }

    /// The number of rows, on a screen with `cols` columns.
    fn height(&self, cols: usize) -> usize {
        self.widths.iter().map(|&width| height(width, cols)).sum()
    }
}

/// The number of rows that a terminal with `cols` columns makes of one of this width.
fn height(width: usize, cols: usize) -> usize {
    width.div_ceil(cols).max(1)
}

/// A `Position` is a place in a layout, from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    row: usize,
    col: usize,
}

impl Screen {
    /// Creates a screen of this size, with nothing painted.
    #[must_use]
    pub fn new(rows: u16, cols: u16, reflows: bool) -> Self {
        let mut screen = Self {
            rows: 0,
            cols: 0,
            reflows,
            painted: None,
        };
        screen.set_size(rows, cols);
        screen
    }

    /// A terminal without a known size reports zero by zero.
    fn set_size(&mut self, rows: u16, cols: u16) {
        self.rows = if rows == 0 { 24 } else { rows.into() };
        self.cols = if cols == 0 { 80 } else { cols.into() };
    }

    /// The number of columns.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Erases the typed line. The next output stands in its place.
    ///
    /// # Errors
    ///
    /// None: writing to memory does not fail.
    pub fn erase(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.erase_as_of(out, self.cols)
    }

    /// Erases the typed line, as it is wrapped on a screen with `cols` columns.
    fn erase_as_of(&mut self, out: &mut Vec<u8>, cols: usize) -> io::Result<()> {
        let Some(painted) = self.painted.take() else {
            return Ok(());
        };
        // No more rows are above the cursor than the screen has.
        up(out, painted.above(cols).min(self.rows - 1))?;
        clear_down(out)
    }

    /// Paints the typed line, behind this prompt, in place of the painted one.
    ///
    /// `cursor` is the position of the cursor, in bytes of `text`. The line takes half of the screen at
    /// most, so that there is room for messages. Of more rows, those up to the cursor are shown.
    ///
    /// # Errors
    ///
    /// None: writing to memory does not fail.
    pub fn paint(
        &mut self,
        out: &mut Vec<u8>,
        prompt: &Prompt,
        text: &str,
        cursor: usize,
    ) -> io::Result<()> {
        self.erase(out)?;
        // A screen that is too narrow for both shows the text without the prompt.
        let prompt = if prompt.width * 2 > self.cols {
            &Prompt::default()
        } else {
            prompt
        };
        let layout = Layout::of(text, cursor, prompt.width, self.cols);
        let shown = layout.window((self.rows / 2).max(1));
        let first = shown.start;
        let rows = &layout.rows[shown];
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b"\r\n");
            }
            match row.lead {
                Lead::Prompt => out.extend_from_slice(&prompt.styled),
                Lead::LineMark => dim(out, LINE_MARK)?,
                Lead::Wrapped => {}
            }
            write_shown(out, text[row.text.clone()].as_bytes())?;
        }
        let painted = Painted {
            widths: rows.iter().map(|row| row.width).collect(),
            cursor: Position {
                row: layout.cursor.row - first,
                col: layout.cursor.col,
            },
        };
        up(
            out,
            painted.height(self.cols) - 1 - painted.above(self.cols),
        )?;
        queue!(out, MoveToColumn(painted.cursor.col as u16))?;
        self.painted = Some(painted);
        Ok(())
    }

    /// Notes a new size and erases the typed line, as far as that is possible: the terminal has already
    /// changed its rows.
    ///
    /// Most terminals wrap lines again when they become narrower, and the cursor stays at its
    /// character. So the typed line begins higher, by the number of rows that were added. Other
    /// terminals cut the rows off, and the line begins where it did.
    ///
    /// # Errors
    ///
    /// None: writing to memory does not fail.
    pub fn resize(&mut self, out: &mut Vec<u8>, rows: u16, cols: u16) -> io::Result<()> {
        let painted_for = self.cols;
        self.set_size(rows, cols);
        let now = if self.reflows { self.cols } else { painted_for };
        self.erase_as_of(out, now)
    }

    /// Clears the whole screen. The line is then painted at its top.
    ///
    /// # Errors
    ///
    /// None: writing to memory does not fail.
    pub fn clear(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.erase(out)?;
        queue!(
            out,
            SetAttribute(Attribute::Reset),
            crossterm::cursor::MoveTo(0, 0),
            Clear(ClearType::All)
        )
    }

    /// Begins in the row of the cursor: other programs have written on the terminal.
    ///
    /// # Errors
    ///
    /// None: writing to memory does not fail.
    pub fn restart(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.painted = None;
        clear_down(out)
    }
}

/// Clears the row of the cursor and all rows below, and moves to its first column.
///
/// tmux takes a screen that is cleared from its very first column as one that scrolls away, and would keep a
/// copy of the typed line in its history. So that column is cleared last.
fn clear_down(out: &mut Vec<u8>) -> io::Result<()> {
    queue!(
        out,
        MoveToColumn(1),
        Clear(ClearType::FromCursorDown),
        MoveToColumn(0),
        Clear(ClearType::UntilNewLine)
    )
}

/// Moves the cursor up. (Terminals take "up by zero" as "up by one".)
fn up(out: &mut Vec<u8>, rows: usize) -> io::Result<()> {
    if rows > 0 {
        queue!(out, MoveUp(rows as u16))?;
    }
    Ok(())
}

/// A `Lead` is the beginning of a row of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    /// The prompt, on the first row.
    Prompt,
    /// The mark of a further line of the text.
    LineMark,
    /// Nothing: the row before it was full, or there is no room for a mark.
    Wrapped,
}

/// A `Row` is one row of a layout.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    lead: Lead,
    /// The part of the text on this row, in bytes.
    text: std::ops::Range<usize>,
    /// The width in columns, with the lead.
    width: usize,
}

/// A `Layout` is a text cut into rows as a terminal wraps it: a wide character that does not fit at the
/// end of a row begins the next one.
#[derive(Debug)]
struct Layout {
    rows: Vec<Row>,
    cursor: Position,
}

impl Layout {
    fn of(text: &str, cursor: usize, prompt: usize, cols: usize) -> Self {
        let mut layout = Self {
            rows: vec![Row {
                lead: Lead::Prompt,
                text: 0..0,
                width: prompt,
            }],
            cursor: Position::default(),
        };
        for (at, grapheme) in text.grapheme_indices(true) {
            let end = at + grapheme.len();
            if grapheme == "\n" {
                if at == cursor {
                    layout.place_cursor(at, cols);
                }
                layout.begin(line_lead(cols), end);
                continue;
            }
            let width = width_of(grapheme);
            let row = layout.last();
            if row.width + width > cols && row.width > 0 {
                layout.begin(Lead::Wrapped, at);
            }
            if at == cursor {
                layout.place_cursor(at, cols);
            }
            let row = layout.last();
            row.text.end = end;
            // An escape can be wider than a very narrow screen. It has a row of its own then, which
            // the terminal wraps.
            row.width += width;
        }
        if cursor == text.len() {
            layout.place_cursor(cursor, cols);
        }
        layout
    }

    fn last(&mut self) -> &mut Row {
        let last = self.rows.len() - 1;
        &mut self.rows[last]
    }

    fn begin(&mut self, lead: Lead, at: usize) {
        let width = match lead {
            Lead::LineMark => LINE_MARK.len(),
            _ => 0,
        };
        self.rows.push(Row {
            lead,
            text: at..at,
            width,
        });
    }

    /// Puts the cursor at the end of the layout. After a full row, that is the start of the next.
    fn place_cursor(&mut self, at: usize, cols: usize) {
        if self.last().width >= cols {
            self.begin(Lead::Wrapped, at);
        }
        self.cursor = Position {
            row: self.rows.len() - 1,
            col: self.last().width,
        };
    }

    /// The rows to show where there is room for `rows` rows.
    fn window(&self, rows: usize) -> std::ops::Range<usize> {
        let count = self.rows.len().min(rows);
        // As few as possible are below the cursor, so that the text before it is visible.
        let end = (self.cursor.row + 1).max(count);
        end - count..end
    }
}

/// The beginning of a further line, without its mark if the screen has no room for it.
fn line_lead(cols: usize) -> Lead {
    if cols > LINE_MARK.len() {
        Lead::LineMark
    } else {
        Lead::Wrapped
    }
}

/// The columns of a grapheme, as it is shown.
fn width_of(grapheme: &str) -> usize {
    if let [b' '..=b'~'] = grapheme.as_bytes() {
        return 1;
    }
    let shown = Shown::plain(grapheme.as_bytes()).to_string();
    shown.width()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A screen and the terminal that shows it.
    struct Shown {
        screen: Screen,
        prompt: Prompt,
        terminal: vt100::Parser,
    }

    fn prompt(text: &str) -> Prompt {
        Prompt {
            styled: text.as_bytes().to_vec(),
            width: text.len(),
        }
    }

    fn size(rows: u16, cols: u16) -> (std::num::NonZeroU16, std::num::NonZeroU16) {
        (rows.try_into().unwrap(), cols.try_into().unwrap())
    }

    impl Shown {
        /// vt100 cuts rows off instead of wrapping them again.
        fn new(rows: u16, cols: u16, before: &str) -> Self {
            let (height, width) = size(rows, cols);
            Self {
                screen: Screen::new(rows, cols, false),
                prompt: prompt(before),
                terminal: vt100::Parser::new(height, width, 1000),
            }
        }

        fn draw(&mut self, draw: impl FnOnce(&mut Screen, &mut Vec<u8>) -> io::Result<()>) {
            let mut out = Vec::new();
            draw(&mut self.screen, &mut out).unwrap();
            self.terminal.process(&out);
        }

        fn paint(&mut self, text: &str, cursor: usize) {
            let mut out = Vec::new();
            self.screen
                .paint(&mut out, &self.prompt, text, cursor)
                .unwrap();
            self.terminal.process(&out);
        }

        /// Paints a text in which `|` marks the cursor.
        fn type_in(&mut self, marked: &str) {
            let cursor = marked.find('|').unwrap();
            let text = marked.replacen('|', "", 1);
            self.paint(&text, cursor);
        }

        fn print(&mut self, line: &str) {
            self.draw(|screen, out| {
                screen.erase(out)?;
                out.extend_from_slice(line.as_bytes());
                out.extend_from_slice(b"\r\n");
                Ok(())
            });
        }

        fn rows(&self) -> Vec<String> {
            let screen = self.terminal.screen();
            let rows = screen.rows(0, screen.size().1.get());
            let mut rows: Vec<_> = rows.map(|row| row.trim_end().to_owned()).collect();
            while rows.last().is_some_and(String::is_empty) {
                rows.pop();
            }
            rows
        }

        fn cursor(&self) -> (u16, u16) {
            self.terminal.screen().cursor_position()
        }
    }

    #[test]
    fn message_is_printed_above_the_typed_line() {
        let mut shown = Shown::new(10, 20, "> ");
        shown.type_in("hel|lo");
        assert_eq!(
            (shown.rows(), shown.cursor()),
            (vec!["> hello".into()], (0, 5))
        );
        shown.print("bob: hi");
        shown.type_in("hel|lo");
        assert_eq!(shown.rows(), ["bob: hi", "> hello"]);
        assert_eq!(shown.cursor(), (1, 5));
    }

    #[test]
    fn long_line_wraps_and_the_cursor_follows() {
        for (marked, rows, cursor) in [
            ("12345678|", vec!["> 12345678"], (1, 0)),
            ("1234567|8", vec!["> 12345678"], (0, 9)),
            ("123456789|", vec!["> 12345678", "9"], (1, 1)),
            ("12345678|9", vec!["> 12345678", "9"], (1, 0)),
            ("|123456789", vec!["> 12345678", "9"], (0, 2)),
            // A wide character that does not fit begins the next row.
            ("1234567你|", vec!["> 1234567", "你"], (1, 2)),
            ("1234567|你", vec!["> 1234567", "你"], (1, 0)),
            ("123456你|", vec!["> 123456你"], (1, 0)),
            ("Zoe\u{308}|x", vec!["> Zoe\u{308}x"], (0, 5)),
            // An escaped character is as wide as its escape.
            ("\t|x", vec!["> \\tx"], (0, 4)),
            ("a\nb|\n", vec!["> a", "| b", "|"], (1, 3)),
            ("a|\nb", vec!["> a", "| b"], (0, 3)),
            ("12345678|\nb", vec!["> 12345678", "", "| b"], (1, 0)),
        ] {
            let mut shown = Shown::new(10, 10, "> ");
            shown.type_in(marked);
            assert_eq!(shown.rows(), rows, "{marked:?}");
            assert_eq!(shown.cursor(), cursor, "{marked:?}");
        }
    }

    #[test]
    fn text_longer_than_half_the_screen_is_shown_up_to_the_cursor() {
        let mut shown = Shown::new(7, 10, "> ");
        shown.type_in("aaaaaaaabbbbbbbbbbccccccccccdddd|");
        assert_eq!(shown.rows(), ["bbbbbbbbbb", "cccccccccc", "dddd"]);
        shown.type_in("aaaaaaaabb|bbbbbbbbccccccccccdddd");
        assert_eq!(shown.rows(), ["> aaaaaaaa", "bbbbbbbbbb", "cccccccccc"]);
        assert_eq!(shown.cursor(), (1, 2));
        shown.print("bob: and?");
        shown.type_in("aa|");
        assert_eq!(shown.rows(), ["bob: and?", "> aa"]);
        let mut shown = Shown::new(1, 10, "> ");
        shown.type_in("aaaaaaaabbb|");
        assert_eq!(shown.rows(), ["bbb"]);
    }

    #[test]
    fn resize_of_a_terminal_that_cuts_rows_keeps_the_rows_above() {
        let mut shown = Shown::new(10, 20, "> ");
        shown.print("bob: hi");
        shown.type_in("0123456789abcdefghijklmnop|");
        let (rows, cols) = size(10, 12);
        shown.terminal.screen_mut().set_size(rows, cols);
        shown.draw(|screen, out| screen.resize(out, 10, 12));
        shown.type_in("0123456789abcdefghijklmnop|");
        assert_eq!(
            shown.rows(),
            ["bob: hi", "> 0123456789", "abcdefghijkl", "mnop"]
        );
    }

    #[test]
    fn resize_of_a_terminal_that_reflows_erases_from_a_higher_row() {
        let mut out = Vec::new();
        let mut screen = Screen::new(24, 80, true);
        screen
            .paint(&mut out, &prompt("> "), &"x".repeat(100), 100)
            .unwrap();
        out.clear();
        // The first row has 80 columns, which makes two of 40; the cursor is on the row after.
        screen.resize(&mut out, 24, 40).unwrap();
        // Not from the first column: see `clear_down`.
        assert_eq!(out, b"\x1b[2A\x1b[2G\x1b[J\x1b[1G\x1b[K");
    }

    #[test]
    fn erased_line_leaves_nothing_on_a_screen_of_any_width() {
        for cols in [1, 2, 3, 80] {
            let mut shown = Shown::new(10, cols, "> ");
            shown.type_in("ab|c\nd");
            shown.draw(Screen::erase);
            assert_eq!(shown.rows(), [""; 0], "{cols}");
            assert_eq!(shown.cursor(), (0, 0));
        }
    }

    #[test]
    fn narrow_screen_has_no_prompt() {
        let mut shown = Shown::new(5, 6, "alice> ");
        shown.type_in("abcdefg|");
        assert_eq!(shown.rows(), ["abcdef", "g"]);
    }

    proptest! {
        #[test]
        fn printed_rows_are_never_changed_by_the_typed_line(
            steps in prop::collection::vec(("[ab你\\u{308}\\t\n]{0,40}", 0..41_usize), 1..12),
            cols in 4_u16..24,
        ) {
            let mut shown = Shown::new(200, cols, "> ");
            for (index, (text, cursor)) in steps.iter().enumerate() {
                let ends = text.grapheme_indices(true).map(|(at, _)| at);
                let ends: Vec<_> = ends.chain([text.len()]).collect();
                let cursor = ends[cursor % ends.len()];
                shown.paint(text, cursor);
                shown.print(&format!("#{index}"));
            }
            let printed: Vec<_> = (0..steps.len()).map(|index| format!("#{index}")).collect();
            prop_assert_eq!(shown.rows(), printed);
        }
    }
}
