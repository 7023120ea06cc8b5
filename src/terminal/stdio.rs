//! Standard input and output in an event loop that must not block.
//!
//! Two properties make that hard. The streams are *shared*: the shell, and the other programs of the
//! pipeline, may hold the same open file and with it the same `O_NONBLOCK` flag. So it must not be set;
//! `cat` would stop with "resource temporarily unavailable". And they may be *any file*: epoll refuses
//! regular files and `/dev/null` with `EPERM`, because reading these never blocks.
//!
//! So a [`Source`] reads once, and a [`Sink`] writes a little, when the poll has reported readiness. A
//! file that cannot be polled is always ready. One read of a readable file does not block, nor does a
//! write of up to [`PIPE_BUF`] bytes to a writable pipe (pipe(7)). Other processes may have read or
//! written since the poll, so the kernel is asked once more right before each read and write.
//!
//! mio reports edge-triggered readiness, and there is no edge while data remains. Registering again
//! reports readiness that is already there, so that is done after each read and write.
//!
//! A terminal is reported as writable when it has room for less than [`PIPE_BUF`]. But it can be opened a
//! second time, by its name, for a descriptor that can be non-blocking: [`reopen`]. Each time that a terminal
//! has shown some output it is reported as writable again. A program that was woken by that and wrote would
//! wake itself for ever, so such a descriptor is watched only while it has output that it did not accept.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::ttyname;

/// The bytes that a writable pipe accepts without blocking: the page size of Linux, and the minimum of
/// POSIX elsewhere.
const PIPE_BUF: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Opens a terminal a second time, for a non-blocking descriptor that is not shared.
pub(crate) fn reopen(terminal: impl AsFd) -> io::Result<File> {
    let name = ttyname(terminal, Vec::new())?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(OsStr::from_bytes(name.as_bytes()))
}

/// A `Polled` is a descriptor and its readiness.
#[derive(Debug)]
struct Polled {
    file: File,
    token: Token,
    interest: Interest,
    /// Whether the poll can watch it. Otherwise it is always ready.
    pollable: bool,
    /// Whether the poll watches it.
    watched: bool,
    /// Whether the poll has reported readiness, and it was not used since.
    ready: bool,
}

impl Polled {
    fn new(file: File, registry: &Registry, token: Token, interest: Interest) -> io::Result<Self> {
        let registered = registry.register(&mut SourceFd(&file.as_raw_fd()), token, interest);
        let pollable = match registered {
            Ok(()) => true,
            // The error of epoll for regular files, and of kqueue for some devices.
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
            watched: pollable,
            ready: !pollable,
        })
    }

    /// Returns one that is ready, and not watched before that has changed.
    const fn unwatched(file: File, token: Token, interest: Interest) -> Self {
        Self {
            file,
            token,
            interest,
            pollable: true,
            watched: false,
            ready: true,
        }
    }

    /// Asks the kernel whether it is ready now.
    fn is_ready_now(&self) -> io::Result<bool> {
        if !self.pollable {
            return Ok(true);
        }
        let wanted = if self.interest.is_readable() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        Ok(poll(&mut [PollFd::new(&self.file, wanted)], Some(&now))? > 0)
    }

    /// Makes the poll report readiness again, after a read or a write.
    fn rearm(&mut self, registry: &Registry) -> io::Result<()> {
        if self.pollable {
            self.ready = false;
            let fd = self.file.as_raw_fd();
            let mut source = SourceFd(&fd);
            if self.watched {
                registry.reregister(&mut source, self.token, self.interest)?;
            } else {
                registry.register(&mut source, self.token, self.interest)?;
                self.watched = true;
            }
        }
        Ok(())
    }

    /// Removes it from the poll. Closing it is not enough: the file stays open elsewhere.
    fn unwatch(&mut self, registry: &Registry) {
        if mem::take(&mut self.watched) {
            // If that fails, there are events that are ignored.
            let _ = registry.deregister(&mut SourceFd(&self.file.as_raw_fd()));
        }
    }
}

/// A `Source` is an input that is read without blocking.
#[derive(Debug)]
pub(crate) struct Source(Polled);

impl Source {
    /// Reads from a descriptor of its own for the same open file.
    pub(crate) fn new(fd: impl AsFd, registry: &Registry, token: Token) -> io::Result<Self> {
        let file = File::from(fd.as_fd().try_clone_to_owned()?);
        Polled::new(file, registry, token, Interest::READABLE).map(Self)
    }

    /// Notes an event for it.
    pub(crate) fn note(&mut self) {
        self.0.ready = true;
    }

    /// Whether a read does not block.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.ready
    }

    /// Reads once. `None` if there is nothing to read, zero at the end of the input.
    pub(crate) fn read(
        &mut self,
        registry: &Registry,
        buf: &mut [u8],
    ) -> io::Result<Option<usize>> {
        if !self.0.ready {
            return Ok(None);
        }
        if !self.0.is_ready_now()? {
            self.0.rearm(registry)?;
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
        self.0.rearm(registry)?;
        Ok(read)
    }

    /// Removes it from the poll.
    pub(crate) fn close(mut self, registry: &Registry) {
        self.0.unwatch(registry);
    }
}

/// A `Sink` is an output that is written without blocking.
#[derive(Debug)]
pub(crate) struct Sink {
    polled: Polled,
    /// The most bytes of one write.
    max_write: usize,
    pending: Vec<u8>,
    /// How many bytes of `pending` are written.
    written: usize,
}

impl Sink {
    /// Writes to a descriptor of its own; for a terminal, if possible, one that is not shared.
    pub(crate) fn new(fd: impl AsFd, registry: &Registry, token: Token) -> io::Result<Self> {
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
        let polled = if is_nonblocking {
            Polled::unwatched(file, token, Interest::WRITABLE)
        } else {
            Polled::new(file, registry, token, Interest::WRITABLE)?
        };
        Ok(Self {
            max_write: if is_nonblocking || !polled.pollable {
                usize::MAX
            } else {
                PIPE_BUF
            },
            polled,
            pending: Vec::new(),
            written: 0,
        })
    }

    /// Removes it from the poll.
    pub(crate) fn close(mut self, registry: &Registry) {
        self.polled.unwatch(registry);
    }

    /// Notes an event for it. Fails if the reader at the other end is gone, which a sink with nothing
    /// to write learns only from the event.
    pub(crate) fn note(&mut self, event: &Event) -> io::Result<()> {
        if event.is_error() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.polled.ready = true;
        Ok(())
    }

    /// The buffer of pending output: append to it, then call [`flush`](Self::flush).
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Removes and returns the output that is not written.
    pub(crate) fn take_pending(&mut self) -> Vec<u8> {
        let rest = self.pending.split_off(self.written);
        self.pending.clear();
        self.written = 0;
        rest
    }

    /// The number of pending bytes.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len() - self.written
    }

    /// Whether a write does not block.
    pub(crate) fn is_ready(&self) -> bool {
        self.polled.ready
    }

    /// Writes as much as possible without blocking.
    pub(crate) fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        while self.pending() > 0 && self.polled.ready {
            if self.max_write < usize::MAX && !self.polled.is_ready_now()? {
                self.polled.rearm(registry)?;
                break;
            }
            let rest = &self.pending[self.written..];
            let chunk = &rest[..rest.len().min(self.max_write)];
            match self.polled.file.write(chunk) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.written += written;
                    // A non-blocking output that accepted all of it is still ready.
                    if self.max_write < usize::MAX {
                        self.polled.rearm(registry)?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.polled.rearm(registry)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.pending() == 0 && self.max_write == usize::MAX {
            self.polled.unwatch(registry);
        }
        // Written bytes are removed when they are the greater part, so that few are moved each time.
        if self.written > self.pending.len() / 2 {
            self.pending.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}
