//! The line that is being typed, and what is printed above it.

use std::io;

use crossterm::cursor::{MoveToColumn, MoveUp};
use crossterm::queue;
use crossterm::style::{Attribute, SetAttribute};
use crossterm::terminal::{Clear, ClearType};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::display::{dim, write_shown};
use crate::text::Shown;

/// What stands before each further line of a text that has several.
const CONTINUED: &str = "| ";

/// A screen of which only the end is ours: the rows with the line that is being typed.
///
/// What was said scrolls up into the terminal's own history, where it can be searched and copied as
/// everything else; there is no second screen. To print something, the typed line is taken away, the
/// text is printed where it stood, and the line is painted again below. All of that goes out in one
/// write, so nobody sees it happen.
///
/// Nothing here writes: the bytes for the terminal are appended to a buffer that the caller hands in.
#[derive(Debug)]
pub struct Screen {
    rows: usize,
    cols: usize,
    /// Whether the terminal wraps lines anew when it becomes narrower.
    reflows: bool,
    prompt: Prompt,
    /// What is painted now, if anything.
    painted: Option<Painted>,
}

/// What stands before the line that is being typed.
#[derive(Debug, Default)]
pub struct Prompt {
    /// With the terminal's codes for its look.
    pub styled: Vec<u8>,
    /// How many columns it takes.
    pub width: usize,
}

/// What of a layout is on the screen.
#[derive(Debug)]
struct Painted {
    /// How many columns each row takes.
    widths: Vec<usize>,
    cursor: Position,
}

impl Painted {
    /// How many rows of a screen with so many columns are above the cursor.
    fn above(&self, cols: usize) -> usize {
        let before = &self.widths[..self.cursor.row];
        before
            .iter()
            .map(|&width| height(width, cols))
            .sum::<usize>()
            + self.cursor.col / cols
    }

    /// How many rows of a screen with so many columns there are.
    fn height(&self, cols: usize) -> usize {
        self.widths.iter().map(|&width| height(width, cols)).sum()
    }
}

/// How many rows a terminal with so many columns makes of one that takes this many.
fn height(width: usize, cols: usize) -> usize {
    width.div_ceil(cols).max(1)
}

/// A place in a layout, from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    row: usize,
    col: usize,
}

impl Screen {
    /// A screen of this size, with nothing painted.
    #[must_use]
    pub fn new(rows: u16, cols: u16, reflows: bool, prompt: Prompt) -> Self {
        let mut screen = Self {
            rows: 0,
            cols: 0,
            reflows,
            prompt,
            painted: None,
        };
        screen.set_size(rows, cols);
        screen
    }

    /// A terminal that does not know its size says that it is zero by zero.
    fn set_size(&mut self, rows: u16, cols: u16) {
        self.rows = if rows == 0 { 24 } else { rows.into() };
        self.cols = if cols == 0 { 80 } else { cols.into() };
    }

    /// How many columns there are.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Takes the typed line away. What is printed next stands where it was.
    ///
    /// # Errors
    ///
    /// None: memory takes it all.
    pub fn erase(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.erase_as_of(out, self.cols)
    }

    /// Takes the typed line away, as it was painted or wrapped anew with so many columns.
    fn erase_as_of(&mut self, out: &mut Vec<u8>, cols: usize) -> io::Result<()> {
        let Some(painted) = self.painted.take() else {
            return Ok(());
        };
        // More cannot be above the cursor than there is room for.
        up(out, painted.above(cols).min(self.rows - 1))?;
        queue!(out, MoveToColumn(0), Clear(ClearType::FromCursorDown))
    }

    /// Paints the typed line, over what is painted of it.
    ///
    /// `cursor` is where the cursor stands, in bytes of `text`. The line takes half of the screen at
    /// most, so that there is room for what arrives; of more rows, those up to the cursor are shown.
    ///
    /// # Errors
    ///
    /// None: memory takes it all.
    pub fn paint(&mut self, out: &mut Vec<u8>, text: &str, cursor: usize) -> io::Result<()> {
        self.erase(out)?;
        // On a screen so narrow that the prompt leaves no room, the text matters more.
        let prompt = if self.prompt.width * 2 > self.cols {
            &Prompt::default()
        } else {
            &self.prompt
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
                Lead::Continued => dim(out, CONTINUED)?,
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

    /// Takes note of a new size and takes the typed line away, as well as that can be done: the
    /// terminal has changed what is on it already.
    ///
    /// Most terminals wrap lines anew when they become narrower, and the cursor goes with its
    /// character; so the typed line begins as many rows higher as its rows became more. Others cut
    /// the rows off, and there it begins where it was.
    ///
    /// # Errors
    ///
    /// None: memory takes it all.
    pub fn resize(&mut self, out: &mut Vec<u8>, rows: u16, cols: u16) -> io::Result<()> {
        let painted_for = self.cols;
        self.set_size(rows, cols);
        let now = if self.reflows { self.cols } else { painted_for };
        self.erase_as_of(out, now)
    }

    /// Wipes the whole screen, for a line that is then painted at its top.
    ///
    /// # Errors
    ///
    /// None: memory takes it all.
    pub fn clear(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.painted = None;
        queue!(
            out,
            SetAttribute(Attribute::Reset),
            crossterm::cursor::MoveTo(0, 0),
            Clear(ClearType::All)
        )
    }

    /// Begins in the row in which the cursor is: others have written on the terminal since.
    ///
    /// # Errors
    ///
    /// None: memory takes it all.
    pub fn restart(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.painted = None;
        queue!(out, MoveToColumn(0), Clear(ClearType::FromCursorDown))
    }
}

/// Moves the cursor up. (A terminal takes "up by none" for "up by one".)
fn up(out: &mut Vec<u8>, rows: usize) -> io::Result<()> {
    if rows > 0 {
        queue!(out, MoveUp(rows as u16))?;
    }
    Ok(())
}

/// What a row of a layout begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    /// The prompt: it is the first.
    Prompt,
    /// The mark of a further line of the text.
    Continued,
    /// Nothing: the row before it was full, or there is no room for a mark.
    Wrapped,
}

/// One row of a layout.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    lead: Lead,
    /// The part of the text that it shows, in bytes.
    text: std::ops::Range<usize>,
    /// How many columns it takes, with what it begins with.
    width: usize,
}

/// A text cut into rows, as a terminal would wrap it: where a wide character does not fit at the end
/// of a row, the next row begins.
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
                layout.begin(continued(cols), end);
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
            // An escape can be wider than a very narrow screen. It has a row of its own then, of which
            // the terminal makes several.
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
            Lead::Continued => CONTINUED.len(),
            _ => 0,
        };
        self.rows.push(Row {
            lead,
            text: at..at,
            width,
        });
    }

    /// Puts the cursor after what there is. After a full row, that is at the start of the next.
    fn place_cursor(&mut self, at: usize, cols: usize) {
        if self.last().width >= cols {
            self.begin(Lead::Wrapped, at);
        }
        self.cursor = Position {
            row: self.rows.len() - 1,
            col: self.last().width,
        };
    }

    /// Which rows to show where there is room for so many.
    fn window(&self, rows: usize) -> std::ops::Range<usize> {
        let count = self.rows.len().min(rows);
        // As few as possible below the cursor, so that one sees what one has written.
        let end = (self.cursor.row + 1).max(count);
        end - count..end
    }
}

/// How a further line of a text begins, on a screen that has room for more than its mark.
fn continued(cols: usize) -> Lead {
    if cols > CONTINUED.len() {
        Lead::Continued
    } else {
        Lead::Wrapped
    }
}

/// How many columns a grapheme takes, as it is shown.
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
        /// vt100 cuts rows off instead of wrapping them anew.
        fn new(rows: u16, cols: u16, before: &str) -> Self {
            let (height, width) = size(rows, cols);
            Self {
                screen: Screen::new(rows, cols, false, prompt(before)),
                terminal: vt100::Parser::new(height, width, 1000),
            }
        }

        fn draw(&mut self, draw: impl FnOnce(&mut Screen, &mut Vec<u8>) -> io::Result<()>) {
            let mut out = Vec::new();
            draw(&mut self.screen, &mut out).unwrap();
            self.terminal.process(&out);
        }

        /// Paints a text in which `|` marks the cursor.
        fn type_in(&mut self, marked: &str) {
            let cursor = marked.find('|').unwrap();
            let text = marked.replacen('|', "", 1);
            self.draw(|screen, out| screen.paint(out, &text, cursor));
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
    fn a_message_is_printed_above_the_line_that_is_being_typed() {
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
    fn long_lines_wrap_and_the_cursor_is_where_it_should_be() {
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
            // What is escaped is as wide as its escape.
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
    fn a_text_longer_than_half_the_screen_shows_the_part_up_to_the_cursor() {
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
    fn a_terminal_that_cuts_rows_off_loses_nothing_above_the_typed_line() {
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
    fn a_terminal_that_wraps_anew_has_the_typed_line_begin_higher() {
        let mut out = Vec::new();
        let mut screen = Screen::new(24, 80, true, prompt("> "));
        screen.paint(&mut out, &"x".repeat(100), 100).unwrap();
        out.clear();
        // The first row has 80 columns, which makes two of 40; the cursor is on the row after.
        screen.resize(&mut out, 24, 40).unwrap();
        assert_eq!(out, b"\x1b[2A\x1b[1G\x1b[J");
    }

    #[test]
    fn a_narrow_screen_has_no_room_for_the_prompt() {
        let mut shown = Shown::new(5, 6, "alice> ");
        shown.type_in("abcdefg|");
        assert_eq!(shown.rows(), ["abcdef", "g"]);
    }

    proptest! {
        /// Whatever is typed and printed, nothing that was printed is ever touched again.
        #[test]
        fn what_was_printed_stays(
            steps in prop::collection::vec(("[ab你\\u{308}\\t\n]{0,40}", 0..41_usize), 1..12),
            cols in 4_u16..24,
        ) {
            let mut shown = Shown::new(200, cols, "> ");
            for (index, (text, cursor)) in steps.iter().enumerate() {
                let ends = text.grapheme_indices(true).map(|(at, _)| at);
                let ends: Vec<_> = ends.chain([text.len()]).collect();
                let cursor = ends[cursor % ends.len()];
                shown.draw(|screen, out| screen.paint(out, text, cursor));
                shown.print(&format!("#{index}"));
            }
            let printed: Vec<_> = (0..steps.len()).map(|index| format!("#{index}")).collect();
            prop_assert_eq!(shown.rows(), printed);
        }
    }
}
