//! The terminal itself: taken in raw mode, and given back as it was found.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpgrp, getppid, getsid, kill_current_process_group};
use rustix::termios::tcgetwinsize;
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use super::stdio::reopen;

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

/// The terminal's device, while the terminal is in our hands. For the whole process, as the terminal
/// is: a panic hook has nothing else to go by.
static TAKEN: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// The terminal that standard input and output both are.
///
/// It is in raw mode while this exists, but for the time in which the process is stopped. However
/// the process ends, it has to leave the terminal as it was: on a return and on a panic that unwinds,
/// dropping this does it; on a panic that aborts, a hook calls [`give_back`]; signals are events of
/// the loop. What is left is SIGKILL.
#[derive(Debug)]
pub(super) struct Terminal {
    device: OwnedFd,
}

impl Terminal {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Self> {
        let device = match reopen(io::stdin()) {
            Ok(device) => device.into(),
            // It may belong to somebody else, after `su`.
            Err(_) => io::stdout().as_fd().try_clone_to_owned()?,
        };
        let terminal = Self { device };
        terminal.enter()?;
        Ok(terminal)
    }

    /// The terminal's device.
    pub(super) fn device(&self) -> impl AsFd {
        &self.device
    }

    /// Its size in rows and columns; zeros if it does not know.
    pub(super) fn size(&self) -> (u16, u16) {
        tcgetwinsize(&self.device).map_or((0, 0), |size| (size.ws_row, size.ws_col))
    }

    /// Puts it into raw mode, whatever mode it is in: a shell has changed it if we were stopped by
    /// SIGSTOP, of which nobody is told.
    pub(super) fn enter(&self) -> io::Result<()> {
        disable_raw_mode()?;
        enable_raw_mode()?;
        if let Ok(mut taken) = TAKEN.lock() {
            *taken = Some(self.device.try_clone()?);
        }
        write_all(&self.device, PASTES_MARKED)
    }

    /// Asks for the whole process group to be stopped, as Ctrl-Z does where the terminal sees to it.
    /// Returns whether there is anybody who could continue it: a shell that has given this job a group
    /// of its own. Where the group is the session's first, the kernel would not stop it either.
    pub(super) fn ask_to_stop() -> io::Result<bool> {
        let session = getsid(None)?;
        let has_shell = getpgrp() != session
            && getppid().is_some_and(|parent| getsid(Some(parent)) == Ok(session));
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

    /// Writes, waiting for a terminal that is slow, but not for one that is stuck. For the end, when
    /// there is nothing else to do.
    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        write_all(&self.device, bytes)
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

/// Gives the terminal back, if it was taken, and writes `first` before the rest.
fn restore(first: &[u8]) {
    // A panic hook must not wait for a lock that the panic has left behind.
    let taken = TAKEN.try_lock().ok().and_then(|mut taken| taken.take());
    if let Some(device) = taken {
        // If the terminal is gone, there is nobody left to care.
        let _ = disable_raw_mode();
        let _ = write_all(&device, &[first, AS_FOUND].concat());
    }
}

fn write_all(device: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // Asked for first, because the device may be one that blocks.
        match poll(&mut [PollFd::new(device, PollFlags::OUT)], Some(&PATIENCE)) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::io::write(device, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
