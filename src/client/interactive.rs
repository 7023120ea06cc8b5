//! The client on a terminal: a line that is being typed, and the messages above it.

use std::io;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use jiff::civil::Date;
use mio::event::Event;
use mio::{Registry, Token};

use super::command::{Command, HELP};
use super::display::{Notice, Theme, width_of_name};
use super::incoming::Received;
use super::limits::MAX_PENDING_BYTES;
use super::line_editor::{Edit, LineEditor};
use super::request::Request;
use super::screen::{Prompt, Screen};
use crate::clock::timestamp;
use crate::terminal::keyboard::Keyboard;
use crate::terminal::keys::Input;
use crate::terminal::raw_mode::{Modes, Terminal};
use crate::terminal::stdio::Sink;
use crate::text::Shown;

/// The longest line that can be typed, in bytes: more than most servers accept.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// An `Interactive` is the user interface on a terminal.
#[derive(Debug)]
pub(super) struct Interactive {
    terminal: Terminal,
    keyboard: Keyboard,
    display: Sink,
    editor: LineEditor,
    screen: Screen,
    theme: Theme,
    /// The day of the latest message of the server's history.
    past_day: Option<Date>,
    /// Whether a message of the server's history was shown since the client has connected.
    has_past: bool,
    /// Whether the typed line on the screen is out of date.
    needs_paint: bool,
}

impl Interactive {
    /// Puts the terminal into raw mode. `name` is the user's own.
    pub(super) fn start(
        name: &[u8],
        theme: Theme,
        reflows: bool,
        registry: &Registry,
        [input, output]: [Token; 2],
    ) -> io::Result<Self> {
        let mut prompt = Prompt {
            styled: Vec::new(),
            width: width_of_name(name) + 2,
        };
        theme.write_name(&mut prompt.styled, name)?;
        prompt.styled.extend_from_slice(b"> ");
        let terminal = Terminal::open(Modes::Lines)?;
        let (rows, cols) = terminal.size();
        Ok(Self {
            keyboard: Keyboard::new(terminal.device(), registry, input)?,
            display: Sink::new(terminal.device(), registry, output)?,
            terminal,
            editor: LineEditor::new(),
            screen: Screen::new(rows, cols, reflows, prompt),
            theme,
            past_day: None,
            has_past: false,
            needs_paint: true,
        })
    }

    pub(super) fn note_input(&mut self) {
        self.keyboard.note();
    }

    pub(super) fn note_output(&mut self, event: &Event) -> io::Result<()> {
        self.display.note(event)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.keyboard.deadline()
    }

    /// Whether the terminal keeps up with the output.
    pub(super) fn has_room(&self) -> bool {
        self.display.pending() < MAX_PENDING_BYTES
    }

    /// Reads keys, and adds the requests that they make to `requests`.
    pub(super) fn read(
        &mut self,
        registry: &Registry,
        now: Instant,
        requests: &mut Vec<Request>,
    ) -> io::Result<()> {
        let Some(inputs) = self.keyboard.read(registry, now)? else {
            requests.push(Request::HangUp);
            return Ok(());
        };
        for input in inputs {
            self.take(input, requests)?;
        }
        Ok(())
    }

    fn take(&mut self, input: Input, requests: &mut Vec<Request>) -> io::Result<()> {
        if let Input::Paste(text) = &input
            && self.editor.text().len() + text.len() > MAX_LINE_BYTES
        {
            return self.notice(
                Notice::Warning,
                "this is too long for one line; send it from a file: chatloop join < FILE",
            );
        }
        match self.editor.feed(input) {
            Edit::None => return Ok(()),
            Edit::Changed => {}
            Edit::Line(line) if line.trim().is_empty() => {}
            Edit::Line(line) => self.enter(line, requests)?,
            Edit::Interrupt if self.editor.text().is_empty() => requests.push(Request::Leave),
            Edit::Interrupt => {
                self.editor.discard();
                let advice = "not sent; Up brings the line back, Ctrl-C leaves";
                self.notice(Notice::Info, advice)?;
            }
            Edit::EndOfInput => requests.push(Request::Leave),
            Edit::Suspend => {
                if !Terminal::suspend()? {
                    let advice = "there is no shell that could continue the chat";
                    self.notice(Notice::Info, advice)?;
                }
            }
            Edit::Redraw => self.screen.clear(self.display.buffer())?,
        }
        self.needs_paint = true;
        Ok(())
    }

    /// Executes a line that was entered. A command that is not understood stays as the typed line.
    fn enter(&mut self, line: String, requests: &mut Vec<Request>) -> io::Result<()> {
        let advice = match Command::parse(&line) {
            Command::Send(text) => {
                requests.push(Request::Send(text.as_bytes().to_vec()));
                return Ok(());
            }
            Command::Quit => {
                requests.push(Request::Leave);
                return Ok(());
            }
            Command::Help => {
                return HELP
                    .iter()
                    .try_for_each(|line| self.notice(Notice::Info, line));
            }
            Command::EmptyAction => "/me takes what you do, as in: /me waves".to_owned(),
            Command::NoArgument(word) => {
                format!("{word} takes nothing after it; /{word} sends \"{word}\"")
            }
            Command::Unknown(word) => {
                format!(
                    "there is no command {word}; /help lists them, and /{word} sends \"{word}\""
                )
            }
        };
        self.notice(Notice::Warning, &advice)?;
        self.editor.set(line);
        Ok(())
    }

    /// Shows a message, the user's own or another member's.
    pub(super) fn message(&mut self, message: &Received<'_>, is_past: bool) -> io::Result<()> {
        let now = timestamp(SystemTime::now());
        let time = message.time.unwrap_or(now);
        if is_past {
            self.begin_day(time, now)?;
        }
        self.screen.erase(self.display.buffer())?;
        self.needs_paint = true;
        let cols = self.screen.cols();
        let out = self.display.buffer();
        self.theme
            .write_message(out, time, message.name, message.text, cols)
    }

    /// Shows the day of a message of the history, unless it is that of the message before or today.
    fn begin_day(&mut self, time: Timestamp, now: Timestamp) -> io::Result<()> {
        let day = self.theme.day(time);
        if !std::mem::replace(&mut self.has_past, true) {
            self.past_day = self.theme.day(now);
        }
        if self.past_day != day {
            self.past_day = day;
            if let Some(day) = day {
                return self.notice(Notice::Info, &day.to_string());
            }
        }
        Ok(())
    }

    /// Shows where the server's history ends.
    pub(super) fn end_history(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.has_past) {
            return Ok(());
        }
        self.notice(Notice::Info, "these were earlier messages")
    }

    pub(super) fn notice(&mut self, kind: Notice, text: &str) -> io::Result<()> {
        self.screen.erase(self.display.buffer())?;
        self.needs_paint = true;
        let cols = self.screen.cols();
        let out = self.display.buffer();
        self.theme.write_notice(out, kind, text, cols)
    }

    /// Paints the typed line if it has changed and the terminal accepts output. A slow terminal gets
    /// the newest state and not each one in between, and so does one during a paste.
    pub(super) fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        if self.needs_paint && self.display.is_ready() && !self.keyboard.is_pasting() {
            let (text, cursor) = (self.editor.text(), self.editor.cursor());
            self.screen.paint(self.display.buffer(), text, cursor)?;
            self.needs_paint = false;
        }
        self.display.flush(registry)
    }

    /// Adapts to a new size of the terminal.
    pub(super) fn resize(&mut self) -> io::Result<()> {
        let (rows, cols) = self.terminal.size();
        self.screen.resize(self.display.buffer(), rows, cols)?;
        self.needs_paint = true;
        Ok(())
    }

    /// Restores the terminal and stops the process until it is continued.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.write_pending()?;
        Terminal::stop()
    }

    /// Enters raw mode again, after other programs have written on the terminal.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        self.terminal.enter()?;
        self.screen.restart(self.display.buffer())?;
        self.resize()
    }

    /// Erases the typed line, reports it as not sent, and writes all pending output.
    pub(super) fn write_remaining(&mut self) -> io::Result<()> {
        let draft = self.editor.text();
        if !draft.is_empty() {
            let notice = format!("not sent: {}", Shown::plain(draft.as_bytes()));
            self.notice(Notice::Warning, &notice)?;
        }
        self.write_pending()
    }

    /// Erases the typed line, and writes all pending output.
    fn write_pending(&mut self) -> io::Result<()> {
        self.screen.erase(self.display.buffer())?;
        let pending = self.display.take_pending();
        self.terminal.write_all(&pending)
    }
}
