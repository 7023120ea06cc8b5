//! The keyboard of a terminal in raw mode: what is typed, without waiting for it.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use mio::{Registry, Token};

use super::keys::{ESCAPE_DELAY, Input, KeyDecoder};
use super::stdio::Source;

/// The most bytes of one read. A key is a few, a paste can be many.
const MAX_READ_BYTES: usize = 4096;

/// A `Keyboard` reads keys and pastes.
#[derive(Debug)]
pub(crate) struct Keyboard {
    source: Source,
    keys: KeyDecoder,
    /// The time at which an ESC that may begin a sequence counts as the Escape key.
    escape_at: Option<Instant>,
}

impl Keyboard {
    /// Reads from this terminal.
    pub(crate) fn new(terminal: impl AsFd, registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self {
            source: Source::new(terminal, registry, token)?,
            keys: KeyDecoder::default(),
            escape_at: None,
        })
    }

    /// Notes an event for it.
    pub(crate) fn note(&mut self) {
        self.source.note();
    }

    /// When to [`read`](Self::read) at the latest.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.escape_at
    }

    /// Whether a paste has begun and not ended.
    pub(crate) const fn is_pasting(&self) -> bool {
        self.keys.is_pasting()
    }

    /// Reads once. `None` if the terminal is gone.
    pub(crate) fn read(
        &mut self,
        registry: &Registry,
        now: Instant,
    ) -> io::Result<Option<Vec<Input>>> {
        let mut inputs = Vec::new();
        let mut buf = [0; MAX_READ_BYTES];
        match self.source.read(registry, &mut buf) {
            Ok(Some(0)) => return Ok(None),
            Ok(Some(read)) => {
                self.keys.feed(&buf[..read], |input| inputs.push(input));
                self.escape_at = self.keys.is_undecided().then(|| now + ESCAPE_DELAY);
            }
            // Only when there is nothing to read: the rest of a sequence may have arrived.
            Ok(None) if self.escape_at.is_some_and(|at| at <= now) => {
                self.keys.timeout(|input| inputs.push(input));
                self.escape_at = None;
            }
            Ok(None) => {}
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(inputs))
    }
}
