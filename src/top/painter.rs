//! Paints a screen: the codes for the cells that have changed.

use std::fmt::Write;

use ratatui_core::buffer::{Buffer, Cell};
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier};

/// A `Painter` knows what is on the screen.
#[derive(Debug)]
pub(super) struct Painter {
    /// What is on the screen, if that is known.
    shown: Option<Buffer>,
    has_colors: bool,
}

impl Painter {
    pub(super) const fn new(has_colors: bool) -> Self {
        Self {
            shown: None,
            has_colors,
        }
    }

    /// Forgets what is on the screen, so that all of it is painted next.
    pub(super) fn forget(&mut self) {
        self.shown = None;
    }

    /// Appends the codes that bring the screen to this state.
    pub(super) fn paint(&mut self, next: Buffer, out: &mut Vec<u8>) {
        let mut text = String::new();
        let shown = match self.shown.take() {
            Some(shown) if shown.area == next.area => shown,
            _ => {
                text.push_str("\x1b[0m\x1b[2J");
                Buffer::empty(Rect { ..next.area })
            }
        };
        let mut cursor = None;
        let mut style = String::new();
        for (x, y, cell) in shown.diff(&next) {
            // Writing to a string does not fail.
            if cursor != Some((x, y)) {
                let _ = write!(text, "\x1b[{};{}H", y + 1, x + 1);
            }
            let wanted = self.style(cell);
            if wanted != style {
                text.push_str(&wanted);
                style = wanted;
            }
            text.push_str(cell.symbol());
            // How far a wide character moves the cursor is the terminal's opinion.
            cursor = cell.symbol().is_ascii().then_some((x + 1, y));
        }
        if !style.is_empty() {
            text.push_str("\x1b[0m");
        }
        out.extend_from_slice(text.as_bytes());
        self.shown = Some(next);
    }

    /// The code for the style of a cell. There is no background: it is the terminal's own.
    fn style(&self, cell: &Cell) -> String {
        let mut code = "\x1b[0".to_owned();
        for (modifier, number) in [
            (Modifier::BOLD, ";1"),
            (Modifier::DIM, ";2"),
            (Modifier::REVERSED, ";7"),
        ] {
            if cell.modifier.contains(modifier) {
                code.push_str(number);
            }
        }
        code.push_str(match cell.fg {
            Color::Red if self.has_colors => ";31",
            Color::Green if self.has_colors => ";32",
            Color::Magenta if self.has_colors => ";35",
            _ => "",
        });
        code.push('m');
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui_core::style::Style;

    fn painted(painter: &mut Painter, lines: &[(&str, Style)]) -> String {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 6, 2));
        for (y, (line, style)) in lines.iter().enumerate() {
            buffer.set_string(0, y as u16, line, *style);
        }
        let mut out = Vec::new();
        painter.paint(buffer, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_cells_that_have_changed_are_painted() {
        let mut painter = Painter::new(true);
        let (plain, red) = (Style::new(), Style::new().fg(Color::Red).bold());
        let first = painted(&mut painter, &[("abc", plain)]);
        assert_eq!(first, "\x1b[0m\x1b[2J\x1b[1;1H\x1b[0mabc\x1b[0m");
        assert_eq!(painted(&mut painter, &[("abc", plain)]), "");
        let second = painted(&mut painter, &[("abd", red), ("e", plain)]);
        assert_eq!(second, "\x1b[1;1H\x1b[0;1;31mabd\x1b[2;1H\x1b[0me\x1b[0m");
        painter.forget();
        assert!(painted(&mut painter, &[("abd", red)]).starts_with("\x1b[0m\x1b[2J"));
    }

    #[test]
    fn without_colors_there_are_none() {
        let mut painter = Painter::new(false);
        let red = Style::new().fg(Color::Red).bold();
        assert!(painted(&mut painter, &[("a", red)]).contains("\x1b[0;1ma"));
    }
}
