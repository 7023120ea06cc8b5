//! Standard input and output in an event loop that may not wait for them.
//!
//! Two things stand in the way. They are *not ours alone*: the shell that started us, and whoever
//! else is in the pipeline, may hold the same open file, and with it the same `O_NONBLOCK` flag, so
//! it must not be set; `cat` would stop with "resource temporarily unavailable". And they may be
//! *anything*: epoll refuses regular files and `/dev/null` with `EPERM`, because reading these never
//! waits.
//!
//! So a [`Source`] reads once, and a [`Sink`] writes a little, whenever the poll has said that it is
//! ready, and what cannot be polled is always ready. One read of what is readable does not wait; nor
//! does a write of up to [`PIPE_BUF`] bytes to a pipe that is writable (pipe(7)). Others may have read
//! or written since the poll looked, so right before either the kernel is asked once more.
//!
//! mio reports *edges*, and there is none while data remains. Registering again makes the kernel look
//! again: it reports readiness that is already there, so after each read or write that is what happens.
//!
//! A terminal says that it is writable when there is room for less than any such number. But it can be
//! opened a second time, by its name, for a descriptor that can be non-blocking: [`reopen`].

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::ttyname;

/// How much a pipe that is writable takes without waiting, in bytes: the page size of Linux, and no
/// less than POSIX asks for elsewhere.
const PIPE_BUF: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Opens a terminal a second time, for a non-blocking descriptor that nobody shares.
pub(super) fn reopen(terminal: impl AsFd) -> io::Result<File> {
    let name = ttyname(terminal, Vec::new())?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(OsStr::from_bytes(name.as_bytes()))
}

/// A descriptor and what the poll said of it.
#[derive(Debug)]
struct Polled {
    file: File,
    token: Token,
    interest: Interest,
    /// Whether the poll can watch it. What it cannot is always ready.
    pollable: bool,
    /// Whether the poll has said that it is ready, and nothing was done with it since.
    ready: bool,
}

impl Polled {
    fn new(file: File, registry: &Registry, token: Token, interest: Interest) -> io::Result<Self> {
        let registered = registry.register(&mut SourceFd(&file.as_raw_fd()), token, interest);
        let pollable = match registered {
            Ok(()) => true,
            // What epoll says of regular files, and what kqueue says of some devices.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EPERM | libc::ENODEV | libc::EINVAL)
                ) =>
            {
                false
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            file,
            token,
            interest,
            pollable,
            ready: !pollable,
        })
    }

    /// Whether it is ready in this very moment.
    fn is_ready_now(&self) -> io::Result<bool> {
        if !self.pollable {
            return Ok(true);
        }
        let asked = if self.interest.is_readable() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        Ok(poll(&mut [PollFd::new(&self.file, asked)], Some(&now))? > 0)
    }

    /// Has the poll look again, after a read or a write that may have changed the answer.
    fn look_again(&mut self, registry: &Registry) -> io::Result<()> {
        if self.pollable {
            self.ready = false;
            let fd = self.file.as_raw_fd();
            registry.reregister(&mut SourceFd(&fd), self.token, self.interest)?;
        }
        Ok(())
    }

    /// Has the poll forget it. To close it would not do: the file stays open elsewhere.
    fn close(self, registry: &Registry) {
        if self.pollable {
            // If that fails, there are events that mean nothing to anybody.
            let _ = registry.deregister(&mut SourceFd(&self.file.as_raw_fd()));
        }
    }
}

/// An input that is read without waiting for it.
#[derive(Debug)]
pub(super) struct Source(Polled);

impl Source {
    /// Reads from a descriptor of its own for the same open file.
    pub(super) fn new(fd: impl AsFd, registry: &Registry, token: Token) -> io::Result<Self> {
        let file = File::from(fd.as_fd().try_clone_to_owned()?);
        Polled::new(file, registry, token, Interest::READABLE).map(Self)
    }

    /// Takes note of an event for it.
    pub(super) fn note(&mut self) {
        self.0.ready = true;
    }

    /// Whether a read would not wait.
    pub(super) fn is_ready(&self) -> bool {
        self.0.ready
    }

    /// Reads once. `None` if there is nothing to read, zero at its end.
    pub(super) fn read(
        &mut self,
        registry: &Registry,
        buf: &mut [u8],
    ) -> io::Result<Option<usize>> {
        if !self.0.ready {
            return Ok(None);
        }
        if !self.0.is_ready_now()? {
            self.0.look_again(registry)?;
            return Ok(None);
        }
        let read = match self.0.file.read(buf) {
            Ok(read) => Some(read),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        self.0.look_again(registry)?;
        Ok(read)
    }

    /// Has the poll forget it.
    pub(super) fn close(self, registry: &Registry) {
        self.0.close(registry);
    }
}

/// An output that is written to without waiting for it.
#[derive(Debug)]
pub(super) struct Sink {
    polled: Polled,
    /// How much to write at once, in bytes.
    chunk: usize,
    pending: Vec<u8>,
    /// How much of `pending` has been written.
    written: usize,
}

impl Sink {
    /// Writes to a descriptor of its own: for a terminal, if possible, one that is not shared.
    pub(super) fn new(fd: impl AsFd, registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = fd.as_fd();
        let reopened = if fd.is_terminal() {
            reopen(fd).ok()
        } else {
            None
        };
        let is_nonblocking = reopened.is_some();
        let file = match reopened {
            Some(file) => file,
            None => fd.try_clone_to_owned()?.into(),
        };
        let polled = Polled::new(file, registry, token, Interest::WRITABLE)?;
        Ok(Self {
            chunk: if is_nonblocking || !polled.pollable {
                usize::MAX
            } else {
                PIPE_BUF
            },
            polled,
            pending: Vec::new(),
            written: 0,
        })
    }

    /// Has the poll forget it.
    pub(super) fn close(self, registry: &Registry) {
        self.polled.close(registry);
    }

    /// Takes note of an event for it. Fails if nobody reads at the other end any more, which is how
    /// one that has nothing to write gets to know.
    pub(super) fn note(&mut self, event: &Event) -> io::Result<()> {
        if event.is_error() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.polled.ready = true;
        Ok(())
    }

    /// What is to be written: append to it, then [`flush`](Self::flush).
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Takes back what is not written.
    pub(super) fn take_pending(&mut self) -> Vec<u8> {
        let rest = self.pending.split_off(self.written);
        self.pending.clear();
        self.written = 0;
        rest
    }

    /// How many bytes wait to be written.
    pub(super) fn pending(&self) -> usize {
        self.pending.len() - self.written
    }

    /// Whether a write would not wait.
    pub(super) fn is_ready(&self) -> bool {
        self.polled.ready
    }

    /// Writes what can be written without waiting.
    pub(super) fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        while self.pending() > 0 && self.polled.ready {
            if self.chunk < usize::MAX && !self.polled.is_ready_now()? {
                self.polled.look_again(registry)?;
                break;
            }
            let rest = &self.pending[self.written..];
            let chunk = &rest[..rest.len().min(self.chunk)];
            match self.polled.file.write(chunk) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.written += written;
                    // All of it was taken by an output that would have said if it could not: there
                    // is room still.
                    if self.chunk < usize::MAX {
                        self.polled.look_again(registry)?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.polled.look_again(registry)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // What is written goes once it is the greater part, so that little is moved each time.
        if self.written > self.pending.len() / 2 {
            self.pending.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}
