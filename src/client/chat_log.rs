//! The file to which a chat is logged while it goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;

use super::display::{Clock, Format, write_line};
use super::incoming::Received;

/// A `ChatLog` appends each message that is shown to a file, as a line with its date and time.
#[derive(Debug)]
pub struct ChatLog {
    file: File,
    clock: Clock,
}

impl ChatLog {
    /// Opens a file, or creates one that only its owner may read.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or is a pipe without a reader.
    pub fn open(path: &Path, clock: Clock) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            // A pipe must not block the loop.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        Ok(Self { file, clock })
    }

    /// Appends a message.
    pub(super) fn write(&mut self, message: &Received<'_>, time: Timestamp) -> io::Result<()> {
        let mut line = Vec::new();
        self.clock.write(&mut line, "%Y-%m-%d %H:%M:%S ", time)?;
        write_line(&mut line, Format::Plain, None, message, false)?;
        self.file.write_all(&line)
    }
}
