//! TLS where it is not compiled in: there are no files for it, so there are no sessions.

use std::fmt;
use std::time::SystemTime;

use super::records::{Outgoing, Plaintext};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Never {}

/// The files of the listeners with TLS. There are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles(Never);

impl TlsFiles {
    pub(super) const fn demands_certificates(&self) -> bool {
        match self.0 {}
    }
}

/// Why the files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(Never);

impl fmt::Display for TlsError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl std::error::Error for TlsError {}

#[derive(Debug)]
pub(super) struct Credentials(Never);

impl Credentials {
    pub(super) fn load(files: &TlsFiles, _: SystemTime) -> Result<Self, TlsError> {
        match files.0 {}
    }

    pub(super) const fn expires(&self) -> SystemTime {
        match self.0 {}
    }

    pub(super) fn refuses(&self, _: &Session, _: SystemTime) -> bool {
        match self.0 {}
    }
}

#[derive(Clone, Debug)]
pub(super) struct Failure(Never);

impl Failure {
    pub(super) const fn is_other_protocol(&self) -> bool {
        match self.0 {}
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(super) struct Session(Never);

impl Session {
    pub(super) fn new(credentials: &Credentials, _: bool, _: u32) -> Result<Self, Failure> {
        match credentials.0 {}
    }

    pub(super) const fn generation(&self) -> u32 {
        match self.0 {}
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn oversized(&self) -> Failure {
        match self.0 {}
    }

    pub(super) const fn has_ended(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn receive(
        &mut self,
        _: &mut [u8],
        _: &mut Plaintext<'_>,
        _: &mut Outgoing,
    ) -> (usize, Result<(), Failure>) {
        match self.0 {}
    }

    pub(super) fn send(
        &mut self,
        _: &[u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
        _: &mut Outgoing,
    ) -> Result<(), Failure> {
        match self.0 {}
    }

    pub(super) fn close(
        &mut self,
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
        _: &mut Outgoing,
    ) -> Result<(), Failure> {
        match self.0 {}
    }

    pub(super) fn client_name(&self) -> Option<Vec<u8>> {
        match self.0 {}
    }
}
