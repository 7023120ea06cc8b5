//! Writes into the cells of a screen, one row at a time.

use ratatui_core::buffer::Buffer;
use ratatui_core::style::{Color, Style};
use unicode_width::UnicodeWidthStr;

/// The parts of a character cell from one eighth to the whole, from the left and from below.
const FROM_LEFT: [&str; 8] = ["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];
const FROM_BELOW: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// What most text has: the terminal's own colours.
pub(super) const PLAIN: Style = Style::new();
/// What has to be found: the names of relays, the heads of columns.
pub(super) const STRONG: Style = Style::new().bold();
/// What is read once: labels and hints.
pub(super) const FAINT: Style = Style::new().dim();
pub(super) const GOOD: Style = Style::new().fg(Color::Green);
/// What slows the room or a member.
pub(super) const NOTABLE: Style = Style::new().fg(Color::Magenta).bold();
/// What stops them.
pub(super) const BAD: Style = Style::new().fg(Color::Red).bold();

/// A `Pen` writes into one row, from left to right, and no further than its end.
pub(super) struct Pen<'a> {
    buffer: &'a mut Buffer,
    x: u16,
    y: u16,
}

impl<'a> Pen<'a> {
    /// At the beginning of this row. A row below the screen takes no text.
    pub(super) const fn new(buffer: &'a mut Buffer, y: u16) -> Self {
        Self { buffer, x: 0, y }
    }

    fn room(&self) -> usize {
        if self.y >= self.buffer.area.bottom() {
            return 0;
        }
        usize::from(self.buffer.area.right().saturating_sub(self.x))
    }

    /// Writes a text.
    pub(super) fn text(&mut self, text: &str, style: Style) -> &mut Self {
        self.clipped(text, usize::MAX, style)
    }

    /// Writes a text in so many columns, aligned on the left. One that is longer is cut.
    pub(super) fn cell(&mut self, text: &str, width: u16, style: Style) -> &mut Self {
        let end = self.x.saturating_add(width);
        if text.width() > usize::from(width) && width > 0 {
            self.clipped(text, usize::from(width) - 1, style)
                .text("…", style);
        } else {
            self.text(text, style);
        }
        self.move_to(end)
    }

    /// Writes a text in so many columns, aligned on the right.
    pub(super) fn number(&mut self, text: &str, width: u16, style: Style) -> &mut Self {
        let columns = text.width();
        let padding = usize::from(width).saturating_sub(columns) as u16;
        let end = self.x.saturating_add(width);
        self.skip(padding).clipped(text, usize::from(width), style);
        self.move_to(end)
    }

    /// Writes a text that ends in the last column, unless that has text already.
    pub(super) fn at_end(&mut self, text: &str, style: Style) -> &mut Self {
        let columns = text.width() as u16;
        let start = self.buffer.area.right().saturating_sub(columns);
        if start >= self.x {
            self.move_to(start).text(text, style);
        }
        self
    }

    /// Draws a bar of so many columns, of which this share is filled.
    pub(super) fn bar(&mut self, share: f64, width: u16, style: Style) -> &mut Self {
        let end = self.x.saturating_add(width);
        let eighths = eighths(share, width);
        for _ in 0..eighths / 8 {
            self.text(FROM_LEFT[7], style);
        }
        if let Some(part) = (eighths % 8).checked_sub(1) {
            self.text(FROM_LEFT[part], style);
        }
        self.move_to(end)
    }

    /// Draws a column of this height, from 0 to 1, in so many columns.
    pub(super) fn column(&mut self, height: f64, width: u16, style: Style) -> &mut Self {
        let end = self.x.saturating_add(width);
        if let Some(index) = eighths(height, 1).checked_sub(1) {
            self.text(&FROM_BELOW[index].repeat(usize::from(width)), style);
        }
        self.move_to(end)
    }

    pub(super) fn skip(&mut self, columns: u16) -> &mut Self {
        self.move_to(self.x.saturating_add(columns))
    }

    pub(super) const fn move_to(&mut self, x: u16) -> &mut Self {
        self.x = x;
        self
    }

    fn clipped(&mut self, text: &str, max: usize, style: Style) -> &mut Self {
        let room = self.room().min(max);
        if room > 0 {
            (self.x, _) = self.buffer.set_stringn(self.x, self.y, text, room, style);
        }
        self
    }
}

/// How many eighths of so many columns a share fills. Whatever is more than nothing is seen.
fn eighths(share: f64, width: u16) -> usize {
    let all = f64::from(width) * 8.0;
    let eighths = (share.clamp(0.0, 1.0) * all).round();
    if share > 0.0 {
        eighths.max(1.0) as usize
    } else {
        0
    }
}
