//! The terminal: it is painted when there is something new to show, and read when keys are pressed.

use std::io;
use std::mem;
use std::time::{Instant, SystemTime};

use mio::event::Event;
use mio::{Registry, Token};
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;

use super::controls::{Action, Controls};
use super::model::RelayModel;
use super::painter::Painter;
use super::view;
use crate::terminal::keyboard::Keyboard;
use crate::terminal::raw_mode::{Modes, Terminal};
use crate::terminal::stdio::Sink;

/// The size of a terminal that reports none.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// The largest size that is painted, in rows and in columns.
const MAX_SIZE: u16 = 1000;

/// A `Screen` shows relays on the terminal of standard input and output.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal,
    keyboard: Keyboard,
    display: Sink,
    painter: Painter,
    controls: Controls,
    /// Whether what the screen shows is out of date.
    needs_paint: bool,
}

impl Screen {
    /// Puts the terminal into raw mode, with a screen of its own.
    pub(super) fn start(
        has_colors: bool,
        registry: &Registry,
        [input, output]: [Token; 2],
    ) -> io::Result<Self> {
        let terminal = Terminal::open(Modes::FullScreen)?;
        Ok(Self {
            keyboard: Keyboard::new(terminal.device(), registry, input)?,
            display: Sink::new(terminal.device(), registry, output)?,
            terminal,
            painter: Painter::new(has_colors),
            controls: Controls::new(),
            needs_paint: true,
        })
    }

    pub(super) fn note_input(&mut self) {
        self.keyboard.note();
    }

    pub(super) fn note_output(&mut self, event: &Event) -> io::Result<()> {
        self.display.note(event)
    }

    /// When to [`read`](Self::read) at the latest.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.keyboard.deadline()
    }

    /// There is something new to show.
    pub(super) const fn invalidate(&mut self) {
        self.needs_paint = true;
    }

    /// Reads keys. Returns whether the user wants to go on; `None` if the terminal is gone.
    pub(super) fn read(
        &mut self,
        registry: &Registry,
        relays: usize,
        now: Instant,
    ) -> io::Result<Option<bool>> {
        let Some(inputs) = self.keyboard.read(registry, now)? else {
            return Ok(None);
        };
        for input in inputs {
            match self.controls.apply(&input, relays) {
                Action::None => {}
                Action::Show => self.needs_paint = true,
                Action::Redraw => self.redraw(),
                Action::Suspend => drop(Terminal::suspend()?),
                Action::Quit => return Ok(Some(false)),
            }
        }
        Ok(Some(true))
    }

    /// Paints what has changed, if anything has and the terminal has accepted what was painted before: a slow
    /// one gets the newest state, and not each one in between.
    pub(super) fn paint(&mut self, registry: &Registry, relays: &[RelayModel]) -> io::Result<()> {
        self.display.flush(registry)?;
        if self.display.pending() == 0 && mem::take(&mut self.needs_paint) {
            let (rows, cols) = match self.terminal.size() {
                (0, _) | (_, 0) => DEFAULT_SIZE,
                size => size,
            };
            let area = Rect::new(0, 0, cols.min(MAX_SIZE), rows.min(MAX_SIZE));
            let mut buffer = Buffer::empty(area);
            let time = SystemTime::now();
            self.controls.offset = view::draw(&mut buffer, relays, &self.controls, time);
            self.painter.paint(buffer, self.display.buffer());
        }
        self.display.flush(registry)
    }

    /// Paints all of the screen next.
    pub(super) fn redraw(&mut self) {
        self.painter.forget();
        self.needs_paint = true;
    }

    /// Restores the terminal and stops the process until it is continued.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        let pending = self.display.take_pending();
        self.terminal.write_all(&pending)?;
        Terminal::stop()
    }

    /// Enters raw mode again, after other programs have written on the terminal.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        self.terminal.enter()?;
        self.redraw();
        Ok(())
    }
}
