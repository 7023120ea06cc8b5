//! Runs a program on a pseudo-terminal, with an emulator of its screen: a test sees what a user sees.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rexpect::process::{PtyProcess, WaitStatus};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};
use vt100::{CursorStyle, Parser, Screen};

use super::PATIENCE;

/// More rows than scroll away in any test.
const SCROLLBACK: usize = 10_000;

/// The script that runs on the terminal first. It prints its process id, which the program inherits,
/// and waits: the terminal's size can be set only when its far side is open, and must be set before the
/// program reads it.
///
/// The program would inherit ignored signals, such as the interrupts that a script's background job
/// ignores, and a shell cannot change that. GNU `env` can, where it is installed.
const STARTER: &str = "\
    if env --default-signal true 2>/dev/null; then set -- env --default-signal \"$@\"; fi; \
    printf '%s ' $$; read _; printf go; exec \"$@\"";

/// A program on a terminal of its own. It is killed when this is dropped.
pub struct Terminal {
    process: PtyProcess,
    pid: u32,
    /// The output of the program, from a thread of its own, so that a program that prints much does not
    /// wait for the test. It is closed when no process has the terminal open.
    printed: Receiver<Vec<u8>>,
    keyboard: File,
    emulator: Parser,
    output: Vec<u8>,
    ended: Option<Ended>,
}

/// A `bash` with job control and `$ ` as its prompt; `None` where it is not installed.
pub fn bash() -> Option<Command> {
    if Command::new("bash").arg("--version").output().is_err() {
        super::skip("bash is not installed");
        return None;
    }
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-i"]).env("PS1", "$ ");
    Some(bash)
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it: "TERM", for one.
    Signal(&'static str),
}

/// The modes that a program can leave switched. A failed comparison shows where they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modes {
    /// The modes of the kernel: echo, lines or bytes, keys that send signals.
    pub line: Vec<String>,
    /// The modes for keys, pastes and the mouse, as the sequences that set them.
    pub input: String,
    /// The attributes of text that is printed next, as the sequence that sets them.
    pub attributes: String,
    pub alternate_screen: bool,
    pub hidden_cursor: bool,
    pub cursor_style: CursorStyle,
}

impl Terminal {
    /// Runs the program on a terminal of this size, with the command's arguments, environment and
    /// directory. Its standard streams are always the terminal. Environment variables about the
    /// terminal of the tests are not passed on.
    #[track_caller]
    pub fn run(command: &Command, rows: u16, cols: u16) -> Self {
        let process = PtyProcess::new(started(command)).unwrap();
        let keyboard = process.get_file_handle().unwrap();
        let mut terminal = Self {
            printed: read_all(process.get_file_handle().unwrap()),
            process,
            pid: 0,
            keyboard,
            emulator: Parser::new(at_least_one(rows), at_least_one(cols), SCROLLBACK),
            output: Vec::new(),
            ended: None,
        };
        terminal.start_program(rows, cols);
        terminal
    }

    /// Lets the program start once the terminal is ready. The emulator sees none of this.
    #[track_caller]
    fn start_program(&mut self, rows: u16, cols: u16) {
        let mut start = Vec::new();
        while !start.contains(&b' ') {
            start.extend(self.printed.recv_timeout(PATIENCE).unwrap());
        }
        let pid = String::from_utf8(start.clone()).unwrap();
        self.pid = pid.trim_end().parse().unwrap();

        // The modes of a terminal window: `PtyProcess` has switched the echo off, and the kernel must
        // know that characters can have several bytes.
        let mut modes = tcgetattr(&self.keyboard).unwrap();
        modes.local_modes |= LocalModes::ECHO;
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&self.keyboard, OptionalActions::Now, &modes).unwrap();
        self.set_size(rows, cols);

        // The line that the starter waits for is echoed already; all after its answer is the
        // program's.
        self.send("\n");
        let len = start.len() + b"\r\ngo".len();
        while start.len() < len {
            start.extend(self.printed.recv_timeout(PATIENCE).unwrap());
        }
        assert!(start[..len].ends_with(b" \r\ngo"), "{start:?}");
        self.show(&start[len..]);
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Types. The bytes are with the kernel when this returns, so what the test does next comes
    /// after them.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.keyboard.write_all(bytes.as_ref()).unwrap();
    }

    /// Pastes as terminals do it when a program has switched bracketed paste on.
    #[track_caller]
    pub fn paste(&mut self, text: &str) {
        self.read_printed();
        let bracketed = self.screen().bracketed_paste();
        assert!(
            bracketed,
            "the program has not asked for bracketed pastes; {}",
            self.describe()
        );
        let text = text.replace('\n', "\r");
        self.send(format!("\x1b[200~{text}\x1b[201~"));
    }

    /// Gives the terminal's window another size, which the program learns by a signal. The emulator
    /// cuts rows that have become too long instead of wrapping them again.
    pub fn resize(&mut self, rows: u16, cols: u16) {
        self.read_printed();
        let (emulated_rows, emulated_cols) = (at_least_one(rows), at_least_one(cols));
        self.emulator.set_size(emulated_rows, emulated_cols);
        self.set_size(rows, cols);
    }

    fn set_size(&self, rows: u16, cols: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.keyboard, size).unwrap();
    }

    /// Waits until `done` holds of the screen. A failure reports `what` it waits for.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut(&Screen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self.screen()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let printed = match self.printed.recv_timeout(left) {
                // The deadline also holds for a program that prints without end.
                Ok(_) | Err(RecvTimeoutError::Timeout) if left.is_zero() => None,
                Ok(bytes) => Some(bytes),
                Err(_) => None,
            };
            let Some(bytes) = printed else {
                panic!("waited in vain for: {what}; {}", self.describe());
            };
            self.show(&bytes);
        }
    }

    /// Waits until the screen shows this; it may go on from one row to the next.
    #[track_caller]
    pub fn wait_for_text(&mut self, text: &str) {
        self.wait_for(&format!("{text:?}"), |screen| {
            screen.contents().contains(text)
        });
    }

    /// The visible rows without the blanks at their ends, down to the last that has text.
    pub fn rows(&mut self) -> Vec<String> {
        self.read_printed();
        visible_rows(self.screen())
    }

    /// The rows that have scrolled away, and then the visible ones.
    pub fn history(&mut self) -> Vec<String> {
        self.read_printed();
        let screen = self.emulator.screen_mut();
        let mut rows = Vec::new();
        for above in (1..=screen.scrollback_len()).rev() {
            screen.set_scrollback(above);
            // A row that has scrolled away keeps the width that it had.
            let row = screen.rows(0, u16::MAX).next().unwrap();
            rows.push(row.trim_end().to_owned());
        }
        screen.set_scrollback(0);
        rows.extend(visible_rows(screen));
        rows
    }

    /// The screen as it was when the test last waited or looked.
    pub fn screen(&self) -> &Screen {
        self.emulator.screen()
    }

    /// Where the cursor is on that screen: row and column, counted from 0.
    pub fn cursor(&self) -> (u16, u16) {
        self.screen().cursor_position()
    }

    /// Every byte that was printed until the test last waited or looked.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The modes of the terminal now, or as the program has left them.
    pub fn modes(&mut self) -> Modes {
        self.read_printed();
        let screen = self.screen();
        let line = format!("{:#?}", tcgetattr(&self.keyboard).unwrap());
        Modes {
            line: line.lines().map(|line| line.trim().to_owned()).collect(),
            input: screen.input_mode_formatted(),
            attributes: screen.attributes_formatted(),
            alternate_screen: screen.alternate_screen(),
            hidden_cursor: screen.hide_cursor(),
            cursor_style: screen.cursor_style(),
        }
    }

    /// Sends the program a signal: "TERM", for one.
    #[track_caller]
    pub fn signal(&mut self, name: &str) {
        assert_eq!(self.ended, None, "the program has ended");
        let signal = format!("SIG{name}").parse().unwrap();
        self.process.signal(signal).unwrap();
    }

    /// Waits for the program's end and the last that it prints.
    #[track_caller]
    pub fn wait(&mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let ended = loop {
            if let Some(ended) = self.try_wait() {
                break ended;
            }
            if Instant::now() > deadline {
                self.read_printed();
                panic!("the program does not end; {}", self.describe());
            }
            thread::sleep(Duration::from_millis(1));
        };
        // When a shell ends, the kernel hangs up what its jobs have open.
        while let Ok(bytes) = self.printed.recv_timeout(PATIENCE) {
            self.show(&bytes);
        }
        ended
    }

    fn try_wait(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            self.ended = match self.process.status() {
                Some(WaitStatus::Exited(_, code)) => Some(Ended::Code(code)),
                Some(WaitStatus::Signaled(_, signal, _)) => {
                    let name = signal.as_str();
                    Some(Ended::Signal(name.strip_prefix("SIG").unwrap_or(name)))
                }
                _ => None,
            };
        }
        self.ended
    }

    /// Shows the emulator what has been printed so far.
    fn read_printed(&mut self) {
        while let Ok(bytes) = self.printed.try_recv() {
            self.show(&bytes);
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        self.emulator.process(bytes);
    }

    /// The whole screen and the state of the program, for the message of a failure.
    fn describe(&mut self) -> String {
        let (row, col) = self.cursor();
        let state = match self.try_wait() {
            Some(ended) => format!("the program has ended: {ended:?}"),
            None => "the program runs".to_owned(),
        };
        let rows: Vec<_> = self.screen().rows(0, u16::MAX).collect();
        let rows = rows.join("\n  |");
        let last = &self.output[self.output.len().saturating_sub(200)..];
        format!(
            "{state}; the cursor is in row {row}, column {col} of\n  |{rows}\n\
             the last it printed: {}",
            last.escape_ascii()
        )
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // `PtyProcess` sends SIGTERM and sleeps, and a shell ignores SIGTERM.
        if self.try_wait().is_none() {
            let _ = self.process.signal(rexpect::process::Signal::SIGKILL);
            let _ = self.process.wait();
        }
    }
}

/// The command, started by way of [`STARTER`].
fn started(command: &Command) -> Command {
    let mut starter = Command::new("sh");
    starter.args(["-c", STARTER, "sh"]);
    starter.arg(command.get_program()).args(command.get_args());
    for name in ["NO_COLOR", "TMUX", "COLORTERM", "LINES", "COLUMNS"] {
        starter.env_remove(name);
    }
    starter.env("TERM", "xterm-256color");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => starter.env(name, value),
            None => starter.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        starter.current_dir(dir);
    }
    starter
}

/// Reads the output of the terminal until a read fails, when no process has it open.
fn read_all(mut terminal: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buf = [0; 4096];
        while let Ok(read @ 1..) = terminal.read(&mut buf) {
            if sender.send(buf[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn visible_rows(screen: &Screen) -> Vec<String> {
    let mut rows: Vec<_> = screen
        .rows(0, u16::MAX)
        .map(|row| row.trim_end().to_owned())
        .collect();
    while rows.last().is_some_and(String::is_empty) {
        rows.pop();
    }
    rows
}

/// The emulator needs at least one row and column; the kernel's terminal can have none.
fn at_least_one(size: u16) -> NonZeroU16 {
    NonZeroU16::new(size).unwrap_or(NonZeroU16::MIN)
}
