//! TLS where it is not compiled in: there are no files for it, so there are no sessions.

use std::fmt;
use std::time::SystemTime;

use super::records::{Outgoing, Plaintext};

/// The files of the listeners with TLS. There are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFiles {}

/// Why the files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {}

impl fmt::Display for TlsError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl std::error::Error for TlsError {}

#[derive(Debug)]
pub(super) enum Credentials {}

impl Credentials {
    pub(super) fn load(files: &TlsFiles, _: SystemTime) -> Result<Self, TlsError> {
        match *files {}
    }

    pub(super) const fn expires(&self) -> SystemTime {
        match *self {}
    }

    pub(super) fn refuses(&self, _: &Session, _: SystemTime) -> bool {
        match *self {}
    }
}

#[derive(Clone, Debug)]
pub(super) enum Failure {}

impl Failure {
    pub(super) const fn is_other_protocol(&self) -> bool {
        match *self {}
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

#[derive(Debug)]
pub(super) enum Session {}

impl Session {
    pub(super) fn new(credentials: &Credentials, _: bool) -> Result<Self, Failure> {
        match *credentials {}
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(super) fn oversized(&self) -> Failure {
        match *self {}
    }

    pub(super) const fn has_ended(&self) -> bool {
        match *self {}
    }

    pub(super) fn receive(
        &mut self,
        _: &mut [u8],
        _: &mut Plaintext<'_>,
        _: &mut Outgoing,
    ) -> (usize, Result<(), Failure>) {
        match *self {}
    }

    pub(super) fn send(
        &mut self,
        _: &[u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
        _: &mut Outgoing,
    ) -> Result<(), Failure> {
        match *self {}
    }

    pub(super) fn close(
        &mut self,
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
        _: &mut Outgoing,
    ) -> Result<(), Failure> {
        match *self {}
    }

    pub(super) fn client_name(&self) -> Option<Vec<u8>> {
        match *self {}
    }
}
