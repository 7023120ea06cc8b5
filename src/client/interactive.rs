//! The client on a terminal: a line that is being typed, and the messages above it.

use std::io;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use jiff::civil::Date;
use mio::event::Event;
use mio::{Registry, Token};
use unicode_width::UnicodeWidthStr;

use super::attention::Attention;
use super::chat_log::ChatLog;
use super::command::{COMMANDS, Command, HELP};
use super::display::{Look, Named, Notice, Theme, is_long, width_of_name};
use super::incoming::{Received, ReceivedOwned};
use super::limits::MAX_PENDING_BYTES;
use super::line_editor::{Edit, LineEditor};
use super::mention::mentions;
use super::request::Request;
use super::roster::Roster;
use super::screen::{Prompt, Screen};
use super::typed_history::TypedHistory;
use crate::clock::timestamp;
use crate::terminal::keyboard::Keyboard;
use crate::terminal::keys::Input;
use crate::terminal::raw_mode::{Modes, Terminal};
use crate::terminal::stdio::Sink;
use crate::text::Shown;

/// The longest line that can be typed, in bytes: more than most servers accept.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// The options of a client on a terminal.
#[derive(Debug)]
pub struct TerminalOptions {
    /// The format of messages and notices.
    pub theme: Theme,
    /// Whether the terminal wraps lines again when it becomes narrower.
    pub reflows: bool,
    /// Whether mentions ring the bell and are counted in the window's title.
    pub bell: bool,
    /// The file to which messages are logged.
    pub log: Option<ChatLog>,
    /// The lines that were typed before.
    pub history: Option<TypedHistory>,
}

/// An `Interactive` is the user interface on a terminal.
#[derive(Debug)]
pub(super) struct Interactive {
    terminal: Terminal,
    keyboard: Keyboard,
    display: Sink,
    editor: LineEditor,
    screen: Screen,
    prompt: Prompt,
    theme: Theme,
    /// The user's own name.
    name: Vec<u8>,
    roster: Roster,
    attention: Attention,
    log: Option<ChatLog>,
    typed: Option<TypedHistory>,
    /// The latest message that was folded.
    folded: Option<ReceivedOwned>,
    /// The day of the latest message.
    day: Option<Date>,
    /// Whether a message of the server's history was shown since the client has connected.
    has_past: bool,
    /// Whether the typed line on the screen is out of date.
    needs_paint: bool,
}

impl Interactive {
    /// Puts the terminal into raw mode. `name` is the user's own.
    pub(super) fn start(
        name: &[u8],
        options: TerminalOptions,
        registry: &Registry,
        [input, output]: [Token; 2],
    ) -> io::Result<Self> {
        let TerminalOptions {
            theme,
            reflows,
            bell,
            log,
            history: mut typed,
        } = options;
        let terminal = Terminal::open(Modes::Lines)?;
        let (rows, cols) = terminal.size();
        let mut editor = LineEditor::new();
        if let Some(typed) = &mut typed {
            editor.remember_earlier(typed.take_lines());
        }
        let mut interactive = Self {
            keyboard: Keyboard::new(terminal.device(), registry, input)?,
            display: Sink::new(terminal.device(), registry, output)?,
            terminal,
            editor,
            screen: Screen::new(rows, cols, reflows),
            prompt: Prompt::default(),
            day: theme.day(timestamp(SystemTime::now())),
            theme,
            name: Vec::new(),
            roster: Roster::default(),
            attention: Attention::new(bell),
            log,
            typed,
            folded: None,
            has_past: false,
            needs_paint: true,
        };
        interactive.rename(name)?;
        Ok(interactive)
    }

    /// Takes another name.
    pub(super) fn rename(&mut self, name: &[u8]) -> io::Result<()> {
        self.name = name.to_vec();
        self.prompt = Prompt {
            styled: Vec::new(),
            width: width_of_name(name) + 2,
        };
        self.theme.write_name(&mut self.prompt.styled, name)?;
        self.prompt.styled.extend_from_slice(b"> ");
        Ok(())
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
        match &input {
            Input::Focus(true) => self.attention.focus(self.display.buffer()),
            Input::Focus(false) => self.attention.leave(),
            Input::Paste(text) if self.editor.text().len() + text.len() > MAX_LINE_BYTES => {
                return self.notice(
                    Notice::Warning,
                    "this is too long for one line; send it from a file: chatloop join < FILE",
                );
            }
            Input::Key(_) | Input::Paste(_) => self.attention.note_key(self.display.buffer()),
        }
        match self.editor.feed(input) {
            Edit::None => return Ok(()),
            Edit::Changed => {}
            Edit::Line(line) if line.trim().is_empty() => requests.push(Request::Hurry),
            Edit::Line(line) => {
                self.keep(&line)?;
                self.enter(&line, requests)?;
            }
            Edit::Complete => {
                let words = COMMANDS.into_iter().chain(self.roster.names());
                self.editor.complete(words);
            }
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

    /// Executes a line that was entered.
    fn enter(&mut self, line: &str, requests: &mut Vec<Request>) -> io::Result<()> {
        let advice = match Command::parse(line) {
            Command::Send(text) => {
                requests.push(Request::Send(text.as_bytes().to_vec()));
                return Ok(());
            }
            Command::Quit => {
                requests.push(Request::Leave);
                return Ok(());
            }
            Command::Reconnect => {
                requests.push(Request::Reconnect);
                return Ok(());
            }
            Command::Nick(name) => {
                requests.push(Request::Rename(name.as_bytes().to_vec()));
                return Ok(());
            }
            Command::Help => {
                return HELP
                    .iter()
                    .try_for_each(|line| self.notice(Notice::Info, line));
            }
            Command::Names => return self.list_members(),
            Command::Ignore(name) => return self.ignore(name),
            Command::More => return self.unfold(),
            Command::Clear => return self.screen.clear(self.display.buffer()),
            Command::Misused(advice) => advice.to_owned(),
            Command::NoArgument(word) => {
                format!("{word} takes nothing after it; /{word} sends \"{word}\"")
            }
            Command::Unknown(word) => {
                format!(
                    "there is no command {word}; /help lists them, and /{word} sends \"{word}\""
                )
            }
        };
        self.notice(Notice::Warning, &advice)
    }

    /// Keeps a line that was entered for the next time that the program runs.
    fn keep(&mut self, line: &str) -> io::Result<()> {
        if let Some(typed) = &mut self.typed
            && let Err(error) = typed.append(line)
        {
            self.typed = None;
            let notice = format!("what you type is no longer kept: {error}");
            self.notice(Notice::Warning, &notice)?;
        }
        Ok(())
    }

    fn list_members(&mut self) -> io::Result<()> {
        let list = self.roster.list(timestamp(SystemTime::now()));
        let notice = if list.is_empty() {
            "no member was heard yet; the server does not list its members".to_owned()
        } else {
            format!("heard, and how long ago: {list}; the server does not list its members")
        };
        self.notice(Notice::Info, &notice)
    }

    fn ignore(&mut self, name: &str) -> io::Result<()> {
        let notice = if name.is_empty() {
            match self.roster.ignored() {
                ignored if ignored.is_empty() => {
                    "no member is ignored; /ignore takes a name, as in: /ignore eve".to_owned()
                }
                ignored => format!("ignored: {ignored}"),
            }
        } else {
            let shown = Named(name.as_bytes());
            if self.roster.toggle_ignored(name) {
                format!("messages of {shown} are hidden; the same command shows them again")
            } else {
                format!("messages of {shown} are shown again")
            }
        };
        self.notice(Notice::Info, &notice)
    }

    /// Shows the latest message that was folded whole.
    fn unfold(&mut self) -> io::Result<()> {
        let Some(folded) = self.folded.take() else {
            return self.notice(Notice::Info, "there is no long message to show");
        };
        let time = folded.time.unwrap_or_default();
        self.show(&folded.received(), time, Look::default())?;
        self.folded = Some(folded);
        Ok(())
    }

    /// Shows a message of another member, or one of the server's history.
    pub(super) fn message(&mut self, message: &Received<'_>, is_past: bool) -> io::Result<()> {
        let now = timestamp(SystemTime::now());
        let time = message.time.unwrap_or(now);
        let is_own = message.name == self.name;
        if !is_own {
            self.roster.note(message.name, time);
        }
        if self.roster.is_ignored(message.name) {
            return Ok(());
        }
        let is_mention = !is_own && mentions(message.text, &self.name);
        self.begin_day(time, now, is_past)?;
        if !is_past {
            if self.attention.take_mark() {
                self.notice(Notice::Info, "new since you looked away")?;
            }
            if is_mention {
                self.attention.note_mention(self.display.buffer());
            }
            self.log(message, time)?;
        }
        self.show_folded(message, time, is_mention)
    }

    /// Shows a message that the user has sent.
    pub(super) fn own_message(&mut self, text: &[u8]) -> io::Result<()> {
        let now = timestamp(SystemTime::now());
        let name = self.name.clone();
        let message = Received::new(&name, text);
        self.begin_day(now, now, false)?;
        self.log(&message, now)?;
        self.show_folded(&message, now, false)
    }

    /// Shows a message, or the beginning of one that has many lines.
    fn show_folded(
        &mut self,
        message: &Received<'_>,
        time: Timestamp,
        is_mention: bool,
    ) -> io::Result<()> {
        if is_long(message.text) {
            let time = Some(time);
            self.folded = Some(ReceivedOwned::new(&Received { time, ..*message }));
        }
        let look = Look {
            is_mention,
            is_folded: true,
        };
        self.show(message, time, look)
    }

    fn show(&mut self, message: &Received<'_>, time: Timestamp, look: Look) -> io::Result<()> {
        self.screen.erase(self.display.buffer())?;
        self.needs_paint = true;
        let cols = self.screen.cols();
        let out = self.display.buffer();
        self.theme
            .write_message(out, time, message.name, message.text, cols, look)
    }

    fn log(&mut self, message: &Received<'_>, time: Timestamp) -> io::Result<()> {
        if let Some(log) = &mut self.log
            && let Err(error) = log.write(message, time)
        {
            self.log = None;
            let notice = format!("the chat is no longer logged: {error}");
            self.notice(Notice::Warning, &notice)?;
        }
        Ok(())
    }

    /// Shows the day of a message, unless it is that of the message before. A history goes back from today;
    /// other messages do not go back, although the clocks of two machines can differ around midnight.
    fn begin_day(&mut self, time: Timestamp, now: Timestamp, is_past: bool) -> io::Result<()> {
        if is_past && !std::mem::replace(&mut self.has_past, true) {
            self.day = self.theme.day(now);
        }
        let day = self.theme.day(time);
        if let Some(begun) = day
            && (is_past && day != self.day || day > self.day)
        {
            self.day = day;
            let notice = begun.strftime("%A, %-d %B %Y").to_string();
            return self.notice(Notice::Info, &notice);
        }
        Ok(())
    }

    /// Shows where the server's history ends.
    pub(super) fn end_history(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.has_past) {
            return Ok(());
        }
        self.day = self.theme.day(timestamp(SystemTime::now()));
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
            let search = self.editor.search().map(search_prompt);
            let prompt = search.as_ref().unwrap_or(&self.prompt);
            let out = self.display.buffer();
            self.screen.paint(out, prompt, text, cursor)?;
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
        self.attention.leave();
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
        self.attention.note_key(self.display.buffer());
        self.screen.erase(self.display.buffer())?;
        let pending = self.display.take_pending();
        self.terminal.write_all(&pending)
    }
}

/// The prompt while the lines that were typed before are searched.
fn search_prompt((query, has_failed): (&str, bool)) -> Prompt {
    let query = Shown::plain(query.as_bytes());
    let text = if has_failed {
        format!("search, no other with \"{query}\": ")
    } else {
        format!("search \"{query}\": ")
    };
    Prompt {
        width: text.width(),
        styled: text.into_bytes(),
    }
}
