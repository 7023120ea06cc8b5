//! The terminal itself: taken in raw mode, and given back as it was found.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getppid, getsid, kill_current_process_group};
use rustix::termios::{tcgetwinsize, ttyname};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

/// Has the terminal mark what is pasted (bracketed paste).
const PASTES_MARKED: &[u8] = b"\x1b[?2004h";
/// No marks, no colours, a cursor that shows.
const AS_FOUND: &[u8] = b"\x1b[?2004l\x1b[0m\x1b[?25h";
/// The row after the one with the cursor, and nothing below.
const NEXT_ROW: &[u8] = b"\r\n\x1b[J";

/// How long a terminal may take nothing before it counts as stuck.
const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Whether the terminal is in our hands. For the whole process, as the terminal is.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal that standard input and output both are.
///
/// It is in raw mode while this exists, but for the time in which the process is stopped. However
/// the process ends, it has to leave the terminal as it was: on a return and on a panic that unwinds,
/// dropping this does it; on a panic that aborts, a hook calls [`give_back`]; signals are events of
/// the loop. What is left is SIGKILL.
#[derive(Debug)]
pub(super) struct Terminal {
    device: OwnedFd,
    nonblocking: bool,
}

impl Terminal {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Self> {
        let (device, nonblocking) = match reopen() {
            Ok(device) => (device.into(), true),
            // It may belong to somebody else, after `su`.
            Err(_) => (io::stdout().as_fd().try_clone_to_owned()?, false),
        };
        let terminal = Self {
            device,
            nonblocking,
        };
        terminal.enter()?;
        Ok(terminal)
    }

    /// The terminal's device.
    pub(super) fn device(&self) -> impl AsFd {
        &self.device
    }

    /// Whether reads and writes never wait.
    pub(super) fn is_nonblocking(&self) -> bool {
        self.nonblocking
    }

    /// Its size in rows and columns; zeros if it does not know.
    pub(super) fn size(&self) -> (u16, u16) {
        tcgetwinsize(&self.device).map_or((0, 0), |size| (size.ws_row, size.ws_col))
    }

    /// Puts it into raw mode, if it is not.
    pub(super) fn enter(&self) -> io::Result<()> {
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        self.write_all(PASTES_MARKED)
    }

    /// Asks for the whole process group to be stopped, as Ctrl-Z does where the terminal sees to it.
    /// Returns whether there is anybody who could continue it: a shell.
    pub(super) fn ask_to_stop() -> io::Result<bool> {
        let has_shell = getppid().is_some_and(|parent| {
            matches!((getsid(Some(parent)), getsid(None)), (Ok(theirs), Ok(ours)) if theirs == ours)
        });
        if has_shell {
            kill_current_process_group(Signal::TSTP)?;
        }
        Ok(has_shell)
    }

    /// Gives the terminal back and stops until SIGCONT comes.
    pub(super) fn stop() -> io::Result<()> {
        restore(b"");
        emulate_default_handler(SIGTSTP)
    }

    /// Writes, waiting for a terminal that is slow, but not for one that is stuck. For the beginning
    /// and the end, when there is nothing else to do.
    pub(super) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.device, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let mut device = [PollFd::new(&self.device, PollFlags::OUT)];
                    if poll(&mut device, Some(&PATIENCE))? == 0 {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore(b"");
    }
}

/// Gives the terminal back as it was found, if a client has taken it; for a panic hook, which can say
/// what happened after that.
pub fn give_back() {
    restore(NEXT_ROW);
}

/// Writes `first`, and gives the terminal back, if it was taken.
fn restore(first: &[u8]) {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut stdout = io::stdout();
        // If the terminal is gone, there is nobody left to care.
        let _ = stdout.write_all(&[first, AS_FOUND].concat());
        let _ = stdout.flush();
        let _ = disable_raw_mode();
    }
}

/// Opens the terminal a second time. The descriptors we were given share their `O_NONBLOCK` flag with
/// the shell; this one has its own.
fn reopen() -> io::Result<File> {
    let name = ttyname(io::stdin().as_fd(), Vec::new())?;
    let name = name.to_str().map_err(io::Error::other)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(Path::new(name))
}
