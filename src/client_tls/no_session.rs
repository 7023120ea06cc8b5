//! TLS of the client where it is not compiled in: there is no connector, so there are no sessions.

use std::io::{self, IoSlice, Read, Write};

use super::trust::Refusal;

/// A `Connector` begins sessions with one server. There is none.
#[derive(Clone, Debug)]
pub enum Connector {}

impl Connector {
    /// The latest refusal of the server. There is none.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match *self {}
    }

    pub(super) fn begin(&self) -> io::Result<Session> {
        match *self {}
    }
}

#[derive(Debug)]
pub(super) enum Session {}

impl Session {
    pub(super) const fn is_shaking_hands(&self) -> bool {
        match *self {}
    }

    pub(super) fn shake_hands(&mut self, _: &mut (impl Read + Write)) -> io::Result<bool> {
        match *self {}
    }

    pub(super) fn read(&mut self, _: &mut (impl Read + Write), _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn write(&mut self, _: &mut impl Write, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn close(&mut self) {
        match *self {}
    }

    pub(super) const fn pending(&self) -> usize {
        match *self {}
    }

    pub(super) fn send_pending(&mut self, _: &mut impl Write) -> io::Result<()> {
        match *self {}
    }
}
