//! The terminal: raw mode, job control, and restoring the modes that it had.

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

/// The modes of a program on a terminal, which it enters in raw mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modes {
    /// Output is lines, which scroll.
    Lines,
    /// Output is a screen of its own, without a cursor. What was on the terminal comes back after it.
    FullScreen,
}

impl Modes {
    /// Switches bracketed paste on, and what else these modes need: lines have their terminal report
    /// whether its window is focused.
    const fn enter(self) -> &'static [u8] {
        match self {
            Self::Lines => b"\x1b[?2004h\x1b[?1004h",
            Self::FullScreen => b"\x1b[?2004h\x1b[?1049h\x1b[?25l",
        }
    }

    /// Switches that and attributes off, and the cursor on.
    const fn leave(self) -> &'static [u8] {
        match self {
            Self::Lines => b"\x1b[?1004l\x1b[?2004l\x1b[0m\x1b[?25h",
            Self::FullScreen => b"\x1b[?2004l\x1b[0m\x1b[?25h\x1b[?1049l",
        }
    }
}

/// Moves to the row after the cursor, and clears it and all below.
const TO_NEXT_ROW: &[u8] = b"\r\n\x1b[J";

/// A terminal that accepts nothing for this time is stuck.
const WRITE_TIMEOUT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// The terminal's device while it is in raw mode. It is global because a panic hook needs it.
static RAW_DEVICE: Mutex<Option<(OwnedFd, Modes)>> = Mutex::new(None);

/// A `Terminal` holds the terminal of standard input and output in raw mode.
///
/// The terminal is not in raw mode while the process is stopped. Every way to end restores it: a return
/// and a panic that unwinds by dropping this, a panic that aborts by a hook that calls
/// [`restore_terminal`], and signals as events of the loop. Only SIGKILL does not.
#[derive(Debug)]
pub(crate) struct Terminal {
    device: OwnedFd,
    modes: Modes,
}

impl Terminal {
    /// Puts the terminal into raw mode and into these modes.
    pub(crate) fn open(modes: Modes) -> io::Result<Self> {
        let device = match reopen(io::stdin()) {
            Ok(device) => device.into(),
            // It may belong to another user, after `su`.
            Err(_) => io::stdout().as_fd().try_clone_to_owned()?,
        };
        let terminal = Self { device, modes };
        terminal.enter()?;
        Ok(terminal)
    }

    /// The terminal's device.
    pub(crate) fn device(&self) -> impl AsFd {
        &self.device
    }

    /// The size in rows and columns; zeros if it is not known.
    pub(crate) fn size(&self) -> (u16, u16) {
        tcgetwinsize(&self.device).map_or((0, 0), |size| (size.ws_row, size.ws_col))
    }

    /// Enters raw mode, whatever mode the terminal is in: a shell changes it while the process is
    /// stopped, and SIGSTOP cannot be caught.
    pub(crate) fn enter(&self) -> io::Result<()> {
        disable_raw_mode()?;
        enable_raw_mode()?;
        if let Ok(mut device) = RAW_DEVICE.lock() {
            *device = Some((self.device.try_clone()?, self.modes));
        }
        write_all(&self.device, self.modes.enter())
    }

    /// Sends SIGTSTP to the process group, as Ctrl-Z does outside raw mode. Returns whether there is a
    /// shell that can continue it, which has given this job a group of its own. The kernel does not
    /// stop the first group of a session either.
    pub(crate) fn suspend() -> io::Result<bool> {
        let session = getsid(None)?;
        let has_shell = getpgrp() != session
            && getppid().is_some_and(|parent| getsid(Some(parent)) == Ok(session));
        if has_shell {
            kill_current_process_group(Signal::TSTP)?;
        }
        Ok(has_shell)
    }

    /// Restores the terminal and stops until SIGCONT arrives.
    pub(crate) fn stop() -> io::Result<()> {
        restore(b"");
        emulate_default_handler(SIGTSTP)
    }

    /// Writes and waits for a terminal that is slow, but not for one that is stuck. It is for the end of
    /// the program, when there is nothing else to do.
    pub(crate) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        write_all(&self.device, bytes)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore(b"");
    }
}

/// Restores the terminal if a client has put it into raw mode. It is for a panic hook, which can write
/// its message after that.
pub fn restore_terminal() {
    restore(TO_NEXT_ROW);
}

/// Restores the terminal if it is in raw mode, and writes `first` before that.
fn restore(first: &[u8]) {
    // A panic hook must not wait for a lock that the panic has left locked.
    let device = RAW_DEVICE
        .try_lock()
        .ok()
        .and_then(|mut device| device.take());
    if let Some((device, modes)) = device {
        // If the terminal is gone, there is nothing to restore.
        let _ = disable_raw_mode();
        let _ = write_all(&device, &[first, modes.leave()].concat());
    }
}

fn write_all(device: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // The poll comes first, because the device may be one that blocks.
        match poll(
            &mut [PollFd::new(device, PollFlags::OUT)],
            Some(&WRITE_TIMEOUT),
        ) {
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
