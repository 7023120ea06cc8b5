//! The client on a terminal: a line that is being typed, and above it what was said.

use std::io;
use std::time::{Instant, SystemTime};

use mio::event::Event;
use mio::{Registry, Token};

use super::ask::Ask;
use super::command::{Command, HELP};
use super::display::{Look, Notice, width_of_name};
use super::keys::{ESCAPE_DELAY, Input, KeyDecoder};
use super::limits::MAX_PENDING;
use super::line_editor::{Edit, LineEditor};
use super::screen::{Prompt, Screen};
use super::stdio::{Sink, Source};
use super::terminal::Terminal;
use crate::clock::timestamp;
use crate::text::Shown;

/// How many bytes of keys to read at once. A key is a few, a paste can be many.
const KEYS: usize = 4096;

/// How long a line can become, in bytes: more than most servers take.
const MAX_TYPED: usize = 4 * 1024 * 1024;

/// A person at a terminal.
#[derive(Debug)]
pub(super) struct Interactive {
    terminal: Terminal,
    keyboard: Source,
    display: Sink,
    keys: KeyDecoder,
    /// When an Escape that may be the beginning of something longer counts as one.
    escape_at: Option<Instant>,
    editor: LineEditor,
    screen: Screen,
    look: Look,
    /// Whether what is painted is not what it should be.
    stale: bool,
}

impl Interactive {
    /// Takes the terminal. `name` is our own.
    pub(super) fn start(
        name: &[u8],
        look: Look,
        reflows: bool,
        registry: &Registry,
        [input, output]: [Token; 2],
    ) -> io::Result<Self> {
        let mut prompt = Prompt {
            styled: Vec::new(),
            width: width_of_name(name) + 2,
        };
        look.write_name(&mut prompt.styled, name)?;
        prompt.styled.extend_from_slice(b"> ");
        let terminal = Terminal::take()?;
        let (rows, cols) = terminal.size();
        Ok(Self {
            keyboard: Source::new(terminal.device(), registry, input)?,
            display: Sink::new(terminal.device(), registry, output)?,
            terminal,
            keys: KeyDecoder::default(),
            escape_at: None,
            editor: LineEditor::new(),
            screen: Screen::new(rows, cols, reflows, prompt),
            look,
            stale: true,
        })
    }

    pub(super) fn note_input(&mut self) {
        self.keyboard.note();
    }

    pub(super) fn note_output(&mut self, event: &Event) -> io::Result<()> {
        self.display.note(event)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.escape_at
    }

    /// Whether the terminal keeps up.
    pub(super) fn has_room(&self) -> bool {
        self.display.pending() < MAX_PENDING
    }

    /// Reads keys, and adds what they ask for to `asked`.
    pub(super) fn read(
        &mut self,
        registry: &Registry,
        now: Instant,
        asked: &mut Vec<Ask>,
    ) -> io::Result<()> {
        let mut inputs = Vec::new();
        let mut buf = [0; KEYS];
        match self.keyboard.read(registry, &mut buf) {
            Ok(Some(0)) => asked.push(Ask::Vanish),
            Ok(Some(read)) => {
                self.keys.feed(&buf[..read], |input| inputs.push(input));
                self.escape_at = self.keys.is_undecided().then(|| now + ESCAPE_DELAY);
            }
            // Only when there is nothing to read: what followed may have been waiting.
            Ok(None) if self.escape_at.is_some_and(|at| at <= now) => {
                self.keys.timeout(|input| inputs.push(input));
                self.escape_at = None;
            }
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        for input in inputs {
            self.take(input, asked)?;
        }
        Ok(())
    }

    fn take(&mut self, input: Input, asked: &mut Vec<Ask>) -> io::Result<()> {
        if let Input::Paste(text) = &input
            && self.editor.text().len() + text.len() > MAX_TYPED
        {
            return self.notice(
                Notice::Trouble,
                "this is too long for one line; send it from a file: chatloop join < FILE",
            );
        }
        match self.editor.feed(input) {
            Edit::None => return Ok(()),
            Edit::Changed => {}
            Edit::Line(line) if line.trim().is_empty() => {}
            Edit::Line(line) => match Command::parse(&line) {
                Command::Say(text) => asked.push(Ask::Say(text.as_bytes().to_vec())),
                Command::Quit => asked.push(Ask::Leave),
                Command::Help => {
                    for line in HELP {
                        self.notice(Notice::Info, line)?;
                    }
                }
                Command::ActNothing => {
                    self.notice(Notice::Trouble, "/me takes what you do, as in: /me waves")?;
                    self.editor.set(line);
                }
                Command::TakesNothing(word) => {
                    let advice = format!("{word} takes nothing after it; /{word} says \"{word}\"");
                    self.notice(Notice::Trouble, &advice)?;
                    self.editor.set(line);
                }
                Command::Unknown(word) => {
                    let advice = format!(
                        "there is no command {word}; /help lists them, and /{word} says \"{word}\""
                    );
                    self.notice(Notice::Trouble, &advice)?;
                    self.editor.set(line);
                }
            },
            Edit::Interrupt if self.editor.text().is_empty() => asked.push(Ask::Leave),
            Edit::Interrupt => {
                self.editor.discard();
                self.notice(
                    Notice::Info,
                    "not sent; Up brings the line back, Ctrl-C leaves",
                )?;
            }
            Edit::EndOfInput => asked.push(Ask::Leave),
            Edit::Suspend => {
                if !Terminal::ask_to_stop()? {
                    self.notice(
                        Notice::Info,
                        "there is no shell that could continue the chat",
                    )?;
                }
            }
            Edit::Redraw => self.screen.clear(self.display.buffer())?,
        }
        self.stale = true;
        Ok(())
    }

    /// Shows a message, ours or somebody else's.
    pub(super) fn message(&mut self, name: &[u8], message: &[u8]) -> io::Result<()> {
        self.screen.erase(self.display.buffer())?;
        self.stale = true;
        let (now, cols) = (timestamp(SystemTime::now()), self.screen.cols());
        let out = self.display.buffer();
        self.look.write_message(out, now, name, message, cols)
    }

    pub(super) fn notice(&mut self, kind: Notice, text: &str) -> io::Result<()> {
        self.screen.erase(self.display.buffer())?;
        self.stale = true;
        let cols = self.screen.cols();
        let out = self.display.buffer();
        self.look.write_notice(out, kind, text, cols)
    }

    /// Paints what has changed, if the terminal takes anything: one that is slow gets the newest
    /// state, not each that there was in between. So does one from which a paste is still coming.
    pub(super) fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        if self.stale && self.display.is_ready() && !self.keys.is_pasting() {
            let (text, cursor) = (self.editor.text(), self.editor.cursor());
            self.screen.paint(self.display.buffer(), text, cursor)?;
            self.stale = false;
        }
        self.display.flush(registry)
    }

    /// The terminal has another size.
    pub(super) fn resize(&mut self) -> io::Result<()> {
        let (rows, cols) = self.terminal.size();
        self.screen.resize(self.display.buffer(), rows, cols)?;
        self.stale = true;
        Ok(())
    }

    /// Gives the terminal back and stops the process, until it is continued.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.write_pending()?;
        Terminal::stop()
    }

    /// Takes the terminal again, after others have written on it.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        self.terminal.enter()?;
        self.screen.restart(self.display.buffer())?;
        self.resize()
    }

    /// Takes the typed line away, tells what it was, and writes all there is to write.
    pub(super) fn write_rest(&mut self) -> io::Result<()> {
        let draft = self.editor.text();
        if !draft.is_empty() {
            let notice = format!("not sent: {}", Shown::plain(draft.as_bytes()));
            self.notice(Notice::Trouble, &notice)?;
        }
        self.write_pending()
    }

    /// Takes the typed line away, and writes what there is to write.
    fn write_pending(&mut self) -> io::Result<()> {
        self.screen.erase(self.display.buffer())?;
        let rest = self.display.take_pending();
        self.terminal.write_all(&rest)
    }
}
